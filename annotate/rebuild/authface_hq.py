"""`annotate import authface-hq`: the authors' released faces, with their captions, as a photo set.

The release is folders of aligned pictures with a JSON file beside each: ``woman/woman_11010.png`` and
``woman/woman_11010_qwen.json``. The pictures become photos, and crops as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from authface.annotate.captioners.released import CAPTION, PROBLEM, caption_of
from authface.annotate.rebuild.aligned import Crops, Faces, keep_all
from authface.console import Console
from authface.engine.runner import PartInput, Summary, append, parts_of, run
from authface.engine.workers import inline
from authface.errors import ImageError, UsageError, one_line
from authface.imaging import decode as images
from authface.records import Photo
from authface.store.photoset import PhotoSet, Provenance
from authface.store.tombstones import REASON, Forgotten, blank

SOURCE = "authface-hq"
LICENCE = "AuthFace-HQ: non-commercial; photos from Unsplash under the Unsplash License"
PHOTOS = Provenance(f"import {SOURCE}", 1, {}, {})
PART_ROWS = 500
MOST_CAPTION_BYTES = 1_000_000
_ENDINGS = {".png", ".jpg", ".jpeg", ".webp"}


@dataclass(frozen=True)
class Released:
    """One picture of the release, and its caption's file, which may be missing."""

    name: str
    """Path below the release's folder, with slashes."""
    picture: str
    caption: str
    as_of: str
    """ISO 8601 time of the picture's last change."""


@dataclass(frozen=True)
class Imported:
    """What an import did."""

    photos: Summary
    faces: Summary
    crops: Summary
    before: int
    """Pictures that the set held already."""
    without_caption: int


def released(folder: Path) -> Iterator[Released]:
    """The pictures below a folder by their path; what is hidden is passed over. Raises UsageError for no folder."""
    if not folder.is_dir():
        raise UsageError(
            f"{one_line(folder)} is no folder: give that of the unpacked release, with woman/ and man/ in it"
        )
    for top, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(top) / name
            if name.startswith(".") or path.suffix.lower() not in _ENDINGS:
                continue
            captions = (path.with_name(f"{path.stem}_qwen.json"), path.with_name(f"{path.stem}.json"))
            caption = next((str(file) for file in captions if file.is_file()), "")
            relative = os.fsencode(path.relative_to(folder).as_posix()).decode("utf-8", "backslashreplace")
            yield Released(relative, str(path), caption, _changed(path))


def import_faces(photoset: PhotoSet, folder: Path, console: Console, *, limit: int = 0) -> Imported:
    """Bring the pictures in that the set does not hold, as photos, faces and crops; the caller holds the set's lock.

    Raises UsageError where there are none, AuthfaceError where the disk refuses.
    """
    known = {(photo.source_id, photo.as_of) for photo in photoset.photos if photo.source == SOURCE}
    forgotten = Forgotten.of(photoset)
    found = [one for one in released(folder) if not forgotten.holds(source=SOURCE, source_id=one.name)]
    if not found:
        raise UsageError(f"{one_line(folder)} holds no pictures ({', '.join(sorted(_ENDINGS))})")
    new = [one for one in found if (one.name, one.as_of) not in known]
    photos = append(
        PHOTOS,
        partial(inline, Photos(photoset.root, forgotten)),
        islice(iter(new), limit or None),
        target=photoset.photos,
        console=console,
        part_rows=PART_ROWS,
        total=min(len(new), limit or len(new)),
        finish=_Once(photoset).settle,
    )
    ours = {n for n, meta in photoset.photos.metas().items() if meta and meta.provenance.step == PHOTOS.step}
    root = photoset.root
    faces = run(Faces(root), _of(ours, parts_of(photoset.photos)), photoset.measured, console, prune=False)
    keep_all(photoset, ours)
    crops = run(Crops(root), _of(ours, parts_of(photoset.faces)), photoset.crops, console, prune=False)
    missing = sum(1 for one in new if not one.caption)
    return Imported(photos, faces, crops, len(found) - len(new), missing)


def _of(numbers: set[int], parts: list[PartInput[Any]]) -> list[PartInput[Any]]:
    return [part for part in parts if part.number in numbers]


def _changed(path: Path) -> str:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    except (OSError, ValueError, OverflowError):
        return ""


class _Once:
    """The photos the set holds: of equal files the first is kept."""

    def __init__(self, photoset: PhotoSet) -> None:
        self._ids = {photo.id for photo in photoset.photos if photo.status == "kept"}

    def settle(self, rows: list[Photo]) -> list[Photo]:
        """The rows of a part."""
        return [self._once(row) for row in rows]

    def _once(self, row: Photo) -> Photo:
        if row.status != "kept":
            return row
        if row.id in self._ids:
            return replace(row, status="rejected", reason="duplicate", detail="the same bytes are in the set")
        self._ids.add(row.id)
        return row


@dataclass
class Photos:
    """The step over the release's pictures: bytes into the set, captions into the rows."""

    root: Path
    forgotten: Forgotten
    batch_size: int = 8

    provenance = PHOTOS

    def open(self) -> None:
        """Nothing to load."""

    def load(self, one: Released) -> tuple[Photo, bytes]:
        """The row and the file. Raises ImageError."""
        data = images.read_bytes(Path(one.picture))
        decoded = images.decode(data)
        photo_id = hashlib.sha256(data).hexdigest()
        if self.forgotten.holds(photo_id=photo_id):
            return blank(SOURCE), b""
        height, width = decoded.rgb.shape[:2]
        file = PhotoSet(self.root).photo_file(photo_id, images.EXTENSIONS[decoded.format])
        row = replace(
            self._row(one), id=photo_id, file=file, width=width, height=height, bytes=len(data), format=decoded.format
        )
        return replace(row, extra=json.dumps(_caption(one), ensure_ascii=False)), data

    def step(self, batch: Sequence[tuple[Photo, bytes]]) -> Sequence[tuple[Photo, bytes]]:
        """No model looks at them yet."""
        return batch

    def save(self, one: Released, fetched: tuple[Photo, bytes]) -> list[Photo]:
        """The row, its file written."""
        photo, data = fetched
        photoset = PhotoSet(self.root)
        if photo.reason != REASON and not photoset.exists(photo.file):
            photoset.save(photo.file, data)
        return [photo]

    def failed(self, one: Released, reason: str, detail: str) -> list[Photo]:
        """The row of a picture that cannot be read."""
        return [replace(self._row(one), status="failed", reason=reason, detail=detail)]

    def _row(self, one: Released) -> Photo:
        return Photo(id="", source=SOURCE, source_id=one.name, file="", licence=LICENCE, as_of=one.as_of)


def _caption(one: Released) -> dict[str, str]:
    if not one.caption:
        return {PROBLEM: f"no {Path(one.picture).stem}_qwen.json beside the picture"}
    try:
        return {CAPTION: caption_of(images.read_bytes(Path(one.caption), max_bytes=MOST_CAPTION_BYTES))}
    except (ImageError, ValueError) as error:
        return {PROBLEM: one_line(f"{Path(one.caption).name}: {error}")}
