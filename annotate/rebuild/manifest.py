"""A manifest: all of a dataset but its pixels, read from a folder, a file or the hub. What it says is not trusted."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from authface.errors import AuthfaceError, UsageError, one_line
from authface.models.hub import download_dataset
from authface.store.numbers import NumberMap, text_number
from authface.store.rows import column_names, read_rows, reading

PATTERN = "manifest/*.parquet"
NEEDED = ("id", "photo_id", "quad", "size", "landmarks", "tags", "pixels_sha256")
"""Columns by which a table is known as a manifest."""
MOST_URL = 8192
ANNOTATOR = r"^[a-z0-9][a-z0-9-]{0,39}$"

RowGroup = tuple[int, int]
"""Numbers of a file, and of one of its row groups."""
Text = Annotated[str, Field(max_length=2000)]
Number = FiniteFloat | None
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class EntryTag(_Model):
    """A tag and who said it."""

    name: Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[\w' -]+$")]
    group: Annotated[str, Field(max_length=40, pattern=r"^[a-z]+$")]
    confidence: Annotated[float, Field(ge=0, le=1)]
    annotator: Annotated[str, Field(pattern=ANNOTATOR)]


class EntryScore(_Model):
    """What a metric says."""

    metric: Text
    value: FiniteFloat


class EntryFace(_Model):
    """Where the face lies in its photo."""

    index: Annotated[int, Field(ge=0, lt=10_000)]
    box: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat] | None
    points5: Annotated[tuple[FiniteFloat, ...], Field(min_length=10, max_length=10)] | None


class Entry(_Model):
    """One row of a manifest; see `authface.annotate.export.rows.features`."""

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{64}-[0-9]{1,4}$")]
    photo_id: Sha256
    source: Text
    source_id: Annotated[str, Field(max_length=MOST_URL)]
    page_url: Annotated[str, Field(max_length=MOST_URL)]
    file_url: Annotated[str, Field(max_length=MOST_URL)]
    photographer: Text
    photographer_url: Annotated[str, Field(max_length=MOST_URL)]
    licence: Text
    terms: Text
    as_of: Text
    split: Literal["", "train", "validation", "test"]
    size: Annotated[int, Field(ge=16, le=8192)]
    quad: Annotated[tuple[FiniteFloat, ...], Field(min_length=8, max_length=8)]
    landmarks: Annotated[tuple[tuple[FiniteFloat, FiniteFloat], ...], Field(min_length=68, max_length=68)]
    """In pixels of the crop."""
    face: EntryFace
    quality: dict[str, Number | bool]
    scores: tuple[EntryScore, ...]
    tags: tuple[EntryTag, ...]
    pixels_sha256: Sha256
    retouched: bool

    @model_validator(mode="after")
    def _one_photo(self) -> Self:
        if self.id != f"{self.photo_id}-{self.face.index}":
            raise ValueError("id is not made of photo_id and the face's index")
        return self


@dataclass(frozen=True, slots=True)
class BadManifestRow:
    """A row that is none."""

    id: str
    photo_id: str
    detail: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the photo of a row comes from, as the manifest says."""

    id: str
    photo_id: str
    source: str
    source_id: str
    file_url: str
    page_url: str
    photographer: str
    photographer_url: str
    licence: str
    terms: str


class DatasetManifest:
    """The rows of some Parquet files. Raises UsageError where they are no manifest."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        for path in paths:
            try:
                names = column_names(path)
            except AuthfaceError as error:
                raise UsageError(str(error)) from error
            if missing := [name for name in NEEDED if name not in names]:
                raise UsageError(f"{one_line(path)} is no manifest: it has no column {', '.join(missing)}")

    @property
    def key(self) -> str:
        """sha256 of its files, in hex."""
        total = hashlib.sha256()
        for path in self._paths:
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        return total.hexdigest()

    def __len__(self) -> int:
        """How many rows there are."""
        total = 0
        for path in self._paths:
            with reading(path):
                total += pq.read_metadata(path).num_rows
        return total

    def origins(self) -> Iterator[Origin]:
        """Where every row's photo comes from, as text on one line each."""
        names = list(Origin.__slots__)
        for row in self._rows(names):
            yield Origin(**{name: one_line(row.get(name) or "", MOST_URL) for name in names})

    def annotators(self) -> list[str]:
        """Whose tags it holds; a name that is none makes its row a bad one."""
        lists = (row["tags"] for row in self._rows(["tags"]) if isinstance(row["tags"], list))
        found = {str(tag.get("annotator")) for tags in lists for tag in tags if isinstance(tag, dict)}
        return sorted(name for name in found if re.fullmatch(ANNOTATOR, name))

    def groups(self, part_of: NumberMap) -> dict[int, list[RowGroup]]:
        """By part: where the manifest speaks of its photos, whose parts `part_of` tells by `text_number`; read once."""
        found: dict[int, list[RowGroup]] = defaultdict(list)
        for number, path in enumerate(self._paths):
            with reading(path), pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    where = (number, group)
                    ids = file.read_row_group(group, ["photo_id"]).column(0).cast(pa.string()).to_pylist()
                    for part in set(part_of.get(map(text_number, filter(None, ids)))) - {-1}:
                        found[part].append(where)
        return found

    def entries(self, photo_ids: Collection[str], groups: Iterable[RowGroup]) -> Iterator[Entry | BadManifestRow]:
        """The rows of some photos, which are in these `groups`, or why one is none."""
        wanted = pa.array(sorted(photo_ids), pa.string())
        for number, some in groupby(groups, key=itemgetter(0)):
            path = self._paths[number]
            with reading(path), pq.ParquetFile(path) as file:
                for _, group in some:
                    table = file.read_row_group(group)
                    table.validate(full=True)  # of text, that it is UTF-8
                    rows = table.filter(pc.is_in(table["photo_id"].cast(pa.string()), wanted)).to_pylist()
                    yield from map(_entry, rows)

    def _rows(self, names: list[str] | None) -> Iterator[dict[str, Any]]:
        for path in self._paths:
            yield from read_rows(path, names)


def open_manifest(text: str) -> DatasetManifest:
    """The manifest at a folder or a Parquet file, else in the hub's dataset of that name. Raises UsageError."""
    path = Path(text)
    if path.is_file():
        return DatasetManifest([path])
    if not path.is_dir():
        if text.count("/") != 1:
            raise UsageError(
                f"no manifest at {one_line(text)}: give a folder, a .parquet file, or OWNER/NAME of the hub"
            )

        path = download_dataset(text, [PATTERN])
    found = sorted(path.glob(PATTERN)) or sorted(path.glob("*.parquet"))
    if not found:
        raise UsageError(
            f"{one_line(text)} holds no manifest: authface annotate export SET --format manifest writes one"
        )
    return DatasetManifest(found)


def _entry(row: dict[str, Any]) -> Entry | BadManifestRow:
    try:
        return Entry.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "row"
        return BadManifestRow(
            one_line(row.get("id") or "", 100),
            one_line(row.get("photo_id") or "", 100),
            one_line(f"{where}: {first['msg']}", 200),
        )
