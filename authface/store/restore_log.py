"""The log beside the results of restoring: a JSON line a face or video; by it what was made need not be done again.

It only grows. A photo's lines are in it, with the digest of its result, before that result appears: a file that is
there and not in the log is another's, and a run that was killed between the two finds its own again. What counts of a
target are its last lines; runs that work in one folder at a time see each other's.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import threading
import types
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args, get_origin, get_type_hints

from authface.errors import AuthfaceError, one_line
from authface.files import hold, write_errors

LOG = "restore.jsonl"
"""Its name in the folder of the results."""
Status = Literal["restored", "skipped", "no_face", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One face, or a photo without one, or a whole video (`face` is None).

    Coordinates are pixels of the upright photo, the centre of the first at (0, 0); times are UTC.
    """

    target: str
    """The result, below the log's folder; photos are known by it."""
    source: str
    """Its absolute path then; it may have been moved since."""
    content: str
    """sha256 of the source's bytes, hex; empty where it could not be read."""
    fingerprint: str
    """Of settings, weights and seed: the same content and fingerprint give the same result."""
    made: str
    """When the photo was done, ISO 8601; the same in all lines of one photo."""
    status: Status
    lines: int = 0
    """How many the photo has, of which this is one; 0 in logs of before."""
    result: str = ""
    """sha256 of the result's bytes, hex; empty where nothing was made, and in logs of before."""
    result_bytes: int = 0
    reason: str = ""
    """Why a face was skipped, or a whole video, in a word; `detail` has value, limit and setting."""
    detail: str = ""
    model: str = ""
    engine: str = ""
    """What ran its networks: `onnxruntime`, `torch`; empty: none."""
    width: int = 0
    height: int = 0
    scale: int = 1
    """How many times the result is larger; `width`, `height`, `box` and `quad` are the input's."""
    change_map: str = ""
    """The map of what changed, below the log's folder; empty: none."""
    map: str = ""
    """sha256 of its bytes, as `result`."""
    map_bytes: int = 0
    encoding: str = ""
    """How the result was compressed, and with what depth."""
    face: int | None = None
    """0 is the photo's largest."""
    box: tuple[float, ...] | None = None
    """x0, y0, x1, y1."""
    score: float | None = None
    seed: int | None = None
    placed_by: str = ""
    """Whose points placed the crop: `dlib68`, `retinaface5`; `marked` by `--faces`; `whole`: the photo is the crop."""
    upscaled: bool = False
    """The crop holds fewer pixels in the photo than the model works on."""
    quad: tuple[float, ...] | None = None
    """x, y of the crop's top-left, bottom-left, bottom-right, top-right corner."""
    identity: float | None = None
    """Likeness of the restored face to its input, -1..1 (`authface.restore.guard`); None: not measured."""
    right_eye: float | None = None
    """Likeness to the input's, 0..1 (`authface.restore.parts`), as the next two; right is the person's own."""
    left_eye: float | None = None
    mouth: float | None = None
    suspect: tuple[str, ...] = ()
    """Those of the three that are too little like the input's, the worst first."""
    landmark_shift: float | None = None
    """Percent of the eyes' distance."""
    colour_shift: float | None = None
    """CIEDE2000 of the coarse tones."""
    fidelity: float | None = None
    """Of a further try, made since identity or a part was too low; None: the settings' own."""
    tries: int = 1
    frames: int = 0
    """Of a video, which has one line; 0: a photo."""
    faces: int = 0
    """Put back, over all frames of a video."""
    suspects: int = 0
    """Of those how many have an eye or a mouth that is too little like the input's."""
    drifted: int = 0
    """Not put back, over all frames of a video, since every try broke a limit."""
    followed: int = 0
    """Faces that were followed through a video: one that stays counts once."""
    moments: tuple[tuple[float, ...], ...] = ()
    """Some of a video's frames with restored faces, evenly spaced among all: seconds, and the crop's corners of the
    largest of them, as in `quad`, unless frames are the crops."""
    seconds: float = 0
    """That a video took."""


@dataclass(frozen=True)
class Made:
    """A file that this command made: by `path` where, below the log's folder, and by `digest` what it was.

    `digest` is empty, and `size` 0, in logs of before.
    """

    path: str
    digest: str
    size: int
    content: str
    """sha256 of its source's bytes."""
    source: str
    """The path that its source had."""

    @property
    def is_copy(self) -> bool:
        """Its source, byte for byte: no pixel had to change."""
        return self.digest == self.content


class Log:
    """The log of one folder. Threads may share it, and processes the file."""

    def __init__(self, path: Path) -> None:
        """Raises AuthfaceError where the file cannot be read, or is no such log."""
        self.path = path
        self.photos: dict[str, list[Line]] = {}
        """By target the lines of what was made last; failures made nothing."""
        self._failed: dict[str, Line] = {}
        self._made: dict[str, list[Made]] = {}
        self._read_to = 0
        self._lock = threading.RLock()
        self.refresh()
        if not (self.photos or self._failed) and not self._may_be_ours():
            raise AuthfaceError(f"{one_line(path)} is no log of authface restore: choose another folder with -o")

    def refresh(self) -> None:
        """Read what was added since, by other runs too. Raises AuthfaceError where the file cannot be read."""
        with self._lock:
            data = self._read(self._read_to)
            if data is None:  # deleted or cut by somebody: what is there now counts
                for known in (self.photos, self._failed, self._made):
                    known.clear()
                self._read_to, data = 0, self._read(0) or b""
            end = data.rfind(b"\n") + 1
            if _parse(data[end:]) is not None:  # a line that lacks its end alone
                end = len(data)
            self._read_to += end
            for line in parse(data[:end]):
                self._take(line)

    def _read(self, start: int) -> bytes | None:
        """Its bytes from there on; None: it is not so long, or not there."""
        with write_errors(self.path):
            try:
                with self.path.open("rb") as file:
                    if file.seek(0, os.SEEK_END) < start:
                        return None
                    file.seek(start)
                    return file.read()
            except FileNotFoundError:
                return None if start else b""

    def _may_be_ours(self) -> bool:
        """Whether a file without any line of ours is empty, or a kill tore its first."""
        start = (self._read(0) or b"").strip()
        return not start or _is_torn(start)

    def lines_of(self, target: str, content: str, fingerprint: str) -> list[Line]:
        """All lines of what was last made there, if from this content with these settings; else none."""
        lines = self.photos.get(target, [])
        same = lines and (lines[0].content, lines[0].fingerprint) == (content, fingerprint)
        return lines if same and lines[0].lines in (0, len(lines)) else []

    def made_at(self, path: str) -> list[Made]:
        """What this command ever put there, or was about to; `path` is below the log's folder."""
        return self._made.get(path, [])

    def everything_made(self) -> Iterator[Made]:
        """All that this command ever made, or was about to."""
        return (one for made in self._made.values() for one in made)

    def add(self, lines: Sequence[Line]) -> None:
        """Append the lines of one photo, as far as the log has not got them already; on return they are in the file.

        Raises AuthfaceError where the disk refuses; the file is then as before.
        """
        first = lines[0]
        with self._lock:
            self.refresh()
            failed = [line for line in [self._failed.get(first.target)] if line is not None]
            known = failed if first.status == "failed" else [] if failed else self.photos.get(first.target, [])
            if known and _is_begun(known, lines):
                lines = [replace(line, made=known[0].made) for line in lines[len(known) :]]
            if lines:
                self._append("".join(json.dumps(asdict(line)) + "\n" for line in lines).encode())
                self.refresh()

    def _append(self, text: bytes) -> None:
        with write_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b", buffering=0) as file:
                hold(file.fileno())
                end = _mend(file)
                try:
                    left = memoryview(text)
                    while left:
                        left = left[file.write(left) :]
                except BaseException:
                    file.truncate(end)
                    raise

    def _take(self, line: Line) -> None:
        if line.status == "failed":
            self._failed[line.target] = line
            return
        self._failed.pop(line.target, None)
        known = self.photos.setdefault(line.target, [])
        if known and known[0].made != line.made:
            known.clear()
        known.append(line)
        files = [(line.target, line.result, line.result_bytes), (line.change_map, line.map, line.map_bytes)]
        for path, digest, size in files:
            made = self._made.setdefault(path, []) if path else []
            if path and all(one.digest != digest for one in made):
                made.append(Made(path, digest, size, line.content, line.source))


def _is_begun(known: Sequence[Line], lines: Sequence[Line]) -> bool:
    """Whether the log has these lines, or the first of them; when and how fast they were made is no matter."""
    old, new = ([replace(line, made="", seconds=0, engine="") for line in some] for some in (known, lines))
    return old == new[: len(old)]


_OPENING = b'{"target": "'


def _is_torn(line: bytes) -> bool:
    """Whether it is no line, but begins as ours do."""
    return _parse(line) is None and line[: len(_OPENING)] == _OPENING[: len(line)]


def _mend(file: BinaryIO) -> int:
    """Let a log end with a whole line, whatever a kill or an editor left; its size then."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 1, 0))
    if file.read(1) in (b"", b"\n"):
        return size
    file.seek(0)
    data = file.read()
    start = data.rfind(b"\n") + 1
    if _is_torn(data[start:]):
        return file.truncate(start)
    return size + file.write(b"\n")


def parse(data: bytes) -> Iterator[Line]:
    """The lines of a log; what is no line is skipped."""
    return filter(None, map(_parse, data.split(b"\n")))


def _parse(data: bytes) -> Line | None:
    """The line, if it is one whose values have the types and lengths of ours."""
    try:
        values = json.loads(data)
        given = {name: _tuples(values[name]) for name in _TYPES if name in values}
        line = Line(**given) if all(_fits(value, _TYPES[name]) for name, value in given.items()) else None
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    return line if line is not None and _is_sound(line) else None


_TYPES: dict[str, Any] = get_type_hints(Line)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value read from JSON is of a type that a field of `Line` has; numbers are finite."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return value in inner
    if origin is types.UnionType:
        return any(_fits(value, one) for one in inner)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(one, inner[0]) for one in value)
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is kind


_FARTHEST = 1e6
"""Of a box or a crop's corner from the photo's first pixel: none that is restored has so long a side."""


def _is_sound(line: Line) -> bool:
    return (
        bool(line.target)
        and min(
            line.width,
            line.height,
            line.lines,
            line.frames,
            line.faces,
            line.suspects,
            line.drifted,
            line.result_bytes,
            line.map_bytes,
        )
        >= 0
        and line.scale in (1, 2, 4)
        and line.tries > 0
        and (line.box is None or len(line.box) == 4)
        and (line.quad is None or len(line.quad) == 8)
        and all(abs(place) <= _FARTHEST for place in (*(line.box or ()), *(line.quad or ())))
        and all(len(moment) in (1, 9) for moment in line.moments)
    )


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def prove_writable(folder: Path) -> None:
    """Raise AuthfaceError where no file can be made in a folder, which may be absent; nothing is left of the try."""
    there = next((one for one in (folder, *folder.absolute().parents) if one.exists()), folder)
    with write_errors(folder), tempfile.TemporaryFile(dir=there):
        pass
