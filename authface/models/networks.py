"""Restorers that are one file: those known by name (`networks.toml`), and files of one's own, read by spandrel.

A known file lies in a folder of the user's cache, or that of AUTHFACE_NETWORKS, under the name its makers gave it; who
has no network puts it there by hand. AUTHFACE_MIRROR is an address that has the files under the same names.

spandrel knows a network by its weights; only tensors are read, no pickled code. It is MIT; the package of its further
architectures, such as CodeFormer's, is under the terms of each.
"""

from __future__ import annotations

import os
import pickle
import re
import tomllib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from safetensors import SafetensorError

from authface.console import Console
from authface.errors import AuthfaceError, UsageError, first_line, one_line
from authface.extras import lack, need
from authface.files import TEMPORARY, sha256_of_weights, write_file
from authface.models.layout import Commercial, in_bytes
from authface.web.http import Offer, download

STATE_DICTS = (".safetensors", ".pth", ".pt", ".ckpt")
"""Endings of files that hold a state dict."""
ENDINGS = (".onnx", *STATE_DICTS)
FOLDER = "AUTHFACE_NETWORKS"
MIRROR = "AUTHFACE_MIRROR"
_HUB = "https://huggingface.co/"


@dataclass(frozen=True)
class Window:
    """Which square of FFHQ's crop a network sees: `side` pixels from (`left`, `top`) on in a crop of `crop`."""

    crop: int
    left: int
    top: int


@dataclass(frozen=True)
class Network:
    """A restorer known by name."""

    name: str
    file: str
    bytes: int
    licence: str
    commercial: Commercial
    addresses: tuple[str, ...]
    sha256: str = ""
    """Hex; empty where none was observed."""
    observed: str = ""
    """By whom, since its makers publish none."""
    side: int = 512
    """Of what it sees, pixels."""
    window: Window | None = None
    """None: it sees all of FFHQ's crop."""
    fidelity: Literal["weight", "blend"] = "blend"
    also: str = ""
    """Another name of it."""

    @classmethod
    def of(cls, name: str, entry: Mapping[str, Any]) -> Self:
        """Of a table of networks.toml."""
        window = Window(*entry["window"]) if "window" in entry else None
        return cls(name, **{**entry, "addresses": tuple(entry["addresses"]), "window": window})

    @property
    def path(self) -> Path:
        """Where its file lies, or will."""
        return folder() / self.file

    @property
    def downloaded_bytes(self) -> int:
        """Bytes of its file that are here, of a download that was cut too."""
        part = self.path.with_name(f"{TEMPORARY}{self.file}")
        return next((path.stat().st_size for path in (self.path, part) if path.is_file()), 0)


@dataclass(frozen=True)
class NetworkFile:
    """A restorer's file on this machine, read once to know it by its content."""

    path: Path
    sha256: str
    network: Network | None
    """Which it is; None for a file of one's own."""

    @property
    def name(self) -> str:
        """How the user knows it."""
        return self.network.name if self.network else one_line(self.path.name, 80)


def _read() -> dict[str, Network]:
    tables = tomllib.loads(resources.files("authface.models").joinpath("networks.toml").read_text("utf-8"))
    return {name: Network.of(name, entry) for name, entry in tables.items()}


NETWORKS = _read()


def known(name: str) -> Network | None:
    """The network of that name, or of that other name."""
    return next((one for one in NETWORKS.values() if name and name in {one.name, one.also}), None)


def is_network(name: str) -> bool:
    """Whether `name` stands for a restorer of one file: a known one, or a file by its ending."""
    return known(name) is not None or (Path(name).suffix.lower() in ENDINGS and not Path(name).is_dir())


def folder() -> Path:
    """Where files of known networks lie: AUTHFACE_NETWORKS, else ``authface/networks`` in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return Path(os.environ.get(FOLDER) or cache / "authface" / "networks").expanduser()


def addresses(network: Network) -> list[str]:
    """Where its file is asked for: the mirror alone if there is one, and the hub's files at HF_ENDPOINT."""
    from huggingface_hub import constants

    if mirror := os.environ.get(MIRROR):
        return [f"{mirror.rstrip('/')}/{network.file}"]
    hub = constants.ENDPOINT.rstrip("/") + "/"
    return [one.replace(_HUB, hub, 1) if one.startswith(_HUB) else one for one in network.addresses]


def find(name: str, console: Console) -> NetworkFile:
    """The file that `name` stands for, downloaded if it is a known one's and not here yet.

    Raises UsageError for a file that is not there, AuthfaceError for a known one that cannot be had or is another file.
    """
    network = known(name)
    if network is not None:
        return fetch(network, console)
    path = Path(name).expanduser()
    if not path.is_file():
        raise UsageError(f"--model {one_line(name)}: no such file; known by name are {', '.join(NETWORKS)}")
    try:
        digest = sha256_of_weights(path)
    except OSError as error:
        raise UsageError(f"--model {one_line(name)}: {error.strerror or type(error).__name__}") from error
    return NetworkFile(path, digest, next((one for one in NETWORKS.values() if one.sha256 == digest), None))


def fetch(network: Network, console: Console) -> NetworkFile:
    """The network's file, downloaded if it is not here, and checked. Raises AuthfaceError."""
    from huggingface_hub import constants

    by_hand = f"put {network.file} ({network.bytes:,} bytes) into {one_line(folder())}"
    if not network.path.is_file():
        if constants.HF_HUB_OFFLINE:
            raise AuthfaceError(
                f"{network.name} is not on this machine and HF_HUB_OFFLINE is set: unset it, or {by_hand}"
            )
        _download(network, console, f"check the connection, set {MIRROR} to an address that has it, or {by_hand}")
    return NetworkFile(network.path, check(network, console), network)


def _download(network: Network, console: Console, advice: str) -> None:
    offer = Offer(network.file, network.bytes, network.sha256, addresses(network), advice)
    console.log(
        f"{network.name}: {in_bytes(network.bytes)} to {one_line(network.path)}; licence {network.licence}; "
        f"commercial use: {network.commercial}"
    )
    shown = network.downloaded_bytes // 1_000_000
    with console.progress(f"download {network.name}", network.bytes // 1_000_000, "MB") as tick:
        tick(shown)

        def arrived(count: int) -> None:
            nonlocal shown
            if count // 1_000_000 > shown:
                tick(count // 1_000_000 - shown)
                shown = count // 1_000_000

        download(offer, folder(), arrived, console.log)


def check(network: Network, console: Console) -> str:
    """Hex sha256 of the network's file, which is the known one, or that of its first sight, which is recorded.

    Raises AuthfaceError for another file.
    """
    path, again = network.path, f"delete it, then authface models pull {network.name}"
    try:
        if (size := path.stat().st_size) != network.bytes:
            raise AuthfaceError(f"{one_line(path)} has {size:,} bytes, {network.name} has {network.bytes:,}: {again}")
        digest = sha256_of_weights(path)
    except OSError as error:
        raise AuthfaceError(f"cannot read {one_line(path)}: {error.strerror or type(error).__name__}") from error
    expected, whose = network.sha256, f"observed by {network.observed}"
    if not expected:
        expected, whose = recorded(path), "recorded when it first came"
    if not expected:
        _record(path, digest, network, console)
    elif digest != expected:
        raise AuthfaceError(f"{one_line(path)} has sha256 {digest[:12]}…, {expected[:12]}… was {whose}: {again}")
    return digest


def recorded(path: Path) -> str:
    """The sha256 that was recorded when the file first came, in the format of `sha256sum`; empty if none was."""
    try:
        word = _beside(path).read_text("utf-8").split()[0].lower()
    except (OSError, ValueError, IndexError):
        return ""
    return word if len(word) == 64 and set(word) <= set("0123456789abcdef") else ""


def _record(path: Path, digest: str, network: Network, console: Console) -> None:
    note = f"{network.name}: nobody has published a sha256 of {network.file}; that of this file is {digest}"
    try:
        write_file(_beside(path), f"{digest}  {path.name}\n".encode())
    except AuthfaceError as error:
        return console.log(f"{note} and cannot be recorded: {first_line(error, 160)}")
    console.log(f"{note}, recorded in {one_line(_beside(path))}: another will be refused")


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def load_network(file: Path, what: str, extra: str) -> Any:
    """spandrel's description of the network in `file`, on the CPU, in eval mode.

    `what` begins an error's line, such as ``restore.upscaler=x.pth``; `extra` is authface's that brings spandrel.
    Raises UsageError for a file that holds no network that spandrel knows, and where spandrel is not installed.
    """
    need(what, extra, "torch", "spandrel")
    import spandrel

    if file.suffix.lower() not in STATE_DICTS:
        raise UsageError(f"{what}: it is a file of {', '.join(STATE_DICTS)}")
    if not file.is_file():
        raise UsageError(f"{what}: no such file")
    further = _further()
    try:
        weights = spandrel.canonicalize_state_dict(read_tensors(file))
        registry = spandrel.MAIN_REGISTRY.copy()
        registry.add(*further)
        return spandrel.ModelLoader(registry=registry).load_from_state_dict(weights).eval()
    except UnreadableError as error:
        raise UsageError(f"{what} cannot be read: {error}") from error
    except spandrel.UnsupportedModelError as error:
        lacking = lack("; CodeFormer", extra, "spandrel_extra_arches") if extra == "restorers" and not further else ""
        raise UsageError(f"{what} is no network that spandrel knows by its tensors{lacking}") from error
    except Exception as error:  # what spandrel's architectures raise for tensors that do not fit has no common class
        raise UsageError(f"{what} is no network that spandrel can make: {first_line(error, 120)}") from error


class UnreadableError(Exception):
    """Why a file's tensors cannot be read, in a few words."""


def read_tensors(file: Path) -> dict[str, Any]:
    """What a file holds, its tensors on the CPU. Raises UnreadableError; no code in a pickle is run."""
    import torch
    from safetensors.torch import load_file

    try:
        if file.suffix.lower() == ".safetensors":
            return dict(load_file(file))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle's protocol
            held = torch.load(file, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise UnreadableError(f"it is no safetensors file, or was cut ({first_line(error, 60)})") from error
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise UnreadableError(
            f"it asks for the code {code[1]}, which is not run: a file of tensors alone is read"
            if code
            else "it is no file that torch saved, or was cut: get it again"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, UnicodeDecodeError, AttributeError) as error:
        raise UnreadableError("it is no file that torch saved, or was cut: get it again") from error
    if not isinstance(held, dict):
        raise UnreadableError(f"it holds a {type(held).__name__}, not a state dict")
    return held


def _further() -> list[Any]:
    """Architectures of the package spandrel-extra-arches, if it is installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it still uses torch.jit.script
            from spandrel_extra_arches import EXTRA_REGISTRY
    except ImportError:
        return []
    return list(EXTRA_REGISTRY)
