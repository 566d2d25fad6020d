"""How a face is denoised: the preset as the settings and the fidelity have it, and the scheduler for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from authface.restore.model.presets import Preset
from authface.restore.settings import RestoreSettings

if TYPE_CHECKING:
    import torch


MOST_SHARE = 0.4
"""Of the input in a restored face, at a fidelity of 1: of 0.3 to 0.5 this gave the highest PSNR (40 faces, medium)."""
STEADY_STRENGTH = 0.5
"""A fidelity above 0.5 begins with less noise, but not with less than this share of the schedule's."""


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


def chosen(settings: RestoreSettings, preset: Preset) -> Preset:
    """The preset with what the settings name in its place."""
    named = ("scheduler", "steps", "guidance", "strength", "reuse", "prompt", "negative_prompt")
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

    Up to 0.5 that, then towards `MOST_SHARE` at 1, if it is less.
    """
    return trusted + max(0.0, 2 * fidelity - 1) * max(0.0, MOST_SHARE - trusted)


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
