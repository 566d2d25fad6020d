"""The steps of diffusers' samplers as weighted sums, and what cannot be exported; graphs are in `restore`'s tests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from authface.errors import UsageError
from authface.models import export
from authface.models.export import solver_of
from authface.models.families import resolve
from authface.models.sampling import Sampling, begin, make_scheduler


def trained(**changed: Any) -> Any:
    """The schedule of SDXL, as the small family has it."""
    values = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
    return DDPMScheduler(**{**values, **changed}).config


def sampling(scheduler: str, steps: int, strength: float = 1.0) -> Sampling:
    return Sampling(scheduler, steps, 1.0, 1.0, strength, 1)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("strength", [1.0, 0.4])
@pytest.mark.parametrize(("scheduler", "steps"), [("ddim", 1), ("ddim", 6), ("dpm++", 6), ("unipc", 5), ("euler", 4)])
def test_weighted_sums_are_the_samplers_steps(scheduler: str, steps: int, strength: float, prediction: str) -> None:
    """With a network that is anything but linear."""
    config, chosen = trained(prediction_type=prediction), sampling(scheduler, steps, strength)
    draw = torch.Generator().manual_seed(3)
    photo, noise = (torch.randn(1, 4, 8, 8, generator=draw) for _ in range(2))

    def network(given: torch.Tensor, t: float) -> torch.Tensor:
        return torch.tanh(given * 1.3 + 0.2) * (0.5 + t / 1000) + given.roll(1, 3) * 0.3

    stock = make_scheduler(scheduler, config)
    timesteps = begin(stock, chosen, "cpu")
    latents = noise * stock.init_noise_sigma
    if strength < 1:
        latents = stock.add_noise(photo, noise, timesteps[:1])
    for t in timesteps:
        latents = stock.step(network(stock.scale_model_input(latents, t), float(t)), t, latents, return_dict=False)[0]

    solver = solver_of(chosen, config)
    parts = [photo.numpy(), noise.numpy()]
    for t, weights in zip(solver.timesteps, solver.given, strict=True):
        parts.append(network(torch.from_numpy(solver.sum(weights, parts)), t).numpy())
    assert len(solver.timesteps) == steps
    np.testing.assert_allclose(solver.sum(solver.result, parts), latents.numpy(), rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("scheduler", ["ddpm", "lcm"])
def test_a_sampler_that_draws_noise_is_refused(scheduler: str) -> None:
    with pytest.raises(UsageError, match=f"{scheduler.replace('+', '.')} draws noise in its steps: only torch"):
        solver_of(sampling(scheduler, 4), trained())


def test_what_is_missing_or_wrong_is_said_before_anything_is_traced(
    whole_family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = resolve(str(whole_family))

    def fails(out: Path, preset: Any, match: str) -> None:
        with pytest.raises(UsageError, match=match):
            export.export(source, out, preset, lambda *_, **__: None)

    fails(tmp_path, "official", "only torch runs it")
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text("{}")
    fails(tmp_path, "quality", "has other weights")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    fails(tmp_path / "new", "quality", r"needs onnx.*: pip install 'authface\[onnx\]'")
    assert not (tmp_path / "new").exists()
