"""Figures of a prior's samples as a set: FID to real faces and to FFHQ's statistics, and HPSv2; kept by content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from authface.console import Console
from authface.errors import AuthfaceError, ImageError, one_line
from authface.evaluate import cache
from authface.evaluate.cache import Values
from authface.evaluate.prior.preference import HPSv2, need_extra
from authface.evaluate.sources import Sources
from authface.evaluate.weights import Weights, sha256s
from authface.files import sha256_of
from authface.imaging.decode import decode, read
from authface.metrics import fid
from authface.metrics.iqa import pyiqa_version

if TYPE_CHECKING:
    import torch


@dataclass
class Bench:
    """The samples, and what figures of them are made with."""

    samples: Sequence[Path]
    device: torch.device
    weights: Weights
    values: Values
    console: Console

    def __post_init__(self) -> None:
        self.digests = [sha256_of(path) for path in self.samples]
        self.used: dict[str, str] = {}
        """Name and sha256 of every file of weights behind a figure."""

    def files(self, metric: str, own: Path | None = None) -> dict[str, Path]:
        """The weights of a metric. Raises AuthfaceError, one line, where they are missing."""
        found = self.weights.ensure(metric, own)
        self.used |= sha256s(found)
        return found

    def key(self, metric: str, files: dict[str, Path], *contents: str) -> str:
        """What a value is kept under."""
        version = " ".join([f"pyiqa {pyiqa_version()}", self.device.type, *sha256s(files).values()])
        return cache.key(metric, version, *contents)


def fid_to_faces(bench: Bench, metric: str, reference: Sources) -> float:
    """`fid_basicsr` or `fid_clean` to real faces. Raises AuthfaceError."""
    files = bench.files(metric)
    faces = [hashlib.sha256(source.data()).hexdigest() for source in reference.read()]

    def gaussian(network: fid.Inception) -> fid.Gaussian:
        with bench.console.progress(f"{metric}: real faces", len(faces), "faces") as tick:
            found = fid.feature_moments(network, _decoded(reference, tick))
        return found.mean, found.covariance

    return _fid(bench, metric, bench.key(metric, files, *sorted(bench.digests), "to", *sorted(faces)), gaussian)


def fid_to_ffhq(bench: Bench, metric: str, own: Path | None) -> float:
    """`fid_ffhq_basicsr` or `fid_ffhq_clean`; `own` is a file of statistics. Raises AuthfaceError."""
    files = bench.files(metric, own)
    statistics = list(files.values())[-1]
    key = bench.key(metric, files, *sorted(bench.digests))
    return _fid(bench, metric, key, lambda _: fid.reference_statistics(metric, statistics))


def _fid(bench: Bench, metric: str, key: str, reference: Callable[[fid.Inception], fid.Gaussian]) -> float:
    known = bench.values.get(key)
    if known is not None:
        return known
    network = fid.Inception(metric, bench.device)
    to = reference(network)
    with bench.console.progress(metric, len(bench.samples), "samples") as tick:
        found = fid.feature_moments(network, _seen(bench.samples, tick))
    value = fid.frechet_distance((found.mean, found.covariance), to)
    bench.values.put([(key, value)])
    return value


def preferences(bench: Bench, version: str, texts: Sequence[str]) -> list[float]:
    """HPSv2 of each sample and its text. Raises AuthfaceError where the extra or the weights are missing."""
    need_extra()
    files = bench.files(f"hpsv2 {version}")
    judge: HPSv2 | None = None
    scores = []
    with bench.console.progress("hpsv2", len(texts), "samples") as tick:
        for path, digest, text in zip(bench.samples, bench.digests, texts, strict=True):
            key = bench.key("hpsv2", files, digest, text)
            value = bench.values.get(key)
            if value is None:
                judge = judge or HPSv2(next(iter(files.values())), bench.device)
                value = judge(sample_rgb(path), text)
                bench.values.put([(key, value)])
            scores.append(value)
            tick()
    return scores


def sample_rgb(path: Path) -> NDArray[np.uint8]:
    """The pixels of a sample. Raises AuthfaceError for one that was damaged since."""
    try:
        return read(path).rgb
    except ImageError as error:
        raise AuthfaceError(f"{one_line(path)} is damaged ({error.reason}): delete it, it is drawn again") from error


def _seen(paths: Sequence[Path], tick: Callable[[], None]) -> Iterator[NDArray[np.uint8]]:
    for path in paths:
        yield sample_rgb(path)
        tick()


def _decoded(sources: Sources, tick: Callable[[], None]) -> Iterator[NDArray[np.uint8]]:
    for source in sources.read():
        try:
            yield decode(source.data()).rgb
        except ImageError as error:
            raise AuthfaceError(f"the real face {one_line(source.id)} cannot be used: {error}") from error
        tick()
