"""Photos by quarter turns: which turn makes a face stand upright, and its points there and back.

`turns` counts quarter turns against the clock, as `numpy.rot90` does; coordinates have the first pixel's centre at 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from authface.faces.detector import Detection


def roll(points5: Sequence[float]) -> float:
    """How far a face leans by its eyes, degrees: 0 upright, 90 its crown to the picture's right, -180..180."""
    return math.degrees(math.atan2(points5[3] - points5[1], points5[2] - points5[0]))


def quarter_turns(points5: Sequence[float]) -> int:
    """The turns, 0..3, after which a face leans by at most 45 degrees."""
    return round(roll(points5) / 90) % 4


def turned(points: ArrayLike, turns: int, width: int, height: int) -> NDArray[np.float64]:
    """(n, 2) points of a photo of `width` x `height` pixels, in the photo after `turns`."""
    moved = np.array(points, np.float64).reshape(-1, 2)
    for _ in range(turns % 4):
        moved = np.stack([moved[:, 1], width - 1 - moved[:, 0]], axis=1)
        width, height = height, width
    return moved


def turned_back(points: ArrayLike, turns: int, width: int, height: int) -> NDArray[np.float64]:
    """(n, 2) points of the photo after `turns`, in the photo itself, which has `width` x `height` pixels."""
    sides = (height, width) if turns % 2 else (width, height)
    return turned(points, -turns, *sides)


def turned_detection(face: Detection, turns: int, width: int, height: int) -> Detection:
    """A face of a photo of `width` x `height` pixels as it lies in the photo after `turns`."""
    box = turned(face.box, turns, width, height)
    (x0, y0), (x1, y1) = box.min(axis=0).tolist(), box.max(axis=0).tolist()
    return Detection((x0, y0, x1, y1), face.score, tuple(turned(face.points5, turns, width, height).ravel().tolist()))
