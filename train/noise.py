"""Random numbers of a batch that do not depend on who computes it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


class Noise:
    """One generator a face, seeded by the run's seed and the face's place in the endless stream of faces.

    So a face meets the same noise in a batch of 8, in two accumulated batches of 4, and on four processes that take
    two each. Every method draws on the CPU, for all faces: a row each, in the order of `positions`.
    """

    def __init__(self, seed: int, positions: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(_entropy(seed, position)) for position in positions]

    def normal(self, *shape: int) -> torch.Tensor:
        """(n, *shape): standard normal."""
        return torch.stack([torch.randn(shape, generator=one) for one in self._generators])

    def integers(self, high: int, power: float = 0) -> torch.Tensor:
        """(n,) int64 over 0 .. high - 1: uniform, or with a density that grows as their `power`."""
        if power:
            return (self.uniform().double() ** (1 / (1 + power)) * high).long()
        return torch.cat([torch.randint(high, (1,), generator=one) for one in self._generators])

    def uniform(self) -> torch.Tensor:
        """(n,): uniform over [0, 1)."""
        return torch.cat([torch.rand(1, generator=one) for one in self._generators])


def _entropy(seed: int, position: int) -> int:
    return int(np.random.SeedSequence((seed, position, 2)).generate_state(1)[0])
