"""What a row of the exported dataset holds, and how it is joined from the tables of a photo set.

A column is described in the words of its JSON: ``{"dtype": "float32", "_type": "Value"}``. A test opens the files
with `datasets` and compares the schema with its own.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from authface.annotate.settings import ExportSettings
from authface.annotate.tagging import ChosenTags, choose
from authface.annotate.vocabulary.vocabulary import SEMANTIC, count_tokens, fitting_tags, prompt
from authface.engine.runner import PartInput
from authface.errors import AuthfaceError, ImageError, one_line, shell_word
from authface.faces.geometry import crop_points
from authface.records import Crop, Face, Person, Photo, Tag
from authface.review.reviews import is_retouched
from authface.store.photoset import PhotoSet, TableState
from authface.store.rows import plain

Feature = dict[str, Any]
IMAGE: Feature = {"_type": "Image"}


def value(dtype: str) -> Feature:
    """One value of a type such as ``float32``."""
    return {"dtype": dtype, "_type": "Value"}


def rows_of(feature: Feature, length: int | None = None) -> Feature:
    """A list of one kind, of any length unless it is given."""
    return {"feature": feature, **({} if length is None else {"length": length}), "_type": "List"}


def schema_of(features: Feature) -> pa.Schema:
    """The schema of a Parquet file with these columns, whose metadata tell `datasets` their types."""
    told = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema([(name, _arrow(feature)) for name, feature in features.items()], metadata=told)


def in_card(features: Feature) -> list[Feature]:
    """The same columns as a dataset card's `dataset_info` describes them, for files that cannot tell types."""
    return [{"name": name, **_in_card(feature)} for name, feature in features.items()]


def _in_card(feature: Feature) -> Feature:
    kind = feature.get("_type")
    if kind == "Image":
        return {"dtype": "image"}
    if kind == "Value":
        return {"dtype": feature["dtype"]}
    if kind != "List":
        return {"struct": in_card(feature)}
    inner, length = _in_card(feature["feature"]), {"length": feature["length"]} if "length" in feature else {}
    of = inner["struct"] if "struct" in inner else inner["dtype"] if list(inner) == ["dtype"] else inner
    return {"list": of, **length}


def _arrow(feature: Feature) -> pa.DataType:
    kind = feature.get("_type")
    if kind == "Image":
        return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    if kind == "Value":
        dtype = feature["dtype"]
        return pa.bool_() if dtype == "bool" else pa.type_for_alias(dtype)
    if kind == "List":
        return pa.list_(_arrow(feature["feature"]), feature.get("length", -1))
    return pa.struct([(name, _arrow(inner)) for name, inner in feature.items()])


ROI_POINTS = {"left_eye": (36, 42), "right_eye": (42, 48), "mouth": (48, 68)}
"""Landmarks of each region; `left` is the picture's left."""
ROI_SCALE = {"left_eye": 1.4, "right_eye": 1.4, "mouth": 1.0}
"""GFP-GAN's enlargement of each region's box (its `parse_landmark` script)."""
LEAST_HALF = 16 / 512
"""Least half side of a region, of the crop's side: GFP-GAN's 16 px of 512."""
SPLITS: Final = {"train": "train", "val": "validation", "test": "test"}
"""Splits of the table `people`, and what `datasets` calls them."""
MEASURES: Final = tuple(
    f.name for f in fields(Face) if f.type == "float | None" and f.name not in {"size", "value", "limit"}
)
"""Measures of a face, as `authface.records.Face` has them; its `size` is called face_size here."""
ORIGIN: Final = (
    "source", "source_id", "page_url", "file_url", "photographer", "photographer_url", "licence", "terms", "as_of",
)  # fmt: skip
"""Where a photo comes from, as `authface.records.Photo` has it."""


@dataclass(frozen=True)
class Inputs:
    """The tables of a set that an export is made from."""

    photoset: PhotoSet
    reviewed: Sequence[PartInput[Crop]]
    """The crops as people left them."""
    crops: Sequence[PartInput[Crop]]
    """The same after `curate balance`."""
    annotators: Sequence[str]
    tables: Mapping[str, TableState]
    """What the tables say of themselves, by name."""
    conditions: Mapping[str, Sequence[str]]
    """NC, SA and ND of all that is still stated of photos of which more than one licence is, by id."""

    @property
    def split(self) -> bool:
        """Whether `curate split` was run."""
        return "people" in self.tables


def features() -> Feature:
    """The typed columns, for `authface.annotate.export.rows.schema_of`."""
    number, whole, text = value("float32"), value("int32"), value("string")
    quality = {"face_size": number, **dict.fromkeys((*MEASURES, "disagreement", "pad_fraction"), number)}
    return {
        "image": IMAGE,
        "prompt": text,
        "prompt_semantic": text,
        "tokens": whole,
        "tags": rows_of({"name": text, "group": text, "confidence": number, "annotator": text}),
        "landmarks": rows_of(rows_of(number, 2), 68),
        "roi": {name: rows_of(number, 3) for name in ROI_POINTS},
        "quality": {**quality, "upscaled": value("bool")},
        "scores": rows_of({"metric": text, "value": number}),
        "split": text,
        "id": text,
        "photo_id": text,
        **dict.fromkeys(ORIGIN, text),
        "signals": text,
        "asked_at": text,
        "photo": {"width": whole, "height": whole, "bytes": value("int64"), "format": text},
        "size": whole,
        "quad": rows_of(value("float64"), 8),
        "face": {"index": whole, "box": rows_of(number), "points5": rows_of(number)},
        "retouched": value("bool"),
    }


def region_boxes(landmarks: NDArray[np.float64], size: int) -> dict[str, list[float]]:
    """Eyes and mouth as [centre x, centre y, half side] in crop pixels, from (68, 2) landmarks.

    The centre is the points' mean, the half side half of their box's longer side, at least 16 px of 512, times
    1.4 at the eyes: GFP-GAN's regions, which stage II's facial loss looks at.
    """
    boxes = {}
    for name, (first, last) in ROI_POINTS.items():
        points = landmarks[first:last]
        centre, half = points.mean(axis=0), float(np.ptp(points, axis=0).max()) / 2
        boxes[name] = [float(centre[0]), float(centre[1]), max(half, LEAST_HALF * size) * ROI_SCALE[name]]
    return boxes


def rows(inputs: Inputs, settings: ExportSettings, left_out: Counter[str]) -> Iterator[dict[str, Any]]:
    """The dataset's rows, part by part in constant memory: kept crops that every annotator tagged.

    With splits, only crops of one. Why the others are not there is counted in `left_out`.
    """
    photoset = inputs.photoset
    for judged in inputs.crops:
        part = judged.number
        photos = {photo.id: photo for photo in photoset.photos.rows(part) if photo.status == "kept"}
        faces = {face.id: face for face in photoset.faces.rows(part)}
        people = {person.id: person for person in photoset.people.rows(part)} if inputs.split else {}
        tables = [(name, {row.id: row for row in photoset.tags(name).rows(part)}) for name in inputs.annotators]
        for crop in judged.rows():
            person = people.get(crop.id)
            if why := _left_out(crop, person, [(name, table[crop.id].status) for name, table in tables], inputs.split):
                left_out[why] += 1
                continue
            found = [(name, table[crop.id].tags) for name, table in tables]
            chosen = choose(found, settings.least_confidence, settings.resolve)
            split = SPLITS[person.split] if person else ""
            yield _row(photoset, photos[crop.photo_id], faces[crop.id], crop, split) | _prompt_columns(chosen, settings)


def _left_out(crop: Crop, person: Person | None, tagged: Sequence[tuple[str, str]], split: bool) -> str:
    """Why a crop is not exported; empty where it is."""
    if crop.status != "kept":
        return crop.reason
    if untagged := next((name for name, status in tagged if status != "kept"), ""):
        return f"no tags by {untagged}"
    if split and (person is None or person.status != "kept" or person.split not in SPLITS):
        return person.reason if person and person.reason else "in no split"
    return ""


def check_current(inputs: Inputs) -> None:
    """Raise AuthfaceError where a table was made from rows that have changed since, with the command to run."""
    tables, here = inputs.tables, shell_word(inputs.photoset.root)
    above = {name: tables[name].digests for name in ("photos", "measured", "faces", "crops")}
    chain = [
        (above["photos"], "measured", f"curate filter {here}"),
        (above["measured"], "faces", f"curate filter {here}"),
        (above["faces"], "crops", f"curate align {here}"),
        *([(above["crops"], "people", f"curate split {here}")] if inputs.split else []),
    ]
    judged = {part.number: part.digest for part in inputs.reviewed}
    chain += [(judged, f"tags/{name}", f"annotate tags {here} --with {shell_word(name)}") for name in inputs.annotators]
    for source, made, command in chain:
        for part, before in source.items():
            after = tables[made].inputs.get(part, "")
            if not before or not after.startswith(before):  # a digest may say more at its end
                raise AuthfaceError(
                    f"part {part} of {made.rpartition('/')[2]} is missing or older than the rows it is made from: "
                    f"run authface {command} first"
                )


def _prompt_columns(chosen: ChosenTags, settings: ExportSettings) -> dict[str, Any]:
    """Columns of a crop's words: the whole prompt, the one of what is seen only, the tags with their annotators."""
    tags: list[Tag] = [tag for _, tag in chosen]
    fitting = fitting_tags(tags, settings.max_tokens) if settings.max_tokens else tags
    words = prompt(fitting)
    return {
        "prompt": words,
        "prompt_semantic": prompt(tag for tag in fitting if tag.group in SEMANTIC),
        "tokens": count_tokens(words),
        "tags": [
            {"name": tag.name, "group": tag.group, "confidence": tag.confidence, "annotator": annotator}
            for annotator, tag in chosen
        ],
    }


def _row(photoset: PhotoSet, photo: Photo, face: Face, crop: Crop, split: str) -> dict[str, Any]:
    landmarks = crop_points(np.reshape(crop.landmarks or (), (68, 2)), np.reshape(crop.quad or (), (4, 2)), crop.size)
    try:
        image = photoset.read(crop.file)
    except ImageError as error:
        again = f"run authface curate align {shell_word(photoset.root)} after deleting tables/crops"
        raise AuthfaceError(f"crop {one_line(crop.file)}: {one_line(error)}; {again}") from error
    quality = {name: getattr(face, name) for name in MEASURES}
    return {
        "image": {"bytes": image, "path": crop.file.rpartition("/")[2]},
        "landmarks": landmarks.tolist(),
        "roi": region_boxes(landmarks, crop.size),
        "quality": {
            "face_size": face.size,
            **quality,
            "disagreement": crop.disagreement,
            "pad_fraction": crop.pad_fraction,
            "upscaled": crop.upscaled,
        },
        "scores": [{"metric": score.metric, "value": score.value} for score in face.scores],
        "split": split,
        "id": crop.id,
        "photo_id": photo.id,
        **{name: getattr(photo, name) for name in ORIGIN},
        "signals": json.dumps([plain(one) for one in photo.signals]) if photo.signals else "",
        "asked_at": photo.asked_at,
        "photo": {"width": photo.width, "height": photo.height, "bytes": photo.bytes, "format": photo.format},
        "size": crop.size,
        "quad": list(crop.quad or ()),
        "face": {"index": face.index, "box": face.box, "points5": face.points5},
        "retouched": is_retouched(crop.file),
    }
