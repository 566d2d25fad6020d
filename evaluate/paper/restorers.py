"""Rows of table 1 that this toolkit makes itself: restorers over test sets, as commands that anyone could type."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from authface.errors import UsageError, one_line
from authface.evaluate.paper.grid import GridStep, words_of
from authface.evaluate.paper.paper import OurReport
from authface.evaluate.sources import file_names, images_in

PAIRS = (("clean", "degraded"), ("hq", "lq"))
"""Names of the folders of a test set that has its truth: those of `evaluate synth`, and of CelebA-Test."""


@dataclass(frozen=True)
class SetFolder:
    """A test set on disk; `truth` is None for one of real photos."""

    name: str
    inputs: Path
    truth: Path | None


@dataclass(frozen=True)
class RowSetup:
    """What all rows share."""

    folder: Path
    restorers: tuple[str, ...]
    sets: tuple[SetFolder, ...]
    common: tuple[str, ...]
    """Words of every command: recipe, device, seed."""
    overrides: tuple[str, ...] = ()

    def home(self, restorer: str, on: SetFolder) -> Path:
        """Folder of one restorer's outputs and report on one set."""
        restorers = file_names(self.restorers, self.restorers)
        sets = file_names([one.name for one in self.sets], [one.name for one in self.sets])
        return self.folder / restorers[self.restorers.index(restorer)] / sets[self.sets.index(on)]


def sets_of(given: Sequence[str]) -> tuple[SetFolder, ...]:
    """``SET=DIR`` or ``DIR``: a folder of clean/ and degraded/ (or hq/ and lq/), or of degraded faces alone.

    Raises UsageError for what is no such folder, or two of one name.
    """
    found = []
    for text in given:
        name, equals, folder = text.partition("=")
        path = Path(folder if equals else text)
        pair = next(((path / t, path / i) for t, i in PAIRS if (path / t).is_dir() and (path / i).is_dir()), None)
        truth, inputs = pair or (None, path)
        if not inputs.is_dir() or not images_in(inputs):
            raise UsageError(
                f"--test {one_line(text)}: no faces there; name it SET=DIR, a folder of degraded faces, or of "
                "clean/ and degraded/ (authface evaluate synth makes one)"
            )
        found.append(SetFolder(name.strip() if equals else "", inputs, truth))
    if len({one.name for one in found}) < len(found):
        raise UsageError("--test: two sets have one name: name them apart, SET=DIR")
    return tuple(found)


def plan_rows(setup: RowSetup) -> list[GridStep]:
    """Two commands for each restorer and set: restore its faces, and measure them."""
    return [step for restorer in setup.restorers for on in setup.sets for step in _row(setup, restorer, on)]


def _row(setup: RowSetup, restorer: str, on: SetFolder) -> list[GridStep]:
    home = setup.home(restorer, on)
    restore = ("restore", str(on.inputs), "--aligned", "--model", restorer, "-o", str(home / "outputs"))
    measure = ["evaluate", "restoration", "--inputs", str(on.inputs), "--outputs", f"{restorer}={home / 'outputs'}"]
    measure += [] if on.truth is None else ["--truth", str(on.truth)]
    cache = f"evaluate.restoration.cache={setup.folder / 'values'}"
    made = words_of("restore", restore, setup.common, setup.overrides, ["restore.report=false"])
    measured = words_of(
        "evaluate.restoration", [*measure, "-o", str(home / "report")], setup.common, setup.overrides, [cache]
    )
    name = f"{home.parent.name} {home.name}"
    reads = _listing(on.inputs, on.truth, Path(restorer))
    return [
        GridStep(f"{name} restore", made, reads=reads),
        GridStep(f"{name} measure", measured, (f"{name} restore",), reads),
    ]


def row_reports(setup: RowSetup, lost: frozenset[str]) -> list[OurReport]:
    """The rows that were measured, under their restorers' names."""
    return [
        OurReport(restorer, on.name, setup.home(restorer, on) / "report")
        for restorer in setup.restorers
        for on in setup.sets
        if _row(setup, restorer, on)[1].name not in lost
        and (setup.home(restorer, on) / "report" / "restoration.json").is_file()
    ]


def _listing(*folders: Path | None) -> str:
    """sha256 of names, sizes and times of all files below some folders; what is no folder counts as nothing."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*")) if folder is not None and folder.is_dir() else []:
            if path.is_file():
                facts = path.stat()
                digest.update(f"{path} {facts.st_size} {facts.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
