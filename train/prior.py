"""Stage I: SDXL's U-Net becomes a face prior on captioned faces, by SDXL's own objective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from authface import sdxl
from authface.layout import write_family
from authface.models import Parts, load, pick_device, resolve
from authface.train.cache import Latents, Store, Texts, cache_latents, cache_texts
from authface.train.data import Batch, Draw, Faces, mirrored
from authface.train.loop import Outcome, fit
from authface.train.noise import Noise
from authface.train.picture import grid, sample
from authface.train.settings import PriorSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from authface.console import Console


@dataclass(frozen=True)
class PriorBatch(Batch):
    """`latents` (n, 4, h, w) in the U-Net's scale, `states` (n, 77, width) and `pooled` (n, width) of the prompts,
    `null_states` and `null_pooled` (1, ...) of the empty one."""

    latents: torch.Tensor
    states: torch.Tensor
    pooled: torch.Tensor
    null_states: torch.Tensor
    null_pooled: torch.Tensor


@dataclass
class PriorObjective:
    """Epsilon MSE over all timesteps, with prompts that are dropped for some of the images."""

    faces: Faces
    parts: Parts
    latents: Latents
    texts: Texts
    settings: PriorSettings

    @property
    def trained(self) -> torch.nn.Module:
        """The U-Net."""
        unet: torch.nn.Module = self.parts.unet
        return unet

    @property
    def count(self) -> int:
        """Faces in the dataset."""
        return len(self.faces)

    def batch(self, draws: Sequence[Draw]) -> PriorBatch:
        """Cached latents and prompts."""
        text, null = (
            self.texts.read([self.faces.prompt(draw.index, draw.flip) for draw in draws]),
            self.texts.read([""]),
        )
        latents = torch.stack([self.latents.read(draw.index, draw.flip) for draw in draws])
        ids = tuple(self.faces.id(draw.index) for draw in draws)
        return PriorBatch(ids, latents, text.states, text.pooled, null.states, null.pooled)

    def loss(self, model: torch.nn.Module, batch: PriorBatch, random: Noise) -> torch.Tensor:
        """Mean square of predicted less true noise (or velocity, by the scheduler's config)."""
        device = batch.latents.device
        n = len(batch.latents)
        noise = random.normal(*batch.latents.shape[1:]).to(device)
        timesteps = random.integers(self.parts.scheduler.config.num_train_timesteps).to(device)
        dropped = (random.uniform() < self.settings.prompt_dropout).to(device)
        states = torch.where(dropped[:, None, None], batch.null_states, batch.states)
        pooled = torch.where(dropped[:, None], batch.null_pooled, batch.pooled)
        noisy = self.parts.scheduler.add_noise(batch.latents, noise, timesteps)
        added = {"text_embeds": pooled, "time_ids": sdxl.time_ids(self.faces.size, n, batch.latents)}
        guess = model(noisy, timesteps, encoder_hidden_states=states, added_cond_kwargs=added).sample
        target = sdxl.loss_target(self.parts.scheduler, batch.latents, noise, timesteps)
        return torch.nn.functional.mse_loss(guess.float(), target)

    def picture(self) -> NDArray[np.uint8]:
        """One image for each of the first different prompts, in a row."""
        prompts = list(dict.fromkeys(self.faces.prompts))[: self.settings.validate_count]
        p, s = self.parts, self.settings
        made = sample(p.unet, p.vae, p.scheduler, self.texts.read(prompts), s.size, s.validate_steps)
        return grid([image[None] for image in made])

    def write(self, out: Path) -> None:
        """Save the U-Net; the rest of the family is the base's."""
        write_family(out, self.parts.folder, {"unet": self.parts.unet})


def train_prior(
    settings: PriorSettings, console: Console, device: str = "auto", seed: int = 0, limit: int = 0
) -> Outcome:
    """Stage I on `settings.dataset`, from the family `settings.model`; the family is written to `settings.out`."""
    source = resolve(settings.model)
    faces = Faces(settings.dataset, settings.size, limit)
    where = pick_device(device)
    store = Store(settings.cache or settings.out / "training" / "cache")
    prompts = [*faces.prompts, *(mirrored(prompt) for prompt in faces.prompts if settings.flip)]
    texts = cache_texts(prompts, source, where, store, console)
    parts = load(source, ["vae", "unet", "scheduler"], where, torch.float32)
    parts.vae.requires_grad_(False)
    latents = cache_latents(faces, source, parts.vae, store, settings.batch, console)
    if settings.gradient_checkpointing:
        parts.unet.enable_gradient_checkpointing()
    return fit(PriorObjective(faces, parts, latents, texts, settings), settings, console, where, seed, "prior")
