"""PIQE, the perception-based image quality evaluator (Venkatanath et al., NCC 2015), in numpy and OpenCV.

A picture is judged by its 16 x 16 blocks that hold activity: how many show an edge without structure (blocking, blur)
and how many are noisy. No model and no training data; the constants are the paper's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    Plane = NDArray[np.float32]

BLOCK = 16
"""Side of a block, pixels."""
ACTIVE = 0.1
"""Variance of the normalised block from which it counts as active."""
FLAT = 0.1
"""Standard deviation under which a segment of a block's edge shows no structure."""
SEGMENT = 6
"""Pixels of an edge's segment."""
SIGMA = 7 / 6
"""Of the 7 x 7 window in which luma is normalised."""


def piqe(image: NDArray[np.uint8]) -> float:
    """PIQE of a (h, w, 3) RGB or (h, w) luma picture, 0..100, lower is better.

    ((1 + sum of the distortion of active blocks) / (1 + their number)) x 100; a block's distortion is 1 - v where its
    edge is flat somewhere, plus v where it is noisy, v its variance.
    """
    normal = _normalised(_luma(image))
    rows, columns = (side // BLOCK for side in normal.shape)
    variance, noisy = _noise(normal, rows, columns)
    active = variance > ACTIVE
    impaired = _impaired(normal, rows, columns)
    distortion = np.where(impaired, 1 - variance, 0) + np.where(noisy, variance, 0)
    return float((distortion[active].sum() + 1) / (active.sum() + 1) * 100)


def _luma(image: NDArray[np.uint8]) -> Plane:
    """Whole levels of luma, the brightest 255, reflected to whole blocks as the reference code does."""
    grey = image.astype(np.float32)
    if grey.ndim == 3:
        grey = cv2.transform(grey, np.array([[0.299, 0.587, 0.114]], np.float32))
    grey = np.rint(grey * np.float32(255 / max(float(grey.max()), 1.0)))
    down, across = (side % BLOCK for side in grey.shape)
    if down or across:
        grey = cv2.copyMakeBorder(grey, 0, down, 0, across, cv2.BORDER_REFLECT)
    return np.asarray(grey, dtype=np.float32)


def _normalised(luma: Plane) -> Plane:
    """(luma - mean) / (deviation + 1) in a window around every pixel."""
    around: dict[str, Any] = {"ksize": (7, 7), "sigmaX": SIGMA, "borderType": cv2.BORDER_REPLICATE}
    centred = luma - np.float32(128)  # squares of small numbers keep their digits
    mean = cv2.GaussianBlur(centred, **around)
    deviation = cv2.sqrt(cv2.absdiff(cv2.GaussianBlur(centred * centred, **around), mean * mean))
    return np.asarray((centred - mean) / (deviation + np.float32(1)), dtype=np.float32)


def _noise(normal: Plane, rows: int, columns: int) -> tuple[Plane, NDArray[np.bool_]]:
    """(rows, columns) variance of each block, and whether its two middle columns differ as little as noise does.

    With s the block's deviation and c that of the middle over that of the rest: noisy where
    s > 2 |s - c| / max(s, c). The rest is all columns but the 8th and the 10th, as in the authors' code.
    """
    shape = (rows, BLOCK, columns, BLOCK)
    blocks = normal[: rows * BLOCK, : columns * BLOCK].reshape(shape)
    total = blocks.sum(1, dtype=np.float64)
    squares = np.square(blocks).sum(1, dtype=np.float64)

    def variance(chosen: list[int]) -> NDArray[np.float64]:
        count = BLOCK * len(chosen)
        sums, powers = total[..., chosen].sum(-1), squares[..., chosen].sum(-1)
        return np.asarray(np.maximum(powers - sums * sums / count, 0) / (count - 1))

    whole = variance(list(range(BLOCK)))
    middle, rest = variance([7, 8]), variance([c for c in range(BLOCK) if c not in (7, 9)])
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = np.nan_to_num(np.sqrt(middle) / np.sqrt(rest))
        deviation = np.sqrt(whole)
        beta = np.abs(deviation - centre) / np.maximum(deviation, centre)
        return whole.astype(np.float32), np.asarray(deviation > 2 * beta)


def _impaired(normal: Plane, rows: int, columns: int) -> NDArray[np.bool_]:
    """(rows, columns) whether any segment of a block's four edges is flat."""
    whole = normal[: rows * BLOCK, : columns * BLOCK]
    lying = [whole[at::BLOCK].reshape(rows, columns, BLOCK) for at in (0, BLOCK - 1)]
    standing = [whole[:, at::BLOCK].T.reshape(columns, rows, BLOCK).transpose(1, 0, 2) for at in (0, BLOCK - 1)]
    edges = np.stack(lying + standing, axis=2).reshape(-1, BLOCK)
    window: dict[str, Any] = {"ddepth": -1, "ksize": (SEGMENT, 1), "anchor": (0, 0), "borderType": cv2.BORDER_REPLICATE}
    mean = cv2.boxFilter(edges, **window)
    square = cv2.sqrBoxFilter(edges, **window)
    variance = (square - mean * mean)[:, : BLOCK - SEGMENT + 1] * np.float32(SEGMENT / (SEGMENT - 1))
    return np.asarray((variance.min(1) < FLAT * FLAT).reshape(rows, columns, 4).any(-1))
