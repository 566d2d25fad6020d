"""The report of a restoration: a row an output in Parquet and CSV, all of it in JSON, tables and one HTML page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from authface.errors import ImageError, one_line
from authface.evaluate.catalogue import BY_NAME, WORST_BY, RestorationMetric
from authface.evaluate.measure import OutputRecord
from authface.evaluate.restoration import Evaluation
from authface.evaluate.settings import RestorationSettings
from authface.files import replacing, write_csv, write_json
from authface.imaging.decode import read
from authface.metrics.stats import Mean
from authface.report.pages import Cell, PictureRow, ReportTable, quantity, write_page

NAME = "restoration"


def write_tables(evaluation: Evaluation, folder: Path) -> None:
    """restoration.parquet, .csv and .json. Raises AuthfaceError where the disk refuses."""
    names = [metric.name for metric in evaluation.metrics]
    rows = [row_of(outcome, names) for outcome in evaluation.measured.outcomes.values()]
    texts = [pa.field(name, pa.string()) for name in rows[0] if name not in names]
    schema = pa.schema([*texts, *(pa.field(name, pa.float64()) for name in names)])
    with replacing(folder / f"{NAME}.parquet") as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema), temporary)
    write_csv(folder / f"{NAME}.csv", [schema.names, *(row.values() for row in rows)])
    write_json(folder / f"{NAME}.json", evaluation.as_json())


def row_of(outcome: OutputRecord, names: Sequence[str]) -> dict[str, Any]:
    """One output: its method and name, why it or a metric has no value, its content, its values."""
    return {
        "method": outcome.pair.method,
        "name": outcome.pair.name,
        "reason": outcome.reason,
        "detail": outcome.detail,
        "problems": "; ".join(f"{name}: {said}" for name, said in outcome.problems.items()),
        "output_sha256": outcome.contents.get("output", ""),
        "truth_sha256": outcome.contents.get("truth", ""),
        "input_sha256": outcome.contents.get("input", ""),
        **{name: outcome.values.get(name) for name in names},
    }


def number(value: float | None, digits: int, *, sign: bool = False) -> str:
    """With so many decimals; ``n/a`` for None."""
    return "n/a" if value is None else f"{value:{'+' if sign else ''}.{digits}f}"


def interval(mean: Mean, digits: int, *, sign: bool = False) -> str:
    """``27.31 [27.02, 27.60]``."""
    ends = f"[{number(mean.low, digits, sign=sign)}, {number(mean.high, digits, sign=sign)}]"
    return f"{number(mean.mean, digits, sign=sign)} {ends if mean.low is not None else ''}".rstrip()


def p_value(p: float | None) -> str:
    """Two digits; ``<1e-6`` below that."""
    return "n/a" if p is None else "<1e-6" if p < 1e-6 else f"{p:.2g}"


def label(name: str) -> str:
    """``lpips (lower is better)``, with the unit."""
    metric = BY_NAME[name]
    arrow = "↓" if metric.lower_better else "↑"
    return f"{name} {arrow}" + (f" {metric.unit}" if metric.unit else "")


def means_table(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a row a metric, a column a method; the count is said where it is not that of all faces."""
    faces = evaluation.protocol["faces"]
    rows = []
    for metric in evaluation.metrics:
        cells = []
        for method in evaluation.methods:
            mean = evaluation.means[method.name].get(metric.name)
            of = f" of {mean.count}" if mean is not None and mean.count != faces else ""
            cells.append("n/a" if mean is None else interval(mean, metric.digits) + of)
        rows.append([label(metric.name), *cells])
    for name in sorted({name for found in evaluation.sets.values() for name in found}):
        found = [evaluation.sets[method.name].get(name) for method in evaluation.methods]
        cells = ["n/a" if value is None else f"{value.value:.2f} of {value.count}" for value in found]
        rows.append([label(name), *cells])
    return ["", *(one_line(method.name, 40) for method in evaluation.methods)], rows


def differences_table(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Header and rows: what the second method of each two has more than the first."""
    rows = [
        [
            f"{one_line(found.second, 40)} - {one_line(found.first, 40)}",
            label(found.metric),
            interval(found.mean, BY_NAME[found.metric].digits, sign=True),
            p_value(found.p),
            f"{100 * found.better:.0f} %",
            str(found.mean.count),
        ]
        for found in sorted(evaluation.differences, key=lambda found: (found.first, found.second))
    ]
    return ["", "", "difference [95 %]", "p", "first better on", "faces"], rows


SIDE = 224
"""Of the pictures in the sheets, pixels."""
_SHOWN = 6
"""Figures under a face."""


def worst_metric(evaluation: Evaluation, settings: RestorationSettings) -> RestorationMetric | None:
    """What orders the worst faces: what the settings name, or where that has no values the first of `WORST_BY`."""
    there = {metric.name for metric in evaluation.metrics}
    names = [name for name in (settings.worst_by, *WORST_BY, *sorted(there)) if name in there]
    return BY_NAME[names[0]] if names else None


def worst(evaluation: Evaluation, method: str, metric: RestorationMetric, count: int) -> list[OutputRecord]:
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
        means=ReportTable(*means_table(evaluation)),
        differences=ReportTable(*differences_table(evaluation)) if evaluation.differences else None,
        unmeasured=list(evaluation.measured.unmeasured.values()),
        failed=ReportTable(
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


def _faces(outcomes: Sequence[OutputRecord], by: RestorationMetric) -> Iterator[PictureRow]:
    """One at a time, so that a sheet costs no memory of pixels."""
    for outcome in outcomes:
        pair = outcome.pair
        shown = [("input", pair.input), ("output", pair.output), ("truth", pair.truth)]
        cells = [Cell(picture_of(path), role) for role, path in shown if path is not None]
        names = [by.name, *(name for name in outcome.values if name != by.name)][:_SHOWN]
        yield PictureRow(pair.name, cells, [(n, number(outcome.values[n], BY_NAME[n].digits)) for n in names])


def picture_of(path: Path) -> NDArray[np.uint8] | None:
    """The pixels of an image, None where it cannot be read."""
    try:
        return read(path).rgb
    except ImageError:
        return None
