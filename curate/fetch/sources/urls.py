"""Photos by address, from a list or a table: txt, csv, tsv, jsonl and parquet, all of them also as .gz."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from authface.curate.fetch.sources.base import PhotoItem, PhotoSource, SourceRequest, http_url, reject_premium
from authface.curate.fetch.web import Web
from authface.curate.settings import FetchSettings
from authface.errors import AuthfaceError, UsageError, first_line, one_line
from authface.records import Photo

COLUMNS = ("url", "image_url", "photo_url")
"""Columns that are taken for the address, the first that is there."""
_FIELDS = {
    "photographer": ("photographer", "author", "creator"),
    "photographer_url": ("photographer_url", "author_url"),
    "licence": ("licence", "license"),
    "page_url": ("page_url", "source_url"),
    "terms": ("terms",),
}
"""Columns that have a field of their own in a row; all others go to `extra`."""
_LONGEST = 2000
_LONGEST_FIELD = 1 << 20
"""Characters of one field of a table."""

Record = Mapping[str, Any]
"""One line of a table, by column."""


class Urls(PhotoSource):
    """The addresses of a file, in its order; a line without one is a failed row that names the line."""

    @classmethod
    def make(cls, request: SourceRequest) -> Self:
        """The list of ``--from urls FILE``. Raises UsageError."""
        path = request.path("the list, as in authface curate fetch SET --from urls list.csv")
        return cls(path, request.settings, request.web())

    def __init__(self, path: Path, settings: FetchSettings, web: Web) -> None:
        super().__init__()
        if not path.is_file():
            what = "is not a file" if path.exists() else "does not exist"
            raise UsageError(f"--from urls {one_line(path)}: {what}; give a txt, csv, tsv, jsonl or parquet file")
        self.web = web
        self._path, self._settings = path, settings
        self._column = settings.url_column

    def items(self) -> Iterator[PhotoItem]:
        """One item a line. Raises UsageError where no column holds addresses."""
        try:
            for line, record in _records(self._path):
                yield self._item(line, record)
        except (OSError, EOFError, UnicodeError) as error:
            raise AuthfaceError(f"cannot read {one_line(self._path)}: {one_line(error)}") from error

    def count(self) -> int | None:
        """Rows of a Parquet file, lines of any other that is not packed."""
        if self._path.suffix.lower() == ".gz":
            return None
        with self._path.open("rb") as file:
            if self._path.suffix.lower() != ".parquet":
                return 1 + sum(piece.count(b"\n") for piece in iter(partial(file.read, 1 << 20), b""))

            try:
                return int(pq.ParquetFile(file).metadata.num_rows)
            except pa.ArrowInvalid:
                return None  # reading it says what is wrong

    def _item(self, line: int, record: Record | str) -> PhotoItem:
        problem = record if isinstance(record, str) else ""
        values = {} if isinstance(record, str) else record
        column = _column(values, self._column, self._path) if values else ""
        url = _text(values.get(column), 8192)
        problem = problem or ("" if url else "no address in this line")
        given = {field: _first(values, names) for field, names in _FIELDS.items()}
        rest = {name: value for name, value in values.items() if name != column and name not in _TAKEN}
        photo = Photo(
            id="",
            source="urls",
            source_id=url or f"{one_line(self._path.name, 200)}:{line}",
            file="",
            file_url=url,
            photographer=given["photographer"] or self._settings.photographer,
            photographer_url=http_url(given["photographer_url"]),
            page_url=http_url(given["page_url"]),
            licence=given["licence"] or self._settings.licence,
            terms=given["terms"],
            extra=_json(rest),
            status="failed" if problem else "kept",
            reason="bad_line" if problem else "",
            detail=problem,
        )
        return PhotoItem(photo if problem else reject_premium(photo), url=url)


_TAKEN = {name for names in _FIELDS.values() for name in names}


def _column(values: Record, wanted: str, path: Path) -> str:
    """The column of the address. Raises UsageError where there is none."""
    if found := next((name for name in ((wanted,) if wanted else COLUMNS) if name in values), None):
        return found
    there = ", ".join(one_line(name, 40) for name in list(values)[:12])
    missing = f"column {one_line(wanted, 40)}" if wanted else f"column {', '.join(COLUMNS)}"
    raise UsageError(f"{one_line(path)} has no {missing}: name one with -O curate.fetch.url_column=NAME, of {there}")


def _first(values: Record, names: Sequence[str]) -> str:
    return next((text for name in names if (text := _text(values.get(name), _LONGEST))), "")


def _text(value: object, limit: int) -> str:
    return "" if value is None else one_line(str(value).strip(), limit)


def _json(values: Record) -> str:
    """The values as a JSON object in ASCII; empty if there are none."""
    filled = {str(name): value for name, value in values.items() if value not in (None, "")}
    return json.dumps(filled, default=str) if filled else ""


def _records(path: Path) -> Iterator[tuple[int, Record | str]]:
    """Number and values of every line, or what is wrong with it, read as a stream."""
    name = path.name.lower()
    packed = name.endswith(".gz")
    ending = Path(name.removesuffix(".gz")).suffix
    if ending == ".parquet":
        yield from _parquet(path, packed)
        return
    readers = {".txt": _lines, ".csv": _table, ".tsv": _table, ".jsonl": _objects, ".ndjson": _objects}
    if ending not in readers:
        raise UsageError(
            f"--from urls {one_line(path)}: no reader for {ending or 'a file without ending'}; "
            "name it .txt, .csv, .tsv, .jsonl or .parquet, each also with .gz"
        )
    opener = gzip.open if packed else open
    with opener(path, "rb") as raw, io.TextIOWrapper(raw, "utf-8-sig", "backslashreplace", newline="") as text:
        yield from readers[ending](text, "\t" if ending == ".tsv" else ",")


def _lines(text: IO[str], _: str) -> Iterator[tuple[int, Record | str]]:
    for number, line in enumerate(text, 1):
        if (url := line.strip()) and not url.startswith("#"):
            yield number, {"url": url}


def _objects(text: IO[str], _: str) -> Iterator[tuple[int, Record | str]]:
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, f"no JSON: {first_line(error, 100)}"
            continue
        yield number, value if isinstance(value, dict) and value else "no JSON object"


def _table(text: IO[str], delimiter: str) -> Iterator[tuple[int, Record | str]]:
    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.reader(text, delimiter=delimiter)
    names: list[str] = []
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            yield reader.line_num, first_line(error, 100)
            continue
        if row is None:
            return
        if not names:
            names = [name.strip() for name in row]
        elif row:
            yield reader.line_num, dict(zip(names, row, strict=False))


def _parquet(path: Path, packed: bool) -> Iterator[tuple[int, Record | str]]:
    with _unpacked(path) if packed else path.open("rb") as file:
        try:
            number = 0
            for batch in pq.ParquetFile(file).iter_batches(1000):
                for values in batch.to_pylist():
                    number += 1
                    yield number, values
        except pa.ArrowInvalid as error:
            raise AuthfaceError(f"cannot read {one_line(path)}: {one_line(error)}") from error


@contextmanager
def _unpacked(path: Path) -> Iterator[IO[bytes]]:
    """A Parquet file is read from its end, so what is packed is unpacked first, on the disk."""
    with gzip.open(path, "rb") as packed, tempfile.TemporaryFile() as file:
        while piece := packed.read(1 << 20):
            file.write(piece)
        file.seek(0)
        yield file
