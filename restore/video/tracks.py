"""Faces followed through a video: who is who from frame to frame, and where each face lies once jitter is gone.

Times are seconds, coordinates pixels of the upright frame.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.records import Box

NEAR = 0.7
"""Most distance (`apart`) of a face from where it was in the frame before."""
CUT_LEVELS = 30.0
"""Mean difference of two frames' small pictures, levels of 255, from which the second begins another scene."""
REACH = 2.0
"""Sightings so many widths of the window away count for nothing, and gaps as long are filled."""

Values = NDArray[np.float64]


class Sighting(NamedTuple):
    """Where a face was seen."""

    time: float
    values: Values
    """(n,) coordinates, all of which are smoothed alike: a quad's corners stay those of a square."""
    score: float


@dataclass
class Track:
    """One face through the frames; `number` counts from 0 in the order of coming in."""

    number: int
    box: Box
    """Where it was last found."""
    found_at: float
    chosen: bool = False
    """It is restored; once chosen a face stays so, whatever its size becomes."""
    ended: bool = False
    """A scene ended: it is never found again."""
    sightings: deque[Sighting] = field(default_factory=deque)

    def at(self, time: float, width: float) -> Sighting | None:
        """Where the face is at a time, smoothed over `width` (0: as seen); None where it is not in the picture.

        Between two sightings that are at most ``REACH * width`` apart it is there as well.
        """
        before = max((one.time for one in self.sightings if one.time <= time), default=None)
        after = min((one.time for one in self.sightings if one.time >= time), default=None)
        if before is None or after is None or after - before > REACH * width:
            return None
        near = [one for one in self.sightings if abs(one.time - time) <= REACH * width]
        weights = gaussian(np.array([one.time - time for one in near]), width)
        values = line_at([one.time - time for one in near], np.stack([one.values for one in near]), weights)
        return Sighting(time, values, float(weights @ [one.score for one in near] / weights.sum()))

    def forget(self, before: float) -> None:
        """Drop the sightings before a time."""
        while self.sightings and self.sightings[0].time < before:
            self.sightings.popleft()


def gaussian(distances: Values, width: float) -> Values:
    """Weights of a window of that standard deviation, 1 in its middle; of width 0: 1 there and 0 elsewhere."""
    if width <= 0:
        return np.asarray(distances == 0, np.float64)
    return np.asarray(np.exp(-0.5 * (distances / width) ** 2), np.float64)


def line_at(times: Sequence[float], values: Values, weights: Values) -> Values:
    """(n,) the value at time 0 of the straight lines that fit (m, n) values best, weighted least squares.

    A line and not a mean: what moves steadily stays where it is, also at the first and the last sighting.
    """
    total = weights.sum()
    distances = np.asarray(times, np.float64)
    middle = weights @ distances / total
    mean = weights @ values / total
    spread = weights @ (distances - middle) ** 2
    if spread <= 1e-12 * total:
        return np.asarray(mean)
    slope = (weights * (distances - middle)) @ values / spread
    return np.asarray(mean - middle * slope)


def apart(one: Box, other: Box) -> float:
    """How unlike two boxes are: the distance of their centres over their mean side, plus the log of their sides' ratio.

    0 for equal boxes; 0.7 for boxes of one size whose overlap over union is 0.18, or one twice as large in one place.
    """
    a, b = (np.reshape(box, (2, 2)) for box in (one, other))
    sides = [float(np.sqrt(max(np.prod(box[1] - box[0]), 1e-12))) for box in (a, b)]
    centres = float(np.hypot(*(a.mean(axis=0) - b.mean(axis=0))))
    return centres / (sum(sides) / 2) + abs(float(np.log(sides[0] / sides[1])))


def matched(old: Sequence[Box], new: Sequence[Box]) -> dict[int, int]:
    """Which of `old` each of `new` is, by index: the nearest pairs first, each box in one pair, none beyond `NEAR`."""
    pairs = sorted((apart(a, b), i, j) for i, a in enumerate(old) for j, b in enumerate(new))
    known: dict[int, int] = {}
    for distance, i, j in pairs:
        if distance <= NEAR and j not in known and i not in known.values():
            known[j] = i
    return known


def thumbnail(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(18, 32, 3) small picture of a frame."""
    return np.asarray(cv2.resize(rgb, (32, 18), interpolation=cv2.INTER_AREA), np.uint8)


def is_cut(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> bool:
    """Whether two thumbnails are of different scenes."""
    return float(np.abs(after.astype(np.int16) - before).mean()) >= CUT_LEVELS
