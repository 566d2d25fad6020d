"""Restore many photos and videos: open, skip what is done, restore in batches, write, log. A bad file is but a line.

The next photos are opened and the last ones written while the model works.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from authface.errors import ImageError, UsageError, one_line
from authface.imaging import decode as images
from authface.imaging.encode import check_sides
from authface.restore.ahead import ahead, behind
from authface.restore.background import check_size
from authface.restore.inputs import LOG, Format, Job, expand, homes_of, is_single_file, plan, with_maps, without_results
from authface.restore.log import NOT_OURS, Line, Log, now, parse
from authface.restore.outcome import Opened, write_result
from authface.restore.photo import PhotoResult
from authface.restore.session import Session, Summary
from authface.restore.timing import counted, part
from authface.restore.video import reader as clip
from authface.restore.video import run as video

GROUP_PIXELS = 50_000_000
"""Photos wait for a full batch of faces until together they have so many pixels: 0.3 GB with their results."""


def jobs_of(
    named: Sequence[Path], out: Path | None, format: Format, limit: int = 0, *, maps: bool = False
) -> list[Job]:
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


def restore_jobs(jobs: Sequence[Job], session: Session, *, overwrite: bool = False) -> Summary:
    """Restore each photo that is not done yet, then each video. `overwrite` takes a target of another program, too.

    One that fails is a line of the log and of the console. Raises AuthfaceError where the disk or the model does.
    """
    start = time.monotonic()
    videos = [job for job in jobs if job.is_video]
    jobs = [job for job in jobs if not job.is_video]
    session.summary = Summary(photos=len(jobs), videos=len(videos))
    if videos and not jobs and find_spec("av") is None:
        raise UsageError(clip.NEEDS_PYAV)
    try:
        with counted() as session.summary.spent:
            if jobs:
                _restore_photos(jobs, session, overwrite)
            for job in videos:
                _restore_video(job, session, overwrite)
    finally:
        session.close()
    session.summary.seconds = time.monotonic() - start
    return session.summary


def _restore_photos(jobs: Sequence[Job], session: Session, overwrite: bool) -> None:
    with (
        session.console.progress("restore", len(jobs), "photos") as tick,
        behind() as write,
        closing(ahead(_groups(jobs, session, overwrite, tick), _is_large)) as groups,
    ):
        for group in groups:
            results = session.restore([(opened.pixels, opened.search) for opened in group])
            put = partial(_write_group, group, results, session, tick)
            if _is_large(group):  # of which no more than one is in memory
                put()
            else:
                write(put)


def _restore_video(job: Job, session: Session, overwrite: bool) -> None:
    """Restore a video that is not done yet."""
    log, content = session.log(job.home), ""
    try:
        content = video.sha256(job.source)
        if log.is_done(job.name, content, video.fingerprint(session)):
            session.summary.done_before += 1
        else:
            if not overwrite:
                _check_way(job, log)
            log.add([video.restore_video(job, content, session)])
        session.summary.clip(job, log.photos[job.name][0])
    except ImageError as error:
        _fail(job, content, error, session)


def _groups(
    jobs: Sequence[Job], session: Session, overwrite: bool, tick: Callable[..., None]
) -> Iterator[list[Opened]]:
    """Photos that are restored together: those of a batch of faces, or of so many pixels."""
    group: list[Opened] = []
    for job in jobs:
        opened = _open(job, session, overwrite)
        if opened is None:
            tick(note=job.source.name)
            continue
        group.append(opened)
        if _is_large(group) or sum(len(opened.search.found) for opened in group) >= session.settings.batch:
            yield group
            group = []
    if group:
        yield group


def _is_large(group: Sequence[Opened]) -> bool:
    return sum(opened.photo.rgb.size // 3 for opened in group) >= GROUP_PIXELS


def _open(job: Job, session: Session, overwrite: bool) -> Opened | None:
    """The photo with its faces cut out; None where it is done already or fails."""
    log, content = session.log(job.home), ""
    try:
        data = images.read_bytes(job.source)
        content = hashlib.sha256(data).hexdigest()
        if log.is_done(job.name, content, session.fingerprint):
            with session.lock:
                session.summary.count(job, log.photos[job.name])
                session.summary.done_before += 1
            return None
        if not overwrite:
            _check_way(job, log)
        with part("read"):
            photo = images.decode(data, to_srgb=False, deep=True)
        height, width = photo.rgb.shape[:2]
        check_size(width, height, session.settings.upscale)
        check_sides(job.format, width * session.settings.upscale, height * session.settings.upscale)
        search = session.finder(photo.rgb, session.restorer.side, content, session.request.seed)
    except ImageError as error:
        _fail(job, content, error, session)
        return None
    return Opened(job, data, content, photo, search)


def _check_way(job: Job, log: Log) -> None:
    """Raise ImageError where a file of another program lies where a result goes."""
    ours = {job.target: log.made_here(job.name)}
    if job.change_map is not None:
        ours[job.change_map] = log.made_here(job.name, job.map_name)
    for path, ours_already in ours.items():
        if path.exists() and not ours_already:
            raise ImageError(NOT_OURS, f"{one_line(path)} is there and not from this command: move it, or choose -o")


def _write_group(
    group: Sequence[Opened], results: Iterator[PhotoResult], session: Session, tick: Callable[..., None]
) -> None:
    """Put the faces of some photos back, and write each photo."""
    for opened, result in zip(group, results, strict=True):
        try:
            write_result(opened, result, session)
        except ImageError as error:
            _fail(opened.job, opened.content, error, session)
        tick(note=opened.job.source.name)


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
    with session.lock:
        session.log(job.home).add([line])
