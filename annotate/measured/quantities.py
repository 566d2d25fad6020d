"""What is measured of an aligned crop: light, colour and detail, how far eyes and mouth are open, gaze, smile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.annotate.measured.regions import HEAD_RADII, LEFT_EYE, RIGHT_EYE, Regions, drawn, quantile

_DAYLIGHT_SKIN, _DAYLIGHT_WHITE = 1.22, 0.96
"""Medians of log2(red / blue) over 1,500 portraits; the whites of small eyes hold some skin."""
_SIGMAS = (0.6, 1.2, 2.4, 6.0)
"""Limits of the bands of detail, which are differences of Gaussians: pixels of the 256 px crop."""

TYPICAL, MOST, EDGES = 0.75, 0.85, 0.98
"""Quantiles: of even texture, of all but what reaches in from outside, and of edges that cover little."""


def light_direction(regions: Regions) -> float:
    """Light across the face in stops, > 0 where it comes from the picture's right.

    The logarithm of the skin's luminance is fitted by c + x*nx + y*ny + z*nz over the normals of an
    ellipsoid in the head's place: the logarithm of first-order shading, which neither exposure nor the skin's
    tone can move. Huber weights keep glasses, hair and highlights out of it. The result is the difference
    between normals that point 45 degrees to either side; 0 where too little skin is seen.
    """
    y, x = np.nonzero(regions.skin[::3, ::2])
    if len(x) < 40:
        return 0.0
    y, x = 3 * y, 2 * x
    pose = regions.pose
    nx = (x - pose.centre[0]) / (HEAD_RADII[0] * pose.scale)
    ny = (y - pose.centre[1]) / (HEAD_RADII[1] * pose.scale)
    longest = np.maximum(np.hypot(nx, ny) / 0.98, 1)
    nx, ny = nx / longest, ny / longest
    normals = np.stack([np.ones(len(x)), nx, ny, np.sqrt(1 - nx**2 - ny**2)])
    stops = regions.stops[y, x].astype(np.float64)
    weights = np.ones(len(x))
    for _ in range(4):
        weighted = normals * weights
        # The ridge decides only where the skin seen is too narrow to tell the normals apart.
        light = np.linalg.solve(weighted @ normals.T + 1e-6 * len(x) * np.eye(4), weighted @ stops)
        off = np.abs(stops - light @ normals)
        weights = np.minimum(1, 1.5 * quantile(off, 0.5) / np.maximum(off, 1e-6))
    return float(light[1] * np.sqrt(2))


def lightness(regions: Regions) -> float:
    """Median L* of the crop, 0..100."""
    return quantile(regions.lab[::2, ::2, 0].ravel(), 0.5)


def contrast(regions: Regions) -> float:
    """Distance of the 5th and 95th percentile of L*, 0..100."""
    lightness = regions.lab[::2, ::2, 0].ravel()
    return quantile(lightness, 0.95) - quantile(lightness, 0.05)


def chroma(regions: Regions) -> tuple[float, float]:
    """Mean CIE chroma of the crop, and what is left of it when every tone is given one colour.

    The second is 0 for grey and for toned (sepia, cyanotype) pictures alike: the root mean square distance
    of a*, b* from their mean at the same L*.
    """
    lab = regions.lab[::2, ::2].reshape(-1, 3)
    tone = np.clip(lab[:, 0] / 4, 0, 24).astype(int)
    count = np.maximum(np.bincount(tone, minlength=25), 1)
    rest = [lab[:, c] - (np.bincount(tone, lab[:, c], 25) / count)[tone] for c in (1, 2)]
    return float(np.hypot(lab[:, 1], lab[:, 2]).mean()), float(np.sqrt(np.mean(rest[0] ** 2 + rest[1] ** 2)))


def warmth(regions: Regions) -> float:
    """log2 of red over blue in linear light against daylight portraits, > 0 where the light is warm.

    Taken of the skin and of the whites of the eyes: both follow the colour of the light alike, while skin tones
    spread the first and bloodshot or badly resolved eyes the second. Where they agree on the side, the smaller of
    the two counts, otherwise 0.
    """
    eyes = drawn(regions.points[LEFT_EYE], inside=True) | drawn(regions.points[RIGHT_EYE], inside=True)
    white = regions.linear[eyes]
    if len(white) < 8 or not regions.skin.any():
        return 0.0
    lightness = regions.lab[..., 0][eyes]
    of_skin = _red_over_blue(cv2.mean(regions.linear, regions.skin.view(np.uint8))) - _DAYLIGHT_SKIN
    of_white = _red_over_blue(white[lightness >= quantile(lightness, 0.7)].mean(0)) - _DAYLIGHT_WHITE
    return 0.0 if of_skin * of_white <= 0 else min(of_skin, of_white, key=abs)


def _red_over_blue(linear: Sequence[float] | NDArray[np.float32]) -> float:
    return math.log2((float(linear[0]) + 1e-3) / (float(linear[2]) + 1e-3))


@dataclass(frozen=True)
class DetailBands:
    """Magnitude of the detail of L* between 0.6 and 1.2 px, and 2.4 px, each (256, 256), and 6 px, (128, 128)."""

    fine: NDArray[np.float32]
    middle: NDArray[np.float32]
    coarse: NDArray[np.float32]


def detail_bands(regions: Regions) -> DetailBands:
    """The three bands of a crop's L*."""
    low, middle, high, coarse = _SIGMAS
    lightness = cv2.extractChannel(regions.lab, 0)
    first, second, third = (cv2.GaussianBlur(lightness, (0, 0), sigma) for sigma in (low, middle, high))
    # What is left after 2.4 px needs every second pixel only; a blur after a blur adds the squares.
    half = cv2.resize(third, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    fourth = cv2.GaussianBlur(half, (0, 0), (coarse**2 - high**2) ** 0.5 / 2)
    return DetailBands(cv2.absdiff(first, second), cv2.absdiff(second, third), cv2.absdiff(half, fourth))


def detail_amount(band: NDArray[np.float32], part: NDArray[np.bool_], share: float) -> float:
    """Detail of one part (256, 256) in L*: a quantile of the band's magnitude, 0 where the part is empty."""
    step = len(part) // len(band)
    return quantile(band[part[::step, ::step]], share)


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
