"""What `annotate push` sends: the dataset as it is, or one without the pixels that may not be passed on."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from authface.annotate.export.card import card, configs_of
from authface.annotate.export.composition import Counts
from authface.annotate.export.formats import Manifest, Parquet, Place
from authface.annotate.export.run import STATE, check_newest, inputs_of, read_state, swap
from authface.annotate.export.terms import Publisher
from authface.annotate.settings import ExportSettings
from authface.console import Console
from authface.errors import UsageError, one_line
from authface.files import TEMPORARY, is_local, write_errors, write_file
from authface.review.reviews import ReviewSettings
from authface.store.lineage import PHOTO_IDS, dataset_use, record_use
from authface.store.photoset import PhotoSet

VERSION = 1
SENT = ("README.md", STATE, "data/*", "manifest/*")
"""All that is ever sent."""
BATCH_ROWS = 50
_TERMS = ("source", "licence", "page_url", "file_url")


@dataclass(frozen=True)
class Plan:
    """What may be sent of a dataset."""

    dataset: Path
    folder: Path
    """What is sent: the dataset itself where all of it may be, else a folder that is made of it."""
    rows: int
    with_pixels: int
    held: Counter[str]
    """Rows without pixels, by why."""
    images: int
    """Bytes of the images in the dataset's files."""
    rest: int
    """Bytes of all else in them."""
    state: dict[str, Any]

    @property
    def as_it_is(self) -> bool:
        """Whether the dataset is sent as it lies there."""
        return not self.held

    @property
    def bytes(self) -> int:
        """About how much will be sent."""
        if self.as_it_is:
            return sum(path.stat().st_size for path in files_of(self.folder))
        share = self.with_pixels / max(self.rows, 1)
        return int(self.images * share + self.rest * (1 + share))


def files_of(folder: Path) -> list[Path]:
    """The files that are sent of a folder, sorted."""
    return sorted(path for pattern in SENT for path in folder.glob(pattern) if path.is_file())


def plan(photoset: PhotoSet, folder: Path, publisher: Publisher) -> Plan:
    """Look at the terms of every row of a dataset; nothing is written.

    Raises UsageError where there is no dataset that is as new as the set.
    """
    state = check_newest(photoset, folder)
    held: Counter[str] = Counter()
    rows = images = whole = 0
    for shard in _shards(folder):
        with pq.ParquetFile(shard) as file:
            for row in file.read(columns=list(_TERMS)).to_pylist():
                rows += 1
                if why := publisher.withholds(row):
                    held[why] += 1
            pixels, total = _sizes(file.metadata)
            images, whole = images + pixels, whole + total
    if not rows:
        raise UsageError(f"{one_line(folder)} has no rows to publish: run authface annotate export again")
    apart = photoset.root / "exports" / "hub" if is_local(photoset.root) else folder.with_name(f"{folder.name}-hub")
    return Plan(folder, apart if held else folder, rows, rows - held.total(), held, images, whole - images, state)


def prepare(photoset: PhotoSet, planned: Plan, publisher: Publisher, console: Console) -> Path:
    """The folder to send, made if need be, whole or not at all; the caller holds the set's lock."""
    if planned.as_it_is:
        return planned.folder
    told = json.dumps([VERSION, planned.state["made_from"], asdict(publisher), sorted(planned.held.items())])
    key = hashlib.sha256(told.encode()).hexdigest()
    if read_state(planned.folder).get("made_from") == key:
        return planned.folder
    beside = planned.folder.with_name(f"{TEMPORARY}{planned.folder.name}")
    with write_errors(planned.folder):
        shutil.rmtree(beside, ignore_errors=True)
        _write(photoset, planned, beside, key, publisher, console)
        swap(beside, planned.folder)
        record_use(photoset, dataset_use(planned.folder, key, planned.rows))
    return planned.folder


def _write(photoset: PhotoSet, planned: Plan, beside: Path, key: str, publisher: Publisher, console: Console) -> None:
    settings = ExportSettings.model_validate(planned.state["settings"])
    place = Place(beside, planned.folder, key, settings.shard_megabytes * 1_000_000, 0)
    beside.mkdir(parents=True)
    counts, shown = Counts(), Counts()
    counts.left_out.update(planned.state["left_out"])
    with ExitStack() as files:
        manifest = files.enter_context(Manifest(place))
        pixels = files.enter_context(Parquet(place)) if planned.with_pixels else None
        ids = files.enter_context((beside / PHOTO_IDS).open("w", encoding="ascii"))
        tick = files.enter_context(console.progress("publication", planned.rows, "rows"))
        for row in _rows(planned.dataset):
            manifest.add(row)
            counts.add(row)
            ids.write(f"{row['photo_id']}\n")
            if pixels is not None and not publisher.withholds(row):
                pixels.add(row)
                shown.add(row)
            tick()
    configs = configs_of("dataset", key, shown) if shown.rows else []
    configs += configs_of("manifest", key, counts, "manifest")
    inputs = inputs_of(photoset, settings, ReviewSettings(policy=planned.state["review"]))
    write_file(beside / "README.md", card(inputs, settings, counts, configs, planned.held).encode())
    state = planned.state | {"made_from": key, "with_pixels": shown.rows}
    write_file(beside / STATE, json.dumps(state, indent=1).encode())


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of a dataset, in constant memory."""
    for shard in _shards(folder):
        with pq.ParquetFile(shard) as file:
            for batch in file.iter_batches(BATCH_ROWS):
                yield from batch.to_pylist()


def _shards(folder: Path) -> list[Path]:
    return sorted((folder / "data").glob("*.parquet"))


def _sizes(metadata: Any) -> tuple[int, int]:
    """Bytes of the images in a Parquet file, and of everything."""
    sizes = Counter[bool]()
    for group in range(metadata.num_row_groups):
        for at in range(metadata.num_columns):
            column = metadata.row_group(group).column(at)
            sizes[column.path_in_schema == "image.bytes"] += column.total_compressed_size
    return sizes[True], sizes.total()
