"""Restorers of aligned faces: a model by name or file, or the identity."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from authface.console import Console
from authface.errors import AuthfaceError, UsageError, one_line
from authface.extras import lack, need
from authface.faces.geometry import Side
from authface.files import sha256_of
from authface.models import hub_cache, networks
from authface.models.families import BUILTIN, ModelSource, fetch, other_restorers, resolve
from authface.models.layout import MANIFEST, OWN_PRESETS, PARTS, onnx_files
from authface.models.networks import NetworkFile
from authface.models.sampling import PAPER_SIZE
from authface.restore.model.crops import ColourFix
from authface.restore.model.network import VERSION as NETWORK_VERSION
from authface.restore.model.network import LoadedNetwork
from authface.restore.model.onnx import LoadedGraphs, choose
from authface.restore.model.placement import placement_of
from authface.restore.settings import RestoreSettings

IDENTITY = "identity"


class CropRestorer(Protocol):
    """A restorer of aligned faces: a diffusion family, or any other function from crops to crops."""

    @property
    def side(self) -> Side:
        """Size of the crops that it takes and returns."""
        ...

    @property
    def colour(self) -> ColourFix:
        """How its faces take the colours of their inputs, unless the settings specify it."""
        ...

    def restore(
        self, crops: Sequence[NDArray[np.uint8]], seeds: Sequence[int], fidelity: float | None = None
    ) -> Sequence[NDArray[np.uint8]]:
        """Restored (side, side, 3) uint8 RGB crops, each as large as its own crop.

        A result depends on its crop and its seed alone. `fidelity` 0..1 is that of the settings unless given.
        """
        ...


def checked_crops(
    restored: Iterable[NDArray[np.uint8]] | None, crops: Sequence[NDArray[np.uint8]], name: str
) -> list[NDArray[np.uint8]]:
    """What a restorer, of any package, made of `crops`. Raises AuthfaceError where that is something else."""
    made = [] if restored is None else list(restored)
    kinds = [[f"{np.asarray(one).dtype} {np.shape(one)}" for one in every] for every in (made, crops)]
    fault = "" if len(made) == len(crops) else f"{len(made)} faces for {len(crops)} crops"
    for after, before in zip(*kinds, strict=False):
        if after != before:
            fault = fault or f"{after} for a crop of {before}"
    if fault:
        raise AuthfaceError(f"the restorer {one_line(name)} gives {fault}: it has to give each crop restored, as large")
    return made


@dataclass(frozen=True)
class Identity:
    """Returns faces unchanged: the result shows the effect of detection, alignment and pasting on a photo."""

    side: Side = Side(PAPER_SIZE)
    colour: ColourFix = "none"

    @classmethod
    def make(cls, settings: RestoreSettings, device: str) -> Self:
        """A restorer of the settings' size."""
        return cls(Side(settings.size or PAPER_SIZE))

    def restore(
        self, crops: Sequence[NDArray[np.uint8]], seeds: Sequence[int], fidelity: float | None = None
    ) -> Sequence[NDArray[np.uint8]]:
        """The crops as they are."""
        return crops


@dataclass(frozen=True)
class RestorerFiles:
    """A model on disk, not yet loaded: its origin, and a digest by which a later run recognises it."""

    source: ModelSource | NetworkFile
    digest: str

    @property
    def name(self) -> str:
        """Its public name: of a file or folder of the user's, the last part of its path."""
        source = self.source
        if isinstance(source, NetworkFile) or not source.local:
            return source.name
        return "authface-tiny" if source.name == "tiny" else one_line(Path(source.location).name, 80)

    @property
    def version(self) -> str:
        """Identifies its weights on any machine: the beginning of their sha256, or of their manifest's."""
        if isinstance(self.source, NetworkFile):
            return f"sha256 {self.digest[:12]}"
        manifest = fetch(self.source, PARTS) / MANIFEST
        return f"weights.json {sha256_of(manifest)[:12]}" if manifest.is_file() else ""


class Loaded(Protocol):
    """A model's weights in memory, for restorers with many settings: a family, its graphs, or one network."""

    def restorer(self, settings: RestoreSettings) -> CropRestorer:
        """A restorer with these settings. Raises AuthfaceError if the model is broken or does not fit."""
        ...


def builtin_is_missing(name: str) -> bool:
    """Whether `name` is the built-in model and this version ships without its weights."""
    return name == "tiny" and not (BUILTIN / "controlnet").is_dir()


def find_weights(name: str, console: Console | None = None) -> RestorerFiles:
    """The files of the model `name`, downloaded if need be.

    A network's digest is that of its content; a family's is of its files' names, sizes and times: reading 19 GB
    would take longer than restoring a photo. Raises UsageError for an unknown name, AuthfaceError if files
    are unavailable.
    """
    if networks.is_network(name):
        network = networks.known(name)
        if network is not None and network.path.suffix in networks.STATE_DICTS:  # before it is downloaded
            lacking = lack(f"--model {network.name}", "restorers", "torch", "spandrel")
            graph = networks.known(f"{network.name}-onnx")
            if lacking:
                raise UsageError(lacking + (f", or --model {graph.name}, which runs without" if graph else ""))
        file = networks.find(name, console or Console())
        return RestorerFiles(file, f"{file.sha256} {NETWORK_VERSION}")
    source = resolve(name, others=other_restorers())
    here = None if source.local else hub_cache.cached(source.location)
    if not source.local and not (here and onnx_files(here.folder)):  # before 14 GB are downloaded
        need(f"--model {one_line(name)}", "restore", "torch", "diffusers", "transformers")
    folder = fetch(source, PARTS)
    digest = hashlib.sha256()
    files = [path for part in PARTS for path in (folder / part).glob("*")]
    for path in sorted(path for path in (*files, folder / OWN_PRESETS) if path.is_file()):
        facts = path.stat()
        digest.update(f"{path.relative_to(folder)} {facts.st_size} {facts.st_mtime_ns}\n".encode("utf-8", "replace"))
    return RestorerFiles(source, digest.hexdigest())


def load_restorer(files: RestorerFiles, settings: RestoreSettings, device_name: str) -> CropRestorer:
    """The model, ready to restore on ``--device``. Raises AuthfaceError if it is broken or does not fit."""
    return load_weights(files, settings, device_name).restorer(settings)


def runs_graphs(files: RestorerFiles, settings: RestoreSettings, device_name: str) -> bool:
    """Whether a family's graphs in ONNX Runtime are used; raises UsageError as `choose` does."""
    if isinstance(files.source, NetworkFile):
        return False
    return choose(fetch(files.source, PARTS), settings, device_name) is not None


def weights_key(files: RestorerFiles, settings: RestoreSettings, device_name: str) -> Hashable:
    """Everything on which weights in memory depend: restorers with equal keys may share them."""
    if isinstance(files.source, NetworkFile):
        return files.digest, device_name
    graphs = choose(fetch(files.source, PARTS), settings, device_name)
    return files.digest, placement_of(settings, device_name) if graphs is None else (device_name, graphs.weights)


def load_weights(files: RestorerFiles, settings: RestoreSettings, device_name: str) -> Loaded:
    """The model's weights. Raises AuthfaceError as `load_restorer` does."""
    if isinstance(files.source, NetworkFile):
        return LoadedNetwork(files.source, device_name)
    folder = fetch(files.source, PARTS)
    graphs = choose(folder, settings, device_name)
    if graphs is not None:
        return LoadedGraphs(folder, graphs, device_name)
    placement = placement_of(settings, device_name)
    from authface.restore.model.diffusion import LoadedModel

    return LoadedModel(files.source, placement)


def face_seed(content: str, index: int, seed: int) -> int:
    """The seed, 0..2^63-1, of face `index` (0 is the largest) of the photo whose bytes hash to `content`.

    It does not depend on the file's name, the batch, the order, or the other faces that are restored.
    """
    digest = hashlib.sha256(f"{content}-{index}-{seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
