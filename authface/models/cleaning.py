"""What is around a cleaner's network and a prior's detail, in NumPy and whatever runs the network.

Tiles, high pass, and the noise of a face.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

Planes = NDArray[np.float32]
"""(1, 3, h, w), RGB of about -1..1, and maybe a plane of noise."""
Network = Callable[[Planes], Planes]
"""Cleans a face, or a tile of one, of any shape; the result has no noise."""

TEXTURE = 1
"""Stream of a face's noise that a cleaner makes texture of."""

FINE = 4.0
"""Of a prior's detail only what is finer than this is added to a cleaned face, pixels (sigma of the high pass): what is
coarser the cleaner knows better."""
WHOLE, TILE, OVERLAP = 1024, 768, 64
"""Faces up to `WHOLE` pixels a side are cleaned in one go, larger ones in tiles of `TILE` that share `OVERLAP`."""
GRID = 64
"""Tiles begin at its multiples, where what the network halves falls on the same pixels as of the whole face."""


class FaceNoise:
    """Standard normal numbers of one seed and stream, drawn one array after the other.

    The initial noise of a face's latents, and with `TEXTURE` what a cleaner makes texture of: the same on every
    machine, with torch and without. From the bits of PCG64, which NumPy guarantees to keep stable, by Box and Muller's
    transform (1958): NumPy's own normal numbers may change from release to release.
    """

    def __init__(self, seed: int, *stream: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=stream))

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The next numbers, in that shape."""
        pairs = -(-math.prod(shape) // 2)
        # 53 bits each, never 0 and never 1.
        uniform = ((self._bits.random_raw(2 * pairs) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        length, angle = np.sqrt(-2 * np.log(uniform[:pairs])), 2 * np.pi * uniform[pairs:]
        both = np.concatenate([length * np.cos(angle), length * np.sin(angle)])
        return both[: math.prod(shape)].reshape(shape).astype(np.float32)


def clean(network: Network, rgb: NDArray[np.uint8], seed: int | None = None) -> NDArray[np.float32]:
    """One (h, w, 3) uint8 face, cleaned at its own resolution: levels, about 0..255, not rounded.

    With a `seed` the network is given a fourth plane, of that seed's noise.
    """
    planes = to_signed(rgb)
    if seed is not None:
        planes = np.concatenate([planes, FaceNoise(seed, TEXTURE).normal((1, 1, *rgb.shape[:2]))], 1)
    done = network(planes) if max(rgb.shape[:2]) <= WHOLE else _tiled(network, planes)
    levels: NDArray[np.float32] = (done[0].transpose(1, 2, 0) + np.float32(1)) * np.float32(127.5)
    return levels


def to_unit(rgb: NDArray[np.uint8]) -> Planes:
    """(h, w, 3) uint8 as values of 0..1."""
    return np.ascontiguousarray(rgb.transpose(2, 0, 1)[None], np.float32) / np.float32(255)


def to_signed(rgb: NDArray[np.uint8]) -> Planes:
    """(h, w, 3) uint8 as values of -1..1."""
    return to_unit(rgb) * np.float32(2) - np.float32(1)


def high_pass(image: NDArray[np.float32], sigma: float = FINE) -> NDArray[np.float32]:
    """(h, w, 3) less its Gaussian blur of `sigma` pixels; beyond the border the nearest pixel goes on.

    As `authface.models.cleaner.high_pass`, which training needs.
    """
    reach = math.ceil(3 * sigma)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1, dtype=np.float32) / sigma) ** 2)
    taps /= taps.sum()
    blurred = cv2.sepFilter2D(image, cv2.CV_32F, taps, taps, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(image - blurred, np.float32)


def _tiled(network: Network, image: Planes) -> Planes:
    """As `network`, in tiles whose seams are faded over."""
    height, width = image.shape[2:]
    total, weights = np.zeros_like(image[:, :3]), np.zeros_like(image[:1, :1])
    for top in _starts(height):
        for left in _starts(width):
            tile = np.s_[..., top : top + TILE, left : left + TILE]
            done = network(np.ascontiguousarray(image[tile]))
            fade = _fade(done.shape[2])[:, None] * _fade(done.shape[3])
            total[tile] += done * fade
            weights[tile] += fade
    return np.asarray(total / weights, np.float32)


def _starts(length: int) -> Iterator[int]:
    """Where tiles begin, so that they cover `length` and share at least `OVERLAP`; the last may be shorter."""
    if length <= TILE:
        yield 0
        return
    count = -(-(length - OVERLAP) // (TILE - OVERLAP))
    for i in range(count):
        yield -(-i * (length - TILE) // ((count - 1) * GRID)) * GRID


def _fade(length: int) -> NDArray[np.float32]:
    """(length,) weights that rise over `OVERLAP` from either end, never 0."""
    place = np.arange(length, dtype=np.float32) + np.float32(0.5)
    return np.asarray(np.minimum(np.minimum(place, length - place) / np.float32(OVERLAP), 1), np.float32)
