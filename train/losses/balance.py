"""Weights of further losses beside the noise loss, by their gradients at the U-Net's prediction, which all cross."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from authface.train.data import no_autocast

STEPS = 100
"""Steps of the moving average, about."""
MOST = 100.0
"""Largest weight over its fixed lambda: a term with hardly any gradient is not amplified without bound."""


class GradientBalance:
    """The weights of k terms, such as the adversarial one, that give each its share of the noise loss's gradient.

    A weight is share x sqrt(E |g_noise|^2 / E |g_term|^2), with gradients g at the predicted noise: every term crosses
    it, so nothing runs back through the U-Net and no weight is touched that FSDP may have sharded. E is a moving
    average over some `STEPS` steps of sums over all faces of a step, whichever process and batch they are in.

    The terms count as weighted by w(t). Balanced batch by batch, those at unimportant timesteps would pull as hard as
    those at its peak, and equation 3 would be undone; on average it keeps its shape, and its scale alone cancels.
    """

    def __init__(self, shares: Sequence[float], fixed: Sequence[float], device: torch.device) -> None:
        self.shares = torch.tensor(shares, device=device)
        self.fixed = torch.tensor(fixed, device=device)
        self.average, self.gathered = (torch.zeros(1 + len(shares), device=device) for _ in range(2))
        """Squared norms of the gradients of the noise and of each term: E, and of this step."""

    def weights(self) -> torch.Tensor:
        """(k,): what the terms are multiplied by in this step.

        The fixed lambda where no share is asked for, and until a term had a gradient.
        """
        noise, terms = self.average[0], self.average[1:]
        balanced = (self.shares * (noise / terms).sqrt()).minimum(MOST * self.fixed)
        return torch.where((self.shares > 0) & (terms > 0), balanced, self.fixed)

    def measure(self, guess: torch.Tensor, noise: torch.Tensor, *terms: torch.Tensor) -> torch.Tensor:
        """(k,): norms of the gradients of `terms` at `guess` (n, c, h, w) over that of `noise`.

        All are scalars of one batch; their squares are gathered for `step`.
        """
        with no_autocast(guess.device):
            gradients = [torch.autograd.grad(term, guess, retain_graph=True)[0] for term in (noise, *terms)]
        squares = torch.stack([gradient.float().square().sum() for gradient in gradients])
        self.gathered = self.gathered + squares
        return (squares[1:] / squares[0]).sqrt()

    def step(self, accelerator: Any) -> None:
        """Move the average by what was gathered since the last step, on all processes."""
        if accelerator.num_processes > 1:
            self.gathered = accelerator.reduce(self.gathered, "sum")
        self.average = self.average.lerp(self.gathered, 1 / STEPS)  # from 0: what is missing cancels in a ratio
        self.gathered = torch.zeros_like(self.gathered)
