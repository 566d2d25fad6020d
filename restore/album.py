"""The pages of a run over more photos than one page holds.

The pictures are made while a photo is in memory, small: to read 100,000 photos and their results again would take
longer than to list them is worth. The pages are written from the log when the run ends, a page at a time.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from authface.errors import ImageError, one_line
from authface.files import write_file
from authface.imaging.bitdepth import Pixels, to_8_bits
from authface.report.album import AlbumEntry, AlbumPage, AlbumPicture, write_index, write_pages, write_tables
from authface.report.pages import Facts, quantity
from authface.restore.inputs import PAGE, RestoreJob
from authface.restore.notes import face_comparison, face_facts, moments, photo_notes, shown_faces
from authface.restore.picture import Picture
from authface.restore.session import RestoreSummary, Session
from authface.store.restore_line import Line

MAX_ON_ONE_PAGE = 60
"""Most photos of a run that has one page; a larger one has an album."""
PAGE_PHOTOS = 200
PAGE_ROWS = 1000
"""Of failures."""
PHOTO_SIDE = 512
FACE_SIDE = 256
MAX_PROFILE = 20_000
"""Largest colour profile, bytes, that a picture of the album gets."""
_SHOWN = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".avif"})
"""What browsers show: such photos need no picture of their own."""


def has_album(session: Session) -> bool:
    """Whether the run is too large for one page."""
    return session.settings.report and session.summary.inputs > MAX_ON_ONE_PAGE


def album_pictures(
    session: Session, job: RestoreJob, picture: Picture, after: Pixels, lines: Sequence[Line]
) -> Iterator[tuple[Path, bytes]]:
    """The album's pictures of a restored photo and its first faces, as files.

    They are written before the result is: where a kill comes in between, the photo is made again.
    """
    if not has_album(session) or not any(line.status == "restored" for line in lines):
        return
    before, after, icc = picture.photo.rgb, to_8_bits(after), picture.photo.icc
    yield _picture(job, "photo"), _halves(before, after, PHOTO_SIDE, icc)
    for line in shown_faces(lines):
        if line.quad is not None:
            with suppress(ImageError):
                face = face_comparison("", before, after, line.quad, line.scale, FACE_SIDE)
                yield _picture(job, f"face{line.face}"), _halves(face.before, face.after, FACE_SIDE, icc)


def _picture(job: RestoreJob, what: str) -> Path:
    key = hashlib.sha256(os.fsencode(job.name)).hexdigest()[:24]
    return job.home / f"{PAGE}.files" / key[:2] / f"{key}-{what}.jpg"


def _halves(before: NDArray[np.uint8], after: NDArray[np.uint8], side: int, icc: bytes = b"") -> bytes:
    """A JPEG with one picture beside the other, each at most `side` pixels long."""
    height, width = after.shape[:2]
    scale = min(side / max(width, height), 1)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    both = np.hstack([_sized(one, size) for one in (before, after)])
    made = io.BytesIO()
    Image.fromarray(both).save(made, "JPEG", quality=82, icc_profile=icc if len(icc) <= MAX_PROFILE else None)
    return made.getvalue()


def _sized(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    smaller = pixels.shape[1] >= size[0]
    found = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
    return np.asarray(found, np.uint8)


def write_album(session: Session, summary: RestoreSummary, home: Path, facts: Facts) -> Path:
    """Write the index and its pages in `home`. Raises AuthfaceError where the disk refuses."""
    path = home / PAGE
    folder = path.with_name(f"{PAGE}.files")
    marked = summary.to_look_at
    groups: list[tuple[str, Sequence[AlbumPage]]] = []
    for kind, title, jobs in (
        ("look", "To look at", [job for job in summary.jobs if job.target_path in marked]),
        ("all", "Restored", summary.jobs),
    ):
        if jobs:
            entries = _entries(session, jobs, folder)
            groups.append(
                (f"{title}: {quantity(len(jobs))}", write_pages(folder, kind, title, entries, len(jobs), PAGE_PHOTOS))
            )
    if summary.failed:
        rows = [(one_line(name), one_line(reason)) for name, reason in summary.failed]
        pages = write_tables(folder, "failed", "Failed", ("input", "why"), rows, PAGE_ROWS)
        groups.append((f"Failed: {quantity(len(rows))}", pages))
    write_index(path, "Restored faces", facts, groups)
    written = {Path(page.file).name for _, pages in groups for page in pages}
    for old in folder.glob("*.*"):
        if old.suffix in (".html", ".jpg") and old.name not in written and old.is_file():
            old.unlink(missing_ok=True)
    return path


def _entries(session: Session, jobs: Iterable[RestoreJob], folder: Path) -> Iterator[AlbumEntry]:
    for job in jobs:
        lines = session.log(job.home).lines(job.name)
        made = _moments(job, lines[0], folder) if job.is_video and lines else _pictures(job, lines, folder)
        notes = () if job.is_video else photo_notes(lines)
        source, target = _from(folder, job.source_path), _from(folder, job.target_path)
        change_map = _from(folder, job.map_path) if job.map_path and lines and lines[0].change_map else ""
        yield AlbumEntry(one_line(job.source.name), source, target, list(made), notes, change_map)


def _pictures(job: RestoreJob, lines: Sequence[Line], folder: Path) -> Iterator[AlbumPicture]:
    size = (lines[0].width, lines[0].height) if lines and lines[0].width and lines[0].height else (1, 1)
    halves = _picture(job, "photo")
    if halves.exists():
        yield AlbumPicture("photo", _from(folder, str(halves)), size=size)
    elif job.ending in _SHOWN and job.target.suffix.lower() in _SHOWN:  # restored when there was no album
        yield AlbumPicture("photo", "", _from(folder, job.source_path), _from(folder, job.target_path), size)
    else:
        yield AlbumPicture("photo")
    for line in shown_faces(lines):
        own = _picture(job, f"face{line.face}")
        yield AlbumPicture(f"face {line.face}", _from(folder, str(own)) if own.exists() else "", notes=face_facts(line))


def _moments(job: RestoreJob, line: Line, folder: Path) -> Iterator[AlbumPicture]:
    for number, shown in enumerate(moments(job, line)):
        file = _picture(job, f"frame{number}")
        write_file(file, _halves(shown.before, shown.after, PHOTO_SIDE))
        height, width = shown.after.shape[:2]
        yield AlbumPicture(shown.name, _from(folder, str(file)), size=(width, height), notes=shown.notes)


def _from(folder: Path, path: str) -> str:
    """A path as seen from the pages' folder; empty where there is none, as from one drive to another."""
    try:
        return os.path.relpath(os.path.abspath(path), os.path.abspath(folder))  # noqa: PTH100
    except ValueError:
        return ""
