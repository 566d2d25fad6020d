"""A cleaner in pixels, then the prior's detail: the code around both, whichever library runs their networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from authface.faces.geometry import Side, resize_square
from authface.models.sampling import NAMED, Preset
from authface.restore.model.colour import ColourFix, to_uint8
from authface.restore.settings import RestoreSettings

Clean = Callable[[NDArray[np.uint8], float, int], NDArray[np.float32]]
"""Cleans a (h, w, 3) uint8 face with a perception of 0..1 and its seed: levels, about 0..255, not rounded."""


class DetailPrior(Protocol):
    """A prior that adds detail to faces: `DiffusionRestorer` or `OnnxDiffusion`."""

    size: int
    """Side of the crops it takes, pixels."""

    def detail(self, crops: Sequence[NDArray[np.uint8]], seeds: Sequence[int]) -> Sequence[NDArray[np.float32]]:
        """The detail to add to (size, size, 3) uint8 RGB crops: (size, size, 3) levels, of any sign."""
        ...


@dataclass
class NoPrior:
    """Stands in for a prior that adds no detail, which is then not loaded."""

    size: int

    def detail(self, crops: Sequence[NDArray[np.uint8]], seeds: Sequence[int]) -> Sequence[NDArray[np.float32]]:
        """Zeros."""
        return [np.zeros(crop.shape, np.float32) for crop in crops]


class CleanedRestorer:
    """A cleaner removes the damage of a face at its own resolution; the prior then adds as much detail as requested.

    cleaned + (1 - fidelity) x detail x high pass of (decoded - decoded latents of the cleaned face), where the cleaner
    has a perception of (1 - fidelity) x perception; the preset names both factors, and whether cleaned is the mean of
    the face's and its mirror image's. If nothing is added, no step is run.
    """

    colour: ColourFix = "none"

    def __init__(
        self, clean: Clean, diffusion: DetailPrior, side: Side, fidelity: float, preset: Preset, engine: str
    ) -> None:
        self.clean, self.diffusion, self.side = clean, diffusion, side
        self.fidelity, self.preset, self.engine = fidelity, preset, engine

    def idle(self, settings: RestoreSettings) -> list[str]:
        """Settings of the prior that have no effect, since none of its detail is added."""
        return [] if self.preset.detail else [name for name in NAMED if getattr(settings, name) is not None]

    def restore(
        self, crops: Sequence[NDArray[np.uint8]], seeds: Sequence[int], fidelity: float | None = None
    ) -> Sequence[NDArray[np.uint8]]:
        """Restored (side, side, 3) uint8 RGB crops; `fidelity` 0..1 is the settings' unless given.

        Raises AuthfaceError if memory or precision is insufficient.
        """
        trust = 1 - (self.fidelity if fidelity is None else fidelity)
        pairs = zip(crops, seeds, strict=True)
        cleaned = [self._cleaned(crop, trust * self.preset.perception, seed) for crop, seed in pairs]
        if gain := trust * self.preset.detail:
            small = [to_uint8(resize_square(face, self.diffusion.size)) for face in cleaned]
            details = self.diffusion.detail(small, seeds)
            both = zip(cleaned, details, strict=True)
            cleaned = [face + gain * resize_square(detail, len(face)) for face, detail in both]
        return [to_uint8(face) for face in cleaned]

    def _cleaned(self, crop: NDArray[np.uint8], perception: float, seed: int) -> NDArray[np.float32]:
        once = self.clean(crop, perception, seed)
        if not self.preset.mirrored:
            return once
        return (once + self.clean(crop[:, ::-1], perception, seed)[:, ::-1]) / np.float32(2)
