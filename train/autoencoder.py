"""Training of a family's VAE in pixel space: `tiny` begins without one; SDXL's is taken as it is."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from authface.console import Console
from authface.devices import pick_device, rank
from authface.errors import UsageError
from authface.models import sdxl
from authface.models.families import ModelSource, load, make_tiny, resolve
from authface.models.layout import write_family
from authface.models.tiny import VAES
from authface.train.data import Batch, Draw, FaceDataset, validation_faces
from authface.train.distributed import barrier
from authface.train.loop import TrainingResult, fit
from authface.train.losses.critic import PixelCritic
from authface.train.objective import Loss, Noise, ValidationPicture, fidelity, grid
from authface.train.settings import AutoencoderSettings
from authface.train.state import RunFolder

TONE_SIDE = 16
"""Side of the squares whose means are tones, pixels."""
SCALE_FACES = 256
"""Faces that the scale of the latents is measured on."""


@dataclass(frozen=True)
class ImageBatch(Batch):
    """`images` (n, 3, h, w) in -1..1."""

    images: torch.Tensor


class RoundTrip(torch.nn.Module):
    """Encode and decode in one forward, which data parallelism needs."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, images: torch.Tensor, noise: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Reconstruction and raw latents; `noise` of the latents' shape samples the posterior, None takes its mean."""
        encoded = self.vae.encode(images)
        if not hasattr(encoded, "latent_dist"):
            latents = encoded.latents
        else:
            posterior = encoded.latent_dist
            latents = posterior.mean if noise is None else posterior.mean + posterior.std * noise
        return self.vae.decode(latents).sample, latents


@dataclass
class AutoencoderObjective:
    """L1 + MSE of the reconstruction, MSE of its tones, a weak pull of the latents, and a discriminator if set.

    The pull, to zero mean and unit deviation, takes the place of a VAE's KL term: stock pipelines scale latents and do
    not shift them, so the channels must be centred for the diffusion model that follows.
    """

    faces: FaceDataset
    base: Path
    trained: RoundTrip
    settings: AutoencoderSettings
    device: torch.device
    seed: int
    critic: PixelCritic | None = None

    @property
    def auxiliaries(self) -> tuple[PixelCritic, ...]:
        """The discriminator, if there is one."""
        return () if self.critic is None else (self.critic,)

    def batch(self, draws: Sequence[Draw]) -> ImageBatch:
        """Whole images, or one random patch of each."""
        images = [self._patch(self.faces.rgb(draw.index, draw.flip), draw) for draw in draws]
        return ImageBatch(tuple(self.faces.id(draw.index) for draw in draws), sdxl.to_signed(np.stack(images)))

    def loss(self, model: torch.nn.Module, batch: ImageBatch, random: Noise, step: int) -> Loss:
        """Mean |x - y| + mean (x - y)^2 over pixels in -1..1 + tones x mean (X - Y)^2 of tones + moments x pull."""
        vae, (height, width) = self.trained.vae, batch.images.shape[2:]
        factor = sdxl.spatial_factor(vae)
        noise = random.normal(int(vae.config.latent_channels), height // factor, width // factor)
        made, latents = model(batch.images, noise.to(self.device))
        error = made.float() - batch.images
        means, deviations = latents.float().mean((0, 2, 3)), latents.float().std((0, 2, 3))
        pull = means.square().mean() + (deviations - 1).square().mean()
        tones = functional.avg_pool2d(error, min(TONE_SIDE, height, width)).square().mean()
        rebuilt = error.abs().mean() + error.square().mean() + self.settings.tones * tones
        if self.critic is None:
            return Loss(rebuilt + self.settings.moments * pull)
        adversarial, critic = self.critic.losses(batch.images, made)
        parts = {"rebuilt": rebuilt, "adversarial": adversarial, "critic": critic}
        if step < self.settings.critic_start:
            return Loss(rebuilt + self.settings.moments * pull, critic, parts)
        return Loss(rebuilt + self.settings.adversarial * adversarial + self.settings.moments * pull, critic, parts)

    def picture(self) -> ValidationPicture:
        """Rows of clean | reconstructed."""
        held_out = validation_faces(self.faces.folder, self.faces.size, self.settings.validate_count)
        clean = np.stack([held_out.rgb(i) for i in range(len(held_out))])
        made = sdxl.to_rgb(
            torch.cat([self.trained(sdxl.to_signed(one[None]).to(self.device), None)[0] for one in clean])
        )
        return ValidationPicture(grid([clean, made]), fidelity(held_out, clean, made))

    def write(self, out: Path) -> None:
        """Save the VAE with the scale its latents now have."""
        if not self.settings.decoder_only:
            self.trained.vae.register_to_config(scaling_factor=1 / self._latent_rms())
        write_family(out, self.base, {"vae": self.trained.vae})

    def _latent_rms(self) -> float:
        """Root of the mean square of raw latents: about zero, since pipelines do not shift."""
        squares = [
            self.trained(sdxl.to_signed(self.faces.rgb(i)[None]).to(self.device), None)[1].float().square().mean()
            for i in range(min(SCALE_FACES, len(self.faces)))
        ]
        return float(torch.stack(squares).mean().sqrt())

    def _patch(self, rgb: NDArray[np.uint8], draw: Draw) -> NDArray[np.uint8]:
        side = self.settings.patch
        if not side:
            return rgb
        random = np.random.default_rng(np.random.SeedSequence((self.seed, draw.epoch, draw.index)))
        top, left = random.integers(0, rgb.shape[0] - side + 1, 2)
        return rgb[top : top + side, left : left + side]


def train_autoencoder(
    settings: AutoencoderSettings, console: Console, device: str = "auto", seed: int = 0, limit: int = 0
) -> TrainingResult:
    """Train the VAE of `settings.model` (`new`: a tiny family made now) and write the family to `settings.out`."""
    faces = FaceDataset(settings.dataset, settings.size, limit)
    where = pick_device(device)
    faces.prepare(where)
    if settings.model == "new":
        begin = settings.out / "training" / "new"
        if rank() == 0 and RunFolder(settings.out).newest_checkpoint() is None:
            shutil.rmtree(begin, ignore_errors=True)  # of a run that had other settings, and saved nothing
            make_tiny(begin, seed, settings.size, settings.prediction, vae=VAES[settings.vae])
        barrier(where)
        source = ModelSource("new", str(begin), True)
    else:
        source = resolve(settings.model)
    parts = load(source, ["vae"], where, torch.float32)
    if settings.patch % (factor := sdxl.spatial_factor(parts.vae)):
        raise UsageError(f"train.autoencoder.patch={settings.patch}: this VAE takes multiples of {factor} px, or 0")
    if settings.gradient_checkpointing:
        parts.vae.enable_gradient_checkpointing()
    if settings.decoder_only:
        parts.vae.encoder.requires_grad_(False)
        if parts.vae.config.get("use_quant_conv", False):
            parts.vae.quant_conv.requires_grad_(False)
    critic = PixelCritic(settings.critic_lr, where, seed) if settings.adversarial else None
    objective = AutoencoderObjective(faces, parts.folder, RoundTrip(parts.vae), settings, where, seed, critic)
    built_on = {} if settings.model == "new" else {"vae": parts.folder}
    return fit(objective, settings, console, where, seed, "autoencoder", built_on)
