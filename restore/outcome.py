"""What became of a photo: kept apart from what is written of it, so that other processes can make it.

One process writes: the log's lines first, then the files.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from authface.errors import AuthfaceError, ImageError, one_line, was_interrupted
from authface.faces.geometry import Side
from authface.files import write_file
from authface.imaging import decode as images
from authface.restore.inputs import RestoreJob
from authface.restore.pipeline import Seconds, add_seconds
from authface.restore.results import check_target, lines_done
from authface.restore.session import Session
from authface.store.restore_line import Line
from authface.store.unchanged import is_as_read


@dataclass(frozen=True)
class Outcome:
    """What became of a photo, before anything of it is written: its result, or the reason why there is none."""

    job: RestoreJob
    content: str
    """sha256 of the photo's bytes; empty where it could not be read."""
    engine: str = ""
    """Engine of the model's networks."""
    side: Side | None = None
    """How large its crops are; None: it is loaded here."""
    lines: tuple[Line, ...] = ()
    files: tuple[tuple[Path, bytes], ...] = ()
    """In the order they are written: pictures for the album first, for a photo with a result is not made again."""
    notes: tuple[str, ...] = ()
    """What is said of it."""
    spent: Seconds = field(default_factory=dict)
    """Seconds of each part that another process measured since its last outcome."""
    reason: str = ""
    """Why it failed, in a word; `detail` in a line."""
    detail: str = ""


Keep = Callable[[Outcome], None]
"""Takes the outcomes of photos, one at a time, from any thread."""
IsDone = Callable[[RestoreJob, str], bool]
"""Whether a photo of this content needs nothing more. Raises ImageError where its result must not be written."""


def read_photo(job: RestoreJob) -> tuple[bytes, str]:
    """A photo's bytes and their sha256. Raises ImageError."""
    data = images.read_bytes(job.source)
    return data, hashlib.sha256(data).hexdigest()


def known_content(job: RestoreJob, session: Session) -> str:
    """The sha256 of a photo that was not written to since the log's lines of it; empty where it has to be read."""
    lines = session.log(job.home).lines(job.name)
    return lines[0].content if lines and is_as_read(job.source, lines[0]) else ""


def is_done_before(job: RestoreJob, content: str, session: Session, overwrite: bool) -> bool:
    """Whether the log has a photo's result, which is then counted. Raises ImageError as `check_target` does."""
    log = session.log(job.home)
    done = lines_done(job, log, content, session.fingerprint, session.console.log)
    if done:
        with session.lock:
            session.summary.count_photo(job, done, before=True)
    elif not overwrite:
        check_target(job, log)
    return bool(done)


def keep_outcome(outcome: Outcome, session: Session, overwrite: bool) -> None:
    """Write what became of a photo: its log lines, then its result. A name that the disk refuses is its own failure."""
    add_seconds(outcome.spent)
    if not outcome.reason:
        try:
            with input_errors():
                return _write(outcome, session, overwrite)
        except ImageError as error:
            outcome = failed(outcome.job, outcome.content, error, session)
    _fail(outcome, session)


def _write(outcome: Outcome, session: Session, overwrite: bool) -> None:
    job, log = outcome.job, session.log(outcome.job.home)
    for note in outcome.notes:
        session.console.log(note)
    if not overwrite:
        check_target(job, log)
    log.add(outcome.lines)
    for path, content in outcome.files:
        write_file(path, content)
    with session.lock:
        session.summary.work.side = session.side
        session.summary.count_photo(job, outcome.lines)


def failed(job: RestoreJob, content: str, error: ImageError, session: Session) -> Outcome:
    """The outcome of a photo that cannot be used."""
    return Outcome(job, content, session.engine, reason=error.reason, detail=one_line(error))


def _fail(outcome: Outcome, session: Session) -> None:
    job = outcome.job
    with session.lock:
        session.summary.failed.append((job.source, f"{outcome.reason}: {outcome.detail}"))
    session.console.log(f"{one_line(job.source)}: failed ({outcome.reason}): {outcome.detail}")
    if outcome.content or os.path.lexists(job.source):  # what is not there has no line
        facts = {"reason": outcome.reason, "detail": outcome.detail, "lines": 1, "engine": outcome.engine}
        session.log(job.home).add([session.line(job, outcome.content, "failed", **facts)])


_ALONE = frozenset({errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.ELOOP})
"""Errors of a disk that concern one name; all others end the run."""


@contextmanager
def input_errors() -> Iterator[None]:
    """Raise errors that concern one input only as ImageError: an invalid name, a reader's exception.

    Errors that end the run are unchanged: our others, such as a full disk or an unavailable model.
    """
    try:
        yield
    except ImageError:
        raise
    except AuthfaceError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in _ALONE:
            raise ImageError("name", one_line(error)) from error
        raise
    except Exception as error:
        if was_interrupted(error):
            raise KeyboardInterrupt from error
        raise ImageError("error", one_line(f"unexpected {type(error).__name__}: {error}")) from error
