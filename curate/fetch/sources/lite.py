"""The Unsplash Dataset from its own files: photos.tsv and keywords.tsv, in parts, in a folder or a zip.

Photos are chosen by keyword, size and camera data before a byte is downloaded. Both tables are read as streams.
Columns: DOCS.md of github.com/unsplash/datasets.
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import IO, Self

from authface.curate.fetch.sources import (
    PhotoItem,
    PhotoSource,
    SourceRequest,
    http_url,
    parse_positive,
    reject_premium,
    reject_small,
)
from authface.curate.fetch.sources.tables import (
    BadRow,
    Row,
    as_record,
    clean,
    lines_of,
    name_of_line,
    read_rows,
    row_start,
    unique_names,
)
from authface.curate.fetch.web import Web
from authface.curate.settings import FetchSettings
from authface.errors import AuthfaceError, UsageError, one_line
from authface.records import Camera, Photo
from authface.store.numbers import NumberSet, text_number

LICENCE = "Unsplash Dataset Lite: internal commercial or non-commercial use, no redistribution"
TERMS = "TERMS.md of github.com/unsplash/datasets"
_PREVIEW = "w=640&q=80&fm=jpg"
_EXTRA = ("photo_description", "ai_description", "photo_submitted_at", "photo_featured", "photo_location_country")


@dataclass(frozen=True)
class _File:
    name: str
    changed: str
    open: Callable[[], IO[bytes]]


class Lite(PhotoSource):
    """The photos of the data set that carry one of the keywords; those too small or too noisy are rejected rows."""

    @classmethod
    def make(cls, request: SourceRequest) -> Self:
        """The data set of ``--from unsplash-lite PATH``. Raises UsageError."""
        path = request.path("the data set, as in authface curate fetch SET --from unsplash-lite unsplash-lite.zip")
        return cls(path, request.settings, request.web())

    def __init__(self, path: Path, settings: FetchSettings, web: Web) -> None:
        super().__init__()
        if not path.exists():
            raise UsageError(
                f"--from unsplash-lite {one_line(path)}: does not exist; give the data set's folder or zip"
            )
        self.web = web
        self._path, self._settings = path, settings
        with self._tables() as tables:
            if not tables("photos"):
                raise UsageError(f"--from unsplash-lite {one_line(path)}: no photos.tsv in it")
            if settings.lite.keywords and not tables("keywords"):
                raise UsageError(
                    f"--from unsplash-lite {one_line(path)}: no keywords.tsv to choose by; "
                    "-O curate.fetch.lite.keywords=[] takes all photos"
                )

    def items(self) -> Iterator[PhotoItem]:
        """One item a chosen photo. Raises AuthfaceError where the files cannot be read."""
        try:
            with self._tables() as tables:
                chosen = self._by_keyword(tables("keywords")) if self._settings.lite.keywords else {}
                for line in _lines(tables("photos")):
                    found = tuple(word for word, photos in chosen.items() if text_number(line.photo_id) in photos)
                    if found or not self._settings.lite.keywords:
                        yield self._item(line, found)
                    else:
                        self.ignored["without one of the keywords"] += 1
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError) as error:
            raise AuthfaceError(f"cannot read {one_line(self._path)}: {one_line(error)}") from error

    def _by_keyword(self, files: list[_File]) -> dict[str, NumberSet]:
        """Ids of the photos that have a keyword, sure enough, by keyword."""
        chosen = {word.strip().lower(): NumberSet() for word in self._settings.lite.keywords}
        least = self._settings.lite.min_confidence
        for line in _lines(files):
            record = line.record
            if isinstance(record, BadRow):
                self.ignored["lines of the keywords that cannot be read"] += 1
            elif (word := record.get("keyword", "").strip().lower()) in chosen and _confidence(record) >= least:
                chosen[word].add(text_number(record.get("photo_id", "")))
        return chosen

    def _item(self, line: _Line, keywords: tuple[str, ...]) -> PhotoItem:
        record: Mapping[str, str] = {} if isinstance(line.record, BadRow) else line.record
        url = one_line(record.get("photo_image_url", "").strip(), 2000)
        names = (record.get("photographer_first_name", ""), record.get("photographer_last_name", ""))
        user = record.get("photographer_username", "")
        photo = Photo(
            id="",
            source="unsplash-lite",
            source_id=one_line(record.get("photo_id", ""), 100) or line.name,
            file="",
            file_url=url,
            page_url=http_url(one_line(record.get("photo_url", "").strip(), 2000)),
            photographer=clean(" ".join(names), 200) or clean(user, 200),
            photographer_url=f"https://unsplash.com/@{user}" if re.fullmatch(r"[\w.-]+", user, re.ASCII) else "",
            licence=LICENCE,
            terms=TERMS,
            as_of=line.file.changed,
            width=_whole(record.get("photo_width", "")),
            height=_whole(record.get("photo_height", "")),
            camera=_camera(record),
            queries=keywords,
            extra=_extra(record),
        )
        if problem := line.problem:
            photo = replace(photo, status="failed", reason="bad_line", detail=f"{line.place}: {problem}")
        photo = self._judged(reject_small(reject_premium(photo), self._settings))
        return PhotoItem(photo, url=url, preview=f"{url}{'&' if '?' in url else '?'}{_PREVIEW}" if url else "")

    def _judged(self, photo: Photo) -> Photo:
        """The row, rejected where the camera data speak against it."""
        wants, camera = self._settings.lite, photo.camera or Camera()
        for reason, value, limit, bad in (
            ("iso", camera.iso, wants.max_iso, (camera.iso or 0) > wants.max_iso > 0),
            ("aperture", camera.aperture, wants.min_aperture, (camera.aperture or 1e9) < wants.min_aperture),
            ("aperture", camera.aperture, wants.max_aperture, (camera.aperture or 0) > wants.max_aperture > 0),
        ):
            if photo.status == "kept" and bad:
                photo = replace(photo, status="rejected", reason=reason, value=value, limit=limit)
        return photo

    @contextmanager
    def _tables(self) -> Iterator[Callable[[str], list[_File]]]:
        """A function from a table's name to its parts, in the order of their numbers."""
        if self._path.is_dir():
            yield lambda table: [_on_disk(path) for path in sorted(self._path.rglob(f"{table}.*")) if _is(path.name)]
            return
        try:
            archive = zipfile.ZipFile(self._path)
        except (OSError, zipfile.BadZipFile) as error:
            raise UsageError(
                f"--from unsplash-lite {one_line(self._path)}: {one_line(error)}; give the data set's folder or zip"
            ) from error
        with archive:
            entries = sorted(archive.infolist(), key=lambda entry: entry.filename)
            yield lambda table: [
                _in_zip(archive, entry)
                for entry in entries
                if (name := Path(entry.filename).name).startswith(f"{table}.") and _is(name)
            ]


def _is(name: str) -> bool:
    """Whether a file is a part of a table: ``photos.tsv``, ``photos.tsv000``, in older versions ``photos.csv000``."""
    return re.fullmatch(r"[a-z]+\.[tc]sv\d*", name) is not None


def _on_disk(path: Path) -> _File:
    return _File(
        path.name,
        datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds"),
        lambda: path.open("rb"),
    )


def _in_zip(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> _File:
    changed = "{:04d}-{:02d}-{:02d}T{:02d}:{:02d}:{:02d}".format(*entry.date_time)
    return _File(Path(entry.filename).name, changed, lambda: archive.open(entry))


@dataclass(frozen=True, slots=True)
class _Line:
    """One row of a table, or why a line is none."""

    file: _File
    number: int
    record: dict[str, str] | BadRow
    photo_id: str
    """Of a bad row, what stands in its place."""

    @property
    def place(self) -> str:
        return f"{one_line(self.file.name, 60)}, line {self.number}"

    @property
    def name(self) -> str:
        text = self.record.text if isinstance(self.record, BadRow) else json.dumps(self.record)
        return name_of_line(self.file.name, self.number, text)

    @property
    def problem(self) -> str:
        if isinstance(self.record, BadRow):
            return self.record.detail
        given = self.record.get("photo_id") and self.record.get("photo_image_url", "").strip()
        return "" if given else "no address or no id in the data set"


def _lines(files: Iterable[_File]) -> Iterator[_Line]:
    """The rows of all parts; a part without a line of names has those of the part before it. Raises UsageError."""
    names: list[str] = []
    for file in files:
        with lines_of(file.open, "utf-8-sig") as lines:
            head = next(lines, "")
            delimiter = "\t" if "\t" in head else ","
            first = next(read_rows([head], delimiter, row_start(delimiter, 0)), Row(1, ""))
            named = "photo_id" in first.fields
            names = unique_names(first.fields) if named else names
            if not names:
                raise UsageError(f"{one_line(file.name)}: no column photo_id in its first line; it is no such data set")
            at = names.index("photo_id")
            rows = read_rows(chain([head], lines), delimiter, row_start(delimiter, len(names)))
            for row in islice(rows, 1, None) if named else rows:
                fields = row.fields or row.text.split(delimiter)
                photo_id = fields[at].strip('"') if at < len(fields) else ""
                yield _Line(file, row.line, as_record(row, names), photo_id)


def _confidence(record: Mapping[str, str]) -> float:
    """How sure a keyword is, 0..100."""
    if record.get("suggested_by_user", "").strip().lower() in {"t", "true", "1"}:
        return 100.0
    return max(parse_positive(record.get(f"ai_service_{n}_confidence", "")) or 0.0 for n in (1, 2))


def _camera(record: Mapping[str, str]) -> Camera | None:
    camera = Camera(
        make=one_line(record.get("exif_camera_make", "").strip(), 80),
        model=one_line(record.get("exif_camera_model", "").strip(), 80),
        iso=parse_positive(record.get("exif_iso", "")),
        aperture=parse_positive(record.get("exif_aperture_value", "")),
        focal_length=parse_positive(record.get("exif_focal_length", "")),
        exposure=parse_positive(record.get("exif_exposure_time", "")),
    )
    return camera if camera != Camera() else None


def _extra(record: Mapping[str, str]) -> str:
    found = {name: record[name] for name in _EXTRA if record.get(name)}
    return json.dumps(found) if found else ""


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
