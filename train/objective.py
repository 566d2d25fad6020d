"""What the training loop needs of a stage: the module, batches, their noise and the loss, and validation pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from authface.faces.identity import SeenFace, make_embedder
from authface.models import sdxl
from authface.models.sampling import make_scheduler
from authface.train.data import Batch, Draw, FaceDataset


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


B = TypeVar("B", bound=Batch)


class Noise:
    """One generator a face, seeded by the run's seed and the face's place in the endless stream of faces.

    So a face meets the same noise in a batch of 8, in two accumulated batches of 4, and on four processes that take
    two each. Every method draws on the CPU, for all faces: a row each, in the order of `positions`.
    """

    def __init__(self, seed: int, positions: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(_entropy(seed, position)) for position in positions]

    def normal(self, *shape: int) -> torch.Tensor:
        """(n, *shape): standard normal."""
        return torch.stack([torch.randn(shape, generator=one) for one in self._generators])

    def integers(self, high: int, power: float = 0) -> torch.Tensor:
        """(n,) int64 over 0 .. high - 1: uniform, or with a density that grows as their `power`."""
        if power:
            late = self.uniform().double() ** (1 / (1 + power))  # 1 where the power is beyond float64's digits
            return (late * high).long().clamp(max=high - 1)
        return torch.cat([torch.randint(high, (1,), generator=one) for one in self._generators])

    def uniform(self) -> torch.Tensor:
        """(n,): uniform over [0, 1)."""
        return torch.cat([torch.rand(1, generator=one) for one in self._generators])


def _entropy(seed: int, position: int) -> int:
    return int(np.random.SeedSequence((seed, position, 2)).generate_state(1)[0])


@dataclass(frozen=True)
class Loss:
    """Losses of one batch: `total` (scalar) trains the objective's module, `critic` (scalar) its discriminators.

    `parts` are scalars to log beside their sum: the same names for every batch of a run.
    """

    total: torch.Tensor
    critic: torch.Tensor | None = None
    parts: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def __add__(self, other: Loss) -> Loss:
        """The sum of both, with the parts of both."""
        critics = [critic for critic in (self.critic, other.critic) if critic is not None]
        critic = torch.stack(critics).sum() if critics else None
        return Loss(self.total + other.total, critic, {**self.parts, **other.parts})


class Auxiliary(Protocol):
    """What is trained beside the objective's module, such as discriminators, and is saved with the run's state."""

    def step(self, accelerator: Any) -> None:
        """Take a step by the accumulated gradients, averaged over the processes."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Its state."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        ...


class Objective(Protocol[B]):
    """One stage: the module that is trained, its batches and its loss. The loop knows nothing else of a stage."""

    @property
    def trained(self) -> torch.nn.Module:
        """The module whose weights move, in float32; its forward is called through `loss`'s `model`."""
        ...

    @property
    def auxiliaries(self) -> Sequence[Auxiliary]:
        """What is trained beside it, such as discriminators."""
        ...

    @property
    def faces(self) -> FaceDataset:
        """The dataset."""
        ...

    def batch(self, draws: Sequence[Draw]) -> B:
        """Read the faces of `draws`, on the CPU: runs in a loader's process."""
        ...

    def loss(self, model: torch.nn.Module, batch: B, random: Noise, step: int) -> Loss:
        """The loss of step 0, 1, ...: means over the faces; all randomness comes from `random`, on the CPU."""
        ...

    def picture(self) -> ValidationPicture:
        """Fixed samples of the state of training, and figures of them."""
        ...

    def write(self, out: Path) -> None:
        """Make `out` a whole family with the trained part in it."""
        ...
