"""Stage II: a ControlNet learns to guide the frozen prior from a degraded face (equation 1 and the facial loss)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from authface.console import Console
from authface.devices import pick_device
from authface.errors import UsageError, one_line
from authface.faces.degrade import Degradation, Drawn, Mixture, degrade, mixture
from authface.faces.degrade import draw as draw_damage
from authface.faces.scan import Scan
from authface.models import sdxl
from authface.models.cleaner import Cleaner
from authface.models.families import Parts, check, fetch, load, resolve
from authface.models.layout import part_files, write_family
from authface.train.cache import Latents, TensorStore, cache_latents, cache_texts
from authface.train.damage import DegradedBatch, damages_on, together
from authface.train.data import Draw, FaceDataset, no_autocast, seeded, validation_faces
from authface.train.loop import TrainingResult, fit
from authface.train.losses.critic import FacialCritic, normalised_time, peak_weight, time_weight
from authface.train.losses.pixels import PixelTerms, random_squares, restored
from authface.train.objective import Loss, Noise, ValidationPicture, fidelity, grid, sample
from authface.train.settings import ControlNetSettings


@dataclass(frozen=True, kw_only=True)
class ControlBatch(DegradedBatch):
    """`latents` (n, c, h, w) of the clean faces in the U-Net's scale, `degraded` (n, 3, size, size) in 0..1; `boxes`
    (n, 3, 3) of eyes and mouth in latents for the facial loss, `clean` (n, 3, size, size) in -1..1 for losses on
    pixels; each None without its loss."""

    latents: torch.Tensor
    boxes: torch.Tensor | None = None
    clean: torch.Tensor | None = None


@dataclass
class ControlNetObjective:
    """E ||eps - eps_theta(z_t, t, c)||^2 + w(t) L_facial, with the empty prompt and c the degraded face.

    The prior's weights are frozen and its inputs need no gradient, so autograd keeps nothing of its down path:
    the graph begins where the ControlNet's residuals are added.
    """

    faces: FaceDataset
    parts: Parts
    latents: Latents
    null: sdxl.TextEmbedding
    degradation: Degradation | Scan | Mixture
    settings: ControlNetSettings
    seed: int
    critic: FacialCritic | None = None
    """The discriminators of the facial loss; None trains without."""
    pixels: PixelTerms | None = None
    """The losses on pixels; None trains without."""
    damages_later: bool = False
    """Whether a batch brings whole faces and their damage, for the device that it moves to: see `damages_on`."""

    @property
    def auxiliaries(self) -> tuple[FacialCritic | PixelTerms, ...]:
        """The discriminators that are trained beside the ControlNet."""
        return tuple(part for part in (self.critic, self.pixels) if part is not None)

    @property
    def trained(self) -> torch.nn.Module:
        """The ControlNet."""
        controlnet: torch.nn.Module = self.parts.controlnet
        return controlnet

    def batch(self, draws: Sequence[Draw]) -> ControlBatch:
        """Cached latents of the clean faces, and a new degradation of each for each pass over the dataset."""
        images = [self.faces.rgb(draw.index, draw.flip) for draw in draws]
        degraded, drawn = self._degraded(images, draws)
        latents = torch.stack([self.latents.read(draw.index, draw.flip) for draw in draws])
        boxes = None
        if self.critic is not None:
            pixels = np.stack([self.faces.boxes(draw.index, draw.flip) for draw in draws])
            boxes = torch.from_numpy(pixels * (latents.shape[-1] / self.faces.size))
        clean = None if self.pixels is None else sdxl.to_signed(np.stack(images))
        names = tuple(self.faces.id(draw.index) for draw in draws)
        return ControlBatch(names, latents=latents, degraded=degraded, drawn=drawn, boxes=boxes, clean=clean)

    def loss(self, model: torch.nn.Module, batch: ControlBatch, random: Noise, step: int) -> Loss:
        """Mean square of predicted less true noise (or velocity, by the scheduler's config), and the facial loss.

        Of a face noised from its degraded latents the error is weighted by 1 - abar, which makes it that of the
        estimated clean latents for a velocity: what is to be predicted grows without bound towards t = 0.
        """
        device = batch.latents.device
        scheduler = self.parts.scheduler
        condition = self._cleaned(batch.degraded)
        noise = random.normal(*batch.latents.shape[1:]).to(device)
        timesteps = random.integers(scheduler.config.num_train_timesteps).to(device)
        source = own = batch.latents
        begun = self._begun(random) if self.settings.from_degraded else torch.zeros(len(source), dtype=torch.bool)
        chosen = begun.to(device)
        if self.settings.from_degraded:
            own = self._encoded(condition)
            source = torch.where(chosen.view(-1, 1, 1, 1), own, source)
            timesteps = torch.where(chosen, (timesteps * self.settings.strength).long(), timesteps)
        weight = sdxl.snr_weight(scheduler, timesteps, self.settings.snr_gamma)
        weight = torch.where(chosen, 1 - scheduler.alphas_cumprod.to(device)[timesteps], weight)
        noisy = scheduler.add_noise(source, noise, timesteps)
        guess = self._predict(model, noisy, timesteps, condition)
        target = sdxl.loss_target(scheduler, batch.latents, noisy, timesteps)
        error = (sdxl.square_error(guess, target) * weight).mean()
        loss = Loss(error)
        if not self.auxiliaries:
            return loss
        loss = Loss(error, parts={"noise": error})
        estimate = sdxl.clean_estimate(scheduler, noisy, guess, timesteps)
        if self.critic is not None:
            loss = loss + self._facial_loss(error, guess, batch, estimate, timesteps, step)
        if self.pixels is not None:
            assert batch.clean is not None  # made where pixels are judged
            planes = tuple(plane[begun] for plane in (estimate, own, batch.clean, condition * 2 - 1))
            if patch := self.settings.pixels.patch:
                places = torch.stack([random.uniform(), random.uniform()], 1)[begun]
                planes = random_squares(places, patch // sdxl.spatial_factor(self.parts.vae), *planes)
            loss = loss + self._pixel_loss(error, guess, planes, step)
        return loss

    def _begun(self, random: Noise) -> torch.Tensor:
        """(n,) bool, on the CPU: which faces are noised from their degraded latents."""
        return random.uniform() < self.settings.from_degraded

    def _cleaned(self, degraded: torch.Tensor) -> torch.Tensor:
        """What the ControlNet sees of degraded faces (n, 3, size, size) in 0..1: by the cleaner, if there is one."""
        if self.parts.cleaner is None:
            return degraded
        with torch.no_grad():
            cleaned: torch.Tensor = Cleaner(self.parts.cleaner)(degraded * 2 - 1)
        return cleaned.clamp(-1, 1).add(1).div(2)

    def _encoded(self, degraded: torch.Tensor) -> torch.Tensor:
        """Latents of faces (n, 3, size, size) in 0..1, in float32 whatever the autocast."""
        with torch.no_grad(), no_autocast(degraded.device):
            return sdxl.encode(self.parts.vae.to(degraded.device), degraded.float() * 2 - 1)

    def _predict(
        self, model: torch.nn.Module, noisy: torch.Tensor, timesteps: torch.Tensor, degraded: torch.Tensor
    ) -> torch.Tensor:
        """The frozen prior's prediction, guided by the ControlNet."""
        n = len(noisy)
        states, pooled = self.null.states.expand(n, -1, -1), self.null.pooled.expand(n, -1)
        added = {"text_embeds": pooled, "time_ids": sdxl.time_ids(self.faces.size, n, noisy)}
        down, mid = model(
            noisy, timesteps, encoder_hidden_states=states, controlnet_cond=degraded,
            added_cond_kwargs=added, return_dict=False,
        )  # fmt: skip
        dtype = self.parts.unet.dtype
        guess: torch.Tensor = self.parts.unet(
            noisy.to(dtype), timesteps, encoder_hidden_states=states.to(dtype),
            added_cond_kwargs={"text_embeds": pooled.to(dtype), "time_ids": added["time_ids"]},
            down_block_additional_residuals=[residual.to(dtype) for residual in down],
            mid_block_additional_residual=mid.to(dtype),
        ).sample  # fmt: skip
        return guess

    def _facial_loss(
        self, error: torch.Tensor, guess: torch.Tensor, batch: ControlBatch, estimate: torch.Tensor,
        timesteps: torch.Tensor, step: int,
    ) -> Loss:  # fmt: skip
        """Equation 2, weighted by equation 3 and averaged over the whole batch."""
        assert self.critic is not None and batch.boxes is not None  # checked by loss
        s, balance = self.settings.facial, self.critic.balance
        weight = time_weight(normalised_time(timesteps, len(self.parts.scheduler.betas)), s).float()
        near = weight > s.cut * peak_weight(s)  # where no face is, each term is 0, and so is its gradient
        losses = self.critic.losses(batch.latents[near], estimate[near], batch.boxes[near])
        weight = weight[near] / len(timesteps)
        adversarial, style, critic = (
            (weight * term).sum() for term in (losses.adversarial, losses.style, losses.critic)
        )  # fmt: skip
        lambdas = balance.weights() * float(step >= s.start)
        shares = lambdas * balance.measure(guess, error, adversarial, style)
        parts = {
            "adversarial": adversarial, "style": style, "critic": critic,
            "adversarial_share": shares[0], "style_share": shares[1],
        }  # fmt: skip
        return Loss(lambdas[0] * adversarial + lambdas[1] * style, critic, parts)

    def _pixel_loss(
        self, error: torch.Tensor, guess: torch.Tensor, planes: tuple[torch.Tensor, ...], step: int
    ) -> Loss:
        """Losses on the pixels of the faces that began from the degraded ones, averaged over the whole batch.

        `planes`: their estimated latents, those of the degraded (cleaned) face, the clean and the cleaned face.
        """
        assert self.pixels is not None  # checked by loss
        estimate, own, clean, cleaned = planes
        vae = self.parts.vae.to(guess.device)  # pictures leave it on the CPU
        made = restored(vae, estimate) if self.parts.cleaner is None else restored(vae, estimate, cleaned, own)
        return self.pixels.loss(error, guess, made, clean, step)

    def picture(self) -> ValidationPicture:
        """Rows of degraded | restored | clean: the degradation of a face is the same in every picture."""
        held_out = validation_faces(self.faces.folder, self.faces.size, self.settings.validate_count)
        clean = np.stack([held_out.rgb(i) for i in range(len(held_out))])
        degraded = np.stack([degrade(rgb, (self.seed, i), self.degradation) for i, rgb in enumerate(clean)])
        p, s = self.parts, self.settings
        text = sdxl.TextEmbedding(self.null.states.expand(len(clean), -1, -1), self.null.pooled.expand(len(clean), -1))
        condition = self._cleaned(sdxl.to_unit(degraded).to(self.null.states.device))
        strength = s.strength if s.from_degraded else 1
        made = sample(p.unet, p.vae, p.scheduler, text, s.size, s.validate_steps, p.controlnet, condition, strength)
        return ValidationPicture(grid([degraded, made, clean]), fidelity(held_out, clean, made))

    def write(self, out: Path) -> None:
        """Save the ControlNet; the rest of the family is the prior's, its presets those of `begin_from`."""
        begun = fetch(resolve(name), ["controlnet"]) if (name := self.settings.begin_from) else None
        write_family(out, self.parts.folder, {"controlnet": self.parts.controlnet}, presets=begun)

    def _degraded(
        self, images: Sequence[NDArray[np.uint8]], draws: Sequence[Draw]
    ) -> tuple[torch.Tensor, tuple[Drawn, ...]]:
        """`degraded` and `drawn` of a batch."""
        seeds = [(self.seed, draw.epoch, draw.index, int(draw.flip)) for draw in draws]
        if self.damages_later:
            return together(images), tuple(draw_damage(seed, self.faces.size, self.degradation) for seed in seeds)
        made = [degrade(rgb, seed, self.degradation) for rgb, seed in zip(images, seeds, strict=True)]
        return sdxl.to_unit(np.stack(made)), ()


def train_controlnet(
    settings: ControlNetSettings, console: Console, device: str = "auto", seed: int = 0, limit: int = 0
) -> TrainingResult:
    """Stage II on `settings.dataset`, over the prior `settings.model`; the family is written to `settings.out`."""
    degradation = mixture(settings.degradation)
    if settings.model == ControlNetSettings().model and not Path(settings.model).is_dir():
        raise UsageError(
            f"there is no prior at {one_line(settings.model)}: run authface train prior first, or name a family,"
            " such as -O train.controlnet.model=sdxl"
        )
    source = resolve(settings.model)
    faces = FaceDataset(settings.dataset, settings.size, limit)
    where = pick_device(device)
    faces.prepare(where)
    store = TensorStore(settings.cache or settings.out / "training" / "cache")
    null = cache_texts([], source, where, store, console).read([""])
    cleaner = ["cleaner"] if part_files(fetch(source, ["cleaner"]), "cleaner") else []
    parts = load(source, ["vae", "unet", "scheduler", *cleaner], where, torch.float32)
    for frozen in (parts.vae, parts.unet, *([parts.cleaner] if cleaner else [])):
        frozen.requires_grad_(False)
    trained = _trained_controlnet(settings, parts)
    critic, factor = None, sdxl.spatial_factor(parts.vae)
    if settings.facial.weight != "off":
        _ = faces.regions  # reports missing columns before anything is encoded
        critic = FacialCritic(int(parts.vae.config.latent_channels), factor, settings.facial, where, seed)
        if settings.facial.start >= settings.steps:
            console.log(
                f"controlnet: the facial loss counts from step {settings.facial.start} on, this run has"
                f" {settings.steps}: lower train.controlnet.facial.start"
            )
    if settings.pixels.patch % factor:
        raise UsageError(
            f"train.controlnet.pixels.patch={settings.pixels.patch}: a multiple of the VAE's factor {factor}"
        )
    latents = cache_latents(faces, source, parts.vae, store, settings.batch, console)
    pixels = PixelTerms(settings.pixels, where, seed) if settings.pixels.on else None
    parts.vae.to(where if pixels else "cpu")  # pictures fetch it back
    parts.controlnet = init_controlnet(parts.unet, settings, seed, factor, trained)
    check(parts)
    if settings.half(where):  # only now: the ControlNet begins from the exact weights
        parts.unet.to(torch.bfloat16)
    if settings.channels_last is not False:
        parts.unet.to(memory_format=torch.channels_last)
    null = sdxl.TextEmbedding(null.states.to(where), null.pooled.to(where))
    objective = ControlNetObjective(
        faces, parts, latents, null, degradation, settings, seed, critic, pixels, damages_on(where)
    )
    built_on = dict.fromkeys(("vae", "unet", *cleaner), parts.folder)
    if settings.begin_from:
        built_on["controlnet"] = fetch(resolve(settings.begin_from), ["controlnet"])
    return fit(objective, settings, console, where, seed, "controlnet", built_on)


def init_controlnet(unet: Any, settings: ControlNetSettings, seed: int, factor: int, trained: Any = None) -> Any:
    """What is trained: a ControlNet that was `trained` before, or a copy of the prior's down path.

    With its zero convolutions the copy does not change the prior yet; `factor` is the VAE's. Checkpointing covers the
    frozen prior too: gradients cross its up path.
    """
    with seeded(seed):  # the layers that see the condition begin at random
        controlnet: Any = trained or sdxl.new_controlnet(unet, factor).float()
    controlnet.requires_grad_(True)
    if settings.gradient_checkpointing:
        for crossed in (controlnet, unet):
            crossed.enable_gradient_checkpointing()
    return controlnet


def _trained_controlnet(settings: ControlNetSettings, parts: Parts) -> Any:
    """The ControlNet of `settings.begin_from`, if it names a family. Raises AuthfaceError if it is not the prior's."""
    if not settings.begin_from:
        return None
    begun = load(resolve(settings.begin_from), ["controlnet"], parts.unet.device, torch.float32)
    begun.unet, begun.vae = parts.unet, parts.vae
    check(begun)
    return begun.controlnet
