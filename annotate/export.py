"""`annotate export`: the photo set's faces as a Hugging Face dataset that `datasets.load_dataset(folder)` opens."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from authface.annotate import dataset
from authface.annotate.settings import ExportSettings
from authface.console import Console
from authface.errors import AuthfaceError, UsageError, one_line
from authface.files import TEMPORARY, write_errors, write_file
from authface.photoset import PhotoSet, Table
from authface.records import Crop
from authface.reviews import ReviewSettings, is_retouched, reviewed_crops
from authface.runner import PartInput
from authface.uses import dataset_use, record_use

VERSION = 1
STATE = "authface.json"
"""In the dataset's folder: what it was made from, and what it counts."""
SHARD_KEY = 16
"""Digits of the content's digest in the shards' names and in the card's pattern of them. `datasets` keys its cache by
the card's patterns alone: without it, any two folders called ``dataset`` would open as the one that came first."""
GROUP_ROWS = 100
"""Rows a Parquet row group, the unit that is held in memory and that readers fetch."""


@dataclass
class Counts:
    """What the card says of the rows."""

    rows: int = 0
    upscaled: int = 0
    retouched: int = 0
    licences: Counter[str] = field(default_factory=Counter)
    photographers: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    tags: Counter[str] = field(default_factory=Counter)

    def add(self, row: dict[str, Any]) -> None:
        """Count one row."""
        self.rows += 1
        self.upscaled += bool(row["quality"]["upscaled"])
        self.retouched += is_retouched(row["image"]["path"])
        self.licences[row["licence"] or "unknown"] += 1
        self.photographers[row["photographer"] or "unknown"] += 1
        self.sources[row["source"]] += 1
        self.tags.update(f"{tag['group']}: {tag['name']}" for tag in row["tags"])


@dataclass(frozen=True)
class Exported:
    """Where the dataset is, and whether this run made it."""

    folder: Path
    rows: int
    shards: int
    bytes: int
    written: bool


def export(
    photoset: PhotoSet,
    settings: ExportSettings,
    console: Console,
    *,
    review: ReviewSettings = ReviewSettings(),  # noqa: B008  immutable
    limit: int = 0,
) -> Exported:
    """Write ``SET/dataset``, whole or not at all, with the first `limit` rows or all; the caller holds the set's lock.

    Raises UsageError where tags are missing, AuthfaceError where tables are outdated or nothing is kept.
    """
    annotators = list(settings.annotators) or photoset.annotators()
    here = one_line(photoset.root)
    for name in annotators or ["measured"]:
        if not photoset.tags(name).parts():
            raise UsageError(f"{here} has no tags: run authface annotate tags {here} --with {one_line(name)} first")
    crops = reviewed_crops(photoset, review)
    dataset.check_current(photoset, crops, annotators)
    folder = photoset.root / "dataset"
    state = _state(photoset, crops, annotators, settings, limit)
    before = read_state(folder)
    if before.get("made_from") == state:
        return _exported(folder, before["rows"], written=False)
    total = sum(part.count for part in crops)
    if not total:
        raise AuthfaceError(
            f"{here} has no kept crops: the contact sheet says why; loosen curate.filter and run it again"
        )
    beside = photoset.root / f"{TEMPORARY}dataset"
    with write_errors(folder):
        shutil.rmtree(beside, ignore_errors=True)
        counts = Counts()
        with console.progress("export", min(total, limit or total), "images") as tick:
            rows = islice(dataset.rows(photoset, crops, annotators, settings), limit or None)
            for row in _written(beside, rows, settings, state[:SHARD_KEY]):
                counts.add(row)
                tick()
        if not counts.rows:
            shutil.rmtree(beside)
            raise AuthfaceError(
                f"{here}: no kept crop has kept tags, nothing to export; see authface annotate tags {here}"
            )
        from authface.annotate.card import card

        write_file(beside / "README.md", card(photoset, annotators, settings, counts, state[:SHARD_KEY]).encode())
        write_file(beside / STATE, json.dumps({"made_from": state, "rows": counts.rows}, indent=1).encode())
        _swap(beside, folder)
        record_use(photoset, dataset_use(folder, state, counts.rows))
    return _exported(folder, counts.rows, written=True)


def _exported(folder: Path, rows: int, *, written: bool) -> Exported:
    shards = list((folder / "data").glob("*.parquet"))
    return Exported(folder, rows, len(shards), sum(shard.stat().st_size for shard in shards), written)


def read_state(folder: Path) -> dict[str, Any]:
    """What a dataset folder says of itself; empty where there is none of ours."""
    try:
        found = json.loads((folder / STATE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _state(
    photoset: PhotoSet,
    crops: Sequence[PartInput[Crop]],
    annotators: list[str],
    settings: ExportSettings,
    limit: int,
) -> str:
    def digests(table: Table[Any]) -> list[str]:
        return [meta.digest for meta in table.metas().values() if meta]

    tags = [digests(photoset.tags(name)) for name in annotators]
    made_from = [digests(photoset.photos), digests(photoset.faces), [part.digest for part in crops], *tags]
    text = json.dumps([VERSION, annotators, settings.model_dump(mode="json"), limit, made_from])
    return hashlib.sha256(text.encode()).hexdigest()


def _written(
    folder: Path, rows: Iterator[dict[str, Any]], settings: ExportSettings, key: str
) -> Iterator[dict[str, Any]]:
    """Write the rows to shards of at most `settings.shard_megabytes` below ``folder/data``, passing them on."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = dataset.features().arrow_schema
    (folder / "data").mkdir(parents=True)
    limit = settings.shard_megabytes * 1_000_000
    writer, size, shards, group = None, 0, 0, list[dict[str, Any]]()

    def flush() -> None:
        nonlocal group
        if writer is not None and group:
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
        group = []

    try:
        for row in rows:
            bytes_of_image = len(row["image"]["bytes"])
            if writer is None or size + bytes_of_image > limit:
                flush()
                if writer is not None:
                    writer.close()
                shard = folder / "data" / f"train-{key}-{shards:05d}.parquet"
                writer = pq.ParquetWriter(shard, schema, compression="zstd")
                size, shards = 0, shards + 1
            group.append(row)
            size += bytes_of_image
            if len(group) == GROUP_ROWS:
                flush()
            yield row
        flush()
    finally:
        if writer is not None:
            writer.close()


def _swap(new: Path, folder: Path) -> None:
    """Put `new` in the place of `folder`; a kill between leaves one of them whole, and the next export mends it."""
    old = folder.with_name(f"{TEMPORARY}dataset-old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
