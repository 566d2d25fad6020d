"""The before/after pages of a large run: an index that opens at once, and pages of some hundred photos behind it.

All works from a disk without a server: links and lazy pictures, nothing is fetched by a script. A picture is one file
with the photo before on its left half and after on its right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from authface.report.pages import Facts, ReportTable, write_page

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AlbumPicture:
    """One picture before and after."""

    name: str
    halves: str = ""
    """Path, from the page, of the file with both; empty: they lie in two files, or are not to be shown."""
    before: str = ""
    after: str = ""
    size: tuple[int, int] = (1, 1)
    """Width and height of one of them, as far as their ratio tells."""
    notes: Facts = ()


@dataclass(frozen=True, slots=True)
class AlbumEntry:
    """One photo or video with its faces or frames."""

    name: str
    source: str
    """Path of the input from the page, as the next of the result."""
    target: str
    pictures: Sequence[AlbumPicture]
    notes: Facts = ()
    change_map: str = ""
    """Likewise of the map of what changed; empty: none."""


@dataclass(frozen=True, slots=True)
class AlbumPage:
    """A page that was written."""

    file: str
    """Its path from the index."""
    title: str
    first: str
    """What it begins with, and ends with."""
    last: str


def write_pages(
    folder: Path, kind: str, title: str, entries: Iterable[AlbumEntry], count: int, size: int
) -> list[AlbumPage]:
    """Write `count` entries as pages of `size` into a folder beside the index; read once, a page at a time in memory.

    Raises AuthfaceError where the disk refuses.
    """
    pages: list[AlbumPage] = []
    total = -(-count // size)
    for number, some in enumerate(_chunks(entries, size), 1):
        file = _file(kind, number)
        first = (number - 1) * size + 1
        name = f"{title} {first:,} to {first + len(some) - 1:,} of {count:,}"
        near = (_file(kind, number - 1) if number > 1 else "", _file(kind, number + 1) if number < total else "")
        write_page(folder / file, "album.html.jinja", title=name, summary=(), entries=some, table=None, near=near)
        pages.append(AlbumPage(f"{folder.name}/{file}", name, some[0].name, some[-1].name))
    return pages


def write_tables(
    folder: Path, kind: str, title: str, header: Sequence[str], rows: Sequence[Sequence[str]], size: int
) -> list[AlbumPage]:
    """Likewise rows of text. Raises AuthfaceError where the disk refuses."""
    pages = []
    for start in range(0, len(rows), size):
        number, some = start // size + 1, rows[start : start + size]
        name = f"{title} {start + 1:,} to {start + len(some):,} of {len(rows):,}"
        more = start + size < len(rows)
        near = (_file(kind, number - 1) if start else "", _file(kind, number + 1) if more else "")
        table = ReportTable(header, some)
        file = _file(kind, number)
        write_page(folder / file, "album.html.jinja", title=name, summary=(), entries=(), table=table, near=near)
        pages.append(AlbumPage(f"{folder.name}/{file}", name, some[0][0], some[-1][0]))
    return pages


def write_index(path: Path, title: str, summary: Facts, groups: Sequence[tuple[str, Sequence[AlbumPage]]]) -> None:
    """Write the page that links all others, in groups. Raises AuthfaceError where the disk refuses."""
    write_page(path, "album_index.html.jinja", title=title, summary=summary, groups=groups)


def _file(kind: str, number: int) -> str:
    return f"{kind}-{number:04d}.html"


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
