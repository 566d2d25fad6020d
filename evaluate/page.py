"""The report as one HTML file: means, differences, the worst faces, the protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from authface.errors import ImageError
from authface.evaluate.catalogue import BY_NAME, WORST_BY, Metric
from authface.evaluate.measure import Outcome
from authface.evaluate.restoration import Evaluation
from authface.evaluate.settings import RestorationSettings
from authface.evaluate.tables import NAME, differences_table, label, means_table, number
from authface.imaging.decode import read
from authface.report.pages import Cell, Table, quantity, write_page

SIDE = 224
"""Of the pictures in the sheets, pixels."""
_SHOWN = 6
"""Figures under a face."""


@dataclass(frozen=True)
class Face:
    """A row of a sheet: input, output and truth, as far as they are there, and figures."""

    name: str
    cells: Sequence[Cell]
    figures: Sequence[tuple[str, str]]


def worst_metric(evaluation: Evaluation, settings: RestorationSettings) -> Metric | None:
    """What orders the worst faces: what the settings name, or where that has no values the first of `WORST_BY`."""
    there = {metric.name for metric in evaluation.metrics}
    names = [name for name in (settings.worst_by, *WORST_BY, *sorted(there)) if name in there]
    return BY_NAME[names[0]] if names else None


def worst(evaluation: Evaluation, method: str, metric: Metric, count: int) -> list[Outcome]:
    """The outputs of a method with the worst values, worst first."""
    found = [
        outcome
        for (by, _), outcome in evaluation.measured.outcomes.items()
        if by == method and metric.name in outcome.values
    ]
    sign = -1 if metric.lower_better else 1
    return sorted(found, key=lambda outcome: (sign * outcome.values[metric.name], outcome.pair.name))[:count]


def write_report(evaluation: Evaluation, settings: RestorationSettings, folder: Path) -> Path:
    """restoration.html. Raises AuthfaceError where the disk refuses."""
    metric = worst_metric(evaluation, settings)
    sheets = [
        (method.name, _faces(worst(evaluation, method.name, metric, settings.worst), metric))
        for method in evaluation.methods
        if metric is not None and settings.worst
    ]
    failed = [outcome for outcome in evaluation.measured.outcomes.values() if outcome.reason]
    path = folder / f"{NAME}.html"
    write_page(
        path,
        "evaluation.html.jinja",
        title="Restored faces, measured",
        summary=[
            ("faces", quantity(evaluation.protocol["faces"])),
            ("methods", quantity(len(evaluation.methods))),
            ("metrics", quantity(len(evaluation.metrics) + len({n for s in evaluation.sets.values() for n in s}))),
            ("outputs that failed", quantity(len(failed))),
        ],
        means=Table(*means_table(evaluation)),
        differences=Table(*differences_table(evaluation)) if evaluation.differences else None,
        unmeasured=list(evaluation.measured.unmeasured.values()),
        failed=Table(
            ["output", "reason", ""],
            [[f"{o.pair.method}: {o.pair.name}", o.reason, o.detail] for o in failed[:100]],
        ),
        failed_count=len(failed),
        notes=[(label(name), BY_NAME[name].note) for name in evaluation.measured.versions],
        worst_by=label(metric.name) if metric is not None else "",
        sheets=sheets,
        side=SIDE,
        protocol=json.dumps(evaluation.protocol, indent=1, ensure_ascii=False).splitlines(),
    )
    return path


def _faces(outcomes: Sequence[Outcome], by: Metric) -> Iterator[Face]:
    """One at a time, so that a sheet costs no memory of pixels."""
    for outcome in outcomes:
        pair = outcome.pair
        shown = [("input", pair.input), ("output", pair.output), ("truth", pair.truth)]
        cells = [Cell(_picture(path), role) for role, path in shown if path is not None]
        names = [by.name, *(name for name in outcome.values if name != by.name)][:_SHOWN]
        yield Face(pair.name, cells, [(n, number(outcome.values[n], BY_NAME[n].digits)) for n in names])


def _picture(path: Path) -> NDArray[np.uint8] | None:
    try:
        return read(path).rgb
    except ImageError:
        return None
