"""A test set with truth: clean faces, degraded copies and a manifest. The same inputs and seed give the same files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from authface import __version__
from authface.console import Console
from authface.engine.pool import processes, seats
from authface.engine.workers import Step, inline
from authface.errors import AuthfaceError, ImageError, UsageError, one_line, shell_word
from authface.evaluate.images import SourceFace, SourceFaces
from authface.evaluate.settings import SynthSettings
from authface.faces.degrade import degrade, preset
from authface.files import sha256_of, write_errors, write_file
from authface.imaging.decode import decode, encode_png
from authface.store.photoset import Provenance

VERSION = 1
"""Raised when the same settings give other files."""
MANIFEST = "manifest.json"
CLEAN, DEGRADED = "clean", "degraded"
SAVE_EVERY = 100
"""Faces between two saves of the manifest: a kill costs at most so many."""
_CHUNK = 8
_INLINE = 32
"""Fewer faces than this are done before a worker process has started."""


@dataclass(frozen=True)
class SynthFace:
    """One face of the set, or why there is none: `name` is its file in both folders, without ending."""

    name: str
    id: str
    source_sha256: str = ""
    """Of the encoded image it was made from."""
    side: int = 0
    clean_sha256: str = ""
    degraded_sha256: str = ""
    reason: str = ""
    """Empty, or why the face could not be used: `not_square`, `truncated`, ..."""
    detail: str = ""


@dataclass(frozen=True)
class OpenedFace:
    """A clean face in memory."""

    rgb: NDArray[np.uint8]
    """(side, side, 3)."""
    seed: tuple[int, ...]
    source_sha256: str


@dataclass
class Synth(Step[SourceFace, OpenedFace, tuple[OpenedFace, NDArray[np.uint8]], SynthFace]):
    """The step: one source in, its two files and its row out. `authface.engine.workers` runs it."""

    out: Path
    settings: SynthSettings
    seed: int
    batch_size: int = 1

    @property
    def provenance(self) -> Provenance:
        """What the files depend on."""
        return Provenance("synth", VERSION, _recipe(self.settings, self.seed), {})

    def load(self, source: SourceFace) -> OpenedFace:
        """The face in pixels. Raises ImageError for what is no square image."""
        data = source.data()
        rgb, seed = clean_face(data, self.settings.size, self.seed)
        return OpenedFace(rgb, seed, hashlib.sha256(data).hexdigest())

    def step(self, batch: Sequence[OpenedFace]) -> Sequence[tuple[OpenedFace, NDArray[np.uint8]]]:
        """The degraded copies."""
        chosen = preset(self.settings.degradation)
        return [(opened, degrade(opened.rgb, opened.seed, chosen)) for opened in batch]

    def save(self, source: SourceFace, result: tuple[OpenedFace, NDArray[np.uint8]]) -> list[SynthFace]:
        """Write both files."""
        opened, degraded = result
        files = {CLEAN: encode_png(opened.rgb), DEGRADED: encode_png(degraded)}
        for folder, data in files.items():
            write_file(_file(self.out, folder, source.name), data)
        clean, low = (hashlib.sha256(data).hexdigest() for data in files.values())
        return [SynthFace(source.name, source.id, opened.source_sha256, len(opened.rgb), clean, low)]

    def failed(self, source: SourceFace, reason: str, detail: str) -> list[SynthFace]:
        """The row of a face that cannot be used."""
        return [SynthFace(source.name, source.id, reason=reason, detail=detail)]


def clean_face(data: bytes, size: int | None, seed: int) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
    """(side, side, 3) uint8 of an encoded face, resized to `size` if that is given, and the seed of its degradation.

    The seed is made of `seed` and the sha256 of the decoded pixels before resizing: neither the face's name nor its
    place counts. Raises ImageError (`not_square`, `too_small` under 32 px, and as `authface.imaging.decode.decode`).
    """
    rgb = decode(data).rgb
    height, width = rgb.shape[:2]
    if height != width:
        raise ImageError("not_square", f"{width} x {height} px: give aligned faces, authface curate align makes them")
    if width < 32:
        raise ImageError("too_small", f"{width} px, the least is 32")
    digest = hashlib.sha256(f"{width} {height}\n".encode() + np.ascontiguousarray(rgb).tobytes()).digest()
    if size is not None and size != width:
        rgb = cv2.resize(rgb, (size, size), interpolation=cv2.INTER_AREA if size < width else cv2.INTER_CUBIC)
    return rgb, (seed, int.from_bytes(digest))


@dataclass
class SynthSummary:
    """What a run did."""

    made: int = 0
    kept: int = 0
    """Faces that were there already."""
    failed: list[SynthFace] = field(default_factory=list)
    removed: int = 0
    """Faces whose source is gone."""
    count: int = 0
    """Faces of the set after the run."""


def synthesize(
    out: Path,
    sources: SourceFaces,
    settings: SynthSettings,
    seed: int,
    console: Console,
    *,
    limit: int = 0,
    workers: int = 1,
) -> SynthSummary:
    """Make the faces that `out` lacks, and its manifest. What is there, of the same source and whole, is left alone.

    Raises UsageError where `out` lies in the folder of the sources, or holds other files or another degradation,
    AuthfaceError where the disk refuses.
    """
    if seed < 0:
        raise UsageError(f"--seed {seed}: seeds are 0 and more")
    _check_apart(out, sources)
    recipe = _recipe(settings, seed)
    rows = _known(out, recipe)
    summary = SynthSummary()
    work = Synth(out, settings, seed)
    total = min(limit, len(sources)) if limit else len(sources)
    todo = _todo(out, sources.read(limit), rows, summary)
    engine = inline if workers == 1 or total < _INLINE else partial(processes, seats=seats(workers))
    _write_manifest(out, recipe, rows)
    try:
        with console.progress("degrade", total, "faces") as tick:
            for done, made in engine(work, _chunks(todo)):
                tick(done)
                _take(out, made, rows, summary)
                if summary.made % SAVE_EVERY < len(made):
                    _write_manifest(out, recipe, rows)
        if not limit:
            _forget(out, {name for name, _ in sources.names}, rows, summary)
    finally:
        _write_manifest(out, recipe, rows)
    summary.count = sum(not row.reason for row in rows.values())
    return summary


def _check_apart(out: Path, sources: SourceFaces) -> None:
    """Raise UsageError where the set would lie among its faces: the next run took its images for them, and an export
    with files that it did not write is not replaced."""
    folder = sources.folder.resolve()
    if folder in (out.resolve(), *out.resolve().parents):
        raise UsageError(f"-o {one_line(out)} lies in {one_line(folder)}, which holds the faces: choose another")


def _recipe(settings: SynthSettings, seed: int) -> dict[str, Any]:
    """What a set is made with: where this is the same, the files of a face are."""
    ranges = json.loads(json.dumps(asdict(preset(settings.degradation))))
    name = settings.degradation
    return {"version": VERSION, "degradation": name, "ranges": ranges, "seed": seed, "size": settings.size}


def _known(out: Path, recipe: dict[str, Any]) -> dict[str, SynthFace]:
    """The rows of an earlier run of the same recipe, by name; those of failures too."""
    path = out / MANIFEST
    if not path.exists():
        taken = [name for name in (CLEAN, DEGRADED) if (out / name).is_dir() and any((out / name).iterdir())]
        if taken:
            raise UsageError(f"{one_line(out / taken[0])} holds files, and {MANIFEST} is missing: choose another -o")
        return {}
    try:
        held = json.loads(path.read_text("utf-8"))
        rows = {row["name"]: SynthFace(**row) for row in [*held["images"], *held["failed"]]}
        before = {key: held["recipe"][key] for key in recipe}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{one_line(path)} is no manifest of authface evaluate synth: choose another -o") from error
    changed = [
        f"{key} {one_line(before[key], 60)} is now {one_line(recipe[key], 60)}"
        for key in recipe
        if before[key] != recipe[key]
    ]
    if changed:
        raise UsageError(f"{one_line(out)} holds a set made otherwise ({changed[0]}): choose another -o")
    return rows


def _todo(
    out: Path, sources: Iterator[SourceFace], rows: dict[str, SynthFace], summary: SynthSummary
) -> Iterator[SourceFace]:
    for source in sources:
        row = rows.get(source.name)
        if row is not None and _is_done(out, source, row):
            summary.kept += 1
        else:
            yield source


def _is_done(out: Path, source: SourceFace, row: SynthFace) -> bool:
    """Whether both files are there, byte for byte, of the same source."""
    try:
        return (
            hashlib.sha256(source.data()).hexdigest() == row.source_sha256
            and sha256_of(_file(out, CLEAN, row.name)) == row.clean_sha256
            and sha256_of(_file(out, DEGRADED, row.name)) == row.degraded_sha256
        )
    except (ImageError, OSError):
        return False


def _chunks(sources: Iterator[SourceFace]) -> Iterator[list[SourceFace]]:
    while chunk := list(islice(sources, _CHUNK)):
        yield chunk


def _take(out: Path, made: Sequence[SynthFace], rows: dict[str, SynthFace], summary: SynthSummary) -> None:
    for row in made:
        rows[row.name] = row
        if row.reason:
            summary.failed.append(row)
            _unlink(out, row.name)
        else:
            summary.made += 1


def _forget(out: Path, names: set[str], rows: dict[str, SynthFace], summary: SynthSummary) -> None:
    """Remove the files of faces that the source no longer has: the manifest says that this command made them."""
    for name in sorted(set(rows) - names):
        summary.removed += not rows.pop(name).reason
        _unlink(out, name)


def _unlink(out: Path, name: str) -> None:
    """Remove what an earlier run made of a face: it would be measured as truth."""
    for folder in (CLEAN, DEGRADED):
        with write_errors(out):
            _file(out, folder, name).unlink(missing_ok=True)


def _write_manifest(out: Path, recipe: dict[str, Any], rows: dict[str, SynthFace]) -> None:
    """Whole or not at all; the same set gives the same bytes."""
    images = [asdict(row) for _, row in sorted(rows.items()) if not row.reason]
    held = {
        "made_by": "authface evaluate synth",
        "recipe": recipe,
        "versions": {
            "authface": __version__,
            **{name: version(name) for name in ("numpy", "opencv-python-headless", "pillow")},
        },
        "count": len(images),
        "images": [{key: value for key, value in row.items() if key not in {"reason", "detail"}} for row in images],
        "failed": [asdict(row) for _, row in sorted(rows.items()) if row.reason],
    }
    data = (json.dumps(held, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "surrogateescape")
    path = out / MANIFEST
    if not path.exists() or path.read_bytes() != data:
        write_file(path, data)


def _file(out: Path, folder: str, name: str) -> Path:
    return out / folder / f"{name}.png"


def conclude(summary: SynthSummary, out: Path) -> str:
    """What a person is told. Raises AuthfaceError where no face could be used."""
    if not summary.count:
        first = summary.failed[0]
        raise AuthfaceError(
            f"no face could be used, {len(summary.failed)} failed: {one_line(first.id)}: {first.reason}: {first.detail}"
        )
    done = f"{summary.made} faces degraded, {summary.kept} were there before"
    gone = f", {summary.removed} removed whose source is gone" if summary.removed else ""
    where = one_line(out)
    degraded, restored = (shell_word(f"{where}/{name}") for name in ("degraded", "restored"))
    onward = f"next: authface restore {degraded} --aligned -o {restored}"
    return f"{done}{gone}; {summary.count} in {where}\n{onward}"
