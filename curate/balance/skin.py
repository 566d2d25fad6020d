"""Skin tone of a crop: the individual typology angle of the cheeks, and the names of its bands."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 128
"""Side a crop is brought to, pixels: skin's colour needs no more, and its noise averages out."""
SKIN_BANDS = (("very-light", 55.0), ("light", 41.0), ("intermediate", 28.0), ("tan", 10.0), ("brown", -30.0))
"""Names and least angles, degrees (Del Bino and Bernerd 2013); below the last is `dark`."""
LEAST_YELLOW = 3.0
"""Least b* of skin that has a tone to speak of: grey and blue pictures have less, and their angle means nothing."""
LEAST_PIXELS = 40
_CHEEKS = ((41, 40, 31, 48, 4, 2), (46, 47, 35, 54, 12, 14))
"""iBUG points around each cheek: lower lid, nostril, corner of the mouth, jaw."""
_SHRINK = 0.6
"""Size of the patch within that outline: away from hair, nose, lips and the shade of the jaw."""


def typology_angle(rgb: NDArray[np.uint8], points: NDArray[np.float64]) -> float | None:
    """ITA = atan2(L* - 50, b*) in degrees, of the medians of CIE L* and b* (D65) of both cheeks; 90 is palest.

    `rgb` is a (s, s, 3) sRGB crop, `points` its (68, 2) landmarks in crop pixels. None if too little skin is
    visible (burnt and black pixels do not count) or it has no colour.
    """
    size = rgb.shape[0]
    small = cv2.resize(rgb, (SIDE, SIDE), interpolation=cv2.INTER_AREA) if size != SIDE else rgb
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for cheek in _CHEEKS:
        outline = (np.asarray(points, np.float64)[list(cheek)] + 0.5) * (SIDE / size) - 0.5
        middle = outline.mean(axis=0)
        cv2.fillPoly(mask, [np.rint(middle + _SHRINK * (outline - middle)).astype(np.int32)], 1)
    skin = small[mask.astype(bool)]
    skin = skin[(skin.max(axis=1) < 254) & (skin.max(axis=1) > 16)]
    if len(skin) < LEAST_PIXELS:
        return None
    lab = cv2.cvtColor(skin[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    lightness, yellow = np.median(lab[:, ::2], axis=0).tolist()
    return math.degrees(math.atan2(lightness - 50, yellow)) if yellow >= LEAST_YELLOW else None


def skin_band(angle: float | None) -> str:
    """The name of an angle's band; `unknown` for None."""
    if angle is None:
        return "unknown"
    return next((name for name, least in SKIN_BANDS if angle > least), "dark")
