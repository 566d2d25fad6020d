"""Which files are authface's own: what a command made is not taken for a photo of the user's.

Known by what a command leaves beside its files (tables, the state of an export, a model's index, the log of restoring)
and by content, not by the names of the files alone: a photo that somebody puts beside them stays a photo.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from authface.errors import AuthfaceError
from authface.files import sha256_of
from authface.models.layout import INDEX
from authface.store.lineage import dataset_key
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


RESULTS = "results of authface restore"


@dataclass(frozen=True)
class Home:
    """A kind of folder that a command writes."""

    what: str
    """Its files, as a count is followed by it."""
    shows: Callable[[Path], bool]
    """Whether a folder is one."""
    own: str
    """Which files below it are the command's: a pattern of their paths from there."""


_DIGEST = "[0-9a-f]{62}"
"""What follows the two digits that name the folder of a photo."""

HOMES = (
    Home(
        "of a photo set",
        # A run that was killed before its first part leaves a recipe and originals.
        lambda home: (home / "tables").is_dir() or (home / "recipe.toml").is_file(),
        rf"photos/([0-9a-f]{{2}})/\1{_DIGEST}\.\w+|crops/([0-9a-f]{{2}})/\2{_DIGEST}-\d+(\.[\w-]+)?\.png"
        "|review/thumbnails/.*",
    ),
    Home("of an export", lambda home: bool(dataset_key(home)), ".*"),
    Home("of a model", lambda home: (home / INDEX).is_file(), ".*"),
    Home("of a training", lambda home: (home / "training" / "run.json").is_file(), "training/.*"),
    Home("to be retouched", lambda home: (home / "retouch.json").is_file(), rf"[0-9a-f]{{2}}{_DIGEST}-\d+\.png"),
    Home(
        "of a test set",
        lambda home: all((home / name).exists() for name in ("manifest.json", "clean", "degraded")),
        r"(clean|degraded)/[^/]+\.png",
    ),
)


class Outputs:
    """What authface made in and below a folder."""

    def __init__(self, folder: Path) -> None:
        """Looks through the folder, and those above it, for logs of restoring."""
        folder = folder.absolute()
        self._results = Results([*folder.parents, *_with_log(folder)])
        self._homes: dict[Path, list[Home]] = {}

    def what(self, path: Path) -> str:
        """What a file is, as a count is followed by it; empty where it is not known to be authface's."""
        path = path.absolute()
        for above in path.parents:
            below = path.relative_to(above).as_posix()
            for home in self._of(above):
                if re.fullmatch(home.own, below, re.DOTALL):
                    return home.what
        return RESULTS if self._results.find(path) else ""

    def _of(self, folder: Path) -> list[Home]:
        if folder not in self._homes:
            self._homes[folder] = [home for home in HOMES if home.shows(folder)]
        return self._homes[folder]


def _with_log(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if LOG in files:
            yield Path(root)
