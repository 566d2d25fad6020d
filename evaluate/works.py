"""The steps that measure one output each; `authface.engine.workers` feeds them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from authface.engine.workers import Step
from authface.errors import ImageError, one_line
from authface.evaluate import faces
from authface.evaluate.catalogue import RestorationMetric
from authface.evaluate.faces import DLIB, FaceGauge, Recogniser
from authface.evaluate.pairs import Pair
from authface.faces.identity import points68_of
from authface.imaging.decode import read
from authface.metrics import pixels
from authface.metrics.iqa import QualityMetric, loading
from authface.store.photoset import Provenance

if TYPE_CHECKING:
    import torch

    Rgb = NDArray[np.uint8]

LEAST = 32
"""Least side of an output, pixels: below, windows and networks see next to nothing."""
_PIXELS: dict[str, Callable[[Rgb, Rgb], float]] = {
    "psnr": pixels.psnr,
    "psnr_y": pixels.psnr_y,
    "ssim": pixels.ssim,
    "ssim_y": pixels.ssim_y,
}


@dataclass(frozen=True)
class OutputJob:
    """One output and what to measure of it."""

    pair: Pair
    contents: Mapping[str, str]
    wanted: tuple[str, ...]


@dataclass(frozen=True)
class LoadedOutput:
    """An output in pixels, with its truth and input as far as they are wanted."""

    job: OutputJob
    output: Rgb
    truth: Rgb | None
    input: Rgb | None


@dataclass(frozen=True)
class Result:
    """Values of one output by metric, or why there are none."""

    method: str
    name: str
    values: dict[str, float] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    detail: str = ""


def plain_version(kind: str, min_score: float, recogniser: Recogniser) -> tuple[str, dict[str, str]]:
    """What the values of `pixels` or `faces` depend on, and the sha256 of the networks among it."""
    if kind == "pixels":
        return f"{pixels.VERSION} opencv {version('opencv-python-headless')}", {}
    files = faces.weights(recogniser)
    return " ".join([faces.VERSION, str(min_score), *files.values()]), files


def load(job: OutputJob) -> LoadedOutput:
    """The images of a job. Raises ImageError: `size` where output and truth differ in size, for nothing is resized."""
    pair = job.pair
    output = read(pair.output).rgb
    truth = _beside(pair, "truth") if pair.truth is not None else None
    if truth is not None and truth.shape != output.shape:
        raise ImageError(
            "size", f"the output has {_size(output)}, its truth {_size(truth)}: restore at the truth's size"
        )
    if min(output.shape[:2]) < LEAST:
        raise ImageError("too_small", f"{_size(output)}, the least side is {LEAST}")
    return LoadedOutput(job, output, truth, _beside(pair, "input") if "identity_input" in job.wanted else None)


def _beside(pair: Pair, role: str) -> Rgb:
    path = pair.truth if role == "truth" else pair.input
    assert path is not None  # the catalogue lets no metric through that needs what was not given
    try:
        return read(path).rgb
    except ImageError as error:
        raise ImageError(error.reason, f"its {role}: {error}") from error


def _size(rgb: Rgb) -> str:
    return f"{rgb.shape[1]} x {rgb.shape[0]} px"


@dataclass
class PlainWork(Step[OutputJob, LoadedOutput, Result, Result]):
    """Pixels and faces, without torch."""

    min_score: float
    recogniser: Recogniser = DLIB
    batch_size: int = 1
    _gauge: FaceGauge | None = None

    @property
    def provenance(self) -> Provenance:
        """Of no table: values are kept by content."""
        return Provenance("measure", 1, {"min_score": self.min_score}, {})

    def load(self, job: OutputJob) -> LoadedOutput:
        """See `load`."""
        return load(job)

    def step(self, batch: Sequence[LoadedOutput]) -> Sequence[Result]:
        """The values."""
        return [self._measure(loaded) for loaded in batch]

    def save(self, job: OutputJob, result: Result) -> list[Result]:
        """Nothing to write."""
        return [result]

    def failed(self, job: OutputJob, reason: str, detail: str) -> list[Result]:
        """A result without values."""
        return [Result(job.pair.method, job.pair.name, reason=reason, detail=detail)]

    def _measure(self, loaded: LoadedOutput) -> Result:
        wanted = loaded.job.wanted
        result = Result(loaded.job.pair.method, loaded.job.pair.name)
        for name in wanted:
            if name in _PIXELS and loaded.truth is not None:
                _put(result, name, _PIXELS[name](loaded.output, loaded.truth))
        for group in (("identity", "landmarks", "landmarks_px"), ("identity_input",)):
            asked = [name for name in group if name in wanted]
            try:
                for name, value in self._faces(loaded, asked).items():
                    _put(result, name, value)
            except ImageError as error:
                result.problems.update({name: f"{error.reason}: {one_line(error)}" for name in asked})
        return result

    def _faces(self, loaded: LoadedOutput, asked: Sequence[str]) -> dict[str, float]:
        """The asked ones of one group. Raises ImageError where the reference shows no face."""
        if not asked:
            return {}
        if self._gauge is None:
            self._gauge = faces.FaceGauge(self.min_score, self.recogniser)
        contents = loaded.job.contents
        if asked == ["identity_input"]:
            return {"identity_input": self._identity_input(loaded, contents["output"])}
        assert loaded.truth is not None  # the catalogue lets no such metric through without one
        found = self._gauge.find(contents["truth"], loaded.truth)
        values = {}
        if "identity" in asked:
            values["identity"] = self._gauge.identity(loaded.output, loaded.truth, contents["truth"], found.points)
        if "landmarks" in asked or "landmarks_px" in asked:
            values["landmarks"], values["landmarks_px"] = self._gauge.landmarks(loaded.output, found)
        return {name: values[name] for name in asked}

    def _identity_input(self, loaded: LoadedOutput, key: str) -> float:
        assert self._gauge is not None and loaded.input is not None  # set by the caller
        if loaded.input.shape != loaded.output.shape:
            raise ImageError("size", f"the output has {_size(loaded.output)}, its input {_size(loaded.input)}")
        given = loaded.job.pair.points5
        if given is None:
            points = self._gauge.find(key, loaded.output).points
        else:
            points = points68_of(np.reshape(given, (5, 2)))
        return self._gauge.identity(loaded.input, loaded.output, key, points)


@dataclass
class LearnedWork(Step[OutputJob, LoadedOutput, Result, Result]):
    """One of pyiqa's metrics, in this process."""

    metric: RestorationMetric
    device: torch.device
    batch_size: int = 1
    _network: QualityMetric | None = None

    @property
    def provenance(self) -> Provenance:
        """Of no table: values are kept by content."""
        return Provenance("measure", 1, {"metric": self.metric.name}, {})

    def open(self) -> None:
        """Load the network. Raises AuthfaceError."""
        with loading(f"{self.metric.pyiqa} is not measured: its weights cannot be loaded"):
            self._network = QualityMetric(self.metric.pyiqa, self.device)

    def load(self, job: OutputJob) -> LoadedOutput:
        """See `load`."""
        return load(job)

    def step(self, batch: Sequence[LoadedOutput]) -> Sequence[Result]:
        """The values, one image at a time: none depends on what it was batched with."""
        assert self._network is not None  # opened
        results = []
        for loaded in batch:
            result = Result(loaded.job.pair.method, loaded.job.pair.name)
            truths = [loaded.truth] if self.metric.needs == "truth" and loaded.truth is not None else None
            (value,) = self._network([loaded.output], truths, **self.metric.options)
            _put(result, self.metric.name, value)
            results.append(result)
        return results

    def save(self, job: OutputJob, result: Result) -> list[Result]:
        """Nothing to write."""
        return [result]

    def failed(self, job: OutputJob, reason: str, detail: str) -> list[Result]:
        """A network that fails on an image fails alone; an image that cannot be used has no values at all."""
        if reason == "error":
            return [Result(job.pair.method, job.pair.name, problems={self.metric.name: f"error: {detail}"})]
        return [Result(job.pair.method, job.pair.name, reason=reason, detail=detail)]


def _put(result: Result, name: str, value: float) -> None:
    if math.isfinite(value):
        result.values[name] = value
    else:
        result.problems[name] = f"not_finite: {value}"
