"""One photo of a set, found by id, name, page or photographer, and all that happened to it.

It is joined from the tables, the logs and the datasets and trainings the photo went to. Rows are shown as they stand in
the tables: a column that a later version adds is shown without a change here.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from authface.errors import UsageError, one_line
from authface.records import Photo, Statement
from authface.store.journal import Use, holders, item_hash, tombstones
from authface.store.photoset import PhotoSet, Table
from authface.store.rows import row_reader
from authface.store.statements import UNKNOWN, Said

Mask = Callable[[pa.Table], pa.ChunkedArray]

MIN_DIGITS = 6
"""Shortest prefix of an id, in digits, that is accepted in its place."""
_ID = re.compile(rf"([0-9a-f]{{{MIN_DIGITS},64}})(--?[0-9]+)?")
_COLUMNS = ["id", "source", "source_id", "file", "page_url", "file_url", "photographer", "photographer_url"]


NO_PART = -1


@dataclass(frozen=True)
class PhotoMatch:
    """A row of the table `photos`, and the number of its part."""

    part: int
    """`NO_PART` for a row that is in no part yet."""
    photo: Photo


def find_photo(photoset: PhotoSet, text: str, more: Sequence[Photo] = ()) -> list[PhotoMatch]:
    """The rows of the one photo that `text` names: photo id, face id, a prefix of these of six digits or more, the
    name in its source, the last part of that name, or its page.

    Several rows, under all their names, if the same bytes were fetched more than once. `more` are rows that are in no
    part yet. Raises UsageError where nothing or more than one fits.
    """
    text = os.fsencode(text).decode("utf-8", "backslashreplace")  # as a folder's names are kept
    matches = list(_matching(photoset, lambda rows: _named(rows, text), more))
    exact = [match for match in matches if text in {match.photo.id, match.photo.source_id, match.photo.page_url}]
    matches = exact or matches
    here = one_line(photoset.root)
    if not matches:
        raise UsageError(
            f"no photo in {here} is called {one_line(text, 100)}: give a photo or face id, "
            f"{MIN_DIGITS} digits of it or more, or its name in the source"
        )
    ids = {match.photo.id or match.photo.source_id for match in matches}
    if len(ids) > 1:
        names = ", ".join(one_line(name, 80) for name in sorted(ids)[:4])
        raise UsageError(f"{one_line(text, 100)} fits {len(ids)} photos of {here} ({names} ...): give more of the id")
    found = matches[0].photo.id
    shape = _ID.fullmatch(text)
    if not found or (shape and found.startswith(shape[1])):
        return matches  # by its id all of its rows were found
    return rows_of(photoset, [found], more=more)


def photos_of(photoset: PhotoSet, photographer: str, more: Sequence[Photo] = ()) -> list[PhotoMatch]:
    """Every photo of a photographer, by name (any case) or by their page (with or without its query).

    `more` are rows that are in no part yet.
    """

    def mask(rows: pa.Table) -> pa.ChunkedArray:
        names, pages = rows.column("photographer"), rows.column("photographer_url")
        by_name = [name for name in names.unique().to_pylist() if _is_name(name, photographer)]
        by_page = [page for page in pages.unique().to_pylist() if _is_page(page, photographer)]
        return pc.or_(_one_of(names, by_name), _one_of(pages, by_page))

    return list(_matching(photoset, mask, more))


def is_by(photo: Photo, photographer: str) -> bool:
    """Whether `photos_of` finds the photo by this name or page."""
    return _is_name(photo.photographer, photographer) or _is_page(photo.photographer_url, photographer)


def rows_of(
    photoset: PhotoSet, ids: Iterable[str], items: Iterable[str] = (), more: Sequence[Photo] = ()
) -> list[PhotoMatch]:
    """Every row of some photos: by their ids, and of photos without bytes by the `item_hash` of their names.

    `more` are rows that are in no part yet.
    """
    known, hashes = set(ids) - {""}, set(items) - {""}

    def mask(rows: pa.Table) -> pa.ChunkedArray:
        found = _one_of(rows.column("id"), sorted(known))
        if not hashes:
            return found
        names = zip(*(rows.column(name).to_pylist() for name in ("id", "source", "source_id")), strict=True)
        bare = [not photo_id and item_hash(source, name) in hashes for photo_id, source, name in names]
        return pc.or_(found, pa.chunked_array([pa.array(bare, pa.bool_())]))

    return list(_matching(photoset, mask, more, ["id", "source", "source_id"] if hashes else ["id"]))


def _is_name(name: str, text: str) -> bool:
    """Whether both are one name, whatever their case: "Weiß", "WEISS" and "weiss" are."""
    return bool(name) and name.casefold() == text.casefold()


def _is_page(page: str, text: str) -> bool:
    """Whether both are one page, whatever their case and query."""
    return _page(page) == _page(text) != ""


def _page(address: str) -> str:
    return address.casefold().partition("?")[0].rstrip("/")


def _one_of(column: pa.ChunkedArray, values: Sequence[str]) -> pa.ChunkedArray:
    return pc.is_in(column, pa.array(values, pa.string()))


def _matching(
    photoset: PhotoSet, mask: Mask, more: Sequence[Photo], names: Sequence[str] = _COLUMNS
) -> Iterator[PhotoMatch]:
    """The rows for which `mask` of the columns `names` is true."""
    read = row_reader(Photo)
    for part in photoset.photos.parts():
        places = mask(photoset.photos.arrow(part, names)).to_numpy().nonzero()[0]
        if len(places):
            yield from (PhotoMatch(part, read(row)) for row in photoset.photos.arrow(part).take(places).to_pylist())
    if more:
        columns = {name: pa.array([getattr(photo, name) for photo in more], pa.string()) for name in names}
        places = mask(pa.table(columns)).to_numpy().nonzero()[0]
        yield from (PhotoMatch(NO_PART, more[at]) for at in places)


def _named(rows: pa.Table, text: str) -> pa.ChunkedArray:
    name = rows.column("source_id")
    mask = pc.or_(pc.equal(name, text), pc.ends_with(name, "/" + text))
    for column in ("page_url", "file_url"):
        if text:
            mask = pc.or_(mask, pc.fill_null(pc.equal(rows.column(column), text), False))
    if shape := _ID.fullmatch(text):
        mask = pc.or_(mask, pc.starts_with(rows.column("id"), shape[1]))
    return mask


Values = dict[str, Any]

_ORDER = ("photos", "measured", "faces", "crops")
_LONG = {"embedding", "values", "landmarks", "points5", "box", "quad", "transform", "inverse"}
"""Columns that a person does not read; JSON has them, but for the embedding, which is biometric data."""
_VERDICT = {"status", "reason", "value", "limit", "detail"}


@dataclass
class History:
    """What is known of one photo."""

    photos: list[Values]
    """Its rows: several where the same bytes came more than once."""
    rows: dict[str, list[Values]] = field(default_factory=dict)
    """Rows by table, in the order of the steps: faces, crops, tags, people ..."""
    decisions: list[Values] = field(default_factory=list)
    """Lines of the reviewers' logs, with `reviewer`."""
    repeated_by: list[str] = field(default_factory=list)
    """Faces of other photos that were taken for near duplicates of one of its faces."""
    files: list[str] = field(default_factory=list)
    """What lies in the set under its name."""
    used_by: list[Use] = field(default_factory=list)
    """Datasets and trainings that hold it."""

    def as_json(self) -> Values:
        """Plain values."""
        return {
            "photos": self.photos,
            "tables": {
                name: [{k: v for k, v in row.items() if k != "embedding"} for row in rows]
                for name, rows in self.rows.items()
            },
            "decisions": self.decisions,
            "repeated_by": self.repeated_by,
            "files": self.files,
            "used_by": [{"kind": use.kind, "path": use.path, "key": use.key} for use in self.used_by],
        }


def photo_history(photoset: PhotoSet, text: str) -> History:
    """The history of the photo that `text` names; see `authface.inspect.why.find_photo`. Raises UsageError."""
    matches = find_photo(photoset, text)
    photo = matches[0].photo
    history = History([_row(photoset.photos, match) for match in matches])
    history.rows = dict(_rows(photoset, photo.id, [match.part for match in matches]))
    history.decisions = list(_decisions(photoset, photo.id)) if photo.id else []
    if photo.id:
        faces = {row["id"] for row in history.rows.get("faces", [])}
        history.repeated_by = _repeated(photoset, photo.id, faces)
        history.files = _files(photoset, photo.id)
        history.used_by = [use for use, _ in holders(photoset, {photo.id})]
    return history


def forgotten_at(photoset: PhotoSet, text: str) -> str:
    """When a photo that `text` begins the id of was forgotten; empty where it was not."""
    if len(text) < 6:
        return ""
    return next((stone.at for stone in tombstones(photoset) if stone.photo.startswith(text[:64])), "")


def to_text(history: History) -> str:
    """The history as lines for a person."""
    return "\n".join(_lines(history))


def _row(table: Table[Any], match: PhotoMatch) -> Values:
    rows: list[Values] = table.arrow(match.part).to_pylist()
    photo = match.photo
    wanted = (photo.id, photo.source, photo.source_id, photo.as_of)
    return next(row for row in rows if (row["id"], row["source"], row["source_id"], row["as_of"]) == wanted)


def _rows(photoset: PhotoSet, photo_id: str, parts: Sequence[int]) -> Iterator[tuple[str, list[Values]]]:
    """The photo's rows of every other table: in the part of the same number, or else wherever they are."""
    tables = photoset.tables()
    for name in sorted(tables, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)):
        if name == "photos" or not photo_id:
            continue
        near = [part for part in tables[name].parts() if part in parts]
        rows = [row for part in near for row in _of_photo(tables[name], part, photo_id)]
        if not rows:
            others = (part for part in tables[name].parts() if part not in parts)
            rows = next((rows for part in others if (rows := _of_photo(tables[name], part, photo_id))), [])
        if rows:
            yield name, rows


def _of_photo(table: Table[Any], part: int, photo_id: str) -> list[Values]:
    mask = pc.starts_with(table.arrow(part, ["id"]).column("id"), photo_id)
    if not pc.any(mask).as_py():
        return []
    rows: list[Values] = table.arrow(part).filter(mask).to_pylist()
    return rows


def _decisions(photoset: PhotoSet, photo_id: str) -> Iterator[Values]:
    """Lines of ``review/*.jsonl`` on its faces; what is no such line is passed over."""
    folder = photoset.root / "review"
    for log in sorted(folder.glob("*.jsonl")) if folder.is_dir() else []:
        for line in log.read_bytes().splitlines():
            try:
                decision = json.loads(line)
            except ValueError:
                continue
            if isinstance(decision, dict) and str(decision.get("id", "")).startswith(photo_id):
                yield {"reviewer": log.stem, **decision}


def _repeated(photoset: PhotoSet, photo_id: str, own: set[str]) -> list[str]:
    found: set[str] = set()
    for part in photoset.faces.parts():
        rows = photoset.faces.arrow(part, ["id", "duplicate_of"])
        mask = pc.starts_with(rows.column("duplicate_of"), photo_id)
        found.update(rows.filter(mask).column("id").to_pylist())
    return sorted(found - own)


def _files(photoset: PhotoSet, photo_id: str) -> list[str]:
    paths = photoset.root.glob(f"*/{photo_id[:2]}/{photo_id}*")
    return sorted(path.relative_to(photoset.root).as_posix() for path in paths)


def _lines(history: History) -> Iterator[str]:
    for photo in history.photos:
        yield f"photo {photo['id'] or '(no bytes)'}"
        yield f"  {_values(photo, {'id', 'extra', 'statements', 'signals', *_VERDICT})}"
        if (statements := photo.get("statements")) and len(statements) > 1:
            yield f"  stated: {told(Said('', Statement(**one)) for one in statements)}"
        for said in photo.get("signals") or ():
            yield one_line(
                f"  {said['verdict']} by {said['kind']} at {said['where']}, {said['at']}: {said['said']}", 900
            )
        yield f"  {_outcome(photo)}"
    for name, rows in history.rows.items():
        for row in rows:
            yield f"{name} {row['id'][:10]}…{row['id'][64:]}: {_outcome(row)}"
            if text := _values(row, {"id", "photo_id", "photo_file", "tags", "scores", *_LONG, *_VERDICT}):
                yield f"  {text}"
            if row.get("scores"):
                yield "  " + ", ".join(f"{score['metric']} {score['value']:.3g}" for score in row["scores"])
            if "tags" in row:
                yield "  " + (", ".join(f"{tag['name']} {tag['confidence']:.2f}" for tag in row["tags"]) or "no tags")
    for said in history.decisions:
        note = said.get("reason") or said.get("note") or ""
        words = f"{said.get('verdict', '?')} by {said['reviewer']}, {said.get('at', '')} {note}"
        yield f"review {str(said['id'])[:10]}…{str(said['id'])[64:]}: {one_line(words.strip())}"
    for face in history.repeated_by:
        yield f"nearly repeated by {one_line(face)}"
    for file in history.files:
        yield f"file {one_line(file)}"
    for use in history.used_by:
        yield f"{use.kind} {one_line(use.path)} holds it"


def _outcome(row: Values) -> str:
    """The verdict in words, with value and limit."""
    said = f"{row['status']}: {row['reason'].replace('_', ' ')}" if row["reason"] else str(row["status"])
    if row.get("value") is not None and row.get("limit") is not None:
        said += f", {row['value']:.4g} where the limit is {row['limit']:.4g}"
    return f"{said}, {one_line(row['detail'])}" if row.get("detail") else said


def _values(row: Values, left_out: set[str]) -> str:
    """Names and values of a row that say something."""
    said = []
    for name, value in row.items():
        if name in left_out or value in (None, "", [], False):
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{key} {inner}" for key, inner in value.items() if inner not in (None, ""))
        said.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {one_line(value, 200)}")
    return ", ".join(said)


def told(lines: Iterable[Said]) -> str:
    """What was said, by whom and when, as text: of lists their name only, for credits are published."""
    return "; ".join(_told(line.statement) for line in lines)


def _told(one: Statement) -> str:
    by, licence = one_line(Path(one.by).name, 60), one_line(one.licence.strip() or UNKNOWN, 100)
    times = [one.at and f"since {_time(one.at)}", one.until and f"until {_time(one.until)}"]
    about = ", ".join(filter(None, [by, " ".join(filter(None, times))]))
    return f"{licence} ({about})" if about else licence


def _time(text: str) -> str:
    """A time to the minute."""
    return f"{one_line(text[:16].replace('T', ' '))} UTC"
