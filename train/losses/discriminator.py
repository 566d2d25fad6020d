"""Discriminators of StyleGAN2's layers: GFP-GAN's of a facial component, over latents, and one of pixels."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

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
