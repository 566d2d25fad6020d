"""Which output belongs to which truth: by name, never by order."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from authface.errors import UsageError, one_line
from authface.evaluate.sources import images_in
from authface.records import Points5

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
        path = Path(folder) if equals and not Path(text).is_dir() else Path(text)
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
