"""`curate credits`: who made the photos and under which licence, as a page, Markdown, CSV or plain text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import pyarrow as pa
import pyarrow.compute as pc

from authface.errors import one_line
from authface.files import replacing
from authface.licences import conditions, recognise
from authface.report import pages as report
from authface.store.photoset import PhotoSet
from authface.store.statements import Said, disputed, told

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


@dataclass(frozen=True)
class Maker:
    """A photographer's photos under one licence."""

    credits: list[Credit]

    @property
    def first(self) -> Credit:
        """The credit that name and profile are taken from."""
        return next((credit for credit in self.credits if credit.profile), self.credits[0])


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


def credits(photoset: PhotoSet, *, every: bool = False) -> pa.Table:
    """The photos that any kept crop shows, or every kept photo; sorted by licence (unknown first) and photographer.

    Held as columns, about 300 bytes a photo. A column that an older set lacks is empty. `stated` is what was said of a
    licence where that was corrected or sources disagree, `conditions` those of any licence that is still stated.
    """
    names = (*_COLUMNS, "signals", "stated", "conditions")
    schema, said = pa.schema([(name, pa.string()) for name in names]), disputed(photoset)
    parts = [_credits(photoset, part, said, schema, every=every) for part in photoset.photos.parts()]
    table = pa.concat_tables(parts) if parts else schema.empty_table()
    order = [(name, "ascending") for name in ("known", "licence", "photographer", "source", "source_id")]
    known = pc.not_equal(table.column("licence"), UNKNOWN)
    return table.append_column("known", known).sort_by(order).drop_columns(["known"])


def _credits(
    photoset: PhotoSet, part: int, said: Mapping[str, Sequence[Said]], schema: pa.Schema, *, every: bool
) -> pa.Table:
    """Those of one part, in its order."""
    rows = photoset.photos.arrow(part, [*_COLUMNS, "signals", "status"])
    rows = rows.filter(pc.equal(rows.column("status"), "kept"))
    if not every:
        rows = rows.filter(pc.is_in(rows.column("id"), _shown(photoset, part)))
    columns = {name: pc.fill_null(rows.column(name), "") for name in _COLUMNS}
    licences = columns["licence"]
    columns["licence"] = pc.if_else(pc.equal(licences, ""), UNKNOWN, licences)
    columns["signals"] = [_told(signals) for signals in rows.column("signals").to_pylist()]
    ids = columns["id"].to_pylist()
    columns["stated"] = [told(said.get(name, ())) for name in ids]
    columns["conditions"] = list(map(_conditions, columns["licence"].to_pylist(), map(said.get, ids)))
    return pa.table(columns, schema=schema)


def _conditions(licence: str, said: Sequence[Said] | None) -> str:
    return " ".join(conditions([licence, *(one.statement.licence for one in said or () if one.stands)]))


def write_credits(photoset: PhotoSet, format: Format, *, every: bool = False) -> tuple[Path, pa.Table]:
    """Write ``reports/credits.<format>`` and give its path and the credits. Raises AuthfaceError (disk)."""
    table = credits(photoset, every=every)
    path = photoset.root / "reports" / f"credits.{format}"
    if format == "html":
        facts = [(name, f"{count:,}") for name, count in counts(table).items()]
        title = f"Credits of {one_line(photoset.root.resolve().name)}"
        report.write_page(path, "credits.html.jinja", title=title, summary=facts, groups=groups(table), home=UNSPLASH)
        return path, table
    lines = {"md": _markdown, "csv": _csv, "txt": _text}[format]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.writelines(lines(table))
    return path, table


def counts(table: pa.Table) -> dict[str, int]:
    """Photos, photographers, licences, photos of unknown licence and of those with a condition."""
    return {
        "photos": table.num_rows,
        "photographers": len(set(table.column("photographer").unique().to_pylist()) - {""}),
        "licences": len(table.column("licence").unique()),
        "of unknown licence": pc.sum(pc.equal(table.column("licence"), UNKNOWN)).as_py() or 0,
        **{f"under {one} licences": _holding(table, one) for one in CONDITIONS},
    }


def _holding(table: pa.Table, condition: str) -> int:
    return pc.sum(pc.match_substring(table.column("conditions"), condition)).as_py() or 0


def groups(table: pa.Table) -> Iterator[LicenceGroup]:
    """The sorted credits, licence by licence; the makers of a group are read once, in order."""
    start = 0
    for count in table.column("licence").value_counts().to_pylist():
        rows = table.slice(start, count["counts"])
        makers = len(rows.column("photographer").unique())
        yield LicenceGroup(count["values"], rows.num_rows, makers, _makers(rows))
        start += rows.num_rows


def _makers(rows: pa.Table) -> Iterator[Maker]:
    held: list[Credit] = []
    for batch in rows.to_batches(max_chunksize=1000):
        for row in batch.to_pylist():
            credit = _credit(row)
            if held and (held[0].photographer, held[0].source) != (credit.photographer, credit.source):
                yield Maker(held)
                held = []
            held.append(credit)
    if held:
        yield Maker(held)


def _credit(row: dict[str, Any]) -> Credit:
    tag = referred if row["source"].startswith("unsplash") else web_link
    return Credit(
        id=row["id"],
        source=row["source"],
        source_id=row["source_id"],
        photographer=row["photographer"],
        profile=tag(row["photographer_url"]),
        page=tag(row["page_url"]),
        licence=row["licence"],
        terms=row["terms"],
        as_of=row["as_of"],
        stated=row["stated"],
        signals=row["signals"],
        asked_at=row["asked_at"],
    )


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


def _shown(photoset: PhotoSet, part: int) -> pa.Array:
    """Ids of the photos of which a crop of this part is kept."""
    if part not in photoset.crops.parts():
        return pa.array([], pa.string())
    rows = photoset.crops.arrow(part, ["photo_id", "status"])
    return rows.column("photo_id").filter(pc.equal(rows.column("status"), "kept")).combine_chunks()


def _markdown(table: pa.Table) -> Iterator[str]:
    yield "# Credits\n"
    for group in groups(table):
        yield f"\n## {_md(group.licence)} ({group.photos:,} photos, {group.photographers:,} photographers)\n\n"
        if group.warning:
            yield f"**{group.warning[:1].upper()}{group.warning[1:]}.**\n\n"
        for maker in group.makers:
            first = maker.first
            by = f"[{_md(first.name)}]({_md_url(first.profile)})" if first.profile else _md(first.name)
            on = f" on [Unsplash]({_md_url(UNSPLASH)})" if first.of_unsplash else ""
            photos = ", ".join(
                (f"[{_md(credit.source_id)}]({_md_url(credit.page)})" if credit.page else _md(credit.source_id))
                + (f" (stated: {_md(credit.stated)})" if credit.stated else "")
                for credit in maker.credits
            )
            yield f"- Photo{'s' * (len(maker.credits) > 1)} by {by}{on}: {photos}\n"


def _md(text: str) -> str:
    text = one_line(text, 200)
    for sign in "\\|`*_[]<>#!&":
        text = text.replace(sign, "\\" + sign)
    return text


def _md_url(url: str) -> str:
    return url.replace("(", "%28").replace(")", "%29").replace("<", "%3C").replace(">", "%3E")


def _csv(table: pa.Table) -> Iterator[str]:
    yield _csv_line(_HEADER)
    for group in groups(table):
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


def _text(table: pa.Table) -> Iterator[str]:
    for group in groups(table):
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
