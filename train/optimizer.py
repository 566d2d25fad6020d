"""The optimizers by name, and their learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from authface.errors import UsageError
from authface.train.settings import TrainSettings


def make_optimizer(
    parameters: Iterable[torch.nn.Parameter], settings: TrainSettings, device: torch.device
) -> torch.optim.Optimizer:
    """`settings.optimizer` over `parameters`. Raises UsageError where its package or device is missing."""
    rates = {"lr": settings.lr, "betas": settings.betas, "weight_decay": settings.weight_decay}
    if settings.optimizer == "adamw8bit":
        if device.type != "cuda":
            raise UsageError(f"optimizer adamw8bit needs CUDA, this is {device.type}: set optimizer = adamw")
        try:
            import bitsandbytes
        except ImportError as error:
            raise UsageError("optimizer adamw8bit needs bitsandbytes: pip install 'authface[8bit]'") from error
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
