"""The pictures of a study: found, checked that nothing but the faces tells them apart, and given out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from authface.errors import AuthfaceError, ImageError, UsageError, one_line
from authface.evaluate.pairs import Method, images_by_name, pair
from authface.evaluate.protocol import set_sha256
from authface.evaluate.study.study import Shown, Study, check_names
from authface.imaging.decode import decode, encode_png, read, read_bytes

INPUT = ""
"""The name under which a study keeps the folder of the degraded faces."""
_REMEMBERED = 48


@dataclass(frozen=True)
class Pictures:
    """Files by method and face; those of the degraded faces under `INPUT`."""

    files: Mapping[tuple[str, str], Path]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_png", lru_cache(_REMEMBERED)(_png))

    def of(self, study: Study, shown: Shown, place: str) -> bytes:
        """What stands `left`, `right` or as the `input`: PNG of upright 8-bit sRGB, without the file's name or data.

        Raises ImageError.
        """
        method = INPUT if place == "input" else study.ours if (place == "left") == shown.ours_left else shown.item.other
        data: bytes = self._png(self.files[method, shown.item.name])  # type: ignore[attr-defined]  # made above
        return data


def _png(path: Path) -> bytes:
    return encode_png(read(path).rgb)


def open_study(
    methods: Sequence[Method], ours: str | None, inputs: Path | None, seed: int, limit: int, question: str
) -> tuple[Study, Pictures]:
    """The study of these folders, paired by name.

    Raises UsageError where names do not pair or two pictures of one face differ in size, by which they could be told
    apart, AuthfaceError where one cannot be read.
    """
    chosen, others = check_names([method.name for method in methods], ours)
    outputs = {method.name: images_by_name(method.folder, "outputs") for method in methods}
    beside = images_by_name(inputs, "inputs") if inputs is not None else None
    pairs = pair(outputs, None, beside, limit)
    files = {(found.method, found.name): found.output for found in pairs}
    files |= {(INPUT, found.name): found.input for found in pairs if found.input is not None}
    names = tuple(dict.fromkeys(found.name for found in pairs))
    for name in (*names, *outputs):
        if not name.isprintable():
            raise UsageError(f"{one_line(name, 80)!r}: a study needs names of printable characters; rename the files")
    contents = {key: _checked(path) for key, path in files.items()}
    for name in names:
        sizes = {method.name: contents[method.name, name][1] for method in methods}
        if len(set(sizes.values())) > 1:
            said = ", ".join(f"{one_line(method, 40)} {width} x {height}" for method, (width, height) in sizes.items())
            raise UsageError(f"{one_line(name, 80)} differs in size ({said} px): a study is blind at one size only")
    folders = {method.name: str(method.folder) for method in methods}
    if inputs is not None:
        folders[INPUT] = str(inputs)
    sets = {method: set_sha256((name, contents[method, name][0]) for name in names) for method in folders}
    return Study(chosen, others, names, seed, question, folders, sets), Pictures(files)


def pictures_again(study: Study) -> Pictures:
    """The pictures where the study says they lie, as far as they are still there."""
    files = {}
    for method, folder in study.folders.items():
        try:
            there = images_by_name(Path(folder), "outputs")
        except UsageError:
            continue
        files.update({(method, name): there[name] for name in study.names if name in there})
    return Pictures(files)


def _checked(path: Path) -> tuple[str, tuple[int, int]]:
    """sha256 of a file, and width and height as it will be shown. Raises AuthfaceError where it is no image."""
    try:
        data = read_bytes(path)
        height, width = decode(data).rgb.shape[:2]
    except ImageError as error:
        raise AuthfaceError(
            f"{one_line(path)} cannot be shown ({error.reason}: {one_line(error)}): make it again"
        ) from error
    return hashlib.sha256(data).hexdigest(), (width, height)
