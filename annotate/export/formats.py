"""The formats an export is written in. Each is a folder; a row goes where its split says, or to `train`.

All of them write in constant memory.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from abc import ABC, abstractmethod
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from authface.annotate.export import rows as dataset
from authface.annotate.export.rows import Feature, schema_of, value
from authface.imaging import decode as images
from authface.store.photoset import PhotoSet

SHARD_KEY = 16
"""Digits of the content's digest in the shards' names and in the card's pattern of them. `datasets` keys its cache by
the card's patterns alone: without it, any two folders of one name would open as the one that came first."""
GROUP_ROWS = 100
"""Rows with pixels of a Parquet row group at most, the unit that readers fetch."""
MANIFEST_GROUP_ROWS = 2000
"""Rows without pixels. What a file says at its end of a group stays in memory while it is written: some 0.3 MB each."""
HELD_ROWS = 100
"""Rows held as Python objects; those behind them in a group are packed in Arrow's columns."""
GROUP_BYTES = 16_000_000
"""Bytes of a row group at most, but for a single larger row."""
DEFAULT_SPLIT = "train"
"""Split of rows that have none."""
BLOCK = 512
"""A .tar file is padded to it."""


@dataclass(frozen=True)
class ExportTarget:
    """Where, of what and how a format is written."""

    photoset: PhotoSet
    folder: Path
    """Where it is written now, an empty folder; it takes its place when it is whole."""
    final: Path
    """Where it will be."""
    key: str
    """Digest of the content."""
    shard_bytes: int
    size: int
    """Side of a crop, pixels."""


class Format(ABC):
    """Takes rows one by one, inside a `with`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def add(self, row: dict[str, Any]) -> None:
        """Write one more row, as `authface.annotate.export.rows.features` has it."""

    @abstractmethod
    def close(self) -> None:
        """Close what is open."""


class Shards:
    """Rows into ``<folder>/<split>-<key>-00000.parquet`` and on: each file of at most `limit` bytes, in groups of at
    most `group` rows."""

    def __init__(self, folder: Path, schema: pa.Schema, key: str, limit: int, group: int) -> None:
        folder.mkdir(parents=True)
        self._folder, self._schema, self._key = folder, schema, key[:SHARD_KEY]
        self._limit, self._group = limit, group
        self._open: dict[str, _Shard] = {}

    def close(self) -> None:
        """Close the files."""
        for shard in self._open.values():
            shard.close()

    def add(self, row: dict[str, Any], size: int) -> None:
        """One more row of the split that its column `split` names; `size` is at least what it takes in bytes."""
        split = row["split"] or DEFAULT_SPLIT
        shard = self._open.get(split)
        if shard is None or shard.written + size > self._limit:
            number = 0
            if shard is not None:
                shard.close()
                number = shard.number + 1
            path = self._folder / f"{split}-{self._key}-{number:05d}.parquet"
            shard = self._open[split] = _Shard(path, self._schema, self._group, number)
        shard.add(row, size)


class _Shard:
    """One file that is being written."""

    def __init__(self, path: Path, schema: pa.Schema, group: int, number: int) -> None:
        self.number = number
        self.written = 0
        """Bytes at most."""
        self._schema, self._most = schema, group
        self._writer = _writer(path, schema)
        self._rows: list[dict[str, Any]] = []
        self._packed: list[pa.Table] = []
        self._count, self._held = 0, 0

    def add(self, row: dict[str, Any], size: int) -> None:
        if self._count and (self._count == self._most or self._held + size > GROUP_BYTES):
            self._flush()
        self._rows.append(row)
        self._count += 1
        self._held += size
        self.written += size
        if len(self._rows) == HELD_ROWS:
            self._pack()

    def close(self) -> None:
        try:
            self._flush()
        finally:
            self._writer.close()

    def _pack(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            self._packed.append(pa.Table.from_pylist(rows, schema=self._schema))

    def _flush(self) -> None:
        self._pack()
        packed, self._packed, self._count, self._held = self._packed, [], 0, 0
        if packed:
            self._writer.write_table(pa.concat_tables(packed))


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer that packs all but PNG, which is packed already, and whose index lets readers fetch single pages."""
    image = "image.bytes"
    words = [name for name in _leaves(schema) if name != image]
    packed = dict.fromkeys(words, "zstd") | ({image: "none"} if "image" in schema.names else {})
    return pq.ParquetWriter(path, schema, compression=packed, use_dictionary=words, write_page_index=True)


def _leaves(schema: pa.Schema) -> list[str]:
    """Paths of the columns of a Parquet file of that schema."""
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    columns = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    return [columns.column(at).path for at in range(len(columns))]


class DatasetFormat(Format):
    """``data/<split>-<key>-00000.parquet`` with the images inside."""

    FOLDER = "data"
    GROUP = GROUP_ROWS

    def __init__(self, target: ExportTarget) -> None:
        schema = schema_of(self.features())
        self._shards = Shards(target.folder / self.FOLDER, schema, target.key, target.shard_bytes, self.GROUP)

    def close(self) -> None:
        """Close what is open."""
        self._shards.close()

    @staticmethod
    def features() -> Feature:
        """The typed columns."""
        return dataset.features()

    def add(self, row: dict[str, Any]) -> None:
        """Write one more row."""
        self._shards.add(row, len(row["image"]["bytes"]) + len(json.dumps(without_pixels(row))))


class ManifestFormat(DatasetFormat):
    """``manifest/<split>-<key>-00000.parquet``: all but the pixels, of which it keeps the digest."""

    FOLDER = "manifest"
    GROUP = MANIFEST_GROUP_ROWS

    @staticmethod
    def features() -> Feature:
        """The typed columns."""
        return manifest_features()

    def add(self, row: dict[str, Any]) -> None:
        """Write one more row."""
        entry = without_pixels(row) | {"pixels_sha256": pixels_sha256(images.decode(row["image"]["bytes"]).rgb)}
        self._shards.add(entry, len(json.dumps(entry)))


def manifest_features() -> Feature:
    """The columns of a dataset without its images, and sha256 of a crop's pixels."""
    return without_pixels(dataset.features()) | {"pixels_sha256": value("string")}


def pixels_sha256(rgb: Any) -> str:
    """sha256 in hex of (h, w, 3) uint8 pixels, row by row, whatever file they come from."""
    return hashlib.sha256(rgb.tobytes()).hexdigest()


def without_pixels(row: dict[str, Any]) -> dict[str, Any]:
    """All of a row but its image."""
    return {name: value for name, value in row.items() if name != "image"}


class ImageFolderFormat(Format):
    """``<split>/<id>.png`` and ``<split>/metadata.jsonl``, as `datasets` reads an image folder."""

    def __init__(self, target: ExportTarget) -> None:
        self._folder = target.folder
        self._tables: dict[str, IO[str]] = {}
        self._files = ExitStack()

    def close(self) -> None:
        """Close what is open."""
        self._files.close()

    def add(self, row: dict[str, Any]) -> None:
        """Write one more row."""
        split = row["split"] or DEFAULT_SPLIT
        folder, name = self._folder / split, f"{row['id']}.png"
        if split not in self._tables:
            folder.mkdir(parents=True)
            table = (folder / "metadata.jsonl").open("w", encoding="utf-8", newline="\n")
            self._tables[split] = self._files.enter_context(table)
        (folder / name).write_bytes(row["image"]["bytes"])
        self._tables[split].write(json.dumps({"file_name": name} | without_pixels(row)) + "\n")


class WebDatasetFormat(Format):
    """``<split>-00000.tar`` and on: of each row a .png, its prompt as .txt and all else as .json, side by side.

    What `datasets` guesses by the first rows, such as that a column without a value has none, the card tells.
    """

    def __init__(self, target: ExportTarget) -> None:
        self._folder, self._limit = target.folder, target.shard_bytes
        self._open: dict[str, tuple[int, tarfile.TarFile]] = {}

    def close(self) -> None:
        """Close what is open."""
        for _number, shard in self._open.values():
            shard.close()

    def add(self, row: dict[str, Any]) -> None:
        """Write one more row."""
        text = json.dumps(without_pixels(row))
        parts = {"png": row["image"]["bytes"], "txt": row["prompt"].encode(), "json": text.encode()}
        shard = self._shard(row["split"] or DEFAULT_SPLIT, sum(len(data) + 2 * BLOCK for data in parts.values()))
        for ending, data in parts.items():
            member = tarfile.TarInfo(f"{row['id']}.{ending}")
            member.size, member.mode = len(data), 0o644
            shard.addfile(member, io.BytesIO(data))

    @staticmethod
    def features() -> Feature:
        """The columns that `datasets` makes of the files of a row."""
        whole = dataset.features()
        names = {name: value("string") for name in ("__key__", "__url__")}
        return {"png": whole["image"], "txt": whole["prompt"], "json": without_pixels(whole), **names}

    def _shard(self, split: str, size: int) -> tarfile.TarFile:
        number, shard = self._open.get(split, (-1, None))
        if shard is None or shard.offset + size > self._limit:
            if shard is not None:
                shard.close()
            number += 1
            shard = tarfile.open(self._folder / f"{split}-{number:05d}.tar", "w")  # noqa: SIM115  closed in __exit__
            self._open[split] = (number, shard)
        return shard
