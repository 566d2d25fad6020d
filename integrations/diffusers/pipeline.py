"""A diffusers pipeline that restores aligned faces with a family of authface: a folder, or a repository on the hub.

    pipe = DiffusionPipeline.from_pretrained("models/authface", custom_pipeline="integrations/diffusers")
    image = pipe(Image.open("face.png"), fidelity=0.5).images[0]

It needs diffusers, transformers, NumPy and OpenCV, and authface not at all; for the same face, seed and settings it
gives the pixels of `authface restore --aligned`. A family has SDXL's parts and a ControlNet over the degraded face, and
may have a cleaner, a network in pixels that works first. Faces are squares as FFHQ cuts them; finding them in photos is
authface's.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from inspect import signature
from pathlib import Path
from typing import Any

import cv2
import diffusers
import numpy as np
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils import logging
from diffusers.utils.torch_utils import randn_tensor
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from PIL import Image

LARGEST_SIDE = 512
"""Of the crops that a family sees, pixels; the paper's."""
LARGEST_OWN_SIDE = 4096
"""Of the crops that a cleaner sees as large as they are."""
MAX_SHARE, STEADY_STRENGTH = 0.4, 0.5
FINE = 4.0
"""Of the prior's detail what is finer is added to a cleaned face, pixels (sigma)."""
LEVELS = 5
"""Dilated blurs that tell coarse tones from fine detail."""
WHOLE, TILE, OVERLAP, GRID = 1024, 768, 64, 64
FOLD, PERCEPTION_STEPS, TEXTURE = 2, 1000, 1
PRESETS_FILE = "presets.toml"

Pixels = Any
logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Preset:
    """How a face is denoised, with the names and meanings of `authface.models.sampling.Preset`."""

    scheduler: str = "dpm++"
    steps: int = 12
    guidance: float = 1
    strength: float = 1
    levels: int | None = None
    share: float = 0
    samples: int = 1
    detail: float = 1
    perception: float = 0
    mirrored: bool = False
    reuse: int = 1
    prompt: str = ""
    negative_prompt: str = ""
    shared_seed: int | None = None
    batch: int | None = None

    def at(self, fidelity: float) -> Preset:
        """The same at a fidelity of 0..1, in a family without a cleaner."""
        above = max(0.0, 2 * fidelity - 1)
        strength = min(1.0, self.strength * (2 - 2 * fidelity))
        if fidelity > 0.5:
            strength = self.strength - above * max(0.0, self.strength - STEADY_STRENGTH)
        return replace(self, strength=strength, share=self.share + above * max(0.0, MAX_SHARE - self.share))


# The prompts of AuthFace's released inference (EthanLiang99/AuthFace, Apache-2.0), word for word.
_PROMPT = (
    "hyper-realistic portrait, face close-up, super detailed, Cinematic, High Contrast, highly detailed, taken using "
    "a Canon EOS R camera,hyper detailed photo - realistic maximum detail, 32k, ultra HD,extreme meticulous detailing, "
    "skin pore detailing,hyper sharpness, perfect without deformations"
)
_NEGATIVE = (
    "unreal face, asymmetrical eyes, oil painting, illustration, drawing, art, sketch,cartoon, CG Style, 3D render, "
    "unreal engine, blurring, dirty, messy, worst quality, low quality, frames, watermark, signature, jpeg artifacts, "
    "deformed, lowres, over-smooth, malformed/disproportionate hands/fingers, ugly, easy negative"
)
_GUIDED = Preset(prompt=_PROMPT, negative_prompt=_NEGATIVE)
PRESETS = {
    "quality": replace(_GUIDED, scheduler="dpm++", steps=20, guidance=4.5),
    "fast": replace(_GUIDED, scheduler="unipc", steps=5, guidance=4.0),
    "fidelity": Preset(scheduler="dpm++", steps=20, strength=0.5, share=0.4),
    "official": replace(_GUIDED, scheduler="ddpm", steps=50, guidance=8, shared_seed=123, batch=6),
}


class AuthFacePipeline(DiffusionPipeline):
    """Restores aligned faces; see the module."""

    model_cpu_offload_seq = "text_encoder->text_encoder_2->cleaner->controlnet->unet->vae"
    _optional_components = ["cleaner", "feature_extractor", "image_encoder"]

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        text_encoder_2: Any,
        tokenizer: Any,
        tokenizer_2: Any,
        unet: Any,
        controlnet: Any,
        scheduler: Any,
        cleaner: Any = None,
        feature_extractor: Any = None,
        image_encoder: Any = None,
        force_zeros_for_empty_prompt: bool = False,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae, text_encoder=text_encoder, text_encoder_2=text_encoder_2, tokenizer=tokenizer,
            tokenizer_2=tokenizer_2, unet=unet, controlnet=controlnet, scheduler=scheduler, cleaner=cleaner,
            feature_extractor=feature_extractor, image_encoder=image_encoder,
        )  # fmt: skip
        self.register_to_config(force_zeros_for_empty_prompt=force_zeros_for_empty_prompt)
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.size = min(LARGEST_SIDE, int(unet.config.sample_size) * self.factor)
        self._texts: dict[tuple[str, str], tuple[torch.Tensor, torch.Tensor]] = {}

    @torch.inference_mode()
    def __call__(
        self,
        image: Any,
        preset: str = "quality",
        fidelity: float = 0.5,
        seed: int | Sequence[int] = 0,
        batch_size: int = 4,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[int], None] | None = None,
        **changed: Any,
    ) -> Any:
        """Restore faces: PIL images or (n, n, 3) uint8 arrays, one or a list, each as large on return as it came.

        `preset` is `quality`, `fast`, `fidelity` or `official`; a family may bring its own. `fidelity` 0 trusts the
        model, 1 the image. `seed` is of each image, or one for all. Further keywords are fields of `Preset`, such as
        ``steps=8``. `output_type` is ``pil`` or ``np`` (uint8). Raises ValueError for what none of this is.
        """
        faces = [_square(one) for one in (image if isinstance(image, list | tuple) else [image])]
        seeds = [seed] * len(faces) if isinstance(seed, int) else list(seed)
        if len(seeds) != len(faces):
            raise ValueError(f"{len(seeds)} seeds for {len(faces)} images: give one, or as many")
        chosen = self._chosen(preset, changed)
        self._lay_out()
        # `official` is the release's inference, which has no cleaner.
        behind = self.cleaner is not None and preset != "official"
        after = []
        if behind:
            crops = [_resized(face, max(self.size, min(len(face), LARGEST_OWN_SIDE))) for face in faces]
            after = self._cleaned(crops, seeds, chosen, 1 - fidelity, batch_size, callback_on_step_end)
        else:
            crops = [_resized(face, self.size) for face in faces]
            after = self._restored(crops, seeds, chosen, fidelity, batch_size, callback_on_step_end)
            after = [_wavelet(one, crop, LEVELS) for one, crop in zip(after, crops, strict=True)]
        made = [_finished(*one) for one in zip(after, crops, faces, strict=True)]
        images = [Image.fromarray(one) for one in made] if output_type == "pil" else made
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _chosen(self, name: str, changed: dict[str, Any]) -> Preset:
        if name not in PRESETS:
            raise ValueError(f"no preset {name!r}: there are {', '.join(PRESETS)}")
        known = {field.name for field in fields(Preset)}
        if strange := sorted(set(changed) - known):
            raise ValueError(f"{', '.join(strange)}: there are {', '.join(sorted(known))}")
        own = {} if name == "official" else self._own_presets()
        preset = Preset(**own[name]) if name in own else PRESETS[name]
        if preset.reuse > 1:
            logger.warning("reuse: this pipeline computes every step whole")
        return replace(preset, **changed)

    def _own_presets(self) -> dict[str, dict[str, Any]]:
        """What the family's presets.toml says; nothing where it has none."""
        source = str(self.config.get("_name_or_path") or "")
        path = Path(source) / PRESETS_FILE
        if not Path(source).is_dir() and source.count("/") == 1:
            try:
                path = Path(hf_hub_download(source, PRESETS_FILE))
            except (EntryNotFoundError, LocalEntryNotFoundError):
                return {}
        return tomllib.loads(path.read_text("utf-8")) if path.is_file() else {}

    def _lay_out(self) -> None:
        """Channels last where convolutions take them so, and as authface does it: else pixels differ by rounding."""
        kind = self._execution_device.type
        half = self.unet.dtype in {torch.float16, torch.bfloat16}
        networks = [self.cleaner, *([self.vae] if kind == "cpu" else [])]
        networks += [self.unet, self.controlnet] if half and kind in {"cpu", "cuda"} else []
        for network in networks:
            if network is not None:
                network.to(memory_format=torch.channels_last)

    def _cleaned(
        self, crops: list[Pixels], seeds: list[int], preset: Preset, trust: float, batch_size: int, callback: Any
    ) -> list[Pixels]:
        told = trust * preset.perception
        cleaned = [self._clean(*one, told) for one in zip(crops, seeds, strict=True)]
        if preset.mirrored:
            flipped = ((crop[:, ::-1], seed) for crop, seed in zip(crops, seeds, strict=True))
            others = [self._clean(*one, told)[:, ::-1] for one in flipped]
            cleaned = [(face + other) / 2 for face, other in zip(cleaned, others, strict=True)]
        if gain := trust * preset.detail:
            small = [_to_uint8(_resized(face, self.size)) for face in cleaned]
            details = []
            for at in range(0, len(small), step := preset.batch or batch_size):
                details += self._detail(np.stack(small[at : at + step]), seeds[at : at + step], preset, callback)
            cleaned = [face + gain * _resized(one, len(face)) for face, one in zip(cleaned, details, strict=True)]
        return [_to_uint8(face) for face in cleaned]

    def _clean(self, rgb: Pixels, seed: int, perception: float) -> Pixels:
        """One (n, n, 3) uint8 face, cleaned at its own size: levels, not rounded."""
        signed = np.ascontiguousarray(rgb[None].transpose(0, 3, 1, 2), np.float32) / np.float32(255)
        signed = signed * np.float32(2) - np.float32(1)
        if self.cleaner.config.in_channels > 3 * FOLD**2:  # it takes a plane of noise
            bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(TEXTURE,)))
            noise = _normal(bits, signed[:, :1].shape) * np.float32(perception)
            signed = np.concatenate([signed, noise], 1)
        done = self._through(signed, perception) if len(rgb) <= WHOLE else self._in_tiles(signed, perception)
        return (done[0].transpose(1, 2, 0) + np.float32(1)) * np.float32(127.5)

    def _through(self, signed: Pixels, perception: float) -> Pixels:
        """The cleaner on one face or tile, (1, 3 or 4, h, w): what it takes off is added to it."""
        images = torch.from_numpy(signed).to(self._execution_device)
        height, width = images.shape[2:]
        multiple = FOLD * 2 ** (len(self.cleaner.config.block_out_channels) - 1)
        functional = torch.nn.functional
        padded = functional.pad(images, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        folded = functional.pixel_unshuffle(padded, FOLD).to(self.cleaner.dtype)
        moved = self.cleaner(folded, perception * PERCEPTION_STEPS).sample
        residual = functional.pixel_shuffle(moved.float(), FOLD)[..., :height, :width]
        return (images[:, :3] + residual).cpu().numpy()

    def _in_tiles(self, signed: Pixels, perception: float) -> Pixels:
        total, weights = np.zeros_like(signed[:, :3]), np.zeros_like(signed[:1, :1])
        for top in _starts(signed.shape[2]):
            for left in _starts(signed.shape[3]):
                tile = np.s_[..., top : top + TILE, left : left + TILE]
                done = self._through(np.ascontiguousarray(signed[tile]), perception)
                fade = _fade(done.shape[2])[:, None] * _fade(done.shape[3])
                total[tile] += done * fade
                weights[tile] += fade
        return (total / weights).astype(np.float32)

    def _detail(self, crops: Pixels, seeds: list[int], preset: Preset, callback: Any) -> list[Pixels]:
        """What the prior adds to cleaned faces, finer than `FINE`: levels of any sign."""
        image, draws = self._images(crops), _Draws(preset, seeds)
        photo = self._encode(image)
        latents = self._denoise(image, photo if preset.strength < 1 else None, draws, preset, 1.0, callback)
        added = (self._decode(latents) - self._decode(photo)).mul(127.5).permute(0, 2, 3, 1)
        return [_high_pass(np.ascontiguousarray(one)) for one in added.cpu().numpy()]

    def _restored(
        self, crops: list[Pixels], seeds: list[int], preset: Preset, fidelity: float, batch_size: int, callback: Any
    ) -> list[Pixels]:
        asked, scale, made = preset.at(fidelity), min(1.0, 0.5 + fidelity), []
        shared = _Draws.shared(preset)
        for at in range(0, len(crops), step := preset.batch or batch_size):
            some = np.stack(crops[at : at + step])
            image, draws = self._images(some), _Draws(preset, seeds[at : at + step], shared)
            photo = self._encode(image) if asked.strength < 1 else None
            found = [
                _rgb(self._decode(self._denoise(image, photo, draws, asked, scale, callback)))
                for _ in range(asked.samples)
            ]
            mean = np.rint(np.mean(found, axis=0)).astype(np.uint8)
            made += [_mixed(face, crop, asked) for face, crop in zip(mean, some, strict=True)]
        return made

    def _denoise(
        self,
        image: torch.Tensor,
        photo: torch.Tensor | None,
        draws: _Draws,
        preset: Preset,
        scale: float,
        callback: Any,
    ) -> torch.Tensor:
        """Latents for images of 0..1, from noise or from the latents `photo`."""
        scheduler = _scheduler(preset.scheduler, self.scheduler.config)
        own = {"generator": draws.steps} if "generator" in signature(scheduler.step).parameters else {}
        timesteps = _timesteps(scheduler, preset, image.device)
        side = self.size // self.factor
        noise = draws.begin((len(image), self.unet.config.in_channels, side, side), image.device)
        if photo is None or len(timesteps) == scheduler.num_inference_steps:
            latents = noise * scheduler.init_noise_sigma
        else:
            latents = scheduler.add_noise(photo, noise, timesteps[:1].repeat(len(image)))
        rows = [0, 1] if preset.guidance > 1 else [0]
        states, pooled = (
            part[rows].repeat_interleave(len(image), dim=0).to(image.device, self.unet.dtype)
            for part in self._text(preset.prompt, preset.negative_prompt)
        )
        sizes = torch.tensor([self.size, self.size, 0, 0, self.size, self.size]).to(image.device, self.unet.dtype)
        text: dict[str, Any] = {"encoder_hidden_states": states, "return_dict": False}
        text["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": sizes.expand(len(states), 6)}
        with self._condition(image, len(rows)) as condition:
            for number, t in enumerate(timesteps):
                noisy = scheduler.scale_model_input(latents, t).to(self.unet.dtype).repeat(len(rows), 1, 1, 1)
                down, mid = self.controlnet(noisy, t, controlnet_cond=condition, conditioning_scale=scale, **text)
                predicted = self.unet(
                    noisy, t, down_block_additional_residuals=down, mid_block_additional_residual=mid, **text
                )[0]
                guided, *unguided = predicted.float().chunk(len(rows))
                if unguided:
                    guided = unguided[0] + preset.guidance * (guided - unguided[0])
                latents = scheduler.step(guided, t, latents, **own, return_dict=False)[0]
                if callback is not None:
                    callback(number)
        return latents

    @contextmanager
    def _condition(self, image: torch.Tensor, rows: int) -> Iterator[torch.Tensor]:
        """What the ControlNet is given: within the block the embedding of its images, which no step changes.

        Where accelerate moves its weights it is given the images.
        """
        image = image.to(self.unet.dtype)
        embedding = self.controlnet.controlnet_cond_embedding
        if hasattr(self.controlnet, "_hf_hook"):
            yield image.repeat(rows, 1, 1, 1)
            return
        self.controlnet.controlnet_cond_embedding = torch.nn.Identity()
        try:
            yield embedding(image).repeat(rows, 1, 1, 1)
        finally:
            self.controlnet.controlnet_cond_embedding = embedding

    def _images(self, crops: Pixels) -> torch.Tensor:
        """(n, h, w, 3) uint8 as (n, 3, h, w) of 0..1, in memory as they lie: convolutions round by that."""
        return torch.from_numpy(crops).permute(0, 3, 1, 2).float().div(255).to(self._execution_device)

    def _text(self, prompt: str, negative: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The states and the pooled output of both encoders; an empty prompt is encoded, not zeroed."""
        if (prompt, negative) not in self._texts:
            found = []
            for tokenizer, encoder in (
                (self.tokenizer, self.text_encoder), (self.tokenizer_2, self.text_encoder_2)
            ):  # fmt: skip
                told = tokenizer(
                    [prompt, negative], padding="max_length", max_length=77, truncation=True, return_tensors="pt"
                )
                found.append(encoder(told.input_ids.to(encoder.device), output_hidden_states=True))
            states = torch.cat([one.hidden_states[-2] for one in found], dim=-1)
            self._texts[prompt, negative] = states, found[1][0]
        return self._texts[prompt, negative]

    def _encode(self, image: torch.Tensor) -> torch.Tensor:
        """Latents, one image at a time, of the posterior's mean."""
        made = []
        for one in image:
            posterior = self.vae.encode((one[None] * 2 - 1).to(self.vae.dtype))
            raw = posterior.latent_dist.mode() if hasattr(posterior, "latent_dist") else posterior.latents
            mean, factor = self._normalisation(raw)
            made.append((raw.float() - mean) * factor)
        return torch.cat(made)

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        made = []
        for one in latents:
            mean, factor = self._normalisation(one)
            made.append(self.vae.decode((one[None].float() / factor + mean).to(self.vae.dtype)).sample.float())
        return torch.cat(made)

    def _normalisation(self, like: torch.Tensor) -> tuple[Any, Any]:
        config = self.vae.config
        mean, std = config.get("latents_mean"), config.get("latents_std")
        if mean is None or std is None:
            return 0.0, config.scaling_factor
        means = torch.tensor(mean, device=like.device).view(1, -1, 1, 1)
        return means, config.scaling_factor / torch.tensor(std, device=like.device).view(1, -1, 1, 1)


class _Draws:
    """The noise of some faces: the release's one generator for all of a call, or each face's own, by PCG64."""

    def __init__(self, preset: Preset, seeds: list[int], shared: torch.Generator | None = None) -> None:
        one = shared if shared is not None else self.shared(preset)
        self.steps = one or [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        self._bits = [] if one is not None else [np.random.PCG64(seed) for seed in seeds]

    @staticmethod
    def shared(preset: Preset) -> torch.Generator | None:
        return None if preset.shared_seed is None else torch.Generator("cpu").manual_seed(preset.shared_seed)

    def begin(self, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
        if not self._bits:
            return randn_tensor(shape, self.steps, device, torch.float32)
        return torch.from_numpy(np.stack([_normal(bits, shape[1:]) for bits in self._bits])).to(device)


def _normal(bits: Any, shape: tuple[int, ...]) -> Pixels:
    """Normal numbers by Box and Muller's transform."""
    pairs = -(-math.prod(shape) // 2)
    uniform = ((bits.random_raw(2 * pairs) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    length, angle = np.sqrt(-2 * np.log(uniform[:pairs])), 2 * np.pi * uniform[pairs:]
    both = np.concatenate([length * np.cos(angle), length * np.sin(angle)])
    return both[: math.prod(shape)].reshape(shape).astype(np.float32)


def _scheduler(name: str, trained: Any) -> Any:
    """The sampler on the noise schedule that the family was trained with; latents are never clipped."""
    spaced: dict[str, Any] = {"timestep_spacing": "trailing"}
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "ddpm": (diffusers.DDPMScheduler, {}),
        "lcm": (diffusers.LCMScheduler, {}),
        "dpm++": (
            diffusers.DPMSolverMultistepScheduler,
            {**spaced, "algorithm_type": "dpmsolver++", "use_karras_sigmas": False},
        ),
        "ddim": (diffusers.DDIMScheduler, spaced),
        "euler": (diffusers.EulerDiscreteScheduler, spaced),
        "unipc": (diffusers.UniPCMultistepScheduler, spaced),
    }
    if name not in kinds:
        raise ValueError(f"no scheduler {name!r}: there are {', '.join(kinds)}")
    kind, own = kinds[name]
    return kind.from_config(trained, **{"clip_sample": False, "thresholding": False, **own})


def _timesteps(scheduler: Any, preset: Preset, device: torch.device) -> torch.Tensor:
    """So many steps; below a strength of 1 the last of so many more."""
    total = max(preset.steps, round(preset.steps / preset.strength))
    scheduler.set_timesteps(total, device=device)
    first = (total - preset.steps) * scheduler.order
    if first and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    return scheduler.timesteps[first:]


def _square(image: Any) -> Pixels:
    rgb = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.shape[0] != rgb.shape[1]:
        raise ValueError(
            f"an image of {rgb.dtype}, shape {rgb.shape}: aligned faces are (n, n, 3) uint8, or PIL images"
        )
    return np.ascontiguousarray(rgb)


def _resized(square: Pixels, side: int) -> Pixels:
    if len(square) == side:
        return square
    return cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA if side < len(square) else cv2.INTER_CUBIC)


def _finished(after: Pixels, crop: Pixels, face: Pixels) -> Pixels:
    """As large as the face came, grey if it was, and the face itself where nothing changed."""
    if np.array_equal(face[..., 0], face[..., 1]) and np.array_equal(face[..., 1], face[..., 2]):
        luma = _to_uint8(after.astype(np.float64) @ (0.299, 0.587, 0.114))
        after = np.repeat(luma[..., None], 3, axis=2)
    return face if np.array_equal(after, crop) else _resized(after, len(face))


def _rgb(signed: torch.Tensor) -> Pixels:
    return signed.cpu().clamp(-1, 1).add(1).mul(127.5).round().permute(0, 2, 3, 1).byte().contiguous().numpy()


def _to_uint8(values: Pixels) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _high_pass(image: Pixels) -> Pixels:
    reach = math.ceil(3 * FINE)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1, dtype=np.float32) / FINE) ** 2)
    taps /= taps.sum()
    blurred = cv2.sepFilter2D(image, cv2.CV_32F, taps, taps, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(image - blurred, np.float32)


def _low_pass(image: Pixels, levels: int) -> Pixels:
    for level in range(levels):
        taps = np.zeros(2 ** (level + 1) + 1, np.float32)
        taps[[0, len(taps) // 2, -1]] = 0.25, 0.5, 0.25
        image = cv2.sepFilter2D(image, cv2.CV_32F, taps, taps, borderType=cv2.BORDER_REPLICATE)
    return image


def _wavelet(restored: Pixels, source: Pixels, levels: int) -> Pixels:
    """Fine detail of one on the coarse tones of the other."""
    fine, coarse = restored.astype(np.float32), source.astype(np.float32)
    return _to_uint8(fine + _low_pass(coarse - fine, levels))


def _mixed(restored: Pixels, source: Pixels, preset: Preset) -> Pixels:
    if preset.levels is not None:
        restored = _wavelet(restored, source, preset.levels)
    if not preset.share:
        return restored
    return np.rint(restored + preset.share * (source.astype(np.float32) - restored)).astype(np.uint8)


def _starts(length: int) -> list[int]:
    """Where tiles begin."""
    if length <= TILE:
        return [0]
    count = -(-(length - OVERLAP) // (TILE - OVERLAP))
    return [-(-i * (length - TILE) // ((count - 1) * GRID)) * GRID for i in range(count)]


def _fade(length: int) -> Pixels:
    place = np.arange(length, dtype=np.float32) + np.float32(0.5)
    return np.minimum(np.minimum(place, length - place) / np.float32(OVERLAP), 1).astype(np.float32)
