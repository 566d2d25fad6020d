"""Rows on disk: as columns of a Parquet file and back, in a file of SQLite, and sorted in a temporary one.

A damaged or foreign Parquet file is a line and no traceback. What a command sorts of a set does not grow in memory.
"""

from __future__ import annotations

import io
import operator
import sqlite3
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args, get_origin

import pyarrow as pa
import pyarrow.parquet as pq

from authface.errors import AuthfaceError, first_line, one_line
from authface.files import is_local

ROWS = 1000
"""Read at a time."""

_TAIL_BYTES = 32_768
"""Bytes fetched from the end of an object for its metadata, which takes 5 to 10 kB."""


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


T = TypeVar("T")


def arrow_schema(row_type: Any) -> pa.Schema:
    """The Parquet columns of a record type."""
    return _schema_of(row_type)


@cache
def _schema_of(row_type: Any) -> pa.Schema:
    hints = typing.get_type_hints(row_type)
    return pa.schema([pa.field(f.name, _arrow_type(hints[f.name])) for f in fields(row_type)])


def _arrow_type(hint: Any) -> pa.DataType:
    plain = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    if hint in plain:
        return plain[hint]
    if get_origin(hint) is Literal:
        return pa.string()
    if get_origin(hint) in {types.UnionType, typing.Union}:
        return _arrow_type(next(arm for arm in get_args(hint) if arm is not type(None)))
    if get_origin(hint) is tuple:
        return pa.list_(_arrow_type(get_args(hint)[0]))
    if is_dataclass(hint) and isinstance(hint, type):
        return pa.struct(list(arrow_schema(hint)))
    raise TypeError(f"no column type for {hint}")


def with_defaults(rows: pa.Table, row_type: type[Any], names: Sequence[str]) -> pa.Table:
    """The table with missing columns of `names` added, filled with the default of `row_type`: null for measures.

    Tables written by an earlier version lack fields that were added later. A column that `row_type` does not have is
    not added, nor one whose field has no default. Raises ArrowException where a column is of another type.
    """
    schema = arrow_schema(row_type)
    for one in fields(row_type):
        column = schema.field(one.name)
        if one.name in rows.column_names:
            if rows.schema.field(one.name).type != column.type:
                at = rows.column_names.index(one.name)
                rows = rows.set_column(at, column, rows.column(at).cast(column.type))
        elif one.name in names and one.default is not MISSING:
            rows = rows.append_column(column, pa.array([one.default] * rows.num_rows, column.type))
    return rows


def plain(row: Any) -> dict[str, Any]:
    """The record as plain values: the result of `dataclasses.asdict`, ten times as fast."""
    kind: Any = type(row)
    return _writer_of(kind)(row)


@cache
def _writer_of(row_type: type[Any]) -> Callable[[Any], dict[str, Any]]:
    hints = typing.get_type_hints(row_type)
    names = [f.name for f in fields(row_type)]
    nested = {name: write for name in names if (write := _writer(hints[name]))}
    if len(names) < 2:  # attrgetter of one name gives no tuple
        return lambda row: {name: getattr(row, name) for name in names}
    values = operator.attrgetter(*names)

    def write_row(row: Any) -> dict[str, Any]:
        made = dict(zip(names, values(row), strict=True))
        for name, write in nested.items():
            if made[name] is not None:
                made[name] = write(made[name])
        return made

    return write_row


def _writer(hint: Any) -> Callable[[Any], Any] | None:
    """The converter of values of that type to plain ones; None if they are plain already."""
    if get_origin(hint) in {types.UnionType, typing.Union}:
        return _writer(next(arm for arm in get_args(hint) if arm is not type(None)))
    if get_origin(hint) is tuple and (item := _writer(get_args(hint)[0])):
        return lambda value: tuple(item(entry) for entry in value)
    return plain if is_dataclass(hint) else None


def row_reader(row_type: type[T]) -> Callable[[dict[str, Any]], T]:
    """A function from a row of plain values, as Parquet gives it, to a record."""
    kind: Any = row_type
    return _record_reader(kind)


@cache
def _record_reader(row_type: Any) -> Callable[[dict[str, Any]], Any]:
    """A column that a table of an earlier version lacks takes the field's default; one that is no field is left out."""
    hints = typing.get_type_hints(row_type)
    names = {f.name for f in fields(row_type)}
    converted = {name: read for name in names if (read := _reader(hints[name]))}

    def read_row(values: dict[str, Any]) -> Any:
        every = values.keys() == names
        made = dict(values) if every else {name: values[name] for name in names & values.keys()}
        for name, read in converted.items():
            if name in made:
                made[name] = read(made[name])
        return row_type(**made)

    return read_row


def _reader(hint: Any) -> Callable[[Any], Any] | None:
    """The converter of plain values to those of that type; None if they are that already."""
    if get_origin(hint) in {types.UnionType, typing.Union}:
        inner = _reader(next(arm for arm in get_args(hint) if arm is not type(None)))
        return inner and (lambda value: None if value is None else inner(value))
    if get_origin(hint) is tuple:
        item = _reader(get_args(hint)[0])
        return (lambda value: tuple(map(item, value))) if item else tuple
    record: Any = hint
    return _record_reader(record) if is_dataclass(hint) else None


def footer_of(path: Any) -> Any:
    """The source from which pyarrow reads a part's metadata; of an object only the end is fetched."""
    if is_local(path):
        return path
    tail = path.fs.cat_file(path.path, start=-_TAIL_BYTES)
    length = int.from_bytes(tail[-8:-4], "little") + 8  # Parquet ends with its footer's length and four letters
    return io.BytesIO(tail) if length <= len(tail) else source_of(path)


class SqliteFile:
    """A file of SQLite, open until the end of a ``with``; what SQLite says is an AuthfaceError of one line.

    `name` and `advice` stand in that line. An empty path is a temporary file.
    """

    def __init__(self, path: Path | str, name: str, advice: str) -> None:
        self._name, self._advice = name, advice
        with self._told():
            self._base = sqlite3.connect(path, timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._base.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Raise what SQLite says while the block runs as an AuthfaceError."""
        try:
            yield
        except sqlite3.Error as error:
            raise AuthfaceError(f"{self._name} cannot be used: {first_line(error, 100)}; {self._advice}") from error


class SortedRows(SqliteFile):
    """Rows of text, bytes and numbers in a temporary file of SQLite, in order; to be used with ``with``.

    `order` is what SQL sorts by; of rows that are equal in it the first comes first. Text sorts by its UTF-8, what is
    not a number before all numbers. Queries call the table ``sorted``; its ``rowid`` counts the rows from 1, in order.
    Raises AuthfaceError where there is no room for the file.
    """

    def __init__(self, names: Sequence[str], rows: Iterable[Sequence[Any]], order: str) -> None:
        advice = "free space on the disk of temporary files, or name another in SQLITE_TMPDIR, and run again"
        super().__init__("", "the temporary file to sort rows in", advice)
        with ExitStack() as stack, self._told():
            stack.push(self)
            self._base.execute(f"create table found ({', '.join(names)})")
            self._base.executemany(f"insert into found values ({', '.join('?' * len(names))})", rows)
            self._base.execute(f"create table sorted as select * from found order by {order}, rowid")
            self._base.execute("drop table found")
            self._base.commit()
            stack.pop_all()  # it stays open

    def select(self, asked: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """What ``select ASKED`` finds, row by row; `values` stand where it says ``?``."""
        with self._told():
            yield from self._base.execute(f"select {asked}", values)
