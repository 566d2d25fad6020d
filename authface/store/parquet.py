"""Parquet files read so that one that is damaged, cut off or somebody else's is one line and not a traceback."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from authface.errors import AuthfaceError, first_line, one_line
from authface.files import is_local

ROWS = 1000
"""Read at a time."""


@contextmanager
def reading(path: Path, advice: str = "make it or fetch it again") -> Iterator[None]:
    """Raise what a Parquet file, or a value in it, is refused for while the block runs as an AuthfaceError.

    Of values: text that is no UTF-8, times out of range, types that are not what was asked for.
    """
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, OverflowError, ArithmeticError, pa.ArrowException) as error:
        raise AuthfaceError(
            f"{one_line(path)} cannot be read as Parquet: {first_line(error, 120)}; {advice}"
        ) from error


def column_names(path: Path) -> list[str]:
    """Its columns. Raises AuthfaceError where it cannot be read."""
    with reading(path):
        return list(pq.read_schema(source_of(path)).names)


def row_count(path: Path) -> int:
    """Its rows. Raises AuthfaceError where it cannot be read."""
    with reading(path):
        return int(pq.read_metadata(source_of(path)).num_rows)


def read_batches(path: Path, names: Sequence[str] | None = None, rows: int = ROWS) -> Iterator[pa.RecordBatch]:
    """Its rows, `rows` at a time; of `names` the columns that are there. Raises AuthfaceError as `reading`."""
    with reading(path), pq.ParquetFile(source_of(path)) as file:
        there = file.schema_arrow.names
        for batch in file.iter_batches(rows, columns=names and [name for name in names if name in there]):
            batch.validate(full=True)  # of text, that it is UTF-8
            yield batch


def read_rows(path: Path, names: Sequence[str] | None = None, rows: int = ROWS) -> Iterator[dict[str, Any]]:
    """Its rows as plain values. Raises AuthfaceError as `reading`."""
    for batch in read_batches(path, names, rows):
        with reading(path):
            values = batch.to_pylist()
        yield from values


def read_text(path: Path, names: Sequence[str]) -> Iterator[dict[str, str]]:
    """Some columns, each value as text, empty where there is none. Raises AuthfaceError where one is missing."""
    for batch in read_batches(path, names):
        with reading(path):
            columns = [batch.column(name).cast(pa.string()).to_pylist() for name in names]
        for values in zip(*columns, strict=True):
            yield {name: value or "" for name, value in zip(names, values, strict=True)}


def source_of(path: Path) -> Any:
    """What pyarrow reads a file from: a local path, or the bytes of an object."""
    return path if is_local(path) else io.BytesIO(path.read_bytes())
