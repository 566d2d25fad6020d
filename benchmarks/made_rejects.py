"""Photos with a made fault of a known name, or none: what a reviewer with a hidden rule rejects, and why.

Every photo that comes out was encoded once more, faulty or not, so that the encoding tells nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rgb = NDArray[np.uint8]
    Box = tuple[float, float, float, float]

REASONS = {
    "enlarged": "blurred",
    "blurred": "blurred",
    "oversharpened": "noise or artefacts",
    "pixelated": "noise or artefacts",
    "grainy": "noise or artefacts",
    "smoothed": "over-smoothed skin",
    "covered": "face covered",
}
"""Fault -> the reason to reject that a reviewer gives."""
QUALITY = 95
"""Of the JPEG that every photo becomes."""


def faulty(rgb: Rgb, box: Box, fault: str, rng: np.random.Generator) -> Rgb:
    """The photo with one of `REASONS`; an empty name gives it back as it is."""
    return np.ascontiguousarray(_FAULTS[fault](rgb, box, rng)) if fault else rgb


def _resized(rgb: Rgb, factor: float, down: int, up: int) -> Rgb:
    height, width = rgb.shape[:2]
    small = cv2.resize(rgb, (max(1, round(width / factor)), max(1, round(height / factor))), interpolation=down)
    return np.asarray(cv2.resize(small, (width, height), interpolation=up))


def _enlarged(rgb: Rgb, _: Box, rng: np.random.Generator) -> Rgb:
    up = [cv2.INTER_CUBIC, cv2.INTER_LANCZOS4, cv2.INTER_LINEAR][rng.integers(3)]
    again = _resized(rgb, rng.uniform(1.4, 2.2), cv2.INTER_AREA, up)
    return _unsharp(again, rng.uniform(0.4, 1.2), rng.uniform(0.8, 1.4)) if rng.random() < 0.6 else again


def _pixelated(rgb: Rgb, _: Box, rng: np.random.Generator) -> Rgb:
    return _resized(rgb, rng.uniform(1.4, 2.5), cv2.INTER_AREA, cv2.INTER_NEAREST)


def _unsharp(rgb: Rgb, amount: float, sigma: float) -> Rgb:
    soft = cv2.GaussianBlur(rgb, (0, 0), sigma).astype(np.float32)
    return np.asarray(np.clip(rgb + amount * (rgb - soft), 0, 255), np.uint8)


def _oversharpened(rgb: Rgb, _: Box, rng: np.random.Generator) -> Rgb:
    return _unsharp(rgb, rng.uniform(1.0, 3.0), rng.uniform(0.7, 1.8))


def _blurred(rgb: Rgb, _: Box, rng: np.random.Generator) -> Rgb:
    return np.asarray(cv2.GaussianBlur(rgb, (0, 0), rng.uniform(0.6, 1.1)))


def _grainy(rgb: Rgb, _: Box, rng: np.random.Generator) -> Rgb:
    noise = rng.normal(0, rng.uniform(3.5, 7), rgb.shape)
    return np.asarray(np.clip(rgb + cv2.GaussianBlur(noise, (0, 0), rng.uniform(0.3, 0.8)) * 1.5, 0, 255), np.uint8)


def _smoothed(rgb: Rgb, _: Box, rng: np.random.Generator) -> Rgb:
    return np.asarray(cv2.bilateralFilter(rgb, 9, rng.uniform(14, 30), rng.uniform(2, 4)))


def _covered(rgb: Rgb, box: Box, rng: np.random.Generator) -> Rgb:
    """A textured patch of the photo's own margin, in any colour, over a part of the face."""
    x0, y0, x1, y1 = (round(end) for end in box)
    width, height = x1 - x0, y1 - y0
    part = round(width * rng.uniform(0.5, 0.9)), round(height * rng.uniform(0.25, 0.4))
    centre = round(rng.uniform(x0 + 0.3 * width, x1 - 0.3 * width)), round(rng.uniform(y0 + 0.3 * height, y1))
    mask = np.zeros(rgb.shape[:2], np.float32)
    cv2.ellipse(mask, (centre, part, rng.uniform(-30, 30)), 1.0, -1)
    mask = cv2.GaussianBlur(mask, (0, 0), 1.0)[..., None]
    cover = np.flip(rgb, axis=int(rng.integers(2))) * 0.4 + rng.uniform(0, 150, 3)
    return np.asarray((rgb * (1 - mask) + np.clip(cover, 0, 255) * mask).astype(np.uint8))


_FAULTS: dict[str, Callable[[Rgb, Box, np.random.Generator], Rgb]] = {
    "enlarged": _enlarged,
    "blurred": _blurred,
    "oversharpened": _oversharpened,
    "pixelated": _pixelated,
    "grainy": _grainy,
    "smoothed": _smoothed,
    "covered": _covered,
}
