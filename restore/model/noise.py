"""The initial noise of a face's latents: the same for a seed on every machine, with torch and without."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


class FaceNoise:
    """Standard normal numbers of one seed, drawn one array after the other.

    From the bits of PCG64, which NumPy guarantees to keep stable, by Box and Muller's transform (1958): NumPy's own
    normal numbers may change from release to release.
    """

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The next numbers, in that shape."""
        pairs = -(-math.prod(shape) // 2)
        # 53 bits each, never 0 and never 1.
        uniform = ((self._bits.random_raw(2 * pairs) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        length, angle = np.sqrt(-2 * np.log(uniform[:pairs])), 2 * np.pi * uniform[pairs:]
        both = np.concatenate([length * np.cos(angle), length * np.sin(angle)])
        return both[: math.prod(shape)].reshape(shape).astype(np.float32)
