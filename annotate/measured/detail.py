"""Fine detail of an aligned crop: texture of the skin, sharpness of the face and of what lies behind."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.annotate.measured.regions import Regions, quantile

_SIGMAS = (0.6, 1.2, 2.4, 6.0)
"""Limits of the bands of detail, which are differences of Gaussians: pixels of the 256 px crop."""

TYPICAL, MOST, EDGES = 0.75, 0.85, 0.98
"""Quantiles: of even texture, of all but what reaches in from outside, and of edges that cover little."""


@dataclass(frozen=True)
class Bands:
    """Magnitude of the detail of L* between 0.6 and 1.2 px, and 2.4 px, each (256, 256), and 6 px, (128, 128)."""

    fine: NDArray[np.float32]
    middle: NDArray[np.float32]
    coarse: NDArray[np.float32]


def bands(regions: Regions) -> Bands:
    """The three bands of a crop's L*."""
    low, middle, high, coarse = _SIGMAS
    lightness = cv2.extractChannel(regions.lab, 0)
    first, second, third = (cv2.GaussianBlur(lightness, (0, 0), sigma) for sigma in (low, middle, high))
    # What is left after 2.4 px needs every second pixel only; a blur after a blur adds the squares.
    half = cv2.resize(third, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    fourth = cv2.GaussianBlur(half, (0, 0), (coarse**2 - high**2) ** 0.5 / 2)
    return Bands(cv2.absdiff(first, second), cv2.absdiff(second, third), cv2.absdiff(half, fourth))


def amount(band: NDArray[np.float32], part: NDArray[np.bool_], share: float) -> float:
    """Detail of one part (256, 256) in L*: a quantile of the band's magnitude, 0 where the part is empty."""
    step = len(part) // len(band)
    return quantile(band[part[::step, ::step]], share)
