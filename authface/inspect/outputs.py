"""Which files are authface's own: what a command made is not taken for a photo of the user's.

Known by what a command leaves beside its files (tables, the state of an export, a model's index, the log of restoring)
and by content, not by the names of the files alone: a photo that somebody puts beside them stays a photo.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from authface.models.layout import INDEX
from authface.store.journal import dataset_key
from authface.store.restore_log import LOG
from authface.store.results import Results

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
