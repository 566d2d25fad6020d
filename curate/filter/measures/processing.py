"""What software did to the pixels: enlarged them one by one, sharpened them beyond what a lens draws.

Both are read from the photo's own pixels (`FaceRegion.native`). An enlargement by a smooth kernel leaves no such trace
once it was saved as a JPEG, but lacks detail: see `authface.curate.filter.measures.artefacts.resolution`.
``benchmarks/enlargements.py`` makes them of known truth and counts what the limits find.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.curate.filter.measures.artefacts import JPEG_BLOCK
from authface.curate.filter.measures.quality import EYE_DISTANCE, FaceRegion

Plane = NDArray[np.float32]
Values = NDArray[np.float64]

LEAST_SIDE = 32
"""Smaller patches hold too few rows and edges; they measure 0."""
FIRST_CAP, SECOND_CAP = 12.0, 24.0
"""Levels at which a difference of neighbours, and one of differences, stops counting: edges of the face are larger."""
STEP_FLOOR = 0.3
"""Levels added to the mean difference of a row or column, before its logarithm is taken."""
TREND = 4.0
"""Sigma, pixels, of what is taken off as the face's own change from row to row."""
LEAST_FREQUENCY = 0.12
"""Cycles a pixel under which the face's own lines repeat; a former pixel of more than 8 px shows by its harmonics."""
SECOND_WEIGHT = 0.7
"""Of repeating second differences (bilinear and bicubic kernels) beside repeating first ones (repeated pixels)."""
PATCH = 320
"""Largest side, pixels, of the middle of the face in which repetitions are looked for."""
TRANSFORM = 1024
"""Points of the transform in which repetitions are looked for."""
CROP_EYES = 128.0
"""Distance of the eyes, pixels, in a crop of 512: larger faces are looked at in this size too."""
EDGE_SHARE = 0.1
"""Share of the pixels, the steepest, among which edges are looked for."""
LEAST_EDGES = 15
MOST_EDGES = 3000
LEAST_SLOPE, LEAST_HEIGHT = 3.0, 6.0
"""Levels a pixel, and levels over the profile, under which an edge is noise."""
REACH = 8
"""Pixels to each side of an edge along which its profile is read."""
HALO = 0.15
"""Fall beyond both ends of an edge, in units of its steepest step, from which it has a halo."""
HALO_WEIGHT = 0.1


def pixelation(region: FaceRegion) -> float:
    """How strongly rows and columns repeat as where former pixels were enlarged; 0 none, about 0.3 to 1 plain squares.

    The mean difference of neighbouring columns, and of rows, as the logarithm's deviation from its trend: what repeats
    at one frequency in both, its amplitude. JPEG's own period of 8 px is taken off before. After Gallagher 2005, who
    takes the second difference, as bilinear and bicubic kernels ask for; repeated pixels show in the first. Periods of
    2 and 4 px, which divide JPEG's, count as far as they exceed its other harmonics; one of 8 is
    `artefacts.blockiness`.
    """
    top, left = (max(side - PATCH, 0) // 2 for side in region.native.shape)
    grey = region.native[top : top + PATCH, left : left + PATCH]
    if min(grey.shape) < LEAST_SIDE:
        return 0.0
    return max(_repetition(grey, 1, FIRST_CAP), SECOND_WEIGHT * _repetition(grey, 2, SECOND_CAP))


def sharpening(region: FaceRegion) -> float:
    """How far edges are steeper than a lens draws them, with a halo: about 0.3 (soft) to 0.7, 0.42 in sharp photos.

    The upper quartile, over the face's edges, of the steepest step between pixels over the whole height of the edge
    (overshoot included), and a tenth of the share of edges that fall back on both sides. Lines and hairs fall back on
    one side of each of their edges only.
    """
    shrink = CROP_EYES / EYE_DISTANCE * region.scale
    found = _steepness(region.native)
    if shrink < 1 and min(region.native.shape) >= LEAST_SIDE:
        found = max(found, _steepness(_shrunk(region.native, shrink)))
    return found


def _shrunk(grey: Plane, factor: float) -> Plane:
    return np.asarray(cv2.resize(grey, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), dtype=np.float32)


def _repetition(grey: Plane, order: int, cap: float) -> float:
    """Amplitude, in logarithms, of the strongest repetition that both axes share and JPEG does not explain."""
    free, of_jpeg = zip(*(_amplitudes(along, order, cap) for along in (grey, grey.T)), strict=True)
    both = np.sqrt(free[0] * free[1])
    one, two, three, four = np.sqrt(of_jpeg[0] * of_jpeg[1])
    odd = max(one, three)
    return float(max(both.max(), two - odd, four - odd / 2))


def _amplitudes(grey: Plane, order: int, cap: float) -> tuple[Values, Values]:
    """Along x: the amplitudes of all frequencies from `LEAST_FREQUENCY` on without JPEG's, and its four harmonics'."""
    steps = np.minimum(np.abs(np.diff(grey, n=order, axis=1)), np.float32(cap)).mean(axis=0)
    level = np.log(steps.astype(np.float64) + STEP_FLOOR)
    level -= cv2.GaussianBlur(level.reshape(1, -1), (0, 0), TREND, borderType=cv2.BORDER_REFLECT).ravel()
    phases = np.array([level[at::JPEG_BLOCK].mean() for at in range(JPEG_BLOCK)])
    harmonics = np.abs(np.fft.rfft(phases))[1:] * (2 / JPEG_BLOCK)
    harmonics[-1] /= 2
    level -= np.resize(phases, len(level))
    taper, there = _window(len(level))
    free = np.abs(np.fft.rfft(level * taper, TRANSFORM))
    free[-1] /= 2  # the highest frequency stands for itself alone
    return free[there], harmonics


@lru_cache(maxsize=256)
def _window(length: int) -> tuple[Values, NDArray[np.bool_]]:
    """The taper under which a sine of amplitude 1 has 1 in the transform, and which of its frequencies count."""
    taper = np.hanning(length)
    return taper * (2 / taper.sum()), np.fft.rfftfreq(TRANSFORM) > LEAST_FREQUENCY


def _steepness(grey: Plane) -> float:
    """`sharpening` of a patch at its own size; 0 where it has no edges."""
    if min(grey.shape) < LEAST_SIDE:
        return 0.0
    profiles = _edge_profiles(grey)
    if len(profiles) < LEAST_EDGES:
        return 0.0
    steps = np.diff(profiles, axis=1)
    steepest = (steps[:, REACH - 1] + steps[:, REACH]) / 2
    inner = profiles[:, REACH // 2 : REACH + REACH // 2 + 1]
    height = inner.max(axis=1) - inner.min(axis=1)
    relative = np.minimum(steps / np.maximum(steepest, 2.0)[:, None], 0.3)
    falls = [np.cumsum(side, axis=1).min(axis=1) for side in (relative[:, REACH - 2 :: -1], relative[:, REACH + 1 :])]
    halo = float((np.maximum(falls[0], falls[1]) < -HALO).mean())
    steep = float(np.quantile(steepest / np.maximum(height, LEAST_HEIGHT), 0.75))
    return steep + HALO_WEIGHT * halo


def _edge_profiles(grey: Plane) -> Plane:
    """(edges, 2 REACH + 1) levels across each edge, rising, its steepest place in the middle."""
    soft = cv2.GaussianBlur(grey, (0, 0), 0.6)
    across, down = (cv2.Sobel(soft, cv2.CV_32F, x, 1 - x, ksize=3, scale=1 / 8) for x in (1, 0))
    slope = np.hypot(across, down)
    border = REACH + 1
    inner = slope[border:-border, border:-border]
    rows, columns = np.nonzero(inner >= max(float(np.quantile(inner, 1 - EDGE_SHARE)), LEAST_SLOPE))
    if len(rows) > MOST_EDGES:
        chosen = np.linspace(0, len(rows) - 1, MOST_EDGES).astype(np.intp)
        rows, columns = rows[chosen], columns[chosen]
    rows, columns = rows + border, columns + border
    if not len(rows):
        return np.zeros((0, 2 * REACH + 1), np.float32)
    way = np.arange(-REACH, REACH + 1, dtype=np.float32)
    x, y = (
        (at[:, None] + (part[rows, columns] / slope[rows, columns])[:, None] * way).astype(np.float32)
        for at, part in ((columns, across), (rows, down))
    )
    profiles = np.asarray(cv2.remap(grey, x, y, cv2.INTER_LINEAR), dtype=np.float32)
    steps = np.diff(profiles, axis=1)
    middle, before, after = (steps[:, at] + steps[:, at + 1] for at in (REACH - 1, REACH - 3, REACH + 1))
    return np.asarray(profiles[middle >= np.maximum(before, after)])
