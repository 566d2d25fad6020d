"""The rows of the exported dataset: a crop with its tags, its face and its photo, joined part by part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from authface.annotate import vocabulary
from authface.annotate.settings import ExportSettings
from authface.errors import AuthfaceError, one_line
from authface.photoset import PhotoSet
from authface.records import Crop, Face, Photo, Tag, Tags

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_REFERENCE = 512
"""Side that GFP-GAN's regions are defined at, pixels."""
_LEAST_HALF = 16
_REGIONS = (("left_eye", slice(36, 42), 1.4), ("right_eye", slice(42, 48), 1.4), ("mouth", slice(48, 68), 1.0))
"""Points and enlargement of each region, as in GFP-GAN's landmark parser."""


@dataclass(frozen=True)
class Sample:
    """One row of the dataset before its image is read."""

    crop: Crop
    face: Face
    photo: Photo
    annotator: str
    tags: tuple[Tag, ...]


def samples(photoset: PhotoSet, annotators: Sequence[str], settings: ExportSettings) -> Iterator[Sample]:
    """Every kept crop that has tags, in the tables' order, one part in memory at a time.

    Raises AuthfaceError where a crop's face or photo has no row: the tables do not belong together.
    """
    for part in photoset.crops.parts():
        photos = {row.id: row for row in photoset.photos.rows(part) if row.status == "kept"}
        faces = {row.id: row for row in photoset.faces.rows(part)}
        tagged = [_kept_tags(photoset, name, part) for name in annotators]
        for crop in photoset.crops.rows(part):
            said = [rows[crop.id] for rows in tagged if crop.id in rows]
            if crop.status != "kept" or not said:
                continue
            if crop.id not in faces or crop.photo_id not in photos:
                where = one_line(photoset.root)
                raise AuthfaceError(f"crop {crop.id} has no face or photo any more: run authface curate align {where}")
            names = ", ".join(tags.annotator for tags in said)
            yield Sample(crop, faces[crop.id], photos[crop.photo_id], names, merged(said, settings.least_confidence))


def _kept_tags(photoset: PhotoSet, annotator: str, part: int) -> dict[str, Tags]:
    table = photoset.tags(annotator)
    rows = table.rows(part) if part in table.parts() else []
    return {row.id: row for row in rows if row.status == "kept"}


def merged(said: Sequence[Tags], least_confidence: float) -> tuple[Tag, ...]:
    """The tags of several annotators in the vocabulary's order: for each group the first that says anything."""
    groups: dict[str, list[Tag]] = {}
    for tags in said:
        new: dict[str, list[Tag]] = {}
        for tag in tags.tags:
            if tag.confidence >= least_confidence and tag.group not in groups:
                new.setdefault(tag.group, []).append(tag)
        groups |= new
    return vocabulary.in_order(tag for tags in groups.values() for tag in tags)


def regions(landmarks: NDArray[np.float64], size: int) -> dict[str, list[float]]:
    """Eyes and mouth as squares [cx, cy, half], in the pixels of a crop of `size` px with (68, 2) `landmarks`.

    The component regions of GFP-GAN (Wang et al. 2021): the mean of the part's points, half the longer side of
    their bounding box but at least 16 px of 512, times 1.4 for the eyes. Left is the picture's left.
    """
    found = {}
    for name, points, enlarged in _REGIONS:
        part = landmarks[points]
        half = max(_LEAST_HALF * size / _REFERENCE, float((part.max(0) - part.min(0)).max()) / 2) * enlarged
        found[name] = [float(part[:, 0].mean()), float(part[:, 1].mean()), half]
    return found


def row(sample: Sample, image: bytes) -> dict[str, Any]:
    """The row as the columns of `authface.annotate.export.features` hold it; `image` is the crop's PNG."""
    from authface.faces.geometry import crop_points

    crop, face, photo = sample.crop, sample.face, sample.photo
    if crop.landmarks is None or crop.quad is None:
        raise AuthfaceError(f"crop {crop.id} has no landmarks: run authface curate align again")
    landmarks = crop_points(crop.landmarks, crop.quad, crop.size)
    return {
        "image": {"bytes": image, "path": f"{crop.id}.png"},
        "prompt": vocabulary.prompt(sample.tags),
        "tags": [{"name": tag.name, "group": tag.group, "confidence": tag.confidence} for tag in sample.tags],
        "annotator": sample.annotator,
        "landmarks": landmarks.tolist(),
        "roi": regions(landmarks, crop.size),
        "quality": {
            "size": face.size,
            "score": face.score,
            "sharpness": face.sharpness,
            "noise": face.noise,
            "piqe": face.piqe,
            "pad_fraction": crop.pad_fraction,
            "upscaled": crop.upscaled,
        },
        "photographer": photo.photographer,
        "licence": photo.licence,
        "terms": photo.terms,
        "source": photo.source,
        "page_url": photo.page_url,
        "photo_id": photo.id,
        "id": crop.id,
    }
