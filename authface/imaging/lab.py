"""Colours as people tell them apart: CIELAB of sRGB, and the difference CIEDE2000."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

_TO_XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]], np.float64
)
"""Linear sRGB to CIE XYZ, ITU-R BT.709 primaries and D65."""
_WHITE = np.array([0.95047, 1.0, 1.08883])
"""XYZ of D65, 2 degree observer."""
_FAR = 25.0**7
"""Seventh power of the chroma at which greys turn into colours."""


def lab_of_srgb(rgb: Floats) -> Floats:
    """(..., 3) CIELAB under D65 of sRGB in 0..1 (IEC 61966-2-1; CIE 15): L* 0..100; in the type of `rgb`."""
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = linear @ (_TO_XYZ.T / _WHITE).astype(rgb.dtype)
    bent = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * ((29 / 6) ** 2 / 3) + 4 / 29)
    x, y, z = np.moveaxis(bent, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype(rgb.dtype)


def ciede2000(first: Floats, second: Floats) -> Floats:
    """(...) CIEDE2000 of (..., 3) CIELAB colours, all three weights 1 (Sharma, Wu and Dalal 2005, equations 2 to 22).

    Computed in float64; 0 for equal colours, 1 is about just visible side by side.
    """
    (l1, a1, b1), (l2, a2, b2) = (np.moveaxis(np.asarray(lab, np.float64), -1, 0) for lab in (first, second))
    stretch = 1.5 - 0.5 * _colourful((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2)
    a1, a2 = a1 * stretch, a2 * stretch
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = (np.arctan2(b, a) % (2 * np.pi) for a, b in ((a1, b1), (a2, b2)))
    grey = c1 * c2 == 0
    turn = np.where(grey, 0.0, (h2 - h1 + np.pi) % (2 * np.pi) - np.pi)
    hue = np.where(grey, h1 + h2, (h1 + turn / 2) % (2 * np.pi))
    away, chroma = ((l1 + l2) / 2 - 50) ** 2, (c1 + c2) / 2
    shape = (
        1 - 0.17 * np.cos(hue - np.pi / 6) + 0.24 * np.cos(2 * hue)
        + 0.32 * np.cos(3 * hue + np.radians(6)) - 0.20 * np.cos(4 * hue - np.radians(63))
    )  # fmt: skip
    lightness = (l2 - l1) / (1 + 0.015 * away / np.sqrt(20 + away))
    colour = (c2 - c1) / (1 + 0.045 * chroma)
    tint = 2 * np.sqrt(c1 * c2) * np.sin(turn / 2) / (1 + 0.015 * chroma * shape)
    blue = np.radians(60) * np.exp(-(((np.degrees(hue) - 275) / 25) ** 2))
    crossed = 2 * _colourful(chroma) * np.sin(blue) * colour * tint
    return np.asarray(np.sqrt(np.maximum(lightness**2 + colour**2 + tint**2 - crossed, 0)), np.float64)


def _colourful(chroma: Floats) -> Floats:
    """0 for greys, 1 far from them."""
    seventh = chroma**7
    return np.asarray(np.sqrt(seventh / (seventh + _FAR)), np.float64)
