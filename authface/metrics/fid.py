"""Fréchet Inception distance: features as BasicSR and as clean-fid make them, their Gaussians, published statistics."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy._core.multiarray import _reconstruct, scalar
from numpy.typing import NDArray
from PIL import Image

from authface.errors import AuthfaceError, one_line
from authface.metrics.quality import loading, to_batch

if TYPE_CHECKING:
    import torch

    Array = NDArray[np.float64]
    Gaussian = tuple[Array, Array]
    """Mean and covariance."""

LENGTH = 2048
SIDE = 299
BATCH = 8


class Moments:
    """Mean and covariance of vectors, added batch by batch: memory does not grow (Chan et al. 1979)."""

    def __init__(self, length: int) -> None:
        self.count = 0
        self.mean: Array = np.zeros(length)
        self._scatter: Array = np.zeros((length, length))

    def add(self, vectors: NDArray[np.floating]) -> None:
        """(n, length) more."""
        batch = np.asarray(vectors, np.float64)
        if not len(batch):
            return
        mean = batch.mean(axis=0)
        centred, apart = batch - mean, mean - self.mean
        total = self.count + len(batch)
        self._scatter += centred.T @ centred + np.outer(apart, apart) * (self.count * len(batch) / total)
        self.mean += apart * (len(batch) / total)
        self.count = total

    @property
    def covariance(self) -> Array:
        """(length, length), with n - 1 as numpy.cov has it; of two vectors or more."""
        return self._scatter / (self.count - 1)


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """|m1 - m2|^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2)) of two means and covariances (Heusel et al. 2017, equation 6).

    The trace of the root is the sum of the roots of the eigenvalues of C1^(1/2) C2 C1^(1/2), which is symmetric: no
    complex numbers and no offset where a covariance is singular, as it is of fewer images than features.
    """
    (mean1, cov1), (mean2, cov2) = first, second
    values, vectors = np.linalg.eigh(cov1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    inner = root @ cov2 @ root
    roots = np.sqrt(np.maximum(np.linalg.eigvalsh((inner + inner.T) / 2), 0)).sum()
    apart = mean1 - mean2
    return float(apart @ apart + np.trace(cov1) + np.trace(cov2) - 2 * roots)


class Inception:
    """FID's Inception-v3 (pool3, the TensorFlow weights of 2015 with their odd pooling), pyiqa's copy of it."""

    def __init__(self, metric: str, device: torch.device) -> None:
        self._clean = metric.endswith("clean")
        self._device = device
        with loading(f"{metric} is not measured: its weights cannot be loaded"):
            from pyiqa.archs.inception import InceptionV3

            self._network: Any = InceptionV3(output_blocks=[3]).to(device).eval()

    def __call__(self, images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """(n, 2048) features of n images, each (h, w, 3) uint8 RGB."""
        import torch

        prepare = clean_input if self._clean else basicsr_input
        with torch.inference_mode():
            seen = torch.cat([prepare(rgb).to(self._device) for rgb in images])
            features = self._network(seen, False, False)[0]
        array: NDArray[np.float32] = features.reshape(len(images), LENGTH).float().cpu().numpy()
        return array


def basicsr_input(rgb: NDArray[np.uint8]) -> torch.Tensor:
    """(1, 3, 299, 299) in -1..1, bilinear and not antialiased, as ``calculate_fid_folder`` of BasicSR."""
    import torch
    from torch.nn import functional

    seen = (to_batch([rgb], torch.device("cpu")) - 0.5) / 0.5
    return functional.interpolate(seen, size=(SIDE, SIDE), mode="bilinear", align_corners=False)


def clean_input(rgb: NDArray[np.uint8]) -> torch.Tensor:
    """(1, 3, 299, 299): Pillow's antialiased bicubic on each channel in floats, then (x - 128) / 128, as clean-fid."""
    import torch

    def resized(channel: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(Image.fromarray(channel).resize((SIDE, SIDE), Image.Resampling.BICUBIC)).clip(0, 255)

    planes = np.stack([resized(np.ascontiguousarray(rgb[..., c], np.float32)) for c in range(3)])
    return (torch.from_numpy(planes)[None] - 128) / 128


def reference_statistics(metric: str, path: Path) -> Gaussian:
    """Mean (2048,) and covariance (2048, 2048) of a reference set. Raises AuthfaceError for a file without them."""
    try:
        if metric == "fid_ffhq_clean":
            with np.load(path) as held:
                mean, covariance = held["mu"], held["sigma"]
        else:
            mean, covariance = _load_arrays(path, "mean", "cov")
        mean, covariance = np.asarray(mean, np.float64).reshape(-1), np.asarray(covariance, np.float64)
    except Exception as error:  # a wrong file fails in whatever way its reader does
        why = one_line(f"{type(error).__name__}: {error}", 120)
        raise AuthfaceError(f"{metric} is not measured: {one_line(path)} holds no statistics ({why})") from error
    if mean.shape != (LENGTH,) or covariance.shape != (LENGTH, LENGTH):
        raise AuthfaceError(
            f"{metric} is not measured: {one_line(path)} has a mean of {mean.shape} and a covariance of "
            f"{covariance.shape}; {LENGTH} features are needed"
        )
    return mean, covariance


def _load_arrays(path: Path, *names: str) -> list[NDArray[np.float64]]:
    """Arrays of a file that torch saved, without running what else a pickle could hold."""
    import torch

    allowed: list[Any] = [np.ndarray, np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.float32)), codecs.encode]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        allowed += [(_reconstruct, f"{module}._reconstruct"), (scalar, f"{module}.scalar")]
    with torch.serialization.safe_globals(allowed):
        held = torch.load(path, map_location="cpu", weights_only=True)
    return [np.asarray(held[name], np.float64) for name in names]


def feature_moments(inception: Inception, images: Iterable[NDArray[np.uint8]]) -> Moments:
    """Mean and covariance of the features of a set; a few images are in memory at a time.

    Raises AuthfaceError for fewer than two images.
    """
    found = Moments(LENGTH)
    waiting = iter(images)
    while batch := list(islice(waiting, BATCH)):
        found.add(inception(batch))
    if found.count < 2:
        raise AuthfaceError(f"FID needs 2 images or more, there are {found.count}")
    return found


def fid(inception: Inception, images: Iterable[NDArray[np.uint8]], reference: Gaussian) -> tuple[float, int]:
    """Fréchet distance of a set to the reference, and how many images it has. Raises as `feature_moments`."""
    found = feature_moments(inception, images)
    return frechet_distance((found.mean, found.covariance), reference), found.count
