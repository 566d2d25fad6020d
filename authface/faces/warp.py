"""Sample a photo on a turned, scaled square grid without aliasing."""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", np.uint8, np.float32)

DETAIL_RATIO = 0.65
"""Photo pixels in a crop pixel from which the warp is filtered; below it, sampling alone is within 50 dB of that."""
MAX_RATIO = 2.0
"""Photo pixels in a crop pixel beyond which whole photo pixels are averaged first."""


def warp(image: NDArray[T], turn: NDArray[np.float64], width: int, height: int) -> NDArray[T]:
    """Sample (h, w, 3) at `turn` of every pixel of a (height, width, 3) grid, filtered to the grid's resolution.

    The result is rounded to uint8 if `image` is uint8; of float32 fractions stay. `turn` is (2, 3), grid to image, and
    keeps shapes. The image is reflected at its borders.
    """
    ratio = float(np.hypot(*turn[:, 0]))
    if ratio >= 2 * MAX_RATIO:
        image, turn = _averaged(image, turn, int(ratio / MAX_RATIO))
    if ratio < DETAIL_RATIO:
        return _sample(image, turn, width, height)
    # Two samples a pixel each way, then Lanczos-3: each of the four grids takes every second tap of its kernel. The
    # grids are three pixels wider on each side, so that the kernel finds at the borders what is there.
    total = None
    for row in (0, 1):
        for column in (0, 1):
            grid = turn.copy()
            grid[:, 2] += turn[:, :2] @ [column / 2 - 0.25 - 3, row / 2 - 0.25 - 3]
            part = cv2.sepFilter2D(
                _sample(image, grid, width + 6, height + 6),
                cv2.CV_32F,
                _LANCZOS[1 - column :: 2],
                _LANCZOS[1 - row :: 2],
                anchor=(2 + column, 2 + row),
            )
            total = part if total is None else cv2.add(total, part, total)
    if image.dtype != np.uint8:
        return np.asarray(cv2.max(total, 0.0)[3:-3, 3:-3], dtype=image.dtype)
    return np.asarray(cv2.convertScaleAbs(cv2.max(total, 0.0)[3:-3, 3:-3]), dtype=image.dtype)


def _lanczos(factor: int, lobes: int = 3) -> NDArray[np.float32]:
    """Taps of the Lanczos kernel for a reduction by `factor`; they sum to 1."""
    x = (np.arange(-lobes * factor, lobes * factor) + 0.5) / factor
    taps = np.sinc(x) * np.sinc(x / lobes)
    return np.asarray(taps / taps.sum(), dtype=np.float32)


_LANCZOS = _lanczos(2)


def _sample(image: NDArray[T], turn: NDArray[np.float64], width: int, height: int) -> NDArray[T]:
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(image, turn, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101))


def _averaged(image: NDArray[T], turn: NDArray[np.float64], factor: int) -> tuple[NDArray[T], NDArray[np.float64]]:
    """The image shrunk about `factor` times by averaging, and `turn` into it."""
    height, width = image.shape[:2]
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    scale = np.array([small[0] / width, small[1] / height])
    turn = turn * scale[:, None]
    turn[:, 2] += scale / 2 - 0.5
    return np.asarray(cv2.resize(image, small, interpolation=cv2.INTER_AREA)), turn
