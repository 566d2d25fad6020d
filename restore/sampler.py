"""Crops in, restored crops out: a face prior led by a ControlNet, from stock diffusers classes.

The loop is that of AuthFace's released inference, a stock SDXL ControlNet pipeline that starts from pure noise, or of
the image-to-image pipeline, which starts from the photo; with one seed a face, so that neither batch nor order changes
a result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from inspect import signature
from typing import TYPE_CHECKING, Any

from authface.errors import AuthfaceError, UsageError
from authface.restore.colour import LEVELS, wavelet_fix

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from authface.models import Parts
    from authface.restore.presets import Preset
    from authface.restore.settings import RestoreSettings
    from authface.sdxl import TextEmbedding


@dataclass(frozen=True)
class Condition:
    """What leads the model in every step: the embeddings of n images and as many rows of text and time ids."""

    image: torch.Tensor
    states: torch.Tensor
    pooled: torch.Tensor
    time_ids: torch.Tensor


@dataclass(frozen=True)
class Sampling:
    """How latents are denoised: `scheduler` is a name of `make_scheduler`; guidance of 1 or less is none.

    `strength` 1 starts from pure noise, less from the photo; `shared_seed` is that of one generator for all faces.
    Of its input a face keeps the tones that `levels` of blur leave, and the share `input_share` of all the rest.
    """

    scheduler: str
    steps: int
    guidance: float
    control_scale: float
    strength: float
    batch: int
    shared_seed: int | None = None
    levels: int | None = None
    input_share: float = 0.0

    def at(self, fidelity: float, size: int) -> Sampling:
        """The same for crops of `size` px at a fidelity of 0..1: see `RestoreSettings.fidelity`."""
        return replace(
            self,
            strength=min(1.0, self.strength * (1.5 - fidelity)) if fidelity != 0.5 else self.strength,
            control_scale=control_scale(fidelity),
            levels=kept_levels(fidelity, self.levels, size),
            input_share=input_share(fidelity),
        )


def chosen(settings: RestoreSettings, preset: Preset) -> Preset:
    """The preset with what the settings name in its place."""
    named = ("scheduler", "steps", "guidance", "strength", "prompt", "negative_prompt")
    return preset.model_copy(update={k: v for k in named if (v := getattr(settings, k)) is not None})


def sampling_of(preset: Preset, batch: int) -> Sampling:
    """The part of a preset that the loop reads; `batch` counts where the preset has none."""
    return Sampling(
        preset.scheduler,
        preset.steps,
        preset.guidance,
        1.0,
        preset.strength,
        preset.batch or batch,
        preset.shared_seed,
        preset.levels,
    )


def kept_levels(fidelity: float, levels: int | None, size: int) -> int | None:
    """Levels of the wavelet fix for a crop of `size` px at a fidelity of 0..1; None: as the colour fix has it.

    Up to 0.5 the preset's `levels`, then ever fewer, to 3 for 256 px at a fidelity of 1, which keeps the input's tones
    down to a sigma of 3.2 px: of a photo that is not hopeless those are right, and no model knows them better.
    """
    if fidelity <= 0.5:
        return levels
    finest = max(1, round(3 + math.log2(size / 256)))
    first = max(levels or LEVELS, finest)
    return round(first - (2 * fidelity - 1) * (first - finest))


def input_share(fidelity: float) -> float:
    """The share of the input that a restored face is mixed with: 0 up to a fidelity of 0.5, then to 0.5 at 1.

    The errors of both are hardly alike, so their mean is nearer to the truth than either.
    """
    return max(0.0, fidelity - 0.5)


def control_scale(fidelity: float) -> float:
    """The ControlNet's conditioning scale, 0.5..1, of a fidelity 0..1: from 0.5 on it is 1, the scale of training."""
    return min(1.0, 0.5 + fidelity)


def make_scheduler(name: str, trained: Any) -> Any:
    """The sampler `name` on the noise schedule, and for the kind of prediction, that the model was trained with.

    `trained` is the config of the model's own scheduler. Few-step solvers space their steps from the last
    timestep, so that the start is pure noise (Lin et al. 2024, `trailing`); `ddpm` keeps the model's spacing.
    """
    import diffusers

    if name == "ddpm":
        return diffusers.DDPMScheduler.from_config(trained)
    if name == "dpm++":
        return diffusers.DPMSolverMultistepScheduler.from_config(
            trained, algorithm_type="dpmsolver++", timestep_spacing="trailing", use_karras_sigmas=False
        )
    if name == "lcm":
        return diffusers.LCMScheduler.from_config(trained)
    kinds = {
        "ddim": diffusers.DDIMScheduler,
        "euler": diffusers.EulerDiscreteScheduler,
        "unipc": diffusers.UniPCMultistepScheduler,
    }
    return kinds[name].from_config(trained, timestep_spacing="trailing")


def begin(scheduler: Any, sampling: Sampling, device: Any) -> torch.Tensor:
    """Set the timesteps to be taken, `sampling.steps` of them, and return them.

    Below a strength of 1 they are the last of so many more, as in diffusers' image-to-image pipelines.
    """
    total = max(sampling.steps, round(sampling.steps / sampling.strength))
    scheduler.set_timesteps(total, device=device)
    first = total - sampling.steps
    if first and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first * scheduler.order)
    timesteps: torch.Tensor = scheduler.timesteps[first * scheduler.order :]
    return timesteps


def _kept(restored: NDArray[np.uint8], source: NDArray[np.uint8], sampling: Sampling) -> NDArray[np.uint8]:
    """The restored (h, w, 3) crop with what it keeps of its input."""
    import numpy as np

    if sampling.levels is not None:
        restored = wavelet_fix(restored, source, sampling.levels)
    if not sampling.input_share:
        return restored
    mixed = restored + sampling.input_share * (source.astype(np.float32) - restored)
    return np.rint(mixed).astype(np.uint8)


class DiffusionRestorer:
    """An SDXL-shaped U-Net with a ControlNet over the pixels of the degraded crop.

    `parts` holds `unet`, `controlnet`, `vae` and `scheduler`; `text` what the encoders say of the prompt and, in a
    second row, of the negative prompt. U-Net and ControlNet may be of half precision; the latents and the VAE, which
    overflows in float16, are of float32. Raises UsageError where `size` does not fit the latent grid.
    """

    def __init__(self, parts: Parts, text: TextEmbedding, sampling: Sampling, size: int, fidelity: float = 0.5) -> None:
        import torch

        self.unet, self.controlnet, self.vae = parts.unet, parts.controlnet, parts.vae
        self.schedule = parts.scheduler.config
        self.text, self.sampling, self.fidelity = text, sampling, fidelity
        self.factor = 2 ** (len(parts.vae.config.block_out_channels) - 1)
        grid = self.factor * 2 ** (len(parts.unet.config.block_out_channels) - 1)
        if size % grid:
            raise UsageError(f"restore.size={size}: this model takes multiples of {grid} px")
        self._size = size
        seed = sampling.shared_seed
        self._shared = None if seed is None else torch.Generator("cpu").manual_seed(seed)

    @property
    def size(self) -> int:
        """Side of the crops, pixels."""
        return self._size

    def restore(
        self, crops: NDArray[np.uint8], seeds: Sequence[int], fidelity: float | None = None
    ) -> NDArray[np.uint8]:
        """Restored (n, size, size, 3) uint8 RGB crops; `fidelity` 0..1 is the settings' unless given.

        Raises AuthfaceError where memory or precision fall short.
        """
        import numpy as np
        import torch

        if len(crops) == 0:
            return crops
        sampling = self.sampling.at(self.fidelity if fidelity is None else fidelity, self.size)
        step = sampling.batch
        starts = range(0, len(crops), step)
        try:
            with torch.inference_mode():
                done = [self._batch(crops[i : i + step], seeds[i : i + step], sampling) for i in starts]
        except torch.OutOfMemoryError as error:
            raise AuthfaceError(
                f"{step} faces of {self.size} px at a time do not fit into memory: -O restore.batch={max(1, step // 2)}"
            ) from error
        return np.concatenate(done)

    def _batch(self, crops: NDArray[np.uint8], seeds: Sequence[int], sampling: Sampling) -> NDArray[np.uint8]:
        import numpy as np
        import torch

        from authface.sdxl import decode, to_rgb, to_unit

        image = to_unit(np.ascontiguousarray(crops)).to(self.unet.device)
        generators = self._shared or [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        latents = self._denoise(image, generators, sampling)
        if not bool(torch.isfinite(latents).all()):
            raise AuthfaceError(f"the model's values overflow in {self.unet.dtype}: -O restore.dtype=float32")
        # One at a time: the decoder takes more memory than all the rest.
        restored = np.concatenate([to_rgb(decode(self.vae, latent[None])) for latent in latents])
        return np.stack([_kept(one, source, sampling) for one, source in zip(restored, crops, strict=True)])

    def _denoise(self, image: torch.Tensor, generators: Any, sampling: Sampling) -> torch.Tensor:
        """Latents (n, c, h, w) float32 led by `image` (n, 3, size, size) of 0..1, float32; from noise or from it."""
        import torch
        from diffusers.utils.torch_utils import randn_tensor

        scheduler = make_scheduler(sampling.scheduler, self.schedule)
        drawing = {"generator": generators} if "generator" in signature(scheduler.step).parameters else {}
        timesteps = begin(scheduler, sampling, image.device)
        side = self.size // self.factor
        shape = (len(image), self.unet.config.in_channels, side, side)
        noise = randn_tensor(shape, generators, image.device, torch.float32)
        if len(timesteps) == scheduler.num_inference_steps:
            latents = noise * scheduler.init_noise_sigma
        else:
            latents = scheduler.add_noise(self._encoded(image), noise, timesteps[:1].repeat(len(image)))
        rows = [0, 1] if sampling.guidance > 1 else [0]
        with self._condition(image.to(self.unet.dtype), rows) as condition:
            for t in timesteps:
                noisy = scheduler.scale_model_input(latents, t).to(self.unet.dtype).repeat(len(rows), 1, 1, 1)
                predicted = self._predict(noisy, t, condition, sampling).float().chunk(len(rows))
                guided = predicted[0]
                if rows[1:]:
                    guided = predicted[1] + sampling.guidance * (predicted[0] - predicted[1])
                latents = scheduler.step(guided, t, latents, **drawing, return_dict=False)[0]
        return torch.as_tensor(latents)

    def _encoded(self, image: torch.Tensor) -> torch.Tensor:
        """The latents of the crops, one at a time: the encoder takes more memory than all the rest."""
        import torch

        from authface.sdxl import encode

        return torch.cat([encode(self.vae, one[None] * 2 - 1) for one in image])

    @contextmanager
    def _condition(self, image: torch.Tensor, rows: list[int]) -> Iterator[Condition]:
        """What leads the model, for each of `rows` of the text in turn with all of the images.

        Within the block the ControlNet takes the embedding of its images in their place: it is the same in every step
        and every row, and a third of a step's time.
        """
        import torch

        from authface.sdxl import time_ids

        count = len(rows) * len(image)
        states, pooled = (
            part[rows].repeat_interleave(len(image), dim=0).to(image) for part in (self.text.states, self.text.pooled)
        )
        embedding = self.controlnet.controlnet_cond_embedding
        embedded = embedding(image).repeat(len(rows), 1, 1, 1)
        self.controlnet.controlnet_cond_embedding = torch.nn.Identity()
        try:
            yield Condition(embedded, states, pooled, time_ids(self.size, count, image))
        finally:
            self.controlnet.controlnet_cond_embedding = embedding

    def _predict(self, noisy: torch.Tensor, t: torch.Tensor, condition: Condition, sampling: Sampling) -> torch.Tensor:
        added = {"text_embeds": condition.pooled, "time_ids": condition.time_ids}
        down, mid = self.controlnet(
            noisy,
            t,
            encoder_hidden_states=condition.states,
            controlnet_cond=condition.image,
            conditioning_scale=sampling.control_scale,
            added_cond_kwargs=added,
            return_dict=False,
        )
        predicted: torch.Tensor = self.unet(
            noisy,
            t,
            encoder_hidden_states=condition.states,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return predicted
