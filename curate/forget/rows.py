"""Take forgotten photos out of every table of a set; parts keep their chain of digests, so no step begins anew.

A part's metadata says from which rows it was made. Where those rows only lost a forgotten photo, so does the part,
and its metadata is brought up to date: the next run of the step finds it current.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from authface.records import Photo
from authface.store.photoset import PartMeta, PhotoSet, Table, digest_of
from authface.store.tombstones import REASON, blank, item_hash

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
    """As `authface.store.tombstones.item_hash` gives them."""
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


def changes(photoset: PhotoSet, removal: Removal) -> list[PartChange]:
    """The parts to rewrite so that the photos are gone from all tables; sources come before what is made from them."""
    tables = photoset.tables()
    removal = replace(removal, renamed=dict(n for table in tables.values() for n in _renamed(table, removal)))
    digests: dict[str, str] = {}
    found = []
    for name in sorted(tables, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)):
        for part in tables[name].parts():
            if change := _change(tables[name], part, removal, digests):
                found.append(change)
    return found


def apply(photoset: PhotoSet, removal: Removal, planned: list[PartChange]) -> None:
    """Write the changed parts, derived tables first: wherever it stops, calling `changes` again finds the rest."""
    removal = replace(removal, renamed=dict(n for t in photoset.tables().values() for n in _renamed(t, removal)))
    for change in reversed(planned):
        before = change.table.arrow(change.part)
        rows = pa.Table.from_pylist(_cleaned(before.to_pylist(), removal), schema=before.schema)
        change.table.put(change.part, rows, change.meta)


def _change(table: Table[Any], part: int, removal: Removal, digests: dict[str, str]) -> PartChange | None:
    """The change of one part, None where it stays as it is; `digests` maps old digests of parts to new ones."""
    meta = table.meta(part)
    if meta is None:
        return None
    # A step may add to the digest of its source, such as what it knows of duplicates.
    inputs = digests.get(meta.inputs[:64], meta.inputs[:64]) + meta.inputs[64:]
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
