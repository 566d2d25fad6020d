"""The discriminators beside a training, their optimizer, and what they judge: eyes and mouth, or pixels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from authface.train.data import REGIONS, exact, seeded
from authface.train.losses import facial
from authface.train.losses.balance import Balance
from authface.train.losses.discriminator import ComponentDiscriminator, PatchDiscriminator
from authface.train.settings import FacialSettings

BETAS = (0.9, 0.99)
"""Of the discriminators' Adam (GFP-GAN)."""


@dataclass(frozen=True)
class Judged:
    """Equation 2 of n faces, before the weight of their timesteps. Each (n,) float32.

    `adversarial` and `style` are sums over the regions, without lambda; they lead the ControlNet. `critic` teaches
    the discriminators, which never see a gradient of the other two.
    """

    adversarial: torch.Tensor
    style: torch.Tensor
    critic: torch.Tensor


class Discriminators:
    """What learns beside the trained network, in float32, and is saved with the run's state."""

    def __init__(self, nets: nn.ModuleDict, lr: float) -> None:
        self.nets = nets
        self.optimizer = torch.optim.Adam(nets.parameters(), lr=lr, betas=BETAS)

    def step(self, accelerator: Any) -> None:
        """One step of the discriminators by the gradients that have gathered, averaged over the processes."""
        if accelerator.num_processes > 1:
            for parameter in self.nets.parameters():
                grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = accelerator.reduce(grad, "mean")
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Weights and optimizer."""
        return {"nets": self.nets.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.nets.load_state_dict(state["nets"])
        self.optimizer.load_state_dict(state["optimizer"])


class PixelCritic(Discriminators):
    """Says of the places of an image whether they are of a photo or out of a decoder."""

    def __init__(self, lr: float, device: torch.device, seed: int) -> None:
        with seeded(seed):
            nets = nn.ModuleDict({"pixels": PatchDiscriminator()}).to(device)
        super().__init__(nets, lr)

    def judge(self, real: torch.Tensor, fake: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What leads the decoder and what teaches the discriminator, scalars, for images (n, 3, h, w) in -1..1."""
        net = self.nets["pixels"]
        with exact(real.device):
            with frozen(net):
                lead = facial.adversarial(net(fake.float())).mean()
            return lead, facial.verdict(net(real.float()), net(fake.detach().float())).mean()


class Critic(Discriminators):
    """D_eyes and D_mouth of the facial loss, and how much their terms count.

    They see latents of `latent_channels` channels, `factor` times smaller a side than the image.
    """

    def __init__(
        self, latent_channels: int, factor: int, settings: FacialSettings, device: torch.device, seed: int
    ) -> None:
        names = ("eyes", "mouth") if settings.share_eyes else REGIONS
        with seeded(seed):
            nets = nn.ModuleDict({name: ComponentDiscriminator(latent_channels) for name in names}).to(device)
        super().__init__(nets, settings.lr)
        self.settings, self.factor = settings, factor
        self.balance = Balance(
            (settings.adversarial_share, settings.style_share), (settings.adversarial, settings.style), device
        )

    def step(self, accelerator: Any) -> None:
        """One step of the discriminators and of the balance."""
        super().step(accelerator)
        self.balance.step(accelerator)

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer and the balance's average."""
        return {**super().state_dict(), "balance": self.balance.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        super().load_state_dict(state)
        self.balance.average = state["balance"].to(self.balance.average.device)

    def judge(self, clean: torch.Tensor, estimate: torch.Tensor, boxes: torch.Tensor) -> Judged:
        """Equation 2 for latents (n, c, h, w), `clean` and estimated from noise; `boxes` (n, 3, 3) in latents.

        Computed in float32 whatever the autocast: differences of Gram matrices are small.
        """
        with exact(clean.device):
            parts = [self._judge(name, clean.float(), estimate.float(), boxes[:, i]) for i, name in enumerate(REGIONS)]
        return Judged(*(torch.stack(terms).sum(0) for terms in zip(*parts, strict=True)))

    def _judge(
        self, name: str, clean: torch.Tensor, estimate: torch.Tensor, boxes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        side = facial.side(name, self.factor) * self.settings.oversample
        mirror = name == "right_eye" and self.settings.share_eyes
        net = self.nets[name if name in self.nets else "eyes"]
        real = facial.region(clean, boxes, side, mirror)
        fake = facial.region(estimate, boxes, side, mirror)
        real_logits, *real_features = net(real)
        with frozen(net):
            fake_logits, *fake_features = net(fake)
        critic = facial.verdict(real_logits, net(fake.detach())[0])
        return (
            facial.adversarial(fake_logits),
            facial.style(tuple(fake_features), tuple(real_features)),
            critic,
        )


@contextmanager
def frozen(net: nn.Module) -> Iterator[None]:
    """Within the block `net` passes gradients on and gathers none."""
    parameters = [p for p in net.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
