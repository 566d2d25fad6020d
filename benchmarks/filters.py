"""The floor a restorer has to be above: a bank of linear filters, fitted to faces of one strength of damage.

As RAISR (Romano, Isidoro, Milanfar 2016): pixels are sorted by the gradients around them into 25 classes, five of their
strength times five of their direction, and each class has a 9 x 9 filter for luma and for both colours, 75 in all,
fitted by least squares. It knows the strength, which a restorer has to find out, and nothing of faces.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rgb = NDArray[np.uint8]
    Planes = NDArray[np.float32]

SIDE = 9
STRENGTHS, DIRECTIONS = 5, 4
CLASSES = STRENGTHS * (DIRECTIONS + 1)
"""A direction counts where there is one; else the class is that of its strength without direction."""
COHERENT = 0.4
"""From this coherence on (RAISR's (root l1 - root l2) / (root l1 + root l2)) gradients have a direction."""
WINDOW = 2.0
"""Sigma of the Gaussian over which gradients are gathered, pixels."""
RIDGE = 1.0
"""Added to the diagonal of the normal equations, squared levels per pixel of the class: filters change no more than
their data asks for."""


@dataclass(frozen=True)
class Bank:
    """Fitted filters."""

    bounds: NDArray[np.float64]
    """(STRENGTHS - 1,) gradient strengths between the classes."""
    weights: NDArray[np.float32]
    """(CLASSES, 3, SIDE * SIDE): what is added to a pixel of Y, Cr and Cb."""

    def __call__(self, damaged: Rgb) -> Rgb:
        """(h, w, 3) restored."""
        planes = _planes(damaged)
        number = _classes(*_gradients(planes[0]), self.bounds).ravel()
        added = np.empty_like(planes)
        for plane, (pixels, out) in enumerate(zip(planes, added, strict=True)):
            around, flat = _patches(pixels), out.reshape(-1)
            for each in range(CLASSES):
                mine = number == each
                flat[mine] = around[mine] @ self.weights[each, plane]
        return _rgb(planes + added)


def fit(pairs: Iterable[tuple[Rgb, Rgb]]) -> Bank:
    """The filters that take damaged faces to the clean ones, of (damaged, clean) pairs of (h, w, 3)."""
    pairs = list(pairs)
    strengths = np.concatenate([_gradients(_planes(damaged)[0])[0].ravel() for damaged, _ in pairs])
    bounds = np.quantile(strengths, np.linspace(0, 1, STRENGTHS + 1)[1:-1])
    size = SIDE * SIDE
    left = np.zeros((CLASSES, 3, size, size))
    right = np.zeros((CLASSES, 3, size))
    for damaged, clean in pairs:
        planes = _planes(damaged)
        wanted = _planes(clean) - planes
        number = _classes(*_gradients(planes[0]), bounds).ravel()
        for plane in range(3):
            around, target = _patches(planes[plane]), wanted[plane].ravel()
            for each in range(CLASSES):
                mine = number == each
                some = around[mine]
                left[each, plane] += some.T @ some + RIDGE * len(some) * np.eye(size)
                right[each, plane] += some.T @ target[mine]
    empty = ~left.any(axis=(1, 2, 3))
    left[empty] = np.eye(size)
    return Bank(bounds, np.linalg.solve(left, right[..., None])[..., 0].astype(np.float32))


def _planes(rgb: Rgb) -> Planes:
    """(3, h, w) Y, Cr, Cb about 0, in levels."""
    found = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2YCrCb) - np.float32(0.5)
    return np.ascontiguousarray(found.transpose(2, 0, 1) * 255, np.float32)


def _rgb(planes: Planes) -> Rgb:
    """`_planes` undone."""
    back = cv2.cvtColor(planes.transpose(1, 2, 0) / 255 + np.float32(0.5), cv2.COLOR_YCrCb2RGB)
    return np.asarray(np.clip(np.rint(back * 255), 0, 255), np.uint8)


def _patches(plane: Planes) -> Planes:
    """(h * w, SIDE * SIDE) surroundings of every pixel, reflected at the borders."""
    wide = np.pad(plane, SIDE // 2, mode="reflect")
    return sliding_window_view(wide, (SIDE, SIDE)).reshape(-1, SIDE * SIDE)


def _gradients(luma: Planes) -> tuple[Planes, Planes, Planes]:
    """(h, w) each: strength, coherence 0..1 and direction 0..pi of the gradients around every pixel.

    Of the structure tensor: its eigenvalues' sum, how much its first root exceeds the second, its first axis.
    """
    across, down = (cv2.Sobel(luma, cv2.CV_32F, x, 1 - x, ksize=3, scale=1 / 8) for x in (1, 0))
    xx, yy, xy = (cv2.GaussianBlur(p, (0, 0), WINDOW) for p in (across * across, down * down, across * down))
    root = np.sqrt((xx - yy) ** 2 + 4 * xy**2)
    first, second = (np.sqrt(np.maximum(xx + yy + sign * root, 0)) for sign in (1, -1))
    coherence = (first - second) / np.maximum(first + second, 1e-6)
    return xx + yy, coherence, np.arctan2(2 * xy, xx - yy) / 2 % np.pi


def _classes(strength: Planes, coherence: Planes, direction: Planes, bounds: NDArray[np.float64]) -> NDArray[np.intp]:
    """(h, w) 0..CLASSES - 1. Directions are about 0, 45, 90 and 135 degrees."""
    turned = np.rint(direction / np.pi * DIRECTIONS).astype(np.intp) % DIRECTIONS + 1
    return np.searchsorted(bounds, strength) * (DIRECTIONS + 1) + np.where(coherence < COHERENT, 0, turned)
