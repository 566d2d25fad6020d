"""What lists said of the licences of a set's photos: which statements stand, and what holds because of them.

A row holds what was said under its own name (`Photo.statements`), nothing of it erased. A list that is read again
corrects itself; where different lists, or names of the same bytes, disagree, the strictest holds.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from authface.errors import one_line
from authface.licences import UNKNOWN, disagree, is_stated, strictest
from authface.records import Photo, Statement
from authface.store.parquet import arrow_schema, plain, row_reader
from authface.store.photoset import PhotoSet, Table

ATTRIBUTION = ("photographer", "photographer_url", "page_url", "terms")
"""Fields of a photo that a corrected list replaces, where it fills them."""
_SHOWN = ("id", *ATTRIBUTION, "licence")
_COLUMNS = ("id", "source_id", "status", "reason", "licence", "statements")
DUPLICATE = "duplicate"
"""Reason of a row whose bytes another row of the set has."""
_OPTED_OUT = "opt_out_"
"""What the reasons begin with of rows that were refused, maybe while the same bytes are kept under another name."""


@dataclass(frozen=True)
class Said:
    """A statement and the name under which it was made."""

    source_id: str
    statement: Statement

    @property
    def stands(self) -> bool:
        """Whether it is still said."""
        return not self.statement.until


def all_said(photo: Photo) -> tuple[Statement, ...]:
    """The statements of a row; of one of an earlier version what it says itself, by nobody known."""
    return photo.statements or (Statement(licence=photo.licence),)


def standing(statements: Iterable[Statement]) -> list[str]:
    """The licences that are still stated."""
    return [one.licence for one in statements if not one.until]


def name_of_list(path: str) -> str:
    """What a list or folder is known by: its absolute path; a link stays the list that it is, wherever it leads."""
    return path if not path or "://" in path else os.path.abspath(path)  # noqa: PTH100


def same_list(before: str, now: str) -> bool:
    """Whether a list is the one that stood elsewhere: same place, or same name and the old place is empty.

    What an earlier version left without a name is taken for this one's.
    """
    return before in {"", now} or (Path(before).name == Path(now).name and not Path(before).exists())


def repeated_row(photo: Photo) -> Photo:
    """The row of a photo whose bytes the set keeps under another name."""
    return replace(photo, status="rejected", reason=DUPLICATE, detail="the same bytes are in the set")


def restated(photo: Photo, said: Collection[str], by: str, at: str, *, whole: bool) -> Photo:
    """The row after the list `by` said `said` of it, under its name; the same row where nothing is new.

    What the list said before and does not say now is withdrawn, if it was read as a `whole`; what it says of what an
    earlier version left without a name becomes its own.
    """
    before = all_said(photo)
    own = [one for one in before if not one.until and same_list(one.by, by)]
    new = sorted({*said} - {one.licence for one in own})
    gone = [one for one in own if one.licence not in said] if whole else []
    unnamed = [one for one in own if not one.by and by and one not in gone]
    if not new and not gone and not unnamed:
        return photo
    kept = tuple(
        replace(one, until=at) if one in gone else replace(one, by=by) if one in unnamed else one for one in before
    )
    statements = (*kept, *(Statement(licence=text, by=by, at=at) for text in new))
    return replace(photo, statements=statements, licence=strictest(standing(statements), photo.licence))


def rewrite(photos: Table[Photo], part: int, before: Sequence[Photo], rows: Sequence[Photo]) -> None:
    """Put corrected rows in the place of a part's; of its photos nothing else changed, so no step begins anew."""
    if (meta := photos.meta(part)) is None:
        return
    origins = meta.origins
    if _shown(before) != (now := _shown(rows)):
        origins = hashlib.sha256(json.dumps(now).encode()).hexdigest()
    table = pa.Table.from_pylist([plain(row) for row in rows], schema=arrow_schema(Photo))
    photos.put(part, table, replace(meta, origins=origins))


def hold(photoset: PhotoSet) -> dict[str, tuple[str, str]]:
    """Let the strictest licence hold of photos whose bytes came under several names; what held and what holds, by id.

    Whatever stopped a run before, this mends it. The caller holds the set's lock.
    """
    photos, changed = photoset.photos, dict[str, tuple[str, str]]()
    texts: dict[str, list[str]] = defaultdict(list)
    kept: dict[str, tuple[int, str]] = {}
    for part, row in _rows(photos, repeated(photos)):
        texts[row["id"]] += standing(_statements(row))
        if row["status"] == "kept":
            kept[row["id"]] = part, row["licence"]
    wrong: dict[int, dict[str, str]] = defaultdict(dict)
    for photo_id, (part, licence) in kept.items():
        right = strictest(texts[photo_id], licence)
        if right != licence and (is_stated(right) or is_stated(licence)):
            wrong[part][photo_id] = right
            changed[photo_id] = licence, right
    for part, right_of in wrong.items():
        before = photos.rows(part)
        after = list(before)
        for at, photo in enumerate(before):
            if photo.status == "kept" and photo.id in right_of:
                after[at] = replace(photo, licence=right_of[photo.id], statements=all_said(photo))
        rewrite(photos, part, before, after)
    return changed


def repeated(photos: Table[Photo]) -> set[str]:
    """Ids of the photos whose bytes may have come under several names."""
    found: set[str] = set()
    reasons = {name.partition(": ")[2] for name in photos.counts()}
    if not any(_of_known_bytes(reason) for reason in reasons):
        return found
    wanted = pa.array(filter(_of_known_bytes, reasons), pa.string())
    for part in photos.parts():
        rows = photos.arrow(part, ["id", "reason"])
        found.update(rows.column("id").filter(pc.is_in(rows.column("reason"), wanted)).to_pylist())
    return found - {""}


def _of_known_bytes(reason: str) -> bool:
    return reason == DUPLICATE or reason.startswith(_OPTED_OUT)


def disputed(photoset: PhotoSet) -> dict[str, list[Said]]:
    """All that was said of the kept photos of which more than one thing was, by id: in other words or withdrawn."""
    photos = photoset.photos
    several = repeated(photos)
    found, said, kept = dict[str, list[Said]](), defaultdict[str, list[Said]](list), set()
    for _, row in _rows(photos, several, several=True):
        lines = [Said(row["source_id"], one) for one in _statements(row)]
        if row["id"] in several:  # under several names, in rows that may lie far apart
            said[row["id"]] += lines
            if row["status"] == "kept":
                kept.add(row["id"])
        elif row["status"] == "kept" and _is_disputed(lines):
            found[row["id"]] = lines
    return found | {name: lines for name, lines in said.items() if name in kept and _is_disputed(lines)}


def _is_disputed(lines: Sequence[Said]) -> bool:
    return _stand_apart(lines) or _corrected(lines)


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


def count_disputed(found: dict[str, list[Said]]) -> dict[str, int]:
    """How many photos have licences that disagree, and of how many what was said first was corrected."""
    return {
        "disputed": sum(map(_stand_apart, found.values())),
        "corrected": sum(map(_corrected, found.values())),
    }


def _stand_apart(lines: Sequence[Said]) -> bool:
    return disagree(line.statement.licence for line in lines if line.stands)


def _corrected(lines: Sequence[Said]) -> bool:
    return any(not line.stands and is_stated(line.statement.licence) for line in lines)


def _rows(photos: Table[Photo], ids: set[str], *, several: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """Part and columns of the rows of some ids, and with `several` of all that were stated more than once."""
    if not ids and not several:
        return
    wanted = pa.array(sorted(ids), pa.string())
    for part in photos.parts():
        rows = photos.arrow(part, _COLUMNS)
        mask = pc.is_in(rows.column("id"), wanted)
        if several:
            many = pc.greater(pc.fill_null(pc.list_value_length(rows.column("statements")), 0), 1)
            mask = pc.or_(mask, many)
        if pc.any(mask).as_py():
            yield from ((part, row) for row in rows.filter(mask).to_pylist() if row["id"])


_READ = row_reader(Statement)


def _statements(row: dict[str, Any]) -> list[Statement]:
    told = [_READ(one) for one in row["statements"] or ()]
    return told or [Statement(licence=row["licence"] or "")]


def _shown(rows: Iterable[Photo]) -> list[list[str]]:
    return [[getattr(row, name) for name in _SHOWN] for row in rows if row.status == "kept"]
