"""What an export says of itself: its card (contents, origin, licences, what to mind) and Croissant metadata.

Other loaders read its columns by Croissant 1.1 (MLCommons), `croissant.json`. `mlcroissant` is not needed here; a test
checks with it that the file is valid, and that it gives the rows.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from authface import __version__
from authface.annotate.export.formats import SHARD_KEY, DatasetFormat, ExportTarget, WebDatasetFormat
from authface.annotate.export.rows import Feature, Inputs, in_card
from authface.annotate.settings import ExportSettings
from authface.errors import one_line
from authface.files import sha256_of
from authface.report.pages import markdown_cell, render_markdown
from authface.store.photoset import TableState
from authface.store.statements import conditions

SPLIT_NAMES: Final = ("train", "validation", "test")
_AT_HOME: Final = frozenset({"against", "path", "reviewer"})
"""Settings that name folders and files of this machine, or who looked at the photos."""
FOLDERS = {"dataset": "data", "croissant": "data", "manifest": "manifest"}
"""Where the formats that `datasets` needs to be told of keep their files."""


@dataclass
class ExportCounts:
    """What an export holds, counted as its rows go by."""

    rows: int = 0
    upscaled: int = 0
    retouched: int = 0
    tokens: int = 0
    """Of the longest prompt."""
    trimmed: int = 0
    """Prompts that lost tags for their length."""
    splits: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    photographers: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    terms: Counter[str] = field(default_factory=Counter)
    tags: dict[str, Counter[str]] = field(default_factory=dict)
    """By group and name."""
    annotators: Counter[str] = field(default_factory=Counter)
    """Tags by who said them."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Kept crops that are no row, by why."""
    stated: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What `Inputs.conditions` has."""
    under: Counter[str] = field(default_factory=Counter)

    def conditions(self) -> dict[str, int]:
        """Rows under NC, SA and ND licences: of a photo's all that are still stated."""
        return dict(self.under)

    def add(self, row: dict[str, Any]) -> None:
        """Count one row."""
        self.rows += 1
        self.upscaled += bool(row["quality"]["upscaled"])
        self.retouched += bool(row["retouched"])
        self.tokens = max(self.tokens, row["tokens"])
        self.trimmed += len(row["prompt"].split(", ")) < len({tag["name"] for tag in row["tags"]})
        self.splits[row["split"] or "train"] += 1
        self.licences[row["licence"] or "unknown"] += 1
        self.under.update({*conditions([row["licence"] or ""]), *self.stated.get(row["photo_id"], ())})
        self.photographers[row["photographer"] or "unknown"] += 1
        self.sources[row["source"]] += 1
        if row["terms"]:
            self.terms[f"{row['source']}: {row['terms']}"] += 1
        for tag in row["tags"]:
            self.tags.setdefault(tag["group"], Counter())[tag["name"]] += 1
            self.annotators[tag["annotator"]] += 1


@dataclass(frozen=True)
class Config:
    """One way to load a repository: its name, and the files of each split."""

    name: str
    splits: Sequence[tuple[str, str]]
    """Name and pattern."""


def configs_of(format: str, key: str, counts: ExportCounts, name: str = "default") -> list[Config]:
    """What `datasets` has to be told of an export of that format; nothing where it finds the files by itself."""
    if format not in FOLDERS:
        return []
    there = [split for split in SPLIT_NAMES if counts.splits[split]]
    return [Config(name, [(split, f"{FOLDERS[format]}/{split}-{key[:SHARD_KEY]}-*.parquet") for split in there])]


def card(
    inputs: Inputs,
    settings: ExportSettings,
    counts: ExportCounts,
    configs: Sequence[Config],
    withheld: Mapping[str, int] | None = None,
) -> str:
    """The text of README.md, with the hub's metadata on top; `withheld` counts the rows without pixels by reason."""
    photoset = inputs.photoset
    return render_markdown(
        "dataset_card.md.jinja",
        name=one_line(photoset.root.resolve().name),
        version=__version__,
        size=next(iter(photoset.crops)).size,
        size_category=_size_category(counts.rows),
        counts=counts,
        splits=[(split, counts.splits[split]) for split in SPLIT_NAMES if counts.splits[split]],
        configs=configs,
        columns=json.dumps(in_card(WebDatasetFormat.features())) if settings.format == "webdataset" else "",
        held=dict(withheld or {}),
        settings=settings,
        split=inputs.split,
        composition=[
            ("faces", counts.rows),
            *((f"from {markdown_cell(name)}", count) for name, count in counts.sources.most_common()),
            *([("retouched by hand", counts.retouched)] if counts.retouched else []),
            ("enlarged: less detail in the photo than pixels in the crop", counts.upscaled),
            *(
                (f"left out: {markdown_cell(why.replace('_', ' '))}", count)
                for why, count in counts.left_out.most_common()
            ),
        ],
        process=[
            _process("photos fetched", inputs.tables["photos"]),
            _process("faces filtered", inputs.tables["faces"]),
            _process("faces aligned", inputs.tables["crops"]),
            *([_process("people split", inputs.tables["people"])] if inputs.split else []),
            *(_process(f"crops tagged, {name}", inputs.tables[f"tags/{name}"]) for name in inputs.annotators),
        ],
    )


def _process(step: str, table: TableState) -> tuple[str, str, list[tuple[str, Any]]]:
    """A step's name, its outcomes in words, its settings."""
    outcomes = ", ".join(f"{count:,} {name}" for name, count in table.counts.most_common())
    told = sorted((key, _public(value)) for key, value in table.settings.items() if key not in _AT_HOME)
    return step, outcomes, told


def _public(value: Any) -> Any:
    """A setting as the card says it: where a file or a folder lies here is nobody else's business."""
    return "a file or folder of its maker" if isinstance(value, str) and _is_path(value) else value


def _is_path(text: str) -> bool:
    """Whether a text is a path: `owner/repository` is one only where such a folder is."""
    if "/" not in text and "\\" not in text:
        return False
    begins = text.startswith(("/", ".", "~", "\\")) or text[1:3] in {":\\", ":/"}
    return begins or text.count("/") > 1 or os.path.exists(text)  # noqa: PTH110  never raises


def _size_category(rows: int) -> str:
    """The hub's name for a number of rows."""
    steps = [(1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
    return next((name for limit, name in steps if rows < limit), "n>1M")


NAME: Final = "croissant.json"
_ROWS, _SHARDS = "faces", "shards"
_TYPES = {
    "string": "sc:Text", "bool": "sc:Boolean", "int32": "sc:Integer", "int64": "sc:Integer", "float32": "sc:Float",
    "float64": "sc:Float",
}  # fmt: skip
_CONTEXT: Final[dict[str, Any]] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{
        name: f"cr:{name}"
        for name in (
            "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field", "fileObject",
            "fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5",
            "parentField", "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate",
            "separator", "source", "subField", "transform",
        )
    },
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
}  # fmt: skip
"""What the names mean, as the format's specification has it."""
_DESCRIPTIONS = {
    "image": "The aligned face, PNG",
    "prompt": "Its tags in order of priority, as a prompt",
    "prompt_semantic": "Those of them that say what is seen, without how it was photographed",
    "landmarks": "68 iBUG points, pixels of the crop",
    "roi": "Eyes and mouth as centre x, centre y, half side, pixels of the crop",
    "quality": "Measures of the face in its photo",
    "split": "train, validation, test; empty where the set was not split",
    "photo_id": "sha256 of the photo's file",
    "licence": "What the source or the person who collected the photo stated; unknown gives no permission",
    "signals": "What machines were told of training on the photo, with where and when it was read: a JSON list",
    "asked_at": "When that was looked for; empty: nobody looked",
    "quad": "Corners of the crop in the photo: x, y of top left, bottom left, bottom right, top right",
}


class CroissantFormat(DatasetFormat):
    """As `DatasetFormat`, and ``croissant.json`` that says what its files and columns are."""

    def __init__(self, target: ExportTarget) -> None:
        super().__init__(target)
        self._target = target
        self._rows = 0
        self._licences: Counter[str] = Counter()

    def add(self, row: dict[str, Any]) -> None:
        """Write one more row."""
        super().add(row)
        self._rows += 1
        self._licences[row["licence"] or "unknown"] += 1

    def close(self) -> None:
        """Close the shards, and describe them."""
        super().close()
        text = json.dumps(self._metadata(), indent=2, ensure_ascii=False)
        (self._target.folder / NAME).write_text(text + "\n", "utf-8")

    def _metadata(self) -> dict[str, Any]:
        name = one_line(self._target.photoset.root.resolve().name, 80)
        shards = sorted((self._target.folder / self.FOLDER).glob("*.parquet"))
        licences = [one_line(licence, 200) for licence, _ in self._licences.most_common()]
        return {
            "@context": _CONTEXT,
            "@type": "sc:Dataset",
            "conformsTo": "http://mlcommons.org/croissant/1.1",
            "name": name,
            "description": f"{self._rows} aligned faces of {self._target.size} px with tags, landmarks and measures, "
            f"made by authface {__version__}. Each row keeps its photo's source, photographer and licence; README.md "
            "is the card.",
            "datePublished": datetime.now(UTC).date().isoformat(),
            "version": f"1.0.0+{self._target.key[:16]}",
            "license": licences,
            "rai:personalSensitiveInformation": "Faces: biometric data. Nobody's identity is labelled.",
            "rai:dataUseCases": "Training and measuring face priors and restoration; not recognition or profiling.",
            "distribution": [
                *(
                    {
                        "@type": "cr:FileObject",
                        "@id": f"{self.FOLDER}/{shard.name}",
                        "name": shard.name,
                        "contentUrl": f"{self.FOLDER}/{shard.name}",
                        "contentSize": f"{shard.stat().st_size} B",
                        "encodingFormat": "application/x-parquet",
                        "sha256": sha256_of(shard),
                    }
                    for shard in shards
                ),
                {
                    "@type": "cr:FileSet",
                    "@id": _SHARDS,
                    "name": _SHARDS,
                    "description": "All of these files",
                    "encodingFormat": "application/x-parquet",
                    "includes": f"{self.FOLDER}/*.parquet",
                },
            ],
            "recordSet": [
                {
                    "@type": "cr:RecordSet",
                    "@id": _ROWS,
                    "name": _ROWS,
                    "description": "A row for each face",
                    "key": {"@id": f"{_ROWS}/id"},
                    "field": [
                        _field(f"{_ROWS}/{column}", column, (), feature) for column, feature in self.features().items()
                    ],
                }
            ],
        }


def _field(identity: str, column: str, path: tuple[str, ...], feature: Feature) -> dict[str, Any]:
    """A column, or what lies at `path` inside one, as a field with all that is in it."""
    name = path[-1] if path else column
    told: dict[str, Any] = {"@type": "cr:Field", "@id": identity, "name": name}
    if not path and column in _DESCRIPTIONS:
        told["description"] = _DESCRIPTIONS[column]
    kind, shape = feature.get("_type"), []
    while kind == "List":
        shape.append(str(feature.get("length", -1)))
        feature = feature["feature"]
        kind = feature.get("_type")
    if shape:
        told |= {"isArray": True, "arrayShape": ",".join(shape)}
    if kind is None:
        inner = feature.items()
        return told | {"subField": [_field(f"{identity}/{key}", column, (*path, key), one) for key, one in inner]}
    picked = ("bytes",) if kind == "Image" else path
    source: dict[str, Any] = {"fileSet": {"@id": _SHARDS}, "extract": {"column": column}}
    if picked:
        source["transform"] = [{"jsonPath": key} for key in picked] if len(picked) > 1 else {"jsonPath": picked[0]}
    return told | {"dataType": "sc:ImageObject" if kind == "Image" else _TYPES[feature["dtype"]], "source": source}
