"""Stage I: SDXL's U-Net becomes a face prior on captioned faces, by SDXL's own objective."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from authface.console import Console
from authface.devices import pick_device
from authface.errors import UsageError, one_line
from authface.extras import need
from authface.models import sdxl
from authface.models.families import ModelSource, Parts, load, resolve
from authface.models.layout import ADAPTER, write_family
from authface.train.cache import Latents, TensorStore, Texts, cache_latents, cache_texts
from authface.train.data import Batch, Draw, FaceDataset, mirrored, seeded
from authface.train.loop import TrainingResult, fit
from authface.train.objective import Loss, Noise, ValidationPicture, grid, sample
from authface.train.settings import PriorSettings

ENCODERS = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")
LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""The linear layers that adapters are put beside: all of the attention, as in diffusers' own training."""


@dataclass(frozen=True)
class PriorBatch(Batch):
    """`latents` (n, c, h, w) in the U-Net's scale; what the prompts say and, with one row, what the empty one says.

    Either embeddings, `states` (n, 77, width) and `pooled` (n, width), or `tokens` (2, n, 77) of both encoders.
    """

    latents: torch.Tensor
    states: torch.Tensor | None = None
    pooled: torch.Tensor | None = None
    null_states: torch.Tensor | None = None
    null_pooled: torch.Tensor | None = None
    tokens: torch.Tensor | None = None
    null_tokens: torch.Tensor | None = None


class Prior(torch.nn.Module):
    """The U-Net and, where they are trained with it, both text encoders: one forward, which data parallelism needs."""

    def __init__(self, parts: Parts, train_text: bool) -> None:
        super().__init__()
        self.unet = parts.unet
        self.text_encoder = parts.text_encoder if train_text else None
        self.text_encoder_2 = parts.text_encoder_2 if train_text else None
        if self.text_encoder is not None:  # only its penultimate states are read
            inner = getattr(self.text_encoder, "text_model", self.text_encoder)
            for unread in (inner.encoder.layers[-1], inner.final_layer_norm):
                unread.requires_grad_(False)

    def forward(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, time_ids: torch.Tensor, tokens: torch.Tensor | None,
        states: torch.Tensor | None, pooled: torch.Tensor | None,
    ) -> torch.Tensor:  # fmt: skip
        """The prediction for `noisy`, from tokens or from embeddings."""
        if tokens is not None:
            text = sdxl.encode_tokens(tokens, self.text_encoder, self.text_encoder_2)
            states, pooled = text.states, text.pooled
        added = {"text_embeds": pooled, "time_ids": time_ids}
        guess: torch.Tensor = self.unet(noisy, timesteps, encoder_hidden_states=states, added_cond_kwargs=added).sample
        return guess


@dataclass
class PriorObjective:
    """Epsilon MSE over timesteps, alike or more of the late ones, with prompts dropped for some of the images."""

    faces: FaceDataset
    parts: Parts
    source: ModelSource
    latents: Latents
    texts: Texts | None
    """Cached embeddings; None where the encoders are trained."""
    prompts: tuple[str, ...]
    settings: PriorSettings
    auxiliaries: tuple[()] = ()

    def __post_init__(self) -> None:
        self._prior = Prior(self.parts, self.settings.train_text)

    @property
    def trained(self) -> torch.nn.Module:
        """The U-Net, and the text encoders if they are trained."""
        return self._prior

    def batch(self, draws: Sequence[Draw]) -> PriorBatch:
        """Cached latents and prompts."""
        prompts = [mirrored(self.prompts[d.index]) if d.flip else self.prompts[d.index] for d in draws]
        latents = torch.stack([self.latents.read(draw.index, draw.flip) for draw in draws])
        ids = tuple(self.faces.id(draw.index) for draw in draws)
        if self.texts is None:
            tokens, null_tokens = sdxl.tokenize(self.parts, prompts), sdxl.tokenize(self.parts, [""])
            return PriorBatch(ids, latents, tokens=tokens, null_tokens=null_tokens)
        text, null = self.texts.read(prompts), self.texts.read([""])
        return PriorBatch(ids, latents, text.states, text.pooled, null.states, null.pooled)

    def loss(self, model: torch.nn.Module, batch: PriorBatch, random: Noise, step: int) -> Loss:
        """Mean square of predicted less true noise (or velocity, by the scheduler's config)."""
        device = batch.latents.device
        n = len(batch.latents)
        noise = random.normal(*batch.latents.shape[1:]).to(device)
        timesteps = random.integers(self.parts.scheduler.config.num_train_timesteps, self.settings.late).to(device)
        dropped = (random.uniform() < self.settings.prompt_dropout).to(device)
        noisy = self.parts.scheduler.add_noise(batch.latents, noise, timesteps)
        guess = model(
            noisy, timesteps, sdxl.time_ids(self.faces.size, n, batch.latents),
            _unless(dropped[None, :, None], batch.tokens, batch.null_tokens),
            _unless(dropped[:, None, None], batch.states, batch.null_states),
            _unless(dropped[:, None], batch.pooled, batch.null_pooled),
        )  # fmt: skip
        target = sdxl.loss_target(self.parts.scheduler, batch.latents, noisy, timesteps)
        weight = sdxl.snr_weight(self.parts.scheduler, timesteps, self.settings.snr_gamma)
        return Loss((sdxl.square_error(guess, target) * weight).mean())

    def picture(self) -> ValidationPicture:
        """One image for each of the first different prompts, in a row."""
        prompts = list(dict.fromkeys(self.prompts))[: self.settings.validate_count]
        p, s = self.parts, self.settings
        text = sdxl.encode_prompts(p, prompts) if self.texts is None else self.texts.read(prompts)
        made = sample(p.unet, p.vae, p.scheduler, text, s.size, s.validate_steps)
        return ValidationPicture(grid([image[None] for image in made]))

    def write(self, out: Path) -> None:
        """Save what was trained beside the base's other parts; an adapter is kept, and merged into the U-Net."""
        changed: dict[str, Any] = {"unet": self.parts.unet}
        if self.settings.train_text:
            changed |= {"text_encoder": self.parts.text_encoder, "text_encoder_2": self.parts.text_encoder_2}
        if self.settings.lora_rank:
            changed["unet"] = merge_adapters(self.parts.unet, self.source, (out / ADAPTER).parent)
        else:
            shutil.rmtree((out / ADAPTER).parent, ignore_errors=True)  # of an earlier training: it is not in this U-Net
        write_family(out, self.parts.folder, changed)


def train_prior(
    settings: PriorSettings, console: Console, device: str = "auto", seed: int = 0, limit: int = 0
) -> TrainingResult:
    """Stage I on `settings.dataset`, from the family `settings.model`; the family is written to `settings.out`."""
    source = resolve(settings.model)
    if settings.lora_rank and source.local and Path(source.location).resolve() == settings.out.resolve():
        raise UsageError(
            f"train.prior.lora_rank={settings.lora_rank} into {one_line(settings.out)}, its own model: each run would"
            " merge the adapters into the U-Net once more; set another train.prior.out"
        )
    faces = FaceDataset(settings.dataset, settings.size, limit)
    where = pick_device(device)
    faces.prepare(where)
    store = TensorStore(settings.cache or settings.out / "training" / "cache")
    prompts = faces.prompts("prompt" if settings.prompts == "all" else "prompt_semantic")
    texts = None
    if not settings.train_text:
        both = [*prompts, *(mirrored(prompt) for prompt in prompts if settings.flip)]
        texts = cache_texts(both, source, where, store, console)
    parts = load(source, ["vae", "unet", "scheduler", *(ENCODERS if texts is None else ())], where, torch.float32)
    parts.vae.requires_grad_(False)
    latents = cache_latents(faces, source, parts.vae, store, settings.batch, console)
    parts.vae.to("cpu")  # pictures fetch it back
    if settings.lora_rank:
        with seeded(seed):
            add_adapters(
                parts.unet, settings.lora_rank, settings.lora_alpha or settings.lora_rank, settings.half(where)
            )
    if settings.gradient_checkpointing:
        parts.unet.enable_gradient_checkpointing()
    objective = PriorObjective(faces, parts, source, latents, texts, prompts, settings)
    built_on = dict.fromkeys(("vae", "unet", *(ENCODERS if texts is None else ())), parts.folder)
    return fit(objective, settings, console, where, seed, "prior", built_on)


def _unless(dropped: torch.Tensor, given: torch.Tensor | None, null: torch.Tensor | None) -> torch.Tensor | None:
    return None if given is None or null is None else torch.where(dropped, null, given)


def add_adapters(unet: Any, rank: int, alpha: float, half: bool) -> None:
    """Freeze `unet` and put new low-rank adapters beside its attention (LoRA, Hu et al. 2022, with peft).

    They are float32, over weights in bfloat16 if `half`.
    """
    need("train.prior.lora_rank", "lora", "peft")
    from peft import LoraConfig

    unet.requires_grad_(False)
    if half:
        unet.to(torch.bfloat16)
    unet.add_adapter(
        LoraConfig(r=rank, lora_alpha=alpha, init_lora_weights="gaussian", target_modules=list(LORA_TARGETS))
    )
    for parameter in unet.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def merge_adapters(unet: Any, source: ModelSource, folder: Path) -> Any:
    """Save the adapter of `unet` to `folder`; a float32 U-Net of `source` with the adapter merged into its weights.

    Merged into the weights as they were published, not into the rounded ones that training ran on.
    """
    from diffusers import StableDiffusionXLPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    config = unet.peft_config["default"]
    state = {name: tensor.float().cpu().contiguous() for name, tensor in get_peft_model_state_dict(unet).items()}
    folder.mkdir(parents=True, exist_ok=True)
    StableDiffusionXLPipeline.save_lora_weights(
        str(folder), unet_lora_layers=convert_state_dict_to_diffusers(dict(state)),
        unet_lora_adapter_metadata=config.to_dict(), safe_serialization=True,
    )  # fmt: skip
    whole: Any = load(source, ["unet"], "cpu", torch.float32).unet
    whole.add_adapter(config)
    set_peft_model_state_dict(whole, state)
    whole.fuse_lora()
    whole.unload_lora()
    return whole
