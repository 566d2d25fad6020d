"""Settings of the trainings: one model each, and what they share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from authface.devices import cpu_has_bf16
from authface.models.tiny import CLEANER_CHANNELS
from authface.recipe import Settings

if TYPE_CHECKING:
    import torch


Decay = Annotated[float, Field(ge=0, lt=1)]
"""Of a moving average: its share that stays at each step."""


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
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    weight_decay: float = Field(default=0.01, ge=0)
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    """`adamw8bit` keeps both moments in 8 bits (bitsandbytes, CUDA): a quarter of AdamW's memory for them."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    ema: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the moving average that becomes the model; it begins lower and rises. 0 keeps the last weights."""
    ema_device: Literal["same", "cpu"] = "same"
    """Where the moving average lies: `cpu` spares a GPU the weights once more, and costs a copy of them a step."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 computes in bfloat16 over float32 weights, but on a CPU without instructions for it in float32, which is
    eight times as fast there; auto takes it on CUDA. Weights in bfloat16 would not move at the paper's rate of 5e-7."""
    gradient_checkpointing: bool = False
    """Compute activations twice to save memory."""
    channels_last: bool | None = None
    """Lay images out with their channels side by side, as convolutions read them: a tenth faster on CPUs, more on
    GPUs in half precision. None does so wherever it can be done: not under FSDP, which shards rows."""
    compile: bool = False
    """Compile the trained network with torch.compile: minutes at the start, faster steps after."""
    save_every: int = Field(default=500, ge=1)
    keep: int = Field(default=2, ge=1)
    """Checkpoints that are kept."""
    validate_every: int = Field(default=500, ge=0)
    """Steps between validation pictures, which also come after the last step; 0 draws none."""
    validate_count: int = Field(default=4, ge=1)
    """Faces in a validation picture: the first of the dataset's split `validation`, else of `train`."""
    tracker: Literal["tensorboard", "wandb", "trackio", "none"] = "tensorboard"
    """Where metrics go beside training/metrics.jsonl."""
    loader_workers: int | None = Field(default=None, ge=0)
    """Processes that read images; None takes none on the CPU and half the cores beside a GPU."""

    def half(self, device: torch.device) -> bool:
        """Whether arithmetic on `device` is done in bfloat16."""
        if device.type == "cpu":
            return self.precision == "bf16" and cpu_has_bf16()
        return self.precision == "bf16" or (self.precision == "auto" and device.type == "cuda")


class PatchSettings(TrainSettings):
    """What trainings on patches share."""

    patch: int = 0
    """Side of the random patches trained on, pixels."""

    @model_validator(mode="after")
    def _patch_fits(self) -> Self:
        if self.patch > self.size:
            raise ValueError(f"patch {self.patch} is larger than size {self.size}")
        return self


class AutoencoderSettings(PatchSettings):
    """Training of a family's VAE in pixels; the paper takes SDXL's as it is, `tiny` begins without one."""

    model: str = "new"
    """`new` begins a tiny family with random weights; else a family whose VAE is trained on."""
    prediction: Literal["epsilon", "v_prediction"] = "epsilon"
    """What the U-Net of a `new` family is to predict: the noise, as SDXL's does, or the velocity (Salimans and Ho
    2022), which says more where there is little noise and suits few steps."""
    vae: Literal["f4c4", "f8c16"] = "f4c4"
    """The VAE of a `new` family: one latent of 4 numbers for 4 x 4 pixels, or of 16 for 8 x 8."""
    out: Path = Path("models/autoencoder")
    patch: int = Field(default=0, ge=0)
    """Side of the random patches trained on, pixels, a multiple of the VAE's factor (4 or 8); 0 takes whole images.
    The VAE's norms see other statistics in a patch than in a face: what it learns from patches is off in its tones."""
    batch: int = Field(default=8, ge=1)
    lr: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    moments: float = Field(default=0.01, ge=0)
    """Weight of the pull of each latent channel to mean 0 and standard deviation 1."""
    tones: float = Field(default=0, ge=0)
    """Weight of the mean square error of tones, means of 16 x 16 pixels. Whole images mend tones by themselves: with
    them 1 changed nothing, and from 2 on a VAE that begins on patches learned more slowly (docs/builtin.md)."""
    decoder_only: bool = False
    """Leave the encoder as it is: what was trained on its latents stays right."""
    adversarial: float = Field(default=0, ge=0)
    """Weight of the verdict of a discriminator of patches, which asks for real texture: pixels alone give a smooth
    image; 0 is without. Not VQGAN's adaptive weight: that grows where the discriminator has hardly any gradient."""
    critic_lr: float = Field(default=2e-3, gt=0)
    """Learning rate of that discriminator."""
    critic_start: int = Field(default=200, ge=0)
    """Steps that the discriminator is trained before its loss counts."""


class PixelSettings(Settings):
    """What a restored face should look like, judged on its pixels: by features of a network, and by a discriminator."""

    perceptual: float = Field(default=0, ge=0)
    """Share of the main loss's gradient that the distance of features has; 0 is without."""
    network: str = "tf_efficientnet_lite0"
    """timm's name of the network, trained on ImageNet, whose features are compared."""
    weights: str = ""
    """A file with its weights (.safetensors); without it timm downloads them."""
    adversarial: float = Field(default=0, ge=0)
    """Share that the verdict of a discriminator of fine detail has; 0 is without."""
    energy: float = Field(default=0, ge=0)
    """Share of the distance between energies of fine detail: how much texture there is where; 0 is without."""
    lr: float = Field(default=2e-4, gt=0)
    """Learning rate of that discriminator."""
    start: int = Field(default=200, ge=0)
    """Steps that the discriminator is trained before its loss counts."""

    @property
    def on(self) -> bool:
        """Whether there is a loss on pixels."""
        return self.perceptual > 0 or self.adversarial > 0 or self.energy > 0


class CleanerSettings(PatchSettings):
    """Training of a family's cleaner, the network in pixels that takes damage off before diffusion adds detail."""

    out: Path = Path("models/cleaner")
    begin_from: str = ""
    """The family whose cleaner is trained on; without it, it begins with random weights."""
    channels: tuple[int, ...] = CLEANER_CHANNELS
    """Widths of the levels of a new one, each half as large as the one before: multiples of 8."""
    degradation: dict[str, float] | str = {
        "gfpgan": 0.2, "mild": 0.15, "medium": 0.15, "heavy": 0.1, "scan": 0.15, "noise_jpeg": 0.15, "nearly_clean": 0.1
    }  # fmt: skip
    """Names of degradations, see faces.degrade, with shares: whole faces stay whole since they are seen too."""
    patch: int = Field(default=128, ge=32, multiple_of=16)
    """Side of the random patches trained on, pixels."""
    zoom: tuple[float, float] = (0.8, 1.2)
    """Range of the scales at which faces are shown, of their resolution in their photos, which is at most `size`."""
    grey: float = Field(default=0.1, ge=0, le=1)
    """Share of the faces that are shown without colour."""
    batch: int = Field(default=8, ge=1)
    lr: float = Field(default=5e-4, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    grid: float = Field(default=0, ge=0)
    """Weight of the distance of Fourier coefficients at the periods of the network's own grid, in small windows:
    against the weave of dots in which a discriminator's texture can end. 12 pulls about as the distance of pixels."""
    face_parts: float = Field(default=3.0, ge=1)
    """How many times eyes and mouth count."""
    pixels: PixelSettings = PixelSettings()
    """What faces should look like as their perception rises from 0 to 1."""
    perceived: float = Field(default=0.5, ge=0, le=1)
    """Share of the faces that are cleaned with a perception above 0, drawn evenly up to 1, where `pixels` are on."""
    validate_count: int = Field(default=32, ge=1)

    @model_validator(mode="after")
    def _zoom_and_channels(self) -> CleanerSettings:
        if not 0 < self.zoom[0] <= self.zoom[1] < math.inf:
            raise ValueError(f"zoom {self.zoom}: two scales above 0, the second finite and not the smaller")
        if not self.channels or any(width < 8 or width % 8 for width in self.channels):
            raise ValueError(f"channels {self.channels}: multiples of 8")
        return self


class DiffusionSettings(TrainSettings):
    """What both stages share."""

    snr_gamma: float = Field(default=0, ge=0)
    """Weight each timestep's error by min(SNR, gamma) / SNR (Hang et al. 2023; 5 is theirs); 0 weights all alike,
    as the paper does."""
    validate_steps: int = Field(default=20, ge=1)
    """Denoising steps of a validation picture."""
    cache: Path | None = None
    """Folder of cached latents and text embeddings; None takes training/cache in `out`."""


class PriorSettings(DiffusionSettings):
    """Stage I: the U-Net on captioned faces, by SDXL's own objective."""

    out: Path = Path("models/prior")
    prompts: Literal["all", "semantic"] = "all"
    """`semantic` leaves the photographic tags out (the paper's ablation): the dataset's column prompt_semantic."""
    prompt_dropout: float = Field(default=0.1, ge=0, le=1)
    """Share of images shown with the empty prompt, which stage II and guidance need."""
    late: float = Field(default=0, ge=0)
    """Draw timesteps with a density that grows as t to this power: what a prompt says is decided where there is much
    noise, so a prior that is still to learn its prompts learns them sooner; 0 draws all alike, as SDXL."""
    train_text: bool = False
    """Train the text encoders too: for a family that begins with random ones, as `tiny` does."""
    lora_rank: int = Field(default=0, ge=0)
    """Train adapters of this rank (LoRA) on the U-Net's attention in place of all its weights; 0 trains all."""
    lora_alpha: float = Field(default=0, ge=0)
    """Scale of the adapters over their rank; 0 takes the rank itself."""

    @model_validator(mode="after")
    def _one_way(self) -> PriorSettings:
        if self.lora_rank and self.train_text:
            raise ValueError("train_text trains whole encoders: it goes with lora_rank = 0")
        return self


class FacialSettings(Settings):
    """The time-aware latent facial feature loss (equations 2 and 3): see authface.train.losses.critic.

    The paper prints neither lambda nor the discriminators; defaults marked * are chosen here.
    """

    weight: Literal["time", "constant", "off"] = "time"
    """How the loss counts at timestep t: by equation 3, by `constant` at every t, or never (the paper's ablations)."""
    m: float = -0.5
    """Where equation 3 peaks: at t = sigmoid(m)."""
    s: float = Field(default=1.0, gt=0)
    """How wide equation 3 is, in units of logit t."""
    jacobian: bool = False
    """Divide equation 3 by t (1 - t), which makes it the density of SD3's logit-normal."""
    norm: Literal["pdf", "peak", "mean"] = "pdf"
    """Scale of equation 3: as printed (peak 0.399), its peak 1, or its mean over t 1; it counts with fixed lambdas."""
    constant: float = Field(default=0.2, ge=0)
    """Weight of `constant`; 0.2 is the mean of equation 3, so that both spend alike *."""
    adversarial_share: float = Field(default=0.2, ge=0)
    """Share of the noise loss's gradient, at the predicted noise and averaged over some 100 steps, that the
    discriminators' verdict gets *; the scale of w(t) then cancels. 0 takes the fixed `adversarial` instead."""
    style_share: float = Field(default=0.1, ge=0)
    """The same share for the distance of the features' Gram matrices *; 0 takes the fixed `style` instead."""
    adversarial: float = Field(default=0.05, ge=0)
    """lambda_d, of the discriminators' verdict, where no share is asked for or none is measured yet; at 0 the term
    is left out *."""
    style: float = Field(default=30.0, ge=0)
    """lambda_s, of the distance of their features' Gram matrices, likewise *."""
    start: int = Field(default=1000, ge=0)
    """Steps before the loss counts, while the discriminators already learn *."""
    cut: float = Field(default=0.02, ge=0, lt=1)
    """Faces at timesteps where the weight is below this share of its peak are left out of it *."""
    share_eyes: bool = True
    """One discriminator for both eyes, the right one mirrored; false gives each its own, as GFP-GAN has *."""
    oversample: int = Field(default=1, ge=1, le=4)
    """Samples a side of a region over GFP-GAN's (80 px for eyes, 120 for the mouth, over the VAE's factor) *."""
    lr: float = Field(default=2e-4, gt=0)
    """Learning rate of the discriminators *; GFP-GAN's 2e-3 is its generator's too."""


class DecodedSettings(PixelSettings):
    """The same in stage II, of faces that begin from the degraded one (`from_degraded`): their estimate is decoded, and
    of a family with a cleaner the cleaned face with the estimate's fine detail is judged, as `restore` makes it."""

    patch: int = Field(default=0, ge=0)
    """Side of the random square of each face that is decoded and judged, pixels, 64 or more and a multiple of the VAE's
    factor; 0 judges whole faces. Half the side costs a quarter, and most of such a step is spent here."""

    @field_validator("patch")
    @classmethod
    def _patch_is_seen(cls, patch: int) -> int:
        if 0 < patch < 64:
            raise ValueError(f"patch {patch}: 64 px or more, which networks of features need; 0 judges whole faces")
        return patch


class ControlNetSettings(DiffusionSettings):
    """Stage II: a ControlNet on degraded faces over the frozen prior (equation 1 and the facial loss)."""

    model: str = "models/prior"
    out: Path = Path("models/authface")
    begin_from: str = ""
    """The family whose ControlNet is trained on; without it, it begins as a copy of the prior's down path."""
    lr: float = Field(default=1e-4, gt=0)
    degradation: dict[str, float] | str = "gfpgan"
    """A preset of faces.degrade by its name, or several with their shares: {gfpgan = 0.7, nearly_clean = 0.3}."""
    from_degraded: float = Field(default=0, ge=0, le=1)
    """Share of the faces whose noisy latents are made from the degraded face (a family's cleaner has cleaned it), with
    the clean one as the aim: restoring may then begin from the photo (`restore.strength` below 1) instead of pure
    noise. The paper: 0."""
    strength: float = Field(default=0.5, gt=0, le=1)
    """The most noise that these are given, as a share of the schedule: the largest `restore.strength` to be used."""
    facial: FacialSettings = FacialSettings()
    pixels: DecodedSettings = DecodedSettings()

    @model_validator(mode="after")
    def _pixels_have_faces(self) -> ControlNetSettings:
        if self.pixels.on and not self.from_degraded:
            raise ValueError("pixels judge faces that begin from the degraded one: set from_degraded above 0")
        if self.pixels.patch > self.size:
            raise ValueError(f"pixels.patch {self.pixels.patch} is larger than size {self.size}")
        return self
