"""Figures of a whole set of outputs: FID to published statistics of FFHQ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from authface.console import Console, Tick
from authface.errors import AuthfaceError, ImageError, one_line
from authface.evaluate import cache
from authface.evaluate.cache import Values
from authface.evaluate.catalogue import Metric
from authface.evaluate.measure import Measured, Outcome
from authface.evaluate.weights import Weights
from authface.evaluate.weights import sha256s as sha256s_of
from authface.imaging.decode import read
from authface.metrics import fid
from authface.metrics.iqa import pyiqa_version

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SetValue:
    """A figure of a method's outputs together, and of how many."""

    count: int
    value: float


Sets = dict[str, dict[str, SetValue]]
"""By method and metric."""


def measure_sets(
    measured: Measured,
    metrics: Sequence[Metric],
    methods: Sequence[str],
    device: Callable[[], torch.device],
    ffhq_stats: Path | None,
    weights: Weights,
    values: Values,
    console: Console,
) -> Sets:
    """The figures of every method; a metric whose files are missing is said in a line, and left out."""
    sets: Sets = {method: {} for method in methods}
    for metric in metrics:
        try:
            own = ffhq_stats if metric.name == "fid_ffhq_basicsr" else None
            files = weights.ensure(metric.name, own)
            sha256s = sha256s_of(files)
            measured.versions[metric.name] = " ".join([f"pyiqa {pyiqa_version()}", device().type, *sha256s.values()])
            reference = list(files.values())[-1]
            gauge = Gauge(metric.name, reference, device)
            for method in methods:
                sets[method][metric.name] = _measure(measured, metric, method, gauge, values, console)
            measured.weights |= sha256s
        except AuthfaceError as error:
            measured.unmeasured[metric.name] = str(error)
            measured.versions.pop(metric.name, None)
            for method in methods:
                sets[method].pop(metric.name, None)
            console.log(str(error))
    return sets


class Gauge:
    """The network and the reference statistics, loaded for the first set that needs them."""

    def __init__(self, metric: str, reference: Path, device: Callable[[], torch.device]) -> None:
        self._metric, self._reference, self._device = metric, reference, device
        self._made: tuple[fid.Inception, tuple[NDArray[np.float64], NDArray[np.float64]]] | None = None

    def __call__(self, images: Iterator[NDArray[np.uint8]]) -> tuple[float, int]:
        """Value and count."""
        if self._made is None:
            reference = fid.reference_statistics(self._metric, self._reference)
            self._made = fid.Inception(self._metric, self._device()), reference
        inception, reference = self._made
        return fid.fid(inception, images, reference)


def _measure(
    measured: Measured, metric: Metric, method: str, gauge: Gauge, values: Values, console: Console
) -> SetValue:
    def used() -> list[Outcome]:
        return [found for (by, _), found in measured.outcomes.items() if by == method and not found.reason]

    def key() -> str:
        contents = sorted(outcome.contents["output"] for outcome in used())
        return cache.key(metric.name, measured.versions[metric.name], *contents)

    known = values.get(key())
    if known is not None:
        measured.read_again += 1
        return SetValue(len(used()), known)
    with console.progress(f"{metric.name} of {one_line(method, 40)}", len(used()), "outputs") as tick:
        value, count = gauge(_images(used(), tick))
    values.put([(key(), value)])
    return SetValue(count, value)


def _images(outcomes: Sequence[Outcome], tick: Tick) -> Iterator[NDArray[np.uint8]]:
    for outcome in outcomes:
        try:
            yield read(outcome.pair.output).rgb
        except ImageError as error:
            outcome.reason, outcome.detail = error.reason, one_line(error)
        tick()
