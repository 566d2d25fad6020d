"""Find the faces of a photo and crop them: which are restored, and why the others are not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from authface.errors import ImageError
from authface.faces.detector import Detection, RetinaFace
from authface.faces.geometry import Aligned, Side, align, ffhq_quad, quad_side, resize_square
from authface.faces.landmarks import Dlib68, disagreement
from authface.faces.looks import least_found
from authface.faces.search import marked_face, survey_turned
from authface.imaging.bitdepth import is_grey
from authface.restore.guard import in_crop
from authface.restore.model.restorer import face_seed
from authface.restore.photo import square_of
from authface.restore.pipeline import part
from authface.restore.settings import RestoreSettings, face_rule, has_middle
from authface.restore.types import FaceResult, PlacedBy

DOUBTFUL_SCORE = 0.5
"""Detections between this score and `restore.min_score` are reported as faces that were left alone."""


class FaceFinder:
    """Detector and landmarks; create one for many photos."""

    def __init__(self, settings: RestoreSettings) -> None:
        self.settings = settings
        self.rule = face_rule(settings.faces)
        self.detector = RetinaFace(settings.min_score, threads=0, least_face=settings.min_face)
        self.landmarker = Dlib68()

    def __call__(self, rgb: NDArray[np.uint8], side: Side, content: str, seed: int) -> list[FaceResult]:
        """The faces of a photo, the largest first. Raises ImageError if `rgb` has another shape or type."""
        faces: list[FaceResult] = []
        grey = is_grey(rgb)
        with part("detect"):
            sure, doubtful = survey_turned(self.detector, rgb, DOUBTFUL_SCORE)
            marked = list(self._marked(rgb, sure))
        places = [*((face, None) for face in sure), *marked]
        for index, (detection, points) in enumerate(places):
            reason, detail = self.reason_to_skip(detection, sum(not face.reason for face in faces))
            if not reason:
                try:
                    with part("align"):
                        placing, placed_by = self.points(rgb, detection) if points is None else (points, "marked")
                        noise = face_seed(content, index, seed)
                        faces.append(cut_out(rgb, detection, ffhq_quad(placing), side, index, noise, grey, placed_by))
                    continue
                except ImageError as error:
                    reason, detail = error.reason, str(error)
            faces.append(FaceResult(index, detection.box, detection.score, reason, detail))
        unmarked = [one for one in doubtful if not any(has_middle(face.box, one.box) for face, _ in marked)]
        return faces + self._doubtful(unmarked, len(places))

    def _marked(
        self, rgb: NDArray[np.uint8], sure: Sequence[Detection]
    ) -> Iterator[tuple[Detection, NDArray[np.float64]]]:
        """Faces and their points in the regions of `--faces` in which none was found."""
        height, width = rgb.shape[:2]
        for region in self.rule.regions:
            inside = region[0] < width and region[1] < height and region[2] > 0 and region[3] > 0
            if inside and not any(has_middle(region, face.box) for face in sure):
                yield marked_face(self.detector, self.landmarker, rgb, region)

    def reason_to_skip(self, detection: Detection, taken: int) -> tuple[str, str]:
        """Why a face is left alone, as a word and in numbers; empty if it is restored."""
        side, eyes = _long_side(detection), eye_distance(detection.points5)
        if side < self.settings.min_face:
            return "too_small", f"{side:.1f} px, the limit is {self.settings.min_face:g} (restore.min_face)"
        if eyes < self.settings.min_eyes:
            return "too_small", f"eyes {eyes:.1f} px apart, the limit is {self.settings.min_eyes:g} (restore.min_eyes)"
        if not self.rule.wants(detection.box, taken):
            return "not_chosen", f"--faces {self.settings.faces}"
        return "", ""

    def _doubtful(self, detections: Iterable[Detection], first: int) -> list[FaceResult]:
        """The uncertain detections that would be large enough."""
        large = [one for one in detections if _long_side(one) >= self.settings.min_face]
        limit = f"the limit is {self.settings.min_score:g} (restore.min_score)"
        return [
            FaceResult(first + i, one.box, one.score, "low_score", f"score {one.score:.2f}, {limit}")
            for i, one in enumerate(large)
        ]

    def points(self, rgb: NDArray[np.uint8], detection: Detection) -> tuple[NDArray[np.float64], PlacedBy]:
        """(68, 2) points that place the crop, and the name of their source."""
        points = self.landmarker.landmarks(rgb, detection)
        if disagreement(points, detection.points5) <= self.settings.max_disagreement:
            return points, "dlib68"
        return spread_points(detection.points5), "retinaface5"


def no_face_text(width: int, height: int, settings: RestoreSettings) -> str:
    """The message for a photo of that size in which no face was detected."""
    return f"no face found of {least_found(width, height, settings.min_face):.0f} px or more"


def cut_out(
    rgb: NDArray[np.uint8],
    detection: Detection,
    quad: NDArray[np.float64],
    side: Side,
    index: int,
    seed: int,
    grey: bool,
    placed_by: PlacedBy,
) -> FaceResult:
    """A face cut out of the photo by its quad. Raises ImageError as `align` does."""
    size = side.of(quad_side(quad))
    aligned = align(rgb, quad, size)
    return FaceResult(
        index,
        detection.box,
        detection.score,
        seed=seed,
        placed_by=placed_by,
        aligned=aligned,
        in_crop=in_crop(detection, aligned.quad, size),
        grey=grey,
    )


def _long_side(detection: Detection) -> float:
    x0, y0, x1, y1 = detection.box
    return max(x1 - x0, y1 - y0)


def eye_distance(points5: Sequence[float]) -> float:
    """Distance between the eyes of five points, pixels; small for a profile of any size."""
    return float(np.hypot(points5[2] - points5[0], points5[3] - points5[1]))


def spread_points(points5: Sequence[float]) -> NDArray[np.float64]:
    """68 points with the same FFHQ quad as the five given: each eye's at its centre, the corners of the mouth.

    The outline and the brows, which no quad reads, lie at the nose.
    """
    left, right, nose, mouth_left, mouth_right = np.asarray(points5, np.float64).reshape(5, 2)
    points = np.tile(nose, (68, 1))
    points[36:42], points[42:48] = left, right
    points[48:68] = (mouth_left + mouth_right) / 2
    points[[48, 60]], points[[54, 64]] = mouth_left, mouth_right
    return points


def whole_photo(rgb: NDArray[np.uint8], side: Side, content: str, seed: int) -> list[FaceResult]:
    """The photo itself as the crop, centred in the smallest square around it and padded by reflection."""
    height, width = rgb.shape[:2]
    photo = max(height, width)
    size = side.of(photo)
    top, left = (photo - height) // 2, (photo - width) // 2
    corners = np.array([[0, 0], [0, photo], [photo, photo], [photo, 0]], np.float64) - (left + 0.5, top + 0.5)
    crop = resize_square(square_of(rgb), size)
    return [
        FaceResult(
            0,
            (0.0, 0.0, width - 1.0, height - 1.0),
            1.0,
            seed=face_seed(content, 0, seed),
            placed_by="whole",
            aligned=Aligned(crop, corners, 1 - height * width / photo**2, photo < size),
            grey=is_grey(rgb),
        )
    ]
