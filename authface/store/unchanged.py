"""Files that need not be read again: what the system keeps of a file says that nobody wrote to it.

Of a photo that is its inode, size and both times, taken before it was read. Who edits a photo can keep its size and set
its time of change (mtime), but not the time of that (ctime), which the system sets itself. A file that was written less
than `SETTLED` seconds before it was read could be written again within one step of a coarse clock, so nothing is kept
of it. Copies, files that were moved to another disk, and whatever Windows has, which keeps no ctime, are read.
"""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path

from authface.store.restore_line import Line

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
