"""Both stages on torch's meta device: their own objectives, with shapes in place of faces, for an estimate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import torch

from authface.faces.degrade import mixture
from authface.models import sdxl
from authface.models.families import ModelSource, Parts
from authface.train.controlnet import ControlBatch, ControlNetObjective, init_controlnet
from authface.train.data import REGIONS
from authface.train.estimate.meta_pass import META, PassCost, count_pass
from authface.train.estimate.networks import Architecture
from authface.train.losses.critic import FacialCritic
from authface.train.objective import Loss, Noise
from authface.train.prior import PriorBatch, PriorObjective, add_adapters
from authface.train.settings import ControlNetSettings, DiffusionSettings, PriorSettings

TOKENS = 77


@dataclass
class MetaStage:
    """A stage that is ready on the meta device: `count()` counts one micro-batch."""

    trained: torch.nn.Module
    """What the loop trains, frozen weights within it included."""
    frozen: list[torch.nn.Module]
    """What else lies on the GPU."""
    parts: Parts
    encoding: int
    """Bytes of weights on the GPU while the faces are encoded, before any training."""
    count: Callable[[], PassCost]
    discriminators: list[torch.nn.Module] = field(default_factory=list)
    """They have an optimizer of their own."""


def meta_prior(settings: PriorSettings, architecture: Architecture, half: bool) -> MetaStage:
    """Stage I, as `train_prior` sets it up."""
    parts = architecture.parts(text=settings.train_text)
    encoding = size_of(*_loaded(parts))
    parts.vae.requires_grad_(False)
    if settings.lora_rank:
        with META:
            add_adapters(parts.unet, settings.lora_rank, settings.lora_alpha or settings.lora_rank, half)
    objective = PriorObjective(
        _faces(settings), parts, ModelSource("", "", True), cast(Any, None), None, (), settings
    )  # fmt: skip
    trained = objective.trained.train()

    def losses() -> list[torch.Tensor]:
        with META:
            batch = _prior_batch(settings, parts)
        return _totals(objective.loss(trained, batch, Noise(0, range(settings.batch)), 0))

    def counted() -> PassCost:
        return _count(settings, [trained], losses, half, [parts.unet])

    return MetaStage(trained, [], parts, encoding, counted)


def meta_controlnet(settings: ControlNetSettings, architecture: Architecture, half: bool) -> MetaStage:
    """Stage II, as `train_controlnet` sets it up."""
    parts = architecture.parts()
    encoding = size_of(*_loaded(parts))
    for frozen in (parts.vae, parts.unet):
        frozen.requires_grad_(False)
    factor = sdxl.spatial_factor(parts.vae)
    with META:
        parts.controlnet = init_controlnet(parts.unet, settings, 0, factor)
    critic = None
    if settings.facial.weight != "off":
        critic = FacialCritic(int(parts.vae.config["latent_channels"]), factor, settings.facial, META, 0)
    if half:
        parts.unet.to(torch.bfloat16)
    config: Any = parts.unet.config
    with META:
        null = sdxl.TextEmbedding(torch.empty(1, TOKENS, config.cross_attention_dim), torch.empty(1, _pooled(config)))
    objective = AllFacesObjective(
        _faces(settings), parts, cast(Any, None), null, mixture(settings.degradation), settings, 0, critic
    )  # fmt: skip
    trained = objective.trained.train()
    discriminators: list[torch.nn.Module] = [critic.nets] if critic is not None else []

    def losses() -> list[torch.Tensor]:
        n, size = settings.batch, settings.size
        with META:
            latents, boxes = _latents(settings, parts), torch.empty(n, len(REGIONS), 3)
            batch = ControlBatch((), latents, torch.empty(n, 3, size, size), boxes)
        return _totals(objective.loss(trained, batch, Noise(0, range(n)), settings.facial.start))

    def counted() -> PassCost:
        return _count(settings, [trained, parts.unet, *discriminators], losses, half, [trained, parts.unet])

    return MetaStage(trained, [cast(torch.nn.Module, parts.unet)], parts, encoding, counted, discriminators)


class AllFacesObjective(ControlNetObjective):
    """Stage II with the facial loss on all faces of a batch: shapes cannot say which timesteps it leaves out."""

    def _facial_loss(
        self, error: torch.Tensor, guess: torch.Tensor, batch: ControlBatch, estimate: torch.Tensor,
        timesteps: torch.Tensor, step: int,
    ) -> Loss:  # fmt: skip
        assert self.critic is not None and batch.boxes is not None  # asked by loss
        clean, fake, boxes = batch.latents.float(), estimate.float(), batch.boxes
        with torch._C.DisableTorchFunction():  # in float32: no autocast
            terms = [self.critic._region_losses(name, clean, fake, boxes[:, i]) for i, name in enumerate(REGIONS)]
        adversarial, style, critic = (torch.stack(term).sum() for term in zip(*terms, strict=True))
        self.critic.balance.measure(guess, error, adversarial, style)
        return Loss(adversarial + style, critic)


def vae_peak(parts: Parts, count: int, size: int, *, decoding: bool) -> int:
    """The most bytes that `count` faces of `size` pixels take in the VAE, float32, without gradients."""
    vae: Any = parts.vae

    def run() -> list[torch.Tensor]:
        with torch.no_grad(), META:
            if decoding:
                side = size // sdxl.spatial_factor(vae)
                return [vae.decode(torch.empty(count, vae.config["latent_channels"], side, side)).sample]
            signed = torch.empty(count, 3, size, size)
            return [sdxl.encode(vae, signed), sdxl.encode(vae, signed.flip(-1))]

    return count_pass([vae], run, bf16=False, accumulating=False).peak


def size_of(*modules: torch.nn.Module) -> int:
    """Bytes of the weights and buffers of `modules`."""
    tensors = (tensor for module in modules for tensor in (*module.parameters(), *module.buffers()))
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _count(
    settings: DiffusionSettings, modules: list[Any], losses: Callable[[], Sequence[torch.Tensor]], half: bool,
    crossed: list[Any],
) -> PassCost:  # fmt: skip
    checkpointed = crossed if settings.gradient_checkpointing else ()
    return count_pass(
        modules, losses, bf16=half, accumulating=settings.accumulate > 1, checkpointed=checkpointed
    )  # fmt: skip


def _totals(loss: Loss) -> list[torch.Tensor]:
    return [loss.total] if loss.critic is None else [loss.total, loss.critic]


def _loaded(parts: Parts) -> list[torch.nn.Module]:
    modules = (parts.unet, parts.vae, parts.text_encoder, parts.text_encoder_2)
    return [module for module in modules if module is not None]


def _faces(settings: DiffusionSettings) -> Any:
    return SimpleNamespace(size=settings.size)  # all that a loss asks of them


def _latents(settings: DiffusionSettings, parts: Parts) -> torch.Tensor:
    config: Any = parts.unet.config
    side = settings.size // sdxl.spatial_factor(parts.vae)
    return torch.empty(settings.batch, config.in_channels, side, side)


def _prior_batch(settings: PriorSettings, parts: Parts) -> PriorBatch:
    n, latents = settings.batch, _latents(settings, parts)
    if settings.train_text:
        tokens, null = (torch.zeros(2, rows, TOKENS, dtype=torch.long) for rows in (n, 1))
        return PriorBatch((), latents, tokens=tokens, null_tokens=null)
    config: Any = parts.unet.config
    width, pooled = config.cross_attention_dim, _pooled(config)
    states, null_states = (torch.empty(rows, TOKENS, width) for rows in (n, 1))
    return PriorBatch((), latents, states, torch.empty(n, pooled), null_states, torch.empty(1, pooled))


def _pooled(config: Any) -> int:
    """Width of the pooled text: what the added embedding takes beside six sinusoids (SDXL: 2816 - 6 x 256)."""
    return int(config.projection_class_embeddings_input_dim) - 6 * int(config.addition_time_embed_dim)
