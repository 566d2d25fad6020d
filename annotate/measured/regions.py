"""The parts of an aligned crop that are measured: skin, cheeks, features, background, at one size; the head's pose.

Left and right are those of the picture as it is seen; x runs to the right, y down.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 256
"""Side every crop is brought to, pixels: the smallest crop that is made, so 256, 512 and 1024 measure alike."""
LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)
"""iBUG points of the eye on the picture's left and right."""
_BROWS, _NOSE, _LIPS = slice(17, 27), slice(27, 36), slice(48, 60)
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
