"""`authface evaluate restoration`: outputs of one or several methods in, figures, how sure they are and a report out.

The report is a row an output in Parquet and CSV, all of it in JSON, tables and one HTML page.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from authface.console import Console
from authface.devices import pick_device
from authface.errors import AuthfaceError, ImageError, UsageError, one_line
from authface.evaluate.catalogue import BY_NAME, DEAR, WORST_BY, MetricWeights, RestorationMetric, choose
from authface.evaluate.images import Method, images_by_name, pair
from authface.evaluate.measure import (
    Measured,
    OutputRecord,
    Sets,
    ValueCache,
    Workers,
    hash_files,
    measure_learned,
    measure_plain,
    measure_sets,
)
from authface.evaluate.protocol import device_name, protocol
from authface.evaluate.settings import RestorationSettings
from authface.files import replacing, write_csv, write_json
from authface.imaging.decode import read
from authface.metrics.stats import Difference, Mean, mean_of, paired_difference
from authface.report.pages import Cell, PictureRow, ReportTable, quantity, write_page

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class RestorationTask:
    """What is to be measured of what."""

    methods: Sequence[Method]
    truth: Path | None
    inputs: Path | None
    settings: RestorationSettings
    device: str = "cpu"
    seed: int = 0
    limit: int = 0
    workers: Workers = Workers()


@dataclass(frozen=True)
class Evaluation:
    """The answer."""

    methods: list[Method]
    metrics: list[RestorationMetric]
    """Of single images, those with at least one value."""
    means: dict[str, dict[str, Mean]]
    """By method and metric."""
    sets: Sets
    differences: list[Difference]
    """Of every two methods, over the faces both have a value for."""
    measured: Measured
    protocol: dict[str, Any]

    @property
    def failed(self) -> int:
        """Outputs without any value."""
        return sum(bool(outcome.reason) for outcome in self.measured.outcomes.values())

    def as_json(self) -> dict[str, Any]:
        """For ``--json`` and the file."""
        return {
            "means": {
                method: {name: asdict(mean) for name, mean in means.items()} for method, means in self.means.items()
            },
            "sets": {
                method: {name: asdict(value) for name, value in sets.items()} for method, sets in self.sets.items()
            },
            "differences": [asdict(found) for found in self.differences],
            "unmeasured": self.measured.unmeasured,
            "failed": [
                {"method": o.pair.method, "name": o.pair.name, "reason": o.reason, "detail": o.detail}
                for o in self.measured.outcomes.values()
                if o.reason
            ],
            "protocol": self.protocol,
        }


def evaluate(task: RestorationTask, folder: Path, console: Console) -> Evaluation:
    """Measure what is asked; values go into a cache, of `folder` or the settings, and are read from it.

    Raises UsageError where names do not pair or a metric cannot be asked for, AuthfaceError where nothing was measured.
    """
    settings = task.settings
    metrics = choose(settings.metrics, truth=task.truth is not None, inputs=task.inputs is not None)
    _check(task, metrics)
    outputs = {method.name: images_by_name(method.folder, "outputs") for method in task.methods}
    truth = images_by_name(task.truth, "truth") if task.truth is not None else None
    inputs = images_by_name(task.inputs, "inputs") if task.inputs is not None else None
    measured = hash_files(pair(outputs, truth, inputs, task.limit), console)
    device = functools.cache(functools.partial(_device, task.device))
    with ValueCache(settings.cache or folder) as values:
        plain = [metric for metric in metrics if metric.kind in {"pixels", "faces"}]
        measure_plain(measured, plain, settings.min_score, values, console, task.workers)
        weights = MetricWeights(console.log)
        learned = [metric for metric in metrics if metric.kind == "learned"]
        if not settings.metrics and device().type == "cpu":
            learned = _without_dear(learned, measured, console)
        measure_learned(measured, learned, device, weights, values, console, task.workers)
        whole = [metric for metric in metrics if metric.kind == "set"]
        names = [method.name for method in task.methods]
        sets = measure_sets(measured, whole, names, device, settings.ffhq_stats, weights, values, console)
    return _concluded(task, metrics, measured, sets, str(device()) if device.cache_info().currsize else "cpu")


def _check(task: RestorationTask, metrics: Sequence[RestorationMetric]) -> None:
    """Raise UsageError for what would only show after everything was measured."""
    by, names = task.settings.worst_by, [metric.name for metric in metrics if metric.kind != "set"]
    if by and by not in names:
        raise UsageError(f"evaluate.restoration.worst_by = {one_line(by)}: measured are {', '.join(names)}")
    if task.seed < 0:
        raise UsageError(f"--seed {task.seed}: seeds are 0 and more")


def _without_dear(
    metrics: Sequence[RestorationMetric], measured: Measured, console: Console
) -> list[RestorationMetric]:
    """What a CPU measures by default."""
    for name in sorted(DEAR & {metric.name for metric in metrics}):
        measured.unmeasured[name] = (
            f"{name} is not measured: it takes 13 s an image and more on a CPU; --metrics {name}"
        )
        console.log(measured.unmeasured[name])
    return [metric for metric in metrics if metric.name not in DEAR]


def _device(name: str) -> torch.device:
    return pick_device(name)


def _concluded(
    task: RestorationTask, metrics: Sequence[RestorationMetric], measured: Measured, sets: Sets, device: str
) -> Evaluation:
    seed, resamples = task.seed, task.settings.resamples
    per_image = [metric for metric in metrics if metric.kind != "set"]
    columns = {
        (method.name, metric.name): _column(measured, method.name, metric.name)
        for method in task.methods
        for metric in per_image
    }
    if not any(columns.values()) and not any(sets.values()):
        raise AuthfaceError(f"nothing was measured: {_why(measured)}")
    means: dict[str, dict[str, Mean]] = {method.name: {} for method in task.methods}
    for (method_name, metric_name), column in columns.items():
        if column:
            means[method_name][metric_name] = mean_of(list(column.values()), seed, resamples)
    differences = []
    for metric in per_image:
        for first, second in combinations([method.name for method in task.methods], 2):
            one, two = columns[first, metric.name], columns[second, metric.name]
            if both := [name for name in one if name in two]:
                pairs = (first, [one[name] for name in both]), (second, [two[name] for name in both])
                differences.append(
                    paired_difference(
                        *pairs, metric.name, lower_better=metric.lower_better, seed=seed, resamples=resamples
                    )
                )
    there = [metric for metric in per_image if any(metric.name in found for found in means.values())]
    said = protocol(task.methods, task.truth, task.inputs, measured, task.settings, seed, device_name(device))
    return Evaluation(list(task.methods), there, means, sets, differences, measured, said)


def _column(measured: Measured, method: str, metric: str) -> dict[str, float]:
    """Values of one metric of one method by name, without those that are not there."""
    return {
        name: outcome.values[metric]
        for (by, name), outcome in measured.outcomes.items()
        if by == method and metric in outcome.values
    }


def _why(measured: Measured) -> str:
    for outcome in measured.outcomes.values():
        if outcome.reason:
            return one_line(f"{outcome.pair.output.name}: {outcome.reason}: {outcome.detail}")
    if measured.unmeasured:
        return "; ".join(measured.unmeasured.values())
    problems = [said for outcome in measured.outcomes.values() for said in outcome.problems.values()]
    return problems[0] if problems else "no metric applies"


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
