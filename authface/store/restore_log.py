"""The log beside the results of restoring: a JSON line a face or video; by it what was made need not be done again.

It only grows. A photo's lines are in it, with the digest of its result, before that result appears: a file that is
there and not in the log is another's, and a run that was killed between the two finds its own again. What counts of a
target are its last lines; runs that work in one folder at a time see each other's.

It lies in parts: ``restore.jsonl``, and behind every `PART_BYTES` the next of ``restore.00001.jsonl``,
``restore.00002.jsonl``. Only the last one grows, and none is renamed or rewritten. In memory is where a target's lines
lie, not what they say: about 0.2 kB a target.

By the logs in some folders and by their bytes, not by their names, files are known to be results (`Results`).
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from struct import Struct
from typing import Any, BinaryIO

from authface.errors import AuthfaceError, one_line
from authface.files import hold, sha256_of, write_errors
from authface.store.restore_line import (
    NO_DIGEST,
    Line,
    Made,
    Trace,
    as_text,
    digest_key,
    is_torn,
    made_of,
    parse_line,
    values_of,
)

LOG = "restore.jsonl"
"""Its name in the folder of the results; that of its first part."""
PAGE = "restore.html"
PAGE_FILES = f"{PAGE}.files"
"""Folder of the pictures of a page that does not hold them itself."""
PART_BYTES = 32_000_000
"""Size from which on a part is not continued: some 30,000 lines."""
_PART_BITS = 44
"""A line's place is its offset in its part, and above these bits the part's number."""
_PHOTO = Struct("<II")
"""Of what was made last of a target: number of the fingerprint, checksum of the time; places of the lines follow."""
_PLACE = Struct("<Q")
_TRACE = Struct("<QQ?Q")
"""A `Trace`."""
_MOST = 2**63 - 1


class Log:
    """The log of one folder. Threads may share it, and processes the files."""

    def __init__(self, path: Path, part_bytes: int = PART_BYTES) -> None:
        """Raises AuthfaceError where the file cannot be read, or is no such log."""
        self.path = path
        self._part_bytes = part_bytes
        self._photos: dict[str, bytes] = {}
        """By target a `_PHOTO` and places: packed, it takes a third of the memory of a tuple."""
        self._failed: dict[str, int] = {}
        """By target the place of its last failure, if nothing was made since; failures make nothing."""
        self._made: dict[str, bytes] = {}
        """By path one `_TRACE` or several."""
        self._fingerprints: dict[str, int] = {}
        self._read_to: dict[int, int] = {}
        """By number of the part."""
        self._names: dict[int, str] = {}
        self._lock = threading.RLock()
        self.refresh()
        if not (self._photos or self._failed) and not self._may_be_ours():
            raise AuthfaceError(f"{one_line(path)} is no log of authface restore: choose another folder with -o")

    def refresh(self) -> None:
        """Read what was added since, by other runs too. Raises AuthfaceError where a part cannot be read."""
        with self._lock, write_errors(self.path):
            sizes = self._sizes()
            if any(sizes.get(number, 0) < size for number, size in self._read_to.items()):
                for known in (self._photos, self._failed, self._made, self._fingerprints, self._read_to):
                    known.clear()  # deleted or cut by somebody: what is there now counts
            for number, size in sizes.items():
                if size > self._read_to.setdefault(number, 0):
                    self._read(number)

    def _sizes(self) -> dict[int, int]:
        """Bytes of each part: of those that are known, and those that were begun since."""
        numbers = sorted(self._read_to) or part_numbers(self.path)
        sizes = {}
        for number in chain(numbers, count(numbers[-1] + 1 if numbers else 0)):
            try:
                sizes[number] = os.stat(self._part(number)).st_size  # noqa: PTH116  a few times a photo
            except FileNotFoundError:
                if not numbers or number > numbers[-1]:
                    break
        return sizes

    def _part(self, number: int) -> str:
        if number not in self._names:
            self._names[number] = str(part_path(self.path, number))
        return self._names[number]

    def _read(self, number: int) -> None:
        """Take the whole lines of a part that were not read yet."""
        start = self._read_to[number]
        with part_path(self.path, number).open("rb") as file:
            file.seek(start)
            for data in file:
                values = values_of(data)
                if not data.endswith(b"\n") and values is None:
                    break  # another run is writing it, or a kill tore it
                if values is not None:
                    self._take(values, number << _PART_BITS | start)
                start += len(data)
        self._read_to[number] = start

    def is_older_than(self, path: Path) -> bool:
        """Whether a file is there and was written since the last line. Raises AuthfaceError as `refresh` does."""
        with self._lock, write_errors(self.path), suppress(FileNotFoundError):
            made = path.stat().st_mtime_ns
            return all(os.stat(self._part(number)).st_mtime_ns <= made for number in self._sizes())  # noqa: PTH116
        return False

    def _may_be_ours(self) -> bool:
        """Whether a file without any line of ours is empty, or a kill tore its first."""
        with write_errors(self.path), suppress(FileNotFoundError):
            start = self.path.read_bytes().strip()
            return not start or is_torn(start)
        return True

    def lines(self, target: str) -> list[Line]:
        """All lines of what was last made there; none where nothing was, or somebody changed the file meanwhile."""
        with self._lock:
            places = [place for (place,) in _PLACE.iter_unpack(self._photos.get(target, b"")[_PHOTO.size :])]
            found = [line for line in self._at(places) if line.target == target]
        return found if len(found) == len(places) else []

    def lines_of(self, target: str, content: str, fingerprint: str) -> list[Line]:
        """All lines of what was last made there, if from this content with these settings; else none."""
        lines = self.lines(target) if self.has(target, fingerprint) else []
        return lines if lines and lines[0].content == content and lines[0].lines in (0, len(lines)) else []

    def has(self, target: str, fingerprint: str) -> bool:
        """Whether what was last made there is of these settings."""
        known = self._photos.get(target)
        return known is not None and _PHOTO.unpack_from(known)[0] == self._fingerprints.get(fingerprint)

    def made_at(self, path: str) -> list[Made]:
        """What this command ever put there, or was about to; `path` is below the log's folder."""
        with self._lock:
            places = [trace.place for trace in _unpacked(self._made.get(path, b""))]
            return [made_of(line, path) for line in self._at(places)]

    def traces(self) -> Iterator[tuple[str, Trace]]:
        """Path and trace of all that this command ever made, or was about to."""
        for path, known in self._made.items():
            for trace in _unpacked(known):
                yield path, trace

    def made_by(self, path: str, place: int) -> Made | None:
        """What the trace of that place is of."""
        return next((made_of(line, path) for line in self._at([place])), None)

    def failures(self) -> Iterator[Line]:
        """The last failure of each target of which nothing was made since."""
        with self._lock:
            places = list(self._failed.values())
        yield from self._at(places)

    def add(self, lines: Sequence[Line]) -> None:
        """Append the lines of one photo, as far as the log has not got them already; on return they are in the file.

        Raises AuthfaceError where the disk refuses; the file is then as before.
        """
        first = lines[0]
        with self._lock:
            self.refresh()
            failed = list(self._at([self._failed[first.target]])) if first.target in self._failed else []
            known = failed if first.status == "failed" else [] if failed else self.lines(first.target)
            if known and _is_begun(known, lines):
                lines = [replace(line, made=known[0].made) for line in lines[len(known) :]]
            if lines:
                self._append("".join(map(as_text, lines)).encode())
                self.refresh()

    def _append(self, text: bytes) -> None:
        """Append to the last part, or to a new one behind it. Whoever does holds the first part."""
        with write_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b", buffering=0) as first:
                hold(first.fileno())
                for number in count(max(self._sizes(), default=0)):
                    with part_path(self.path, number).open("a+b", buffering=0) as part:
                        end = _mend(part)
                        if end < self._part_bytes:
                            return _write(part, text, end)

    def _at(self, places: Sequence[int]) -> Iterator[Line]:
        """The lines at some places, as far as they are still there."""
        opened, file = -1, None
        try:
            for place in places:
                number, offset = place >> _PART_BITS, place & ((1 << _PART_BITS) - 1)
                try:
                    if number != opened or file is None:
                        if file is not None:
                            file.close()
                        opened, file = number, part_path(self.path, number).open("rb")
                    file.seek(offset)
                    line = parse_line(file.readline())
                except OSError:
                    continue
                if line is not None:
                    yield line
        finally:
            if file is not None:
                file.close()

    def _take(self, values: dict[str, Any], place: int) -> None:
        target = values["target"]
        if values["status"] == "failed":
            self._failed[target] = place
            return
        self._failed.pop(target, None)
        fingerprint = self._fingerprints.setdefault(values["fingerprint"], len(self._fingerprints))
        made = zlib.crc32(values["made"].encode("utf-8", "surrogatepass"))
        known, head = self._photos.get(target, b""), _PHOTO.pack(fingerprint, made)
        self._photos[target] = (known if known[4 : _PHOTO.size] == head[4:] else head) + _PLACE.pack(place)
        for path, digest, size in (
            (target, values.get("result", ""), values.get("result_bytes", 0)),
            (values.get("change_map", ""), values.get("map", ""), values.get("map_bytes", 0)),
        ):
            if path:
                size = min(max(size, 0), _MOST)  # of a line that somebody wrote
                self._trace(path, Trace(digest_key(digest), size, digest == values["content"], place))

    def _trace(self, path: str, trace: Trace) -> None:
        known = self._made.get(path, b"")
        if all(one.digest != trace.digest for one in _unpacked(known)):
            self._made[path] = known + _TRACE.pack(trace.digest, trace.size, trace.is_copy, trace.place)


def _unpacked(traces: bytes) -> Iterator[Trace]:
    return (Trace(*values) for values in _TRACE.iter_unpack(traces))


def part_path(path: Path, number: int) -> Path:
    """The path of a part; 0 is the first, which has the log's own name."""
    return path if number == 0 else path.with_name(f"{path.stem}.{number:05d}{path.suffix}")


def part_numbers(path: Path) -> list[int]:
    """The numbers of the parts that are there, in order; one in between may have been deleted by somebody.

    They have five digits: with more, such as a date, a file is somebody's copy.
    """
    named = re.compile(rf"{re.escape(path.stem)}\.([0-9]{{5}}){re.escape(path.suffix)}")
    try:
        with os.scandir(path.parent) as entries:
            found = [match for entry in entries if (match := named.fullmatch(entry.name))]
    except (FileNotFoundError, NotADirectoryError):
        return []
    numbers = sorted(int(match[1]) for match in found if int(match[1]))
    return [0, *numbers] if path.exists() else numbers


def _is_begun(known: Sequence[Line], lines: Sequence[Line]) -> bool:
    """Whether the log has these lines, or the first of them; when and how fast they were made is no matter."""
    old, new = ([replace(line, made="", seconds=0, engine="", traits=()) for line in some] for some in (known, lines))
    return old == new[: len(old)]


def _write(file: BinaryIO, text: bytes, end: int) -> None:
    """Append `text` to a file that ends at `end`, whole or not at all. Raises OSError."""
    try:
        left = memoryview(text)
        while left:
            left = left[file.write(left) :]
    except BaseException:
        file.truncate(end)
        raise


def _mend(file: BinaryIO) -> int:
    """Let a log end with a whole line, whatever a kill or an editor left; its size then."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 1, 0))
    if file.read(1) in (b"", b"\n"):
        return size
    file.seek(0)
    data = file.read()
    start = data.rfind(b"\n") + 1
    if is_torn(data[start:]):
        return file.truncate(start)
    return size + file.write(b"\n")


def prove_writable(folder: Path) -> None:
    """Raise AuthfaceError where no file can be made in a folder, which may be absent; nothing is left of the try."""
    there = next((one for one in (folder, *folder.absolute().parents) if one.exists()), folder)
    with write_errors(folder), tempfile.TemporaryFile(dir=there):
        pass


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
        self._by_digest: dict[int, tuple[Log, str, int]] = {}
        """The last that has a digest, and the place of its line."""
        self._sizes: set[int] = set()
        for log in self._logs.values():
            for path, trace in log.traces():
                if trace.digest != NO_DIGEST and not trace.is_copy:
                    self._by_digest[trace.digest] = log, path, trace.place
                    self._sizes.add(trace.size)
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
        log, path, place = known
        made = log.made_by(path, place)
        return made if made is not None and made.digest == digest else None

    def has_source(self, made: Made, paths: Sequence[Path]) -> bool:
        """Whether one of the files is the source of a result; the likeliest is read first."""
        name = Path(made.source).name
        return any(self.digest(path) == made.content for path in sorted(paths, key=lambda path: path.name != name))


def digest_of(path: Path) -> str:
    """sha256 of a file in hex; empty if it is missing or cannot be read."""
    try:
        return sha256_of(path)
    except (OSError, ValueError):  # of a name that somebody wrote into the log
        return ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
