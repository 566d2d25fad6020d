"""`curate filter --sweep`: how many faces each limit would keep, computed from stored measures; nothing is judged."""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from authface.curate.filter.columns import MEASURES, Column, Mask, passes
from authface.curate.filter.measure import ANGLES, LIMITS, in_order
from authface.curate.filter.run import learned_reviewer
from authface.curate.learn.fit import LIMITS as KEEP_LIMITS
from authface.curate.learn.fit import HeldOutTable, Passing
from authface.curate.learn.run import judged_parts
from authface.curate.settings import FilterSettings, lower_better
from authface.errors import UsageError, one_line, shell_word
from authface.files import room_for_large, write_errors
from authface.store.photoset import PhotoSet

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
ROUND = 5
"""Most round values on each side of a limit."""


@dataclass(frozen=True)
class Threshold:
    """One possible value of a limit."""

    value: float
    alone: int
    """Faces it would keep as the only limit."""
    together: int
    """Faces it would keep with all other limits as they are set."""
    current: bool = False
    """Whether it is set to this."""


@dataclass(frozen=True)
class Sweep:
    """The possible values of one limit, ascending."""

    setting: str
    faces: int
    """Faces that have the measure: of a metric, those that came to it."""
    thresholds: tuple[Threshold, ...]

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


@dataclass(frozen=True)
class ReviewerThreshold:
    """One possible value of `min_keep_probability`."""

    faces: int
    """Faces that no limit rejects and that pass it, or that a person judged, who is not overruled."""
    passing: Passing
    """What it keeps and lets through, by decisions that the model had no part of."""
    current: bool


@dataclass(frozen=True)
class ReviewerSweep:
    """What limits on a reviewer's model do."""

    reviewer: str
    decisions: int
    faces: int
    """Faces that no limit rejects."""
    thresholds: tuple[ReviewerThreshold, ...]

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)

    def as_text(self) -> str:
        """For a person; ``>`` marks the current value."""
        lines = [
            f"min_keep_probability: what {self.reviewer} keeps, by {self.decisions:,} held-out decisions, 95 %",
            f"{'value':>10} {'faces':>9} {'precision':>18} {'recall':>18} {'of rejects passes':>18}",
        ]
        for row in self.thresholds:
            shown = row.passing
            texts = (shown.precision.text, shown.recall.text, shown.let_through.text)
            mark = ">" if row.current else " "
            lines.append(f"{mark}{shown.limit:>9.4g} {row.faces:>9,} " + " ".join(f"{text:>18}" for text in texts))
        return "\n".join(lines)


def sweep_reviewer(photoset: PhotoSet, settings: FilterSettings) -> ReviewerSweep | None:
    """The sweep of the reviewer's model that the settings name; None where they name none.

    Raises UsageError where it is not there, was learned from other columns, or no face has the features it reads.
    """
    asked = learned_reviewer(photoset, settings)
    if asked is None:
        return None
    if not photoset.features.parts():
        where, who = one_line(photoset.root), one_line(settings.reviewer)
        raise UsageError(
            f"{where} has no features yet: "
            f"authface curate filter {shell_word(where)} -O curate.filter.reviewer={who} takes them"
        )
    asked.check(photoset)
    keeps, decided = [np.empty(0)], 0
    for part in judged_parts(photoset):
        open_to_judge = [face not in asked.decided for face in part.ids]
        decided += len(part.ids) - sum(open_to_judge)
        if any(open_to_judge):
            keeps.append(np.array([one.keep for one in asked.model.judge(part.values[open_to_judge])]))
    keep, facts = np.concatenate(keeps), asked.model.facts
    held_out = HeldOutTable.of(facts.held_out)
    rows = [
        ReviewerThreshold(decided + int((keep >= limit).sum()), held_out.passing(limit), limit == asked.limit)
        for limit in sorted({*KEEP_LIMITS, asked.limit})
    ]
    return ReviewerSweep(facts.reviewer, len(facts.held_out), decided + len(keep), tuple(rows))


def sweep(photoset: PhotoSet, settings: FilterSettings) -> list[Sweep]:
    """One sweep for each limit, over all faces of the table `measured`; near duplicates are counted too.

    The metrics of pyiqa follow, over the faces of the table `faces` that have their score.
    """
    limits = [float(getattr(settings, limit.setting)) for limit in LIMITS]
    with tempfile.TemporaryFile(prefix="authface-", dir=room_for_large()) as file:
        measures = _Measures(file, MEASURES)
        policy = np.concatenate([np.empty(0, np.bool_), *_measured(photoset, settings, measures)])
        refused = np.zeros(len(policy), np.uint8)
        for limit, bound in zip(LIMITS, limits, strict=True):
            refused += ~passes(measures.column(limit.measure), bound, limit.least)
        found = []
        for limit, bound in zip(LIMITS, limits, strict=True):
            column = measures.column(limit.measure)
            others = policy & (refused == ~passes(column, bound, limit.least))
            found.append(_sweep(limit.setting, column, bound, limit.least, others))
    return found + _metrics(photoset, settings)


def to_text(sweeps: Sequence[Sweep]) -> str:
    """The sweeps as aligned lines; ``>`` marks the current value of a limit. Last, the limits that nothing was measured
    for: they refuse none of the faces counted here."""
    lines = [f"{'limit':>22} {'value':>10} {'alone':>9} {'together':>9}"]
    for limit in sweeps:
        if not limit.faces:
            continue
        lines.append("")
        for at, row in enumerate(limit.thresholds):
            name = limit.setting if at == 0 else ""
            mark = ">" if row.current else " "
            lines.append(f"{name:>22} {mark}{row.value:>9.4g} {row.alone:>9,} {row.together:>9,}")
    lacking = [limit.setting for limit in sweeps if not limit.faces]
    if 0 < len(lacking) < len(sweeps):
        lines += ["", f"not measured yet, so not counted: {', '.join(lacking)}; authface curate filter measures them"]
    return "\n".join(lines)


def _sweep(setting: str, column: Column, bound: float, least: bool, others: Mask) -> Sweep:
    there = np.isfinite(column)
    return Sweep(
        setting,
        int(there.sum()),
        tuple(
            Threshold(
                value,
                int((passing := there & passes(column, value, least)).sum()),
                int((passing & others).sum()),
                value == bound,
            )
            for value in _values(column[there], bound)
        ),
    )


def _values(column: Column, bound: float) -> list[float]:
    """The limit, quantiles of the measure and round values about the limit, to three digits; reorders the column."""
    if not len(column):
        return [bound]
    quantiles = [float(f"{value:.3g}") for value in np.quantile(column, QUANTILES, overwrite_input=True)]
    span = max(abs(bound), float(np.ptp(column)) / 10, 1e-6)
    step = 10.0 ** np.floor(np.log10(span / ROUND))
    step *= 1 if span / ROUND < 2 * step else 2 if span / ROUND < 5 * step else 5
    middle = round(bound / step)
    about = [round((middle + at) * step, 9) for at in range(-ROUND, ROUND + 1)]
    low, high = float(column.min()), float(column.max())
    return sorted({bound, *quantiles, *(value for value in about if low <= value <= high)})


class _Measures:
    """Measures of n faces in an empty file, from which one at a time comes to memory, 8 bytes a face."""

    def __init__(self, file: BinaryIO, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._file = file
        self._faces: list[int] = []

    def add(self, columns: Column) -> None:
        """Append a (names, k) block of k faces. Raises AuthfaceError where the disk refuses."""
        with write_errors(room_for_large()):
            self._file.seek(0, os.SEEK_END)
            self._file.write(np.ascontiguousarray(columns).tobytes())
            self._file.flush()
        self._faces.append(columns.shape[1])

    def column(self, name: str) -> Column:
        """(n,) one measure of all faces, of an angle its size."""
        column, filled, begin = np.empty(sum(self._faces)), 0, 0
        for faces in self._faces:
            self._file.seek(begin + self.names.index(name) * faces * column.itemsize)
            column[filled : filled + faces] = np.frombuffer(self._file.read(faces * column.itemsize))
            filled, begin = filled + faces, begin + len(self.names) * faces * column.itemsize
        return np.abs(column, out=column) if name in ANGLES else column


def _measured(photoset: PhotoSet, settings: FilterSettings, measures: _Measures) -> Iterator[Mask]:
    """Add the measures of every measured face, part by part; which of them the policy on several faces leaves."""
    for part in photoset.measured.parts():
        rows = photoset.measured.arrow(part, ["photo_id", "index", "status", *measures.names])
        photo = rows.column("photo_id").combine_chunks().dictionary_encode().indices.to_numpy()
        measured = pc.equal(rows.column("status"), "kept").to_numpy()
        first = rows.column("index").to_numpy() == 0
        allowed = {"all": measured, "largest": first, "one": np.bincount(photo)[photo] == 1}[settings.faces]
        measures.add(np.stack([rows.column(name).cast(pa.float64()).to_numpy()[measured] for name in measures.names]))
        yield allowed[measured]


def _metrics(photoset: PhotoSet, settings: FilterSettings) -> list[Sweep]:
    found = {name: array("d") for name in in_order(settings.metrics)}
    kept = {name: bytearray() for name in found}
    if not found:
        return []
    for part in photoset.faces.parts():
        for scores, reason in photoset.faces.columns(part, ["scores", "reason"]):
            for score in scores or ():
                if (name := score["metric"]) in found:
                    found[name].append(score["value"])
                    kept[name].append(not reason or reason.endswith(f"_{name}"))
    return [
        _sweep(name, np.array(values), settings.metrics[name], not lower_better(name), np.array(kept[name]) != 0)
        for name, values in found.items()
    ]
