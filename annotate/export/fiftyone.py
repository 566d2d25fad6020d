"""FiftyOne's own layout on disk (`fiftyone.types.FiftyOneDataset`): ``metadata.json``, ``samples.json`` and ``data/``.

FiftyOne is not needed here. Files say that they are of its version 1.1: later ones read them and bring them up to date.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from authface.annotate.export import rows as dataset
from authface.annotate.export.formats import DEFAULT_SPLIT, ExportTarget, Format
from authface.annotate.export.rows import Feature
from authface.errors import one_line

VERSION: Final = "1.1.0"
_CORE, _FIELDS, _LABELS = "fiftyone.core", "fiftyone.core.fields", "fiftyone.core.labels"
_DYNAMIC: Final = f"{_CORE}.odm.embedded_document.DynamicEmbeddedDocument"
_TYPES = {
    "string": "StringField", "bool": "BooleanField", "int32": "IntField", "int64": "IntField", "float32": "FloatField",
    "float64": "FloatField",
}  # fmt: skip
_RENAMED = {"id": "face_id"}
_SPECIAL: Final = ("image", "split", "tags", "landmarks", "roi", "scores")
"""Columns that become a label, a tag or the file of a sample."""

Field = dict[str, Any]


class FiftyOneFormat(Format):
    """``data/<id>.png``, a sample for each: tags as classifications, landmarks as keypoints, eyes and mouth as
    detections, its split as the sample's tag, all else as fields."""

    def __init__(self, target: ExportTarget) -> None:
        self._target = target
        (target.folder / "data").mkdir(parents=True)
        self._samples = (target.folder / "samples.json").open("w", encoding="utf-8", newline="\n")
        self._samples.write('{"samples": [')
        self._count = 0
        self._metrics: dict[str, None] = {}

    def add(self, row: dict[str, Any]) -> None:
        """Write one more row."""
        file = f"data/{row['id']}.png"
        (self._target.folder / file).write_bytes(row["image"]["bytes"])
        self._metrics |= dict.fromkeys(_key(score["metric"]) for score in row["scores"])
        text = json.dumps(sample(row, file), ensure_ascii=False)
        self._samples.write(("," if self._count else "") + "\n" + text)
        self._count += 1

    def close(self) -> None:
        """End the samples, and say what fields they have."""
        self._samples.write("\n]}\n")
        self._samples.close()
        name = one_line(self._target.photoset.root.resolve().name, 80)
        text = json.dumps(metadata(name, self._target.key, tuple(self._metrics)), indent=1, ensure_ascii=False)
        (self._target.folder / "metadata.json").write_text(text + "\n", "utf-8")


def sample(row: dict[str, Any], file: str) -> dict[str, Any]:
    """A row as the document of a sample; places are shares of the crop's side."""
    size, image = row["size"], row["image"]["bytes"]
    plain = {_RENAMED.get(name, name): _value(row[name]) for name in dataset.features() if name not in _SPECIAL}
    words = [
        {"_id": _id(row["id"], "word", tag["name"], tag["annotator"]), "_cls": "Classification", "tags": []}
        | {"label": tag["name"], "confidence": tag["confidence"], "group": tag["group"], "annotator": tag["annotator"]}
        for tag in row["tags"]
    ]
    points = [[(x + 0.5) / size, (y + 0.5) / size] for x, y in row["landmarks"]]
    keypoint = {"_id": _id(row["id"], "points"), "_cls": "Keypoint", "attributes": {}, "tags": []}
    regions = [
        {"_id": _id(row["id"], "region", name), "_cls": "Detection", "attributes": {}, "tags": [], "label": name}
        | {"bounding_box": [(x + 0.5 - half) / size, (y + 0.5 - half) / size, 2 * half / size, 2 * half / size]}
        for name, (x, y, half) in row["roi"].items()
    ]
    scores = {_key(score["metric"]): score["value"] for score in row["scores"]}
    return {
        "_id": _id(row["id"]),
        "filepath": file,
        "tags": [row["split"] or DEFAULT_SPLIT],
        "metadata": {"_cls": "ImageMetadata", "size_bytes": len(image), "mime_type": "image/png"}
        | {"width": size, "height": size, "num_channels": 3},
        "_media_type": "image",
        "_rand": int(hashlib.sha256(row["id"].encode()).hexdigest()[:13], 16) / 16**13,
        **plain,
        "words": {"_cls": "Classifications", "classifications": words},
        "landmarks": {"_cls": "Keypoints", "keypoints": [keypoint | {"label": "iBUG 68", "points": points}]},
        "regions": {"_cls": "Detections", "detections": regions},
        "scores": {"_cls": "DynamicEmbeddedDocument", **scores},
    }


def metadata(name: str, key: str, metrics: tuple[str, ...]) -> dict[str, Any]:
    """The document of the dataset: its name and the fields of its samples."""
    plain = [
        _field(_RENAMED.get(column, column), feature)
        for column, feature in dataset.features().items()
        if column not in _SPECIAL
    ]
    image = [_one(field, "Int") for field in ("size_bytes", "width", "height", "num_channels")]
    return {
        "_id": _id(key),
        "name": name,
        "slug": f"authface-{key[:12]}",
        "version": VERSION,
        "persistent": False,
        "media_type": "image",
        "tags": [],
        "info": {"authface": key},
        "app_config": {},
        "sample_fields": [
            _one("id", "ObjectId", db="_id"),
            _one("filepath", "String"),
            _list("tags", "String"),
            _document("metadata", f"{_CORE}.metadata.ImageMetadata", [*image, _one("mime_type", "String")]),
            _one("_media_type", "String"),
            _one("_rand", "Float"),
            _one("_dataset_id", "ObjectId"),
            _one("created_at", "DateTime", read_only=True),
            _one("last_modified_at", "DateTime", read_only=True),
            *plain,
            _labels("words", "Classification", [_one("group", "String"), _one("annotator", "String")]),
            _labels("landmarks", "Keypoint", [_one("points", "Keypoints"), _one("index", "Int")], "List"),
            _labels("regions", "Detection", [_list("bounding_box", "Float"), _one("index", "Int")]),
            _document("scores", _DYNAMIC, [_one(metric, "Float") for metric in metrics]),
        ],
        "frame_fields": [],
        "saved_views": [],
        "workspaces": [],
        "annotation_runs": {},
        "brain_methods": {},
        "evaluations": {},
        "runs": {},
    }


def _value(value: Any) -> Any:
    """A plain column's value; what holds names becomes a document."""
    if isinstance(value, dict):
        return {"_cls": "DynamicEmbeddedDocument"} | {name: _value(inner) for name, inner in value.items()}
    return value


def _field(name: str, feature: Feature) -> Field:
    kind = feature.get("_type")
    if kind == "Value":
        return _base(name, f"{_FIELDS}.{_TYPES[feature['dtype']]}")
    if kind == "List":
        return _base(name, f"{_FIELDS}.ListField", subfield=f"{_FIELDS}.{_TYPES[feature['feature']['dtype']]}")
    return _document(name, _DYNAMIC, [_field(inner, one) for inner, one in feature.items()])


def _one(name: str, kind: str, *, db: str = "", read_only: bool = False) -> Field:
    return _base(name, f"{_FIELDS}.{kind}Field", db=db, read_only=read_only)


def _list(name: str, kind: str) -> Field:
    return _base(name, f"{_FIELDS}.ListField", subfield=f"{_FIELDS}.{kind}Field")


def _document(name: str, kind: str, fields: list[Field]) -> Field:
    return _base(name, f"{_FIELDS}.EmbeddedDocumentField", document=kind, fields=fields)


def _labels(name: str, kind: str, fields: list[Field], confidence: str = "Float") -> Field:
    """A list of labels of one kind, such as ``Detection`` in ``Detections``."""
    sure = _list("confidence", "Float") if confidence == "List" else _one("confidence", "Float")
    every = [_one("id", "ObjectId", db="_id"), _list("tags", "String"), _one("label", "String"), sure, *fields]
    inner = _base(
        f"{kind.lower()}s", f"{_FIELDS}.ListField", subfield=f"{_FIELDS}.EmbeddedDocumentField",
        document=f"{_LABELS}.{kind}", fields=every,
    )  # fmt: skip
    return _document(name, f"{_LABELS}.{kind}s", [inner])


def _base(
    name: str, ftype: str, *, subfield: str | None = None, document: str | None = None,
    fields: list[Field] | None = None, db: str = "", read_only: bool = False,
) -> Field:  # fmt: skip
    return {
        "name": name,
        "ftype": ftype,
        "embedded_doc_type": document,
        "subfield": subfield,
        "fields": fields or [],
        "db_field": db or name,
        "description": None,
        "info": None,
        "read_only": read_only,
    }


def _key(metric: str) -> str:
    """A metric's name as the name of a field, which holds no dots and begins with no dollar."""
    return "".join(c if c.isalnum() else "_" for c in metric)


def _id(*parts: str) -> dict[str, str]:
    """An id of MongoDB's, the same for the same thing."""
    return {"$oid": hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]}
