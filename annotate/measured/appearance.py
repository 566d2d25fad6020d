"""Light, colour and detail of an aligned crop: where the light falls from, how bright, colourful, warm and sharp."""

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
