"""Photos that lie on this machine: a folder of them, and those that ship with the dependencies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from authface.curate.fetch.sources.base import PhotoItem, PhotoSource, SourceRequest
from authface.errors import AuthfaceError, UsageError, one_line
from authface.extras import need
from authface.records import Photo

_JPEG = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"}
PHOTO_ENDINGS = _JPEG | {".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".heic", ".heif", ".avif"}
"""Endings of the files that a folder source takes; their format is decided by their bytes."""


class Folder(PhotoSource):
    """Every photo below a folder, ordered by path; hidden files and folders are skipped."""

    @classmethod
    def make(cls, request: SourceRequest) -> Self:
        """The folder of ``--from folder PATH``. Raises UsageError."""
        settings = request.settings
        path = request.path("the folder, as in authface curate fetch SET --from folder PATH")
        return cls(path, settings.photographer, settings.licence)

    def __init__(self, root: Path, photographer: str, licence: str) -> None:
        super().__init__()
        if not root.is_dir():
            what = "is a file" if root.exists() else "does not exist"
            raise UsageError(f"--from folder {one_line(root)}: {what}; give a folder of photos")
        self.root = root.resolve()
        self._photographer = photographer
        self._licence = licence

    def items(self) -> Iterator[PhotoItem]:
        """The photos; a folder that cannot be listed is an item with a failed row."""
        yield from self._below(self.root)

    def count(self) -> int:
        """Files with a photo's ending below the folder, by name only: the total of the progress bar."""
        total = 0
        for _, folders, names in os.walk(self.root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            total += sum(not n.startswith(".") and Path(n).suffix.lower() in PHOTO_ENDINGS for n in names)
        return total

    def _below(self, folder: Path) -> Iterator[PhotoItem]:
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

    def _item(self, path: Path, as_of: str, problem: str) -> PhotoItem:
        name = os.fsencode(path.relative_to(self.root)).decode("utf-8", "backslashreplace")
        photo = Photo(
            id="",
            source="folder",
            source_id=name,
            file="",
            as_of=as_of,
            photographer=self._photographer,
            licence=self._licence,
            status="failed" if problem else "kept",
            reason="unreadable" if problem else "",
            detail=problem,
        )
        return PhotoItem(photo, path=str(path))


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


def _changed(path: Path) -> str:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="microseconds")
    except (OSError, OverflowError, ValueError):
        return ""
