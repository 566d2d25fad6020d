"""The networks of a family and both stages' objectives on torch's meta device, with shapes in place of faces."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from authface.errors import AuthfaceError, first_line, one_line
from authface.faces.degrade import mixture
from authface.models import sdxl
from authface.models.families import REFUSALS, ModelSource, Parts, has_builtin, resolve, vae_class
from authface.models.tiny import TEXT_WIDTHS, VAE, VaeShape, text_config, unet_config, vae_config
from authface.train.controlnet import ControlBatch, ControlNetObjective, init_controlnet
from authface.train.data import REGIONS
from authface.train.estimate.meta_pass import META, PassCost, count_pass, in_float32
from authface.train.losses.critic import FacialCritic
from authface.train.losses.pixels import PixelTerms, restored
from authface.train.objective import Loss, Noise
from authface.train.prior import PriorBatch, PriorObjective, add_adapters
from authface.train.settings import ControlNetSettings, DiffusionSettings, PriorSettings

SDXL_UNET: dict[str, Any] = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
"""Facts of stable-diffusion-xl-base-1.0: 2,567,463,684 weights; a ControlNet begun from it has 1,251,014,160."""
SDXL_VAE: dict[str, Any] = {
    "sample_size": 1024,
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "scaling_factor": 0.13025,
}
"""83,653,863 weights."""
SDXL_TEXT: tuple[dict[str, Any], dict[str, Any]] = (
    {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
     "hidden_act": "quick_gelu", "projection_dim": 768},
    {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
     "hidden_act": "gelu", "projection_dim": 1280},
)  # fmt: skip
"""CLIP ViT-L/14 and OpenCLIP ViT-bigG/14, their text halves: 123,060,480 and 694,659,840 weights."""
BUILT_IN = ("sdxl", "authface")
"""Families whose architecture is the tables above."""
_CONFIGS = ("unet", "vae", "text_encoder", "text_encoder_2")


@dataclass(frozen=True, eq=False)
class Architecture:
    """Configs of a family as diffusers and transformers write them; `origin` is where they are from, for people."""

    origin: str
    unet: dict[str, Any]
    vae: dict[str, Any]
    text: tuple[dict[str, Any], dict[str, Any]]
    cleaner: dict[str, Any] | None = None
    """None of a family without one."""

    def parts(self, *, text: bool = False, cleaner: bool = False) -> Parts:
        """U-Net, VAE and scheduler, with `text` the encoders and with `cleaner` the cleaner, if there is one, too.

        All weights are on the meta device, in float32.
        """
        import diffusers
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

        vae = vae_class(str(self.vae.get("_class_name", "AutoencoderKL")), f"the VAE of {self.origin}")
        parts = Parts(Path(), scheduler=diffusers.DDPMScheduler())
        with torch.device("meta"):
            parts.unet = diffusers.UNet2DConditionModel.from_config(self.unet)
            parts.vae = vae.from_config(self.vae)
            if cleaner and self.cleaner is not None:
                parts.cleaner = diffusers.UNet2DModel.from_config(self.cleaner)
            if text:
                first, second = (CLIPTextConfig.from_dict(config) for config in self.text)
                parts.text_encoder, parts.text_encoder_2 = CLIPTextModel(first), CLIPTextModelWithProjection(second)
        return parts


def find_architecture(model: str, size: int, begins_from: Mapping[str, str], vae: VaeShape = VAE) -> Architecture:
    """The architecture of `model`: a folder's configs where there is one, else what is known of its name.

    `size` is the side of the images, pixels, and `vae` the shape of the VAE, for a family that is `new`. `begins_from`
    maps folders that a recipe will make to the model each begins from: until such a folder is there, it has that
    model's architecture. Raises AuthfaceError for a family whose configs are not on this machine, UsageError for a
    name that is none.
    """
    path = [model]
    name = model
    while not (Path(name).expanduser() / "unet").is_dir() and begins_from.get(name, name) not in path:
        name = begins_from[name]
        path.append(name)
    via = f"; {one_line(model)} is not there yet, it begins from it" if len(path) > 1 else ""
    if name == "new" or (name == "tiny" and not has_builtin()):
        text = text_config(TEXT_WIDTHS[0]), text_config(TEXT_WIDTHS[1])
        return Architecture(f"tiny's architecture{via}", unet_config(size, vae=vae), vae_config(size, vae), text)
    if name in BUILT_IN:
        return Architecture(f"SDXL's architecture, built in{via}", SDXL_UNET, SDXL_VAE, SDXL_TEXT)
    source = resolve(name)
    read = _local(Path(source.location)) if source.local else _cached(source.location)
    unet, own, first, second = (read(part) for part in _CONFIGS)
    cleaner = read("cleaner") if _has_cleaner(source) else None
    return Architecture(f"the configs of {one_line(name)}{via}", unet, own, (first, second), cleaner)


def _has_cleaner(source: ModelSource) -> bool:
    if source.local:
        return (Path(source.location) / "cleaner").is_dir()
    return isinstance(try_to_load_from_cache(source.location, "cleaner/config.json"), str)


def _local(folder: Path) -> Callable[[str], dict[str, Any]]:
    return lambda part: _read(folder / part / "config.json")


def _cached(repository: str) -> Callable[[str], dict[str, Any]]:
    def read(part: str) -> dict[str, Any]:
        try:
            found = try_to_load_from_cache(repository, f"{part}/config.json")
        except HFValidationError as error:
            raise AuthfaceError(f"{one_line(repository)} is no name of the hub: {first_line(error, 100)}") from error
        if not isinstance(found, str):
            raise AuthfaceError(
                f"{part}/config.json of {one_line(repository)} is not in the hub's cache, and an estimate downloads"
                f" nothing: give its folder, or estimate with one of {', '.join(BUILT_IN)}, tiny"
            )
        return _read(Path(found))

    return read


def _read(path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise AuthfaceError(f"cannot read {one_line(path)} ({first_line(error, 80)}): get the files again") from error
    return config


@contextmanager
def fitting(origin: str) -> Iterator[None]:
    """Raise what the networks of configs from `origin` say that fit nothing as an AuthfaceError of one line."""
    try:
        yield
    except REFUSALS as error:
        raise AuthfaceError(
            f"{one_line(origin)} make no networks that fit each other ({first_line(error, 120)}): get the files again"
        ) from error


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

    @property
    def fetched(self) -> int:
        """Bytes of the VAE, where a picture has to fetch it from the CPU."""
        return 0 if self.parts.vae in self.frozen else size_of(self.parts.vae)


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
    parts = architecture.parts(cleaner=True)
    encoding = size_of(*_loaded(parts))
    for part in _loaded(parts):
        part.requires_grad_(False)
    factor = sdxl.spatial_factor(parts.vae)
    with META:
        parts.controlnet = init_controlnet(parts.unet, settings, 0, factor)
    critic = None
    if settings.facial.weight != "off":
        critic = FacialCritic(int(parts.vae.config["latent_channels"]), factor, settings.facial, META, 0)
    with META:
        pixels = PixelTerms(settings.pixels, META, 0) if settings.pixels.on else None
    if half:
        parts.unet.to(torch.bfloat16)
    config: Any = parts.unet.config
    with META:
        null = sdxl.TextEmbedding(torch.empty(1, TOKENS, config.cross_attention_dim), torch.empty(1, _pooled(config)))
    objective = AllFacesObjective(
        _faces(settings), parts, cast(Any, None), null, mixture(settings.degradation), settings, 0, critic, pixels
    )  # fmt: skip
    trained = objective.trained.train()
    judges = [critic, None if pixels is None else pixels.critic]
    discriminators: list[torch.nn.Module] = [judge.nets for judge in judges if judge is not None]
    encoder = parts.vae if settings.from_degraded else None  # which else waits on the CPU
    features = None if pixels is None else pixels.perceptual
    still = [part for part in (parts.unet, parts.cleaner, encoder, features) if part is not None]

    def losses() -> list[torch.Tensor]:
        n, size = settings.batch, settings.size
        with META:
            latents, boxes = _latents(settings, parts), torch.empty(n, len(REGIONS), 3)
            degraded, clean = torch.empty(n, 3, size, size), torch.empty(n, 3, size, size) if pixels else None
            batch = ControlBatch((), latents=latents, degraded=degraded, boxes=boxes, clean=clean)
        last = max(settings.facial.start, settings.pixels.start)
        return _totals(objective.loss(trained, batch, Noise(0, range(n)), last))

    def counted() -> PassCost:
        return _count(settings, [trained, *still, *discriminators], losses, half, [trained, parts.unet])

    return MetaStage(trained, still, parts, encoding, counted, discriminators)


class AllFacesObjective(ControlNetObjective):
    """Stage II with its losses on all faces of a batch, all of them begun from the degraded ones where any is.

    Shapes cannot say which timesteps the facial loss leaves out, and a batch may be drawn so.
    """

    def _begun(self, random: Noise) -> torch.Tensor:
        return torch.ones(self.settings.batch, dtype=torch.bool)

    def _encoded(self, degraded: torch.Tensor) -> torch.Tensor:
        with in_float32():
            return super()._encoded(degraded)

    def _pixel_loss(
        self, error: torch.Tensor, guess: torch.Tensor, planes: tuple[torch.Tensor, ...], step: int
    ) -> Loss:
        assert self.pixels is not None  # asked by loss
        estimate, own, clean, cleaned = planes
        given = () if self.parts.cleaner is None else (cleaned, own)
        made = restored(self.parts.vae, estimate, *given)
        with in_float32():
            return self.pixels.loss(error, guess, made, clean, step)

    def _facial_loss(
        self, error: torch.Tensor, guess: torch.Tensor, batch: ControlBatch, estimate: torch.Tensor,
        timesteps: torch.Tensor, step: int,
    ) -> Loss:  # fmt: skip
        assert self.critic is not None and batch.boxes is not None  # asked by loss
        clean, fake, boxes = batch.latents.float(), estimate.float(), batch.boxes
        with in_float32():
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
    modules = (parts.unet, parts.vae, parts.cleaner, parts.text_encoder, parts.text_encoder_2)
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
