"""The log beside the results: one JSON line a face or video, and from it what need not be done again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from authface.errors import AuthfaceError, one_line
from authface.files import write_errors, write_file

Status = Literal["restored", "skipped", "no_face", "failed"]


NOT_OURS = "target_exists"
"""The reason of a failure: where the result should go there is a file that this command did not make."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One face, or a photo without one, or a whole video (`face` is None).

    Coordinates are pixels of the upright photo, the centre of the first at (0, 0); times are UTC.
    """

    target: str
    """The result, below the log's folder; photos are known by it."""
    source: str
    """Its absolute path."""
    content: str
    """sha256 of the source's bytes, hex; empty where it could not be read."""
    fingerprint: str
    """Of settings, weights and seed: the same content and fingerprint give the same result."""
    made: str
    """When the photo was done, ISO 8601; the same in all lines of one photo."""
    status: Status
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
    landmark_shift: float | None = None
    """Percent of the eyes' distance."""
    colour_shift: float | None = None
    """CIEDE2000 of the coarse tones."""
    fidelity: float | None = None
    """Of a further try, made since the identity was too low; None: the settings' own."""
    tries: int = 1
    frames: int = 0
    """Of a video, which has one line; 0: a photo."""
    faces: int = 0
    """Put back, over all frames of a video."""
    followed: int = 0
    """Faces that were followed through a video: one that stays counts once."""
    moments: tuple[tuple[float, ...], ...] = ()
    """Some of a video's frames with restored faces, evenly spaced among all: seconds, and the crop's corners of the
    largest of them, as in `quad`, unless frames are the crops."""
    seconds: float = 0
    """That a video took."""


def now() -> str:
    """The time, as `Line.made` holds it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@dataclass
class Log:
    """The log of one folder: its lines by target; a photo that is done again replaces its lines."""

    path: Path
    photos: dict[str, list[Line]] = field(default_factory=dict)
    _superseded: bool = False

    @classmethod
    def open(cls, path: Path) -> Log:
        """The log at `path`, empty if there is none. Its folder is made, and proved to take files.

        A line cut short by a kill is dropped. Raises AuthfaceError where the file cannot be used, or is no such log.
        """
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_text("utf-8", "replace") if path.exists() else ""
            with path.open("a", encoding="utf-8") as file:
                if text and not text.endswith("\n"):
                    file.write("\n")
        log = cls(path)
        for line in parse(text):
            log._take(line)
        if text.strip() and not log.photos:
            raise AuthfaceError(f"{one_line(path)} is no log of authface restore: choose another folder with -o")
        return log

    def add(self, lines: Iterable[Line]) -> None:
        """Append the lines of one photo. Raises AuthfaceError where the disk refuses."""
        lines = list(lines)
        text = "".join(json.dumps(asdict(line)) + "\n" for line in lines)
        with write_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(text)
        for line in lines:
            self._take(line)

    def close(self) -> None:
        """Rewrite the file without the lines of photos that were done again, whole or not at all."""
        if self._superseded:
            lines = (json.dumps(asdict(line)) + "\n" for photo in self.photos.values() for line in photo)
            write_file(self.path, "".join(lines).encode())
        elif not self.photos and self.path.exists() and self.path.stat().st_size == 0:
            self.path.unlink()

    def is_done(self, target: str, content: str, fingerprint: str) -> bool:
        """Whether the result exists and was made from this content with these settings."""
        last = self.photos.get(target, [])
        return (
            bool(last)
            and last[0].status != "failed"
            and (last[0].content, last[0].fingerprint) == (content, fingerprint)
            and all((self.path.parent / name).is_file() for name in (target, last[0].change_map or target))
        )

    def made_here(self, target: str, name: str = "") -> bool:
        """Whether a file is a result of an earlier run, or, with its `name`, the change map beside it.

        A new run may replace it.
        """
        lines = [line for line in self.photos.get(target, []) if line.reason != NOT_OURS]
        return any(line.change_map == name for line in lines) if name else bool(lines)

    def _take(self, line: Line) -> None:
        known = self.photos.setdefault(line.target, [])
        if known and known[0].made != line.made:
            self._superseded = True
            known.clear()
        known.append(line)


_NAMES = frozenset(entry.name for entry in fields(Line))


def parse(text: str) -> Iterator[Line]:
    """The lines of a log; text that is no line is skipped."""
    return filter(None, map(_parse, text.splitlines()))


def _parse(text: str) -> Line | None:
    try:
        values: Any = json.loads(text)
        return Line(**{name: _tuples(value) for name, value in values.items() if name in _NAMES})
    except (ValueError, TypeError, AttributeError):
        return None


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
