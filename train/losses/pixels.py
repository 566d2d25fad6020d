"""Losses on pixels: a distance of features as LPIPS has it, a discriminator of fine detail, and how much there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from authface.errors import AuthfaceError, UsageError, first_line, one_line
from authface.models import sdxl
from authface.models.cleaner import high_pass
from authface.train.data import no_autocast
from authface.train.losses.critic import GradientBalance, PixelCritic
from authface.train.objective import Loss
from authface.train.settings import PixelSettings


def feature_network(settings: PixelSettings, device: torch.device) -> nn.Module:
    """The network whose features are compared, with its weights; on torch's meta device it has none to get."""
    if device.type != "meta":
        return trained_network(settings.network, settings.weights)
    import timm

    return named_network(timm, settings.network, pretrained=False)


def named_network(timm: Any, name: str, pretrained: bool) -> nn.Module:
    """timm's network of that name. Raises UsageError for one that timm has not."""
    if not timm.is_model(name):
        raise UsageError(f"timm has no network {one_line(name)}: see timm.list_models()")
    network: nn.Module = timm.create_model(name, pretrained=pretrained)
    return network


def trained_network(name: str, weights: str = "") -> nn.Module:
    """timm's network `name` with the weights of a safetensors file; without it timm downloads what it knows.

    Raises UsageError for a name that timm has not, AuthfaceError for weights that cannot be had or do not fit.
    """
    import timm

    try:
        network = named_network(timm, name, pretrained=not weights)
        if weights:
            network.load_state_dict(load_file(weights))
    except (OSError, RuntimeError, SafetensorError) as error:
        where = one_line(weights) if weights else "the hub"
        raise AuthfaceError(
            f"weights of {name} from {where}: {first_line(error, 120)}; name a file, pixels.weights"
        ) from error
    return network


class Perceptual(nn.Module):
    """A frozen network of timm whose features at all its scales are compared."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        config = network.pretrained_cfg
        self.mean, self.std = (torch.tensor(config[name]).view(3, 1, 1) for name in ("mean", "std"))
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


ENERGY_WINDOW = 16
"""Side of the windows whose energy of fine detail is compared, pixels."""
ENERGY_FLOOR = 0.25 / 127.5**2
"""Added to an energy, in -1..1 squared: half a level's, below which no eye sees detail."""


def energy_distance(made: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """(n,): mean difference of the logarithms of fine detail's energy, over windows and two bands of (n, c, h, w).

    Where detail itself is lost, how much of it there was can still be told from what is around it. Of a logarithm
    the absolute difference asks for the median of what there may be.
    """
    apart = [
        (ours - theirs).abs().mean((1, 2, 3))
        for ours, theirs in zip(log_energies(made), log_energies(real), strict=True)
    ]
    return torch.stack(apart).mean(0)


def log_energies(images: torch.Tensor) -> list[torch.Tensor]:
    """Of grey (n, c, h, w) in -1..1: the logarithm of each window's mean square, (n, 1, h', w') a band."""
    rest, found = images.mean(1, keepdim=True), []
    for sigma in (1.0, 2.0):
        blurred = rest - high_pass(rest, sigma)
        energy = functional.avg_pool2d((rest - blurred).square(), ENERGY_WINDOW, ENERGY_WINDOW // 2)
        found.append((energy + ENERGY_FLOOR).log())
        rest = blurred
    return found


@dataclass(frozen=True)
class PixelLosses:
    """Losses of a batch, scalars: three train the network, `critic` the discriminator; None if it saw nothing."""

    perceptual: torch.Tensor
    adversarial: torch.Tensor
    energy: torch.Tensor
    critic: torch.Tensor | None

    def times(self, factor: float) -> PixelLosses:
        """All of them, so many times."""
        critic = None if self.critic is None else self.critic * factor
        return PixelLosses(self.perceptual * factor, self.adversarial * factor, self.energy * factor, critic)


def restored(
    vae: Any, estimate: torch.Tensor, cleaned: torch.Tensor | None = None, own: torch.Tensor | None = None
) -> torch.Tensor:
    """Images (n, 3, h, w) of estimated clean latents in the U-Net's scale, about -1..1, in float32.

    They are decoded as autocast has it. With `cleaned` faces in -1..1 and their `own` latents it is they with what is
    fine in the difference to the latter decoded, as `restore` makes it.
    """
    made = sdxl.decode(vae, estimate)
    if cleaned is None or own is None:
        return made
    with torch.no_grad():
        decoded = sdxl.decode(vae, own)
    return cleaned.float() + high_pass(made - decoded)


def random_squares(places: torch.Tensor, side: int, *planes: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The same square of every face in each of `planes` (n, c, k h, k w), with a whole k of each plane's own.

    `places` (n, 2) in 0..1 say where the squares lie, from the top left to the bottom right; `side` is theirs in the
    first plane, whose k is 1.
    """
    height, width = planes[0].shape[-2:]
    tops, lefts = ((places[:, i] * (length - side + 1)).long().tolist() for i, length in ((0, height), (1, width)))
    cut = []
    for plane in planes:
        k = plane.shape[-1] // width
        corners = zip(plane, tops, lefts, strict=True)
        squares = [one[:, k * y : k * (y + side), k * x : k * (x + side)] for one, y, x in corners]
        cut.append(torch.stack(squares) if squares else plane[..., : k * side, : k * side])
    return tuple(cut)


class PixelTerms:
    """A network of features, a discriminator of fine detail, the energy of that, and how much each counts."""

    def __init__(self, settings: PixelSettings, device: torch.device, seed: int) -> None:
        self.settings = settings
        self.perceptual = None
        if settings.perceptual:
            self.perceptual = Perceptual(feature_network(settings, device)).to(device)
        self.critic = PixelCritic(settings.lr, device, seed) if settings.adversarial else None
        # Before a gradient was measured, about what their shares come to.
        self.balance = GradientBalance(
            (settings.perceptual, settings.adversarial, settings.energy), (0.1, 0.01, 0.03), device
        )

    def losses(self, made: torch.Tensor, real: torch.Tensor, weights: torch.Tensor | None = None) -> PixelLosses:
        """Images (n, 3, h, w) in -1..1, restored and true, in float32 whatever the autocast.

        `weights` (n,) say how much each counts, but for the discriminator; all alike without.
        """
        zero = made.new_zeros(())
        if not len(made):
            return PixelLosses(zero, zero, zero, None)
        weights = torch.ones(len(made), device=made.device) if weights is None else weights
        with no_autocast(made.device):
            near = zero if self.perceptual is None else (self.perceptual(made, real) * weights).mean()
            energy = (energy_distance(made, real) * weights).mean() if self.settings.energy else zero
            judged, critic = (zero, None) if self.critic is None else self.critic.losses(real, made, weights)
            return PixelLosses(near, judged, energy, critic)

    def loss(
        self,
        main: torch.Tensor,
        predicted: torch.Tensor,
        made: torch.Tensor,
        real: torch.Tensor,
        step: int,
        weights: torch.Tensor | None = None,
    ) -> Loss:
        """The losses of `made`, weighted by their shares of the gradient that the scalar `main` has at `predicted`.

        `made` are those of the faces in `predicted` that are judged: each counts as one of all of them, so that a
        batch in pieces, on several processes or after each other, is the batch as a whole.
        """
        judged = len(made) / len(predicted)
        losses = self.losses(made, real, weights).times(judged)
        lambdas = self.balance.weights()
        if step < self.settings.start:
            lambdas = lambdas * torch.tensor([1.0, 0.0, 1.0], device=lambdas.device)
        shares = lambdas * self.balance.measure(predicted, main, losses.perceptual, losses.adversarial, losses.energy)
        parts = {
            "perceptual": losses.perceptual, "texture": losses.adversarial,
            "pixel_critic": torch.zeros_like(main) if losses.critic is None else losses.critic,
            "energy": losses.energy,
            "perceptual_share": shares[0], "texture_share": shares[1], "energy_share": shares[2],
        }  # fmt: skip
        terms = torch.stack([losses.perceptual, losses.adversarial, losses.energy])
        return Loss((lambdas * terms).sum(), losses.critic, parts)

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
        average = state["balance"].to(self.balance.average.device)
        missing = len(self.balance.average) - len(average)  # terms that an earlier version did not have
        self.balance.average = functional.pad(average, (0, missing))
