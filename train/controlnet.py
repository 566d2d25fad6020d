"""Stage II: a ControlNet learns to lead the frozen prior from a degraded face (equation 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from authface import sdxl
from authface.degrade import Degradation, degrade, preset
from authface.errors import UsageError, one_line
from authface.layout import write_family
from authface.models import Parts, check, load, pick_device, resolve
from authface.train.cache import Latents, Store, cache_latents, cache_texts
from authface.train.data import Batch, Draw, Faces
from authface.train.loop import Outcome, fit
from authface.train.noise import Noise
from authface.train.picture import grid, sample
from authface.train.settings import ControlNetSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from authface.console import Console


@dataclass(frozen=True)
class ControlBatch(Batch):
    """`latents` (n, 4, h, w) of the clean faces in the U-Net's scale, `degraded` (n, 3, size, size) in 0..1."""

    latents: torch.Tensor
    degraded: torch.Tensor


@dataclass
class ControlNetObjective:
    """Equation 1: E ||eps - eps_theta(z_t, t, c)||^2 with the empty prompt and c the degraded face.

    The prior's weights are frozen and its inputs need no gradient, so autograd keeps nothing of its down path:
    the graph begins where the ControlNet's residuals are added.
    """

    faces: Faces
    parts: Parts
    latents: Latents
    null: sdxl.TextEmbedding
    degradation: Degradation
    settings: ControlNetSettings
    seed: int

    @property
    def trained(self) -> torch.nn.Module:
        """The ControlNet."""
        controlnet: torch.nn.Module = self.parts.controlnet
        return controlnet

    @property
    def count(self) -> int:
        """Faces in the dataset."""
        return len(self.faces)

    def batch(self, draws: Sequence[Draw]) -> ControlBatch:
        """Cached latents of the clean faces, and a new degradation of each for each pass over the dataset."""
        degraded = np.stack([self._degraded(draw) for draw in draws])
        latents = torch.stack([self.latents.read(draw.index, draw.flip) for draw in draws])
        return ControlBatch(tuple(self.faces.id(draw.index) for draw in draws), latents, sdxl.to_unit(degraded))

    def loss(self, model: torch.nn.Module, batch: ControlBatch, random: Noise) -> torch.Tensor:
        """Mean square of predicted less true noise (or velocity, by the scheduler's config)."""
        device = batch.latents.device
        n = len(batch.latents)
        noise = random.normal(*batch.latents.shape[1:]).to(device)
        timesteps = random.integers(self.parts.scheduler.config.num_train_timesteps).to(device)
        noisy = self.parts.scheduler.add_noise(batch.latents, noise, timesteps)
        states, pooled = self.null.states.expand(n, -1, -1), self.null.pooled.expand(n, -1)
        added = {"text_embeds": pooled, "time_ids": sdxl.time_ids(self.faces.size, n, batch.latents)}
        down, mid = model(
            noisy, timesteps, encoder_hidden_states=states, controlnet_cond=batch.degraded,
            added_cond_kwargs=added, return_dict=False,
        )  # fmt: skip
        dtype = self.parts.unet.dtype
        guess = self.parts.unet(
            noisy.to(dtype), timesteps, encoder_hidden_states=states.to(dtype),
            added_cond_kwargs={"text_embeds": pooled.to(dtype), "time_ids": added["time_ids"]},
            down_block_additional_residuals=[residual.to(dtype) for residual in down],
            mid_block_additional_residual=mid.to(dtype),
        ).sample  # fmt: skip
        target = sdxl.loss_target(self.parts.scheduler, batch.latents, noise, timesteps)
        return torch.nn.functional.mse_loss(guess.float(), target)

    def picture(self) -> NDArray[np.uint8]:
        """Rows of degraded | restored | clean: the degradation of a face is the same in every picture."""
        shown = range(min(self.settings.validate_count, self.count))
        clean = np.stack([self.faces.rgb(i) for i in shown])
        degraded = np.stack([degrade(clean[i], (self.seed, i), self.degradation) for i in shown])
        p, s = self.parts, self.settings
        text = sdxl.TextEmbedding(self.null.states.expand(len(clean), -1, -1), self.null.pooled.expand(len(clean), -1))
        condition = sdxl.to_unit(degraded)
        made = sample(p.unet, p.vae, p.scheduler, text, s.size, s.validate_steps, p.controlnet, condition)
        return grid([degraded, made, clean])

    def write(self, out: Path) -> None:
        """Save the ControlNet; the rest of the family is the prior's."""
        write_family(out, self.parts.folder, {"controlnet": self.parts.controlnet})

    def _degraded(self, draw: Draw) -> NDArray[np.uint8]:
        rgb = self.faces.rgb(draw.index, draw.flip)
        return degrade(rgb, (self.seed, draw.epoch, draw.index, int(draw.flip)), self.degradation)


def train_controlnet(
    settings: ControlNetSettings, console: Console, device: str = "auto", seed: int = 0, limit: int = 0
) -> Outcome:
    """Stage II on `settings.dataset`, over the prior `settings.model`; the family is written to `settings.out`."""
    degradation = preset(settings.degradation)
    if settings.model == ControlNetSettings().model and not Path(settings.model).is_dir():
        raise UsageError(
            f"there is no prior at {one_line(settings.model)}: run authface train prior first, or name a family,"
            " such as -O train.controlnet.model=sdxl"
        )
    source = resolve(settings.model)
    faces = Faces(settings.dataset, settings.size, limit)
    where = pick_device(device)
    store = Store(settings.cache or settings.out / "training" / "cache")
    null = cache_texts([], source, where, store, console).read([""])
    half = settings.precision == "bf16" or (settings.precision == "auto" and where.type == "cuda")
    parts = load(source, ["vae", "unet", "scheduler"], where, torch.float32)
    latents = cache_latents(faces, source, parts.vae, store, settings.batch, console)
    for frozen in (parts.vae, parts.unet):
        frozen.requires_grad_(False)
    parts.controlnet = _begin(parts.unet, settings, seed)
    check(parts)
    if half:  # only now: the ControlNet begins from the exact weights
        parts.unet.to(torch.bfloat16)
    null = sdxl.TextEmbedding(null.states.to(where), null.pooled.to(where))
    objective = ControlNetObjective(faces, parts, latents, null, degradation, settings, seed)
    return fit(objective, settings, console, where, seed, "controlnet")


def _begin(unet: Any, settings: ControlNetSettings, seed: int) -> Any:
    """A ControlNet that copies the prior's down path and, with zero convolutions, does not change it yet."""
    from diffusers import ControlNetModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of the layers that read the degraded face: the same in every process
        controlnet = ControlNetModel.from_unet(unet).float()
    controlnet.requires_grad_(True)
    if settings.gradient_checkpointing:
        controlnet.enable_gradient_checkpointing()
    return controlnet
