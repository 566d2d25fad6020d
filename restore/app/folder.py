"""The folder of a page's files: it goes with the page, and that of a killed one with the next page's start."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from authface.files import hold

PREFIX = "authface-page-"
"""How the folders' names begin."""


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder among the system's temporary ones, which is deleted with the block.

    While the block runs it is held, so that the next page tells it from what a killed one left.
    """
    _sweep(Path(tempfile.gettempdir()))
    folder, descriptor = _held()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def _held() -> tuple[Path, int | None]:
    """A new folder, and what holds it until it is closed or this process dies."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    if sys.platform == "win32":  # an open folder cannot be deleted there
        return folder, None
    with suppress(FileNotFoundError):
        descriptor = os.open(folder, os.O_RDONLY)
        hold(descriptor)
        if os.fstat(descriptor).st_nlink:
            return folder, descriptor
        os.close(descriptor)
    return _held()  # it was swept before it was held


def _sweep(root: Path) -> None:
    """Delete this user's folders that no living page holds."""
    if sys.platform == "win32":
        return
    for folder in root.glob(f"{PREFIX}*"):
        with suppress(OSError):  # another's, or deleted meanwhile
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(descriptor).st_uid == os.getuid() and hold(descriptor, wait=False):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
