"""The faces of a video's frames, cut out steadily: found in each frame, followed, smoothed over time."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from authface.errors import ImageError
from authface.faces.detector import Detection
from authface.faces.geometry import Side, ffhq_quad
from authface.imaging.bitdepth import is_grey
from authface.restore.finder import DOUBTFUL_SCORE, FaceFinder, cut, whole
from authface.restore.model.restorer import face_seed
from authface.restore.photo import Found, Search
from authface.restore.timing import part
from authface.restore.video.tracks import REACH, Sighting, Track, is_cut, matched, thumbnail

LOST = 0.5
"""A face that is found again after so many seconds is another one, with noise of its own."""


class Follower(Protocol):
    """Sees the frames of a video in order, and says, a little later, what faces each of them holds."""

    @property
    def reach(self) -> float:
        """Seconds beyond a frame that have to be seen before its `faces` are asked for."""
        ...

    @property
    def followed(self) -> int:
        """Faces that were restored so far, each counted once however long it stays."""
        ...

    @property
    def left(self) -> str:
        """Why faces were left alone, in a word or two and in numbers; empty: none was."""
        ...

    def see(self, rgb: NDArray[np.uint8], time: float) -> None:
        """The frame at a time, (h, w, 3) upright."""
        ...

    def faces(self, rgb: NDArray[np.uint8], time: float) -> Search:
        """The faces of a frame that was seen."""
        ...


class FaceFollower:
    """Finds faces in every frame and follows them; `smooth` is the width of the window, seconds, 0 for none.

    A face's noise is drawn from `content`, `seed` and the face's number: it is the same in all of its frames. Which
    faces are restored (`--faces`, `min_face`) is decided when one comes in, or later when it has become large enough.
    """

    def __init__(self, finder: FaceFinder, side: Side, smooth: float, content: str, seed: int) -> None:
        self.finder, self.side, self.smooth = finder, side, smooth
        self.content, self.seed = content, seed
        self.reach = REACH * smooth
        self.followed = 0
        self._came = 0
        self._tracks: list[Track] = []
        self._last: NDArray[np.uint8] | None = None
        self._left: dict[str, str] = {}

    @property
    def left(self) -> str:
        """Why faces were left alone, with the numbers of the first of each reason."""
        return ", ".join(f"{reason} ({detail})" for reason, detail in sorted(self._left.items()))

    def see(self, rgb: NDArray[np.uint8], time: float) -> None:
        """Find the faces of the frame and give each to its track."""
        small = thumbnail(rgb)
        if self._last is not None and is_cut(self._last, small):
            for track in self._tracks:
                track.ended = True
        self._last = small
        with part("detect"):
            sure, doubtful = self.finder.detector.survey(rgb, DOUBTFUL_SCORE)
        live = [track for track in self._tracks if not track.ended and time - track.found_at <= LOST]
        found = [*sure, *doubtful]
        known = matched([track.box for track in live], [face.box for face in found])
        for index, face in enumerate(found):
            if index in known:
                track = live[known[index]]
            elif index < len(sure):  # what is uncertain goes on with a face, and begins none
                track = Track(self._came, face.box, time)
                self._came += 1
                self._tracks.append(track)
                live.append(track)
            else:
                self._left["low_score"] = f"score {face.score:.2f}, the limit is {self.finder.settings.min_score:g}"
                continue
            track.box, track.found_at = face.box, time
            self._sight(rgb, track, face, sum(other.chosen for other in live))

    def _sight(self, rgb: NDArray[np.uint8], track: Track, face: Detection, taken: int) -> None:
        reason, detail = ("", "") if track.chosen else self.finder.unfit(face, taken)
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
        self._left.setdefault(reason, detail)

    def faces(self, rgb: NDArray[np.uint8], time: float) -> Search:
        """The followed faces, cut out where the window puts them."""
        found: list[Found] = []
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
                    found.append(cut(rgb, face, quad.reshape(4, 2), self.side, track.number, seed, grey, "dlib68"))
            except ImageError:
                continue  # the window put it out of the picture
        for track in self._tracks:
            track.forget(time - self.reach)
        self._tracks = [track for track in self._tracks if track.sightings or time - track.found_at <= LOST]
        return Search(tuple(found))


class WholeFollower:
    """Each frame is one aligned face."""

    reach, followed, left = 0.0, 1, ""

    def __init__(self, side: Side, content: str, seed: int) -> None:
        self.side, self.content, self.seed = side, content, seed

    def see(self, rgb: NDArray[np.uint8], time: float) -> None:
        """Nothing is looked for."""

    def faces(self, rgb: NDArray[np.uint8], time: float) -> Search:
        """The frame."""
        return whole(rgb, self.side, self.content, self.seed)
