"""Settings of the trainings: one model each, and what they share."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from authface.recipe import Settings


class TrainSettings(Settings):
    """What every training has; a step is one change of the weights."""

    model: str = "tiny"
    """The family to begin from: a known name, a folder in diffusers' layout, or owner/repository on the hub."""
    dataset: Path = Path("photoset/dataset")
    """A Hugging Face dataset folder with the columns image, prompt and id."""
    out: Path = Path("models/out")
    """Where the trained family goes; its folder `training` holds checkpoints, metrics and validation pictures."""
    size: int = Field(default=256, ge=64, multiple_of=64)
    """Side of the images, pixels."""
    flip: bool = True
    """Mirror half of the images."""
    steps: int = Field(default=2000, ge=1)
    batch: int = Field(default=4, ge=1)
    """Images a process works on at once; the paper's batch is batch x accumulate x processes."""
    accumulate: int = Field(default=1, ge=1)
    """Batches whose gradients are summed to one step."""
    lr: float = Field(default=1e-4, gt=0)
    warmup: int = Field(default=50, ge=0)
    """Steps in which the learning rate rises to `lr`."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """After the warm-up: stay, or fall to zero at the last step."""
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    ema: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the moving average that becomes the model; it begins lower and rises. 0 keeps the last weights."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 computes in bfloat16 over float32 weights; auto takes it on CUDA. Weights in bfloat16 would not move at
    the paper's learning rate of 5e-7."""
    gradient_checkpointing: bool = False
    """Compute activations twice to save memory."""
    save_every: int = Field(default=500, ge=1)
    keep: int = Field(default=2, ge=1)
    """Checkpoints that are kept."""
    validate_every: int = Field(default=500, ge=0)
    """Steps between validation pictures, which also come after the last step; 0 draws none."""
    validate_count: int = Field(default=4, ge=1)
    """Faces (the first of the dataset) in a validation picture."""
    tracker: Literal["tensorboard", "wandb", "trackio", "none"] = "tensorboard"
    """Where metrics go beside training/metrics.jsonl."""
    loader_workers: int | None = Field(default=None, ge=0)
    """Processes that read images; None takes none on the CPU and half the cores beside a GPU."""


class AutoencoderSettings(TrainSettings):
    """Training of a family's VAE in pixels; the paper takes SDXL's as it is, `tiny` begins without one."""

    model: str = "new"
    """`new` begins a tiny family with random weights; else a family whose VAE is trained on."""
    out: Path = Path("models/autoencoder")
    patch: int = Field(default=64, ge=0, multiple_of=8)
    """Side of the random patches trained on, pixels; 0 takes whole images."""
    batch: int = Field(default=8, ge=1)
    lr: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.99)
    moments: float = Field(default=0.01, ge=0)
    """Weight of the pull of each latent channel to mean 0 and standard deviation 1."""

    @model_validator(mode="after")
    def _patch_fits(self) -> AutoencoderSettings:
        if self.patch > self.size:
            raise ValueError(f"patch {self.patch} is larger than size {self.size}")
        return self


class PriorSettings(TrainSettings):
    """Stage I: the U-Net on captioned faces, by SDXL's own objective."""

    out: Path = Path("models/prior")
    prompt_dropout: float = Field(default=0.1, ge=0, le=1)
    """Share of images shown with the empty prompt, which stage II and guidance need."""
    validate_steps: int = Field(default=20, ge=1)
    """Denoising steps of a validation picture."""
    cache: Path | None = None
    """Folder of cached latents and text embeddings; None takes training/cache in `out`."""


class ControlNetSettings(TrainSettings):
    """Stage II: a ControlNet on degraded faces over the frozen prior (equation 1)."""

    model: str = "models/prior"
    out: Path = Path("models/authface")
    lr: float = Field(default=1e-4, gt=0)
    degradation: str = "gfpgan"
    """Name of the degradation model, see authface.degrade."""
    validate_steps: int = Field(default=20, ge=1)
    """Denoising steps of a validation picture."""
    cache: Path | None = None
    """Folder of cached latents and text embeddings; None takes training/cache in `out`."""
