"""The steps that measure one output each; `authface.engine.workers` feeds them.

A face is measured by who it shows and where its features lie. Test faces are aligned, so output and truth show the face
at one place. It is found once, on the truth, and everything is measured there on both: a restorer that moves the face
is not helped by a detector that follows it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from authface.engine.workers import Step
from authface.errors import ImageError, one_line
from authface.evaluate.catalogue import RestorationMetric
from authface.evaluate.images import Pair
from authface.faces import detector, identity, landmarks
from authface.faces.detector import Detection, RetinaFace
from authface.faces.identity import Embedder, SeenFace, make_embedder, points68_of
from authface.faces.landmarks import Dlib68
from authface.imaging.decode import read
from authface.metrics import quality
from authface.metrics.quality import QualityMetric, loading
from authface.store.photoset import Provenance

if TYPE_CHECKING:
    import torch

    Rgb = NDArray[np.uint8]


VERSION = "1"
"""Raised when a value changes; the networks' sha256 is kept beside it."""
LEFT_CORNER, RIGHT_CORNER = 36, 45
"""Outer corners of the eyes among the 68 points: 300-W's inter-ocular distance (Sagonas et al. 2013)."""
T = TypeVar("T")
_REMEMBERED = 8


@dataclass(frozen=True)
class Recogniser:
    """Who says how alike two faces are: a name of `make_embedder`, and its ONNX file where it is not `dlib`."""

    name: str = "dlib"
    weights: str = ""


DLIB = Recogniser()


@dataclass(frozen=True)
class ReferenceFace:
    """The face of a reference image: where it is, and its (68, 2) points in pixels."""

    detection: Detection
    points: NDArray[np.float64]


class FaceGauge:
    """Detector, landmarks and embedding, loaded once a process; what was found on the last references is remembered."""

    def __init__(self, min_score: float, recogniser: Recogniser = DLIB) -> None:
        self._recogniser = recogniser
        self._detector = RetinaFace(min_score)
        self._landmarks = Dlib68()
        self._embedder: Embedder | None = None
        self._found: OrderedDict[Hashable, ReferenceFace] = OrderedDict()
        self._embedded: OrderedDict[Hashable, NDArray[np.float32]] = OrderedDict()

    def find(self, key: str, rgb: NDArray[np.uint8]) -> ReferenceFace:
        """The largest face of (h, w, 3) `rgb`, whose content is `key`. Raises ImageError (`no_face`)."""
        if key not in self._found:
            faces = self._detector.detect(rgb)
            if not faces:
                raise ImageError("no_face", f"no face of a score over {self._detector.min_score} in it")
            _remember(self._found, key, ReferenceFace(faces[0], self._landmarks.landmarks(rgb, faces[0])))
        return self._found[key]

    def identity(
        self, output: NDArray[np.uint8], reference: NDArray[np.uint8], key: str, points: NDArray[np.float64]
    ) -> float:
        """Cosine of the embeddings of `output` and `reference` (content `key`), both cut by its (68, 2) `points`."""
        if key not in self._embedded:
            _remember(self._embedded, key, self._embed(reference, points))
        return float(self._embed(output, points) @ self._embedded[key])

    def landmarks(self, output: NDArray[np.uint8], found: ReferenceFace) -> tuple[float, float]:
        """`landmark_error` of the points of `output` in the truth's box."""
        return landmark_error(self._landmarks.landmarks(output, found.detection), found.points)

    def _embed(self, rgb: NDArray[np.uint8], points: NDArray[np.float64]) -> NDArray[np.float32]:
        if self._embedder is None:
            self._embedder = make_embedder(self._recogniser.name, self._recogniser.weights)
        vector: NDArray[np.float32] = self._embedder.embed([SeenFace(rgb, points)])[0]
        return vector


def landmark_error(points: NDArray[np.float64], truth: NDArray[np.float64]) -> tuple[float, float]:
    """Mean distance of two sets of (68, 2) points: percent of the truth's inter-ocular distance, and pixels.

    The normalised mean error of 300-W. Raises ImageError (`landmarks`) where the eye corners are one point.
    """
    pixels = float(np.hypot(*(points - truth).T).mean())
    eyes = float(np.hypot(*(truth[RIGHT_CORNER] - truth[LEFT_CORNER])))
    if eyes < 1:
        raise ImageError("landmarks", "the eyes' outer corners lie on one point: this is no face")
    return 100 * pixels / eyes, pixels


def weights(recogniser: Recogniser = DLIB) -> dict[str, str]:
    """Name and sha256 of the networks behind these figures. Raises AuthfaceError where one is missing."""
    return {
        "retinaface": detector.weights_sha256(),
        "dlib-68": landmarks.weights_sha256(),
        f"{recogniser.name}-recognition": identity.weights_sha256(recogniser.name, recogniser.weights),
    }


def _remember(held: OrderedDict[Hashable, T], key: Hashable, value: T) -> None:
    held[key] = value
    if len(held) > _REMEMBERED:
        held.popitem(last=False)


LEAST = 32
"""Least side of an output, pixels: below, windows and networks see next to nothing."""
_PIXELS: dict[str, Callable[[Rgb, Rgb], float]] = {
    "psnr": quality.psnr,
    "psnr_y": quality.psnr_y,
    "ssim": quality.ssim,
    "ssim_y": quality.ssim_y,
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
        return f"{quality.VERSION} opencv {version('opencv-python-headless')}", {}
    files = weights(recogniser)
    return " ".join([VERSION, str(min_score), *files.values()]), files


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
            self._gauge = FaceGauge(self.min_score, self.recogniser)
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
