"""How a face is denoised: presets (the release's own, and ours for quality, speed and fidelity), and the scheduler."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from authface.errors import AuthfaceError, first_line, one_line
from authface.models.layout import OWN_PRESETS, config_value
from authface.recipe import Settings

if TYPE_CHECKING:
    import torch

MAX_SHARE = 0.4
"""Of the input in a restored face, at a fidelity of 1: of 0.3 to 0.5 this gave the highest PSNR (40 faces, medium)."""
PAPER_SIZE = 512
"""Side of the faces AuthFace's ControlNet is trained on and restores, pixels (paper, 4.1)."""
NAMED = ("scheduler", "steps", "guidance", "strength", "reuse", "prompt", "negative_prompt")
"""Values of a preset that settings may name themselves."""
STEADY_STRENGTH = 0.5
"""A fidelity above 0.5 begins with less noise, but not with less than this share of the schedule's."""

PresetName = Literal["quality", "fast", "fidelity", "official"]
Scheduler = Literal["dpm++", "unipc", "lcm", "ddim", "euler", "ddpm"]


class Preset(Settings):
    """How a face is denoised."""

    scheduler: Scheduler = "dpm++"
    """Sampler. `ddpm` takes the model's own spacing of steps, as the released inference does."""
    steps: int = Field(default=12, ge=1, le=1000)
    """Denoising steps."""
    guidance: float = Field(default=1, ge=0, le=30)
    """Classifier-free guidance; 1 and less is without, at half the cost."""
    strength: float = Field(default=1, gt=0, le=1)
    """Where denoising begins: 1 is pure noise, as the release does; below, the photo's own latents with so much of the
    schedule's noise, as image-to-image pipelines do."""
    reuse: int = Field(default=1, ge=1, le=10)
    """The U-Net's encoder and the ControlNet are computed in every so-many-th step, from the first on, and their
    features kept in between, as Faster Diffusion does; 1 computes all in every step."""
    levels: int | None = Field(default=None, ge=1, le=8)
    """How fine the tones are that a face keeps of its input, as blurs of the wavelet fix: 5 have a sigma of 13 px, 3 of
    3.2. None leaves it to the colour fix, which takes 5."""
    share: float = Field(default=0, ge=0, lt=1)
    """The share of the input that is mixed into a restored face: their errors are hardly alike, so the mean is nearer
    to the truth than either, and less sharp."""
    samples: int = Field(default=1, ge=1, le=16)
    """Restorations of a face, each from its own noise, whose mean is taken: nearer to the truth, and less sharp."""
    detail: float = Field(default=1, ge=0, le=4)
    """Of a family with a cleaner: how many times the prior's detail a fidelity of 0 adds to the cleaned face."""
    perception: float = Field(default=0, ge=0, le=4)
    """Of a family whose cleaner knows perception (`train.cleaner.pixels`): (1 - fidelity) x this is its perception, at
    most 1; so 1.2 is 0.6 at a fidelity of 0.5, and all from 0.17 down."""
    mirrored: bool = False
    """Of a family with a cleaner: a face is cleaned as it is and mirrored, and the mean taken: nearer to the truth, in
    twice the time (the self-ensemble of EDSR, Lim et al. 2017, 3.3, of its flip alone: faces stand upright)."""
    prompt: str = ""
    negative_prompt: str = ""
    shared_seed: int | None = None
    """One generator for all faces of a run, in their order, where the release has it; else each face has its own."""
    batch: int | None = Field(default=None, ge=1, le=256)
    """Faces at a time, where results depend on it."""


def _official() -> Preset:
    """The release's own settings, of `official.toml`."""
    text = resources.files("authface.models").joinpath("official.toml").read_text("utf-8")
    return Preset(**tomllib.loads(text)["preset"])


OFFICIAL = _official()
_GUIDED = Preset(prompt=OFFICIAL.prompt, negative_prompt=OFFICIAL.negative_prompt)
PRESETS: dict[PresetName, Preset] = {
    "quality": _GUIDED.model_copy(update={"scheduler": "dpm++", "steps": 20, "guidance": 4.5}),
    "fast": _GUIDED.model_copy(update={"scheduler": "unipc", "steps": 5, "guidance": 4.0}),
    "fidelity": Preset(scheduler="dpm++", steps=20, strength=0.5, share=0.4),
    "official": OFFICIAL,
}
"""For families without presets of their own, which are SDXL's size: guided by the release's prompts, less strongly than
the release in fewer steps. `fidelity` has the empty prompt that the ControlNet is trained with. Nobody has tried
`quality`, `fast` and `fidelity` on trained weights of that size."""


def preset_of(name: PresetName, folder: Path) -> Preset:
    """The preset `name` for the family in `folder`, which may bring its own. Raises AuthfaceError where it is wrong.

    `official` is what it is for every family.
    """
    path = folder / OWN_PRESETS
    if name == "official" or not path.is_file():
        return PRESETS[name]
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
        own = {key: Preset(**table) for key, table in tables.items() if key in PRESETS}
    except (OSError, ValueError, TypeError, ValidationError) as error:
        raise AuthfaceError(
            f"{one_line(path)} is no table of presets ({first_line(error, 120)}): get it again"
        ) from error
    return own.get(name, PRESETS[name])


def settings_preset(settings: Any, folder: Path) -> Preset:
    """The preset that `RestoreSettings` name for the family in `folder`, with the values they name themselves."""
    preset = preset_of(settings.preset, folder)
    return preset.model_copy(update={k: v for k in NAMED if (v := getattr(settings, k)) is not None})


@dataclass(frozen=True)
class Sampling:
    """How latents are denoised: `scheduler` is a name of `make_scheduler`; guidance of 1 or less is none.

    `strength` 1 starts from pure noise, less from the photo; `shared_seed` is that of one generator for all faces.
    Of its input a face keeps the tones that `levels` of blur leave, and `share` of all the rest; it is the mean of
    `samples` restorations.
    """

    scheduler: str
    steps: int
    guidance: float
    control_scale: float
    strength: float
    batch: int
    shared_seed: int | None = None
    levels: int | None = None
    share: float = 0.0
    samples: int = 1
    reuse: int = 1
    """Steps that the features of the U-Net's encoder and the ControlNet serve for."""

    @property
    def needs_photo(self) -> bool:
        """Whether the photo's own latents are asked for."""
        return self.strength < 1

    def at(self, fidelity: float) -> Sampling:
        """The same at a fidelity of 0..1: see `RestoreSettings.fidelity`."""
        return replace(
            self,
            strength=strength(fidelity, self.strength),
            control_scale=control_scale(fidelity),
            share=input_share(fidelity, self.share),
        )


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
        preset.share,
        preset.samples,
        reuse=preset.reuse,
    )


def strength(fidelity: float, trusted: float) -> float:
    """Where denoising begins, 0..1, at a fidelity of 0..1; `trusted` is the preset's, that of 0.5.

    Towards 0 it doubles, up to pure noise; towards 1 it falls to `STEADY_STRENGTH`, if it is above.
    """
    if fidelity <= 0.5:
        return min(1.0, trusted * (2 - 2 * fidelity))
    return trusted - (2 * fidelity - 1) * max(0.0, trusted - STEADY_STRENGTH)


def input_share(fidelity: float, trusted: float) -> float:
    """The share of the input that a restored face is mixed with, at a fidelity of 0..1; `trusted` is the preset's.

    Up to 0.5 that, then towards `MAX_SHARE` at 1, if it is less.
    """
    return trusted + max(0.0, 2 * fidelity - 1) * max(0.0, MAX_SHARE - trusted)


def control_scale(fidelity: float) -> float:
    """The ControlNet's conditioning scale, 0.5..1, of a fidelity 0..1: from 0.5 on it is 1, the scale of training."""
    return min(1.0, 0.5 + fidelity)


def model_side(folder: Path) -> int:
    """The side of the crops that the family in `folder` sees unless the settings say, pixels, by its configs."""
    levels = len(config_value(folder, "vae", "block_out_channels"))
    return min(PAPER_SIZE, int(config_value(folder, "unet", "sample_size")) << (levels - 1))


def make_scheduler(name: str, trained: Any) -> Any:
    """The sampler `name` on the noise schedule, and for the kind of prediction, that the model was trained with.

    `trained` is the config of the model's own scheduler. Few-step solvers space their steps from the last
    timestep, so that the start is pure noise (Lin et al. 2024, `trailing`); `ddpm` and `lcm` keep the model's spacing.
    Latents are never clipped: a config that does not say so would become ``clip_sample=True`` in some classes, which
    keeps pixels in -1..1 and ruins latents.
    """
    import diffusers

    spaced: dict[str, Any] = {"timestep_spacing": "trailing"}
    solver = {**spaced, "algorithm_type": "dpmsolver++", "use_karras_sigmas": False}
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "ddpm": (diffusers.DDPMScheduler, {}),
        "lcm": (diffusers.LCMScheduler, {}),
        "dpm++": (diffusers.DPMSolverMultistepScheduler, solver),
        "ddim": (diffusers.DDIMScheduler, spaced),
        "euler": (diffusers.EulerDiscreteScheduler, spaced),
        "unipc": (diffusers.UniPCMultistepScheduler, spaced),
    }
    kind, own = kinds[name]
    return kind.from_config(trained, **{"clip_sample": False, "thresholding": False, **own})


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
