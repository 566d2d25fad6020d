"""Whether the eyes and the mouth of a restored face are those of its photo, each by itself.

An honest restoration, blurred as its photo is, is the photo again, but for noise. So the two are laid on each other at
one size; the blur and the contrast that take the restored face to the photo are found; and what then still differs in
a part counts beyond what differs in the rest of the face, which is the photo's noise and what the blur does not
explain. The worse the photo, the more of a broken part its noise hides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.faces.geometry import warp
from authface.restore.model.colour import LUMA

SUSPECT = 0.9
"""A part less like its photo's than this is to be looked at. Of honest restorations (`benchmarks/parts.py`) at most
1 in 50 have one."""
UNIT = 40
"""Pixels between the eyes where faces are compared; lengths below are in parts of it."""
SIDE = 128
"""Of the square they are compared in, pixels."""
LEAST_UNIT = 2.0
"""Of the crop, pixels: with eyes less than this apart nothing is seen."""
BLURS = (0.0, 0.02, 0.04, 0.06, 0.09, 0.12, 0.16, 0.2, 0.25)
"""Sigmas that may take the restored face to its photo."""
FINEST, FIT_AT, COARSE = 0.02, 0.03, 0.3
"""Sigmas: of what is compared at best, of what the blur is found by, and of the light, which is not compared."""
GAIN = (0.5, 1.5)
"""Of the photo's contrast to the restored face's."""
ALLOWED = 1.5
"""A part may differ by so many times the mean square that the rest of the face does."""
FLOOR = 20.0
"""Levels squared: so little contrast is no pattern."""
EYE, FACE = (0.32, 0.22), (1.1, 1.2)
"""Half axes of the ovals."""
MOUTH = (0.75, 0.34)
"""Likewise; across in widths of the mouth, which is at least half a unit wide."""

Crop = NDArray[np.uint8]
Plane = NDArray[np.float32]


@dataclass(frozen=True)
class FaceParts:
    """How like its photo's each part of a restored face is, 0..1; 1: nothing speaks against it. Right is the person's
    own right."""

    right_eye: float
    left_eye: float
    mouth: float

    @property
    def least(self) -> float:
        """The likeness of the worst."""
        return min(self.right_eye, self.left_eye, self.mouth)

    def below(self, limit: float) -> dict[str, float]:
        """The parts that are less like their photo's, by name, the worst first."""
        values = asdict(self)
        return {name: value for name, value in sorted(values.items(), key=lambda one: one[1]) if value < limit}


SAME = FaceParts(1.0, 1.0, 1.0)
NAMES = tuple(field.name for field in fields(FaceParts))


class HasParts(Protocol):
    """What has the parts, such as `FaceParts` or a line of the log."""

    @property
    def right_eye(self) -> float | None: ...
    @property
    def left_eye(self) -> float | None: ...
    @property
    def mouth(self) -> float | None: ...


def suspect_below(least: float) -> float:
    """A part less like its photo's is to be looked at, also where less, `least`, is enough for it to be kept."""
    return max(least, SUSPECT)


def parts_text(measured: HasParts, names: Iterable[str] = NAMES) -> str:
    """Some of the parts in words: ``mouth 0.41, left eye 0.62``; empty where none was measured. Rounded down: what is
    below a limit reads so."""
    values = [(name.replace("_", " "), getattr(measured, name)) for name in names]
    down = [(name, math.floor(value * 100 + 1e-6) / 100) for name, value in values if value is not None]
    return ", ".join(f"{name} {value:.2f}" for name, value in down)


def compare_parts(before: Crop, after: Crop, points5: object) -> FaceParts | None:
    """Compare the parts of two (size, size, 3) uint8 crops of a face; None where the points show none.

    `points5` are the eyes, nose tip and mouth corners of `before`, as a detection has them, in pixels of the crop.
    """
    placed = _frame(np.asarray(points5, np.float64).reshape(5, 2))
    if placed is None:
        return None
    turn, (right, left, _, *corners) = placed
    photo, restored = _pattern(before, turn), _pattern(after, turn)
    wide = max(float(np.hypot(*(corners[1] - corners[0]))) / UNIT, 0.5)
    ovals = [_oval(right, *EYE), _oval(left, *EYE), _oval(np.mean(corners, axis=0), MOUTH[0] * wide, MOUTH[1])]
    face = _oval(np.full(2, (SIDE - 1) / 2), *FACE)
    blur, gain = _fit(photo, restored, face)
    finest = max(FINEST, blur / 2)
    seen, made = _blurred(photo, finest), gain * _blurred(restored, float(np.hypot(blur, finest)))
    error, signal = (seen - made) ** 2, seen**2 + made**2
    likeness = []
    for oval in ovals:
        rest = np.maximum(face - oval, 0)
        excess = _mean(error, oval) - ALLOWED * _mean(error, rest)
        likeness.append(max(0.0, 1 - (max(0.0, excess) / (_mean(signal, oval) + FLOOR)) ** 0.5))
    return FaceParts(*likeness)


def _frame(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """(2, 3) from the square in which faces are compared to the crop, and the five points in that square.

    Eyes lie level in it, `UNIT` px apart, or nearer where a face is turned: as in `ffhq_quad` its height then counts.
    """
    eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    across, down = points[1] - points[0], mouth - eyes
    distance = float(np.hypot(*across))
    unit = max(distance, 0.9 * float(np.hypot(*down)))
    if not np.isfinite(points).all() or distance < 1e-6 or unit < LEAST_UNIT:
        return None
    x = across / distance * unit / UNIT
    turn = np.array([[x[0], -x[1]], [x[1], x[0]]])
    shift = (eyes + mouth) / 2 - turn @ np.full(2, (SIDE - 1) / 2)
    return np.column_stack([turn, shift]), (points - shift) @ np.linalg.inv(turn).T


def _pattern(crop: Crop, turn: NDArray[np.float64]) -> Plane:
    """(SIDE, SIDE) lightness less that of the coarse light, which commutes with blurs."""
    grey = warp(crop, turn, SIDE, SIDE).astype(np.float32) @ np.array(LUMA, np.float32)
    few = cv2.resize(grey, (SIDE // 4, SIDE // 4), interpolation=cv2.INTER_AREA)
    light = cv2.resize(_blurred(few, COARSE / 4), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    return np.asarray(grey - light)


def _oval(centre: NDArray[np.float64], across: float, down: float) -> Plane:
    """(SIDE, SIDE) weights 0..1: 0.37 on the ellipse of these half axes."""
    y, x = np.mgrid[:SIDE, :SIDE]
    apart = ((x - centre[0]) / (across * UNIT)) ** 2 + ((y - centre[1]) / (down * UNIT)) ** 2
    return np.asarray(np.exp(-(apart**2)), np.float32)


def _blurred(grey: Plane, sigma: float) -> Plane:
    return np.asarray(cv2.GaussianBlur(grey, (0, 0), sigma * UNIT))


def _fit(photo: Plane, restored: Plane, face: Plane) -> tuple[float, float]:
    """The blur among `BLURS`, and the gain, by which the restored face comes nearest to its photo."""
    seen = _blurred(photo, FIT_AT)
    found = []
    for blur in BLURS:
        made = _blurred(restored, float(np.hypot(blur, FIT_AT)))
        gain = float(np.clip(np.vdot(face * seen, made) / max(float(np.vdot(face * made, made)), 1e-6), *GAIN))
        found.append((_mean((seen - gain * made) ** 2, face), blur, gain))
    return min(found)[1:]


def _mean(values: Plane, weights: Plane) -> float:
    return float(np.vdot(values, weights)) / max(float(weights.sum()), 1e-6)
