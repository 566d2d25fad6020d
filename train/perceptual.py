"""How alike two images look to a network that was trained on ImageNet: LPIPS with every channel alike."""

from __future__ import annotations

from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from authface.errors import AuthfaceError, UsageError, one_line


class Perceptual(nn.Module):
    """A frozen network of timm whose features at all its scales are compared.

    `weights` is a safetensors file; without it timm downloads what it knows. Raises UsageError for a name that timm
    has not, AuthfaceError for weights that cannot be had or do not fit.
    """

    def __init__(self, name: str, weights: str = "") -> None:
        import timm

        super().__init__()
        if not timm.is_model(name):
            raise UsageError(f"timm has no network {one_line(name)}: see timm.list_models()")
        try:
            self.network: Any = timm.create_model(name, pretrained=not weights)
            if weights:
                self.network.load_state_dict(load_file(weights))
        except (OSError, RuntimeError, SafetensorError) as error:
            where = one_line(weights) if weights else "the hub"
            raise AuthfaceError(
                f"weights of {name} from {where}: {one_line(error, 120)}; name a file, pixels.weights"
            ) from error
        told = self.network.pretrained_cfg
        self.mean, self.std = (torch.tensor(told[name]).view(3, 1, 1) for name in ("mean", "std"))
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Perceptual:
        """Stays as it is: its norms keep ImageNet's statistics."""
        return super().train(False)

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Of (n, 3, h, w) in -1..1, 64 px and more: one map a scale, every place's channels of unit length."""
        normal = ((images + 1) / 2 - self.mean.to(images)) / self.std.to(images)
        found: list[torch.Tensor] = self.network.forward_intermediates(normal, intermediates_only=True)
        return [functional.normalize(one, dim=1) for one in found]

    def forward(self, made: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """(n,) distances, 0..4, of images in -1..1, differentiable in `made` (Zhang et al. 2018, equation 1)."""
        with torch.no_grad():
            wanted = self.features(real)
        terms = [(a - b).square().sum(1).mean((1, 2)) for a, b in zip(self.features(made), wanted, strict=True)]
        return torch.stack(terms).mean(0)
