"""What software did to the pixels: enlarged them, sharpened them beyond what a lens draws.

Both are judged of the face's `traces`: logistic regressions, whose coefficients ``benchmarks/fit_processing.py`` fits
to portraits of known truth. 0.5 lies beyond what the unharmed portraits of 98 in 100 persons have, so that little
of a clean set is refused: it is no probability for a set of which half is harmed. ``benchmarks/enlargements.py`` counts
on other portraits what the limits find. A lack of detail, whatever its cause, is
`authface.curate.filter.measures.quality.resolution`.

All traces are read from the middle of `FaceRegion.native`, luma, at most `PATCH` pixels a side, and none depends on how
large the face is. Four kinds, each of which sees what another misses:

- the power of bands of the spectrum: an enlargement has little beyond the frequencies of the small photo and a mask
  lifts what is fine (the windows of energy of Feng, Cox and Doerr 2012);
- the correlation of second differences with their neighbours, large steps clipped so that skin counts as eyes do: a
  kernel makes neighbours depend on each other (Popescu and Farid 2005);
- how strongly first and second differences repeat from row to row and column to column, as former pixels do
  (Gallagher 2005; Kirchner 2008);
- the shape of edges: a lens and a kernel widen them, a mask makes them steep, with halos.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import exp

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.curate.filter.measures.quality import EYE_DISTANCE, JPEG_BLOCK, FaceRegion, noise_sigma

Plane = NDArray[np.float32]
Values = NDArray[np.float64]

NAMES = (
    "corner_low", "corner_mid", "corner_high", "ring", "axis_mid_less", "axis_high_less", "axis_high_more",
    "beside", "two_on", "three_on", "repeat1", "repeat2", "repeat2_peak",
    "steep_soft", "steep_hard", "halo", "slope1", "slope5", "noise",
)  # fmt: skip
"""What each number of `traces` is, in its order."""
PATCH = 320
"""Largest side, pixels, of the middle of the face that is looked at."""
LEAST_SIDE = 32
"""Smaller patches hold too few rows and edges."""
CORNERS = ((0.2, 0.35), (0.35, 0.5), (0.8, 1.01))
"""Bands of the lesser of both frequencies, over the highest there is, where both axes have detail."""
RING = (0.5, 0.6)
"""Band of the larger of both frequencies."""
AXES = ((0.35, 0.5), (0.65, 0.8))
"""Bands along one axis, where the other's frequency is under `BESIDE_AXIS`."""
BESIDE_AXIS = 0.15
POWER_FLOOR = 0.3
"""Power, levels squared, added before its logarithm is taken: rounding leaves as much."""
SMALL_STEP = 4.0
"""Levels at which a second difference is clipped before its correlation with its neighbours is taken."""
FIRST_CAP, SECOND_CAP = 12.0, 24.0
"""Levels at which a difference of neighbours, and one of differences, stops counting: edges of the face are larger."""
STEP_FLOOR = 0.3
"""Levels added to the mean difference of a row or column, before its logarithm is taken."""
TREND = 4.0
"""Sigma, pixels, of what is taken off as the face's own change from row to row."""
LEAST_FREQUENCY = 0.12
"""Cycles a pixel under which the face's own lines repeat; a former pixel of more than 8 px shows by its harmonics."""
TRANSFORM = 1024
"""Points of the transform in which repetitions are looked for."""
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
TALL = 0.7
"""Quantile of the edges' heights from which their mean shape is taken."""


def middle(grey: Plane) -> Plane:
    """At most `PATCH` pixels each way around the middle."""
    top, left = (max(side - PATCH, 0) // 2 for side in grey.shape)
    return grey[top : top + PATCH, left : left + PATCH]


def traces(grey: Plane) -> Values | None:
    """The numbers of `NAMES` of (h, w) luma 0..255; None where it is too small or has no edges."""
    grey = middle(grey)
    if min(grey.shape) < LEAST_SIDE or (edges := _edges(grey)) is None:
        return None
    first, second = repetition(grey, 1, FIRST_CAP)[0], repetition(grey, 2, SECOND_CAP)
    return np.array([*_bands(grey), *_dependence(grey), first, *second, *edges, noise_sigma(grey)])


def _bands(grey: Plane) -> list[float]:
    """Logarithms of the mean power of each band, of the axes' the lesser and the larger of both."""
    height, width = (side // 16 * 16 for side in grey.shape)
    y, x = (grey.shape[0] - height) // 2, (grey.shape[1] - width) // 2
    taper, whole, bands = _grid(height, width)
    patch = grey[y : y + height, x : x + width]
    seen = cv2.dft((patch - patch.mean()) * taper, flags=cv2.DFT_COMPLEX_OUTPUT)[:, : width // 2 + 1]
    power = (seen[..., 0] ** 2 + seen[..., 1] ** 2).ravel() / np.float32(whole)
    low, mid, high, ring, *axes = (float(np.log(power[band].mean() + POWER_FLOOR)) for band in bands)
    return [low, mid, high, ring, min(axes[:2]), min(axes[2:]), max(axes[2:])]


@lru_cache(maxsize=64)
def _grid(height: int, width: int) -> tuple[Plane, float, list[NDArray[np.intp]]]:
    """Of a patch: its taper, the taper's power, and which coefficients of half a spectrum are in each band."""
    taper = cv2.createHanningWindow((width, height), cv2.CV_32F)
    down, across = np.abs(np.fft.fftfreq(height))[:, None] * 2, np.fft.rfftfreq(width)[None] * 2
    least, most = np.minimum(down, across), np.maximum(down, across)
    of_axes = [
        (along > low) & (along <= high) & (beside < BESIDE_AXIS)
        for low, high in AXES
        for along, beside in ((across, down), (down, across))
    ]
    corners = [(least > low) & (least <= high) for low, high in CORNERS]
    bands = [*corners, (most > RING[0]) & (most <= RING[1]), *of_axes]
    return np.asarray(taper, np.float32), float(np.square(taper).sum()), [np.flatnonzero(band) for band in bands]


def _dependence(grey: Plane) -> list[float]:
    """Correlation of small second differences with those beside them (the axis of less), two and three on (of more)."""
    found = []
    for along in (grey, grey.T):
        small = np.clip(np.diff(along, n=2, axis=1), -SMALL_STEP, SMALL_STEP)
        whole = max(float(np.square(small).mean()), 1e-3)
        found.append([float((small[:, lag:] * small[:, :-lag]).mean()) / whole for lag in (1, 2, 3)])
    beside, two, three = zip(*found, strict=True)
    return [min(beside), max(two), max(three)]


def repetition(grey: Plane, order: int, cap: float) -> tuple[float, float]:
    """Amplitude, in logarithms, of the strongest repetition that both axes share and JPEG does not explain.

    And how far it stands out: that over the median of all frequencies, without JPEG's harmonics. JPEG's own period of 8
    px is taken off before; periods of 2 and 4 px, which divide it, count as far as they exceed its other harmonics.
    """
    free, of_jpeg = zip(*(_amplitudes(along, order, cap) for along in (grey, grey.T)), strict=True)
    both = np.sqrt(free[0] * free[1])
    one, two, three, four = np.sqrt(of_jpeg[0] * of_jpeg[1])
    odd = max(one, three)
    most = float(both.max())
    return max(most, float(two - odd), float(four - odd / 2)), most / max(float(np.median(both)), 1e-9)


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


def _edges(grey: Plane) -> list[float] | None:
    """Of the edges: steepest step over height (lower quartile, upper tenth), halos, rise over 2 and 10 px of tall ones.

    A halo is a fall on both sides: lines and hairs fall on one side of each of their edges only.
    """
    profiles = _edge_profiles(grey)
    if len(profiles) < LEAST_EDGES:
        return None
    steps = np.diff(profiles, axis=1)
    steepest = (steps[:, REACH - 1] + steps[:, REACH]) / 2
    inner = profiles[:, REACH // 2 : REACH + REACH // 2 + 1]
    height = np.maximum(inner.max(axis=1) - inner.min(axis=1), LEAST_HEIGHT)
    relative = np.minimum(steps / np.maximum(steepest, 2.0)[:, None], 0.3)
    falls = [np.cumsum(side, axis=1).min(axis=1) for side in (relative[:, REACH - 2 :: -1], relative[:, REACH + 1 :])]
    halo = float((np.maximum(falls[0], falls[1]) < -HALO).mean())
    tall = height >= np.quantile(height, TALL)
    centred = profiles - profiles[:, REACH : REACH + 1]
    shape = np.median(centred[tall] / height[tall, None], axis=0)
    soft, hard = np.quantile(steepest / height, (0.25, 0.9))
    return [float(soft), float(hard), halo, *(float(shape[REACH + far] - shape[REACH - far]) for far in (1, 5))]


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
    here, before, after = (steps[:, at] + steps[:, at + 1] for at in (REACH - 1, REACH - 3, REACH + 1))
    return np.asarray(profiles[here >= np.maximum(before, after)])


FIRST, SECOND = NAMES.index("repeat1"), NAMES.index("repeat2")
SECOND_WEIGHT = 0.7
"""Of repeating second differences (bilinear and bicubic kernels) beside repeating first ones (repeated pixels)."""
REPETITION_HALF = 0.14
"""Repetition, amplitude in logarithms, at which `pixelation` is 0.5: hardly a photo that was never enlarged has it."""
CROP_EYES = 128.0
"""Distance of the eyes, pixels, in a crop of 512: larger faces are looked at in this size too."""


@dataclass(frozen=True)
class FaceTraces:
    """`traces` of a face; None where it is too small or has no edges."""

    native: Values | None
    """In the photo's own pixels."""
    crop: Values | None
    """In the size of a crop, of a face that is larger."""


@dataclass(frozen=True)
class _Odds:
    """A logistic regression of the numbers of `traces`."""

    intercept: float
    coefficients: tuple[float, ...]

    def probability(self, found: Values | None) -> float:
        if found is None:
            return 0.0
        return 1 / (1 + exp(-min(max(self.intercept + float(np.dot(found, self.coefficients)), -30.0), 30.0)))


ENLARGED = _Odds(
    6.04,
    (
        -0.041, 0.022, -0.452, -0.329, -0.267, 0.337, 0.317, 0.597, 4.995, -12.691, -1.085, 15.868, 0.345, -4.032,
        -19.417, -1.256, -1.162, -0.408, 0.177,
    ),
)  # fmt: skip
"""Of an enlargement by a smooth kernel, 1.5 times or more; coefficients in the order of `NAMES`."""
SHARPENED = _Odds(
    -19.47,
    (
        0.638, 0.199, 0.55, 0.326, 0.141, -0.186, 0.38, -2.23, -6.207, -2.273, 2.791, 4.218, -0.024, -20.663, 8.078,
        8.012, 3.177, -2.631, 0.427,
    ),
)  # fmt: skip
"""Of unsharp masks and of the sharpening of phones."""
SHARPENED_ENLARGEMENT = _Odds(
    -0.00,
    (
        -0.462, -0.45, 0.146, -0.085, 0.545, 1.069, 0.537, 8.701, 1.464, -14.759, 5.339, 15.207, 0.525, -20.794,
        -30.414, 5.373, 6.55, -0.716, 0.614,
    ),
)  # fmt: skip
"""Of an enlargement that was sharpened."""


def face_traces(region: FaceRegion) -> FaceTraces:
    """What `pixelation` and `sharpening` judge."""
    shrink = CROP_EYES / EYE_DISTANCE * region.scale
    crop = None
    if shrink < 1 and min(region.native.shape) > 0:
        small = cv2.resize(region.native, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        crop = traces(np.asarray(small, dtype=np.float32))
    return FaceTraces(traces(region.native), crop)


def pixelation(found: FaceTraces) -> float:
    """How surely the pixels were enlarged, into squares or by a smooth kernel, 0..1; 0 where nothing tells.

    The larger of two: how strongly rows and columns repeat, r / (r + `REPETITION_HALF`), as of squares; and the
    probability of an enlargement by a bilinear, bicubic or Lanczos kernel 1.5 times or more.
    """
    if found.native is None:
        return 0.0
    repeated = max(0.0, float(found.native[FIRST]), SECOND_WEIGHT * float(found.native[SECOND]))
    return max(repeated / (repeated + REPETITION_HALF), ENLARGED.probability(found.native))


def sharpening(found: FaceTraces) -> float:
    """How surely edges were sharpened beyond what a lens draws, 0..1; 0 where nothing tells.

    The larger of two: the probability of an unsharp mask or of a phone's sharpening, of a large face in the size of a
    crop too, and that of an enlargement which was sharpened.
    """
    masked = max(SHARPENED.probability(found.native), SHARPENED.probability(found.crop))
    return max(masked, SHARPENED_ENLARGEMENT.probability(found.native))
