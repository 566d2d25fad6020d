"""What became of a photo, and what became of it before: its outcome, the results that are there, the history of one.

An outcome is kept apart from what is written of it, so that other processes can make it. One process writes: the log's
lines first, then the files. Which files are results the logs around them and their bytes tell, names never; the history
of one its own metadata and the log of its run.

A photo need not be read again where what the system keeps of it says that nobody wrote to it: its inode, size and both
times, taken before it was read. Who edits a photo can keep its size and set its time of change (mtime), but not the
time of that (ctime), which the system sets itself. A file that was written less than `SETTLED` seconds before it was
read could be written again within one step of a coarse clock, so nothing is kept of it. Copies, files that were moved
to another disk, and whatever Windows has, which keeps no ctime, are read.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from authface.errors import AuthfaceError, ImageError, UsageError, one_line
from authface.faces.geometry import Side
from authface.files import sha256_of, write_errors, write_file
from authface.imaging import decode as images
from authface.imaging.xmp import properties_of
from authface.restore.inputs import MAP, VIDEOS, Input, RestoreJob, homes_of, input_errors
from authface.restore.mark import INSIDE, IPTC, video_properties
from authface.restore.pipeline import Seconds, add_seconds
from authface.restore.session import Session, faces_of
from authface.store.restore_line import Line, Made, digest_key, made_of
from authface.store.restore_log import LOG, PAGE_FILES, Log, Results, digest_of

NOT_OURS = "target_exists"
"""The reason of a failure: where the result should go there is a file that it must not replace unasked."""


def without_results(inputs: Sequence[Input], say: Callable[[str], None]) -> list[Input]:
    """The inputs but for results of earlier runs: those found in a folder, and those named beside their source.

    Pictures of a page, which a shell's glob finds, are left out where anything else is named.
    A file that lies where a result was put, and is another by now, is somebody's work on it: it is left out too, and
    `say` is told. Raises AuthfaceError where nothing else is left.
    """
    photos = [entry for entry in inputs if PAGE_FILES not in entry.path_text or PAGE_FILES not in entry.path.parts]
    inputs = photos or inputs
    known = Results(homes_of(inputs))
    results = {entry.path_text: made for entry in inputs if (made := known.find(entry.path)) is not None}
    if not results:
        return list(inputs)
    left = [entry for entry in inputs if entry.path_text not in results]
    sources = [entry.path for entry in left] if any(entry.named for entry in inputs) else []
    left = []
    for entry in inputs:
        made = results.get(entry.path_text)
        if made is None or (entry.named and not known.has_source(made, sources)):
            left.append(entry)
        elif made.digest and known.digest(entry.path) != made.digest:
            say(f"{one_line(entry.path)} was changed since it was made here: left out; name it alone to restore it")
    if inputs and not left:
        raise AuthfaceError(
            f"{one_line(inputs[0].path)}{' and all others' if inputs[1:] else ''}: made by earlier runs; name the "
            "files themselves to restore them again"
        )
    return left


def lines_done(job: RestoreJob, log: Log, content: str, fingerprint: str, say: Callable[[str], None]) -> list[Line]:
    """The lines of a photo whose result is there, made from this content with these settings; none: it is to be made.

    A result that somebody changed since is left as it is, and `say` is told.
    """
    log.refresh()
    lines = log.lines_of(job.name, content, fingerprint)
    if not lines:
        return []
    first = lines[0]
    files = [(job.target, job.name, first.result, first.result_bytes)]
    if first.change_map:
        files.append((job.change_map or job.target, job.map_name, first.map, first.map_bytes))
    changed = []
    for path, name, digest, size in files:
        if not path.is_file():
            return []
        if digest and not is_as_made(path, first.made, size) and (found := digest_of(path)) != digest:
            if any(made.digest == found for made in log.made_at(name)):
                return []  # of other settings: a kill came before the new one took its place
            changed.append(path)
    for path in changed:
        say(f"{one_line(path)} was changed since it was made: kept as it is; delete it to have it made again")
    return lines


def check_target(job: RestoreJob, content: str, log: Log) -> None:
    """Raise ImageError where a file lies in the way of a result: another program's, one changed since, or the result of
    another source; `content` is the sha256 of the job's."""
    log.refresh()
    places = {job.target: job.name} | ({} if job.change_map is None else {job.change_map: job.map_name})
    for path, name in places.items():
        made = log.made_at(name)
        if not os.path.lexists(path) or any(not one.digest for one in made):
            continue
        last = [made_of(line, name) for line in log.lines(job.name)[:1]]
        found = digest_of(path)
        same = [one for one in (*made, *last) if one.digest == found]
        if not made:
            raise _in_the_way(path, "is there and not from this command")
        if not same:
            raise _in_the_way(path, "was changed since it was made")
        if not any(_is_source(one, job, content) for one in same):
            raise _in_the_way(path, f"is the result of {one_line(same[-1].source)}")


def _in_the_way(path: Path, why: str) -> ImageError:
    return ImageError(NOT_OURS, f"{one_line(path)} {why}: choose another -o, or --overwrite replaces it")


def _is_source(made: Made, job: RestoreJob, content: str) -> bool:
    """Whether a result was made from the job's input: from the file at its place, edited or not, or from its bytes."""
    with suppress(OSError, ValueError):  # of a path that somebody wrote into the log
        return made.content == content or os.path.realpath(made.source) == os.path.realpath(job.source_path)
    return False


def _drop_stale_map(outcome: Outcome, log: Log) -> None:
    """Delete the change map of the result that an outcome replaces, if that has none there and nobody changed it."""
    old = next(iter(log.lines(outcome.job.name)), None)
    if old is None or not old.map or old.change_map == outcome.lines[0].change_map:
        return
    name = PurePosixPath(old.change_map)
    # A log that somebody wrote may name any file.
    if name.parent == PurePosixPath(outcome.job.name).parent and name.name.endswith(MAP):
        path = outcome.job.home / name
        if digest_of(path) == old.map:
            with write_errors(path):
                path.unlink(missing_ok=True)


_ABOVE = 4
"""Parent folders that are searched for a log: `restore` lays out results like their photos."""


@dataclass
class ResultHistory:
    """Origin of a result."""

    path: Path
    source_type: str = ""
    """XMP's `DigitalSourceType`."""
    system: str = ""
    """The generating system and its version, by the file."""
    inside: dict[str, Any] = field(default_factory=dict)
    """The settings embedded in the file."""
    log: Path | None = None
    lines: list[Line] = field(default_factory=list)
    """The photo's lines in that log."""
    same: bool = False
    """The file still has the bytes that the run wrote."""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        said = {"digital_source_type": self.source_type, "ai_system": self.system, "settings": self.inside}
        log = {
            "log": str(self.log) if self.log else None,
            "unchanged": self.same,
            "lines": list(map(asdict, self.lines)),
        }
        return {"result": str(self.path), **said, **log}


def provenance_of(path: Path) -> ResultHistory:
    """Read a result's metadata and its log. Raises UsageError if neither exists."""
    try:
        digest, said = sha256_of(path), _said(path)
    except OSError as error:
        raise UsageError(f"{one_line(path)}: {error.strerror or one_line(error)}") from error
    found = ResultHistory(path)
    found.source_type = said.get(f"{IPTC} DigitalSourceType", "")
    found.system = ", ".join(
        filter(None, (said.get(f"{IPTC} {name}") for name in ("AISystemUsed", "AISystemVersionUsed")))
    )
    try:
        inside = json.loads(said.get(INSIDE) or "{}")
        found.inside = inside if isinstance(inside, dict) else {}
    except ValueError:
        found.inside = {}
    _look_up(found, digest)
    if not (found.source_type or found.inside or found.lines):
        raise UsageError(f"{one_line(path)} does not say where it is from, and no {LOG} beside or above it knows it")
    return found


def _look_up(found: ResultHistory, digest: str) -> None:
    path = found.path.absolute()
    for home in path.parents[:_ABOVE]:
        if not (home / LOG).is_file():
            continue
        try:
            log = Log(home / LOG)
        except AuthfaceError:
            continue
        place, key = path.relative_to(home).as_posix(), digest_key(digest)
        alike = (log.made_by(path, trace.place) for path, trace in log.traces() if trace.digest == key)
        by_bytes = next((made.path for made in alike if made is not None and made.digest == digest), "")
        if lines := log.lines(by_bytes) or log.lines(place):
            found.log, found.lines, found.same = log.path, lines, lines[0].result == digest
            return


def _said(path: Path) -> dict[str, str]:
    if path.suffix.lower() in VIDEOS:
        return video_properties(path)
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    except Exception:  # noqa: BLE001  on hostile bytes Pillow's readers raise nearly anything; the log may know more
        return {}
    return properties_of(packet.encode() if isinstance(packet, str) else bytes(packet))


def to_text(found: ResultHistory) -> str:
    """The same as text."""
    told = []
    if found.source_type:
        told.append(f"says: {one_line(found.source_type.rpartition('/')[2], 80)}, by {one_line(found.system, 160)}")
    for name, value in found.inside.items():
        if name != "faces":
            told.append(f"inside: {one_line(name, 40)} {one_line(value, 120)}")
    faces = found.inside.get("faces")
    for number, one in enumerate(faces if isinstance(faces, list) else []):
        told.append(f"inside: {_face(number, one if isinstance(one, dict) else {})}")
    if found.lines:
        first = found.lines[0]
        told.append(f"log: {one_line(found.log)}, {'the same bytes' if found.same else 'other bytes: changed since'}")
        told.append(f"from: {one_line(first.source)} (sha256 {first.content[:12]}), made {first.made}")
        told.append(f"by: {one_line(first.model)} {first.engine}, {one_line(first.encoding, 80)}".rstrip(", "))
        told += [f"log: {_face(line.face, asdict(line))}" for line in found.lines if line.face is not None]
    return "\n".join(told)


def _face(number: int, values: dict[str, Any]) -> str:
    """One line about a face; values from a file may be forged."""
    shown = ("status", "reason", "box", "identity", "suspect")
    words = [f"{name} {one_line(values[name], 60)}" for name in shown if values.get(name)]
    return f"face {number}: {', '.join(words)}"


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
        check_target(job, content, log)
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
        check_target(job, outcome.content, log)
    _drop_stale_map(outcome, log)
    log.add(outcome.lines)
    for path, content in outcome.files:
        write_file(path, content)
    with session.lock:
        session.summary.work.side = session.side
        if outcome.spent:  # another process opened it
            session.summary.work.add_opened(faces_of(outcome.lines))
        session.summary.count_photo(job, outcome.lines)


def failed(job: RestoreJob, content: str, error: ImageError, session: Session) -> Outcome:
    """The outcome of a photo that cannot be used."""
    return Outcome(job, content, session.engine, reason=error.reason, detail=one_line(error))


def _fail(outcome: Outcome, session: Session) -> None:
    job = outcome.job
    with session.lock:
        session.summary.count_failed(job, f"{outcome.reason}: {outcome.detail}")
    session.console.log(f"{one_line(job.source)}: failed ({outcome.reason}): {outcome.detail}")
    if outcome.content or os.path.lexists(job.source):  # what is not there has no line
        facts = {"reason": outcome.reason, "detail": outcome.detail, "lines": 1, "engine": outcome.engine}
        session.log(job.home).add([session.line(job, outcome.content, "failed", **facts)])


SETTLED = 2.0
"""Seconds: the coarsest step of a file system's clock (FAT)."""
WRITTEN_WITHIN = 60.0
"""Seconds after its line in which a result is written; one that was written to later is read."""
_KEEPS_CTIME = os.name == "posix"


def traits_of(path: Path) -> tuple[int, ...]:
    """Inode, size, mtime and ctime (ns) of a file that is about to be read; none where they will not tell."""
    try:
        facts = path.stat()
    except OSError:
        return ()
    traits = (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
    settled = facts.st_ctime_ns < (time.time() - SETTLED) * 1e9
    return traits if _KEEPS_CTIME and settled and min(traits) >= 0 else ()


def is_as_read(path: Path, line: Line) -> bool:
    """Whether a photo is the one that a line is of, at the same place and not written to since."""
    return bool(line.traits) and line.source == str(path.absolute()) and traits_of(path) == line.traits


def is_as_made(path: Path, made: str, size: int) -> bool:
    """Whether a result of that size, logged at the time `made` (ISO 8601), was not written to since it was made."""
    try:
        facts, at = path.stat(), datetime.fromisoformat(made).timestamp()
    except (OSError, ValueError):
        return False
    return _KEEPS_CTIME and facts.st_size == size and 0 <= facts.st_ctime_ns / 1e9 - at <= WRITTEN_WITHIN
