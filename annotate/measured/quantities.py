"""The parts of an aligned crop, at one size, the head's pose, and what is measured of them: light, colour, eyes.

Left and right are those of the picture as it is seen; x runs to the right, y down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 256
"""Side every crop is brought to, pixels: the smallest crop that is made, so 256, 512 and 1024 measure alike."""
LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)
"""iBUG points of the eye on the picture's left and right."""
_LIPS = slice(48, 60)
RIGID = (36, 39, 42, 45, 27, 28, 29, 30, 31, 33, 35)
"""iBUG points that no expression moves much: corners of the eyes, ridge and base of the nose."""
SHAPE = (
    (-0.500, -0.013, -0.042),
    (-0.221, 0.013, 0.042),
    (0.221, 0.013, 0.042),
    (0.500, -0.013, -0.042),
    (0.000, -0.035, 0.209),
    (0.000, 0.112, 0.284),
    (0.000, 0.256, 0.366),
    (0.000, 0.404, 0.441),
    (-0.165, 0.508, 0.187),
    (0.000, 0.556, 0.254),
    (0.165, 0.508, 0.187),
)
"""A mean face in units of the outer corners' distance: x to the picture's right, y down, z to the camera.

Rank-3 factorisation (Tomasi and Kanade 1992) of the landmarks of 1,400 portraits and their mirror images."""
HEAD_CENTRE = (0.30, -0.55)
HEAD_RADII = (0.85, 1.15)
"""The head as an ellipsoid in the same units: its middle below (y) and behind (z) the eyes, its half breadth and
half height; a bizygomatic breadth of 14 cm, outer corners 8.8 cm apart."""


@dataclass(frozen=True)
class Pose:
    """A head under a camera without perspective.

    Angles in degrees: `yaw` > 0 turned to the picture's right, `pitch` > 0 chin up, `roll` > 0 tilted
    clockwise. `scale` is pixels a unit of the shape, `centre` where the head's middle falls, pixels.
    """

    yaw: float
    pitch: float
    roll: float
    scale: float
    centre: tuple[float, float]


@dataclass(frozen=True)
class Regions:
    """A crop at `SIDE` and its parts; masks are (256, 256) bool.

    `rgb` is (256, 256, 3) uint8; `linear` its linear light, float32, 0..1; `lab` the same as CIE L*a*b* (D65),
    float32, L* 0..100; `stops` the base-2 logarithm of the linear luminance, 0 for white and about -9 for black;
    `points` (68, 2) float64.
    """

    rgb: NDArray[np.uint8]
    linear: NDArray[np.float32]
    lab: NDArray[np.float32]
    stops: NDArray[np.float32]
    points: NDArray[np.float64]
    skin: NDArray[np.bool_]
    """Brows to jaw, without brows, eyes, nostrils and mouth, a little inside the outline."""
    cheeks: NDArray[np.bool_]
    """The part of the skin below the eyes and above the mouth, beside the nose."""
    features: NDArray[np.bool_]
    """Eyes, brows and mouth: where a sharp face has its sharpest edges."""
    background: NDArray[np.bool_]
    """What is neither head nor body, above the height of the mouth; empty where the head fills the crop."""
    pose: Pose


def find_pose(points: NDArray[np.float64]) -> Pose:
    """Pose of (68, 2) landmarks by scaled orthography (POS of DeMenthon and Davis 1995)."""
    shape = np.array(SHAPE)
    middle = shape.mean(0)
    seen = points[list(RIGID)]
    rows = np.linalg.lstsq(shape - middle, seen - seen.mean(0), rcond=None)[0].T
    u, sizes, v = np.linalg.svd(rows, full_matrices=False)
    turn, scale = u @ v, max(float(sizes.mean()), 1e-6)
    forward = np.cross(turn[0], turn[1])
    nose = np.array([turn[0, 2], turn[1, 2], forward[2]])  # where the face's z axis points, in the picture
    eyes, down = points[[36, 39, 42, 45]].mean(0), turn[:, 1] / max(float(np.hypot(*turn[:, 1])), 1e-6)
    # Yaw moves the head's middle aside; pitch would move it too, but what it measures is half anatomy.
    centre = eyes + scale * (HEAD_CENTRE[0] * down + HEAD_CENTRE[1] * np.array([turn[0, 2], 0.0]))
    return Pose(
        yaw=float(np.degrees(np.arctan2(nose[0], nose[2]))),
        pitch=float(np.degrees(np.arctan2(-nose[1], np.hypot(nose[0], nose[2])))),
        roll=float(np.degrees(np.arctan2(turn[1, 0], turn[0, 0]))),
        scale=scale,
        centre=(float(centre[0]), float(centre[1])),
    )


def find_regions(rgb: NDArray[np.uint8], landmarks: NDArray[np.float64]) -> Regions:
    """The parts of a (s, s, 3) FFHQ-aligned crop with (68, 2) landmarks in its pixels.

    Raises ValueError where the shapes are others.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.shape[0] != rgb.shape[1] or landmarks.shape != (68, 2):
        raise ValueError(f"a crop is (s, s, 3) with (68, 2) landmarks, not {rgb.shape} with {landmarks.shape}")
    size = rgb.shape[0]
    points = (np.asarray(landmarks, np.float64) + 0.5) * (SIDE / size) - 0.5
    small = rgb
    if size != SIDE:
        small = cv2.resize(rgb, (SIDE, SIDE), interpolation=cv2.INTER_AREA if size > SIDE else cv2.INTER_CUBIC)
    linear = cv2.LUT(small, _linear_light())
    luminance = cv2.transform(linear, np.array([[0.2126, 0.7152, 0.0722]], np.float32))  # Rec. 709
    skin, features = _face_masks(points)
    pose = find_pose(points)
    return Regions(
        rgb=small,
        linear=linear,
        lab=cv2.cvtColor(linear, cv2.COLOR_LRGB2LAB),
        stops=np.log2(luminance + np.float32(1 / 512)),  # the floor keeps 8-bit black from ruling a fit
        points=points,
        skin=skin,
        cheeks=skin & _cheeks(points),
        features=features,
        background=_background(small, points, pose),
        pose=pose,
    )


def _face_masks(points: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Skin, and the features that are cut out of it."""
    eye = float(abs(points[RIGHT_EYE].mean(0) - points[LEFT_EYE].mean(0)).max())
    features = np.zeros((SIDE, SIDE), np.uint8)
    for eyelids in (LEFT_EYE, RIGHT_EYE):
        _draw(features, points[eyelids], 0.14 * eye, inside=True)
    for brow in (slice(17, 22), slice(22, 27)):
        _draw(features, points[brow], 0.13 * eye)
    _draw(features, points[_LIPS], 0.10 * eye, inside=True)
    hull = cv2.convexHull(points[:27].astype(np.float32))[:, 0]
    skin = drawn(hull, inside=True) & ~drawn(np.concatenate([hull, hull[:1]]), 0.10 * eye)
    nostrils = drawn(points[31:36], 0.10 * eye)
    return skin & ~features.astype(bool) & ~nostrils, features.astype(bool)


def _cheeks(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    nose = points[[31, 35], 0]
    place = np.arange(SIDE)
    beside = (place < nose.min() - 3) | (place > nose.max() + 3)
    between = (place > points[36:48, 1].max() + 4) & (place < points[_LIPS, 1].min() + 2)
    return np.asarray(beside[None] & between[:, None])


def _background(rgb: NDArray[np.uint8], points: NDArray[np.float64], pose: Pose) -> NDArray[np.bool_]:
    """What is neither head nor body, by GrabCut (Rother et al. 2004) at 36 px: hair and hats go with the head.

    The head's ellipsoid is certain foreground, the border of the upper crop beside it certain background. Below
    the mouth nothing is looked at: clothes look like anything.
    """
    side = 36
    scale = side / SIDE
    y, x = np.mgrid[:side, :side]
    across = (x - pose.centre[0] * scale) / (HEAD_RADII[0] * pose.scale * scale)
    down = (y - pose.centre[1] * scale) / (HEAD_RADII[1] * pose.scale * scale)
    radius = np.hypot(across, down)
    marks = np.full((side, side), cv2.GC_PR_BGD, np.uint8)
    marks[(radius < 1.3) | (y > points[8, 1] * scale)] = cv2.GC_PR_FGD
    marks[radius < 1.02] = cv2.GC_FGD
    border = ((y < 2) & (np.abs(across) > 0.9)) | ((y < 0.35 * side) & ((x < 2) | (x >= side - 2)))
    marks[border & (radius >= 1.02)] = cv2.GC_BGD
    if not (marks == cv2.GC_BGD).any() or not (marks == cv2.GC_FGD).any():
        return np.zeros((SIDE, SIDE), bool)
    small = cv2.resize(rgb, (side, side), interpolation=cv2.INTER_AREA)
    cv2.setRNGSeed(0)  # its k-means draws at random: the same crop has the same background
    cv2.grabCut(small, marks, None, np.zeros((1, 65)), np.zeros((1, 65)), 1, cv2.GC_INIT_WITH_MASK)
    behind = ((marks == cv2.GC_BGD) | (marks == cv2.GC_PR_BGD)) & (y < points[_LIPS, 1].mean() * scale)
    behind = cv2.erode(behind.astype(np.uint8), np.ones((3, 3), np.uint8))
    full = cv2.resize(behind, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
    # 5 px more: where hair shows at the rim of a blurred background, the background seems sharp.
    return np.asarray(cv2.erode(full, np.ones((11, 11), np.uint8)), bool)


def drawn(chain: NDArray[np.floating], pixels: float = 0.0, *, inside: bool = False) -> NDArray[np.bool_]:
    """What lies within `pixels` of a chain of (n, 2) points, and what it encloses where `inside`: (256, 256)."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    _draw(mask, chain, pixels, inside=inside)
    return mask.astype(bool)


def _draw(mask: NDArray[np.uint8], chain: NDArray[np.floating], pixels: float, *, inside: bool = False) -> None:
    corners = [np.rint(chain).clip(-4 * SIDE, 4 * SIDE).astype(np.int32)]
    if inside:
        cv2.fillPoly(mask, corners, 1)
    if pixels > 0:
        cv2.polylines(mask, corners, inside, 1, 2 * round(min(pixels, SIDE)) + 1)


def quantile(values: NDArray[np.floating], share: float) -> float:
    """The value that a share (0..1) of some (n,) values do not exceed, 0 where there are none."""
    if values.size == 0:
        return 0.0
    place = min(int(share * values.size), values.size - 1)
    return float(np.partition(values, place)[place])


@lru_cache(maxsize=1)
def _linear_light() -> NDArray[np.float32]:
    """Linear light of the 256 sRGB values (IEC 61966-2-1)."""
    value = np.arange(256) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


_DAYLIGHT_SKIN, _DAYLIGHT_WHITE = 1.22, 0.96
"""Medians of log2(red / blue) over 1,500 portraits; the whites of small eyes hold some skin."""


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
