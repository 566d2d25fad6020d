"""Rows of a set made from those of a manifest: photos, faces, crops that are cut out again, people and tags."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.annotate.export.formats import pixels_sha256
from authface.annotate.export.rows import MEASURES, ORIGIN, SPLITS
from authface.annotate.rebuild.manifest import Entry
from authface.clock import now
from authface.engine.workers import Step
from authface.faces.geometry import align, crop_to_photo, photo_points
from authface.imaging import decode as images
from authface.records import Crop, Face, Person, Photo, Score, Tag, Tags
from authface.store.photoset import PhotoSet, Provenance
from authface.store.statements import restated

STEP = "rebuild"
VERSION = 1
PIXELS_DIFFER = "its pixels are not those of the manifest"


@dataclass(frozen=True)
class ManifestFace:
    """A face of a manifest on a photo of the set."""

    entry: Entry
    photo_file: str
    status: str = "kept"
    """As the steps that run over rows expect it."""


def rebuilt_from(manifest: str) -> Provenance:
    """Provenance of tables made from the manifest of that digest."""
    return Provenance(STEP, VERSION, {"manifest": manifest}, {})


@dataclass
class CutStep(Step[ManifestFace, NDArray[np.uint8], NDArray[np.uint8], Crop]):
    """The step from a manifest's rows to a set's table `crops`."""

    root: Path
    manifest: str
    """Digest of the manifest."""
    batch_size: int = 4
    overwrites_files: bool = True

    @property
    def provenance(self) -> Provenance:
        """The manifest."""
        return rebuilt_from(self.manifest)

    def load(self, face: ManifestFace) -> NDArray[np.uint8]:
        """The crop's pixels. Raises ImageError where the photo cannot be read or the quad lies outside of it."""
        photo = images.decode(PhotoSet(self.root).read(face.photo_file)).rgb
        return align(photo, face.entry.quad, face.entry.size).rgb

    def save(self, face: ManifestFace, rgb: NDArray[np.uint8]) -> list[Crop]:
        """Write the crop; the row's `detail` says where its pixels differ from the manifest's."""
        photoset = PhotoSet(self.root)
        file = photoset.crop_file(face.entry.id)
        photoset.save(file, images.encode_png(rgb))
        same = pixels_sha256(rgb) == face.entry.pixels_sha256
        return [replace(crop_row(face.entry, file), detail="" if same else PIXELS_DIFFER)]

    def failed(self, face: ManifestFace, reason: str, detail: str) -> list[Crop]:
        """The row of a crop that could not be cut."""
        return [replace(crop_row(face.entry, ""), status="failed", reason=reason, detail=detail)]


def photo_row(photo: Photo, entry: Entry, by: str) -> Photo:
    """A fetched photo's row with the origin that the manifest states, whose list of addresses is `by`.

    Of its licence and of what other lists said of it the strictest holds.
    """
    row = restated(photo, [entry.licence], by, now(), whole=True)
    return replace(row, **{name: getattr(entry, name) for name in ORIGIN if name != "licence"})


def face_row(entry: Entry, photo_file: str) -> Face:
    """The face of a row."""
    measures: dict[str, Any] = {name: entry.quality.get(name) for name in MEASURES}
    size = entry.quality.get("face_size")
    return Face(
        id=entry.id,
        photo_id=entry.photo_id,
        photo_file=photo_file,
        index=entry.face.index,
        box=entry.face.box,
        points5=entry.face.points5,
        size=size,
        scores=tuple(Score(metric=score.metric, value=score.value) for score in entry.scores),
        **measures,
    )


def crop_row(entry: Entry, file: str) -> Crop:
    """The crop of a row, its matrices from its quad."""
    turn = crop_to_photo(entry.quad, entry.size)
    return Crop(
        id=entry.id,
        photo_id=entry.photo_id,
        file=file,
        size=entry.size,
        quad=entry.quad,
        to_photo=tuple(turn.ravel().tolist()),
        to_crop=tuple(cv2.invertAffineTransform(turn).ravel().tolist()),
        landmarks=tuple(photo_points(entry.landmarks, entry.quad, entry.size).ravel().tolist()),
        disagreement=entry.quality.get("disagreement"),
        pad_fraction=entry.quality.get("pad_fraction"),
        upscaled=bool(entry.quality.get("upscaled")),
    )


def person_row(entry: Entry) -> Person:
    """The split of a row; a manifest does not say whom it shows."""
    split = next((ours for ours, name in SPLITS.items() if name == entry.split), "")
    return Person(id=entry.id, photo_id=entry.photo_id, split=split)


def tags_row(entry: Entry, annotator: str) -> Tags:
    """The tags of one annotator, as far as the manifest holds them."""
    tags = tuple(
        Tag(name=tag.name, group=tag.group, confidence=tag.confidence)
        for tag in entry.tags
        if tag.annotator == annotator
    )
    return Tags(id=entry.id, annotator=annotator, tags=tags)
