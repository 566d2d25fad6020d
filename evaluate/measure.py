"""Values of single images and of whole sets: what was measured before is read again, the rest is kept at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from authface.console import Console, Tick
from authface.devices import Devices
from authface.engine.crew import by_chunk
from authface.engine.pool import processes, seats
from authface.engine.ray import Cluster
from authface.engine.workers import inline
from authface.errors import AuthfaceError, ImageError, one_line
from authface.evaluate.catalogue import BY_NAME, MetricWeights, RestorationMetric, sha256s
from authface.evaluate.images import Pair
from authface.evaluate.works import DLIB, LearnedWork, OutputJob, PlainWork, Recogniser, Result, plain_version
from authface.files import sha256_of, write_errors
from authface.imaging.decode import read
from authface.metrics import quality
from authface.metrics.quality import pyiqa_version
from authface.options import Run
from authface.store.rows import SqliteFile

if TYPE_CHECKING:
    import torch

FILE = "values.sqlite"


def value_key(metric: str, version: str, *contents: str) -> str:
    """What a value is kept under: the metric, all that its code and networks are, and the sha256 of what it judged."""
    return hashlib.sha256("\n".join((metric, version, *contents)).encode()).hexdigest()


class ValueCache(SqliteFile):
    """Values by `key`; each `put` is on the disk when it returns, whole or not at all."""

    def __init__(self, folder: Path) -> None:
        path = folder / FILE
        with write_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
        super().__init__(path, one_line(path), "delete it: values are measured again")
        with self._told():
            self._base.execute("create table if not exists held (key text primary key, value real not null)")

    def get(self, key: str) -> float | None:
        """The value, or None where it was not measured yet."""
        with self._told():
            found = self._base.execute("select value from held where key = ?", (key,)).fetchone()
        return None if found is None else float(found[0])

    def put(self, values: Iterable[tuple[str, float]]) -> None:
        """Keep values, in place of what was there."""
        with self._told(), self._base:
            self._base.executemany("insert or replace into held values (?, ?)", values)


_CHUNK = 8
_INLINE = 24
"""Below this many outputs a worker process costs more to start than it saves."""
Engine = Callable[[Any, Iterator[list[Any]]], Iterator[tuple[int, list[Any]]]]
"""The second of what it yields are the results of a chunk, in any order."""


@dataclass(frozen=True)
class Workers:
    """Who measures single outputs."""

    processes: int = 1
    """Of what runs on the CPU alone."""
    devices: Devices | None = None
    """One network on each; None: one device, in this process."""
    cluster: Cluster | None = None

    @property
    def one_device(self) -> bool:
        """Whether networks run in this process alone."""
        return self.devices is None and self.cluster is None

    def plain(self, jobs: int) -> Engine:
        """Of that many outputs, without a network of torch: no GPU."""
        if self.cluster is not None:
            return partial(by_chunk, cluster=replace(self.cluster, gpu=False))
        return inline if self.processes == 1 or jobs < _INLINE else partial(processes, seats=seats(self.processes))

    def learned(self) -> Engine:
        """With a network on each device."""
        if self.cluster is not None:
            return partial(by_chunk, cluster=self.cluster)
        return inline if self.devices is None else partial(processes, seats=self.devices.seats)

    def device(self, own: Callable[[], torch.device]) -> torch.device:
        """Of a worker's network, as the worker sees it; `own` is this process's."""
        import torch

        if self.cluster is not None:
            return torch.device("cuda" if self.cluster.gpu else "cpu")
        return own() if self.devices is None else torch.device(self.devices.kind)


HERE = Workers()
"""This process, and one device."""


def workers_of(run: Run) -> tuple[str, Workers]:
    """The device of this process, and who measures single outputs, as the command line says."""
    workers = Workers(run.workers, run.devices(), run.cluster(gpu=True))
    return workers.devices.first if workers.devices else "auto" if workers.cluster else run.device, workers


@dataclass
class OutputRecord:
    """All that is known of one output."""

    pair: Pair
    contents: dict[str, str]
    """sha256 of `output`, `truth` and `input`, as far as they are there."""
    values: dict[str, float] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    """Why single metrics have no value, such as ``no_face``."""
    reason: str = ""
    """Why there is no value at all: `size`, `truncated`, ..."""
    detail: str = ""


@dataclass
class Measured:
    """Outcomes by method and name, and the metrics that could not be measured, each with one line."""

    outcomes: dict[tuple[str, str], OutputRecord]
    unmeasured: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    """Code and networks behind each metric that was measured."""
    weights: dict[str, str] = field(default_factory=dict)
    """Name and sha256 of every network's file."""
    read_again: int = 0
    """Values that were measured by an earlier run."""


def hash_files(pairs: Sequence[Pair], console: Console) -> Measured:
    """Hash the files of each pair; a file that cannot be read is an outcome with its reason."""
    known: dict[Path, str] = {}
    outcomes = {}
    with console.progress("read", len(pairs), "outputs") as tick:
        for pair in pairs:
            outcome = OutputRecord(pair, {})
            files = {"output": pair.output, "truth": pair.truth, "input": pair.input}
            for role, path in files.items():
                if path is None:
                    continue
                try:
                    known[path] = known.get(path) or sha256_of(path)
                    outcome.contents[role] = known[path]
                except OSError as error:
                    outcome.reason, outcome.detail = "unreadable", f"{role} {one_line(path)}: {error.strerror}"
            outcomes[pair.method, pair.name] = outcome
            tick()
    return Measured(outcomes)


def measure_plain(
    measured: Measured,
    metrics: Sequence[RestorationMetric],
    min_score: float,
    values: ValueCache,
    console: Console,
    workers: Workers,
    recogniser: Recogniser = DLIB,
) -> None:
    """Pixels and faces, by processes or a cluster. Raises AuthfaceError where the recogniser has no weights."""
    kinds = {metric.kind for metric in metrics}
    for kind in ("pixels", "faces"):
        version, files = plain_version(kind, min_score, recogniser) if kind in kinds else ("", {})
        measured.weights |= files
        measured.versions |= {metric.name: version for metric in metrics if metric.kind == kind}
    jobs = _jobs(measured, metrics, values)
    _run(
        measured,
        PlainWork(min_score, recogniser),
        jobs,
        workers.plain(len(jobs)),
        values,
        ("pixels and faces", console),
    )


def measure_learned(
    measured: Measured,
    metrics: Sequence[RestorationMetric],
    device: Callable[[], torch.device],
    weights: MetricWeights,
    values: ValueCache,
    console: Console,
    workers: Workers = Workers(),
) -> None:
    """Networks one after the other, on `device`; one whose weights are missing is logged in a line, and left out."""
    for metric in metrics:
        try:
            files, where = sha256s(weights.ensure(metric.name)), workers.device(device)
            version = " ".join([f"pyiqa {pyiqa_version()}", where.type, *sorted(files.values())])
            measured.versions[metric.name] = version
            jobs = _jobs(measured, [metric], values)
            if jobs:
                work = LearnedWork(metric, where)
                _run(measured, work, jobs, workers.learned(), values, (metric.name, console))
            measured.weights |= files
        except AuthfaceError as error:
            measured.unmeasured[metric.name] = str(error)
            measured.versions.pop(metric.name, None)
            console.log(str(error))


def key_of(outcome: OutputRecord, metric: RestorationMetric, version: str) -> str:
    """What the value of a metric of an output is kept under."""
    reference = {"truth": "truth", "inputs": "input"}.get(metric.needs, "")
    contents = [outcome.contents["output"], outcome.contents.get(reference, "")]
    if outcome.pair.points5 is not None:
        contents.append(str(outcome.pair.points5))
    return value_key(metric.name, version, *contents)


def _jobs(measured: Measured, metrics: Sequence[RestorationMetric], values: ValueCache) -> list[OutputJob]:
    """What is left to measure; values of earlier runs are taken."""
    jobs = []
    for outcome in measured.outcomes.values():
        if outcome.reason:
            continue
        wanted = []
        for metric in metrics:
            value = values.get(key_of(outcome, metric, measured.versions[metric.name]))
            if value is None:
                wanted.append(metric.name)
            else:
                outcome.values[metric.name] = value
                measured.read_again += 1
        if wanted:
            jobs.append(OutputJob(outcome.pair, outcome.contents, tuple(wanted)))
    return jobs


def _run(
    measured: Measured,
    work: Any,
    jobs: Sequence[OutputJob],
    engine: Engine,
    values: ValueCache,
    progress: tuple[str, Console],
) -> None:
    title, console = progress
    if not jobs:
        return
    chunks = iter([list(jobs[at : at + _CHUNK]) for at in range(0, len(jobs), _CHUNK)])
    with console.progress(title, len(jobs), "outputs") as tick:
        for _, results in engine(work, chunks):
            kept: list[tuple[str, float]] = []
            for result in results:
                outcome = measured.outcomes[result.method, result.name]
                kept += _take(outcome, result, measured.versions)
            values.put(kept)
            tick(len(results))


def _take(outcome: OutputRecord, result: Result, versions: Mapping[str, str]) -> list[tuple[str, float]]:
    """Put a result into its outcome; the values to keep, by key."""
    if result.reason:
        outcome.reason, outcome.detail = result.reason, result.detail
        outcome.values.clear()
        outcome.problems.clear()
        return []
    outcome.values |= result.values
    outcome.problems |= result.problems
    return [(key_of(outcome, BY_NAME[name], versions[name]), value) for name, value in result.values.items()]


@dataclass(frozen=True)
class SetValue:
    """A figure of a method's outputs together, and of how many."""

    count: int
    value: float


Sets = dict[str, dict[str, SetValue]]
"""By method and metric."""


def measure_sets(
    measured: Measured,
    metrics: Sequence[RestorationMetric],
    methods: Sequence[str],
    device: Callable[[], torch.device],
    ffhq_stats: Path | None,
    weights: MetricWeights,
    values: ValueCache,
    console: Console,
) -> Sets:
    """The figures of every method; a metric whose files are missing is logged in a line, and left out."""
    sets: Sets = {method: {} for method in methods}
    for metric in metrics:
        try:
            own = ffhq_stats if metric.name == "fid_ffhq_basicsr" else None
            files = weights.ensure(metric.name, own)
            digests = sha256s(files)
            measured.versions[metric.name] = " ".join([f"pyiqa {pyiqa_version()}", device().type, *digests.values()])
            reference = list(files.values())[-1]
            gauge = SetGauge(metric.name, reference, device)
            for method in methods:
                sets[method][metric.name] = _measure(measured, metric, method, gauge, values, console)
            measured.weights |= digests
        except AuthfaceError as error:
            measured.unmeasured[metric.name] = str(error)
            measured.versions.pop(metric.name, None)
            for method in methods:
                sets[method].pop(metric.name, None)
            console.log(str(error))
    return sets


class SetGauge:
    """The network and the reference statistics, loaded for the first set that needs them."""

    def __init__(self, metric: str, reference: Path, device: Callable[[], torch.device]) -> None:
        self._metric, self._reference, self._device = metric, reference, device
        self._made: tuple[quality.Inception, tuple[NDArray[np.float64], NDArray[np.float64]]] | None = None

    def __call__(self, images: Iterator[NDArray[np.uint8]]) -> tuple[float, int]:
        """Value and count."""
        if self._made is None:
            reference = quality.reference_statistics(self._metric, self._reference)
            self._made = quality.Inception(self._metric, self._device()), reference
        inception, reference = self._made
        return quality.fid(inception, images, reference)


def _measure(
    measured: Measured, metric: RestorationMetric, method: str, gauge: SetGauge, values: ValueCache, console: Console
) -> SetValue:
    def used() -> list[OutputRecord]:
        return [found for (by, _), found in measured.outcomes.items() if by == method and not found.reason]

    def key() -> str:
        contents = sorted(outcome.contents["output"] for outcome in used())
        return value_key(metric.name, measured.versions[metric.name], *contents)

    known = values.get(key())
    if known is not None:
        measured.read_again += 1
        return SetValue(len(used()), known)
    with console.progress(f"{metric.name} of {one_line(method, 40)}", len(used()), "outputs") as tick:
        value, count = gauge(_images(used(), tick))
    values.put([(key(), value)])
    return SetValue(count, value)


def _images(outcomes: Sequence[OutputRecord], tick: Tick) -> Iterator[NDArray[np.uint8]]:
    for outcome in outcomes:
        try:
            yield read(outcome.pair.output).rgb
        except ImageError as error:
            outcome.reason, outcome.detail = error.reason, one_line(error)
        tick()
