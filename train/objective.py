"""What the training loop needs of a stage: the module, batches, their noise and the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from authface.train.data import Batch, Draw, FaceDataset
from authface.train.picture import ValidationPicture

B = TypeVar("B", bound=Batch)


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


@dataclass(frozen=True)
class Loss:
    """Losses of one batch: `total` (scalar) trains the objective's module, `critic` (scalar) its discriminators.

    `parts` are scalars to log beside their sum: the same names for every batch of a run.
    """

    total: torch.Tensor
    critic: torch.Tensor | None = None
    parts: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def __add__(self, other: Loss) -> Loss:
        """The sum of both, with the parts of both."""
        critics = [critic for critic in (self.critic, other.critic) if critic is not None]
        critic = torch.stack(critics).sum() if critics else None
        return Loss(self.total + other.total, critic, {**self.parts, **other.parts})


class Auxiliary(Protocol):
    """What is trained beside the objective's module, such as discriminators, and is saved with the run's state."""

    def step(self, accelerator: Any) -> None:
        """Take a step by the accumulated gradients, averaged over the processes."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Its state."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        ...


class Objective(Protocol[B]):
    """One stage: the module that is trained, its batches and its loss. The loop knows nothing else of a stage."""

    @property
    def trained(self) -> torch.nn.Module:
        """The module whose weights move, in float32; its forward is called through `loss`'s `model`."""
        ...

    @property
    def auxiliaries(self) -> Sequence[Auxiliary]:
        """What is trained beside it, such as discriminators."""
        ...

    @property
    def faces(self) -> FaceDataset:
        """The dataset."""
        ...

    def batch(self, draws: Sequence[Draw]) -> B:
        """Read the faces of `draws`, on the CPU: runs in a loader's process."""
        ...

    def loss(self, model: torch.nn.Module, batch: B, random: Noise, step: int) -> Loss:
        """The loss of step 0, 1, ...: means over the faces; all randomness comes from `random`, on the CPU."""
        ...

    def picture(self) -> ValidationPicture:
        """Fixed samples of the state of training, and figures of them."""
        ...

    def write(self, out: Path) -> None:
        """Make `out` a whole family with the trained part in it."""
        ...
