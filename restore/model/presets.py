"""Ways to sample under one name: the release's own, and ours for quality, speed and fidelity."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from authface.errors import AuthfaceError, one_line
from authface.models.layout import OWN_PRESETS
from authface.recipe import Settings

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
    prompt: str = ""
    negative_prompt: str = ""
    shared_seed: int | None = None
    """One generator for all faces of a run, in their order, where the release has it; else each face has its own."""
    batch: int | None = Field(default=None, ge=1, le=256)
    """Faces at a time, where results depend on it."""


PRESETS: dict[PresetName, Preset] = {
    "quality": Preset(scheduler="dpm++", steps=20),
    "fast": Preset(scheduler="unipc", steps=5),
    "fidelity": Preset(scheduler="dpm++", steps=20, strength=0.5, share=0.4),
    # Steps, guidance, seed and batch of the released script. Its two prompts are lists of tags; these say the same.
    "official": Preset(
        scheduler="ddpm", steps=50, guidance=8, shared_seed=123, batch=6,
        prompt="realistic close-up portrait, extremely detailed, cinematic light, high contrast, full-frame camera, "
        "ultra HD, skin pores, sharp, no deformation",
        negative_prompt="unreal face, asymmetric eyes, painting, cartoon, 3D render, blur, low quality, "
        "JPEG artefacts, over-smoothed, deformed",
    ),
}  # fmt: skip


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
            f"{one_line(path)} is no table of presets ({one_line(error, 120)}): get it again"
        ) from error
    return own.get(name, PRESETS[name])
