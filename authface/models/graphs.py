"""A family's `onnx/`: ONNX graphs that restore with it, and `export.json`, which says of what weights and settings.

`authface models export` makes it (`authface.models.export`). Nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from authface.errors import AuthfaceError, first_line, one_line
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
    return AUTHFACE_AGAIN if folder == BUILTIN else f"authface models export {one_line(folder)}"


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
