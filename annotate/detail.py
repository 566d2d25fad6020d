"""Fine detail of an aligned crop: texture of the skin, sharpness of the face and of what lies behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from authface.annotate.regions import Regions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FINE, _MIDDLE, _COARSE = (0.6, 1.2), (1.2, 2.4), (2.4, 6.0)
"""Bands of detail as differences of Gaussians: sigma in pixels of the 256 px crop."""

TYPICAL, MOST, EDGES = 75, 85, 98
"""Percentiles: of even texture, of all but what reaches in from outside, and of edges that cover little."""


@dataclass(frozen=True)
class Detail:
    """Detail of a part in L*: `fine`, `middle`, `coarse` are high percentiles of the bands' magnitude."""

    fine: float
    middle: float
    coarse: float


def bands(regions: Regions) -> tuple[NDArray[np.float32], ...]:
    """The three bands of L*, each (256, 256)."""
    import cv2

    lightness = regions.lab[..., 0]
    blurred = {s: cv2.GaussianBlur(lightness, (0, 0), s) for s in sorted({*_FINE, *_MIDDLE, *_COARSE})}
    return tuple(blurred[low] - blurred[high] for low, high in (_FINE, _MIDDLE, _COARSE))


def measure(bands: tuple[NDArray[np.float32], ...], part: NDArray[np.bool_], percentile: float) -> Detail:
    """Detail of one part of the crop; zero where the part is empty."""
    import numpy as np

    if not part.any():
        return Detail(0.0, 0.0, 0.0)
    return Detail(*(float(np.percentile(np.abs(band[part]), percentile)) for band in bands))
