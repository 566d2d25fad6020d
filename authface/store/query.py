"""Find photos of a set by id, prefix of an id, name in the source, page or photographer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from authface.errors import UsageError, one_line
from authface.records import Photo
from authface.store.parquet import row_reader
from authface.store.photoset import PhotoSet

Mask = Callable[[pa.Table], pa.ChunkedArray]

MIN_DIGITS = 6
"""Shortest prefix of an id, in digits, that is accepted in its place."""
_ID = re.compile(rf"([0-9a-f]{{{MIN_DIGITS},64}})(--?[0-9]+)?")
_COLUMNS = ["id", "source", "source_id", "file", "page_url", "file_url", "photographer", "photographer_url"]


@dataclass(frozen=True)
class PhotoMatch:
    """A row of the table `photos`, and the number of its part."""

    part: int
    photo: Photo


def find_photo(photoset: PhotoSet, text: str) -> list[PhotoMatch]:
    """The rows of the one photo that `text` names: photo id, face id, a prefix of these of six digits or more, the
    name in its source, the last part of that name, or its page.

    Several rows if the same bytes were fetched more than once. Raises UsageError where nothing or more than one fits.
    """
    matches = list(_matching(photoset, lambda rows: _named(rows, text)))
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
    return matches


def photos_of(photoset: PhotoSet, photographer: str) -> list[PhotoMatch]:
    """Every photo of a photographer, by name (any case) or by their page (with or without its query)."""
    name = photographer.casefold()
    page = name.partition("?")[0].rstrip("/")

    def mask(rows: pa.Table) -> pa.ChunkedArray:
        by_name = pc.equal(pc.utf8_lower(rows.column("photographer")), name)
        url = pc.replace_substring_regex(pc.utf8_lower(rows.column("photographer_url")), r"/*(\?.*)?$", "")
        return pc.or_(by_name, pc.and_(pc.equal(url, page), pc.not_equal(url, "")))

    return list(_matching(photoset, mask))


def _matching(photoset: PhotoSet, mask: Mask) -> Iterator[PhotoMatch]:
    read = row_reader(Photo)
    for part in photoset.photos.parts():
        places = mask(photoset.photos.arrow(part, _COLUMNS)).to_numpy().nonzero()[0]
        if len(places):
            yield from (PhotoMatch(part, read(row)) for row in photoset.photos.arrow(part).take(places).to_pylist())


def _named(rows: pa.Table, text: str) -> pa.ChunkedArray:
    name = rows.column("source_id")
    mask = pc.or_(pc.equal(name, text), pc.ends_with(name, "/" + text))
    for column in ("page_url", "file_url"):
        if text:
            mask = pc.or_(mask, pc.fill_null(pc.equal(rows.column(column), text), False))
    if shape := _ID.fullmatch(text):
        mask = pc.or_(mask, pc.starts_with(rows.column("id"), shape[1]))
    return mask
