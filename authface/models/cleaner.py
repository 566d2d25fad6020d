"""A family's cleaner: a network in pixels that takes damage off a face, and adds nothing that is not in it.

It is the regression before the generation, as DiffBIR (Lin et al. 2023) and PMRF (Ohayon et al. 2025) have it: trained
on the distance of pixels alone, it tends to the mean of all faces that fit the damaged one. One that was trained for it
(`train.cleaner.pixels`) goes on from there along the curve of distortion against perception (Blau and Michaeli 2018):
the network's timestep says how far. It has convolutions and group norms only, so it works at any size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from authface.models import graphs
from authface.models.graphs import FINE, Planes
from authface.models.tiny import CLEANER_CHANNELS

FOLD = 2
"""Pixels a side that are laid into one place's channels before the network, and back after it."""
PERCEPTION_STEPS = 1000
"""The network's timestep at a perception of 1."""


def make_cleaner(seed: int, channels: Sequence[int] = CLEANER_CHANNELS) -> Any:
    """A new cleaner, a diffusers.UNet2DModel without attention whose last layer is 0: it leaves faces as they are."""
    from diffusers import UNet2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = UNet2DModel(
            in_channels=3 * FOLD**2,
            out_channels=3 * FOLD**2,
            block_out_channels=tuple(channels),
            layers_per_block=1,
            down_block_types=("DownBlock2D",) * len(channels),
            up_block_types=("UpBlock2D",) * len(channels),
            norm_num_groups=8,
            add_attention=False,
        )
    nn.init.zeros_(net.conv_out.weight)
    nn.init.zeros_(net.conv_out.bias)
    return net


class Cleaner(nn.Module):
    """x + f(x, p) for faces x, where f is the network `net` on folded pixels, at the timestep of the perception p."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, images: torch.Tensor, perception: torch.Tensor | float = 0.0, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(n, 3, h, w) in -1..1, cleaned: the same shape, float32, about -1..1. Sides of any length.

        `perception` 0..1, one or (n,): 0 is nearest to the truth on average, 1 looks most like a photo; only a network
        trained so knows more than 0. `noise` (n, 1, h, w), standard normal, is what a network that takes it makes
        texture of, times the perception; without it, texture is left out.
        """
        height, width = images.shape[2:]
        multiple = FOLD * 2 ** (len(self.net.config.block_out_channels) - 1)
        planes = images
        if takes_noise(self.net):
            plane = torch.zeros_like(images[:, :1]) if noise is None else noise * _each(perception)
            planes = torch.cat([images, plane], 1)
        given = functional.pad(planes, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        folded = functional.pixel_unshuffle(given, FOLD)
        moved = self.net(folded.to(self.net.dtype), perception * PERCEPTION_STEPS).sample
        residual = functional.pixel_shuffle(moved.float(), FOLD)[..., :height, :width]
        return images.float() + residual


def takes_noise(net: Any) -> bool:
    """Whether the network is given a plane of noise beside the face."""
    return int(net.config.in_channels) > 3 * FOLD**2


def with_noise(net: Any) -> Any:
    """The network that takes a plane of noise beside the face, and so far ignores it; itself if it does."""
    from diffusers import UNet2DModel

    if takes_noise(net):
        return net
    with torch.random.fork_rng(devices=[]):  # its random weights are replaced: the caller's numbers stay as they are
        wider = UNet2DModel.from_config({**net.config, "in_channels": 4 * FOLD**2})
    weights = net.state_dict()
    first = weights["conv_in.weight"]
    weights["conv_in.weight"] = torch.cat([first, first.new_zeros(len(first), FOLD**2, *first.shape[2:])], 1)
    wider.load_state_dict(weights)
    return wider


def _each(perception: torch.Tensor | float) -> torch.Tensor | float:
    """To be multiplied with (n, c, h, w)."""
    return perception.view(-1, 1, 1, 1) if isinstance(perception, torch.Tensor) else perception


def high_pass(images: torch.Tensor, sigma: float = FINE) -> torch.Tensor:
    """(n, c, h, w) less its Gaussian blur of `sigma` pixels; beyond the border the nearest pixel goes on."""
    reach = math.ceil(3 * sigma)
    place = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    taps = torch.exp(-0.5 * (place / sigma) ** 2)
    taps = (taps / taps.sum()).expand(images.shape[1], 1, -1)
    padded = functional.pad(images, (reach, reach, reach, reach), mode="replicate")
    across = functional.conv2d(padded, taps[:, :, None], groups=len(taps))
    return images - functional.conv2d(across, taps[..., None], groups=len(taps))


def clean(
    cleaner: Cleaner,
    rgb: NDArray[np.uint8],
    device: torch.device,
    perception: float = 0.0,
    seed: int = 0,
    on_pass: Callable[[], None] | None = None,
) -> NDArray[np.float32]:
    """One (h, w, 3) uint8 face, cleaned at its own resolution: levels, about 0..255, not rounded.

    `perception` 0..1 is the cleaner's; `seed` that of the noise that texture is made of. `on_pass` is that of
    `graphs.clean`.
    """

    def network(planes: Planes) -> Planes:
        with torch.inference_mode():
            given = torch.from_numpy(planes).to(device)
            noise = given[:, 3:] if textured else None
            done: Planes = cleaner(given[:, :3], perception, noise).cpu().numpy()
        return done

    textured = perception > 0 and takes_noise(cleaner.net)
    return graphs.clean(network, rgb, seed if textured else None, on_pass)
