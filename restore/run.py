"""Restore many photos: open, skip what is done, restore in batches, write, log. A bad file is a line, not the end."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from authface import images
from authface.deep import Pixels, is_deep
from authface.encode import DEEP_FORMATS, check_sides, encode, said
from authface.errors import ImageError, one_line
from authface.files import write_file
from authface.restore.attempts import restore_faces
from authface.restore.background import check_size
from authface.restore.inputs import LOG, Format, Job, expand, homes_of, is_single_file, plan, without_results
from authface.restore.log import NOT_OURS, Line, now, parse
from authface.restore.photo import FaceResult, PhotoResult, Search, finish
from authface.restore.session import Session, Summary

GROUP_PIXELS = 50_000_000
"""Photos wait for a full batch of faces until together they have so many pixels: 0.3 GB with their results."""


@dataclass(frozen=True)
class Opened:
    """A photo in memory, with its faces cut out."""

    job: Job
    data: bytes
    content: str
    photo: images.Decoded
    search: Search

    @property
    def pixels(self) -> Pixels:
        """Those that are written back: the 16 bits, where the file has them."""
        return self.photo.rgb if self.photo.deep is None else self.photo.deep


def jobs_of(named: Sequence[Path], out: Path | None, format: Format, limit: int = 0) -> list[Job]:
    """The jobs of a command; a result of an earlier run is no input beside its source.

    Raises UsageError and AuthfaceError as `expand`, `is_single_file` and `plan` do.
    """
    single = out is not None and is_single_file(named, out)
    inputs = expand(named, None if single else out)
    inputs = without_results(inputs, _made(homes_of(inputs)))
    return plan(inputs[:limit] if limit else inputs, out, single=single, format=format)


def _made(homes: Iterable[Path]) -> dict[str, str]:
    """Source by result, as real paths, of the runs that left their log in one of these folders."""
    made: dict[str, str] = {}
    for home in homes:
        try:
            lines = parse((home / LOG).read_text("utf-8", "replace"))
        except OSError:
            continue  # no run was here
        made |= {os.path.realpath(home / line.target): os.path.realpath(line.source) for line in lines}
    return made


def restore_jobs(jobs: Sequence[Job], session: Session, *, overwrite: bool = False) -> Summary:
    """Restore each photo that is not done yet. `overwrite` takes a target that another program made, too.

    A photo that fails is a line of the log and of the console. Raises AuthfaceError where the disk or the model does.
    """
    start = time.monotonic()
    session.summary = Summary(photos=len(jobs))
    group: list[Opened] = []
    try:
        with session.console.progress("restore", len(jobs), "photos") as tick:
            for job in jobs:
                opened = _open(job, session, overwrite)
                if opened is not None:
                    group.append(opened)
                if _is_full(group, session.settings.batch):
                    _restore_group(group, session)
                    group = []
                tick(note=job.source.name)
            _restore_group(group, session)
    finally:
        session.close()
    session.summary.seconds = time.monotonic() - start
    return session.summary


def _is_full(group: Sequence[Opened], batch: int) -> bool:
    faces = sum(len(opened.search.found) for opened in group)
    return faces >= batch or sum(opened.photo.rgb.size // 3 for opened in group) >= GROUP_PIXELS


def _open(job: Job, session: Session, overwrite: bool) -> Opened | None:
    """The photo with its faces cut out; None where it is done already or fails."""
    log, content = session.log(job.home), ""
    try:
        data = images.read_bytes(job.source)
        content = hashlib.sha256(data).hexdigest()
        if log.is_done(job.name, content, session.fingerprint):
            session.summary.count(job, log.photos[job.name])
            session.summary.done_before += 1
            return None
        if job.target.exists() and not overwrite and not log.made_here(job.name):
            raise ImageError(
                NOT_OURS, f"{one_line(job.target)} is there and not from this command: move it, or choose -o"
            )
        photo = images.decode(data, to_srgb=False, deep=True)
        height, width = photo.rgb.shape[:2]
        check_size(width, height, session.settings.upscale)
        check_sides(job.format, width * session.settings.upscale, height * session.settings.upscale)
        search = session.finder(photo.rgb, session.restorer.size, content, session.request.seed)
    except ImageError as error:
        _fail(job, content, error, session)
        return None
    return Opened(job, data, content, photo, search)


def _restore_group(group: Sequence[Opened], session: Session) -> None:
    """Restore the faces of some photos together, and write each photo."""
    if not group:
        return
    found = [face for opened in group for face in opened.search.found]
    attempts = restore_faces(session.restorer, found, session.settings, session.guard)
    first = 0
    for opened in group:
        after = first + len(opened.search.found)
        result = finish(opened.pixels, opened.search, attempts[first:after], session.settings.upscale, session.upscaler)
        first = after
        try:
            _write(opened, result, session)
        except ImageError as error:
            _fail(opened.job, opened.content, error, session)


def _write(opened: Opened, result: PhotoResult, session: Session) -> None:
    """Write a result and its lines. Where no pixel changed, the result is the input, byte for byte."""
    job, photo = opened.job, opened.photo
    same_format = {"MPO": "JPEG"}.get(photo.format, photo.format) == job.format
    if same_format and result.rgb.shape == opened.pixels.shape and np.array_equal(result.rgb, opened.pixels):
        data, how = opened.data, "the input, byte for byte"
    else:
        quality = session.settings.quality
        data = encode(photo, result.rgb, job.format, quality=quality)
        how = said(photo, job.format, result.rgb.dtype == np.uint16, quality)
        for loss in losses(opened):
            session.console.log(f"{one_line(job.source)}: {loss}")
    write_file(job.target, data)
    lines = [replace(line, encoding=how) for line in _lines(opened, result, session)]
    session.log(job.home).add(lines)
    session.summary.count(job, lines)
    for face in result.faces:
        if face.reason == "identity":
            session.console.log(f"{one_line(job.source)}, face {face.index}: {face.detail}")
    if not result.restored:
        done = "enlarged" if session.settings.upscale > 1 else "copied"
        session.console.log(f"{one_line(job.source)}: {_why_not(result)}; {done} as it is")


def _why_not(result: PhotoResult) -> str:
    """Why no face of a photo was restored, by reason with the numbers of the first."""
    reasons: dict[str, FaceResult] = {}
    for face in result.faces:
        reasons.setdefault(face.reason, face)
    said = [f"{reason} ({face.detail})" if face.detail else reason for reason, face in sorted(reasons.items())]
    return ", ".join(said) or "no face found"


def losses(opened: Opened) -> list[str]:
    """What the result cannot keep of its input, a line each."""
    photo, format = opened.photo, opened.job.format
    told = []
    if is_deep(opened.data) and (photo.deep is None or format not in DEEP_FORMATS):
        told.append(
            "has 16 bits a channel, the result has 8" + (": png and tiff keep them" if photo.deep is not None else "")
        )
    if photo.mode in {"CMYK", "LAB", "YCbCr"}:
        told.append(f"{photo.mode} pixels, the result is sRGB")
    if photo.alpha is not None and format == "JPEG":
        told.append("JPEG has no alpha: what is transparent becomes white")
    if photo.format == "MPO":
        told.append("the file holds more pictures than one, such as a depth map: the result holds the first")
    return told


def _lines(opened: Opened, result: PhotoResult, session: Session) -> list[Line]:
    height, width = opened.photo.rgb.shape[:2]
    photo = Line(
        target=opened.job.name,
        source=str(opened.job.source.absolute()),
        content=opened.content,
        fingerprint=session.fingerprint,
        made=now(),
        status="no_face",
        model=session.settings.model,
        width=width,
        height=height,
        scale=session.settings.upscale,
    )
    return [_line(photo, face) for face in result.faces] or [photo]


def _line(photo: Line, face: FaceResult) -> Line:
    drift = face.drift
    return replace(
        photo,
        status=face.status,
        reason=face.reason,
        detail=face.detail,
        face=face.index,
        box=tuple(round(value, 2) for value in face.box),
        score=round(face.score, 4),
        seed=face.seed,
        placed_by=face.placed_by if face.quad is not None else "",
        upscaled=face.upscaled,
        quad=None if face.quad is None else tuple(round(float(value), 3) for value in face.quad.ravel()),
        identity=None if drift is None or drift.identity is None else round(drift.identity, 4),
        landmark_shift=None if drift is None or drift.landmark_shift is None else round(drift.landmark_shift, 2),
        colour_shift=None if drift is None else round(drift.colour_shift, 2),
        fidelity=face.fidelity,
        tries=face.tries,
    )


def _fail(job: Job, content: str, error: ImageError, session: Session) -> None:
    session.summary.failed.append((job.source, f"{error.reason}: {error}"))
    session.console.log(f"{one_line(job.source)}: failed ({error.reason}): {one_line(error)}")
    line = Line(
        target=job.name,
        source=str(job.source.absolute()),
        content=content,
        fingerprint=session.fingerprint,
        made=now(),
        status="failed",
        reason=error.reason,
        detail=one_line(error),
        model=session.settings.model,
    )
    session.log(job.home).add([line])
