"""Photos by address, from a list or a table: txt, csv, tsv, jsonl and parquet, all of them also as .gz."""

from __future__ import annotations

import gzip
import json
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Self, cast

import pyarrow as pa
import pyarrow.parquet as pq

from authface.curate.fetch.sources import PhotoItem, PhotoSource, SourceRequest, http_url, reject_premium
from authface.curate.fetch.sources.tables import (
    ADDRESS,
    NO_TEXT,
    UNREADABLE,
    BadRow,
    Row,
    as_record,
    clean,
    columns_of,
    encoding_of,
    lines_of,
    name_of_line,
    read_rows,
    row_start,
    unique_names,
    uses_quotes,
)
from authface.curate.fetch.web import Web
from authface.curate.settings import FetchSettings
from authface.errors import AuthfaceError, UsageError, first_line, one_line
from authface.files import room_for_large
from authface.records import Photo

_UNREADABLE = (OSError, EOFError, zlib.error, pa.ArrowException)
_LONGEST = 2000
_LONGEST_ADDRESS = 8192
_LOOK_AHEAD = 1000
"""Rows among which one has to have a column of addresses."""

Record = Mapping[str, Any]
"""One row of a list, by column."""
Numbered = tuple[int, Record | BadRow]
"""A row and its line, from 1."""


class Urls(PhotoSource):
    """The addresses of a file, in its order; a line without one is a failed row that names the line."""

    reads_pages = True
    repeats = "addresses that the list names again"

    @classmethod
    def make(cls, request: SourceRequest) -> Self:
        """The list of ``--from urls FILE``. Raises UsageError."""
        path = request.path("the list, as in authface curate fetch SET --from urls list.csv")
        return cls(path, request.settings, request.web(), request.say)

    def __init__(
        self, path: Path, settings: FetchSettings, web: Web, say: Callable[[str], None] = lambda text: None
    ) -> None:
        super().__init__()
        if not path.is_file():
            what = "is not a file" if path.exists() else "does not exist"
            raise UsageError(f"--from urls {one_line(path)}: {what}; give a txt, csv, tsv, jsonl or parquet file")
        self.web = web
        self._path, self._settings, self._say = path, settings, say
        self._column = settings.url_column
        self._silent = "licence" not in settings.model_fields_set

    def items(self) -> Iterator[PhotoItem]:
        """One item a row. Raises UsageError where no column holds addresses."""
        try:
            for line, record in self._peeked(self._judged(self._records())):
                yield self._item(line, record)
        except _UNREADABLE as error:
            raise AuthfaceError(f"cannot read {one_line(self._path)}: {first_line(error, 300)}") from error

    def count(self) -> int | None:
        """Rows of a Parquet file, lines of any other that is not packed."""
        if self._path.suffix.lower() == ".gz":
            return None
        with self._path.open("rb") as file:
            if self._path.suffix.lower() != ".parquet":
                return 1 + sum(piece.count(b"\n") for piece in iter(partial(file.read, 1 << 20), b""))

            try:
                return int(pq.ParquetFile(file).metadata.num_rows)
            except (OSError, pa.ArrowException):
                return None  # reading it says what is wrong

    def _judged(self, records: Iterator[Numbered]) -> Iterator[Numbered]:
        """The rows, once one of the first has a column of addresses. Raises UsageError if none has."""
        first: list[Numbered] = []
        for numbered in islice(records, _LOOK_AHEAD):
            first.append(numbered)
            if not isinstance(numbered[1], BadRow) and columns_of(tuple(numbered[1]), self._column).address:
                return chain(first, records)
        if named := [tuple(record) for _, record in first if not isinstance(record, BadRow)]:
            raise self._no_column(named[0])
        return chain(first, records)

    def _peeked(self, records: Iterator[Numbered]) -> Iterator[Numbered]:
        """The rows, once the first were looked at for a column of licences; what ends them ends them in its place."""
        first: list[Numbered] = []
        broken = None
        try:
            first.extend(islice(records, _LOOK_AHEAD))
        except _UNREADABLE as error:
            broken = error
        named = {tuple(record) for _, record in first if not isinstance(record, BadRow)}
        self._silent &= not any(columns_of(names, self._column).fields["licence"] for names in named)
        yield from first
        if broken:
            raise broken
        yield from records

    def _no_column(self, names: Sequence[str]) -> UsageError:
        there = ", ".join(one_line(name, 40) for name in names[:12])
        missing = f"column {one_line(self._column, 40)}" if self._column else f"column {', '.join(ADDRESS)}"
        return UsageError(
            f"{one_line(self._path)} has no {missing}: name one with -O curate.fetch.url_column=NAME, of {there}"
        )

    def _item(self, line: int, record: Record | BadRow) -> PhotoItem:
        try:
            return self._read(line, record)
        except RecursionError:
            return self._read(line, BadRow("a value that is nested too deep", " ".join(map(str, cast(Record, record)))))

    def _read(self, line: int, record: Record | BadRow) -> PhotoItem:
        values: Record = {} if isinstance(record, BadRow) else record
        columns = columns_of(tuple(values), self._column)
        url = one_line(_plain(values.get(columns.address)).strip(), _LONGEST_ADDRESS + 1)
        problem = record.detail if isinstance(record, BadRow) else "" if url else "no address in this line"
        if len(url) > _LONGEST_ADDRESS:
            problem, url = f"an address of over {_LONGEST_ADDRESS:,} characters", ""
        text = record.text if isinstance(record, BadRow) else "" if url else _json(record)
        used = {columns.address}
        given = {field: self._first(values, names, field, used) for field, names in columns.fields.items()}
        photo = Photo(
            id="",
            source="urls",
            source_id=url or name_of_line(self._path.name, line, text),
            file="",
            file_url=url,
            photographer=given["photographer"] or self._settings.photographer,
            photographer_url=given["photographer_url"],
            page_url=given["page_url"],
            licence=given["licence"] or self._settings.licence,
            terms=given["terms"],
            extra=_json({name: value for name, value in values.items() if name not in used}),
            status="failed" if problem else "kept",
            reason="bad_line" if problem else "",
            detail=f"line {line}: {one_line(problem)}" if problem else "",
        )
        self._silent &= not columns.fields["licence"]
        return PhotoItem(photo if problem else reject_premium(photo), url=url, silent=self._silent)

    def _first(self, values: Record, names: Sequence[str], field: str, used: set[str]) -> str:
        """The text of the best column for a field; of an address on the web, the best that is one."""
        for name in names:
            text = clean(_plain(values.get(name)), _LONGEST)
            if field.endswith("_url"):
                text = http_url(text)
            if text:
                used.add(name)
                return text
        return ""

    def _records(self) -> Iterator[Numbered]:
        """Line and values of every row, or what is wrong with it, read as a stream."""
        name = self._path.name.lower()
        packed = name.endswith(".gz")
        ending = Path(name.removesuffix(".gz")).suffix
        if ending == ".parquet":
            yield from _parquet(self._path, packed)
            return
        readers = {
            ".txt": _addresses,
            ".csv": self._table,
            ".tsv": self._table,
            ".jsonl": _objects,
            ".ndjson": _objects,
        }
        if ending not in readers:
            raise UsageError(
                f"--from urls {one_line(self._path)}: no reader for {ending or 'a file without ending'}; "
                "name it .txt, .csv, .tsv, .jsonl or .parquet, each also with .gz"
            )
        opened = partial(_raw, self._path, packed)
        with opened() as raw:
            encoding = encoding_of(raw)
        if encoding.guessed:
            self._say(
                f"fetch: {one_line(self._path)} is no UTF-8 and is read as Windows-1252 (Latin-1); "
                "if names look wrong, save it as UTF-8"
            )
        yield from readers[ending](partial(lines_of, opened, encoding.name))

    def _table(self, opened: _OpensLines) -> Iterator[Numbered]:
        """The rows of a table below its line of names. Raises UsageError where none of them is that of the address."""
        signs = "\t" if ".tsv" in self._path.name.lower()[-7:] else ",;\t"
        heads = {sign: _head(opened, sign) for sign in signs}
        known = (sign for sign, head in heads.items() if head and self._address(head))
        delimiter = next(known, signs[0])
        if (head := heads[delimiter]) is None:
            return
        if head.problem:
            raise UsageError(f"{one_line(self._path)}, line {head.line}, the names of the columns: {head.problem}")
        names = unique_names(head.fields)
        if not (address := self._address(head)):
            raise self._no_column(names)
        starts_row = row_start(delimiter, len(names), names.index(address))
        quoting = delimiter != "\t"
        if not quoting:
            with opened() as lines:
                quoting = uses_quotes(lines, delimiter, starts_row)
        with opened() as lines:
            for row in islice(read_rows(lines, delimiter, starts_row, quoting=quoting), 1, None):
                yield row.line, as_record(row, names)

    def _address(self, head: Row) -> str:
        return columns_of(tuple(unique_names(head.fields)), self._column).address


_OpensLines = Callable[[], AbstractContextManager[Iterator[str]]]
"""Opens the lines of a list."""


def _raw(path: Path, packed: bool) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if packed else path.open("rb")


def _head(opened: _OpensLines, delimiter: str) -> Row | None:
    with opened() as lines:
        return next(read_rows(lines, delimiter, lambda line: "://" in line), None)


def _plain(value: object) -> str:
    """A value as text: of a list its parts, of an object its name."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(_plain, value)))
    if isinstance(value, Mapping):
        return _plain(value.get("name") or value.get("url") or "")
    return str(value)


def _json(values: Record) -> str:
    """The values as a JSON object in ASCII; empty if there are none."""
    filled = {str(name): value for name, value in values.items() if value not in (None, "")}
    return json.dumps(filled, default=_told) if filled else ""


def _told(value: object) -> str:
    """What JSON has no form for; of bytes that are no text, such as a picture, how many there are."""
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode()
    except UnicodeError:
        return f"{len(value):,} bytes"


def _addresses(opened: _OpensLines) -> Iterator[Numbered]:
    with opened() as lines:
        for number, line in enumerate(lines, 1):
            if (url := line.strip()) and not url.startswith("#"):
                yield number, BadRow(NO_TEXT, url) if UNREADABLE in url else {"url": url}


def _objects(opened: _OpensLines) -> Iterator[Numbered]:
    with opened() as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, _object(line)


def _object(line: str) -> Record | BadRow:
    if UNREADABLE in line:
        return BadRow(NO_TEXT, line)
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return BadRow(f"no JSON: {first_line(error, 100)}", line)
    return value if isinstance(value, dict) and value else BadRow("no JSON object", line)


def _parquet(path: Path, packed: bool) -> Iterator[Numbered]:
    with _unpacked(path) if packed else path.open("rb") as file:
        number = 0
        for batch in pq.ParquetFile(file).iter_batches(1000):
            named = batch.rename_columns(unique_names(batch.schema.names))
            try:
                rows: list[Record | BadRow] = list(named.to_pylist())
            except _BAD_VALUE:
                rows = [_values(named, at) for at in range(named.num_rows)]
            yield from enumerate(rows, number + 1)
            number += len(rows)


_BAD_VALUE = (ValueError, OverflowError, ArithmeticError, pa.ArrowException)
"""What pyarrow raises for text that is none and for times out of range."""


def _values(batch: pa.RecordBatch, at: int) -> Record | BadRow:
    """One row of a Parquet file whose batch holds a value that cannot be read."""
    try:
        return {name: column[at].as_py() for name, column in zip(batch.schema.names, batch.columns, strict=True)}
    except _BAD_VALUE as error:
        return BadRow(f"a value that cannot be read: {first_line(error, 100)}", str(at))


@contextmanager
def _unpacked(path: Path) -> Iterator[IO[bytes]]:
    """A Parquet file is read from its end, so what is packed is unpacked first, on the disk."""
    with gzip.open(path, "rb") as packed, tempfile.TemporaryFile(dir=room_for_large()) as file:
        while piece := packed.read(1 << 20):
            file.write(piece)
        file.seek(0)
        yield file
