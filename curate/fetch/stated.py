"""What a list says of photos that the set has already: a licence, an author or a page that was corrected takes effect.

Every photo that a source lists is compared with what was written down; only what differs is gathered, and written
when the list has been read: a list that names a photo twice says both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, field, replace
from typing import Any, Self

from authface.curate.fetch.keys import KEY_COLUMNS, Key, source_key
from authface.curate.fetch.roll import CLAIMED, UNNAMED, Roll, Said
from authface.curate.fetch.sources import PhotoItem
from authface.errors import one_line, shell_word
from authface.records import Photo, Statement, now
from authface.store.photoset import PhotoSet
from authface.store.statements import (
    ATTRIBUTION,
    UNKNOWN,
    all_said,
    count_disputed,
    disputed,
    hold,
    name_of_list,
    repeated,
    restated,
    rewrite,
    same_list,
    standing,
    strictest,
)

_LICENCE, _ATTRIBUTION = "licence", "attribution"
MOST_NAMED = 4
"""Kinds of change that a message names."""


@dataclass(slots=True)
class _Heard:
    """What this run's list says of one photo and the set does not know."""

    licences: set[str] = field(default_factory=set)
    as_before: bool = False
    """The list says what it said before as well."""
    attribution: dict[str, Any] = field(default_factory=dict)


class Stated:
    """The statements of a set, and what a run's source says beyond them; a run within it ends with `settle`.

    Photos go by their numbers in the `roll`.
    """

    def __init__(self, photoset: PhotoSet, path: str, roll: Roll, due: Container[Key]) -> None:
        """`path`: the list or folder that the source reads; empty for an API. `due`: photos that get a new row."""
        self._photoset, self._photos, self._roll = photoset, photoset.photos, roll
        self._by = name_of_list(path)
        self._at = now()
        self._said = Said(len(roll), (_LICENCE, _ATTRIBUTION))
        self._open: dict[int, _Heard] = {}
        self._claims = False
        """Whether this list says the same as rows of an earlier version, which do not name theirs."""
        self._replaced: dict[int, Photo] = {}
        """What the rows say in whose place new ones come."""
        self._same: dict[str, bool] = {}
        self.whole = False
        """Whether the source was listed to its end."""
        self._licences = Counter[tuple[str, str]]()
        """Kept photos by what held and what holds now."""
        self._attributions = 0
        self._asked = False
        """Whether anything but the first statements is there to tell of."""
        self._left = 0
        """Rows of which a list that was not read to its end has not said yet what it said before."""
        for part in self._photos.parts():
            rows = self._photos.arrow(part, [*KEY_COLUMNS, "licence", "statements", *ATTRIBUTION]).to_pylist()
            keys = [source_key(*(row[name] for name in KEY_COLUMNS)) for row in rows]
            for row, key, number in zip(rows, keys, roll.numbers(keys), strict=True):
                self._learn(row, number, replaced=key in due)

    def _learn(self, row: dict[str, Any], number: int, *, replaced: bool) -> None:
        told = row["statements"] or [{"licence": row["licence"], "by": "", "until": ""}]
        assert isinstance(told, list)
        if self._by and not row["statements"]:
            self._roll.mark(number, UNNAMED)
        if replaced:
            said: dict[str, Any] = {name: row[name] or "" for name in ("licence", *ATTRIBUTION)}
            statements = tuple(Statement(**one) for one in row["statements"] or ())
            self._replaced[number] = Photo(
                id="", source=row["source"], source_id=row["source_id"], file="", statements=statements, **said
            )
        own = {one["licence"] for one in told if not one["until"] and self._is_this(one["by"])}
        if len(own) > 1:  # whether it still says all of them shows at its end
            self._open[number] = _Heard()
        for licence in own:
            self._said.add(number, _LICENCE, licence)
        self._said.add(number, _ATTRIBUTION, "\0".join(str(row[name] or "") for name in ATTRIBUTION))

    def _is_this(self, by: str) -> bool:
        if by not in self._same:
            self._same[by] = same_list(by, self._by)
        return self._same[by]

    def first(self, item: PhotoItem, number: int, unwritten: Photo | None = None) -> Photo:
        """The row of a photo that is asked for, with what the source says and what was said of it before.

        `unwritten` is its row of an earlier run that no part holds. What this list withdraws shows when it has ended.
        """
        photo = item.photo
        self._said.add(number, _LICENCE, photo.licence)
        self._said.add(number, _ATTRIBUTION, _attribution(photo))
        before = unwritten or self._replaced.get(number)
        if before is None:
            return replace(photo, statements=(Statement(licence=photo.licence, by=self._by, at=self._at),))
        photo = replace(photo, **{name: getattr(photo, name) or getattr(before, name) for name in ATTRIBUTION})
        listed, photo = photo.licence, replace(photo, licence=before.licence, statements=all_said(before))
        if item.silent:
            return photo
        if {listed} != {one.licence for one in photo.statements if not one.until and self._is_this(one.by)}:
            self._open.setdefault(number, _Heard()).licences.add(listed)
        return restated(photo, {listed}, self._by, self._at, whole=False)

    def hear(self, item: PhotoItem, number: int, *, again: bool) -> None:
        """Compare what the source says of a photo that the set has, or in this run `again` what it said of one."""
        photo = item.photo
        attribution = {name: value for name in ATTRIBUTION if (value := getattr(photo, name))}
        news = not item.silent and not self._said.holds(number, _LICENCE, photo.licence)
        other = attribution and not self._said.holds(number, _ATTRIBUTION, _attribution(photo))
        heard = self._open.get(number)
        if heard is None and (news or other):
            heard = self._open[number] = _Heard(as_before=again)
        if not news and not item.silent and self._roll.marked(number, UNNAMED):
            self._claims |= self._roll.mark(number, CLAIMED)
        if heard is None:
            return
        if not item.silent:
            heard.licences.add(photo.licence)
        heard.attribution |= attribution

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.settle()

    @property
    def restated(self) -> int:
        """Kept photos that have another licence now, and those with another photographer, page or terms."""
        return self._licences.total() + self._attributions

    def lines(self) -> list[str]:
        """What to tell of the corrections, and of what sources disagree about."""
        lines = []
        if self._licences:
            kinds = [
                f"{count:,} {one_line(old, 60)} -> {one_line(new, 60)}"
                for (old, new), count in self._licences.most_common(MOST_NAMED)
            ]
            more = ", ..." if len(self._licences) > MOST_NAMED else ""
            lines.append(f"another licence holds of {self._licences.total():,} photos: {', '.join(kinds)}{more}")
        if self._attributions:
            lines.append(f"{self._attributions:,} photos have another photographer, page or terms")
        several = count_disputed(disputed(self._photoset))["disputed"] if self._asked else 0
        if several:
            credits = f"authface curate credits {shell_word(self._photoset.root)} names them"
            lines.append(f"sources disagree about the licence of {several:,} photos: the strictest holds; {credits}")
        if self._left:
            lines.append(f"{self._left:,} licences stay until the list is read to its end, without --limit")
        return lines

    def settle(self) -> None:
        """Write what was heard, and let the strictest licence hold; the caller holds the set's lock."""
        shared = repeated(self._photos)
        heard = {number: said for number, said in self._open.items() if said.licences or said.attribution}
        self._asked = bool(heard or shared)
        held: dict[str, tuple[str, str]] = {}
        for part in self._photos.parts() if heard or self._claims else ():
            numbers = self._roll.numbers([source_key(*names) for names in self._photos.columns(part, KEY_COLUMNS)])
            if any(number in heard or self._roll.marked(number, CLAIMED) for number in numbers):
                held |= self._settle_part(part, numbers, heard, shared)
        for photo_id, (old, new) in hold(self._photoset).items():
            held[photo_id] = held.get(photo_id, (old, new))[0], new
        self._licences.update((old or UNKNOWN, new or UNKNOWN) for old, new in held.values() if old != new)

    def _settle_part(
        self, part: int, numbers: list[int], heard: dict[int, _Heard], shared: set[str]
    ) -> dict[str, tuple[str, str]]:
        """Correct the rows of a part: by id of the kept photos what held and what holds now."""
        before, after = self._photos.rows(part), list[Photo]()
        for row, number in zip(before, numbers, strict=True):
            said = heard.get(number)
            new = self._corrected(row, said) if said else row
            if not new.statements and self._roll.marked(number, CLAIMED):
                new = restated(new, {new.licence}, self._by, self._at, whole=False)
            if row.status == "kept" and row.id in shared and new.licence != row.licence:
                # Never looser before all its names were asked, which `hold` does.
                new = replace(new, licence=strictest((row.licence, new.licence), row.licence))
            after.append(new)
        if after != before:
            rewrite(self._photos, part, before, after)
        pairs = [(old, new) for old, new in zip(before, after, strict=True) if old.status == "kept"]
        self._attributions += sum(any(getattr(a, name) != getattr(b, name) for name in ATTRIBUTION) for a, b in pairs)
        return {old.id: (old.licence, new.licence) for old, new in pairs if old.licence != new.licence}

    def _corrected(self, row: Photo, said: _Heard) -> Photo:
        own = [one for one in all_said(row) if self._is_this(one.by)]
        licences = said.licences | (set(standing(own)) if said.as_before else set())
        row = replace(row, **said.attribution)
        if not licences:
            return row
        new = restated(row, licences, self._by, self._at, whole=self.whole)
        self._left += not self.whole and not licences >= set(standing(own))
        return new


def told_again(photo: Photo, listed: PhotoItem) -> Photo:
    """The row that an earlier run completed and no part holds yet, with what `Stated.first` made of it."""
    return replace(photo, **{name: getattr(listed.photo, name) for name in (*ATTRIBUTION, "licence", "statements")})


def _attribution(photo: Photo) -> str:
    return "\0".join([getattr(photo, name) for name in ATTRIBUTION])
