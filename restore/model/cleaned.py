"""A cleaner takes the damage off a face at its own resolution; the prior then adds detail, as much as is wanted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from authface.errors import AuthfaceError
from authface.faces.geometry import Side, resize_square
from authface.models.cleaner import Cleaner, clean
from authface.restore.model.colour import ColourFix
from authface.restore.model.diffusion import DiffusionRestorer


class CleanedRestorer:
    """cleaned + (1 - fidelity) x most x high pass of (decoded - decoded latents of the cleaned face).

    `most` says how many times that detail is added at a fidelity of 0; where nothing is added, no step is taken.
    """

    colour: ColourFix = "none"

    def __init__(
        self,
        cleaner: Cleaner,
        diffusion: DiffusionRestorer,
        side: Side,
        fidelity: float,
        most: float,
        device: torch.device,
    ) -> None:
        self.cleaner, self.diffusion, self.side = cleaner, diffusion, side
        self.fidelity, self.most, self.device = fidelity, most, device

    def restore(
        self, crops: Sequence[NDArray[np.uint8]], seeds: Sequence[int], fidelity: float | None = None
    ) -> Sequence[NDArray[np.uint8]]:
        """Restored (side, side, 3) uint8 RGB crops; `fidelity` 0..1 is the settings' unless given.

        Raises AuthfaceError where memory or precision fall short.
        """
        gain = self.most * (1 - (self.fidelity if fidelity is None else fidelity))
        cleaned = [self._clean(crop) for crop in crops]
        if gain:
            small = [_rounded(resize_square(face, self.diffusion.size)) for face in cleaned]
            details = self.diffusion.detail(small, seeds)
            pairs = zip(cleaned, details, strict=True)
            cleaned = [face + gain * resize_square(detail, len(face)) for face, detail in pairs]
        return [_rounded(face) for face in cleaned]

    def _clean(self, crop: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            return clean(self.cleaner, crop, self.device)
        except torch.OutOfMemoryError as error:
            raise AuthfaceError(
                f"a face of {len(crop)} px does not fit into memory: -O restore.size={self.diffusion.size} shrinks it"
            ) from error


def _rounded(levels: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)
