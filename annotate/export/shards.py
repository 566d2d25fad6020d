"""Parquet files of bounded size, by split, in constant memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

SHARD_KEY = 16
"""Digits of the content's digest in the shards' names and in the card's pattern of them. `datasets` keys its cache by
the card's patterns alone: without it, any two folders of one name would open as the one that came first."""
GROUP_ROWS = 100
"""Rows of a Parquet row group at most, the unit that is held in memory and that readers fetch."""
GROUP_BYTES = 16_000_000
"""Bytes of a row group at most, but for a single larger row."""
WHOLE = "train"
"""Split of rows that have none."""


class Shards:
    """Rows into ``<folder>/<split>-<key>-00000.parquet`` and on, each file of at most `limit` bytes."""

    def __init__(self, folder: Path, schema: pa.Schema, key: str, limit: int) -> None:
        folder.mkdir(parents=True)
        self._folder, self._schema, self._key, self._limit = folder, schema, key[:SHARD_KEY], limit
        self._open: dict[str, _Shard] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for shard in self._open.values():
            shard.close()

    def add(self, row: dict[str, Any], size: int) -> None:
        """One more row of the split that its column `split` names; `size` is at least what it takes in bytes."""
        split = row["split"] or WHOLE
        shard = self._open.get(split)
        if shard is None or shard.written + size > self._limit:
            number = 0
            if shard is not None:
                shard.close()
                number = shard.number + 1
            path = self._folder / f"{split}-{self._key}-{number:05d}.parquet"
            shard = self._open[split] = _Shard(path, self._schema, number)
        shard.add(row, size)


class _Shard:
    """One file that is being written."""

    def __init__(self, path: Path, schema: pa.Schema, number: int) -> None:
        self.number = number
        self.written = 0
        """Bytes at most."""
        self._schema = schema
        self._writer = _writer(path, schema)
        self._group: list[dict[str, Any]] = []
        self._held = 0

    def add(self, row: dict[str, Any], size: int) -> None:
        if self._group and (len(self._group) == GROUP_ROWS or self._held + size > GROUP_BYTES):
            self._flush()
        self._group.append(row)
        self._held += size
        self.written += size

    def close(self) -> None:
        try:
            self._flush()
        finally:
            self._writer.close()

    def _flush(self) -> None:
        group, self._group, self._held = self._group, [], 0
        if group:
            self._writer.write_table(pa.Table.from_pylist(group, schema=self._schema))


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
