"""Images to evaluate: clean faces from a folder or a dataset, and which output belongs to which, by name.

Faces come one at a time, under names that are safe as files; outputs are paired by name, never by order.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from authface.errors import AuthfaceError, ImageError, UsageError, one_line
from authface.files import TEMPORARY, local
from authface.imaging.decode import EXTENSIONS, read_bytes
from authface.records import Points5
from authface.store.rows import column_names, read_rows, read_text, row_count

ENDINGS = frozenset(f".{ending}" for ending in EXTENSIONS.values()) | {".jpeg", ".jpe", ".jfif", ".tiff", ".heif"}
"""File endings that are taken for images, in small letters."""
NAME_LENGTH = 120
"""Longest name of a face, without ending: file systems take 255 bytes."""
_READ_ROWS = 16
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
"""Names that Windows keeps for devices."""


@dataclass(frozen=True)
class SourceFace:
    """One clean face: its name as a file, its id, and its encoded bytes or the file that holds them."""

    name: str
    id: str
    encoded: bytes | Path

    def data(self) -> bytes:
        """The encoded image. Raises ImageError."""
        return self.encoded if isinstance(self.encoded, bytes) else read_bytes(self.encoded)


@dataclass(frozen=True)
class SourceFaces:
    """Faces of a folder; reading them again gives the same."""

    folder: Path
    names: tuple[tuple[str, str], ...]
    """Name and id of every face, in order."""
    files: tuple[Path, ...]
    """The images, or the Parquet files that hold them."""
    parquet: bool

    def __len__(self) -> int:
        return len(self.names)

    def read(self, limit: int = 0) -> Iterator[SourceFace]:
        """Every face, or the first `limit`; only a few are in memory."""
        names = self.names[:limit] if limit else self.names
        encoded: Iterable[bytes | Path] = _rows(self.files) if self.parquet else self.files
        for (name, id), data in zip(names, encoded, strict=False):
            yield SourceFace(name, id, data)


def open_sources(folder: Path, split: str, section: str = "evaluate.synth") -> SourceFaces:
    """The faces of `folder`: of the dataset's `split` where it holds Parquet files, else its images, folders below too.

    `section` is the recipe's table with the setting `split`. Raises UsageError where there are none, or no such split.
    """
    if not folder.is_dir():
        raise UsageError(
            f"no folder {one_line(folder)}: name one with images, or a dataset of authface annotate export"
        )
    if any(folder.glob("*.parquet")) or any((folder / "data").glob("*.parquet")):
        return _dataset(folder, split, section)
    images = tuple(images_in(folder, below=True))
    if not images:
        raise UsageError(f"{one_line(folder)} holds no images and no Parquet files of a dataset")
    inside = [path.relative_to(folder) for path in images]
    return SourceFaces(
        folder,
        tuple(zip(file_names([_without_ending(path) for path in inside], inside), map(str, inside), strict=True)),
        images,
        parquet=False,
    )


def images_in(folder: Path, *, below: bool = False) -> list[Path]:
    """The images of a folder by ending, sorted by path, without hidden and unfinished ones."""
    found = folder.rglob("*") if below else folder.iterdir()
    return sorted(
        path
        for path in found
        if path.suffix.lower() in ENDINGS
        and not any(part.startswith((".", TEMPORARY)) for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def file_names(ids: Sequence[str], exact: Sequence[object]) -> list[str]:
    """A name for every id that every file system takes, no two alike even where case is ignored.

    An id that is such a name stays as it is. Any other gets eight digits of its `exact` form, which must tell all
    apart: so the names do not depend on the order. Raises UsageError for two that are the same.
    """
    safe = [_safe(id) for id in ids]
    often = Counter(name.casefold() for name in safe)
    names = [
        name if name == id and often[name.casefold()] == 1 else f"{name}-{_digits(whole)}"
        for name, id, whole in zip(safe, map(str, ids), exact, strict=True)
    ]
    twice = [name for name, count in Counter(map(str.casefold, names)).items() if count > 1]
    if twice:
        raise UsageError(
            f"{len(twice)} ids are there more than once, such as {one_line(twice[0])}: each face needs its own"
        )
    return names


def _safe(id: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]", "_", id).strip(".")[:NAME_LENGTH].rstrip(".")
    return f"face_{name}" if not name or name.startswith("-") or name.partition(".")[0].lower() in _RESERVED else name


def _digits(whole: object) -> str:
    return hashlib.sha256(str(whole).encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _without_ending(path: Path) -> str:
    return path.with_suffix("").as_posix()


def parquet_files(folder: Path, split: str, columns: Sequence[str], section: str) -> tuple[Path, ...]:
    """The files of a dataset's split, each with these columns. Raises UsageError, which names `section`.split."""
    every = sorted([*folder.glob("*.parquet"), *(folder / "data").glob("*.parquet")])
    files = tuple(path for path in every if _split_of(path) == split)
    if not files:
        splits = ", ".join(sorted({_split_of(path) for path in every})) or "none"
        raise UsageError(
            f"the dataset {one_line(folder)} has no split {one_line(split)}: there are {one_line(splits)}; "
            f"-O {section}.split=NAME"
        )
    for path in files:
        there = _columns(path)
        for column in columns:
            if column not in there:
                raise UsageError(f"{one_line(path)} has no column {column}: it has {one_line(', '.join(there))}")
    return files


def _dataset(folder: Path, split: str, section: str) -> SourceFaces:
    files = parquet_files(folder, split, ["image"], section)
    ids: list[str] = []
    for path in files:
        if "id" in _columns(path):
            ids += [row["id"] for row in read_text(path, ["id"])]
        else:
            ids += [f"row-{len(ids) + n:06d}" for n in range(row_count(path))]
    if not ids:
        raise UsageError(f"the split {one_line(split)} of {one_line(folder)} holds no faces: -O {section}.split=NAME")
    return SourceFaces(folder, tuple(zip(file_names(ids, ids), ids, strict=True)), files, parquet=True)


def _columns(path: Path) -> list[str]:
    try:
        return column_names(path)
    except AuthfaceError as error:
        raise UsageError(str(error)) from error


def _split_of(path: Path) -> str:
    """``test-00000-of-00001.parquet`` belongs to `test`, as the hub's file names have it."""
    return re.split(r"[-.]", path.name)[0]


def _rows(files: Sequence[Path]) -> Iterator[bytes]:
    for path in files:
        for row in read_rows(path, ["image"], _READ_ROWS):
            yield _encoded(row["image"], path.parent)


def _encoded(image: Any, folder: Path) -> bytes:
    """The bytes of the column `image` of the hub's datasets: inside the row, or in a file named by it."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, dict) and image.get("bytes"):
        return bytes(image["bytes"])
    if isinstance(image, dict) and image.get("path"):
        try:
            return read_bytes(folder / image["path"])
        except ImageError:
            return b""  # said as `empty` where it is decoded
    return b""


LISTED = 10
"""Names an error lists."""


@dataclass(frozen=True)
class Method:
    """A restorer's name and the folder of its outputs."""

    name: str
    folder: Path


@dataclass(frozen=True)
class Pair:
    """One output with what it is compared to; names are file names without their endings."""

    method: str
    name: str
    output: Path
    truth: Path | None = None
    input: Path | None = None
    points5: Points5 | None = None
    """Where the face is in both, if somebody says; else it is found."""


def methods_of(given: Sequence[str]) -> list[Method]:
    """``NAME=DIR`` or ``DIR``, whose name is then the folder's. Raises UsageError for none, or two of one name."""
    methods = []
    for text in given:
        name, equals, folder = text.partition("=")
        path = local(folder if equals and not Path(text).is_dir() else text)
        methods.append(Method(name if path != Path(text) else path.resolve().name, path))
    if not methods:
        raise UsageError("no outputs: name their folder, --outputs DIR, or several, --outputs NAME=DIR")
    names = [method.name for method in methods]
    for method in methods:
        if not method.name.strip():
            raise UsageError(f"--outputs ={one_line(method.folder)}: give the method a name, NAME=DIR")
        if names.count(method.name) > 1:
            raise UsageError(f"--outputs: two are called {one_line(method.name)!r}: name them apart, NAME=DIR")
    return methods


def images_by_name(folder: Path, option: str) -> dict[str, Path]:
    """The images of a folder, without those below it, by name without ending.

    Raises UsageError where there is no folder, no image, or two of one name.
    """
    if not folder.is_dir():
        raise UsageError(f"--{option} {one_line(folder)}: no such folder")
    found: dict[str, Path] = {}
    for path in images_in(folder):
        stem = unicodedata.normalize("NFC", path.stem)  # file systems write one name in two ways
        if stem in found:
            raise UsageError(
                f"--{option}: {one_line(found[stem].name)} and {one_line(path.name)} have one name: keep one"
            )
        found[stem] = path
    if not found:
        raise UsageError(f"--{option} {one_line(folder)} holds no images")
    return found


def pair(
    outputs: Mapping[str, Mapping[str, Path]],
    truth: Mapping[str, Path] | None,
    inputs: Mapping[str, Path] | None,
    limit: int = 0,
) -> list[Pair]:
    """Every output of every method with its truth and input, the outputs of one face together.

    The names are the truth's, or without one those of the first method; `limit` takes the first of them in order.
    Raises UsageError, which lists names, where a method or the inputs lack one or a method has one too many.
    """
    first = next(iter(outputs.values()))
    every = truth if truth is not None else first
    names = sorted(every)[:limit] if limit else sorted(every)
    for method, there in outputs.items():
        _refuse(f"--outputs {one_line(method)}", "lacks", [name for name in names if name not in there])
        _refuse(f"--outputs {one_line(method)}", "has", [name for name in sorted(there) if name not in every])
    if inputs is not None:
        _refuse("--inputs", "lacks", [name for name in names if name not in inputs])
    return [
        Pair(method, name, there[name], truth[name] if truth else None, inputs[name] if inputs else None)
        for name in names
        for method, there in outputs.items()
    ]


def _refuse(where: str, lacks: str, names: Sequence[str]) -> None:
    if names:
        listed = ", ".join(one_line(name, 80) for name in names[:LISTED]) + (", ..." if names[LISTED:] else "")
        what = "images that the others have" if lacks == "lacks" else "images that the others lack"
        raise UsageError(f"{where} {lacks} {len(names)} {what}: {listed}")
