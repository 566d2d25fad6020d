"""`curate align`: every kept face becomes a square crop in FFHQ's geometry, saved without loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.curate.filter.measure import rejected
from authface.curate.settings import AlignSettings
from authface.engine.workers import Step
from authface.errors import ImageError
from authface.faces.detector import Detection
from authface.faces.geometry import align, crop_to_photo, ffhq_quad, grow_quad, pad_fraction, quad_side
from authface.faces.landmarks import Dlib68, disagreement, weights_sha256
from authface.imaging import decode as images
from authface.records import Crop, Face
from authface.store.photoset import PhotoSet, Provenance

VERSION = 2


@dataclass(frozen=True)
class FaceInPhoto:
    """A face in its photo."""

    face: Face
    rgb: NDArray[np.uint8]


@dataclass(frozen=True)
class AlignmentResult:
    """The outcome for one face: its row without a file name, and the crop's pixels unless the face is rejected."""

    crop: Crop
    rgb: NDArray[np.uint8] | None


class FaceAligner:
    """Turns a face in its photo into a crop; works on pixels, not on files."""

    def __init__(self, settings: AlignSettings, landmarker: Dlib68) -> None:
        self.settings = settings
        self._landmarker = landmarker

    def __call__(self, rgb: NDArray[np.uint8], face: Face) -> AlignmentResult:
        """Landmarks, their check against RetinaFace's points, and the crop."""
        limits = self.settings
        if face.box is None or face.score is None or face.points5 is None:
            raise ImageError("no_face", "the face has no box: run authface curate filter again")
        points = self._landmarker.landmarks(rgb, Detection(face.box, face.score, face.points5))
        crop = Crop(
            id=face.id,
            photo_id=face.photo_id,
            file="",
            size=limits.size,
            landmarks=tuple(points.ravel().tolist()),
            disagreement=disagreement(points, face.points5),
        )
        if crop.disagreement is not None and crop.disagreement > limits.max_disagreement:
            return AlignmentResult(
                rejected(crop, "landmarks_disagree", crop.disagreement, limits.max_disagreement), None
            )
        quad = grow_quad(ffhq_quad(points), limits.scale)
        turn = crop_to_photo(quad, limits.size)
        crop = replace(
            crop,
            quad=tuple(quad.ravel().tolist()),
            to_photo=tuple(turn.ravel().tolist()),
            to_crop=tuple(cv2.invertAffineTransform(turn).ravel().tolist()),
            pad_fraction=pad_fraction(quad, rgb.shape[1], rgb.shape[0]),
            upscaled=quad_side(quad) < limits.size,
        )
        if crop.pad_fraction is not None and crop.pad_fraction > limits.max_pad:
            return AlignmentResult(rejected(crop, "outside_photo", crop.pad_fraction, limits.max_pad), None)
        return AlignmentResult(crop, align(rgb, quad, limits.size).rgb)


@dataclass
class Align(Step[Face, FaceInPhoto, AlignmentResult, Crop]):
    """The step over a photo set's table `faces`."""

    root: Path
    settings: AlignSettings
    batch_size: int = 4
    overwrites_files: bool = True
    _step: FaceAligner | None = field(default=None)

    @property
    def provenance(self) -> Provenance:
        """Settings and the predictor's weights."""
        return Provenance("align", VERSION, self.settings.model_dump(mode="json"), {"dlib-68": weights_sha256()})

    def open(self) -> None:
        """Load the predictor."""
        self._step = FaceAligner(self.settings, Dlib68())

    def load(self, face: Face) -> FaceInPhoto:
        """The face's photo; a photo of several faces is decoded once. Raises ImageError."""
        return FaceInPhoto(face, _decoded(self.root / face.photo_file))

    def step(self, batch: Sequence[FaceInPhoto]) -> Sequence[AlignmentResult]:
        """Each face in its own photo."""
        assert self._step is not None
        return [self._step(found.rgb, found.face) for found in batch]

    def save(self, face: Face, placed: AlignmentResult) -> list[Crop]:
        """Write the crop, if there is one."""
        if placed.rgb is None:
            return [placed.crop]
        photoset = PhotoSet(self.root)
        file = photoset.crop_file(face.id)
        photoset.save(file, images.encode_png(placed.rgb))
        return [replace(placed.crop, file=file)]

    def failed(self, face: Face, reason: str, detail: str) -> list[Crop]:
        """The row of a face that could not be aligned."""
        return [
            Crop(
                id=face.id,
                photo_id=face.photo_id,
                file="",
                size=self.settings.size,
                status="failed",
                reason=reason,
                detail=detail,
            )
        ]


@lru_cache(maxsize=2)
def _decoded(path: Path) -> NDArray[np.uint8]:
    return images.read(path).rgb
