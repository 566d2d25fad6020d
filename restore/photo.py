"""The faces of one photo: found, cropped, restored, tried again where they drifted, pasted back. Pixels in and out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from authface.errors import ImageError
from authface.faces.detector import Detection, RetinaFace, upright
from authface.faces.geometry import Aligned, Side, align, ffhq_quad, quad_side, resize_square, spread_points, square_of
from authface.faces.landmarks import Dlib68, disagreement
from authface.faces.paste import paste_all, replaced_shares
from authface.faces.search import marked_face, survey_turned
from authface.imaging.grain import add_grain
from authface.imaging.png import Pixels, is_grey
from authface.records import Box
from authface.restore.background import Upscaler, enlarge, lanczos
from authface.restore.guard import NAMES, DriftLimits, FaceDrift, FaceParts, IdentityGuard, in_crop, suspect_below, told
from authface.restore.model.crops import FIXES, to_grey
from authface.restore.model.restorer import CropRestorer, checked_crops, face_seed
from authface.restore.pipeline import part
from authface.restore.settings import FaceChoice, RestoreSettings, has_middle

PlacedBy = Literal["dlib68", "retinaface5", "marked", "whole"]


@dataclass(frozen=True)
class FaceResult:
    """One face: found, then cropped, then restored; `index` 0 is the photo's largest."""

    index: int
    box: Box
    score: float
    reason: str = ""
    """Why it stays as it is: `too_small`, `low_score`, `not_chosen`, `identity`, `parts` or what is wrong with it;
    empty: it is restored."""
    detail: str = ""
    """The reason in numbers: value, limit and setting."""
    seed: int = 0
    placed_by: PlacedBy = "dlib68"
    """Origin of the points that placed the crop; `marked`: a person marked a missed face; `whole`: the photo is the
    crop."""
    aligned: Aligned | None = None
    """The crop as the model sees it, and its position in the photo; None if there is none."""
    in_crop: Detection | None = None
    """The detection in the crop's coordinates; None: the photo was taken for a crop."""
    grey: bool = False
    """The photo is grey, and so is the result."""
    after: NDArray[np.uint8] | None = None
    """The (size, size, 3) crop restored, with its colours fixed."""
    drift: FaceDrift | None = None
    """Distance of `after` from `before`; None if it was not measured."""
    fidelity: float | None = None
    """The fidelity of a retry; None: that of the settings."""
    suspect: tuple[str, ...] = ()
    """Which of `right_eye`, `left_eye`, `mouth` are too little like those of `before`, the worst first: to be looked
    at."""
    tries: int = 1
    mask: NDArray[np.float32] | None = None
    """(size, size) 0..1 mask of the face in `after`; None: all of it."""

    @property
    def status(self) -> Literal["restored", "skipped"]:
        """Whether it is restored, or stays as it is for a `reason`."""
        return "skipped" if self.reason else "restored"

    @property
    def quad(self) -> NDArray[np.float64] | None:
        """(4, 2) top-left, bottom-left, bottom-right, top-right corner of the crop in the photo."""
        return None if self.aligned is None else self.aligned.quad

    @property
    def upscaled(self) -> bool:
        """The face has fewer pixels in the photo than the model works on."""
        return self.aligned is not None and self.aligned.upscaled

    @property
    def before(self) -> NDArray[np.uint8] | None:
        """The (size, size, 3) crop as the model saw it; None without one."""
        return None if self.aligned is None or self.after is None else self.aligned.rgb

    @property
    def identity(self) -> float | None:
        """Likeness of `after` to `before`, -1..1; None: not measured."""
        return None if self.drift is None else self.drift.identity

    @property
    def landmark_shift(self) -> float | None:
        """Mean shift of its 68 points, percent of the eyes' distance; None: not measured."""
        return None if self.drift is None else self.drift.landmark_shift

    @property
    def colour_shift(self) -> float | None:
        """Mean CIEDE2000 of the coarse tones; None: not measured."""
        return None if self.drift is None else self.drift.colour_shift

    @property
    def parts(self) -> FaceParts | None:
        """Likeness of each eye and of the mouth to those of `before`, 0..1; None: not measured."""
        return None if self.drift is None else self.drift.parts

    def facts(self) -> dict[str, Any]:
        """All fields but pixels, rounded, by the field names of the log's lines."""
        return {
            "face": self.index,
            "status": self.status,
            "reason": self.reason,
            "detail": self.detail,
            "box": tuple(round(value, 2) for value in self.box),
            "score": round(self.score, 4),
            "seed": self.seed,
            "placed_by": self.placed_by if self.quad is not None else "",
            "upscaled": self.upscaled,
            "quad": None if self.quad is None else tuple(round(float(value), 3) for value in self.quad.ravel()),
            "identity": _rounded(self.identity, 4),
            **{name: _rounded(None if self.parts is None else getattr(self.parts, name), 3) for name in NAMES},
            "suspect": self.suspect,
            "landmark_shift": _rounded(self.landmark_shift, 2),
            "colour_shift": _rounded(self.colour_shift, 2),
            "fidelity": self.fidelity,
            "tries": self.tries,
        }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


@dataclass(frozen=True)
class PhotoResult:
    """The photo, enlarged by the scale, with its restored faces, and all faces that were found."""

    rgb: Pixels
    faces: tuple[FaceResult, ...]
    background: Pixels
    """The photo at the same size with the original faces."""

    @cached_property
    def changed(self) -> bool:
        """Whether any pixel of a restored face changed."""
        return self.restored > 0 and not np.array_equal(self.rgb, self.background)

    @property
    def restored(self) -> int:
        """How many faces were restored."""
        return sum(face.status == "restored" for face in self.faces)


class Finder(Protocol):
    """Finds the faces of a photo and crops those that are to be restored; `FaceFinder` or `whole_photo`."""

    def __call__(self, rgb: NDArray[np.uint8], side: Side, content: str, seed: int) -> list[FaceResult]:
        """The faces of an upright (h, w, 3) uint8 photo, their crops as large as `side` says; see `face_seed`."""
        ...


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
        made = _restored(restorer, [faces[i] for i in pending], settings, guard, fidelity)
        for i, tried in zip(pending, made, strict=True):
            tries[i].append(tried)
            results[i] = replace(max(tries[i], key=lambda face: limits.room(face.drift)), tries=len(tries[i]))
        pending = [i for i in pending if limits.broken(results[i].drift)]
        if not pending:
            break
    below = suspect_below(settings.min_parts)
    results = [one if one.parts is None else replace(one, suspect=tuple(one.parts.below(below))) for one in results]
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
        restored = checked_crops(restorer.restore(crops, [face.seed for face in faces], **given), crops, settings.model)
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


class FaceFinder(FaceChoice):
    """Detector and landmarks; create one for many photos."""

    def __init__(self, settings: RestoreSettings) -> None:
        super().__init__(settings)
        self.detector = RetinaFace(settings.min_score, threads=0, least_face=settings.min_face)
        self.landmarker = Dlib68()

    def __call__(self, rgb: NDArray[np.uint8], side: Side, content: str, seed: int) -> list[FaceResult]:
        """The faces of a photo, the largest first. Raises ImageError if `rgb` has another shape or type."""
        faces: list[FaceResult] = []
        grey = is_grey(rgb)
        with part("detect"):
            sure, doubtful = self.detector.survey(rgb, DOUBTFUL_SCORE)
            if not upright(sure):
                sure, doubtful = survey_turned(self.detector, rgb, sure, doubtful)
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
        there = [face.box for face in sure]
        for region in self.rule.regions:
            inside = region[0] < width and region[1] < height and region[2] > 0 and region[3] > 0
            if inside and not any(has_middle(region, box) for box in there):
                face, points = marked_face(self.detector, self.landmarker, rgb, region)
                there.append(face.box)
                yield face, points

    def _doubtful(self, detections: Iterable[Detection], first: int) -> list[FaceResult]:
        """The uncertain detections that would be large enough."""
        large = [one for one in detections if one.long_side >= self.settings.min_face]
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
