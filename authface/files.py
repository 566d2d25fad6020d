"""Write files so that a name is either absent or whole, and turn what the disk says into one line."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from authface.errors import AuthfaceError, one_line

TEMPORARY = ".tmp-"
"""Files begun and not finished begin with this; whoever holds the folder's lock may delete them."""

_ADVICE = {
    errno.ENOSPC: "the disk is full: free space and run the same command again",
    errno.EDQUOT: "the disk quota is used up: free space and run the same command again",
    errno.EROFS: "the disk is read-only: choose another folder",
    errno.EACCES: "no permission to write there: choose another folder",
    errno.EPERM: "no permission to write there: choose another folder",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
    errno.ENOTDIR: "a part of the path is a file: choose another folder",
}


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Raise what the system says about writing `path` as an AuthfaceError of one line."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, error.strerror or type(error).__name__)
        raise AuthfaceError(f"cannot write {one_line(path)}: {advice}; what was finished is kept") from error


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and is deleted otherwise.

    `durable` also flushes it to the disk first, so that a power cut leaves the old or the new file.
    Raises AuthfaceError where the disk refuses.
    """
    temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(6)}"
    with write_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if durable:
                _flush(temporary)
            temporary.replace(path)
            if durable:
                _flush(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_file(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all. Raises AuthfaceError where the disk refuses."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def _flush(path: Path) -> None:
    if os.name != "posix" and path.is_dir():
        return  # only POSIX opens folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
