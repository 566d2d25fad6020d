"""Image quality: PSNR and SSIM of two 8-bit images of one size, networks by pyiqa, FID of two sets of images.

PSNR and SSIM are NumPy and OpenCV; torch and pyiqa are loaded only where a network is made. Of the Fréchet inception
distance these are the features as BasicSR and as clean-fid make them, their Gaussians, published statistics.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import logging
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy._core.multiarray import _reconstruct, scalar
from numpy.typing import NDArray
from PIL import Image

from authface.errors import AuthfaceError, one_line

if TYPE_CHECKING:
    import torch

    Array = NDArray[np.float64]
    Gaussian = tuple[Array, Array]
    """Mean and covariance."""
    Images = Sequence[NDArray[np.uint8]]


VERSION = "2"
"""Raised when a value of a metric of single pictures changes."""


def psnr(output: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """10 log10(255^2 / mean square error) of two uint8 arrays of one shape, dB; as `skimage.metrics`.

    Identical ones would be infinite, and no mean could be taken: they get the value of one level of difference in one
    number, the largest any others can have.
    """
    error = np.square(output.astype(np.float64) - truth.astype(np.float64)).mean()
    return _decibels(float(error) or 1 / output.size)


def psnr_y(output: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """PSNR of the luma of two (h, w, 3) RGB images, dB, with 255 as the peak: BasicSR's ``test_y_channel``.

    Identical ones get the value of one level of blue in one pixel.
    """
    error = np.square(luma_studio(output) - luma_studio(truth)).mean()
    return _decibels(float(error) or (24.966 / 255) ** 2 / (output.size // 3))


def ssim(output: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """SSIM of two (h, w, 3) RGB images of 7 px or more, -1..1: uniform 7 x 7 window, mean of the channels.

    skimage's `structural_similarity` as it comes (the window's sample covariance, only where it lies inside), by
    OpenCV's box filter: half the time.
    """
    x, y = output.astype(np.float64), truth.astype(np.float64)

    def mean(image: NDArray[np.float64]) -> NDArray[np.float64]:
        whole = cv2.boxFilter(image, cv2.CV_64F, (7, 7))
        return np.asarray(whole[3:-3, 3:-3], np.float64)

    mean_x, mean_y, sample = mean(x), mean(y), 49 / 48
    variance = sample * (mean(x * x) - mean_x**2 + mean(y * y) - mean_y**2)
    covariance = sample * (mean(x * y) - mean_x * mean_y)
    low, high = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    alike = (2 * mean_x * mean_y + low) * (2 * covariance + high)
    return float((alike / ((mean_x**2 + mean_y**2 + low) * (variance + high))).mean())


def ssim_y(output: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """SSIM of the luma of two (h, w, 3) RGB images of 11 px or more, 0..1, as pyiqa's ``ssim`` and Wang's MATLAB code.

    Gaussian 11 x 11 window of sigma 1.5, only where it lies inside; contrast and structure are not let below zero.
    """
    x, y = luma_full(output), luma_full(truth)
    window = cv2.getGaussianKernel(11, 1.5, cv2.CV_64F)

    def blurred(image: NDArray[np.float64]) -> NDArray[np.float64]:
        whole = cv2.sepFilter2D(image, cv2.CV_64F, window, window)
        return np.asarray(whole[5:-5, 5:-5], np.float64)

    mean_x, mean_y = blurred(x), blurred(y)
    variance = blurred(x * x) - mean_x**2 + blurred(y * y) - mean_y**2
    covariance = blurred(x * y) - mean_x * mean_y
    low, high = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    structure = np.maximum((2 * covariance + high) / (variance + high), 0)
    return float(((2 * mean_x * mean_y + low) / (mean_x**2 + mean_y**2 + low) * structure).mean())


def luma_studio(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(h, w) luma of BT.601 in 16..235, not rounded, of (h, w, 3) uint8 RGB."""
    return np.asarray(16 + rgb.astype(np.float64) @ (np.array([65.481, 128.553, 24.966]) / 255), np.float64)


def luma_full(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(h, w) luma of BT.601 in 0..255, rounded to whole levels, of (h, w, 3) uint8 RGB.

    In float32, as pyiqa computes it: a few pixels in a thousand lie between two levels, and take the same one.
    """
    luma = (rgb.astype(np.float32) / 255) @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.rint(luma * np.float32(255)).astype(np.float64)


def _decibels(error: float) -> float:
    return 10 * math.log10(255**2 / error)


_ONE_BY_ONE = ("compare2score", "qalign")
"""Metrics that take a single picture at a time."""


def pyiqa_version() -> str:
    """The release of pyiqa, which fixes the code and the weights of its metrics."""
    return version("pyiqa")


class QualityMetric:
    """One of pyiqa's metrics on a device; `options` are its own. Make it within `loading`."""

    def __init__(self, name: str, device: torch.device, **options: Any) -> None:
        import pyiqa

        self._name, self._device = name, device
        with _without_backbone_download() if name.startswith("maniqa") else contextlib.nullcontext():
            self._network: Any = pyiqa.create_metric(name, device=device, **options)

    def __call__(self, images: Images, truths: Images | None = None, **options: Any) -> list[float]:
        """Values of (h, w, 3) uint8 RGB images of one size, against their truths where the metric needs them."""
        import torch

        size = 1 if self._name.startswith(_ONE_BY_ONE) else len(images)
        scores: list[float] = []
        with torch.inference_mode():
            for at in range(0, len(images), size):
                batches = [to_batch(each[at : at + size], self._device) for each in (images, truths) if each]
                values = self._network(*batches, **options)
                scores += values.reshape(len(batches[0]), -1)[:, 0].double().cpu().tolist()
        return scores


def to_batch(images: Images, device: torch.device) -> torch.Tensor:
    """(n, 3, h, w) float32 in 0..1 of n (h, w, 3) uint8 images of one size."""
    import torch

    planes = np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))
    return torch.from_numpy(planes).to(device).float() / 255


@contextlib.contextmanager
def loading(failure: str, advice: str = "") -> Iterator[None]:
    """Load a metric without what its libraries print; raises AuthfaceError ``failure (why): advice``, one line."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # whatever a metric's loader raises: network, disk, package, a broken file
        why = one_line(f"{type(error).__name__}: {error}", 160)
        raise AuthfaceError(f"{failure} ({why})" + (f": {advice}" if advice else "")) from error
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _without_backbone_download() -> Iterator[None]:
    """MANIQA asks the hub for a ViT whose every weight its own checkpoint then replaces (loaded strictly)."""
    import timm

    create = timm.create_model
    timm.create_model = lambda *names, **options: create(*names, **(options | {"pretrained": False}))
    try:
        yield
    finally:
        timm.create_model = create


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
