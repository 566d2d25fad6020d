"""Who writes into a folder locks it: by a file on a local disk, by a lease that is renewed on an object store.

A file that several runs append to has a lock of its own, for which they wait: on a local disk only.
"""

from __future__ import annotations

import _thread
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from authface.errors import AuthfaceError, one_line
from authface.files import is_local, place, write_errors

LEASE_SECONDS = 120.0
"""A lease on an object store that has not been renewed for this long is treated as abandoned."""
_RENEW_SECONDS = 30.0
_SETTLE_SECONDS = 1.0
"""Wait before checking again whether another run that began at the same time overwrote the lease."""
FILE_SECONDS = 60.0
"""Longest wait for the lock of a file, which is held for one write."""


@contextmanager
def write_lock(folder: Path) -> Iterator[None]:
    """Lock `folder` for writing while the block runs. Raises AuthfaceError if another run has locked it."""
    hold = _locked if is_local(folder) else _leased
    with hold(folder):
        yield


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise AuthfaceError(f"{one_line(folder)} is in use by another authface: wait for it to end") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Keep every other thread and run from `path` while the block runs, by a file ``.NAME.lock`` beside it.

    Not reentrant. On an object store nothing is locked: a lease takes longer than a write may. Raises AuthfaceError
    if another holds it for `FILE_SECONDS`.
    """
    if not is_local(path):
        yield
        return
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=FILE_SECONDS)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise AuthfaceError(
                f"{one_line(path)} has been in use by another authface for {FILE_SECONDS:.0f} s: wait for it to end, "
                f"run again"
            ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _leased(folder: Path) -> Iterator[None]:
    file = folder / ".lock"
    owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    _refuse_other(file, owner)
    with write_errors(file):
        _renew(file, owner)
    time.sleep(_SETTLE_SECONDS)
    _refuse_other(file, owner)
    ended = threading.Event()
    keeper = threading.Thread(target=_keep, args=(file, owner, ended), daemon=True)
    keeper.start()
    try:
        yield
    except BaseException as error:
        if str(folder) in _LOST:
            raise _taken(file) from error
        raise
    finally:
        ended.set()
        keeper.join()
        _LOST.discard(str(folder))
        own = _held(file)[0] == owner
        if own:
            with write_errors(file):
                file.unlink(missing_ok=True)
    if not own:
        raise _taken(file)


_LOST = set[str]()
"""Sets whose lease this process held and lost: nothing is written into them any more."""


def check_lease(file: Path) -> None:
    """Raise AuthfaceError where a file lies in a set whose lease another run took from this one."""
    for folder in list(_LOST):
        if str(file).startswith(f"{folder}/"):
            raise _taken(place(folder) / ".lock")


def _taken(file: Path) -> AuthfaceError:
    return AuthfaceError(
        f"{one_line(file.parent)} is no longer this run's: its lease was not renewed for {LEASE_SECONDS:.0f} s, and "
        f"{one_line(_held(file)[0]) or 'another'} took it over: run the same command again when that has ended"
    )


def _refuse_other(file: Path, owner: str) -> None:
    other, at = _held(file)
    age = time.time() - at
    if other not in ("", owner) and age < LEASE_SECONDS:
        raise AuthfaceError(
            f"{one_line(file.parent)} is in use by {one_line(other)}, last heard of {max(age, 0):.0f} s ago: wait for "
            f"it to end; after {LEASE_SECONDS:.0f} s of silence it counts as dead"
        )


def _held(file: Path) -> tuple[str, float]:
    """Whose the lease is and when it was renewed; an empty name where it is nobody's, or nothing of ours."""
    with write_errors(file), suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        found = json.loads(file.read_text("utf-8"))
        return str(found["owner"]), float(found["at"])
    return "", 0.0


def _renew(file: Path, owner: str) -> None:
    file.write_bytes(json.dumps({"owner": owner, "at": time.time()}).encode())


def _keep(file: Path, owner: str, ended: threading.Event) -> None:
    """Renew the lease until the run has ended; end the run where the lease is no longer its own: it slept too long."""
    while not ended.wait(_RENEW_SECONDS):
        try:
            if _held(file)[0] != owner:
                _LOST.add(str(file.parent))
                _thread.interrupt_main()
                return
            _renew(file, owner)
        except (OSError, AuthfaceError):
            continue  # the next one may get through; the run itself meets the same store and says what is wrong
