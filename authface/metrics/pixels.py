"""PSNR and SSIM of two 8-bit images of one size, in numpy and OpenCV."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

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
