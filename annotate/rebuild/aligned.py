"""Pictures that are aligned faces already: the face is found, the whole picture is the crop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from authface.faces.detector import Detection, RetinaFace, weights_sha256
from authface.faces.landmarks import Dlib68, disagreement
from authface.imaging import decode as images
from authface.records import Crop, Face, Photo
from authface.store.photoset import PhotoSet, Provenance

MIN_SCORE = 0.5
"""Least confidence of a face: somebody has chosen these pictures already."""


@dataclass
class Faces:
    """The step over the imported photos: the largest face of each."""

    root: Path
    batch_size: int = 4
    _detector: Any = field(default=None, repr=False)

    @property
    def provenance(self) -> Provenance:
        """The detector."""
        return Provenance("faces of aligned pictures", 1, {"min_score": MIN_SCORE}, {"retinaface": weights_sha256()})

    def open(self) -> None:
        """Load the detector."""
        self._detector = RetinaFace(MIN_SCORE)

    def load(self, photo: Photo) -> NDArray[np.uint8]:
        """The photo's pixels. Raises ImageError."""
        return images.read(self.root / photo.file).rgb

    def step(self, batch: Sequence[NDArray[np.uint8]]) -> Sequence[Any]:
        """The largest face of each, or None."""
        return [next(iter(self._detector.detect(rgb)), None) for rgb in batch]

    def save(self, photo: Photo, found: Any) -> list[Face]:
        """The row."""
        if found is None:
            return [replace(_face(photo, -1), status="rejected", reason="no_face", limit=MIN_SCORE)]
        box = found.box
        size = max(box[2] - box[0], box[3] - box[1])
        return [replace(_face(photo, 0), box=box, score=found.score, points5=found.points5, size=size)]

    def failed(self, photo: Photo, reason: str, detail: str) -> list[Face]:
        """The row of a photo that cannot be read."""
        return [replace(_face(photo, -1), status="failed", reason=reason, detail=detail)]


def _face(photo: Photo, index: int) -> Face:
    return Face(id=f"{photo.id}-{index}", photo_id=photo.id, photo_file=photo.file, index=index)


def keep_all(photoset: PhotoSet, parts: set[int]) -> None:
    """Bring the table `faces` up to date: `measured` as it is, for no limit is put to faces that somebody chose."""
    everything = Provenance("all faces of aligned pictures", 1, {}, {})
    for part in sorted(parts):
        measured, judged = photoset.measured.meta(part), photoset.faces.meta(part)
        if measured and not (judged and (judged.provenance, judged.inputs) == (everything, measured.digest)):
            photoset.faces.write(part, photoset.measured.rows(part), everything, measured.digest)


@dataclass
class Crops:
    """The step over the imported faces: the whole picture is the crop."""

    root: Path
    batch_size: int = 4
    _landmarker: Any = field(default=None, repr=False)

    @property
    def provenance(self) -> Provenance:
        """The predictor of landmarks."""
        from authface.faces.landmarks import weights_sha256

        return Provenance("crops of aligned pictures", 1, {}, {"dlib-68": weights_sha256()})

    def open(self) -> None:
        """Load the predictor."""
        self._landmarker = Dlib68()

    def load(self, face: Face) -> tuple[Face, NDArray[np.uint8]]:
        """The photo's pixels. Raises ImageError."""
        return face, images.read(self.root / face.photo_file).rgb

    def step(self, batch: Sequence[tuple[Face, NDArray[np.uint8]]]) -> Sequence[tuple[Crop, NDArray[np.uint8]]]:
        """Landmarks, and the place of the crop: all of the photo."""
        return [(self._crop(face, rgb), rgb) for face, rgb in batch]

    def save(self, face: Face, made: tuple[Crop, NDArray[np.uint8]]) -> list[Crop]:
        """The row, the crop written unless it is refused."""
        crop, rgb = made
        if crop.status != "kept":
            return [crop]
        photoset = PhotoSet(self.root)
        photoset.save(photoset.crop_file(face.id), images.encode_png(rgb))
        return [replace(crop, file=photoset.crop_file(face.id))]

    def failed(self, face: Face, reason: str, detail: str) -> list[Crop]:
        """The row of a face whose photo cannot be read."""
        row = Crop(id=face.id, photo_id=face.photo_id, file="", size=0)
        return [replace(row, status="failed", reason=reason, detail=detail)]

    def _crop(self, face: Face, rgb: NDArray[np.uint8]) -> Crop:
        height, width = rgb.shape[:2]
        row = Crop(id=face.id, photo_id=face.photo_id, file="", size=width)
        if width != height:
            return replace(row, status="rejected", reason="not_square", value=width / height, limit=1.0)
        assert face.box is not None and face.score is not None and face.points5 is not None  # of every kept face
        points = self._landmarker.landmarks(rgb, Detection(face.box, face.score, face.points5))
        end = width - 0.5
        return replace(
            row,
            quad=(-0.5, -0.5, -0.5, end, end, end, end, -0.5),
            to_photo=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
            to_crop=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
            landmarks=tuple(points.ravel().tolist()),
            disagreement=disagreement(points, face.points5),
            pad_fraction=0.0,
        )
