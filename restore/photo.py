"""The faces of one photo: found, cropped, restored, tried again where they drifted, pasted back. Pixels in and out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.errors import ImageError
from authface.faces.detector import Detection, RetinaFace
from authface.faces.geometry import Aligned, Side, align, ffhq_quad, quad_side, resize_square
from authface.faces.landmarks import Dlib68, disagreement
from authface.faces.looks import least_found
from authface.faces.paste import paste_all, replaced_shares
from authface.faces.search import marked_face, survey_turned
from authface.imaging.grain import add_grain
from authface.imaging.png import Pixels, is_grey
from authface.restore.background import Upscaler, enlarge, lanczos
from authface.restore.guard import DriftLimits, IdentityGuard, in_crop, suspect_below, told
from authface.restore.model.crops import FIXES, to_grey
from authface.restore.model.restorer import CropRestorer, face_seed
from authface.restore.pipeline import part
from authface.restore.settings import RestoreSettings, face_rule, has_middle
from authface.restore.types import FaceResult, PhotoResult, PlacedBy


def restore_faces(
    restorer: CropRestorer, faces: Sequence[FaceResult], settings: RestoreSettings, guard: IdentityGuard | None = None
) -> list[FaceResult]:
    """The faces, which may be of several photos, with their results; those that have a `reason` stay as they are.

    With a `guard` each is measured; where one breaks a limit (`min_identity`, `min_parts`) at each fidelity of
    `retry_fidelities`, the reason becomes that limit's name and `after` the best of the tries.
    """
    limits = DriftLimits(settings.min_identity, settings.min_parts) if guard is not None else DriftLimits()
    results = list(faces)
    pending = [i for i, face in enumerate(faces) if not face.reason]
    tries: dict[int, list[FaceResult]] = {i: [] for i in pending}
    for fidelity in (None, *retry_fidelities(settings.fidelity)):
        for i, tried in zip(
            pending, _restored(restorer, [faces[i] for i in pending], settings, guard, fidelity), strict=True
        ):
            tries[i].append(tried)
            results[i] = replace(max(tries[i], key=lambda face: limits.room(face.drift)), tries=len(tries[i]))
        pending = [i for i in pending if limits.broken(results[i].drift)]
        if not pending:
            break
    below = suspect_below(settings.min_parts)
    results = [
        face if face.parts is None else replace(face, suspect=tuple(face.parts.below(below))) for face in results
    ]
    for i in pending:
        broken = limits.broken(results[i].drift)
        fidelities = [settings.fidelity if face.fidelity is None else face.fidelity for face in tries[i]]
        said = [
            f"{told(face.drift, broken)} at fidelity {fidelity:g}"
            for face, fidelity in zip(tries[i], fidelities, strict=True)
        ]
        detail = f"{', '.join(said)}; the limit is {limits.of(broken):g}: the input face stays"
        results[i] = replace(results[i], reason=broken, detail=detail)
    return results


def retry_fidelities(fidelity: float) -> list[float]:
    """Fidelities to try after `fidelity` drifted: halfway to 1, then 1."""
    return [(1 + fidelity) / 2, 1.0] if fidelity < 1 else []


def _restored(
    restorer: CropRestorer,
    faces: Sequence[FaceResult],
    settings: RestoreSettings,
    guard: IdentityGuard | None,
    fidelity: float | None,
) -> list[FaceResult]:
    crops = [face.aligned.rgb for face in faces if face.aligned is not None]
    if not crops:
        return []
    fix = FIXES[restorer.colour if settings.colour == "auto" else settings.colour]
    with part("model"):
        given = {} if fidelity is None else {"fidelity": fidelity}
        restored = restorer.restore(crops, [face.seed for face in faces], **given)
    results = []
    for face, before, after in zip(faces, crops, restored, strict=True):
        with part("paste"):
            fixed = fix(after, before)
            fixed = to_grey(fixed) if face.grey else fixed
        with part("guard"):
            drift = None if guard is None else guard.measure(before, fixed, face.in_crop)
        results.append(replace(face, after=fixed, drift=drift, fidelity=fidelity))
    return results


def paste_faces(
    photo: Pixels,
    faces: Sequence[FaceResult],
    scale: int = 1,
    upscaler: Upscaler = lanczos,
    grain: float = 0,
    alpha: Pixels | None = None,
) -> PhotoResult:
    """Paste the restored faces into the (h, w, 3) photo of 8 or 16 bits, except those that have a `reason`.

    With a `scale` the photo is enlarged by `upscaler`, and the faces are put into the larger one from the model's own
    pixels; colours that its (h, w) `alpha` hides stay out of those that are seen. `grain` (0..1) of the photo's own
    noise is put onto the faces, but not onto a photo that is its crop.
    """
    out = background = enlarge(photo, scale, upscaler, alpha) if scale > 1 else photo
    faces = sorted(faces, key=lambda face: face.index)
    pasted: list[tuple[Aligned, NDArray[np.uint8]]] = []
    masks: list[NDArray[np.float32] | None] = []
    seeds: list[int] = []
    for face in reversed(faces):
        if face.reason or face.aligned is None or face.after is None:
            continue
        if face.placed_by == "whole":
            out = _replace_photo(out, face.aligned, face.after)
        else:
            pasted.append((face.aligned, face.after))
            masks.append(face.mask)
            seeds.append(face.seed)
    if pasted:
        out = paste_all(out, pasted, upscale=scale, masks=masks)
        if grain > 0:
            places = list(replaced_shares(background, pasted, upscale=scale, masks=masks))
            add_grain(out, background, places, seeds, grain)
    return PhotoResult(out, tuple(faces), background)


def square_of(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The smallest square around an (h, w, 3) photo, centred and padded by reflection."""
    height, width = rgb.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    border = cv2.BORDER_REFLECT if min(height, width) == 1 else cv2.BORDER_REFLECT_101
    square = cv2.copyMakeBorder(rgb, top, side - height - top, left, side - width - left, border)
    return np.asarray(square, np.uint8)


def _replace_photo(rgb: Pixels, aligned: Aligned, restored: NDArray[np.uint8]) -> Pixels:
    """The restored crop at the photo's own size, shape and depth; an unchanged crop leaves the photo as it is."""
    if np.array_equal(restored, aligned.rgb):
        return rgb
    height, width = rgb.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = restored if rgb.dtype == np.uint8 else restored.astype(np.uint16) * np.uint16(257)
    return resize_square(square, side)[top : top + height, left : left + width]


DOUBTFUL_SCORE = 0.5
"""Detections between this score and `restore.min_score` are reported as faces that were left alone."""
LOW_SCORE = "low_score"
"""Why they were."""


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
            FaceResult(first + i, one.box, one.score, LOW_SCORE, f"score {one.score:.2f}, {limit}")
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
