"""Validation pictures: fixed samples of the state of a training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from authface.faces.identity import SeenFace, make_embedder
from authface.models import sdxl
from authface.models.sampling import make_scheduler
from authface.train.data import FaceDataset


@dataclass(frozen=True)
class ValidationPicture:
    """A validation picture, and figures of what is in it by name."""

    image: NDArray[np.uint8]
    scores: dict[str, float] = field(default_factory=dict)


SEED = 1
"""Of the noise that validation pictures begin from: the same at every step, so that they can be compared."""


def grid(columns: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Columns (n, h, w, 3) side by side: (n h, columns w, 3)."""
    rows = np.concatenate(columns, axis=2)
    return rows.reshape(-1, *rows.shape[2:])


def sample(
    unet: Any, vae: Any, scheduler: Any, text: sdxl.TextEmbedding, size: int, steps: int, control: Any = None,
    condition: torch.Tensor | None = None, strength: float = 1,
) -> NDArray[np.uint8]:  # fmt: skip
    """(n, size, size, 3): images of the prompts in `text`, by stock pipelines, DDIM and no guidance.

    With `control` (a ControlNet) `condition` (n, 3, size, size) in 0..1 leads the way, and below a `strength` of 1 is
    what denoising begins from, with so much of the schedule's noise, in one step or more.
    """
    from diffusers import (
        StableDiffusionXLControlNetImg2ImgPipeline,
        StableDiffusionXLControlNetPipeline,
        StableDiffusionXLPipeline,
    )

    shared: dict[str, Any] = {
        "vae": vae, "text_encoder": None, "text_encoder_2": None, "tokenizer": None, "tokenizer_2": None, "unet": unet,
        "scheduler": make_scheduler("ddim", scheduler.config),
        "add_watermarker": False,
    }  # fmt: skip
    call: dict[str, Any] = {}
    if control is None:
        pipeline = StableDiffusionXLPipeline(**shared)
    elif strength == 1:
        pipeline = StableDiffusionXLControlNetPipeline(controlnet=control, **shared)
        call = {"image": condition}
    else:
        vae.to(unet.device)  # which training keeps elsewhere
        pipeline = StableDiffusionXLControlNetImg2ImgPipeline(controlnet=control, **shared)
        call = {"image": condition, "control_image": condition, "strength": strength,
                "controlnet_conditioning_scale": 1.0}  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    latents = pipeline(
        prompt_embeds=text.states.to(unet.device, unet.dtype),
        pooled_prompt_embeds=text.pooled.to(unet.device, unet.dtype),
        height=size, width=size, num_inference_steps=max(steps, math.ceil(1 / strength)), guidance_scale=1.0,
        output_type="latent", generator=torch.Generator().manual_seed(SEED), **call,
    ).images  # fmt: skip
    with torch.autocast(latents.device.type, enabled=False):
        vae.to(latents.device)
        images = np.concatenate([sdxl.to_rgb(sdxl.decode(vae, one[None])) for one in latents])
        vae.to("cpu")
        return images


def psnr(clean: NDArray[np.uint8], made: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n,) PSNR of `made` (n, h, w, 3) in dB, over all pixels of each."""
    error = np.square(clean.astype(np.float32) - made.astype(np.float32)).mean((1, 2, 3))
    found: NDArray[np.float32] = 10 * np.log10(255**2 / np.maximum(error, 1e-6))
    return found


def fidelity(faces: FaceDataset, clean: NDArray[np.uint8], made: NDArray[np.uint8]) -> dict[str, float]:
    """How close `made` (n, h, w, 3) comes to `clean`, the first n of `faces`: means over the faces.

    `psnr` in dB over all pixels; `identity`, the cosine of dlib's embeddings, where the dataset has landmarks.
    """
    scores = {"psnr": float(psnr(clean, made).mean())}
    points = [faces.landmarks(i) for i in range(len(clean))]
    if found := [(a, b, p) for a, b, p in zip(clean, made, points, strict=True) if p is not None]:
        embedder = make_embedder("dlib")
        before = embedder.embed([SeenFace(a, p) for a, _, p in found])
        after = embedder.embed([SeenFace(b, p) for _, b, p in found])
        scores["identity"] = float((before * after).sum(1).mean())
    return scores
