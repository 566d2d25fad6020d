"""How alike two images look to a network that was trained on ImageNet: LPIPS with every channel alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from authface.errors import AuthfaceError, UsageError, one_line


def trained_network(name: str, weights: str = "") -> nn.Module:
    """timm's network `name` with the weights of a safetensors file; without it timm downloads what it knows.

    Raises UsageError for a name that timm has not, AuthfaceError for weights that cannot be had or do not fit.
    """
    import timm

    if not timm.is_model(name):
        raise UsageError(f"timm has no network {one_line(name)}: see timm.list_models()")
    try:
        network: nn.Module = timm.create_model(name, pretrained=not weights)
        if weights:
            network.load_state_dict(load_file(weights))
    except (OSError, RuntimeError, SafetensorError) as error:
        where = one_line(weights) if weights else "the hub"
        raise AuthfaceError(
            f"weights of {name} from {where}: {one_line(error, 120)}; name a file, pixels.weights"
        ) from error
    return network


class Perceptual(nn.Module):
    """A frozen network of timm whose features at all its scales are compared."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        told = network.pretrained_cfg
        self.mean, self.std = (torch.tensor(told[name]).view(3, 1, 1) for name in ("mean", "std"))
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Perceptual:
        """Stays as it is: its norms keep ImageNet's statistics."""
        return super().train(False)

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Of RGB (n, 3, h, w) in -1..1, 64 px and more: one (n, c, h', w') a scale, differentiable in the images."""
        normal = ((images + 1) / 2 - self.mean.to(images)) / self.std.to(images)
        found: list[torch.Tensor] = self.network.forward_intermediates(normal, intermediates_only=True)
        return found

    def forward(self, made: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """(n,) `distance` of images in -1..1, differentiable in `made`."""
        with torch.no_grad():
            wanted = self.features(real)
        return distance(self.features(made), wanted)


def distance(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> torch.Tensor:
    """(n,) distances in 0..4 of two sets of features: 0 for those of the same image.

    As LPIPS (Zhang et al. 2018, equation 1) with every channel alike: each place's features have unit length, their
    squared difference is averaged over places and over scales.
    """
    apart = [
        (functional.normalize(one, dim=1) - functional.normalize(other, dim=1)).square().sum(1).mean((1, 2))
        for one, other in zip(ours, theirs, strict=True)
    ]
    return torch.stack(apart).mean(0)
