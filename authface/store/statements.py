"""Licences: what one allows, what lists said of those of a set's photos, and which of several holds.

What licences allow is a list of those that are recognised; a text that is not in it allows nothing. A text is
recognised as a whole, whatever its case, spaces and punctuation; nothing is searched for inside it, so that "CC BY 4.0,
ask first" is no CC BY. That is no legal advice: the publisher answers for what goes out.

A row holds what was said under its own name (`Photo.statements`), nothing of it erased. A list that is read again
corrects itself; where different lists, or names of the same bytes, disagree, the strictest holds.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from authface.records import Photo, Statement
from authface.store.photoset import PhotoSet, Table
from authface.store.rows import arrow_schema, plain, row_reader


@dataclass(frozen=True)
class Licence:
    """A recognised licence."""

    name: str
    redistribution: bool = True
    """Whether copies may be passed on at all."""
    derivatives: bool = True
    """Whether changed copies may be; a crop is one."""
    commercial: bool = True
    share_alike: bool = False
    """Whether what is made of it must go under the same licence."""


MOST_TEXT = 300
"""Characters; a longer text is no licence's name or address."""
UNKNOWN: Final = "unknown"
"""What stands where nobody stated a licence."""
UNSPLASH: Final = Licence("Unsplash License", redistribution=False)
"""Use is free; Unsplash's terms forbid passing its photos on in a dataset."""
PUBLIC_DOMAIN: Final = Licence("public domain")
NO_COPYRIGHT_NC: Final = Licence("NoC-NC", commercial=False)

_SEPARATORS = re.compile(r"[\s\-_.,/:()+]+")
_PERMISSIVE = (
    "0BSD", "AFL-3.0", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CDLA-Permissive-1.0", "CDLA-Permissive-2.0",
    "DL-DE-BY-2.0", "DL-DE-ZERO-2.0", "etalab-2.0", "ISC", "MIT", "MIT-0", "OGL-UK-1.0", "OGL-UK-2.0", "OGL-UK-3.0",
    "OGL-Canada-2.0", "ODC-By-1.0", "Unlicense", "WTFPL", "Zlib", "Pixabay CC0",
)  # fmt: skip
_SHARE_ALIKE = (
    "CDLA-Sharing-1.0", "FAL-1.3", "Free Art License 1.3", "GFDL-1.1", "GFDL-1.2", "GFDL-1.3", "GFDL-1.1-or-later",
    "GFDL-1.2-or-later", "GFDL-1.3-or-later", "GFDL-1.2-only", "GFDL-1.3-only", "GPL-2.0-only", "GPL-2.0-or-later",
    "GPL-3.0-only", "GPL-3.0-or-later", "LAL-1.2", "LAL-1.3", "ODbL-1.0", "OpenRAIL", "OpenRAIL++",
    "BigScience OpenRAIL-M", "CreativeML OpenRAIL-M", "CreativeML Open RAIL-M", "CreativeML Open RAIL++-M",
)  # fmt: skip
_PUBLIC_DOMAIN = (
    "Public Domain", "Public Domain Mark", "Public Domain Mark 1.0", "PDM", "PDM 1.0", "CC PDM", "CC PDM 1.0",
    "CC-PDDC", "PDDL-1.0", "Creative Commons Public Domain Mark 1.0", "Public Domain Dedication",
    "CC Public Domain Mark 1.0", "CC0", "CC0-1.0", "CC Zero", "CC Zero 1.0", "CC0 1.0 Universal",
    "Creative Commons Zero", "Creative Commons CC0", "Creative Commons Zero 1.0",
    "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication", "CC0 1.0 Public Domain Dedication",
    "Creative Commons Zero v1.0 Universal", "CC0 Public Domain", "Creative Commons CC0 1.0 Universal", "NoC",
    "NoC-US", "No Copyright - United States", "No known copyright restrictions", "PD", "PD-old", "PD-old-70",
    "PD-old-80", "PD-old-100", "PD-old-auto", "PD-old-auto-expired", "PD-old-70-expired", "PD-old-100-expired",
    "PD-anon-70", "PD-anon-expired", "PD-Art", "PD-author", "PD-expired", "PD-Mark", "PD-release", "PD-scan",
    "PD-self", "PD-user", "PD-1923", "PD-1996", "PD-US", "PD-US-expired", "PD-US-no notice", "PD-US-not renewed",
    "PD-US-1978-89", "PD-NASA", "PD-USGov", "PD-USGov-Congress", "PD-USGov-DOJ", "PD-USGov-FBI", "PD-USGov-Military",
    "PD-USGov-Military-Air Force", "PD-USGov-Military-Army", "PD-USGov-Military-Marines", "PD-USGov-Military-Navy",
    "PD-USGov-NASA", "PD-USGov-NOAA", "PD-USGov-POTUS", "PD-USGov-State", "PD-USGov-WH",
    "United States Government Work", "US Government Work", "U.S. Government Works", "United States Government Works",
    "Work of the US Government", "Work of the United States Government",
)  # fmt: skip
_CC = re.compile(
    r"(?P<cc>cc|creativecommons)?(?P<by>by|attribution)(?P<kinds>(?:nc|noncommercial|nd|noderivs|noderivatives|"
    r"noderivativeworks|sa|sharealike){0,2})(?:v|version)?(?P<version>10|20|21|25|30|40|[1-4])?"
    r"(?P<scope>international|intl|generic|unported|igo|ar|at|au|be|bg|br|ca|ch|cl|cn|co|cr|cz|de|dk|ec|ee|eg|es|fi|fr|gr|gt|"
    r"hk|hr|hu|ie|il|in|it|jp|kr|lu|mk|mt|mx|my|nl|no|nz|pe|ph|pl|pr|pt|ro|rs|scotland|se|sg|si|th|tw|ug|uk|us|ve|vn|za)?"
    r"(?P<end>publiclicen[cs]e|licen[cs]e|deed)?"
)
_CC_KIND = re.compile(r"(?P<nc>nc|noncommercial)|(?P<nd>nd|noderiv\w*?(?:s|works))|(?P<sa>sa|sharealike)")
_SCHEME = re.compile(r"^(https?://)?(www\.)?")
_CC_ADDRESS = re.compile(
    r"creativecommons\.org/licenses/(by(?:-(?:nc|nd|sa|nc-nd|nc-sa))?)/(\d\.\d)(?:/[a-z]{2,8})?"
    r"(?:/(?:deed|legalcode)(?:\.[a-z]{2}(?:[-_][a-z]{2,4})?)?)?"
)
_CC_ZERO = re.compile(
    r"creativecommons\.org/publicdomain/(?:zero|mark)/1\.0(?:/(?:deed|legalcode)(?:\.[a-z]{2}(?:[-_][a-z]{2,4})?)?)?"
)
_SPDX_ADDRESS = re.compile(r"spdx\.org/licenses/([a-z0-9.+-]+?)(?:\.html|\.json)?")
_STATEMENTS = {
    "rightsstatements.org/vocab/noc-us/1.0": PUBLIC_DOMAIN, "rightsstatements.org/page/noc-us/1.0": PUBLIC_DOMAIN,
    "rightsstatements.org/vocab/noc-nc/1.0": NO_COPYRIGHT_NC, "rightsstatements.org/page/noc-nc/1.0": NO_COPYRIGHT_NC,
    "unsplash.com/license": UNSPLASH, "usa.gov/government-works": PUBLIC_DOMAIN,
    "flickr.com/commons/usage": PUBLIC_DOMAIN,
}  # fmt: skip


def _squashed(text: str) -> str:
    """A text without case, spaces and the punctuation of names; other signs ("?", "!") stay, and are in no name."""
    return _SEPARATORS.sub("", unicodedata.normalize("NFKC", text).casefold())


_NAMES: Final[dict[str, Licence]] = {
    **{_squashed(name): Licence(name) for name in _PERMISSIVE},
    **{_squashed(name): Licence(name, share_alike=True) for name in _SHARE_ALIKE},
    **{_squashed(name): PUBLIC_DOMAIN for name in _PUBLIC_DOMAIN},
    **{
        _squashed(name): UNSPLASH
        for name in ("Unsplash", "Unsplash License", "Unsplash Licence", "The Unsplash License")
    },
    **{_squashed(name): NO_COPYRIGHT_NC for name in ("NoC-NC", "No Copyright - Non-Commercial Use Only")},
}


def recognise(text: str) -> Licence | None:
    """The licence that a text names, by identifier, name or address; None where nobody here knows it."""
    text = text.strip()
    if not text or len(text) > MOST_TEXT:
        return None
    found = _squashed(text)
    return _at(_SCHEME.sub("", text.casefold()).rstrip("/")) or _NAMES.get(found) or _creative_commons(found)


def is_stated(text: str) -> bool:
    """Whether a text states a licence at all, known here or not."""
    return text.strip().casefold() not in {"", UNKNOWN}


@lru_cache(10_000)
def strictness(text: str) -> tuple[bool, ...]:
    """How little a stated licence allows; the larger of two allows less.

    In order of weight: it is none that is recognised, forbids to pass copies on, changed copies, commercial use, other
    licences for what is made of it, is no public domain. So of several none forbids to pass a crop on where the largest
    does not; what they say of commercial use and of sharing alike `conditions` adds up.
    """
    known = recognise(text)
    if known is None:
        return (True,)
    forbidden = (not known.redistribution, not known.derivatives, not known.commercial, known.share_alike)
    return False, *forbidden, known != PUBLIC_DOMAIN


def strictest(texts: Iterable[str], held: str = "") -> str:
    """Which of several stated licences of one photo holds, whatever their order: what none of them forbids is left.

    Of equals, such as two versions, it is the one that `held` before, else the first of the alphabet. Texts that state
    nothing do not count; `UNKNOWN` where none does.
    """
    stated = sorted(text for text in texts if is_stated(text))
    return max(stated, key=lambda text: (strictness(text), text == held), default=UNKNOWN)


def disagree(texts: Iterable[str]) -> bool:
    """Whether stated licences allow different things, not only in their spelling or version."""
    stated = {text for text in texts if is_stated(text)}
    return len({recognise(text) or text for text in stated}) > 1


def conditions(texts: Iterable[str]) -> tuple[str, ...]:
    """Of NC, SA and ND those that any of the licences has."""
    known = [licence for text in texts if (licence := recognise(text))]
    found = {
        "NC": any(not licence.commercial for licence in known),
        "SA": any(licence.share_alike for licence in known),
        "ND": any(not licence.derivatives for licence in known),
    }
    return tuple(name for name, holds in found.items() if holds)


def _at(address: str) -> Licence | None:
    if found := _CC_ADDRESS.fullmatch(address):
        return _creative_commons(_squashed(f"cc {found[1]} {found[2]}"))
    if _CC_ZERO.fullmatch(address):
        return PUBLIC_DOMAIN
    if found := _SPDX_ADDRESS.fullmatch(address):
        return recognise(found[1])
    return _STATEMENTS.get(address)


def _creative_commons(squashed: str) -> Licence | None:
    found = _CC.fullmatch(squashed)
    if not found or (found["scope"] and not found["version"]):
        return None
    if not found["cc"] and not (found["by"] == "attribution" and (found["version"] or found["end"] or found["kinds"])):
        return None
    kinds = [str(kind.lastgroup) for kind in _CC_KIND.finditer(found["kinds"])]
    if len(set(kinds)) != len(kinds) or {"nd", "sa"} <= set(kinds):
        return None
    name = "-".join(("CC-BY", *(kind.upper() for kind in sorted(kinds))))
    return Licence(
        name, derivatives="nd" not in kinds, commercial="nc" not in kinds, share_alike="sa" in kinds,
    )  # fmt: skip


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
