"""Eyes and mouth of an aligned crop: how far they are open, where the eyes look, whether the mouth smiles."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.annotate.measured.regions import LEFT_EYE, RIGHT_EYE, Regions

_WIDTH, _HEIGHT, _MIDDLE_X, _MIDDLE_Y, _HALF = 73, 49, 36, 24, 20
"""The patch of an eye, pixels: its corners lie level, `_HALF` to either side of the middle."""
_IRIS = (11, 7)
"""Breadth and height of the spot that is looked for, patch pixels: an iris is 12 mm of the eye's 30, its top hidden."""
_FLANK = (5, 7)
"""Breadth and height of what is looked at to both sides of the spot."""
_ASIDE = 8
"""Distance of the middles of the spot and of a flank."""
_REACH_X, _REACH_Y = 16, 5
"""How far from the eye's middle the spot's centre is looked for, patch pixels."""
_CONVERGENCE = 0.03
"""How far outwards of the middle between the corners each iris lies when a head looks straight at the camera, in
halves of the eye's width: half the difference of the means of 79 portraits (the caruncle is in the inner corner)."""
_PER_DEGREE = 0.006
"""How far an iris moves, in the same unit, when the head turns by a degree and the gaze stays on the camera: slope of
a line through 1,768 portraits (0.0046) and through 156 that look at the camera (0.0075)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Eye:
    """One eye. Lengths are in halves of the distance of its corners."""

    opening: float
    """Gap of the lids over the width (eye aspect ratio, Soukupova and Cech 2016): 0.3 open, under 0.15 nearly shut."""
    iris: float
    """Contrast of the spot that is most like an iris with the spot that is least, over the skin; each against half of
    what flanks it."""
    gaze: float
    """How far the iris lies from where it would look at the camera; > 0 to the picture's right, about -0.7..0.7."""


_UNSEEN = Eye(opening=0.0, iris=0.0, gaze=0.0)


def measure_eyes(regions: Regions) -> tuple[Eye, Eye]:
    """The eyes on the picture's left and right; all zero where the corners are less than 8 of 256 pixels apart."""
    red = np.ascontiguousarray(regions.rgb[..., 0])  # where skin of any tone is lightest against an iris
    turn = _PER_DEGREE * regions.pose.yaw
    return (
        _measure_eye(red, regions.points[LEFT_EYE], turn + _CONVERGENCE),
        _measure_eye(red, regions.points[RIGHT_EYE], turn - _CONVERGENCE),
    )


def _measure_eye(red: NDArray[np.uint8], lids: NDArray[np.float64], shift: float) -> Eye:
    across = lids[3] - lids[0]
    width = float(np.hypot(*across))
    if width < 8:
        return _UNSEEN
    u = across / (2 * _HALF)
    v = np.array([-u[1], u[0]])
    corner = lids[0] - u * (_MIDDLE_X - _HALF) - v * _MIDDLE_Y
    patch = cv2.warpAffine(
        red,
        np.column_stack([u, v, corner]),
        (_WIDTH, _HEIGHT),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    ).astype(np.float32)
    skin = max(float(np.partition(patch.ravel(), patch.size * 4 // 5)[patch.size * 4 // 5]), 10.0)
    middle = float((lids[[1, 2, 4, 5]].mean(0) - corner) @ v / (v @ v))
    row = round(min(max(middle, _REACH_Y), _HEIGHT - 1 - _REACH_Y))
    iris, position = _iris(patch, row)
    return Eye(
        opening=float(np.hypot(*(lids[[1, 2]] - lids[[5, 4]]).T).sum()) / (2 * width),
        iris=iris / skin,
        gaze=position + shift if iris > 0 else 0.0,
    )


def _iris(patch: NDArray[np.float32], row: int) -> tuple[float, float]:
    """Contrast of an iris near a row, and where it lies from -0.8 to 0.8.

    A spot counts as far as it is darker than half of what flanks it: lids and lashes are dark beside it too. The place
    is the mean of the places weighted by the eighth power of that: no jumps, and little pull by the corners, which lie
    in shadow.
    """
    smooth = cv2.GaussianBlur(patch, (0, 0), 1.2)  # 0.8 px of the crop: noise and blocks
    rows = slice(row - _REACH_Y, row + _REACH_Y + 1)
    left, middle, right = (
        slice(_MIDDLE_X - _REACH_X + aside, _MIDDLE_X + _REACH_X + 1 + aside) for aside in (-_ASIDE, 0, _ASIDE)
    )
    spot, flank = cv2.blur(smooth, _IRIS)[rows, middle], cv2.blur(smooth, _FLANK)[rows]
    spots = (spot - (flank[:, left] + flank[:, right]) / 4).min(0)
    lightest = float(spots.max())
    contrast = lightest - float(spots.min())
    if contrast < 1e-3:
        return 0.0, 0.0
    weights = ((lightest - spots) / contrast) ** 8
    return contrast, float(weights @ np.arange(-_REACH_X, _REACH_X + 1) / weights.sum() / _HALF)


def mouth_open(points: NDArray[np.float64]) -> float:
    """Mean gap of the inner lips over the distance of the eyes' outer corners, 0 for a closed mouth."""
    gaps = np.hypot(*(points[[67, 66, 65]] - points[[61, 62, 63]]).T)
    return float(gaps.mean() / max(np.hypot(*(points[45] - points[36])), 1e-6))


def smile(points: NDArray[np.float64]) -> float:
    """Breadth of the inner lips over the eyes' outer distance, and how far the lower one hangs below the corners.

    The second over the mouth's width. About 0.5 for a mouth at rest and 0.75 for a smile: of fifteen such measures and
    their pairs, the pair that told 157 portraits of which a person was sure apart best (area under the curve 0.99).
    """
    across = points[54] - points[48]
    width = max(float(np.hypot(*across)), 1e-6)
    down = np.array([-across[1], across[0]]) / width
    hang = float((points[66] - points[[48, 54]].mean(0)) @ down) / width
    return float(np.hypot(*(points[64] - points[60])) / max(np.hypot(*(points[45] - points[36])), 1e-6)) + hang
