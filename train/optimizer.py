"""The optimizers by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from authface.errors import UsageError

if TYPE_CHECKING:
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
