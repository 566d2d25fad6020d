"""Where photos come from. A source lists items; the fetch step reads, checks and stores them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from authface.curate.settings import FetchSettings
from authface.errors import AuthfaceError, UsageError, one_line

_JPEG = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"}
PHOTO_ENDINGS = _JPEG | {".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".heic", ".heif", ".avif"}
"""Files that a folder source takes; what they hold is decided by their bytes."""


@dataclass(frozen=True, slots=True)
class Item:
    """One photo a source offers."""

    source: str
    source_id: str
    """Its name within the source, printable."""
    path: str
    """Where its bytes are."""
    as_of: str
    photographer: str = ""
    page_url: str = ""
    licence: str = ""
    problem: str = ""
    """Why its bytes cannot be read, where the source knows that already."""


class Source(Protocol):
    """Lists photos in a stable order, so that a second run finds what the first left."""

    def items(self) -> Iterator[Item]: ...

    @property
    def ignored(self) -> Counter[str]:
        """Files passed over while listing, by ending."""


class Folder:
    """Every photo below a folder, in the order of its path; hidden files and folders are passed over."""

    def __init__(self, root: Path, photographer: str, licence: str) -> None:
        if not root.is_dir():
            what = "is a file" if root.exists() else "does not exist"
            raise UsageError(f"--from folder {one_line(root)}: {what}; give a folder of photos")
        self.root = root.resolve()
        self._photographer = photographer
        self._licence = licence
        self.ignored: Counter[str] = Counter()

    def items(self) -> Iterator[Item]:
        """The photos; a folder that cannot be listed is an item with a `problem`."""
        yield from self._below(self.root)

    def _below(self, folder: Path) -> Iterator[Item]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            if folder == self.root:
                raise AuthfaceError(
                    f"cannot list {one_line(folder)}: {error.strerror}; check its permissions"
                ) from error
            yield self._item(folder, "", f"cannot list the folder: {error.strerror}")
            return
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = folder / entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from self._below(path)
            elif path.suffix.lower() in PHOTO_ENDINGS:
                yield self._item(path, _changed(path), "")
            else:
                self.ignored[path.suffix.lower() or "no ending"] += 1

    def _item(self, path: Path, as_of: str, problem: str) -> Item:
        name = os.fsencode(path.relative_to(self.root)).decode("utf-8", "backslashreplace")
        return Item(
            source="folder",
            source_id=name,
            path=str(path),
            as_of=as_of,
            photographer=self._photographer,
            licence=self._licence,
            problem=problem,
        )


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


class Samples:
    """Photos that ship with scikit-image and matplotlib: two portraits and four photos without a face."""

    def __init__(self) -> None:
        self.ignored: Counter[str] = Counter()

    def items(self) -> Iterator[Item]:
        """The photos whose package is installed and carries them."""
        for sample in _SAMPLES:
            spec = find_spec(sample.package)
            for folder in (spec.submodule_search_locations or []) if spec else []:
                path = Path(folder) / sample.file
                if path.is_file():
                    yield Item(
                        source="samples",
                        source_id=f"{sample.package}/{path.name}",
                        path=str(path),
                        as_of="",
                        photographer=sample.photographer,
                        page_url=sample.page_url,
                        licence=sample.licence,
                    )


def make_source(settings: FetchSettings) -> Source:
    """The source by name. Raises UsageError where it needs more, or is not built yet."""
    if settings.source == "folder":
        if not settings.path:
            raise UsageError("--from folder: give the folder, as in authface curate fetch SET --from folder PATH")
        return Folder(Path(settings.path), settings.photographer, settings.licence)
    if settings.source == "samples":
        return Samples()
    raise UsageError(
        f"--from {settings.source} is not part of this version yet: use --from folder PATH, or --from samples"
    )


def _changed(path: Path) -> str:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="microseconds")
    except (OSError, OverflowError, ValueError):
        return ""
