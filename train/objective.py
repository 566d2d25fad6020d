"""What a stage tells the training loop: what is trained, on what, towards what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from authface.train.data import Batch, Draw, Faces
from authface.train.noise import Noise
from authface.train.picture import Drawn

B = TypeVar("B", bound=Batch)


@dataclass(frozen=True)
class Loss:
    """What one batch says. `total` (scalar) leads what is trained, `critic` (scalar) the discriminators.

    `parts` are scalars to log beside their sum: the same names for every batch of a run.
    """

    total: torch.Tensor
    critic: torch.Tensor | None = None
    parts: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def __add__(self, other: Loss) -> Loss:
        """Both at once."""
        critics = [critic for critic in (self.critic, other.critic) if critic is not None]
        critic = torch.stack(critics).sum() if critics else None
        return Loss(self.total + other.total, critic, {**self.parts, **other.parts})


class Judge(Protocol):
    """Learns beside what is trained, and is saved with the run's state."""

    def step(self, accelerator: Any) -> None:
        """Learn by the gradients that have gathered, averaged over the processes."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Its state."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        ...


class Objective(Protocol[B]):
    """What is trained, on what, towards what: the loop knows nothing else of a stage."""

    @property
    def trained(self) -> torch.nn.Module:
        """The module whose weights move, in float32; its forward is called through `loss`'s `model`."""
        ...

    @property
    def judges(self) -> Sequence[Judge]:
        """What learns beside it, such as discriminators."""
        ...

    @property
    def faces(self) -> Faces:
        """The dataset."""
        ...

    @property
    def count(self) -> int:
        """Faces in the dataset."""
        ...

    def batch(self, draws: Sequence[Draw]) -> B:
        """Read the faces of `draws`, on the CPU: runs in a loader's process."""
        ...

    def loss(self, model: torch.nn.Module, batch: B, random: Noise, step: int) -> Loss:
        """The loss of step 0, 1, ...: means over the faces; all randomness comes from `random`, on the CPU."""
        ...

    def picture(self) -> Drawn:
        """Fixed samples of the state of training, and figures of them."""
        ...

    def write(self, out: Path) -> None:
        """Make `out` a whole family with the trained part in it."""
        ...
