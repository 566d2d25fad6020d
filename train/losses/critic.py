"""The facial loss and discriminators trained beside a network, with their optimizer, and the weights of such losses.

The networks have StyleGAN2's layers; that of a facial component is GFP-GAN's, over latents.

Equation 2 of AuthFace compares eyes and mouth of the estimated clean latent with those of the true one, by
discriminators and the Gram matrices of their features; equation 3 weights that by the timestep, since at high noise
there is no face yet and at low noise its features are settled. The paper's page with both is known from its other pages
and its ablations: where a choice is ours, it says so.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from authface.train.data import REGIONS, no_autocast, seeded
from authface.train.settings import FacialSettings

EYE_SIDE, MOUTH_SIDE = 80, 120
"""Pixels a side of a region of a 512 px face (GFP-GAN)."""
STYLE_WEIGHTS = (0.5, 1.0)
"""Of the two feature maps in the style term (GFP-GAN)."""


def normalised_time(timesteps: torch.Tensor, count: int) -> torch.Tensor:
    """Timesteps 0..count - 1 as t in (0, 1), 1 is pure noise: (k + 1/2) / count, so that logit t is finite."""
    return (timesteps.double() + 0.5) / count


def time_weight(t: torch.Tensor, settings: FacialSettings) -> torch.Tensor:
    """w(t) of equation 3 for t in (0, 1): a Gaussian of logit t, float64.

    exp(-(logit t - m)^2 / 2 s^2) / (s sqrt(2 pi)), which peaks at t = sigmoid(m): 0.3775 for m = -0.5, the 0.37 that
    the paper's appendix names. `jacobian` divides by t (1 - t): the density of a logit-normal t, as SD3 has it. `norm`
    scales by the peak, or by the mean over t. `constant` and `off` are the paper's ablations.
    """
    t = t.double()
    if settings.weight != "time":
        return torch.full_like(t, settings.constant if settings.weight == "constant" else 0.0)
    return _gaussian(t, settings) / _scale(settings)


@functools.cache
def peak_weight(settings: FacialSettings) -> float:
    """The largest w(t)."""
    if settings.weight != "time":
        return settings.constant if settings.weight == "constant" else 0.0
    return float(time_weight(_grid(), settings).max())


def _gaussian(t: torch.Tensor, settings: FacialSettings) -> torch.Tensor:
    distance = (torch.logit(t) - settings.m) / settings.s
    weight = torch.exp(-0.5 * distance.square()) / (settings.s * math.sqrt(2 * math.pi))
    return weight / (t * (1 - t)) if settings.jacobian else weight


def _grid() -> torch.Tensor:
    return (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000


@functools.cache
def _scale(settings: FacialSettings) -> float:
    if settings.norm == "pdf":
        return 1.0
    weights = _gaussian(_grid(), settings)
    return float(weights.max() if settings.norm == "peak" else weights.mean())


def region_side(name: str, factor: int) -> int:
    """Samples a side of a region of latents `factor` times smaller than the image: GFP-GAN's over the VAE's factor."""
    return (MOUTH_SIDE if name == "mouth" else EYE_SIDE) // factor


def crop_region(latents: torch.Tensor, boxes: torch.Tensor, side: int, mirror: bool = False) -> torch.Tensor:
    """(n, c, side, side) float32: one square of each of n latents (n, c, h, w), sampled bilinearly (ROI-align).

    `boxes` (n, 3): centre x, centre y and half side in latents, where the first latent's middle is at 0.5, 0.5.
    `mirror` turns it left to right, by which a right eye is seen as a left one.
    """
    from torchvision.ops import roi_align

    x, y, half = boxes.float().unbind(1)
    numbers = torch.arange(len(boxes), device=boxes.device, dtype=torch.float32)
    corners = torch.stack([numbers, x - half, y - half, x + half, y + half], dim=1)
    found: torch.Tensor = roi_align(latents.float(), corners, (side, side), sampling_ratio=2, aligned=True)
    return found.flip(-1) if mirror else found


def gram(features: torch.Tensor) -> torch.Tensor:
    """(n, c, c): F F^T / (c h w) of (n, c, h, w) features (Gatys et al. 2016, scaled as in GFP-GAN)."""
    n, c, h, w = features.shape
    flat = features.reshape(n, c, h * w)
    return flat @ flat.transpose(1, 2) / (c * h * w)


def generator_loss(logits: torch.Tensor) -> torch.Tensor:
    """(n,): the generator's non-saturating loss, mean of softplus(-D(fake)) over the logits of each region."""
    return functional.softplus(-logits).flatten(1).mean(1)


def style_loss(fake: tuple[torch.Tensor, ...], real: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """(n,): mean absolute difference of the Gram matrices of fake and real features, weighted by `STYLE_WEIGHTS`."""
    terms = [
        weight * (gram(a) - gram(b.detach())).abs().flatten(1).mean(1)
        for weight, a, b in zip(STYLE_WEIGHTS, fake, real, strict=True)
    ]
    return torch.stack(terms).sum(0)


def discriminator_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """(n,): the discriminator's loss, softplus(-D(real)) + softplus(D(fake))."""
    return functional.softplus(-real).flatten(1).mean(1) + functional.softplus(fake).flatten(1).mean(1)


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

        All are scalars of one batch; their squares are gathered for `step`. A term that nothing led to, as one that
        is off, has no gradient.
        """
        with no_autocast(guess.device):
            squares = torch.stack([
                torch.autograd.grad(term, guess, retain_graph=True)[0].float().square().sum()
                if term.requires_grad
                else torch.zeros((), device=guess.device)
                for term in (noise, *terms)
            ])  # fmt: skip
        self.gathered = self.gathered + squares
        return (squares[1:] / squares[0]).sqrt()

    def step(self, accelerator: Any) -> None:
        """Move the average by what was gathered since the last step, on all processes."""
        if accelerator.num_processes > 1:
            self.gathered = accelerator.reduce(self.gathered, "sum")
        self.average = self.average.lerp(self.gathered, 1 / STEPS)  # from 0: what is missing cancels in a ratio
        self.gathered = torch.zeros_like(self.gathered)


BETAS = (0.9, 0.99)
"""Of the discriminators' Adam (GFP-GAN)."""

SLOPE = 0.2
"""Of the leaky ReLU; its output is scaled by sqrt 2, as in StyleGAN2."""
TAPS = (1.0, 3.0, 3.0, 1.0)
"""StyleGAN2's low pass before a layer that halves the side."""

DETAIL_GAIN = 12.0
"""What brings the fine detail of faces, of a deviation of 0.037 in -1..1, near the scale of a layer's input."""


class EqualConv(nn.Module):
    """3 x 3 convolution with StyleGAN2's equalised learning rate, then a scaled leaky ReLU unless it is the last.

    Weights are drawn from N(0, 1) and scaled by 1 / sqrt(fan in) at use, so that Adam moves all layers alike.
    `halve` blurs with `TAPS` and takes every second place: (n, c, h, w) -> (n, out, ceil(h / 2), ceil(w / 2)).
    """

    def __init__(self, channels: int, out: int, *, halve: bool = False, last: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out))
        self.scale = 1 / math.sqrt(channels * 9)
        self.halve, self.last = halve, last
        taps = torch.tensor(TAPS)
        self.register_buffer("blur", (taps[:, None] * taps / taps.sum() ** 2)[None, None], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Filtered features."""
        weight = self.weight * self.scale
        if self.halve:
            channels = x.shape[1]
            assert isinstance(self.blur, torch.Tensor)  # registered above
            x = functional.conv2d(functional.pad(x, (1, 2, 1, 2)), self.blur.expand(channels, 1, 4, 4), groups=channels)
        x = functional.conv2d(x, weight, self.bias, stride=2 if self.halve else 1, padding=1)
        return x if self.last else functional.leaky_relu(x, SLOPE) * math.sqrt(2)


class ComponentDiscriminator(nn.Module):
    """Says of an eye or a mouth whether it is real: six layers, two of which halve the side; 1.11 M weights.

    GFP-GAN's (Wang et al. 2021), over latents instead of pixels.
    A region of 10 x 10 latents gives feature maps of 5 x 5 x 128 and 3 x 3 x 256 and 3 x 3 logits.
    """

    def __init__(self, latent_channels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            EqualConv(latent_channels, 64), EqualConv(64, 128, halve=True), EqualConv(128, 128)
        )  # fmt: skip
        self.second = nn.Sequential(EqualConv(128, 256, halve=True), EqualConv(256, 256))
        self.verdict = EqualConv(256, 1, last=True)

    def forward(self, region: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits (n, 1, h, w) of (n, c, side, side) latents, positive for real, and both feature maps."""
        first = self.first(region)
        second = self.second(first)
        return self.verdict(second), first, second


class PatchDiscriminator(nn.Module):
    """Says of every fourth place of an image whether its fine detail is real, from some 30 px around; 0.29 M weights.

    Logits (n, 1, h / 4, w / 4) of (n, 3, h, w) in -1..1, positive for real (Isola et al. 2017). It is shown what a
    5 x 5 binomial blur takes away, `DETAIL_GAIN` times: beside the picture itself skin's texture is too faint to learn
    from, and the coarse tones are the reconstruction's.
    """

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor((1.0, 4.0, 6.0, 4.0, 1.0))
        self.register_buffer("blur", (taps[:, None] * taps / taps.sum() ** 2).expand(3, 1, 5, 5), persistent=False)
        self.layers = nn.Sequential(
            EqualConv(3, 24), EqualConv(24, 48, halve=True), EqualConv(48, 48), EqualConv(48, 96, halve=True),
            EqualConv(96, 96), EqualConv(96, 96), EqualConv(96, 1, last=True),
        )  # fmt: skip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of the places of `images`."""
        assert isinstance(self.blur, torch.Tensor)  # registered above
        coarse = functional.conv2d(functional.pad(images, (2, 2, 2, 2), mode="reflect"), self.blur, groups=3)
        logits: torch.Tensor = self.layers((images - coarse) * DETAIL_GAIN)
        return logits


@dataclass(frozen=True)
class FacialLosses:
    """Equation 2 of n faces, before the weight of their timesteps. Each (n,) float32.

    `adversarial` and `style` are sums over the regions, without lambda; they train the ControlNet. `critic` trains
    the discriminators, which never see a gradient of the other two.
    """

    adversarial: torch.Tensor
    style: torch.Tensor
    critic: torch.Tensor


class Discriminators:
    """Networks trained beside the objective's module, in float32, with their optimizer."""

    def __init__(self, nets: nn.ModuleDict, lr: float) -> None:
        self.nets = nets
        self.optimizer = torch.optim.Adam(nets.parameters(), lr=lr, betas=BETAS)

    def step(self, accelerator: Any) -> None:
        """One step of the discriminators by the accumulated gradients, averaged over the processes."""
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
    """A discriminator of photos and decoded images, place by place."""

    def __init__(self, lr: float, device: torch.device, seed: int) -> None:
        with seeded(seed):
            nets = nn.ModuleDict({"pixels": PatchDiscriminator()}).to(device)
        super().__init__(nets, lr)

    def losses(
        self, real: torch.Tensor, fake: torch.Tensor, weights: torch.Tensor | float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The generator's loss and the discriminator's, scalars, for images (n, 3, h, w) in -1..1.

        `weights`, one or (n,), are those of the images in the generator's loss.
        """
        net = self.nets["pixels"]
        with no_autocast(real.device):
            with frozen(net):
                adversarial = (generator_loss(net(fake.float())) * weights).mean()
            return adversarial, discriminator_loss(net(real.float()), net(fake.detach().float())).mean()


class FacialCritic(Discriminators):
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
        self.balance = GradientBalance(
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

    def losses(self, clean: torch.Tensor, estimate: torch.Tensor, boxes: torch.Tensor) -> FacialLosses:
        """Equation 2 for latents (n, c, h, w), `clean` and estimated from noise; `boxes` (n, 3, 3) in latents.

        Computed in float32 whatever the autocast: differences of Gram matrices are small.
        """
        with no_autocast(clean.device):
            clean, estimate = clean.float(), estimate.float()
            parts = [self._region_losses(name, clean, estimate, boxes[:, i]) for i, name in enumerate(REGIONS)]
        return FacialLosses(*(torch.stack(terms).sum(0) for terms in zip(*parts, strict=True)))

    def _region_losses(
        self, name: str, clean: torch.Tensor, estimate: torch.Tensor, boxes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        side = region_side(name, self.factor) * self.settings.oversample
        mirror = name == "right_eye" and self.settings.share_eyes
        net = self.nets[name if name in self.nets else "eyes"]
        real = crop_region(clean, boxes, side, mirror)
        fake = crop_region(estimate, boxes, side, mirror)
        real_logits, *real_features = net(real)
        with frozen(net):
            fake_logits, *fake_features = net(fake)
        style = style_loss(tuple(fake_features), tuple(real_features))
        critic = discriminator_loss(real_logits, net(fake.detach())[0])
        return generator_loss(fake_logits), style, critic


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
