"""The time-aware latent facial feature loss (AuthFace, equations 2 and 3) as pure functions.

Equation 2 compares eyes and mouth of the estimated clean latent with those of the true one, by discriminators and the
Gram matrices of their features; equation 3 weights that by the timestep, since at high noise there is no face yet and
at low noise its features are settled. The paper's page with both is known from its other pages and its ablations:
where a choice is ours, it says so.
"""

from __future__ import annotations

import functools
import math

import torch
from torch.nn import functional

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
