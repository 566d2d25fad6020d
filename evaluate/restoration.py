"""`authface evaluate restoration`: outputs of one or several methods in, figures and how sure they are out."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from authface.console import Console
from authface.errors import AuthfaceError, UsageError, one_line
from authface.evaluate.catalogue import DEAR, MetricWeights, RestorationMetric, choose
from authface.evaluate.images import Method, images_by_name, pair
from authface.evaluate.measure import (
    Measured,
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
from authface.metrics.stats import Difference, Mean, mean_of, paired_difference
from authface.models.families import pick_device

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
