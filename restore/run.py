"""Restore many photos and videos: open, skip what is done, restore in batches, write, log. A bad file is one line.

The next photos are opened and the last ones written while the model works.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from authface.errors import ImageError, one_line
from authface.extras import need
from authface.files import write_file
from authface.imaging import decode as images
from authface.imaging.encode import check_sides
from authface.restore.background import check_size
from authface.restore.change import change_map
from authface.restore.finder import none_found
from authface.restore.inputs import (
    LOG,
    Format,
    RestoreJob,
    expand,
    homes_of,
    is_single_file,
    plan,
    with_maps,
    without_results,
)
from authface.restore.log import NOT_OURS, Line, Log, parse
from authface.restore.picture import Picture
from authface.restore.pipeline import counted, part, prefetch, write_behind
from authface.restore.session import RestoreSummary, Session
from authface.restore.settings import RestoreSettings
from authface.restore.types import FaceResult, PhotoResult
from authface.restore.video import run as video

GROUP_PIXELS = 50_000_000
"""Photos wait for a full batch of faces until together they have so many pixels: 0.3 GB with their results."""


@dataclass(frozen=True)
class OpenedPhoto:
    """A photo in memory, with its faces found and cut out."""

    job: RestoreJob
    picture: Picture
    faces: Sequence[FaceResult]


def jobs_of(
    named: Sequence[Path], out: Path | None, format: Format, limit: int = 0, *, maps: bool = False
) -> list[RestoreJob]:
    """The jobs of a command, with a change map each if asked; a result of an earlier run is no input beside its source.

    Raises UsageError and AuthfaceError as `expand`, `is_single_file` and `plan` do.
    """
    single = out is not None and is_single_file(named, out)
    inputs = expand(named, None if single else out)
    inputs = without_results(inputs, _made(homes_of(inputs)))
    jobs = plan(inputs[:limit] if limit else inputs, out, single=single, format=format)
    return with_maps(jobs) if maps else jobs


def _made(homes: Iterable[Path]) -> dict[str, str]:
    """Source by result, as real paths, of the runs that left their log in one of these folders."""
    made: dict[str, str] = {}
    for home in homes:
        try:
            lines = parse((home / LOG).read_text("utf-8", "replace"))
        except OSError:
            continue  # no run was here
        made |= {
            os.path.realpath(home / name): os.path.realpath(line.source)
            for line in lines
            for name in (line.target, line.change_map)
            if name
        }
    return made


def restore_jobs(jobs: Sequence[RestoreJob], session: Session, *, overwrite: bool = False) -> RestoreSummary:
    """Restore each photo that is not done yet, then each video; `overwrite` replaces files of other programs, too.

    An input that fails is a line of the log and of the console. Raises AuthfaceError where the disk or the model fails.
    """
    start = time.monotonic()
    videos = [job for job in jobs if job.is_video]
    jobs = [job for job in jobs if not job.is_video]
    session.summary = RestoreSummary(photos=len(jobs), videos=len(videos))
    if videos and not jobs:
        need("a video", "video")
    try:
        with counted() as session.summary.seconds_by_part:
            if jobs:
                _restore_photos(jobs, session, overwrite)
            for job in videos:
                _restore_video(job, session, overwrite)
    finally:
        session.close()
    session.summary.seconds = time.monotonic() - start
    return session.summary


def _restore_photos(jobs: Sequence[RestoreJob], session: Session, overwrite: bool) -> None:
    with (
        session.console.progress("restore", len(jobs), "photos") as tick,
        write_behind() as write,
        closing(prefetch(_groups(jobs, session, overwrite, tick), _is_large)) as groups,
    ):
        for group in groups:
            results = session.restore([(opened.picture.pixels, opened.faces) for opened in group])
            put = partial(_write_group, group, results, session, tick)
            if _is_large(group):  # of which no more than one is in memory
                put()
            else:
                write(put)


def _restore_video(job: RestoreJob, session: Session, overwrite: bool) -> None:
    """Restore a video that is not done yet."""
    log, content = session.log(job.home), ""
    try:
        content = video.sha256(job.source)
        if log.is_done(job.name, content, video.fingerprint(session)):
            session.summary.done_before += 1
        else:
            if not overwrite:
                _check_target(job, log)
            log.add([video.restore_video(job, content, session)])
        session.summary.count_video(job, log.photos[job.name][0])
    except ImageError as error:
        _fail(job, content, error, session)


def _groups(
    jobs: Sequence[RestoreJob], session: Session, overwrite: bool, tick: Callable[..., None]
) -> Iterator[list[OpenedPhoto]]:
    """Photos that are restored together: those of a batch of faces, or of so many pixels."""
    group: list[OpenedPhoto] = []
    for job in jobs:
        opened = _open(job, session, overwrite)
        if opened is None:
            tick(note=job.source.name)
            continue
        group.append(opened)
        faces = sum(not face.reason for opened in group for face in opened.faces)
        if faces >= session.settings.batch or _is_large(group):
            yield group
            group = []
    if group:
        yield group


def _is_large(group: Sequence[OpenedPhoto]) -> bool:
    return sum(opened.picture.photo.rgb.size // 3 for opened in group) >= GROUP_PIXELS


def _open(job: RestoreJob, session: Session, overwrite: bool) -> OpenedPhoto | None:
    """The photo with its faces cut out; None where it is done already or fails."""
    log, content = session.log(job.home), ""
    try:
        data = images.read_bytes(job.source)
        content = hashlib.sha256(data).hexdigest()
        if log.is_done(job.name, content, session.fingerprint):
            with session.lock:
                session.summary.count_photo(job, log.photos[job.name])
                session.summary.done_before += 1
            return None
        if not overwrite:
            _check_target(job, log)
        with part("read"):
            photo = images.decode(data, to_srgb=False, keep_16_bits=True)
        height, width = photo.rgb.shape[:2]
        check_size(width, height, session.settings.upscale)
        check_sides(job.format, width * session.settings.upscale, height * session.settings.upscale)
        faces = session.finder(photo.rgb, session.restorer.side, content, session.request.seed)
    except ImageError as error:
        _fail(job, content, error, session)
        return None
    return OpenedPhoto(job, Picture(photo, content, data, job.source), faces)


def _check_target(job: RestoreJob, log: Log) -> None:
    """Raise ImageError where a file of another program lies where a result goes."""
    ours = {job.target: log.made_here(job.name)}
    if job.change_map is not None:
        ours[job.change_map] = log.made_here(job.name, job.map_name)
    for path, ours_already in ours.items():
        if path.exists() and not ours_already:
            raise ImageError(NOT_OURS, f"{one_line(path)} is there and not from this command: move it, or choose -o")


def _write_group(
    group: Sequence[OpenedPhoto], results: Iterator[PhotoResult], session: Session, tick: Callable[..., None]
) -> None:
    """Put the faces of some photos back, and write each photo."""
    for opened, result in zip(group, results, strict=True):
        try:
            _write_result(opened, result, session)
        except ImageError as error:
            _fail(opened.job, opened.picture.content, error, session)
        tick(note=opened.job.source.name)


def _write_result(opened: OpenedPhoto, result: PhotoResult, session: Session) -> None:
    """Write a result and its lines. Where no pixel changed, the result is the input, byte for byte."""
    job, picture = opened.job, opened.picture
    with part("encode"):
        data, encoding = picture.encoded(result.rgb, job.format, session.settings.quality)
    if data is not picture.data:
        for loss in picture.losses(job.format):
            session.console.log(f"{one_line(job.source)}: {loss}")
    write_file(job.target, data)
    mapped = job.map_name if result.restored else ""
    if mapped and job.change_map is not None:
        write_file(job.change_map, images.encode_png(change_map(result.background, result.rgb)))
    lines = [replace(line, encoding=encoding, change_map=mapped) for line in _lines(opened, result, session)]
    with session.lock:
        session.log(job.home).add(lines)
        session.summary.count_photo(job, lines)
    for face in result.faces:
        if face.reason == "identity":
            session.console.log(f"{one_line(job.source)}, face {face.index}: {face.detail}")
    if not result.restored:
        done = "enlarged" if session.settings.upscale > 1 else "copied"
        session.console.log(f"{one_line(job.source)}: {_why_not(opened, result, session.settings)}; {done} as it is")


def _why_not(opened: OpenedPhoto, result: PhotoResult, settings: RestoreSettings) -> str:
    """Why no face of a photo was restored: each reason with the numbers of its first face."""
    height, width = opened.picture.photo.rgb.shape[:2]
    reasons: dict[str, FaceResult] = {}
    for face in result.faces:
        reasons.setdefault(face.reason, face)
    texts = {reason: f"{reason} ({face.detail})" for reason, face in reasons.items() if face.detail}
    texts["identity"] = "each restored face drifted"  # a line a face has the numbers already
    return ", ".join(texts.get(reason, reason) for reason in sorted(reasons)) or none_found(width, height, settings)


def _lines(opened: OpenedPhoto, result: PhotoResult, session: Session) -> list[Line]:
    height, width = opened.picture.photo.rgb.shape[:2]
    photo = session.line(
        opened.job, opened.picture.content, "no_face", width=width, height=height, scale=session.settings.upscale
    )
    return [replace(photo, **face.facts()) for face in result.faces] or [photo]


def _fail(job: RestoreJob, content: str, error: ImageError, session: Session) -> None:
    session.summary.failed.append((job.source, f"{error.reason}: {error}"))
    session.console.log(f"{one_line(job.source)}: failed ({error.reason}): {one_line(error)}")
    line = session.line(job, content, "failed", reason=error.reason, detail=one_line(error))
    with session.lock:
        session.log(job.home).add([line])
