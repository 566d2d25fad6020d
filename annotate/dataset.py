"""What a row of the exported Hugging Face dataset holds, and how it is joined from the tables of a photo set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from authface.annotate.settings import ExportSettings
from authface.annotate.vocabulary import in_order, prompt
from authface.errors import AuthfaceError, ImageError, one_line
from authface.images import read_bytes
from authface.photoset import PhotoSet, Table
from authface.records import Crop, Face, Photo, Tag
from authface.runner import PartInput

if TYPE_CHECKING:
    import datasets
    import numpy as np
    from numpy.typing import NDArray

ROI_POINTS = {"left_eye": (36, 42), "right_eye": (42, 48), "mouth": (48, 68)}
"""Landmarks of each region; `left` is the picture's left."""
ROI_SCALE = {"left_eye": 1.4, "right_eye": 1.4, "mouth": 1.0}
"""GFP-GAN's enlargement of each region's box (its `parse_landmark` script)."""
LEAST_HALF = 16 / 512
"""Least half side of a region, of the crop's side: GFP-GAN's 16 px of 512."""


def features() -> datasets.Features:
    """The typed columns."""
    from datasets import Features, Image, List, Value

    number, text = Value("float32"), Value("string")
    return Features(
        {
            "image": Image(),
            "prompt": text,
            "tags": List({"name": text, "group": text, "confidence": number, "annotator": text}),
            "landmarks": List(List(number, length=2), length=68),
            "roi": {name: List(number, length=3) for name in ROI_POINTS},
            "quality": {
                "face_size": number, "score": number, "sharpness": number, "noise": number, "piqe": number,
                "pad_fraction": number, "upscaled": Value("bool"),
            },
            "id": text,
            "photo_id": text,
            "source": text,
            "source_id": text,
            "page_url": text,
            "photographer": text,
            "licence": text,
            "terms": text,
            "as_of": text,
        }
    )  # fmt: skip


def region_boxes(landmarks: NDArray[np.float64], size: int) -> dict[str, list[float]]:
    """Eyes and mouth as [centre x, centre y, half side] in crop pixels, from (68, 2) landmarks.

    The centre is the points' mean, the half side half of their box's longer side, at least 16 px of 512, times
    1.4 at the eyes: GFP-GAN's regions, which stage II's facial loss looks at.
    """
    import numpy as np

    boxes = {}
    for name, (first, last) in ROI_POINTS.items():
        points = landmarks[first:last]
        centre, half = points.mean(axis=0), float(np.ptp(points, axis=0).max()) / 2
        boxes[name] = [float(centre[0]), float(centre[1]), max(half, LEAST_HALF * size) * ROI_SCALE[name]]
    return boxes


def rows(
    photoset: PhotoSet, crops: Sequence[PartInput[Crop]], annotators: Sequence[str], settings: ExportSettings
) -> Iterator[dict[str, Any]]:
    """The dataset's rows, one a kept crop whose tags are kept, part by part in constant memory."""
    for judged in crops:
        part = judged.number
        photos = {photo.id: photo for photo in photoset.photos.rows(part) if photo.status == "kept"}
        faces = {face.id: face for face in photoset.faces.rows(part)}
        said = [{row.id: row for row in photoset.tags(name).rows(part)} for name in annotators]
        for crop in judged.rows():
            if crop.status != "kept" or any(table[crop.id].status != "kept" for table in said):
                continue
            found = [(name, table[crop.id].tags) for name, table in zip(annotators, said, strict=True)]
            chosen = choose(found, settings.least_confidence)
            yield _row(photoset, photos[crop.photo_id], faces[crop.id], crop, chosen)


def choose(found: Sequence[tuple[str, Sequence[Tag]]], least: float) -> list[tuple[str, Tag]]:
    """Annotator and tag of what is sure enough; of a group that several speak of, the first annotator's."""
    owner: dict[str, str] = {}
    chosen = []
    for annotator, tags in found:
        for tag in in_order(tag for tag in tags if tag.confidence >= least):
            if owner.setdefault(tag.group, annotator) == annotator:
                chosen.append((annotator, tag))
    return chosen


def check_current(photoset: PhotoSet, crops: Sequence[PartInput[Crop]], annotators: Sequence[str]) -> None:
    """Raise AuthfaceError where a table was made from rows that have changed since, with the command to run."""
    judged = {part.number: part.digest for part in crops}
    chain: list[tuple[dict[int, str], Table[Any], str]] = [
        (_digests(photoset.photos), photoset.measured, "curate filter"),
        (_digests(photoset.measured), photoset.faces, "curate filter"),
        (_digests(photoset.faces), photoset.crops, "curate align"),
        *((judged, photoset.tags(name), f"annotate tags --with {name}") for name in annotators),
    ]
    for source, made, command in chain:
        for part, before in source.items():
            after = made.meta(part)
            if after is None or not before or not after.inputs.startswith(before):  # a digest may say more at its end
                raise AuthfaceError(
                    f"part {part} of {made.folder.name} is missing or older than the rows it is made from: "
                    f"run authface {command} with {one_line(photoset.root)} first"
                )


def _digests(table: Table[Any]) -> dict[int, str]:
    """By part; empty, which no rows were made from, where a part is not one of ours."""
    return {part: meta.digest if meta else "" for part, meta in table.metas().items()}


def _row(photoset: PhotoSet, photo: Photo, face: Face, crop: Crop, chosen: Sequence[tuple[str, Tag]]) -> dict[str, Any]:
    import numpy as np

    from authface.faces.geometry import crop_points

    landmarks = crop_points(np.reshape(crop.landmarks or (), (68, 2)), np.reshape(crop.quad or (), (4, 2)), crop.size)
    file = photoset.root / crop.file
    try:
        image = read_bytes(file)
    except ImageError as error:
        again = f"run authface curate align {one_line(photoset.root)} after deleting tables/crops"
        raise AuthfaceError(f"crop {one_line(crop.file)}: {one_line(error)}; {again}") from error
    return {
        "image": {"bytes": image, "path": file.name},
        "prompt": prompt(tag for _, tag in chosen),
        "tags": [
            {"name": tag.name, "group": tag.group, "confidence": tag.confidence, "annotator": annotator}
            for annotator, tag in chosen
        ],
        "landmarks": landmarks.tolist(),
        "roi": region_boxes(landmarks, crop.size),
        "quality": {
            "face_size": face.size, "score": face.score, "sharpness": face.sharpness, "noise": face.noise,
            "piqe": face.piqe, "pad_fraction": crop.pad_fraction, "upscaled": crop.upscaled,
        },
        "id": crop.id,
        "photo_id": photo.id,
        "source": photo.source,
        "source_id": photo.source_id,
        "page_url": photo.page_url,
        "photographer": photo.photographer,
        "licence": photo.licence,
        "terms": photo.terms,
        "as_of": photo.as_of,
    }  # fmt: skip
