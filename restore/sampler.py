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


@dataclass(frozen=True)
class Condition:
    """One prompt, encoded by both text encoders: `tokens` (1, 77, c) and `pooled` (1, p)."""

    tokens: torch.Tensor
    pooled: torch.Tensor


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


def encode_prompt(text: str, tokenizers: Sequence[Any], encoders: Sequence[Any]) -> Condition:
    """SDXL's conditioning: the second-last hidden states of both encoders side by side, the second's pooled output."""
    import torch

    tokens, pooled = [], None
    for tokenizer, encoder in zip(tokenizers, encoders, strict=True):
        ids = tokenizer(
            text, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
        ).input_ids
        with torch.inference_mode():
            output = encoder(ids.to(encoder.device), output_hidden_states=True)
        tokens.append(output.hidden_states[-2])
        pooled = output[0]
    if pooled is None or pooled.ndim != 2:
        raise UsageError("the model's second text encoder gives no pooled output: it is of no SDXL family")
    return Condition(torch.cat(tokens, dim=-1), pooled)


class DiffusionRestorer:
    """An SDXL-shaped U-Net with a ControlNet over the pixels of the degraded crop.

    `parts` holds `unet`, `controlnet`, `vae` and `scheduler`; the text encoders' say is in `prompt` and `negative`.
    U-Net and ControlNet may be of half precision; the latents and the VAE, which overflows in float16, are float32.
    Raises UsageError where `size` does not fit the latent grid.
    """

    def __init__(self, parts: Parts, prompt: Condition, negative: Condition, sampling: Sampling, size: int) -> None:
        self.unet, self.controlnet, self.vae = parts.unet, parts.controlnet, parts.vae
        self.schedule = parts.scheduler.config
        self.prompt, self.negative, self.sampling = prompt, negative, sampling
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

        dtype, device = self.unet.dtype, self.unet.device
        image = torch.from_numpy(np.ascontiguousarray(crops)).permute(0, 3, 1, 2).to(device, dtype) / 255
        latents = self._denoise(image, [torch.Generator("cpu").manual_seed(seed) for seed in seeds])
        pixels = torch.cat([self._decode(latent[None]) for latent in latents])
        if not bool(torch.isfinite(pixels).all()):
            raise AuthfaceError(f"the model's values overflow in {dtype}: -O restore.dtype=float32")
        result: NDArray[np.uint8] = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return result

    def _denoise(self, image: torch.Tensor, generators: list[torch.Generator]) -> torch.Tensor:
        """Latents (n, c, h, w) float32 from pure noise, led by `image` (n, 3, size, size) of 0..1."""
        import torch
        from diffusers.utils.torch_utils import randn_tensor

        sampling, dtype = self.sampling, self.unet.dtype
        scheduler = make_scheduler(sampling.scheduler, self.schedule)
        scheduler.set_timesteps(sampling.steps, device=image.device)
        side = self.size // self.factor
        shape = (len(image), self.unet.config.in_channels, side, side)
        latents = randn_tensor(shape, generators, image.device, torch.float32) * scheduler.init_noise_sigma
        guided = sampling.guidance > 1
        conditions = [self.negative, self.prompt] if guided else [self.prompt]
        text = self._stack([condition.tokens for condition in conditions], len(image))
        pooled = self._stack([condition.pooled for condition in conditions], len(image))
        time_ids = torch.tensor([[self.size, self.size, 0, 0, self.size, self.size]], dtype=dtype, device=image.device)
        added = {"text_embeds": pooled, "time_ids": time_ids.repeat(len(pooled), 1)}
        image = image.repeat(len(conditions), 1, 1, 1)
        for t in scheduler.timesteps:
            noisy = scheduler.scale_model_input(latents, t).to(dtype).repeat(len(conditions), 1, 1, 1)
            predicted = self._predict(noisy, t, text, added, image).float()
            if guided:
                without, told = predicted.chunk(2)
                predicted = without + sampling.guidance * (told - without)
            latents = scheduler.step(predicted, t, latents, generator=generators, return_dict=False)[0]
        return latents

    def _predict(
        self,
        noisy: torch.Tensor,
        t: torch.Tensor,
        text: torch.Tensor,
        added: dict[str, torch.Tensor],
        image: torch.Tensor,
    ) -> torch.Tensor:
        down, mid = self.controlnet(
            noisy,
            t,
            encoder_hidden_states=text,
            controlnet_cond=image,
            conditioning_scale=self.sampling.control_scale,
            added_cond_kwargs=added,
            return_dict=False,
        )
        predicted: torch.Tensor = self.unet(
            noisy,
            t,
            encoder_hidden_states=text,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return predicted

    def _decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Pixels 0..1 of (1, c, h, w) latents; one at a time, which bounds memory."""
        pixels: torch.Tensor = self.vae.decode(latent / self.vae.config.scaling_factor, return_dict=False)[0]
        return pixels / 2 + 0.5

    def _stack(self, parts: list[torch.Tensor], n: int) -> torch.Tensor:
        """Each (1, ...) part `n` times, as the U-Net takes it."""
        import torch

        return torch.cat([part.expand(n, *part.shape[1:]) for part in parts]).to(self.unet.device, self.unet.dtype)
