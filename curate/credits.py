"""`curate credits`: who made the photos and under which licence, as a page, Markdown, CSV or plain text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import pyarrow as pa
import pyarrow.compute as pc

from authface.errors import one_line
from authface.files import replacing
from authface.inspect.why import told
from authface.report import pages as report
from authface.store.photoset import PhotoSet
from authface.store.rows import SortedRows
from authface.store.statements import Said, conditions, disputed, recognise

Format = Literal["html", "md", "csv", "txt"]
UNKNOWN = "unknown"
UNSPLASH = "https://unsplash.com/?utm_source=authface&utm_medium=referral"
"""Unsplash asks apps to link the photographer and Unsplash with their name as the source of the visit
(help.unsplash.com, guideline on attribution)."""
_COLUMNS = (
    "id", "source", "source_id", "photographer", "photographer_url", "page_url", "licence", "terms", "as_of",
    "asked_at",
)  # fmt: skip
_HEADER = (
    "licence", "photographer", "photographer_url", "photo", "page_url", "source", "terms", "as_of", "id", "stated",
    "signals", "asked_at",
)  # fmt: skip
CONDITIONS = ("NC", "SA", "ND")
"""Of licences, as Creative Commons calls them: not commercially, alike, unchanged."""


@dataclass(frozen=True)
class Credit:
    """One photo and who made it; links are http or https or empty."""

    id: str
    source: str
    source_id: str
    photographer: str
    profile: str
    page: str
    licence: str
    terms: str
    as_of: str
    stated: str
    """All that was said of its licence, where that is more than one thing."""
    signals: str
    """What machines are told of training on it, with where and when it was read; see `authface.records.Signal`."""
    asked_at: str

    @property
    def name(self) -> str:
        """The photographer's name, or that nobody is known."""
        return self.photographer or "unknown"

    @property
    def of_unsplash(self) -> bool:
        """Whether the credit takes Unsplash's form: Photo by NAME on Unsplash."""
        return self.source.startswith("unsplash")


_FIELDS = tuple(one.name for one in fields(Credit))
_LAST = (1 << 63) - 1
"""Of SQLite's numbers of rows."""


@dataclass(frozen=True)
class Maker:
    """A photographer's photos under one licence."""

    first: Credit
    """The credit that name and profile are taken from."""
    photos: int
    credits: Iterator[Credit]
    """By their names in the source, read once."""


@dataclass(frozen=True)
class LicenceGroup:
    """All photographers of one licence."""

    licence: str
    photos: int
    photographers: int
    makers: Iterator[Maker]

    @property
    def warning(self) -> str:
        """What is wrong with it: nobody stated one, or nobody here knows what it allows; empty: nothing is."""
        if self.licence == UNKNOWN:
            return "nobody stated a licence of these photos: ask before you use them"
        return "" if recognise(self.licence) else "this is no licence that is known here: ask before you use them"


class Credits(SortedRows):
    """The photos that any kept crop shows, or every kept photo; sorted by licence (unknown first) and photographer.

    They lie in a temporary file of SQLite, so that memory does not grow with them. What an older set lacks is empty.
    Of each `stated` tells what was said of its licence where that was corrected or sources disagree, `conditions` those
    of any licence that is still stated. Raises AuthfaceError where there is no room for the file.
    """

    def __init__(self, photoset: PhotoSet, *, every: bool = False) -> None:
        said, parts = disputed(photoset), photoset.photos.parts()
        if not every:
            parts = sorted({*parts} & {*photoset.crops.parts()})
        rows = (row for part in parts for row in _stored(_kept(photoset, part, every=every), said))
        order = f"licence != '{UNKNOWN}', licence, photographer, source, source_id"
        super().__init__((*_FIELDS, "conditions"), rows, order)

    def __iter__(self) -> Iterator[Credit]:
        return self._between(1, _LAST)

    def counts(self) -> dict[str, int]:
        """Photos, photographers, licences, photos of unknown licence and of those with a condition."""
        asked = {
            "photos": "count(*)",
            "photographers": "count(distinct nullif(photographer, ''))",
            "licences": "count(distinct licence)",
            "of unknown licence": f"count(nullif(licence = '{UNKNOWN}', 0))",
            **{f"under {one} licences": f"count(nullif(instr(conditions, '{one}'), 0))" for one in CONDITIONS},
        }
        found = next(self.select(f"{', '.join(asked.values())} from sorted"))
        return dict(zip(asked, found, strict=True))

    def groups(self) -> Iterator[LicenceGroup]:
        """The credits, licence by licence; the makers of a group are read once, in order."""
        found = self.select(
            "licence, count(*), count(distinct nullif(photographer, '')), min(rowid), max(rowid) from sorted "
            "group by licence order by min(rowid)"
        )
        for licence, photos, photographers, first, last in found:
            yield LicenceGroup(licence, photos, photographers, self._makers(first, last))

    def _makers(self, first: int, last: int) -> Iterator[Maker]:
        """The makers of the credits of these numbers, each found in a first reading of its credits."""
        for _, made in groupby(self._between(first, last), key=lambda credit: (credit.photographer, credit.source)):
            shown, photos = _counted(made)
            yield Maker(shown, photos, self._between(first, first + photos - 1))
            first += photos

    def _between(self, first: int, last: int) -> Iterator[Credit]:
        """The credits of these numbers, in order."""
        asked = f"{', '.join(_FIELDS)} from sorted where rowid between ? and ? order by rowid"
        yield from (Credit(*row) for row in self.select(asked, (first, last)))


def _counted(made: Iterator[Credit]) -> tuple[Credit, int]:
    """The first of a maker's credits that has a profile, or the first of all; and how many there are."""
    shown = next(made)
    photos = 1
    for credit in made:
        photos += 1
        shown = shown if shown.profile or not credit.profile else credit
    return shown, photos


def _kept(photoset: PhotoSet, part: int, *, every: bool) -> pa.Table:
    """The photos of one part that a kept crop of it shows, or every kept photo; in its order."""
    rows = photoset.photos.arrow(part, [*_COLUMNS, "signals", "status"])
    rows = rows.filter(pc.equal(rows.column("status"), "kept"))
    if every:
        return rows
    crops = photoset.crops.arrow(part, ["photo_id", "status"])
    shown = crops.column("photo_id").filter(pc.equal(crops.column("status"), "kept"))
    return rows.filter(pc.is_in(rows.column("id"), shown.combine_chunks()))


def _stored(rows: pa.Table, said: Mapping[str, Sequence[Said]]) -> Iterator[tuple[str, ...]]:
    """What is stored of photos: the fields of their credits, then their conditions."""
    columns = [pc.fill_null(rows.column(name), "").to_pylist() for name in _COLUMNS]
    for *values, signals in zip(*columns, rows.column("signals").to_pylist(), strict=True):
        row = dict(zip(_COLUMNS, values, strict=True))
        lines = said.get(row["id"], ())
        link = referred if row["source"].startswith("unsplash") else web_link
        row |= {
            "profile": link(row["photographer_url"]),
            "page": link(row["page_url"]),
            "licence": row["licence"] or UNKNOWN,
            "stated": told(lines),
            "signals": _told(signals),
        }
        yield *(row[name] for name in _FIELDS), _conditions(row["licence"], lines)


def _conditions(licence: str, said: Sequence[Said]) -> str:
    return " ".join(conditions([licence, *(one.statement.licence for one in said if one.stands)]))


def write_credits(photoset: PhotoSet, format: Format, *, every: bool = False) -> tuple[Path, dict[str, int]]:
    """Write ``reports/credits.<format>``; its path and the counts of `Credits`. Raises AuthfaceError (disk)."""
    path = photoset.root / "reports" / f"credits.{format}"
    with Credits(photoset, every=every) as found:
        counts = found.counts()
        if format == "html":
            facts = [(name, f"{count:,}") for name, count in counts.items()]
            title = f"Credits of {one_line(photoset.root.resolve().name)}"
            report.write_page(
                path, "credits.html.jinja", title=title, summary=facts, groups=found.groups(), home=UNSPLASH
            )
        else:
            lines = {"md": _markdown, "csv": _csv, "txt": _text}[format]
            with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
                file.writelines(lines(found))
    return path, counts


def _told(signals: list[dict[str, str]] | None) -> str:
    """The signals of a row in words, one after the other."""
    return " | ".join(
        f"{one['verdict']} by {one['kind']} at {one['where']}, {one['at']}: {one['said']}" for one in signals or ()
    )


def web_link(url: str) -> str:
    """`url` if it leads to a host by http or https, else nothing: it must never become a script or a local file."""
    if not url.isprintable() or " " in url or "\\" in url:
        return ""
    try:
        parts = urlsplit(url)
        return url if parts.scheme in {"http", "https"} and parts.hostname and "@" not in parts.netloc else ""
    except ValueError:
        return ""


def referred(url: str) -> str:
    """A web link that names authface as the referrer, as Unsplash asks."""
    if not (url := web_link(url)):
        return ""
    parts = urlsplit(url)
    query = [(key, value) for key, value in parse_qsl(parts.query) if key not in {"utm_source", "utm_medium"}]
    return urlunsplit(parts._replace(query=urlencode([*query, ("utm_source", "authface"), ("utm_medium", "referral")])))


def _markdown(found: Credits) -> Iterator[str]:
    yield "# Credits\n"
    for group in found.groups():
        yield f"\n## {_md(group.licence)} ({group.photos:,} photos, {group.photographers:,} photographers)\n\n"
        if group.warning:
            yield f"**{group.warning[:1].upper()}{group.warning[1:]}.**\n\n"
        for maker in group.makers:
            first = maker.first
            by = f"[{_md(first.name)}]({_md_url(first.profile)})" if first.profile else _md(first.name)
            on = f" on [Unsplash]({_md_url(UNSPLASH)})" if first.of_unsplash else ""
            before = f"- Photo{'s' * (maker.photos > 1)} by {by}{on}: "
            for credit in maker.credits:
                name = _md(credit.source_id)
                stated = f" (stated: {_md(credit.stated)})" if credit.stated else ""
                yield before + (f"[{name}]({_md_url(credit.page)})" if credit.page else name) + stated
                before = ", "
            yield "\n"


def _md(text: str) -> str:
    text = one_line(text, 200)
    for sign in "\\|`*_[]<>#!&":
        text = text.replace(sign, "\\" + sign)
    return text


def _md_url(url: str) -> str:
    return url.replace("(", "%28").replace(")", "%29").replace("<", "%3C").replace(">", "%3E")


def _csv(found: Credits) -> Iterator[str]:
    yield _csv_line(_HEADER)
    for group in found.groups():
        for maker in group.makers:
            for c in maker.credits:
                row = (c.licence, c.name, c.profile, c.source_id, c.page, c.source, c.terms, c.as_of, c.id, c.stated)
                yield _csv_line(tuple(_cell(value) for value in (*row, c.signals, c.asked_at)))


def _csv_line(values: tuple[str, ...]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerow(values)
    return buffer.getvalue()


def _cell(value: str) -> str:
    """A value that no spreadsheet takes for a formula."""
    text = one_line(value, 2000)
    return "'" + text if text[:1] in {"=", "+", "-", "@"} else text


def _text(found: Credits) -> Iterator[str]:
    for group in found.groups():
        warning = f": {group.warning}" if group.warning else ""
        yield f"{one_line(group.licence)} ({group.photos:,} photos{warning})\n"
        for maker in group.makers:
            first = maker.first
            on = " on Unsplash" if first.of_unsplash else ""
            yield f"  Photo by {one_line(first.name)}{on}{' <' + first.profile + '>' if first.profile else ''}\n"
            for credit in maker.credits:
                yield f"    {one_line(credit.source_id)}{' ' + credit.page if credit.page else ''}\n"
                if credit.stated:
                    yield f"      stated: {one_line(credit.stated, 2000)}\n"
        yield "\n"
