"""Stage II judged on pixels: how a restored face looks to a network of features, and to a discriminator of detail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from authface.models import sdxl
from authface.models.cleaner import fine
from authface.train.data import exact
from authface.train.losses.balance import Balance
from authface.train.losses.critic import PixelCritic
from authface.train.losses.perceptual import Perceptual, trained_network
from authface.train.settings import PixelSettings


@dataclass(frozen=True)
class Seen:
    """What pixels say of a batch, scalars: two lead the ControlNet, `critic` teaches the discriminator if it looked."""

    perceptual: torch.Tensor
    adversarial: torch.Tensor
    critic: torch.Tensor | None


def restored(vae: Any, estimate: torch.Tensor, cleaned: torch.Tensor | None) -> torch.Tensor:
    """Images (n, 3, h, w) of estimated clean latents in the U-Net's scale, about -1..1, in float32.

    With `cleaned` faces in -1..1 it is they with what is fine in the difference to their own decoded latents, as
    `restore` makes it.
    """
    with exact(estimate.device):
        made = sdxl.decode(vae, estimate.float())
        if cleaned is None:
            return made
        with torch.no_grad():
            own = sdxl.decode(vae, sdxl.encode(vae, cleaned.float()))
        return cleaned.float() + fine(made - own)


class PixelTerms:
    """A network of features, a discriminator of fine detail, and how much each counts."""

    def __init__(self, settings: PixelSettings, device: torch.device, seed: int) -> None:
        self.settings = settings
        self.perceptual = None
        if settings.perceptual:
            self.perceptual = Perceptual(trained_network(settings.network, settings.weights)).to(device)
        self.critic = PixelCritic(settings.lr, device, seed) if settings.adversarial else None
        # Before a gradient was measured, about what their shares come to.
        self.balance = Balance((settings.perceptual, settings.adversarial), (0.1, 0.01), device)

    def judge(self, made: torch.Tensor, real: torch.Tensor) -> Seen:
        """Images (n, 3, h, w) in -1..1, restored and true, in float32 whatever the autocast."""
        zero = made.sum() * 0  # with a gradient, which is 0
        if not len(made):
            return Seen(zero, zero, None)
        with exact(made.device):
            near = zero if self.perceptual is None else self.perceptual(made, real).mean()
            return Seen(near, zero, None) if self.critic is None else Seen(near, *self.critic.judge(real, made))

    def step(self, accelerator: Any) -> None:
        """One step of the discriminator and of the balance."""
        if self.critic is not None:
            self.critic.step(accelerator)
        self.balance.step(accelerator)

    def state_dict(self) -> dict[str, Any]:
        """The discriminator with its optimizer, and the balance's average."""
        critic = {} if self.critic is None else {"critic": self.critic.state_dict()}
        return {**critic, "balance": self.balance.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        if self.critic is not None:
            self.critic.load_state_dict(state["critic"])
        self.balance.average = state["balance"].to(self.balance.average.device)
