"""Restore many photos and videos: open, skip what is done, restore in batches, write, log. A bad file is one line.

The next photos are opened and the last ones written while the model works.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from authface.errors import ImageError, one_line
from authface.extras import need
from authface.faces.looks import no_face_text
from authface.files import sweep
from authface.imaging import decode as images
from authface.imaging.encode import check_sides
from authface.restore.guard import DRIFTED, parts_text, suspect_below
from authface.restore.inputs import (
    Format,
    RestoreJob,
    expand,
    input_errors,
    is_single_file,
    outside_sets,
    plan,
    with_maps,
)
from authface.restore.outcome import (
    IsDone,
    Keep,
    Outcome,
    check_target,
    failed,
    is_done_before,
    keep_outcome,
    known_content,
    lines_done,
    read_photo,
    traits_of,
    without_results,
)
from authface.restore.page import album_pictures
from authface.restore.photo import LOW_SCORE, FaceResult, PhotoResult
from authface.restore.picture import Picture, change_map, check_size
from authface.restore.pipeline import PhotoFaces, Workload, counted, part, prefetch, write_behind
from authface.restore.session import RestoreSummary, Session
from authface.restore.settings import RestoreSettings
from authface.restore.video import run as video
from authface.restore.video.hands import Hands, Own
from authface.store.restore_line import Line

GROUP_PIXELS = 50_000_000
"""Pixels up to which photos are gathered for a full batch of faces: 0.3 GB with their results."""


@dataclass(frozen=True)
class OpenedPhoto:
    """A photo in memory, with its faces found and cut out."""

    job: RestoreJob
    picture: Picture
    faces: Sequence[FaceResult]
    traits: tuple[int, ...]
    """Of its file, before it was read (`authface.store.restore_log`)."""


def jobs_of(
    named: Sequence[Path],
    out: Path | None,
    format: Format,
    limit: int = 0,
    *,
    maps: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> list[RestoreJob]:
    """The jobs of a command, with change maps if requested; results of earlier runs are left out.

    Raises UsageError and AuthfaceError as `expand`, `is_single_file`, `without_results`, `plan` and `outside_sets` do.
    """
    single = out is not None and is_single_file(named, out)
    inputs = without_results(expand(named, None if single else out, say), say)
    jobs = plan(inputs[:limit] if limit else inputs, out, single=single, format=format)
    outside_sets(jobs)
    return with_maps(jobs) if maps else jobs


def restore_jobs(
    jobs: Sequence[RestoreJob], session: Session, *, overwrite: bool = False, hire: Hire | None = None
) -> RestoreSummary:
    """Restore each unfinished photo, then each video; `overwrite` also replaces what `check_target` refuses.

    `hire` gives several workers (`authface.restore.spread`), in the place of this process. A failed input is a line of
    the log and of the console. Raises AuthfaceError if the disk or the model fails.
    """
    start = time.monotonic()
    videos = [job for job in jobs if job.is_video]
    jobs = [job for job in jobs if not job.is_video]
    work = Workload(least_face=session.settings.min_face)
    session.summary = RestoreSummary(photos=len(jobs), videos=len(videos), work=work)
    if videos and not jobs:
        need("a video", "video")
    for folder in {folder for job in (*jobs, *videos) for folder in (os.path.dirname(job.target), str(job.home))}:  # noqa: PTH120
        sweep(Path(folder))
    alone = nullcontext(_Alone(session, overwrite))
    with (
        counted() as session.summary.seconds_by_part,
        hire(session, overwrite) if hire else alone as workers,
    ):
        if jobs:
            workers.photos(jobs)
        for job in videos:
            _restore_video(job, session, workers.hands, overwrite)
    session.summary.seconds = time.monotonic() - start
    return session.summary


class RestoreWorkers(Protocol):
    """Who restores: this process, or several others."""

    def photos(self, jobs: Sequence[RestoreJob]) -> None:
        """Restore those of some photos that are not done; the outcomes go through `keep_outcome`."""
        ...

    @property
    def hands(self) -> Hands:
        """For the videos, after the photos."""
        ...


Hire = Callable[[Session, bool], AbstractContextManager[RestoreWorkers]]
"""Several workers for one run, which end with the block; whether files of other programs are replaced."""


class _Alone:
    """This process."""

    def __init__(self, session: Session, overwrite: bool) -> None:
        self._session, self._overwrite = session, overwrite

    @property
    def hands(self) -> Hands:
        return Own(self._session)

    def photos(self, jobs: Sequence[RestoreJob]) -> None:
        restore_photos(jobs, self._session, self._overwrite)


def restore_photos(jobs: Sequence[RestoreJob], session: Session, overwrite: bool) -> None:
    """Restore the photos in this process."""
    with session.console.progress("restore", len(jobs), "photos", session.left) as tick:

        def keep(outcome: Outcome) -> None:
            keep_outcome(outcome, session, overwrite)
            tick(note=outcome.job.source.name)

        def is_unchanged(job: RestoreJob) -> bool:
            with suppress(ImageError), input_errors():  # who reads it meets the same, and says so
                content = known_content(job, session)
                return bool(content) and is_done(job, content)
            return False

        def is_done(job: RestoreJob, content: str) -> bool:
            done = is_done_before(job, content, session, overwrite)
            if done:
                tick(note=job.source.name)
            return done

        unknown = (job for job in jobs if not is_unchanged(job))
        make_outcomes(unknown, session, is_done, keep)


def make_outcomes(jobs: Iterable[RestoreJob], session: Session, is_done: IsDone, keep: Keep) -> None:
    """Open photos, restore and encode them; of each but those that are done `keep` gets the outcome."""
    with (
        write_behind() as write,
        closing(prefetch(_groups(jobs, session, is_done, keep), _is_large)) as groups,
    ):
        for group in groups:
            results = session.restore(
                [(opened.picture.pixels, opened.faces) for opened in group],
                [opened.picture.alpha for opened in group],
            )
            put = partial(_finish_group, group, results, session, keep)
            if _is_large(group):  # of which no more than one is in memory
                put()
            else:
                write(put)


def forecast(job: RestoreJob, session: Session, overwrite: bool) -> str:
    """What a run would find in the place of a result: ``done before``, why it must not be written, or nothing.

    An input is read only where a file lies there.
    """
    if not os.path.lexists(job.target):
        return ""
    log = session.log(job.home)
    try:
        with input_errors():
            content = video.sha256(job.source) if job.is_video else known_content(job, session) or read_photo(job)[1]
            if log.lines(job.name):
                fingerprint = video.fingerprint(session) if job.is_video else session.fingerprint
                if lines_done(job, log, content, fingerprint, session.console.log):
                    return "done before"
            if not overwrite:
                check_target(job, content, log)
    except ImageError as error:
        return f"{error.reason}: {one_line(error)}"
    return ""


def _restore_video(job: RestoreJob, session: Session, hands: Hands, overwrite: bool) -> None:
    """Restore a video that is not done yet."""
    log, content = session.log(job.home), ""

    def record(line: Line) -> None:
        if not overwrite:
            check_target(job, content, log)
        log.add([line])

    try:
        with input_errors():
            content = video.sha256(job.source)
            done = lines_done(job, log, content, video.fingerprint(session), session.console.log)
            if not done and not overwrite:
                check_target(job, content, log)
        if not done:
            _ = hands.side(), session.finder  # what they lack is no fault of the video
        with input_errors():
            line = done[0] if done else video.restore_video(job, content, session, hands, record)
        session.summary.count_video(job, line, before=bool(done))
    except ImageError as error:
        keep_outcome(failed(job, content, error, session), session, overwrite)


def _groups(jobs: Iterable[RestoreJob], session: Session, is_done: IsDone, keep: Keep) -> Iterator[list[OpenedPhoto]]:
    """Photos that are restored together: a batch of faces, or `GROUP_PIXELS`; one without a face waits for none."""
    group: list[OpenedPhoto] = []
    for job in jobs:
        opened = _open(job, session, is_done, keep)
        if opened is None:
            continue
        group.append(opened)
        faces = sum(not face.reason for opened in group for face in opened.faces)
        if not faces or faces >= session.settings.batch or _is_large(group):
            yield group
            group = []
    if group:
        yield group


def _is_large(group: Sequence[OpenedPhoto]) -> bool:
    return sum(opened.picture.photo.rgb.size // 3 for opened in group) >= GROUP_PIXELS


def _open(job: RestoreJob, session: Session, is_done: IsDone, keep: Keep) -> OpenedPhoto | None:
    """The photo with its faces cropped; None if it is done already or fails."""
    content = ""
    try:
        with input_errors():
            traits = traits_of(job.source)
            data, content = read_photo(job)
            if is_done(job, content):
                return None
        # What these lack is no fault of the photo; the restorer first: its graphs are opened while the finder's
        # weights are read.
        side, finder = session.restorer.side, session.finder
        with input_errors():
            with part("read"):
                photo = images.decode(data, to_srgb=False, keep_16_bits=True)
            height, width = photo.rgb.shape[:2]
            check_size(width, height, session.settings.upscale)
            check_sides(job.format, width * session.settings.upscale, height * session.settings.upscale)
            faces = finder(photo.rgb, side, content, session.request.seed)
        with session.lock:
            found = any(face.reason != LOW_SCORE for face in faces)
            session.summary.work.add_opened(PhotoFaces(width, height, found))
    except ImageError as error:
        keep(failed(job, content, error, session))
        return None
    return OpenedPhoto(job, Picture(photo, content, data, job.source), faces, traits)


def _finish_group(group: Sequence[OpenedPhoto], results: Iterator[PhotoResult], session: Session, keep: Keep) -> None:
    """Paste the faces of some photos back, and encode each photo."""
    for opened, result in zip(group, results, strict=True):
        try:
            with input_errors():
                outcome = _outcome(opened, result, session)
        except ImageError as error:
            outcome = failed(opened.job, opened.picture.content, error, session)
        keep(outcome)


def _outcome(opened: OpenedPhoto, result: PhotoResult, session: Session) -> Outcome:
    """A result as files. If no pixel changed, the result is the input, byte for byte."""
    job, picture = opened.job, opened.picture
    with part("encode"):
        made = session.finish.encoded(picture, result, job.format, job.target.name)
    files = [(job.target, made.data)]
    facts: dict[str, Any] = {"encoding": made.encoding, "result": _sha256(made.data), "result_bytes": len(made.data)}
    if job.change_map is not None and result.restored:
        mapped = images.encode_png(change_map(result.background, result.rgb))
        files.append((job.change_map, mapped))
        facts |= {"change_map": job.map_name, "map": _sha256(mapped), "map_bytes": len(mapped)}
    lines = tuple(replace(line, **facts) for line in _lines(opened, result, session))
    notes = (*(f"{one_line(job.source)}: {loss}" for loss in made.losses), *_notes(opened, result, session.settings))
    pictures = album_pictures(session, job, picture, result.rgb, lines)
    return Outcome(job, picture.content, session.engine, session.side, lines, (*pictures, *files), notes)


def _notes(opened: OpenedPhoto, result: PhotoResult, settings: RestoreSettings) -> Iterator[str]:
    """What is said of a photo's faces: those to look at, those kept, and why there is none."""
    name = one_line(opened.job.source)
    if (pages := len(opened.picture.photo.extras.pages)) and opened.job.format == "TIFF":
        yield f"{name}: the first of its {1 + pages} pages alone is restored: save the others as files of their own"
    for face in result.faces:
        if face.reason in DRIFTED:
            yield f"{name}, face {face.index}: {face.detail}"
        elif face.suspect and face.parts is not None:
            unlike = (
                f"{parts_text(face.parts, face.suspect)} like the photo's, below {suspect_below(settings.min_parts):g}"
            )
            yield f"{name}, face {face.index}: {unlike}: look at it"
    if not result.restored:
        done = "enlarged" if settings.upscale > 1 else "copied"
        yield f"{name}: {_why_not(opened, result, settings)}; {done} as it is"


def _why_not(opened: OpenedPhoto, result: PhotoResult, settings: RestoreSettings) -> str:
    """Why no face of a photo was restored: each reason with the numbers of its first face."""
    height, width = opened.picture.photo.rgb.shape[:2]
    reasons: dict[str, FaceResult] = {}
    for face in result.faces:
        reasons.setdefault(face.reason, face)
    texts = {reason: f"{reason} ({face.detail})" for reason, face in reasons.items() if face.detail}
    texts |= dict.fromkeys(DRIFTED, "each restored face drifted")  # a line a face has the numbers already
    return ", ".join(dict.fromkeys(texts.get(reason, reason) for reason in sorted(reasons))) or no_face_text(
        width, height, settings.min_face
    )


def _lines(opened: OpenedPhoto, result: PhotoResult, session: Session) -> list[Line]:
    height, width = opened.picture.photo.rgb.shape[:2]
    photo = session.line(
        opened.job, opened.picture.content, "no_face", width=width, height=height, scale=session.settings.upscale
    )
    photo = replace(photo, lines=max(1, len(result.faces)), traits=opened.traits)
    return [replace(photo, **face.facts()) for face in result.faces] or [photo]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
