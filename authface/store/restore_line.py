"""What a run of restoring writes down: lines of its log, and its state while it works.

A line says what it holds, and what is accepted of a file that anyone may have edited. The state is a small file beside
the log, replaced every few seconds. Each run has its own, ``.restore/HOST-PID.json``; the last state stays when it
ends. What was made is in the log alone: a state may be lost, and nothing else is.
"""

from __future__ import annotations

import json
import math
import os
import re
import socket
import sys
import time
import types
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from authface.files import write_file

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
    traits: tuple[int, ...] = ()
    """Of the source before it was read (`authface.store.restore_log`); empty: whether it changed, its bytes say."""
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
    """Likeness to the input's, 0..1 (`authface.restore.guard`), as the next two; right is the person's own."""
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


_OPENING = b'{"target": "'
"""What every line of ours begins with."""
_FARTHEST = 1e6
"""Of a box or a crop's corner from the photo's first pixel: none that is restored has so long a side."""
Fits = Callable[[Any], bool]
"""Whether a value as JSON gives it may stand in a field; may raise OverflowError."""


def as_text(line: Line) -> str:
    """The line as the log has it, with its end."""
    return json.dumps(asdict(line)) + "\n"


def parse_line(data: bytes) -> Line | None:
    """The line, if it is one whose values have the types and lengths of ours."""
    values = values_of(data)
    return None if values is None else Line(**{name: _tuples(values[name]) for name in _CHECKS if name in values})


def values_of(data: bytes) -> dict[str, Any] | None:
    """A line's values as JSON has them, if it is one of ours: what `parse_line` takes, at half its cost."""
    try:
        values = json.loads(data.decode())
        fits = values.keys() >= _REQUIRED and all(
            check(values[name]) for name, check in _CHECKS.items() if name in values
        )
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return values if fits else None


def is_torn(data: bytes) -> bool:
    """Whether it is no line, but begins as ours do."""
    return values_of(data) is None and data[: len(_OPENING)] == _OPENING[: len(data)]


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _is_float(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _check_of(kind: Any) -> Fits:
    """The check of a field's type: numbers are finite, and what counts something is not below 0."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return lambda value: type(value) is str and value in inner
    if origin is types.UnionType:
        checks = [_check_of(one) for one in inner]
        return lambda value: any(check(value) for check in checks)
    if origin is tuple:
        item = _check_of(inner[0])
        return lambda value: type(value) is list and all(map(item, value))
    if kind in (int, float):
        return _is_count if kind is int else _is_float
    return lambda value: type(value) is kind


def _places(count: int) -> Fits:
    """None, or so many coordinates of a photo."""
    return lambda value: (
        value is None
        or (
            type(value) is list
            and len(value) == count
            and all(_is_float(one) and abs(one) <= _FARTHEST for one in value)
        )
    )


def _are_moments(value: Any) -> bool:
    return type(value) is list and all(
        type(one) is list and len(one) in (1, 9) and all(map(_is_float, one)) for one in value
    )


_CHECKS: dict[str, Fits] = {
    **{name: _check_of(kind) for name, kind in get_type_hints(Line).items()},
    "target": lambda value: type(value) is str and bool(value),
    "scale": lambda value: type(value) is int and value in (1, 2, 4),
    "tries": lambda value: type(value) is int and value > 0,
    "seed": lambda value: value is None or type(value) is int,
    "face": lambda value: value is None or type(value) is int,
    "box": _places(4),
    "quad": _places(8),
    "moments": _are_moments,
}
_REQUIRED = {one.name for one in fields(Line) if one.default is MISSING}


STATES = ".restore"
"""The folder of the states, beside the log."""
SILENT_SECONDS = 30.0
"""A run says something every few seconds; one that was silent for so long is asked whether it lives."""
Condition = Literal["running", "silent", "killed", "finished", "stopped"]


@dataclass(frozen=True, kw_only=True)
class RunState:
    """A run and how far it is. Times are seconds since 1970 by its machine's clock."""

    host: str
    pid: int
    started: float
    updated: float
    photos: int = 0
    """All that were named."""
    videos: int = 0
    restored: int = 0
    """Photos and videos with a restored face, those of earlier runs among them, as in the next."""
    no_face: int = 0
    """Photos and videos without one."""
    failed: int = 0
    done_before: int = 0
    """How many of them an earlier run made."""
    seconds: float = 0
    """Since work began."""
    rate: float = 0
    """Photos a second, of those that this run made."""
    left: float | None = None
    """Seconds; None while it cannot be told."""
    last: str = ""
    """Name of the input that came to its end last."""
    last_at: float | None = None
    model: str = ""
    engine: str = ""
    ended: str = ""
    """Empty while it runs; ``finished``, or why it stopped."""
    parts: dict[str, float] = field(default_factory=dict)
    """Seconds by part of the work, such as ``model``."""

    @property
    def inputs(self) -> int:
        """All that were named."""
        return self.photos + self.videos

    @property
    def done(self) -> int:
        """Inputs that came to their end, in this run or before."""
        return self.restored + self.no_face + self.failed

    def condition(self, now: float | None = None) -> Condition:
        """Whether it works. A silent one on another machine may be dead, or its network may be."""
        if self.ended:
            return "finished" if self.ended == "finished" else "stopped"
        if abs((time.time() if now is None else now) - self.updated) <= SILENT_SECONDS:
            return "running"
        return "killed" if self.host == socket.gethostname() and not _lives(self.pid) else "silent"

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "done": self.done, "condition": self.condition()}


_ADAPTER = TypeAdapter(RunState)


def new_state(**known: Any) -> RunState:
    """The state of a run of this process that begins."""
    now = time.time()
    return RunState(host=socket.gethostname(), pid=os.getpid(), started=now, updated=now, **known)


def write_state(home: Path, state: RunState) -> None:
    """Replace the run's state. Raises AuthfaceError where the disk refuses."""
    data = _ADAPTER.dump_json(replace(state, updated=time.time()))
    write_file(home / STATES / _name(state), data)


def read_states(home: Path) -> list[RunState]:
    """The runs that are known in a folder, the last one first; what is no state is passed over."""
    return sorted((state for _, state in _states(home)), key=lambda state: -state.started)


def forget_ended(home: Path) -> None:
    """Delete the states of runs that are over."""
    for path, state in _states(home):
        if state.condition() not in ("running", "silent"):
            with suppress(OSError):
                path.unlink()


def _states(home: Path) -> Iterator[tuple[Path, RunState]]:
    for path in sorted((home / STATES).glob("*.json")):
        with suppress(OSError, ValidationError, ValueError):
            yield path, _ADAPTER.validate_json(path.read_bytes())


def _name(state: RunState) -> str:
    return f"{re.sub(r'[^0-9A-Za-z.-]', '_', state.host)[:100]}-{state.pid}.json"


def _lives(pid: int) -> bool:
    """Whether a process of this machine is there; where that cannot be asked without harm, it is taken to be."""
    if sys.platform == "win32" or pid <= 0:  # there the signal 0 ends it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


NO_DIGEST = 2**64 - 1


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


@dataclass(frozen=True, slots=True)
class Trace:
    """What is kept in memory, packed, of a file that was made: enough to rule out nearly all that it is not."""

    digest: int
    """`digest_key` of its sha256."""
    size: int
    is_copy: bool
    place: int
    """Of its line."""


def digest_key(digest: str) -> int:
    """64 bits of a sha256 in hex; `NO_DIGEST` of an empty one."""
    try:
        return int(digest[:16], 16) & NO_DIGEST if digest else NO_DIGEST
    except ValueError:  # of a line that somebody wrote
        return zlib.crc32(digest.encode("utf-8", "surrogatepass"))


def made_of(line: Line, path: str) -> Made:
    """The file at `path` as its line says: a result, or the map of its change."""
    if line.target == path:
        return Made(path, line.result, line.result_bytes, line.content, line.source)
    return Made(path, line.map, line.map_bytes, line.content, line.source)
