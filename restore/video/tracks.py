"""Track the faces of a video: detected in each frame, matched between frames, smoothed over time, cropped.

Times are seconds, coordinates pixels of the upright frame.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.errors import ImageError
from authface.faces.detector import Detection
from authface.faces.geometry import Side, ffhq_quad
from authface.imaging.png import is_grey
from authface.records import Box
from authface.restore.model.restorer import face_seed
from authface.restore.photo import DOUBTFUL_SCORE, LOW_SCORE, FaceFinder, FaceResult, cut_out, whole_photo
from authface.restore.pipeline import part

LOST = 0.5
"""Seconds after which a face that reappears counts as another one, with its own noise."""
NEAR = 0.7
"""Largest distance (`apart`) of a face from its position in the previous frame."""
CUT_LEVELS = 30.0
"""Mean difference of two frames' thumbnails, levels of 255, from which the second begins another scene."""
REACH = 2.0
"""Widths of the smoothing window beyond which sightings are ignored, and up to which gaps are filled."""

Values = NDArray[np.float64]


Found = tuple[Sequence[Detection], Sequence[Detection]]
"""The sure and the doubtful faces that a detector sees in a frame, as `RetinaFace.survey`."""


class Sighting(NamedTuple):
    """Position of a face in a frame."""

    time: float
    values: Values
    """(n,) coordinates, all smoothed alike: a quad's corners remain those of a square."""
    score: float


@dataclass
class Track:
    """One face through the frames; `number` counts from 0 in order of appearance."""

    number: int
    box: Box
    """Its box when it was last detected."""
    found_at: float
    chosen: bool = False
    """Whether it is restored; once chosen, a face stays chosen, whatever its size."""
    ended: bool = False
    """Whether its scene has ended: it cannot reappear."""
    sightings: deque[Sighting] = field(default_factory=deque)

    def at(self, time: float, width: float) -> Sighting | None:
        """Position of the face at a time, smoothed over `width` (0: unsmoothed); None if it is not in the picture.

        Gaps of at most ``REACH * width`` between two sightings are interpolated.
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
    """Weights of a Gaussian window of that standard deviation, 1 in its middle; width 0: 1 there and 0 elsewhere."""
    if width <= 0:
        return np.asarray(distances == 0, np.float64)
    return np.asarray(np.exp(-0.5 * (distances / width) ** 2), np.float64)


def line_at(times: Sequence[float], values: Values, weights: Values) -> Values:
    """(n,) the value at time 0 of the straight lines that fit (m, n) values best, weighted least squares.

    A line and not a mean: steady motion is preserved, also at the first and the last sighting.
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
    """Distance of two boxes: that of their centres over their mean side, plus the log of their sides' ratio.

    0 for equal boxes; 0.7 for boxes of one size whose overlap over union is 0.18, or one twice as large in one place.
    """
    a, b = (np.reshape(box, (2, 2)) for box in (one, other))
    sides = [float(np.sqrt(max(np.prod(box[1] - box[0]), 1e-12))) for box in (a, b)]
    centres = float(np.hypot(*(a.mean(axis=0) - b.mean(axis=0))))
    return centres / (sum(sides) / 2) + abs(float(np.log(sides[0] / sides[1])))


def matched(old: Sequence[Box], new: Sequence[Box]) -> dict[int, int]:
    """Match each of `new` to one of `old`, by index: nearest pairs first, each box in one pair, none beyond `NEAR`."""
    pairs = sorted((apart(a, b), i, j) for i, a in enumerate(old) for j, b in enumerate(new))
    known: dict[int, int] = {}
    for distance, i, j in pairs:
        if distance <= NEAR and j not in known and i not in known.values():
            known[j] = i
    return known


def look(finder: FaceFinder, rgb: NDArray[np.uint8]) -> Found:
    """The faces of an (h, w, 3) frame, not tracked yet."""
    with part("detect"):
        return finder.detector.survey(rgb, DOUBTFUL_SCORE)


def thumbnail(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(18, 32, 3) thumbnail of a frame."""
    return np.asarray(cv2.resize(rgb, (32, 18), interpolation=cv2.INTER_AREA), np.uint8)


def is_cut(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> bool:
    """Whether two thumbnails are of different scenes."""
    return float(np.abs(after.astype(np.int16) - before).mean()) >= CUT_LEVELS


class Follower(Protocol):
    """Takes the frames of a video in order, and returns the faces of each with a short delay."""

    detects: bool
    """Whether `see` needs what a detector found."""

    @property
    def reach(self) -> float:
        """Seconds beyond a frame that must be passed to `see` before its `faces` are requested."""
        ...

    @property
    def followed(self) -> int:
        """Number of restored faces so far, each counted once."""
        ...

    @property
    def skipped(self) -> str:
        """Why faces were left alone, in words and numbers; empty: none was."""
        ...

    def see(self, rgb: NDArray[np.uint8], time: float, found: Found) -> None:
        """Take the frame at a time, (h, w, 3) upright, and the faces detected in it."""
        ...

    def faces(self, rgb: NDArray[np.uint8], time: float) -> list[FaceResult]:
        """The faces of an earlier frame."""
        ...


class FaceFollower:
    """Tracks the faces detected in every frame; `smooth` is the width of the window, seconds, 0 for none.

    A face's noise is drawn from `content`, `seed` and the face's number: it is the same in all of its frames. Whether
    a face is restored (`--faces`, `min_face`) is decided when it appears, or later when it is large enough.
    """

    detects = True

    def __init__(self, finder: FaceFinder, side: Side, smooth: float, content: str, seed: int) -> None:
        self.finder, self.side, self.smooth = finder, side, smooth
        self.content, self.seed = content, seed
        self.reach = REACH * smooth
        self.followed = 0
        self._next = 0
        self._tracks: list[Track] = []
        self._last: NDArray[np.uint8] | None = None
        self._skipped: dict[str, str] = {}

    @property
    def skipped(self) -> str:
        """Why faces were left alone, with the numbers of the first of each reason."""
        return ", ".join(f"{reason} ({detail})" for reason, detail in sorted(self._skipped.items()))

    def see(self, rgb: NDArray[np.uint8], time: float, found: Found) -> None:
        """Add each face of the frame to its track."""
        small = thumbnail(rgb)
        if self._last is not None and is_cut(self._last, small):
            for track in self._tracks:
                track.ended = True
        self._last = small
        sure, doubtful = found
        live = [track for track in self._tracks if not track.ended and time - track.found_at <= LOST]
        every = [*sure, *doubtful]
        known = matched([track.box for track in live], [face.box for face in every])
        for index, face in enumerate(every):
            if index in known:
                track = live[known[index]]
            elif index < len(sure):  # what is uncertain goes on with a face, and begins none
                track = Track(self._next, face.box, time)
                self._next += 1
                self._tracks.append(track)
                live.append(track)
            else:
                self._skipped[LOW_SCORE] = f"score {face.score:.2f}, the limit is {self.finder.settings.min_score:g}"
                continue
            track.box, track.found_at = face.box, time
            self._sight(rgb, track, face, sum(other.chosen for other in live))

    def _sight(self, rgb: NDArray[np.uint8], track: Track, face: Detection, taken: int) -> None:
        reason, detail = ("", "") if track.chosen else self.finder.reason_to_skip(face, taken)
        if not reason:
            try:
                with part("align"):
                    quad = ffhq_quad(self.finder.points(rgb, face)[0])
            except ImageError as error:
                reason, detail = error.reason, str(error)
            else:
                values = np.concatenate([np.ravel(quad), face.box, face.points5])
                self.followed += not track.chosen
                track.chosen = True
                track.sightings.append(Sighting(track.found_at, values, face.score))
                return
        self._skipped.setdefault(reason, detail)

    def faces(self, rgb: NDArray[np.uint8], time: float) -> list[FaceResult]:
        """The tracked faces, cropped at their smoothed positions."""
        faces: list[FaceResult] = []
        grey = is_grey(rgb)
        for track in self._tracks:
            there = track.at(time, self.smooth)
            if there is None:
                continue
            quad, box, points = np.split(there.values, [8, 12])
            x0, y0, x1, y1 = (float(value) for value in box)
            face = Detection((x0, y0, x1, y1), there.score, tuple(points.tolist()))
            seed = face_seed(self.content, track.number, self.seed)
            try:
                with part("align"):
                    faces.append(cut_out(rgb, face, quad.reshape(4, 2), self.side, track.number, seed, grey, "dlib68"))
            except ImageError:
                continue  # the window put it out of the picture
        for track in self._tracks:
            track.forget(time - self.reach)
        self._tracks = [track for track in self._tracks if track.sightings or time - track.found_at <= LOST]
        return faces


class WholeFollower:
    """Each frame is one aligned face."""

    reach, followed, skipped, detects = 0.0, 1, "", False

    def __init__(self, side: Side, content: str, seed: int) -> None:
        self.side, self.content, self.seed = side, content, seed

    def see(self, rgb: NDArray[np.uint8], time: float, found: Found) -> None:
        """Nothing to track."""

    def faces(self, rgb: NDArray[np.uint8], time: float) -> list[FaceResult]:
        """The frame."""
        return whole_photo(rgb, self.side, self.content, self.seed)
