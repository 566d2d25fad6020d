"""Restorers of one network: an ONNX graph, or a state dict that spandrel knows. Crops in, crops out, a face at a time.

Each takes and gives RGB of -1..1, as GFPGAN, CodeFormer, RestoreFormer and GPEN do, of a face in FFHQ's crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.devices import pick_device, session
from authface.errors import AuthfaceError, UsageError, first_line, one_line
from authface.faces.geometry import Side
from authface.models.networks import NetworkFile, Window, load_network
from authface.restore.model.crops import ColourFix, OnStep, to_uint8
from authface.restore.settings import RestoreSettings

Image = NDArray[np.float32]
"""(1, 3, side, side), RGB of -1..1."""

VERSION = 2
"""Increased when the same file and settings give other pixels: earlier results are then made again."""
USUAL_SIDE = 512
"""Side of a graph that leaves it open, pixels."""
FEATHER = 0.06
"""Width of a window's feathered edge, relative to its side: the network's output fades into FFHQ's crop around it."""
OF_DIFFUSION = (
    "preset", "steps", "scheduler", "strength", "guidance", "reuse", "prompt", "negative_prompt", "size", "dtype",
    "tiling", "offload", "compile", "graphs",
)  # fmt: skip
"""Settings of diffusion models, which a network of one pass ignores."""
_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_DRAWS = (b"RandomNormal", b"RandomUniform", b"Bernoulli", b"Multinomial")
"""Prefixes of ONNX operators with random results."""


class FaceNetwork(Protocol):
    """A network from faces to faces."""

    engine: str
    """What runs it, as logs name it."""
    side: int
    """Side of its input, pixels."""
    weighted: bool
    """It has an input `weight`, 0..1, for its closeness to the face."""

    def __call__(self, face: Image, seed: int, weight: float) -> Image:
        """The restored face; its randomness depends on `seed` alone."""
        ...


def refuse_unused(settings: RestoreSettings) -> None:
    """Raise UsageError for the first changed setting that a network of one pass ignores."""
    for name in OF_DIFFUSION:
        value = getattr(settings, name)
        if value != RestoreSettings.model_fields[name].default:
            raise UsageError(
                f"restore.{name}={one_line(value, 60)} is of diffusion models: {one_line(settings.model, 80)} has no "
                "use for it, leave it out"
            )


class LoadedNetwork:
    """A network in memory, for restorers of any settings."""

    def __init__(self, file: NetworkFile, device: str) -> None:
        self.file = file
        graph = file.path.suffix.lower() == ".onnx"
        self.network: FaceNetwork = OnnxNetwork(file, device) if graph else TorchNetwork(file, device)
        known = file.network
        if known and (self.network.side, self.network.weighted) != (known.side, known.fidelity == "weight"):
            raise AuthfaceError(
                f"{one_line(file.path)} takes faces of {self.network.side} px"
                f"{' and a weight' if self.network.weighted else ''}: this is not {known.name}"
            )

    def restorer(self, settings: RestoreSettings) -> NetworkRestorer:
        """A restorer with these settings."""
        return NetworkRestorer(self.network, self.file, settings.fidelity)


class NetworkRestorer:
    """Restores crops, one after the other: a result depends on its crop and its seed alone.

    `fidelity` is the weight of a network that has one. For others the result is the network's up to 0.5, and above
    that contains a share of the input: ``2 * fidelity - 1``.
    """

    colour: ColourFix = "wavelet"

    def __init__(self, network: FaceNetwork, file: NetworkFile, fidelity: float) -> None:
        self.network, self.fidelity, self.engine = network, fidelity, network.engine
        self._file = file
        self.window = (file.network and file.network.window) or Window(network.side, 0, 0)
        self.side = Side(self.window.crop)
        self.on_step: OnStep | None = None
        """Called after each face."""

    def restore(
        self, crops: Sequence[NDArray[np.uint8]], seeds: Sequence[int], fidelity: float | None = None
    ) -> list[NDArray[np.uint8]]:
        """Restored crops. Raises AuthfaceError if the network fails or a face does not fit into memory."""
        share = self.fidelity if fidelity is None else fidelity
        done = []
        for crop, seed in zip(crops, seeds, strict=True):
            done.append(self._restored(crop, seed, share))
            if self.on_step is not None:
                self.on_step()
        return done

    def _restored(self, crop: NDArray[np.uint8], seed: int, fidelity: float) -> NDArray[np.uint8]:
        if fidelity == 1 and not self.network.weighted:
            return crop
        window, side = self.window, self.network.side
        box = np.s_[window.top : window.top + side, window.left : window.left + side]
        seen = to_network(crop[box])
        made = self.network(seen, seed, fidelity)
        if made.shape != seen.shape:
            raise AuthfaceError(f"{self._file.name} made {made.shape} of a face of {seen.shape}: not a face restorer")
        if not np.isfinite(made).all():
            raise AuthfaceError(f"{self._file.name} gave NaN or infinite values: its file is broken")
        if not self.network.weighted and (share := max(0.0, 2 * fidelity - 1)):
            made = np.float32(share) * seen + np.float32(1 - share) * np.clip(made, -1, 1)
        if window.crop == side:
            return from_network(made)
        mixed = crop.astype(np.float32)
        mixed[box] += feather(side)[..., None] * (from_network(made).astype(np.float32) - mixed[box])
        return to_uint8(mixed)


def to_network(crop: NDArray[np.uint8]) -> Image:
    """A (side, side, 3) uint8 crop as an input of networks."""
    return np.ascontiguousarray(crop.transpose(2, 0, 1)[None], np.float32) / np.float32(127.5) - np.float32(1)


def from_network(face: Image) -> NDArray[np.uint8]:
    """A network's output as a (side, side, 3) uint8 crop; values outside of -1..1 are clipped."""
    return to_uint8((face[0].transpose(1, 2, 0) + np.float32(1)) * np.float32(127.5))


def feather(side: int) -> Image:
    """(side, side) 0..1: 1 inside a window, falling to 0 at its edge."""
    edge = np.minimum(np.arange(side) + 0.5, side - np.arange(side) - 0.5).astype(np.float32)
    ramp = np.clip(edge / (FEATHER * side), 0, 1)
    return np.asarray(cv2.min(ramp[:, None].repeat(side, 1), ramp[None].repeat(side, 0)), np.float32)


class OnnxNetwork:
    """An ONNX graph: an image in, float (1 or any, 3, side, side), besides it a scalar `weight` or none; an image out.

    The first of several outputs is used. A graph with random operators is opened anew for each face: ONNX Runtime
    seeds them when it opens a graph. Raises UsageError for a file that is no such graph.
    """

    engine = "onnxruntime"

    def __init__(self, file: NetworkFile, device: str) -> None:
        self._file, self._device = file.path, device
        self._session = session(file.path, device)
        images = [one for one in self._session.get_inputs() if len(one.shape) == 4]
        others = [one for one in self._session.get_inputs() if len(one.shape) != 4]
        made = self._session.get_outputs()[0]
        fits = len(images) == 1 and all(map(_is_weight, others)) and len(others) <= 1
        self.side = _side(images[0]) if fits else 0
        if not self.side or not (_is_open(made) or _side(made) == self.side):
            taken = ", ".join(f"{one_line(one.name, 40)} {one.type} {one.shape}" for one in self._session.get_inputs())
            raise UsageError(
                f"{one_line(file.path)} takes {one_line(taken, 160)} and makes {made.type} {made.shape}: a face "
                "restorer takes one float image (1, 3, side, side), at most a scalar `weight`, and makes one as large"
            )
        self._image, self._weight = images[0], next(iter(others), None)
        self.weighted = self._weight is not None
        self._draws = _draws(file.path)

    def __call__(self, face: Image, seed: int, weight: float) -> Image:
        """The restored face. Raises AuthfaceError where the graph fails."""
        given: dict[str, Any] = {self._image.name: face.astype(_FLOATS[self._image.type])}
        if self._weight is not None:
            given[self._weight.name] = np.full([1] * len(self._weight.shape), weight, _FLOATS[self._weight.type])
        try:
            found = self._opened(seed).run([self._session.get_outputs()[0].name], given)[0]
        except Exception as error:  # onnxruntime's errors have no common class
            raise AuthfaceError(f"{one_line(self._file)} fails: {first_line(error, 160)}; try --device cpu") from error
        return np.asarray(found, np.float32)

    def _opened(self, seed: int) -> Any:
        if not self._draws:
            return self._session
        import onnxruntime

        onnxruntime.set_seed(seed % 2**31)
        return session(self._file, self._device)


def _is_open(one: Any) -> bool:
    """Whether a graph leaves the size of an output open, so that only a run shows it."""
    return one.type in _FLOATS and (not one.shape or (len(one.shape) == 4 and not isinstance(one.shape[2], int)))


def _side(one: Any) -> int:
    """The side of a square RGB image of floats, USUAL_SIDE if it is open; 0 for anything else."""
    if len(one.shape) != 4 or one.type not in _FLOATS:
        return 0
    count, channels, height, width = one.shape
    if count not in {1, None} and not isinstance(count, str):
        return 0
    if channels != 3 and isinstance(channels, int):
        return 0
    if isinstance(height, int) != isinstance(width, int) or (isinstance(height, int) and height != width):
        return 0
    return height if isinstance(height, int) else USUAL_SIDE


def _is_weight(one: Any) -> bool:
    """Whether an input is a scalar `weight`."""
    single = all(not isinstance(length, int) or length == 1 for length in one.shape)
    return one.name == "weight" and one.type in _FLOATS and len(one.shape) <= 1 and single


def _draws(file: Path) -> bool:
    """Whether a graph has a random operator; weights that contain such a name only cost time."""
    kept = b""
    with file.open("rb") as stream:
        while block := stream.read(1 << 22):
            if any(name in kept + block for name in _DRAWS):
                return True
            kept = block[-16:]
    return False


class TorchNetwork:
    """GFPGAN, RestoreFormer or CodeFormer from a state dict, as recognised by spandrel.

    They are called without spandrel's wrapper, which passes GFPGAN and CodeFormer values of 0..1, and CodeFormer no
    weight. Raises
    UsageError for another network.
    """

    engine = "torch"
    side = USUAL_SIDE

    def __init__(self, file: NetworkFile, device: str) -> None:
        what = f"--model {one_line(file.path)}"
        described = load_network(file.path, what, "restorers")
        self._kind = str(described.architecture.id)
        if self._kind not in {"GFPGAN", "RestoreFormer", "CodeFormer"}:
            raise UsageError(
                f"{what} is {one_line(self._kind)}: of those GFPGAN, RestoreFormer and CodeFormer restore faces"
            )
        if (described.input_channels, described.output_channels) != (3, 3):
            raise UsageError(f"{what} takes {described.input_channels} channels: RGB needs 3")
        self.weighted = self._kind == "CodeFormer"
        self._device = pick_device(device)
        self._network: Any = described.model.float().to(self._device)

    def __call__(self, face: Image, seed: int, weight: float) -> Image:
        """The restored face. Raises AuthfaceError if it does not fit into memory."""
        import torch

        given: dict[str, Any] = {"weight": weight} if self.weighted else {}
        if self._kind == "GFPGAN":
            self._draw(seed)
            given = {"return_rgb": False, "randomize_noise": False}
        try:
            with torch.inference_mode():
                made = self._network(torch.from_numpy(face).to(self._device), **given)[0]
        except torch.OutOfMemoryError as error:
            raise AuthfaceError(f"a face of {self.side} px does not fit into memory: --device cpu") from error
        return np.asarray(made.float().cpu().numpy(), np.float32)

    def _draw(self, seed: int) -> None:
        """Replace GFPGAN's fixed noise by that of `seed`: the numbers it would draw itself on a CPU, on any device."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        noises = self._network.stylegan_decoder.noises
        for name, kept in list(noises.named_buffers()):
            setattr(noises, name, torch.randn(kept.shape, generator=generator).to(self._device))
