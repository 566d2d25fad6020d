"""The before/after pages of a run: photos, frames of videos and faces, read back from files and the log's lines.

A run over more photos than one page holds has an album, an index and its pages. Its pictures are made while a photo is
in memory, small: to read 100,000 photos and their results again would take longer than to list them is worth. Its pages
are written from the log when the run ends, a page at a time.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from authface.errors import ImageError, one_line
from authface.faces.geometry import align, scale_quad
from authface.faces.identity import usual_products
from authface.files import write_file
from authface.imaging import decode as images
from authface.imaging.png import Pixels, to_8_bits
from authface.report.album import AlbumEntry, AlbumPage, AlbumPicture, write_index, write_pages, write_tables
from authface.report.pages import Comparison, Facts, before_after, quantity
from authface.restore.guard import parts_text
from authface.restore.inputs import RestoreJob
from authface.restore.picture import Picture
from authface.restore.session import RestoreSummary, Session
from authface.restore.settings import RestoreSettings
from authface.restore.video.files import VideoReader
from authface.store.restore_line import Line
from authface.store.restore_log import PAGE, PAGE_FILES

MAX_ON_ONE_PAGE = 60
"""Most photos of a run that has one page; a larger one has an album."""
PAGE_PHOTOS = 200
PAGE_ROWS = 1000
"""Of failures."""
ALBUM_PHOTO_SIDE = 512
ALBUM_FACE_SIDE = 256
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
    yield _picture(job, "photo"), _halves(before, after, ALBUM_PHOTO_SIDE, icc)
    for line in shown_faces(lines):
        if line.quad is not None:
            with suppress(ImageError):
                face = face_comparison("", before, after, line.quad, line.scale, ALBUM_FACE_SIDE)
                yield _picture(job, f"face{line.face}"), _halves(face.before, face.after, ALBUM_FACE_SIDE, icc)


def _picture(job: RestoreJob, what: str) -> Path:
    key = hashlib.sha256(os.fsencode(job.name)).hexdigest()[:24]
    return job.home / PAGE_FILES / key[:2] / f"{key}-{what}.jpg"


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
    folder = path.with_name(PAGE_FILES)
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
        write_file(file, _halves(shown.before, shown.after, ALBUM_PHOTO_SIDE))
        height, width = shown.after.shape[:2]
        yield AlbumPicture(shown.name, _from(folder, str(file)), size=(width, height), notes=shown.notes)


def _from(folder: Path, path: str) -> str:
    """A path as seen from the pages' folder; empty where there is none, as from one drive to another."""
    try:
        return os.path.relpath(os.path.abspath(path), os.path.abspath(folder))  # noqa: PTH100
    except ValueError:
        return ""


T = TypeVar("T")

MAX_FACES = 4
"""Most faces shown of one photo: those to look at first, then the largest."""
MAX_FRAMES = 4
"""Most frames shown of one video."""
MAX_NAMED = 12
"""Most faces listed under one photo as skipped, and as to be looked at."""
FACE_SIDE = 512


def spread(every: Sequence[T], most: int) -> list[T]:
    """At most `most` items, evenly spaced, including the first."""
    if len(every) <= most:
        return list(every)
    return [every[int(i)] for i in np.arange(most) * len(every) / most]


def photo_notes(every: Sequence[Line]) -> list[tuple[str, str]]:
    """How many faces of a photo were restored, which are to be looked at, and why others were left."""
    lines = [line for line in every if line.status == "restored"]
    look = [(f"look at face {line.face}", parts_text(line, line.suspect)) for line in lines if line.suspect]
    left = [(f"face {line.face} left", _skip_reason(line)) for line in every if line.status == "skipped"]
    return [("faces restored", str(len(lines))), *look[:MAX_NAMED], *left[:MAX_NAMED]]


def shown_faces(every: Sequence[Line]) -> list[Line]:
    """The restored faces of a photo that are shown, if they are cut out of it."""
    lines = [line for line in every if line.status == "restored"]
    chosen = sorted(lines, key=lambda line: not line.suspect)[:MAX_FACES]
    return [line for line in chosen if line.quad is not None and line.placed_by != "whole"]


def moments(job: RestoreJob, line: Line) -> Iterator[Comparison]:
    """Some frames of a video, each with its largest face."""
    name = one_line(job.source.name)
    facts = [("faces restored", f"{quantity(line.faces)} in {quantity(line.frames)} frames")]
    facts += [("identity", f"mean {line.identity:.3f}")] if line.identity is not None else []
    facts += [("with an eye or a mouth unlike the input's", quantity(line.suspects))] if line.suspects else []
    try:
        with VideoReader(job.source) as old, VideoReader(job.target) as new:
            for seconds, *quad in spread(line.moments, MAX_FRAMES):
                was, now = old.at(seconds), new.at(seconds)
                if was is None or now is None:
                    continue
                before, after = to_8_bits(was.pixels()), to_8_bits(now.pixels())
                yield Comparison(f"{name}, {seconds:.2f} s", before, after, facts)
                if quad:
                    yield face_comparison(f"{name}, {seconds:.2f} s, largest face", before, after, quad, line.scale)
    except ImageError:
        return  # moved since it was restored


def face_comparison(
    name: str,
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    corners: Sequence[float],
    scale: int,
    side: int = FACE_SIDE,
    facts: Facts = (),
) -> Comparison:
    """One face of a picture and of its result, `scale` times as large; `corners` are a line's quad.

    Raises ImageError where the quad is none of the picture.
    """
    quad = np.reshape(corners, (4, 2))
    old = align(before, quad, side).rgb
    return Comparison(name, old, align(after, scale_quad(quad, scale), side).rgb, facts)


def _skip_reason(line: Line) -> str:
    return f"{line.reason}: {line.detail}" if line.detail else line.reason


def _parts(line: Line) -> str:
    """How like the input's they are, and which of them is not."""
    if line.suspect:
        return f"look at: {parts_text(line, line.suspect)} like the input's"
    return parts_text(line) or "n/a"


def face_facts(line: Line) -> list[tuple[str, str]]:
    """What was measured of a restored face."""
    x0, y0, x1, y1 = line.box or (0, 0, 0, 0)
    size = f"{quantity(round(max(x1 - x0, y1 - y0)))} px" + (", enlarged for the model" if line.upscaled else "")
    facts = [
        ("size", size),
        ("detector", f"{line.score:.2f}" if line.score is not None else "n/a"),
        ("placed by", line.placed_by),
    ]
    if line.colour_shift is not None:
        facts += [
            ("identity", "n/a" if line.identity is None else f"{line.identity:.3f}"),
            ("eyes and mouth", _parts(line)),
            ("landmarks moved", "n/a" if line.landmark_shift is None else f"{line.landmark_shift:.1f} % of the eyes"),
            ("colours moved", f"{line.colour_shift:.1f} (CIEDE2000)"),
        ]
    if line.tries > 1:
        facts.append(("tries", f"{line.tries}, fidelity {line.fidelity:g}" if line.fidelity else str(line.tries)))
    return facts


INLINE_PHOTOS = 8
"""Most photos whose pictures are embedded in the page, which can then be mailed; with more they are files beside it."""


def write_page(session: Session, summary: RestoreSummary, home: Path) -> Path:
    """Write the page of a run's results in `home`, or the index of its pages. Raises AuthfaceError if the disk refuses.

    Those to look at come first.
    """
    facts = _summary_facts(session, summary)
    if has_album(session):
        return write_album(session, summary, home, facts)
    marked = summary.to_look_at
    jobs = sorted(summary.jobs, key=lambda job: job.target_path not in marked)
    before_after(home / PAGE, "Restored faces", _pairs(session, jobs), facts, embed=len(jobs) <= INLINE_PHOTOS)
    return home / PAGE


def is_shown(session: Session, summary: RestoreSummary, home: Path) -> bool:
    """Whether the page in `home` is of this run: nothing was made now, nor since the page was written."""
    return summary.done_before == summary.inputs and session.log(home).is_older_than(home / PAGE)


def _summary_facts(session: Session, summary: RestoreSummary) -> list[tuple[str, str]]:
    facts = [("model", session.settings.model)]
    if summary.photos:
        facts += [
            ("photos restored", quantity(summary.restored)),
            ("faces", quantity(summary.faces)),
            ("without a face to restore", quantity(summary.no_face)),
        ]
    if clips := [line for line in summary.video_lines.values() if line.status == "restored"]:
        facts.append(("videos restored", quantity(len(clips))))
        facts.append(("faces in their frames", quantity(sum(line.faces for line in clips))))
    facts.append(("failed", quantity(len(summary.failed))))
    if summary.identities:
        facts.append(("identity", identity_summary(session.settings, summary)))
    if unlike := len(summary.suspects) + sum(line.suspects for line in summary.video_lines.values()):
        facts.append(("with an eye or a mouth unlike the input's: look at them", quantity(unlike)))
    if summary.tried_again:
        facts.append(("tried again at higher fidelity", quantity(summary.tried_again)))
    if summary.kept:
        facts.append(("input face kept, since the restored one drifted", quantity(summary.kept)))
    return facts


def identity_summary(settings: RestoreSettings, summary: RestoreSummary) -> str:
    """Mean and lowest identity of the restored faces, and that of strangers."""
    mean = sum(summary.identities) / len(summary.identities)
    strangers = usual_products(settings.identity)[0]
    return f"mean {mean:.3f}, least {min(summary.identities):.3f} ({settings.identity}; strangers have {strangers:g})"


def _pairs(session: Session, jobs: Sequence[RestoreJob]) -> Iterator[Comparison]:
    for job in jobs:
        every = session.log(job.home).lines(job.name)
        if job.is_video:
            yield from moments(job, every[0])
            continue
        try:
            before, after = images.read(job.source).rgb, images.read(job.target).rgb
            mapped = images.read(job.change_map).rgb if every[0].change_map and job.change_map else None
        except ImageError:
            continue  # moved since it was restored
        yield Comparison(one_line(job.source), before, after, photo_notes(every))
        if mapped is not None:
            name = f"{one_line(job.source.name)}: what changed"
            yield Comparison(name, after, mapped, labels=("after", "change map"))
        for line in shown_faces(every):
            if line.quad is not None:
                name = f"{one_line(job.source.name)}, face {line.face}"
                with suppress(ImageError):  # a line that somebody changed: no such crop
                    yield face_comparison(name, before, after, line.quad, line.scale, facts=face_facts(line))
