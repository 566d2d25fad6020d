"""Photos that lie on this machine: a folder of them, and those that ship with the dependencies.

What a command of authface made is not taken for a photo of the user's. It is known by what the command leaves beside
its files (tables, the state of an export, a model's index, the log of restoring) and by content, not by the names of
the files alone: a photo that somebody puts beside them stays a photo.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from authface.curate.fetch.sources import PhotoItem, PhotoSource, SourceRequest
from authface.errors import AuthfaceError, UsageError, one_line
from authface.extras import need
from authface.models.layout import INDEX
from authface.records import Photo
from authface.store.journal import dataset_key
from authface.store.restore_log import LOG, PAGE_FILES, Results

_JPEG = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"}
PHOTO_ENDINGS = _JPEG | {".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".heic", ".heif", ".avif"}
"""Endings of the files that a folder source takes; their format is decided by their bytes."""


class Folder(PhotoSource):
    """Every photo below a folder, ordered by path; hidden ones are skipped, and what authface made (`made_here`)."""

    @classmethod
    def make(cls, request: SourceRequest) -> Self:
        """The folder of ``--from folder PATH``. Raises UsageError."""
        settings = request.settings
        path = request.path("the folder, as in authface curate fetch SET --from folder PATH")
        return cls(path, settings.photographer, settings.licence, silent="licence" not in settings.model_fields_set)

    def __init__(self, root: Path, photographer: str, licence: str, *, silent: bool = False) -> None:
        super().__init__()
        if not root.is_dir():
            what = "is a file" if root.exists() else "does not exist"
            raise UsageError(f"--from folder {one_line(root)}: {what}; give a folder of photos")
        self.root = root.resolve()
        self._photographer = photographer
        self._licence = licence
        self._silent = silent

    def items(self) -> Iterator[PhotoItem]:
        """The photos, but for what authface made; a folder that cannot be listed is an item with a failed row.

        Raises AuthfaceError where the folder itself cannot be listed.
        """
        outputs = Outputs(self.root)
        for path, problem in photo_files(self.root, self.ignored):
            if problem and path == self.root:
                raise AuthfaceError(f"{one_line(path)}: {problem}; check its permissions")
            if not problem and (what := outputs.what(path)):
                self.made_here[what] += 1
            else:
                yield self._item(path, problem)

    def count(self) -> int:
        """How many photos there are: the total of the progress bar."""
        outputs = Outputs(self.root)
        return sum(bool(problem) or not outputs.what(path) for path, problem in photo_files(self.root, Counter()))

    def _item(self, path: Path, problem: str) -> PhotoItem:
        as_of, size = ("", 0) if problem else _state(path)
        photo = Photo(
            id="",
            source="folder",
            source_id=name_below(self.root, path),
            file="",
            as_of=as_of,
            bytes=size,
            photographer=self._photographer,
            licence=self._licence,
            status="failed" if problem else "kept",
            reason="unreadable" if problem else "",
            detail=problem,
        )
        return PhotoItem(photo, path=str(path), silent=self._silent)


LINKED = "links to folders (name such a folder by itself)"


def photo_files(folder: Path, ignored: Counter[str]) -> Iterator[tuple[Path, str]]:
    """Every file with a photo's ending below a folder, ordered by path, each with no problem; hidden ones are skipped.

    A folder that cannot be listed, this one too, comes with why. `ignored` counts the endings of the other files, and
    the `LINKED` folders, which are not looked into.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        yield folder, f"cannot list the folder: {error.strerror}"
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = folder / entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from photo_files(path, ignored)
        elif entry.is_symlink() and os.path.isdir(path):  # noqa: PTH112  raises nothing of links that lead nowhere
            ignored[LINKED] += 1  # it might lead back
        elif path.suffix.lower() in PHOTO_ENDINGS:
            yield path, ""
        else:
            ignored[path.suffix.lower() or "no ending"] += 1


def name_below(folder: Path, path: Path) -> str:
    """The path of a file below a folder, printable."""
    return os.fsencode(path.relative_to(folder)).decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class _Sample:
    package: str
    file: str
    photographer: str
    page_url: str
    licence: str


_SAMPLES = (
    _Sample("skimage", "data/astronaut.png", "NASA", "https://flic.kr/p/r9qvLn", "public domain"),
    _Sample(
        "matplotlib",
        "mpl-data/sample_data/grace_hopper.jpg",
        "James S. Davis, US Navy",
        "https://commons.wikimedia.org/wiki/File:Commodore_Grace_M._Hopper,_USN_(covered).jpg",
        "public domain",
    ),
    _Sample("skimage", "data/coffee.png", "Rachel Michetti", "https://scikit-image.org", "CC0"),
    _Sample("skimage", "data/chelsea.png", "Stefan van der Walt", "https://scikit-image.org", "CC0"),
    _Sample("skimage", "data/rocket.jpg", "SpaceX", "https://scikit-image.org", "CC0"),
    _Sample("skimage", "data/moon.png", "NASA", "https://scikit-image.org", "public domain"),
)


class Samples(PhotoSource):
    """Photos that ship with scikit-image and matplotlib: two portraits and four photos without a face."""

    @classmethod
    def make(cls, request: SourceRequest) -> Self:
        """Raises UsageError without the extra `samples`."""
        need("curate fetch --from samples", "samples")
        return super().make(request)

    def items(self) -> Iterator[PhotoItem]:
        """The photos whose package is installed and carries them."""
        for sample in _SAMPLES:
            spec = find_spec(sample.package)
            for folder in (spec.submodule_search_locations or []) if spec else []:
                path = Path(folder) / sample.file
                if path.is_file():
                    photo = Photo(
                        id="",
                        source="samples",
                        source_id=f"{sample.package}/{path.name}",
                        file="",
                        photographer=sample.photographer,
                        page_url=sample.page_url,
                        licence=sample.licence,
                    )
                    yield PhotoItem(photo, path=str(path))


def _state(path: Path) -> tuple[str, int]:
    """When a file was changed, ISO 8601 or empty, and its size in bytes; 0 where it cannot be told."""
    try:
        found = path.stat()
    except OSError:
        return "", 0
    try:
        return datetime.fromtimestamp(found.st_mtime, UTC).isoformat(timespec="microseconds"), found.st_size
    except (OverflowError, ValueError):
        return "", found.st_size


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
        "of a page of authface restore",
        lambda home: (home / PAGE_FILES).is_dir(),
        rf"{re.escape(PAGE_FILES)}/.*",
    ),
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
