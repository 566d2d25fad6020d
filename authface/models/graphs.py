"""A family without torch: its `onnx/`, and what is around its networks in NumPy, whatever runs them.

`authface models export` makes the graphs (`authface.models.export`); `export.json` says of what weights and settings.
Around them are the tiles of a cleaner, the high pass of a prior's detail, and the noise of a face.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from authface.errors import AuthfaceError, first_line, one_line, shell_word
from authface.faces.detector import AUTHFACE_AGAIN, whole
from authface.models.layout import BUILTIN, EXPORT, ONNX, PARTS, FileFacts, part_files
from authface.models.sampling import Preset, Sampling, sampling_of
from authface.recipe import Settings

CLEANER = "cleaner.onnx"
"""image (1, 3, h, w) of -1..1, perception () 0..1 -> cleaned, as large; h and w are multiples of `Export.multiple`.
With `Export.noise` also noise (1, 1, h, w), standard normal."""
ENCODER = "encoder.onnx"
"""image (1, 3, side, side) of 0..1 -> latents and the ControlNet's embedding of the image."""
DENOISER = "denoiser.onnx"
"""noisy latents, timestep (), embedding -> what the U-Net predicts, guidance applied."""
DECODER = "decoder.onnx"
"""latents -> image (1, 3, side, side), about -1..1."""
_HASHED = 1 << 28
"""Bytes up to which a graph is hashed before it runs, in a tenth of a second."""
_BLOCK, _BLOCKS = 1 << 16, 16


class Solver(Settings):
    """A sampler's steps as weighted sums of the photo's latents, the noise and the predictions of the steps before.

    Every sampler that draws nothing in its steps is one: what it computes from latents and predictions is linear.
    """

    timesteps: tuple[float, ...]
    given: tuple[tuple[float, ...], ...]
    """For each step the weights of what the network is given: of the photo, the noise, and each prediction before."""
    result: tuple[float, ...]
    """Weights of the denoised latents."""

    def sum(self, weights: Sequence[float], parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """The weighted sum, added up in double precision: weights of many steps nearly cancel each other."""
        total: NDArray[np.float64] = np.zeros(parts[0].shape)
        for weight, part in zip(weights, parts, strict=True):
            total = total + weight * part.astype(np.float64)
        made: NDArray[np.float32] = total.astype(np.float32)
        return made


class Export(Settings):
    """What `export.json` says."""

    format: int = 1
    authface: str
    """Version that exported it."""
    opset: int
    weights: str
    """`weights_digest` of the family it was made of."""
    side: int
    """Of the crops that the prior takes, pixels."""
    latents: tuple[int, int, int]
    """Channels, height and width."""
    multiple: int
    """Of the sides that the cleaner takes; 0: the family has none."""
    noise: bool = False
    """Whether the cleaner takes a plane of noise."""
    preset: Preset
    """Its steps, prompts and where they begin are in the graphs."""
    control_scale: float
    solver: Solver
    files: dict[str, FileFacts]

    @property
    def sampling(self) -> Sampling:
        """How it denoises."""
        return sampling_of(self.preset, 1)


def graph_file(folder: Path, export: Export, name: str) -> Path:
    """A graph of the family's `onnx/`, hashed if it is small. Raises AuthfaceError where it is another file."""
    facts = export.files.get(name)
    file = folder / ONNX / name
    return whole(file, facts.sha256, _again(folder)) if facts and facts.bytes <= _HASHED else file


def _again(folder: Path) -> str:
    """What to do about graphs that are broken."""
    return AUTHFACE_AGAIN if folder == BUILTIN else f"authface models export {shell_word(folder)}"


def weights_digest(folder: Path) -> str:
    """What the parts of a family are known by: names, sizes and 16 blocks of each file, so that 14 GB take no time.

    A training changes every block of the weights, and casting them to another precision does, too.
    """
    digest = hashlib.sha256()
    for part in PARTS:
        for path in part_files(folder, part):
            size = path.stat().st_size
            digest.update(f"{part}/{path.name} {size}\n".encode())
            with path.open("rb") as file:
                for i in range(_BLOCKS):
                    file.seek(i * max(size - _BLOCK, 0) // (_BLOCKS - 1))
                    digest.update(file.read(_BLOCK))
    return digest.hexdigest()


def read_export(folder: Path) -> Export | None:
    """What the family's `onnx/` holds; None where there is none.

    Raises AuthfaceError where it is broken, lacks a file, or was made of other weights than the family has.
    """
    path = folder / ONNX / EXPORT
    if not path.is_file():
        return None
    again = _again(folder)
    try:
        export = Export.model_validate(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        raise AuthfaceError(f"{one_line(path)} is broken ({first_line(error, 80)}): {again}") from error
    if export.format != 1:
        raise AuthfaceError(f"{one_line(path)} is of format {export.format}, this version reads 1: {again}")
    for name, facts in export.files.items():
        file = path.parent / name
        if Path(name).name != name or not file.is_file():
            raise AuthfaceError(f"{one_line(file)} is no file, and {EXPORT} names it: {again}")
        if (size := file.stat().st_size) != facts.bytes:
            raise AuthfaceError(f"{one_line(file)} has {size:,} bytes, {facts.bytes:,} were exported: {again}")
    if export.weights != weights_digest(folder):
        raise AuthfaceError(f"{one_line(folder / ONNX)} was exported from other weights: {again}")
    return export


Planes = NDArray[np.float32]
"""(1, 3, h, w), RGB of about -1..1, and maybe a plane of noise."""
Network = Callable[[Planes], Planes]
"""Cleans a face, or a tile of one, of any shape; the result has no noise."""

TEXTURE = 1
"""Stream of a face's noise that a cleaner makes texture of."""

FINE = 4.0
"""Of a prior's detail only what is finer than this is added to a cleaned face, pixels (sigma of the high pass): what is
coarser the cleaner knows better."""
WHOLE, TILE, OVERLAP = 1024, 768, 64
"""Faces up to `WHOLE` pixels a side are cleaned in one go, larger ones in tiles of `TILE` that share `OVERLAP`."""
GRID = 64
"""Tiles begin at its multiples, where what the network halves falls on the same pixels as of the whole face."""


class FaceNoise:
    """Standard normal numbers of one seed and stream, drawn one array after the other.

    The initial noise of a face's latents, and with `TEXTURE` what a cleaner makes texture of: the same on every
    machine, with torch and without. From the bits of PCG64, which NumPy guarantees to keep stable, by Box and Muller's
    transform (1958): NumPy's own normal numbers may change from release to release.
    """

    def __init__(self, seed: int, *stream: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=stream))

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The next numbers, in that shape."""
        pairs = -(-math.prod(shape) // 2)
        # 53 bits each, never 0 and never 1.
        uniform = ((self._bits.random_raw(2 * pairs) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        length, angle = np.sqrt(-2 * np.log(uniform[:pairs])), 2 * np.pi * uniform[pairs:]
        both = np.concatenate([length * np.cos(angle), length * np.sin(angle)])
        return both[: math.prod(shape)].reshape(shape).astype(np.float32)


def clean(
    network: Network, rgb: NDArray[np.uint8], seed: int | None = None, on_pass: Callable[[], None] | None = None
) -> NDArray[np.float32]:
    """One (h, w, 3) uint8 face, cleaned at its own resolution: levels, about 0..255, not rounded.

    With a `seed` the network is given a fourth plane, of that seed's noise. `on_pass` is called after each pass, of
    which there are `passes`; what it raises ends the work.
    """

    def told(planes: Planes) -> Planes:
        done = network(planes)
        if on_pass is not None:
            on_pass()
        return done

    planes = to_signed(rgb)
    if seed is not None:
        planes = np.concatenate([planes, FaceNoise(seed, TEXTURE).normal((1, 1, *rgb.shape[:2]))], 1)
    done = told(planes) if max(rgb.shape[:2]) <= WHOLE else _tiled(told, planes)
    levels: NDArray[np.float32] = (done[0].transpose(1, 2, 0) + np.float32(1)) * np.float32(127.5)
    return levels


def passes(side: int) -> int:
    """How often the network runs for a square face of so many pixels a side."""
    return 1 if side <= WHOLE else len(list(_starts(side))) ** 2


def to_unit(rgb: NDArray[np.uint8]) -> Planes:
    """(h, w, 3) uint8 as values of 0..1."""
    return np.ascontiguousarray(rgb.transpose(2, 0, 1)[None], np.float32) / np.float32(255)


def to_signed(rgb: NDArray[np.uint8]) -> Planes:
    """(h, w, 3) uint8 as values of -1..1."""
    return to_unit(rgb) * np.float32(2) - np.float32(1)


def high_pass(image: NDArray[np.float32], sigma: float = FINE) -> NDArray[np.float32]:
    """(h, w, 3) less its Gaussian blur of `sigma` pixels; beyond the border the nearest pixel goes on.

    As `authface.models.cleaner.high_pass`, which training needs.
    """
    reach = math.ceil(3 * sigma)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1, dtype=np.float32) / sigma) ** 2)
    taps /= taps.sum()
    blurred = cv2.sepFilter2D(image, cv2.CV_32F, taps, taps, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(image - blurred, np.float32)


def _tiled(network: Network, image: Planes) -> Planes:
    """As `network`, in tiles whose seams are faded over."""
    height, width = image.shape[2:]
    total, weights = np.zeros_like(image[:, :3]), np.zeros_like(image[:1, :1])
    for top in _starts(height):
        for left in _starts(width):
            tile = np.s_[..., top : top + TILE, left : left + TILE]
            done = network(np.ascontiguousarray(image[tile]))
            fade = _fade(done.shape[2])[:, None] * _fade(done.shape[3])
            total[tile] += done * fade
            weights[tile] += fade
    return np.asarray(total / weights, np.float32)


def _starts(length: int) -> Iterator[int]:
    """Where tiles begin, so that they cover `length` and share at least `OVERLAP`; the last may be shorter."""
    if length <= TILE:
        yield 0
        return
    count = -(-(length - OVERLAP) // (TILE - OVERLAP))
    for i in range(count):
        yield -(-i * (length - TILE) // ((count - 1) * GRID)) * GRID


def _fade(length: int) -> NDArray[np.float32]:
    """(length,) weights that rise over `OVERLAP` from either end, never 0."""
    place = np.arange(length, dtype=np.float32) + np.float32(0.5)
    return np.asarray(np.minimum(np.minimum(place, length - place) / np.float32(OVERLAP), 1), np.float32)
