"""A family whose latents have more channels, and which does what it did: training then goes on from there.

    python benchmarks/widen.py FAMILY OUT --channels 16

The VAE's new channels hold random features that its decoder does not hear yet; U-Net and ControlNet do not hear them
either, and the U-Net says 0 of them. What the family learned stays, where a new VAE would have all of it learned anew.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from authface.models.families import load, resolve
from authface.models.layout import write_family

QUIET = -10.0
"""Logarithm of the variance that new channels have: samples are their mean, as with a trained VAE."""

Weights = Mapping[str, torch.Tensor]


def widened(model: Any, channels: int) -> Any:
    """`model` (a VAE, U-Net or ControlNet) with so many latent channels, more than it has."""
    config = dict(model.config)
    names = ["latent_channels"] if "latent_channels" in config else ["in_channels", "out_channels"]
    changed = {name: channels for name in names if name in config}
    before = int(config[names[0]])
    made = type(model).from_config(config | changed)
    made.load_state_dict(placed(model.state_dict(), made.state_dict(), before, channels))
    return made


def placed(old: Weights, new: Weights, before: int, after: int) -> dict[str, torch.Tensor]:
    """The `new` model's weights with the `old` ones at their places, and what makes them say the same."""
    moments = [*range(before), *range(after, after + before)]
    weights = {name: start(name, weight, after) for name, weight in new.items()}
    for name, weight in old.items():
        sizes = zip(weight.shape, weights[name].shape, strict=True)
        places = [moments if wider == 2 * after != size else range(size) for size, wider in sizes]
        weights[name][np.ix_(*places)] = weight
    return weights


def start(name: str, weight: torch.Tensor, channels: int) -> torch.Tensor:
    """What a layer's new entries begin with: random features of the encoder, an identity between, else 0."""
    if name == "encoder.conv_out.weight":
        return torch.cat([weight[:channels], torch.zeros_like(weight[channels:])])
    if name == "encoder.conv_out.bias":
        return torch.cat([torch.zeros(channels), torch.full((channels,), QUIET)])
    if name in ("quant_conv.weight", "post_quant_conv.weight"):
        return torch.eye(len(weight))[:, :, None, None]
    return torch.zeros_like(weight)


def widen(family: str, out: Path, channels: int, seed: int = 0) -> None:
    """Write `family` with so many latent channels to `out`. Ends the program where it has as many already."""
    torch.manual_seed(seed)
    names = ("vae", "unet", "controlnet")
    parts = load(resolve(family), names, "cpu", torch.float32)
    if (before := int(parts.vae.config.latent_channels)) >= channels:
        sys.exit(f"{channels} channels: {family} has {before}; ask for more")
    changed = {name: widened(getattr(parts, name), channels) for name in names}
    write_family(out, parts.folder, changed, presets=parts.folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family")
    parser.add_argument("out", type=Path)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    widen(options.family, options.out, options.channels, options.seed)


if __name__ == "__main__":
    main()
