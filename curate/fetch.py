"""`curate fetch`: a source's photos into the set, byte for byte, named by content, each with its row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from authface import images
from authface.console import Console
from authface.curate.settings import FetchSettings
from authface.curate.sources import Item, Source
from authface.errors import ImageError
from authface.photoset import PhotoSet, Provenance
from authface.records import Photo
from authface.runner import PartInput, Summary, run

VERSION = 1
MEGA = 1_000_000


@dataclass(frozen=True)
class Fetched:
    """A photo that was read and decoded once to be sure of it."""

    data: bytes
    photo: Photo


@dataclass(frozen=True)
class Fetch:
    """Read, decode and store one photo."""

    root: Path
    settings: FetchSettings
    batch_size: int = 8

    @property
    def provenance(self) -> Provenance:
        """Photos are never fetched again for a changed setting: it speaks of the photos to come."""
        return Provenance("fetch", VERSION, {}, {})

    def open(self) -> None:
        """Nothing to load."""

    def load(self, item: Item) -> Fetched:
        """Read and decode. Raises ImageError."""
        if item.problem:
            raise ImageError("unreadable", item.problem)
        data = images.read_bytes(Path(item.path), max_bytes=int(self.settings.max_megabytes * MEGA))
        decoded = images.decode(data, max_pixels=int(self.settings.max_megapixels * MEGA))
        height, width = decoded.rgb.shape[:2]
        photo_id = hashlib.sha256(data).hexdigest()
        photo = replace(
            _row(item),
            id=photo_id,
            file=PhotoSet(self.root).photo_file(photo_id, images.EXTENSIONS[decoded.format]),
            width=width,
            height=height,
            bytes=len(data),
            format=decoded.format,
        )
        return Fetched(data, photo)

    def step(self, batch: Sequence[Fetched]) -> Sequence[Fetched]:
        """No model looks at the photos yet."""
        return batch

    def save(self, item: Item, fetched: Fetched) -> list[Photo]:
        """Store the bytes unless the photo is too small."""
        photo = fetched.photo
        long_side, least = max(photo.width, photo.height), self.settings.min_long_side
        if long_side < least:
            return [replace(photo, file="", status="rejected", reason="small_photo", value=long_side, limit=least)]
        if not (self.root / photo.file).is_file():
            PhotoSet(self.root).save(photo.file, fetched.data)
        return [photo]

    def failed(self, item: Item, reason: str, detail: str) -> list[Photo]:
        """The row of a photo that could not be read."""
        return [replace(_row(item), status="failed", reason=reason, detail=detail)]


def fetch(
    photoset: PhotoSet, source: Source, settings: FetchSettings, console: Console, *, workers: int, limit: int
) -> Summary:
    """Add the source's photos that the set does not hold; the caller holds the set's lock."""
    new = _new_items(photoset, source)
    chosen = list(islice(new, limit) if limit else new)
    first = max(photoset.photos.parts(), default=-1) + 1
    inputs = [
        PartInput(first + at // settings.part_rows, len(items), "", lambda items=items: items)  # type: ignore[misc]
        for at in range(0, len(chosen), settings.part_rows)
        for items in [chosen[at : at + settings.part_rows]]
    ]
    kept = _Kept(photoset)
    work = Fetch(photoset.root, settings)
    return run(work, inputs, photoset.photos, console, workers=workers, prune=False, finish=kept.mark_duplicates)


def _new_items(photoset: PhotoSet, source: Source) -> Iterator[Item]:
    """Items without a row; a file that changed since is another item."""
    seen = {
        row
        for part in photoset.photos.parts()
        for row in photoset.photos.columns(part, ["source", "source_id", "as_of"])
    }
    return (item for item in source.items() if (item.source, item.source_id, item.as_of) not in seen)


class _Kept:
    """The photos the set holds, by id: the first of several equal files is kept."""

    def __init__(self, photoset: PhotoSet) -> None:
        self._ids: set[bytes] = set()
        for part in photoset.photos.parts():
            for photo_id, status in photoset.photos.columns(part, ["id", "status"]):
                if status == "kept":
                    self._ids.add(bytes.fromhex(photo_id))

    def mark_duplicates(self, rows: list[Photo]) -> list[Photo]:
        """The rows with every kept photo that is already in the set turned into a rejected one."""
        marked = []
        for row in rows:
            if row.status == "kept" and bytes.fromhex(row.id) in self._ids:
                row = replace(row, status="rejected", reason="duplicate", detail="the same bytes are in the set")
            elif row.status == "kept":
                self._ids.add(bytes.fromhex(row.id))
            marked.append(row)
        return marked


def _row(item: Item) -> Photo:
    return Photo(
        id="",
        source=item.source,
        source_id=item.source_id,
        file="",
        photographer=item.photographer,
        page_url=item.page_url,
        licence=item.licence,
        as_of=item.as_of,
    )
