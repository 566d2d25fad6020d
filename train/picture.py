"""Validation pictures: fixed samples of the state of a training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from authface import sdxl

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEED = 1
"""Of the noise that validation pictures begin from: the same at every step, so that they can be compared."""


def grid(columns: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Columns (n, h, w, 3) side by side: (n h, columns w, 3)."""
    rows = np.concatenate(columns, axis=2)
    return rows.reshape(-1, *rows.shape[2:])


def sample(
    unet: Any, vae: Any, scheduler: Any, text: sdxl.TextEmbedding, size: int, steps: int, control: Any = None,
    condition: torch.Tensor | None = None,
) -> NDArray[np.uint8]:  # fmt: skip
    """(n, size, size, 3): images of the prompts in `text`, by stock pipelines, DDIM and no guidance.

    With `control` (a ControlNet) `condition` (n, 3, size, size) in 0..1 leads the way.
    """
    from diffusers import DDIMScheduler, StableDiffusionXLControlNetPipeline, StableDiffusionXLPipeline

    shared: dict[str, Any] = {
        "vae": vae, "text_encoder": None, "text_encoder_2": None, "tokenizer": None, "tokenizer_2": None, "unet": unet,
        "scheduler": DDIMScheduler.from_config(scheduler.config, clip_sample=False, timestep_spacing="trailing"),
        "add_watermarker": False,
    }  # fmt: skip
    call: dict[str, Any] = {}
    if control is None:
        pipeline = StableDiffusionXLPipeline(**shared)
    else:
        pipeline = StableDiffusionXLControlNetPipeline(controlnet=control, **shared)
        call = {"image": condition}
    pipeline.set_progress_bar_config(disable=True)
    latents = pipeline(
        prompt_embeds=text.states.to(unet.device, unet.dtype),
        pooled_prompt_embeds=text.pooled.to(unet.device, unet.dtype),
        height=size, width=size, num_inference_steps=steps, guidance_scale=1.0, output_type="latent",
        generator=torch.Generator().manual_seed(SEED), **call,
    ).images  # fmt: skip
    with torch.autocast(latents.device.type, enabled=False):
        return sdxl.to_rgb(sdxl.decode(vae, latents))
