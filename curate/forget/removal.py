"""Take forgotten photos out of a set: every table, logs, cached listings; parts keep their chain of digests.

A part's metadata says from which rows it was made. Where those rows only lost a forgotten photo, so does the part,
and its metadata is brought up to date: the next run of the step finds it current.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.compute as pc

from authface.engine.runner import parts_of
from authface.files import folders_below
from authface.records import Photo
from authface.review import reviews
from authface.review.reviews import ReviewSettings
from authface.store.journal import REASON, blank, item_hash
from authface.store.lock import file_lock
from authface.store.photoset import PartMeta, PhotoSet, Table, digest, digest_of

Rows = list[dict[str, Any]]

_ORDER = ("photos", "measured", "faces", "crops")
"""Tables that others are made from; the rest is made from these."""
_GROUPS = {"identity", "group"}
"""Columns whose value is the id of one face of a group: a group of which that face is gone is named by the next."""
_PHOTO_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Removal:
    """What to take out: ids of photos and, of photos without one, hashes of their name in the source."""

    photos: frozenset[str]
    items: frozenset[str] = frozenset()
    """As `authface.store.journal.item_hash` gives them."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """New names of groups that were called by a face that goes."""

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether the row belongs to a photo that is taken out."""
        photo_id = row.get("photo_id") or row["id"][:64]
        if photo_id:
            return photo_id in self.photos
        return bool(self.items) and item_hash(row.get("source", ""), row.get("source_id", "")) in self.items

    def names(self, value: str) -> bool:
        """Whether the text contains the id of a photo that is taken out."""
        return any(found in self.photos for found in _PHOTO_ID.findall(value))


@dataclass(frozen=True)
class PartChange:
    """A part that must be rewritten."""

    table: Table[Any]
    part: int
    rows: int
    """Rows that go or are blanked."""
    meta: PartMeta


def judged_digests(photoset: PhotoSet, removal: Removal) -> dict[str, str]:
    """Digests of crops as people judged them, of which tags and a balance are made, now and without the photos.

    Without any judgement on those that stay it is that of the table now, which `changes` maps. It has to be asked
    while the decisions are there.
    """
    found = dict[str, str]()
    tables = {part.number: part for part in parts_of(photoset.crops)}
    for policy in get_args(ReviewSettings.model_fields["policy"].annotation):
        for part in reviews.reviewed_crops(photoset, ReviewSettings(policy=policy)):
            table = tables[part.number]
            if part.digest != table.digest:
                judged, plain = (
                    [row for row in of.rows() if row.photo_id not in removal.photos] for of in (part, table)
                )
                found[part.digest] = table.digest if judged == plain else digest(judged)
    return found


def changes(photoset: PhotoSet, removal: Removal, judged: Mapping[str, str]) -> list[PartChange]:
    """The parts to rewrite so that the photos are gone from all tables; sources come before what is made from them.

    `judged`: see `judged_digests`.
    """
    tables = photoset.tables()
    removal = replace(removal, renamed=dict(n for table in tables.values() for n in _renamed(table, removal)))
    digests: dict[str, str] = {}
    found = []
    for name in sorted(tables, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)):
        for part in tables[name].parts():
            if change := _change(tables[name], part, removal, digests, judged):
                found.append(change)
    return found


def apply(photoset: PhotoSet, removal: Removal, planned: list[PartChange]) -> None:
    """Write the changed parts, derived tables first: wherever it stops, calling `changes` again finds the rest."""
    removal = replace(removal, renamed=dict(n for t in photoset.tables().values() for n in _renamed(t, removal)))
    for change in reversed(planned):
        before = change.table.arrow(change.part)
        rows = pa.Table.from_pylist(_cleaned(before.to_pylist(), removal), schema=before.schema)
        change.table.put(change.part, rows, change.meta)


def _change(
    table: Table[Any], part: int, removal: Removal, digests: dict[str, str], judged: Mapping[str, str]
) -> PartChange | None:
    """The change of one part, None where it stays as it is; `digests` maps old digests of parts to new ones."""
    meta = table.meta(part)
    if meta is None:
        return None
    # A step may add to the digest of its source, such as what it knows of duplicates.
    above = judged.get(meta.inputs[:64], meta.inputs[:64])
    inputs = digests.get(above, above) + meta.inputs[64:]
    if not _touched(table.arrow(part, _text_columns(table, part)), removal):
        return PartChange(table, part, 0, replace(meta, inputs=inputs)) if inputs != meta.inputs else None
    before = table.arrow(part).to_pylist()
    rows = _cleaned(before, removal)
    counts = Counter(f"{row['status']}: {row['reason']}" if row["reason"] else row["status"] for row in rows)
    new = replace(meta, inputs=inputs, digest=digest_of(rows), counts=dict(counts))
    digests[meta.digest] = new.digest
    return PartChange(table, part, sum(removal.holds(row) for row in before), new)


def _text_columns(table: Table[Any], part: int) -> list[str]:
    return [column.name for column in table.schema(part) if pa.types.is_string(column.type)]


def _touched(rows: pa.Table, removal: Removal) -> bool:
    """Whether any text of the rows names a photo that goes."""
    ids = pa.array(sorted(removal.photos), pa.string())
    for column in rows.itercolumns():
        if pc.any(pc.is_in(pc.utf8_slice_codeunits(column, 0, 64), ids)).as_py():
            return True
    for name in ("detail", "extra"):
        if name in rows.column_names:
            long = rows.column(name).filter(pc.match_substring_regex(rows.column(name), _PHOTO_ID.pattern))
            if any(removal.names(value) for value in long.to_pylist()):
                return True
    if removal.items and "source_id" in rows.column_names:
        unread = rows.filter(pc.and_(pc.equal(rows.column("id"), ""), pc.not_equal(rows.column("reason"), REASON)))
        return any(removal.holds(row) for row in unread.to_pylist())
    return False


def _cleaned(rows: Rows, removal: Removal) -> Rows:
    """The rows without those that go; photos leave a blank row, so that counts stay true."""
    cleaned = []
    for row in rows:
        if not removal.holds(row):
            cleaned.append({name: _without(name, value, removal) for name, value in row.items()})
        elif "source_id" in row:
            empty = asdict(blank(row["source"]))
            cleaned.append({name: empty.get(name) for name in row})
    return cleaned


def _without(name: str, value: Any, removal: Removal) -> Any:
    """The value without the id of a photo that goes."""
    if not isinstance(value, str) or len(value) < 64 or not removal.names(value):
        return value
    if name in _GROUPS:
        return removal.renamed.get(value, "")
    return (
        _PHOTO_ID.sub(lambda found: REASON if found[0] in removal.photos else found[0], value) if " " in value else ""
    )


def _renamed(table: Table[Any], removal: Removal) -> Iterator[tuple[str, str]]:
    """Old and new name of each group that is called by a face that goes: the first id of those that stay."""
    parts = table.parts()
    groups = _GROUPS & set(table.schema(parts[0]).names) if parts else set()
    first: dict[str, str] = {}
    for part in parts if groups else []:
        columns = table.arrow(part, ["id", *groups])
        for group in groups:
            for face, name in zip(columns.column("id").to_pylist(), columns.column(group).to_pylist(), strict=True):
                if name and name[:64] in removal.photos and face[:64] not in removal.photos:
                    first[name] = min(face, first.get(name, face))
    yield from first.items()


def removal_of(photos: list[Photo]) -> Removal:
    """Everything to take out together with these photos."""
    ids = frozenset(photo.id for photo in photos if photo.id)
    return Removal(ids, frozenset(item_hash(photo.source, photo.source_id) for photo in photos if not photo.id))


TABLES = {"photos", "crops", "tables", "dataset", "exports", "reports"}
"""Folders that hold no such text, but for the journals among the tables."""
OWN = {"forgotten.jsonl", "uses.jsonl", "recipe.toml", ".lock"}
_JSON = {".json", ".jsonl"}


@dataclass(frozen=True)
class ForgottenNames:
    """Ids and words that identify forgotten photos and people."""

    photos: frozenset[str]
    """Ids, which count wherever they stand in a text."""
    words: frozenset[str] = frozenset()
    """Names in the source, addresses, photographers: they count where a value is one of them, whole."""

    def appear_in(self, value: Any) -> bool:
        """Whether a value, or anything inside it, mentions what is forgotten."""
        if isinstance(value, str):
            return value in self.words or any(found in self.photos for found in _PHOTO_ID.findall(value))
        if isinstance(value, dict):
            return any(self.appear_in(key) or self.appear_in(inner) for key, inner in value.items())
        return isinstance(value, list) and any(self.appear_in(inner) for inner in value)

    def may_appear_in(self, text: str) -> bool:
        """Whether a text that is not parsed yet may mention what is forgotten: an id anywhere, a word whole."""
        return any(photo_id in text for photo_id in self.photos) or any(
            form in text and re.search(rf"(?<!\w){re.escape(form)}(?!\w)", text)
            for word in self.words
            for form in {word, json.dumps(word)[1:-1]}
        )


def names_of(photos: list[Photo], photographers: frozenset[str]) -> ForgottenNames:
    """What identifies these photos; `photographers` are names and pages that no remaining photo has."""
    words = {
        word
        for photo in photos
        for word in (photo.source_id, photo.page_url, photo.file_url, photo.download_location)
        if word
    }
    return ForgottenNames(frozenset(photo.id for photo in photos if photo.id), frozenset(words) | photographers)


def text_files(photoset: PhotoSet) -> Iterator[str]:
    """Logs, journals and cached listings of a set, relative to it: every file but photos, crops, tables and pages."""
    for top in sorted(photoset.root.iterdir()):
        if top.name in OWN or top.suffix == ".lock":
            continue
        if not top.is_dir():
            yield top.name
        elif top.name not in TABLES:
            yield from (_below(photoset, path) for path in sorted(top.rglob("*")) if _is_text(path))
    tables = folders_below(photoset.root / "tables")
    journals = sorted(folder / name for folder, names in tables for name in names if not name.endswith(".parquet"))
    yield from (_below(photoset, path) for path in journals if _is_text(path))


def _is_text(path: Path) -> bool:
    """Whether it is a file, and not the lock of one, which holds nothing and on Windows cannot be read meanwhile."""
    return path.suffix != ".lock" and path.is_file()


def clean(photoset: PhotoSet, relative: str, names: ForgottenNames, *, write: bool) -> int | None:
    """Remove what `names` identify from one file. Returns how many entries went, None if it is not JSON.

    What people wrote about photos is searched for ids only: a reviewer or a reason may be called like a photographer.
    So are files that are no text, in which short words stand by chance.
    """
    path = photoset.root / relative
    decided = relative.startswith(f"{reviews.FOLDER}/")
    if decided:
        names = replace(names, words=frozenset())
    # Reviewers append to their logs without the set's lock.
    with file_lock(path) if write and decided and path.suffix == ".jsonl" else nullcontext():
        return _clean(photoset, relative, names, write=write)


def _clean(photoset: PhotoSet, relative: str, names: ForgottenNames, *, write: bool) -> int | None:
    path = photoset.root / relative
    data = path.read_bytes()
    text = data.decode("utf-8", "replace")
    if b"\0" in data and path.suffix not in _JSON:
        names = replace(names, words=frozenset())
    if not names.may_appear_in(text):
        return 0
    lines = path.suffix == ".jsonl" or data.count(b"\n") > 0 and _is_json(data.split(b"\n", 1)[0])
    try:
        left, gone = _clean_lines(data, names) if lines else _clean_document(data, names)
    except ValueError:
        return None
    if write and gone:
        photoset.save(relative, left)
    return gone


def _clean_lines(data: bytes, names: ForgottenNames) -> tuple[bytes, int]:
    """The lines without what is forgotten; a line that a kill tore goes too if it may mention that."""
    kept, gone = [], 0
    for line in data.splitlines(keepends=True):
        spoken = mentioned(line, names)
        gone += spoken
        if not spoken:
            kept.append(line)
    return b"".join(kept), gone


def mentioned(line: bytes, names: ForgottenNames) -> bool:
    """Whether a line mentions what is forgotten, or may where a kill tore it."""
    return names.appear_in(json.loads(line)) if _is_json(line) else names.may_appear_in(line.decode("utf-8", "replace"))


def _clean_document(data: bytes, names: ForgottenNames) -> tuple[bytes, int]:
    value, gone = pruned(json.loads(data), names)
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace"), gone


def pruned(value: Any, names: ForgottenNames) -> tuple[Any, int]:
    """A JSON value without what `names` identify, and how many entries went: the innermost entry of a list, the entry
    of an object under such a key, or else the word itself, which becomes null."""
    if isinstance(value, str):
        return (None, 1) if names.appear_in(value) else (value, 0)
    gone = 0
    if isinstance(value, dict):
        kept: dict[str, Any] = {}
        for key, inner in value.items():
            if names.appear_in(key):
                gone += 1
                continue
            kept[key], count = pruned(inner, names)
            gone += count
        return kept, gone
    if isinstance(value, list):
        items = []
        for inner in value:
            if isinstance(inner, dict | str) and names.appear_in(_without_lists(inner)):
                gone += 1
                continue
            item, count = pruned(inner, names)
            items.append(item)
            gone += count
        return items, gone
    return value, 0


def _without_lists(value: Any) -> Any:
    """An object without the lists of objects in it, which are pruned on their own."""
    if not isinstance(value, dict):
        return value
    return {
        key: _without_lists(inner)
        for key, inner in value.items()
        if not (isinstance(inner, list) and any(isinstance(item, dict) for item in inner))
    }


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _below(photoset: PhotoSet, path: Path) -> str:
    return path.relative_to(photoset.root).as_posix()
