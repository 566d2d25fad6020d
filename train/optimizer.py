"""What moves the weights: the optimizers, their learning rate, the moving average that becomes the model."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch

from authface import ranks as processes
from authface.errors import UsageError
from authface.extras import need
from authface.train.settings import TrainSettings


def make_optimizer(
    parameters: Iterable[torch.nn.Parameter], settings: TrainSettings, device: torch.device
) -> torch.optim.Optimizer:
    """`settings.optimizer` over `parameters`. Raises UsageError where its package or device is missing."""
    rates = {"lr": settings.lr, "betas": settings.betas, "weight_decay": settings.weight_decay}
    if settings.optimizer == "adamw8bit":
        if device.type != "cuda":
            raise UsageError(f"optimizer adamw8bit needs CUDA, this is {device.type}: set optimizer = adamw")
        need("optimizer adamw8bit", "8bit", "bitsandbytes")
        import bitsandbytes

        made: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(parameters, **rates)
        return made
    return torch.optim.AdamW(parameters, **rates, fused=device.type in {"cpu", "cuda"})  # type: ignore[arg-type]  # mypy joins the values' types


def learning_rate(step: int, settings: TrainSettings) -> float:
    """The rate of step 0, 1, ...: a linear rise over `warmup` steps, then constant or half a cosine to zero."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    if settings.schedule == "constant":
        return settings.lr
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class MovingAverage:
    """After update n (1, 2, ...): average + (1 - d) (weights - average), with d = min(decay, n / (9 + n)).

    The rise of d is that of diffusers' EMAModel, except that d is 0 at the first update: the average of one is itself.
    With `device` `cpu` the average lies in the machine's memory and a step copies the weights there.
    """

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], decay: float, device: Literal["same", "cpu"] = "same"
    ) -> None:
        self.decay, self.device, self.updates = decay, device, 0
        self._parameters = list(parameters)
        self._sharded = any(hasattr(parameter, "to_local") for parameter in self._parameters)
        self._average = [self._near(weights).clone() for weights in self._weights()]
        self._stored: list[torch.Tensor] | None = None

    @torch.no_grad()
    def step(self) -> None:
        """Take the weights in, once a training step."""
        self.updates += 1
        decay = min(self.decay, self.updates / (9 + self.updates)) if self.updates > 1 else 0.0
        torch._foreach_lerp_(self._average, [self._near(weights) for weights in self._weights()], 1 - decay)

    @torch.no_grad()
    def store(self) -> None:
        """Keep the weights aside, in the machine's memory, until `restore`."""
        self._stored = [weights.to("cpu", copy=True) for weights in self._weights()]

    @torch.no_grad()
    def copy_to(self) -> None:
        """Put the average in place of the weights."""
        torch._foreach_copy_(self._weights(), self._average)

    @torch.no_grad()
    def restore(self) -> None:
        """Put the weights of `store` back."""
        if self._stored is None:
            raise RuntimeError("restore without store")
        torch._foreach_copy_(self._weights(), self._stored)
        self._stored = None

    def state_dict(self) -> dict[str, Any]:
        """The average, of this process's part, and how many updates it has seen."""
        return {"updates": self.updates, "average": self._average}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.updates = int(state["updates"])
        torch._foreach_copy_(self._average, list(state["average"]))

    def save(self, folder: Path) -> None:
        """Write the state into a checkpoint: one file, or one a process where each holds a part."""
        if self._sharded or processes.rank() == 0:
            torch.save(self.state_dict(), self._path(folder))

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        self.load_state_dict(torch.load(self._path(folder), map_location="cpu", weights_only=True))

    def _path(self, folder: Path) -> Path:
        return folder / (f"average-{processes.rank()}.pt" if self._sharded else "average.pt")

    def _weights(self) -> list[torch.Tensor]:
        return [_local(parameter) for parameter in self._parameters]

    def _near(self, weights: torch.Tensor) -> torch.Tensor:
        return weights.to("cpu") if self.device == "cpu" else weights


def _local(parameter: torch.Tensor) -> torch.Tensor:
    """The part of a parameter that lies in this process, sharing its memory."""
    data = parameter.detach()
    local: torch.Tensor = data.to_local() if hasattr(data, "to_local") else data
    return local
