"""One photo: find its faces, restore them, put them back. Pixels in, pixels out; no file is touched here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from authface.faces.detector import Detection, RetinaFace
from authface.faces.geometry import Aligned, align, ffhq_quad
from authface.faces.landmarks import Dlib68, disagreement
from authface.faces.paste import paste_all
from authface.records import Box
from authface.restore.colour import FIXES, is_grey, to_grey
from authface.restore.restorer import Restorer, face_seed
from authface.restore.settings import RestoreSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

PlacedBy = Literal["dlib68", "retinaface5", "whole"]


@dataclass(frozen=True)
class FaceResult:
    """What became of one face; `index` 0 is the photo's largest."""

    index: int
    box: Box
    score: float
    status: Literal["restored", "skipped"]
    reason: str = ""
    """Why a face was skipped: `too_small`, `beyond_max_faces`."""
    seed: int = 0
    placed_by: PlacedBy = "dlib68"
    """Whose points placed the crop; `whole`: the photo is the crop."""
    upscaled: bool = False
    """The face has fewer pixels in the photo than the model works on."""
    quad: NDArray[np.float64] | None = None
    """(4, 2) top-left, bottom-left, bottom-right, top-right corner of the crop in the photo."""
    before: NDArray[np.uint8] | None = None
    after: NDArray[np.uint8] | None = None
    """The (size, size, 3) crop as the model saw it, and restored with its colours fixed."""


@dataclass(frozen=True)
class PhotoResult:
    """The photo with its restored faces, of the input's shape, and all faces that were found."""

    rgb: NDArray[np.uint8]
    faces: tuple[FaceResult, ...]

    @property
    def restored(self) -> int:
        """How many faces were restored."""
        return sum(face.status == "restored" for face in self.faces)


@dataclass(frozen=True)
class Found:
    """A face that is to be restored, cut out: `face` lacks only its result."""

    face: FaceResult
    aligned: Aligned


@dataclass(frozen=True)
class Search:
    """What was found in one photo: the faces to restore, and those that stay as they are with the reason."""

    found: tuple[Found, ...]
    skipped: tuple[FaceResult, ...] = ()


class Finder(Protocol):
    """Cuts the faces out of an upright (h, w, 3) uint8 photo, as crops of `size` px; see `face_seed` for the rest."""

    def __call__(self, rgb: NDArray[np.uint8], size: int, content: str, seed: int) -> Search: ...


class FaceFinder:
    """Detector and landmarks; made once, for many photos."""

    def __init__(self, settings: RestoreSettings) -> None:
        self.settings = settings
        self.detector = RetinaFace(settings.min_score)
        self.landmarker = Dlib68()

    def __call__(self, rgb: NDArray[np.uint8], size: int, content: str, seed: int) -> Search:
        """The faces of a photo. Raises ImageError where `rgb` is of another shape or type."""
        found: list[Found] = []
        skipped: list[FaceResult] = []
        for index, detection in enumerate(self.detector.detect(rgb)):
            x0, y0, x1, y1 = detection.box
            reason = ""
            if max(x1 - x0, y1 - y0) < self.settings.min_face:
                reason = "too_small"
            elif self.settings.max_faces and len(found) >= self.settings.max_faces:
                reason = "beyond_max_faces"
            if reason:
                skipped.append(FaceResult(index, detection.box, detection.score, "skipped", reason))
            else:
                found.append(self._cut(rgb, detection, size, index, face_seed(content, index, seed)))
        return Search(tuple(found), tuple(skipped))

    def _cut(self, rgb: NDArray[np.uint8], detection: Detection, size: int, index: int, seed: int) -> Found:
        points, placed_by = self._points(rgb, detection)
        aligned = align(rgb, ffhq_quad(points), size)
        face = FaceResult(
            index,
            detection.box,
            detection.score,
            "restored",
            seed=seed,
            placed_by=placed_by,
            upscaled=aligned.upscaled,
            quad=aligned.quad,
        )
        return Found(face, aligned)

    def _points(self, rgb: NDArray[np.uint8], detection: Detection) -> tuple[NDArray[np.float64], PlacedBy]:
        points = self.landmarker.landmarks(rgb, detection)
        if disagreement(points, detection.points5) <= self.settings.max_disagreement:
            return points, "dlib68"
        return spread_points(detection.points5), "retinaface5"


def spread_points(points5: Sequence[float]) -> NDArray[np.float64]:
    """68 points of which FFHQ's quad sees the five given: all of an eye's at its centre, the corners of the mouth.

    The outline and the brows, which no quad reads, lie at the nose.
    """
    left, right, nose, mouth_left, mouth_right = np.asarray(points5, np.float64).reshape(5, 2)
    points = np.tile(nose, (68, 1))
    points[36:42], points[42:48] = left, right
    points[48:68] = (mouth_left + mouth_right) / 2
    points[[48, 60]], points[[54, 64]] = mouth_left, mouth_right
    return points


def whole(rgb: NDArray[np.uint8], size: int, content: str, seed: int) -> Search:
    """The photo itself as the crop, in the middle of the smallest square around it, which its reflection fills."""
    import cv2

    height, width = rgb.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = cv2.copyMakeBorder(
        rgb,
        top,
        side - height - top,
        left,
        side - width - left,
        cv2.BORDER_REFLECT if min(height, width) == 1 else cv2.BORDER_REFLECT_101,
    )
    corners = np.array([[0, 0], [0, side], [side, side], [side, 0]], np.float64) - (left + 0.5, top + 0.5)
    aligned = Aligned(_resize(square, size), corners, 1 - height * width / side**2, side < size)
    face = FaceResult(
        0,
        (0.0, 0.0, width - 1.0, height - 1.0),
        1.0,
        "restored",
        seed=face_seed(content, 0, seed),
        placed_by="whole",
        upscaled=aligned.upscaled,
        quad=corners,
    )
    return Search((Found(face, aligned),))


def _replace(rgb: NDArray[np.uint8], aligned: Aligned, restored: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The restored crop at the photo's own size and shape; an unchanged crop leaves the photo as it is."""
    if np.array_equal(restored, aligned.rgb):
        return rgb
    height, width = rgb.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return _resize(restored, side)[top : top + height, left : left + width]


def _resize(square: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    import cv2

    if len(square) == side:
        return square
    resized = cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA if side < len(square) else cv2.INTER_CUBIC)
    return np.asarray(resized, np.uint8)


def restore_photo(
    rgb: NDArray[np.uint8], finder: Finder, restorer: Restorer, settings: RestoreSettings, content: str, seed: int = 0
) -> PhotoResult:
    """An upright (h, w, 3) uint8 photo with its faces restored.

    `content` is the hash of the photo's file, from which each face's noise is drawn (`face_seed`). A grey photo
    stays grey, pixels outside of the faces do not change. Raises ImageError where `rgb` is of another shape or type.
    """
    search = finder(rgb, restorer.size, content, seed)
    return finish(rgb, search, restore_crops(restorer, search.found), settings)


def restore_crops(restorer: Restorer, found: Sequence[Found]) -> NDArray[np.uint8]:
    """The restored crops (n, size, size, 3) of faces that may be of several photos."""
    if not found:
        return np.zeros((0, restorer.size, restorer.size, 3), np.uint8)
    return restorer.restore(np.stack([face.aligned.rgb for face in found]), [face.face.seed for face in found])


def finish(
    rgb: NDArray[np.uint8], search: Search, restored: NDArray[np.uint8], settings: RestoreSettings
) -> PhotoResult:
    """Give the restored crops their colours and put them into the photo."""
    grey = is_grey(rgb)
    out, faces = rgb, list(search.skipped)
    pasted: list[tuple[Aligned, NDArray[np.uint8]]] = []
    for one, crop in reversed(list(zip(search.found, restored, strict=True))):
        source = one.aligned.rgb
        fixed = FIXES[settings.colour](crop, source)
        if grey:
            fixed = to_grey(fixed)
        if one.face.placed_by == "whole":
            out = _replace(out, one.aligned, fixed)
        else:
            pasted.append((one.aligned, fixed))
        faces.append(replace(one.face, before=source, after=fixed))
    return PhotoResult(paste_all(out, pasted), tuple(sorted(faces, key=lambda face: face.index)))
