"""Image quality: PSNR and SSIM of two 8-bit images of one size, in NumPy and OpenCV; networks by pyiqa.

torch and pyiqa are loaded only where a metric is made.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.errors import AuthfaceError, one_line

if TYPE_CHECKING:
    import torch

    Images = Sequence[NDArray[np.uint8]]

VERSION = "2"
"""Raised when a value of any of these changes."""


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
