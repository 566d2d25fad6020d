"""Give a restored crop the colours of its input: generated faces drift in tone; the input has the right ones.

The two corrections of AuthFace's released inference, as formulas; neither changes a crop that equals its source.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

ColourFix = Literal["wavelet", "adain", "none"]

LEVELS = 5
"""Blurs in the cascade: they reach 31 px and together weigh like a Gaussian of sigma 13.1 px."""
VARIANCE_FLOOR = 1e-5
"""Added to AdaIN's variances, of values 0..1, so that a flat crop does not divide by 0."""
LUMA = (0.299, 0.587, 0.114)
"""Rec. 601, as JPEG and Pillow turn RGB to grey."""


def low_pass(image: NDArray[np.float32], levels: int = LEVELS) -> NDArray[np.float32]:
    """The coarse tones of an (h, w, 3) or (h, w) float image.

    Blurs with [1 2 1] x [1 2 1] / 16, dilated 1, 2, 4, 8, 16 ... Beyond the border the nearest pixel is repeated. The
    a-trous wavelet's approximation after `levels` of them: two weigh like a Gaussian of sigma 1.6 px, three 3.2,
    four 6.5.
    """
    for level in range(levels):
        taps = np.zeros(2 ** (level + 1) + 1, np.float32)
        taps[[0, len(taps) // 2, -1]] = 0.25, 0.5, 0.25
        image = cv2.sepFilter2D(image, cv2.CV_32F, taps, taps, borderType=cv2.BORDER_REPLICATE)
    return image


def wavelet_fix(restored: NDArray[np.uint8], source: NDArray[np.uint8], levels: int = LEVELS) -> NDArray[np.uint8]:
    """Fine detail of `restored` on the coarse tones of `source`, both (h, w, 3) uint8 of one shape.

    The fewer `levels`, the finer is what the source keeps.

    The wavelet sum of the details telescopes: ``restored - low_pass(restored) + low_pass(source)``, clipped to
    0..255. Rounded to the nearest level, where AuthFace's script cuts the fraction off and darkens by half a level.
    """
    fine, coarse = restored.astype(np.float32), source.astype(np.float32)
    return to_uint8(fine + low_pass(coarse - fine, levels))


def adain_fix(restored: NDArray[np.uint8], source: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`restored` with each channel's mean and standard deviation those of `source`, both (h, w, 3) uint8.

    Adaptive instance normalisation (Huang and Belongie 2017), per channel over all pixels, with unbiased variances.
    """
    fine, coarse = restored.astype(np.float64) / 255, source.astype(np.float64) / 255
    spread = [np.sqrt(values.var(axis=(0, 1), ddof=1) + VARIANCE_FLOOR) for values in (fine, coarse)]
    fixed = (fine - fine.mean(axis=(0, 1))) / spread[0] * spread[1] + coarse.mean(axis=(0, 1))
    return to_uint8(fixed * 255)


def keep(restored: NDArray[np.uint8], source: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`restored`, unchanged."""
    return restored


def mixed(
    restored: NDArray[np.uint8], source: NDArray[np.uint8], levels: int | None, share: float
) -> NDArray[np.uint8]:
    """The restored (h, w, 3) crop with the tones that `levels` of blur leave, and `share` of all the rest, of `source`.

    Without `levels` the tones are unchanged.
    """
    if levels is not None:
        restored = wavelet_fix(restored, source, levels)
    if not share:
        return restored
    return np.rint(restored + share * (source.astype(np.float32) - restored)).astype(np.uint8)


FIXES: dict[ColourFix, Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.uint8]]] = {
    "wavelet": wavelet_fix,
    "adain": adain_fix,
    "none": keep,
}


def to_grey(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The (h, w, 3) crop without colour: every channel is its Rec. 601 luma."""
    return np.repeat(to_uint8(rgb.astype(np.float64) @ LUMA)[..., None], 3, axis=2)


def to_uint8(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Levels rounded to the nearest of 0..255."""
    rounded: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded
