"""Write files so that a name is either absent or whole, and turn what the disk says into one line.

A place is a local path or an address such as ``s3://bucket/folder`` (`place`), which has a path's methods.
"""

from __future__ import annotations

import csv
import errno
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from authface.errors import AuthfaceError, UsageError, one_line
from authface.extras import need

if sys.platform != "win32":
    import fcntl

TEMPORARY = ".tmp-"
"""Files begun and not finished begin with this; whoever holds the folder's lock may delete them."""
_BEGUN = re.compile(rf"{re.escape(TEMPORARY)}[0-9a-f]{{12}}")
"""The names that `replacing` and `replacing_folder` give."""

LARGE_TEMPORARY = Path("/var/tmp")
"""On a disk also where ``/tmp`` is memory (Filesystem Hierarchy Standard 3.0, 5.15); SQLite uses it, too."""

_ADVICE = {
    errno.ENOSPC: "the disk is full: free space and run the same command again",
    errno.EDQUOT: "the disk quota is used up: free space and run the same command again",
    errno.EROFS: "the disk is read-only: choose another folder",
    errno.EACCES: "no permission to write there: choose another folder",
    errno.EPERM: "no permission to write there: choose another folder",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
    errno.EEXIST: "a file, or a link to nothing, lies where a folder should be: choose another folder",
    errno.ENOTDIR: "a part of the path is a file: choose another folder",
}

_HELD_OPEN = (5, 32)
"""Windows' ERROR_ACCESS_DENIED and ERROR_SHARING_VIOLATION: what a rename meets where somebody has the file open."""
_HELD_OPEN_PAUSES = (0.05, 0.1, 0.2, 0.3, 0.4)


def why_absent(path: Path) -> str:
    """In a few words why there is no file at a path: a symbolic link may be there, and lead nowhere."""
    if not path.is_symlink():
        return "no such file"
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "a symbolic link that leads back to itself"
    return f"a symbolic link to {one_line(path.readlink())}, which is not there"


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_weights(path: Path) -> str:
    """`sha256_of`, read again only where the file's size or time changed. Raises OSError."""
    facts = path.stat()
    return _sha256_of_same(path.absolute(), facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(maxsize=128)
def _sha256_of_same(path: Path, _size: int, _time: int) -> str:
    return sha256_of(path)


def room_for_large() -> Path:
    """Folder of temporary files that grow with a set: `LARGE_TEMPORARY`, unless TMPDIR (or TEMP, TMP) names one."""
    named = any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    there = LARGE_TEMPORARY.is_dir() and os.access(LARGE_TEMPORARY, os.W_OK | os.X_OK)
    return LARGE_TEMPORARY if there and not named else Path(tempfile.gettempdir())


def place(text: str | Path) -> Path:
    """The local path, or for an address like ``s3://bucket/folder`` an object with the same methods (`UPath`).

    Raises UsageError for a store that is not known or whose package is missing.
    """
    if "://" not in str(text):
        return Path(text)
    from upath import UPath

    store = str(text).partition("://")[0]
    try:
        found = UPath(text, **_options_of(store))
        _ = found.fs
    except ImportError as error:
        if store == "s3":
            need(one_line(text), "s3")
        raise UsageError(
            f"{one_line(text)}: {one_line(error)}; install fsspec's package for {one_line(store)}"
        ) from error
    except ValueError as error:
        raise UsageError(f"{one_line(text)}: no store called {one_line(store)}: {one_line(error)}") from error
    return cast("Path", found)


def local(text: str | Path) -> Path:
    """A path of this machine. Raises UsageError for an address."""
    if "://" in str(text):
        raise UsageError(f"{one_line(text)}: only photo sets lie in object stores: name a path of this machine")
    return Path(text)


def _options_of(store: str) -> dict[str, Any]:
    if store != "s3":
        return {}
    from authface.object_store import options

    return options()


def is_local(path: Path) -> bool:
    """Whether the place is a path of this machine."""
    return isinstance(path, Path)


def is_photoset(folder: Path) -> bool:
    """Whether a folder of this machine is a photo set: it has a recipe and tables."""
    return (folder / "recipe.toml").is_file() and (folder / "tables").is_dir()


def folders_below(top: Path) -> Iterator[tuple[Path, list[str]]]:
    """The folder and each below it, with the names of the files in it; unlike `rglob` it keeps no set of all paths."""
    if is_local(top):
        yield from ((Path(folder), names) for folder, _, names in os.walk(top))
    else:
        yield from ((path.parent, [path.name]) for path in top.rglob("*") if path.is_file())


def refusal(error: BaseException) -> str:
    """What to do about a disk that refused, in a few words."""
    number = error.errno if isinstance(error, OSError) else _number_in(str(error))
    strange = (error.strerror if isinstance(error, OSError) else None) or f"{type(error).__name__}: {one_line(error)}"
    return _ADVICE.get(number or 0, strange)


def _number_in(text: str) -> int | None:
    """The system's number of an error, of which libraries keep the text alone: Rust's ones (safetensors), torch."""
    said = re.search(r"os error (\d+)|Errno (\d+)", text)
    return int(said[1] or said[2]) if said else None


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Raise what the system says about writing `path`, itself or by a library, as an AuthfaceError of one line."""
    try:
        yield
    except AuthfaceError:
        raise
    except Exception as error:  # what libraries of Rust and torch raise has no common class
        if not isinstance(error, OSError) and _number_in(str(error)) is None:
            raise
        raise AuthfaceError(f"cannot write {one_line(path)}: {refusal(error)}; what was finished is kept") from error


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and is deleted otherwise.

    While the block runs the file is held, so that `sweep` tells it from what a killed run left. `durable` also flushes
    it to the disk first, so that a power cut leaves the old or the new file. An object store gets the whole file at the
    end, which it shows at once or not at all. Raises AuthfaceError where the disk refuses.
    """
    if not is_local(path):
        with write_errors(path), tempfile.TemporaryDirectory(prefix="authface-") as folder:
            local = Path(folder) / path.name
            yield local
            path.write_bytes(local.read_bytes())
        return
    temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(6)}"
    with write_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _begun(temporary):
                yield temporary
                if durable:
                    _flush(temporary)
                take_place(temporary, path)
            if durable:
                _flush(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def take_place(new: Path, path: Path) -> None:
    """Rename `new` to `path`, over a file that is there. Raises OSError.

    On Windows whoever has one of them open, a virus scanner or an indexer for a moment, makes that fail: it is tried
    again for about a second.
    """
    for pause in _HELD_OPEN_PAUSES:
        try:
            new.replace(path)
            return
        except PermissionError as error:
            if getattr(error, "winerror", None) not in _HELD_OPEN:
                raise
            time.sleep(pause)
    new.replace(path)


@contextmanager
def _begun(temporary: Path) -> Iterator[None]:
    """Make an empty file and hold it while the block runs. Raises OSError."""
    if sys.platform == "win32":  # an open file cannot be renamed there
        yield
        return
    descriptor = os.open(temporary, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        hold(descriptor)
        while not os.fstat(descriptor).st_nlink:  # swept before it was held
            os.close(descriptor)
            descriptor = os.open(temporary, os.O_CREAT | os.O_RDWR, 0o666)
            hold(descriptor)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def replacing_folder(folder: Path, temporary: Path | None = None) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place when the block ends well, and is deleted otherwise.

    What lies in that place until then comes back where the last step fails; where a kill kept it from that, the next
    time. The temporary folder is held as `replacing` holds a file, and what killed runs left beside it goes first: by
    names that `sweep` knows, or by that of `temporary`, for who looks for it. Raises AuthfaceError where the disk
    refuses.
    """
    parent = folder.absolute().parent
    sweep(parent)
    temporary = temporary or parent / f"{TEMPORARY}{secrets.token_hex(6)}"
    before = former_folder(folder)
    with write_errors(folder):
        _settle(folder, before)
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            with _begun_folder(temporary):
                yield temporary
                if folder.is_dir() or folder.is_symlink():
                    _settle(folder, before)  # another run, which ended this moment, may not have deleted its own
                    take_place(folder, before)
                take_place(temporary, folder)
        finally:
            _settle(folder, before)
            shutil.rmtree(temporary, ignore_errors=True)


def former_folder(folder: Path) -> Path:
    """Where `replacing_folder` has the former folder lie until the new one took its place: no sweep deletes it."""
    return folder.absolute().parent / f"{TEMPORARY}{folder.name}-old"


def _settle(folder: Path, before: Path) -> None:
    """Have the former folder come back where none took its place, and go otherwise. Raises OSError."""
    if not os.path.lexists(folder) and os.path.lexists(before):
        take_place(before, folder)
    elif before.is_symlink():
        before.unlink()
    else:
        shutil.rmtree(before, ignore_errors=True)


@contextmanager
def _begun_folder(temporary: Path) -> Iterator[None]:
    """Make an empty folder and hold it while the block runs. Raises OSError."""
    temporary.mkdir(parents=True)
    if sys.platform == "win32":  # which opens no folders
        yield
        return
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        hold(descriptor)
        while not temporary.exists():  # swept before it was held
            temporary.mkdir()
            os.close(descriptor)
            descriptor = os.open(temporary, os.O_RDONLY)
            hold(descriptor)
        yield
    finally:
        os.close(descriptor)


def hold(descriptor: int, *, wait: bool = True) -> bool:
    """Hold an open file until it is closed or this process dies; False where another has it or nobody can hold it.

    With `wait` it is waited for, and False means the latter alone: a disk or a system without such locks.
    """
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def sweep(folder: Path) -> None:
    """Delete what killed runs began in `folder` by `replacing` and `replacing_folder`.

    What a living one writes stays, and all other files.
    """
    try:
        with os.scandir(folder) as entries:
            begun = [entry.path for entry in entries if _BEGUN.fullmatch(entry.name)]
    except OSError:
        return  # not there, or not to be read: nothing of ours is in it
    for path in begun:
        with suppress(OSError):
            _delete_if_left(Path(path))


def _delete_if_left(path: Path) -> None:
    way = os.O_RDONLY if path.is_dir() else os.O_RDWR
    descriptor = os.open(path, way | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        kind = os.fstat(descriptor).st_mode
        if (stat.S_ISREG(kind) or stat.S_ISDIR(kind)) and hold(descriptor, wait=False):
            shutil.rmtree(path) if stat.S_ISDIR(kind) else path.unlink()
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all. Raises AuthfaceError where the disk refuses."""
    if not is_local(path):
        with write_errors(path):
            path.write_bytes(data)
        return
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def _flush(path: Path) -> None:
    if os.name != "posix" and path.is_dir():
        return  # only POSIX opens folders
    # Windows flushes only what is open for writing, POSIX opens folders only for reading.
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write rows, the header first; None is an empty cell. Raises AuthfaceError where the disk refuses."""
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        csv.writer(file).writerows(rows)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON. Raises AuthfaceError where the disk refuses, ValueError for NaN and infinity."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_file(path, (text + "\n").encode("utf-8", "backslashreplace"))
