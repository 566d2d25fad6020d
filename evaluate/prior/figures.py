"""Figures of a prior's samples as a set: FID to real faces and to FFHQ's statistics, and HPSv2; kept by content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from authface.console import Console
from authface.errors import AuthfaceError, ImageError, one_line
from authface.evaluate.images import SourceFaces
from authface.evaluate.measure import ValueCache, value_key
from authface.evaluate.weights import MetricWeights, sha256s
from authface.extras import need
from authface.files import sha256_of
from authface.imaging.decode import decode, read
from authface.metrics import fid
from authface.metrics.quality import loading, pyiqa_version, to_batch

if TYPE_CHECKING:
    import torch


ARCHITECTURE = "ViT-H-14"


def need_extra() -> None:
    """Raise UsageError where open_clip is not installed: before 4 GB of weights are fetched for nothing."""
    need("hpsv2", "hps", "open_clip")


class HPSv2:
    """The network with weights of `checkpoint`. Raises AuthfaceError where open_clip or good weights are missing."""

    def __init__(self, checkpoint: Path, device: torch.device, architecture: str = ARCHITECTURE) -> None:
        need_extra()
        import open_clip

        self._device = device
        with loading("hpsv2 is not measured: its weights cannot be loaded"):
            self._network: Any = open_clip.create_model(architecture, pretrained=str(checkpoint), device=device).eval()
            self._tokens: Any = open_clip.get_tokenizer(architecture)
        self._seen = open_clip.get_model_preprocess_cfg(self._network)

    def __call__(self, rgb: NDArray[np.uint8], prompt: str) -> float:
        """Cosine of a square (h, w, 3) image and a prompt, as the release computes it; good ones have about 0.3."""
        import torch
        from torchvision.transforms.functional import InterpolationMode, normalize, resize

        side = self._network.visual.image_size
        small = resize(to_batch([rgb], self._device), list(side), InterpolationMode.BICUBIC, antialias=True)
        with torch.inference_mode():
            image = self._network.encode_image(normalize(small, self._seen["mean"], self._seen["std"]), normalize=True)
            text = self._network.encode_text(self._tokens([prompt]).to(self._device), normalize=True)
            return float((image.double() * text.double()).sum())


@dataclass
class Bench:
    """The samples, and what figures of them are made with."""

    samples: Sequence[Path]
    device: torch.device
    weights: MetricWeights
    values: ValueCache
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
        return value_key(metric, version, *contents)


def fid_to_faces(bench: Bench, metric: str, reference: SourceFaces) -> float:
    """`fid_basicsr` or `fid_clean` to real faces. Raises AuthfaceError."""
    files = bench.files(metric)
    faces = [hashlib.sha256(source.data()).hexdigest() for source in reference.read()]

    def gaussian(network: fid.Inception) -> fid.Gaussian:
        with bench.console.progress(f"{metric}: real faces", len(faces), "faces") as tick:
            found = fid.feature_moments(network, _real_images(reference, tick))
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
        found = fid.feature_moments(network, _sample_images(bench.samples, tick))
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


def _sample_images(paths: Sequence[Path], tick: Callable[[], None]) -> Iterator[NDArray[np.uint8]]:
    for path in paths:
        yield sample_rgb(path)
        tick()


def _real_images(sources: SourceFaces, tick: Callable[[], None]) -> Iterator[NDArray[np.uint8]]:
    for source in sources.read():
        try:
            yield decode(source.data()).rgb
        except ImageError as error:
            raise AuthfaceError(f"the real face {one_line(source.id)} cannot be used: {error}") from error
        tick()
