"""Crops in, restored crops out: a face prior led by a ControlNet, from stock diffusers classes.

The loop is that of AuthFace's released inference (a stock SDXL ControlNet pipeline that starts from pure noise),
with one seed a face, so that neither batch nor order changes a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from authface.errors import AuthfaceError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from authface.models import Parts
    from authface.restore.settings import RestoreSettings
    from authface.sdxl import TextEmbedding


@dataclass(frozen=True)
class Condition:
    """What leads the model in every step: n images of 0..1 and as many rows of text and time ids."""

    image: torch.Tensor
    states: torch.Tensor
    pooled: torch.Tensor
    time_ids: torch.Tensor


@dataclass(frozen=True)
class Sampling:
    """How latents are denoised: `scheduler` is a name of `make_scheduler`; guidance of 1 or less is none."""

    scheduler: str
    steps: int
    guidance: float
    control_scale: float
    batch: int


def sampling_of(settings: RestoreSettings) -> Sampling:
    """The part of the settings that the loop reads."""
    return Sampling(
        settings.scheduler, settings.steps, settings.guidance, control_scale(settings.fidelity), settings.batch
    )


def control_scale(fidelity: float) -> float:
    """The ControlNet's conditioning scale, 0.5..1.5, of a fidelity 0..1: at 0.5 it is 1, the scale of training."""
    return 0.5 + fidelity


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
    kinds = {"ddim": diffusers.DDIMScheduler, "euler": diffusers.EulerDiscreteScheduler}
    return kinds[name].from_config(trained, timestep_spacing="trailing")


class DiffusionRestorer:
    """An SDXL-shaped U-Net with a ControlNet over the pixels of the degraded crop.

    `parts` holds `unet`, `controlnet`, `vae` and `scheduler`; `text` what the encoders say of the prompt and, in a
    second row, of the negative prompt. U-Net and ControlNet may be of half precision; the latents and the VAE, which
    overflows in float16, are of float32. Raises UsageError where `size` does not fit the latent grid.
    """

    def __init__(self, parts: Parts, text: TextEmbedding, sampling: Sampling, size: int) -> None:
        self.unet, self.controlnet, self.vae = parts.unet, parts.controlnet, parts.vae
        self.schedule = parts.scheduler.config
        self.text, self.sampling = text, sampling
        self.factor = 2 ** (len(parts.vae.config.block_out_channels) - 1)
        grid = self.factor * 2 ** (len(parts.unet.config.block_out_channels) - 1)
        if size % grid:
            raise UsageError(f"restore.size={size}: this model takes multiples of {grid} px")
        self._size = size

    @property
    def size(self) -> int:
        """Side of the crops, pixels."""
        return self._size

    def restore(self, crops: NDArray[np.uint8], seeds: Sequence[int]) -> NDArray[np.uint8]:
        """Restored (n, size, size, 3) uint8 RGB crops. Raises AuthfaceError where memory or precision fall short."""
        import numpy as np
        import torch

        if len(crops) == 0:
            return crops
        step = self.sampling.batch
        try:
            with torch.inference_mode():
                done = [self._batch(crops[i : i + step], seeds[i : i + step]) for i in range(0, len(crops), step)]
        except torch.OutOfMemoryError as error:
            raise AuthfaceError(
                f"{step} faces of {self.size} px at a time do not fit into memory: -O restore.batch={max(1, step // 2)}"
            ) from error
        return np.concatenate(done)

    def _batch(self, crops: NDArray[np.uint8], seeds: Sequence[int]) -> NDArray[np.uint8]:
        import numpy as np
        import torch

        from authface.sdxl import decode, to_rgb, to_unit

        dtype = self.unet.dtype
        image = to_unit(np.ascontiguousarray(crops)).to(self.unet.device, dtype)
        latents = self._denoise(image, [torch.Generator("cpu").manual_seed(seed) for seed in seeds])
        if not bool(torch.isfinite(latents).all()):
            raise AuthfaceError(f"the model's values overflow in {dtype}: -O restore.dtype=float32")
        # One at a time: the decoder takes more memory than all the rest.
        return np.concatenate([to_rgb(decode(self.vae, latent[None])) for latent in latents])

    def _denoise(self, image: torch.Tensor, generators: list[torch.Generator]) -> torch.Tensor:
        """Latents (n, c, h, w) float32 from pure noise, led by `image` (n, 3, size, size) of 0..1."""
        import torch
        from diffusers.utils.torch_utils import randn_tensor

        sampling = self.sampling
        scheduler = make_scheduler(sampling.scheduler, self.schedule)
        scheduler.set_timesteps(sampling.steps, device=image.device)
        side = self.size // self.factor
        shape = (len(image), self.unet.config.in_channels, side, side)
        latents = randn_tensor(shape, generators, image.device, torch.float32) * scheduler.init_noise_sigma
        rows = [0, 1] if sampling.guidance > 1 else [0]
        condition = self._condition(image, rows)
        for t in scheduler.timesteps:
            noisy = scheduler.scale_model_input(latents, t).to(image.dtype).repeat(len(rows), 1, 1, 1)
            predicted = self._predict(noisy, t, condition).float().chunk(len(rows))
            guided = predicted[-1] + sampling.guidance * (predicted[0] - predicted[-1]) if rows[1:] else predicted[0]
            latents = scheduler.step(guided, t, latents, generator=generators, return_dict=False)[0]
        return torch.as_tensor(latents)

    def _condition(self, image: torch.Tensor, rows: list[int]) -> Condition:
        """What leads the model, for each of `rows` of the text in turn with all of the images."""
        from authface.sdxl import time_ids

        count = len(rows) * len(image)
        states, pooled = (
            part[rows].repeat_interleave(len(image), dim=0).to(image) for part in (self.text.states, self.text.pooled)
        )
        return Condition(image.repeat(len(rows), 1, 1, 1), states, pooled, time_ids(self.size, count, image))

    def _predict(self, noisy: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        added = {"text_embeds": condition.pooled, "time_ids": condition.time_ids}
        down, mid = self.controlnet(
            noisy,
            t,
            encoder_hidden_states=condition.states,
            controlnet_cond=condition.image,
            conditioning_scale=self.sampling.control_scale,
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
