"""Static HTML pages: contact sheets, before/after pages and the demo's story. No server, no outside asset.

A page is one file that can be mailed: pictures lie inside it as JPEG thumbnails. All text is data and is
escaped; it may hold newlines, markup and bytes that are no UTF-8. Markdown cards for the hub are made likewise.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from authface import __version__
from authface.errors import one_line
from authface.files import replacing, write_file
from authface.imaging.decode import encode_jpeg

BINS = 48
"""Bars of a histogram: one is about 10 px wide on a page."""
NOTHING = 1e-300
"""A span below this is none: parts of it would leave the range of floats."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of one measure over equal bins, kept and rejected apart.

    The first and the last bin also hold what lies below and above them (`beyond` says how many), so that a few
    outliers do not press all others into one bar.
    """

    name: str
    note: str
    """What the measure says and its unit, in a few words."""
    edges: Sequence[float]
    """n + 1 ascending edges of the n bins."""
    kept: Sequence[int]
    rejected: Sequence[int]
    limits: Sequence[tuple[str, float]] = ()
    """Name and place of each threshold, such as ``("min_sharpness", 0.15)``."""
    beyond: tuple[int, int] = (0, 0)
    """Values below the first and above the last edge."""

    @property
    def total(self) -> int:
        """Values of both kinds."""
        return sum(self.kept) + sum(self.rejected)

    @property
    def highest(self) -> int:
        """Count of the fullest bin, both kinds together."""
        return max((a + b for a, b in zip(self.kept, self.rejected, strict=True)), default=0)

    @property
    def summary(self) -> str:
        """The chart in words, for those who do not see it."""
        limits = "; ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in self.limits)
        beyond = sum(self.beyond)
        said = [f"{sum(self.kept):,} kept, {sum(self.rejected):,} rejected", limits]
        said += [f"{beyond:,} beyond the axis, in its last bars" if beyond else ""]
        return "; ".join(part for part in said if part)

    def place(self, value: float) -> float:
        """Where `value` lies between the first edge (0) and the last (1), cut to these."""
        low, high = self.edges[0], self.edges[-1]
        return min(1.0, max(0.0, (value - low) / (high - low)))

    def bars(self) -> list[tuple[float, float, float, float]]:
        """Left end, width, height of the kept and of the rejected part of every bar that is not empty, as shares.

        A bar that holds anything is at least 0.008 high: one face in a million is still seen.
        """
        width, top = 1 / len(self.kept), max(1, self.highest)
        return [
            (index * width, width, max(kept / top, 0.008) if kept else 0.0, max(cut / top, 0.008) if cut else 0.0)
            for index, (kept, cut) in enumerate(zip(self.kept, self.rejected, strict=True))
            if kept or cut
        ]


def round_span(low: float, high: float, bins: int = BINS) -> tuple[float, float]:
    """Smallest range covering `low`..`high` whose ends are multiples of 1, 2 or 5 of a power of ten."""
    if not (math.isfinite(low) and math.isfinite(high)) or high - low < NOTHING:
        middle = low if math.isfinite(low) else 0.0
        reach = max(abs(middle) * 0.1, 0.5)
        return middle - reach, middle + reach
    power = 10.0 ** math.floor(math.log10((high - low) / bins))
    step = next(power * factor for factor in (1, 2, 5, 10, 20, 50) if power * factor * bins >= (high - low))
    # What is next to nothing beside a step may be rounded away from its side.
    return min(low, math.floor(low / step) * step), max(high, math.ceil(high / step) * step)


class HistogramCounter:
    """Counts values into `bins` equal bins between `low` and `high`, batch by batch."""

    def __init__(self, low: float, high: float, bins: int = BINS) -> None:
        self.edges: NDArray[np.float64] = np.linspace(low, high, bins + 1)
        self.counts: NDArray[np.int64] = np.zeros((2, bins), np.int64)
        self.beyond = [0, 0]

    def add(self, values: NDArray[np.float64], kept: NDArray[np.bool_]) -> None:
        """Count `values`; those that are no numbers are left out."""
        low, high = self.edges[0], self.edges[-1]
        real = np.isfinite(values)
        values, kept = values[real], kept[real]
        self.beyond[0] += int((values < low).sum())
        self.beyond[1] += int((values > high).sum())
        bins = self.counts.shape[1]
        place = np.clip(((values - low) * (bins / (high - low))).astype(np.int64), 0, bins - 1)
        for row, chosen in enumerate((kept, ~kept)):
            self.counts[row] += np.bincount(place[chosen], minlength=bins)

    def histogram(self, name: str, note: str, limits: Sequence[tuple[str, float]] = ()) -> Histogram:
        """What was counted."""
        kept, rejected = self.counts.tolist()
        return Histogram(name, note, self.edges.tolist(), kept, rejected, limits, (self.beyond[0], self.beyond[1]))


Facts = Sequence[tuple[str, str]]
"""Name and value, already formatted."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One picture with a line of name and a line of what was measured."""

    image: NDArray[np.uint8] | None
    """(h, w, 3) RGB or (h, w) grey; None where there is nothing to show, such as a broken file."""
    caption: str
    detail: str = ""
    link: str = ""
    """A path relative to the page that a click opens, such as ``../crops/ab/abcd-0.png``."""


@dataclass(frozen=True, slots=True)
class PictureRow:
    """Pictures of one face side by side, and what was measured of it."""

    name: str
    cells: Sequence[Cell]
    figures: Facts


@dataclass(frozen=True, slots=True)
class SheetGroup:
    """Some of the rows of one outcome, such as ``kept`` or ``rejected: no_face``."""

    name: str
    note: str
    total: int
    """Rows of this outcome; `cells` may be an even sample of them, and the page says so."""
    cells: Sequence[Cell]


@dataclass(frozen=True, slots=True)
class FunnelRow:
    """One outcome or one stage."""

    name: str
    count: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Funnel:
    """A bar a row, as shares of `total`; 0 takes the sum of the rows, which are then disjoint outcomes."""

    rows: Sequence[FunnelRow]
    total: int = 0

    @property
    def whole(self) -> int:
        """The count that is 100 %."""
        return self.total or sum(row.count for row in self.rows)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A picture before and after, of the same scene and not always of the same size."""

    name: str
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    notes: Facts = ()
    labels: tuple[str, str] = ("before", "after")
    """What the two pictures are called."""


@dataclass(frozen=True, slots=True)
class ReportTable:
    """Rows of formatted values under a header of the same length."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Section:
    """A chapter of a story; an empty line in `text` begins a paragraph."""

    title: str
    text: str
    figures: Sequence[Cell] = ()
    table: ReportTable | None = None
    pairs: Sequence[Comparison] = ()
    funnel: Funnel | None = None


def contact_sheet(
    path: Path,
    title: str,
    summary: Facts,
    groups: Iterable[SheetGroup],
    funnel: Funnel | None = None,
    charts: Sequence[Histogram] = (),
) -> None:
    """Write a page of thumbnails by outcome, under a table of counts where there is a `funnel` and its `charts`.

    `groups` is read once; only the thumbnails of a group stay in memory, so it may decode as it goes.
    Raises AuthfaceError where the disk refuses.
    """
    shelves = [(group.name, group.total, shelf(group)) for group in groups]
    values = {"title": title, "summary": summary, "funnel": funnel, "shelves": shelves, "charts": charts}
    write_page(path, "contact_sheet.html.jinja", **values)


def shelf(group: SheetGroup) -> str:
    """The thumbnails of a group as HTML, for a template that shows shelves."""
    part = _environment().get_template("_parts.html.jinja").module
    made: str = part.shelf(group, _inline)  # type: ignore[attr-defined]  # a macro
    return made


def before_after(
    path: Path, title: str, pairs: Iterable[Comparison], summary: Facts = (), *, embed: bool = True
) -> None:
    """Write a page with a slider for each pair, and the pair side by side.

    `pairs` is read once and one at a time. `embed=False` puts the pictures in the folder ``<page>.files``
    beside the page, for runs of hundreds. Raises AuthfaceError where the disk refuses.
    """
    if embed:
        write_page(path, "before_after.html.jinja", title=title, summary=summary, pairs=pairs, place=_inline, side=1024)
        return
    folder = path.with_name(path.name + ".files")
    placed: set[str] = set()

    def beside(image: NDArray[np.uint8], side: int) -> str:
        data = _jpeg(image, side)
        name = hashlib.sha256(data).hexdigest()[:32] + ".jpg"
        placed.add(name)
        if not (folder / name).exists():
            write_file(folder / name, data)
        return f"{quote(os.fsencode(folder.name))}/{name}"

    write_page(path, "before_after.html.jinja", title=title, summary=summary, pairs=pairs, place=beside, side=2048)
    for old in folder.glob("*.jpg"):
        if old.name not in placed:
            old.unlink(missing_ok=True)


def story(path: Path, title: str, sections: Sequence[Section], summary: Facts = ()) -> None:
    """Write one page that tells a run from the first stage to the last. Raises AuthfaceError where the disk refuses."""
    write_page(path, "story.html.jinja", title=title, summary=summary, sections=sections, place=_inline, side=1024)


def quantity(value: float | None) -> str:
    """A number for a person: 12,345, 27.3, 0.0123; ``n/a`` where nothing was measured."""
    if value is None or not math.isfinite(value):
        return "n/a"
    if value == round(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def share(part: float, whole: float) -> str:
    """`part` of `whole` in percent, never rounded to none or all of it: ``0.3 %``, ``<0.1 %``, ``>99.9 %``."""
    if whole <= 0:
        return "n/a"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "<0.1 %"
    if 99.9 < percent < 100:
        return ">99.9 %"
    return f"{percent:.0f} %" if 10 <= percent < 99.5 or percent in {0, 100} else f"{percent:.1f} %"


def write_page(path: Path, template: str, **values: Any) -> None:
    """Fill a template of `authface.report.templates`, piece by piece. Raises AuthfaceError where the disk refuses."""
    page = _environment().get_template(template)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(page.generate(**values, made=datetime.now(UTC)))


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("authface.report", "templates"),
        autoescape=True,
        finalize=_printable,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        version=__version__,
        quantity=quantity,
        share=share,
        tone=_tone,
        shape=_shape,
        bar_width=_bar_width,
        inline=_inline,
    )
    environment.filters.update(slug=_slug, link=_link)
    return environment


def _printable(value: object) -> object:
    """`value` without control characters, turned text or lone surrogates, which no UTF-8 file can hold."""
    return value if hasattr(value, "__html__") else one_line(value, 10_000)


def _tone(name: str) -> str:
    """The colour of an outcome: `kept`, `rejected`, `failed`, or `plain` for anything else."""
    found = re.search(r"\b(kept|rejected|failed)\b", name)
    return found.group() if found else "plain"


def _bar_width(count: int, whole: int) -> int:
    """0..1000; a count that is not 0 shows as a hair at least."""
    return max(round(1000 * count / whole), 4) if count and whole else 0


def _slug(name: str) -> str:
    """A name for an anchor, unique to `name`."""
    return "g-" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _link(path: str) -> str:
    """`path` as a URL below the page, whatever it begins with: never ``javascript:`` and never another host."""
    return "./" + quote(os.fsencode(path))


def _shape(image: NDArray[np.uint8]) -> tuple[int, int]:
    """Width and height in pixels."""
    return image.shape[1], image.shape[0]


def _inline(image: NDArray[np.uint8], side: int) -> str:
    return Markup("data:image/jpeg;base64," + base64.b64encode(_jpeg(image, side)).decode())


def _jpeg(image: NDArray[np.uint8], side: int) -> bytes:
    scale = side / max(image.shape[:2])
    if scale < 1:
        width, height = (max(1, round(length * scale)) for length in _shape(image))
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return encode_jpeg(image, quality=92 if side > 512 else 85)


def render_markdown(template: str, /, **values: Any) -> str:
    """The Markdown of a template of `authface.report.templates`; its filter `cell` is for text from outside."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("authface.report", "templates"),
        autoescape=False,  # Markdown, not HTML: `cell` escapes what comes from outside
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = markdown_cell
    return environment.get_template(template).render(**values)


def markdown_cell(value: object) -> str:
    """Text from outside as it may stand in a Markdown table: one line, no markup that could act."""
    text = one_line(value, 200)
    for sign in "\\|`*_[]<>#":
        text = text.replace(sign, "\\" + sign)
    return text
