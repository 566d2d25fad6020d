"""Which files are results of `authface restore`, by the logs in some folders and by their bytes, not by their names.

Also which need not be read again: what the system keeps of a file says that nobody wrote to it. Of a photo that is its
inode, size and both times, taken before it was read. Who edits a photo can keep its size and set its time of change
(mtime), but not the time of that (ctime), which the system sets itself. A file that was written less than `SETTLED`
seconds before it was read could be written again within one step of a coarse clock, so nothing is kept of it. Copies,
files that were moved to another disk, and whatever Windows has, which keeps no ctime, are read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from authface.errors import AuthfaceError
from authface.files import sha256_of
from authface.store.restore_line import Line
from authface.store.restore_log import LOG, NO_DIGEST, Log, Made, Trace, digest_key


class Results:
    """Results recorded in the logs of some folders: files in and below these, and copies with the same bytes."""

    def __init__(self, homes: Iterable[Path]) -> None:
        self._logs: dict[Path, Log] = {}
        for home in map(Path.absolute, homes):
            if (home / LOG).is_file():
                try:
                    self._logs[home] = Log(home / LOG)
                except AuthfaceError:
                    continue  # somebody else's file of that name, or not to be read
        self._by_digest: dict[int, tuple[Log, str, Trace]] = {}
        for log in self._logs.values():
            for path, trace in log.traces():
                if trace.digest != NO_DIGEST and not trace.is_copy:
                    self._by_digest[trace.digest] = log, path, trace
        self._sizes = {trace.size for _, _, trace in self._by_digest.values()}
        self._digests: dict[Path, str] = {}

    def digest(self, path: Path) -> str:
        """sha256 of a file; empty if it cannot be read: the caller that opens it reports why."""
        if path not in self._digests:
            self._digests[path] = digest_of(path)
        return self._digests[path]

    def find(self, path: Path) -> Made | None:
        """The log's record of the file; None if it is no result. An exact copy of its source counts in place only."""
        if not self._logs:
            return None
        path = path.absolute()
        homes = [home for home in path.parents if home in self._logs]
        here = [made for home in homes for made in self._logs[home].made_at(path.relative_to(home).as_posix())]
        if same := [made for made in here if made.digest == self.digest(path)]:
            return same[0]
        if _size(path) in self._sizes and (found := self._by_bytes(self.digest(path))) is not None:
            return found
        return here[-1] if here else None

    def _by_bytes(self, digest: str) -> Made | None:
        """The record of a result with these bytes, wherever it was put; no copy of a source is one."""
        if not digest or (known := self._by_digest.get(digest_key(digest))) is None:
            return None
        log, path, trace = known
        made = log.made_by(path, trace)
        return made if made is not None and made.digest == digest else None

    def has_source(self, made: Made, paths: Sequence[Path]) -> bool:
        """Whether one of the files is the source of a result; the likeliest is read first."""
        name = Path(made.source).name
        return any(self.digest(path) == made.content for path in sorted(paths, key=lambda path: path.name != name))


def digest_of(path: Path) -> str:
    """sha256 of a file in hex; empty if it is missing or cannot be read."""
    try:
        return sha256_of(path)
    except OSError:
        return ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


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
