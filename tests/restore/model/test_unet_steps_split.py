"""The U-Net in two halves: together they are the stock forward, and the first may serve several steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from authface.errors import UsageError
from authface.models.families import resolve
from authface.models.sampling import PRESETS
from authface.models.sdxl import to_unit
from authface.restore.model import diffusion as sampler
from authface.restore.model.diffusion import DiffusionRestorer, LoadedModel
from authface.restore.model.placement import Placement
from authface.restore.model.unet_steps import Features, StepInputs, decode, encode
from authface.restore.settings import RestoreSettings

SEEDS = [11, 5, 7]
CPU = Placement(torch.device("cpu"))


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    photo = data.astronaut()
    return np.stack([photo[y : y + 64, 190:254] for y in (40, 90, 300)])


@pytest.fixture(scope="module")
def loaded(family: Path) -> LoadedModel:
    return LoadedModel(resolve(str(family)), CPU)


@pytest.fixture
def make(family: Path) -> Callable[..., DiffusionRestorer]:
    def make(loaded: LoadedModel, **settings: object) -> DiffusionRestorer:
        chosen = RestoreSettings(**({"model": str(family), "steps": 6} | settings))  # type: ignore[arg-type]
        made = loaded.restorer(chosen)
        assert isinstance(made, DiffusionRestorer)
        return made

    return make


def test_both_halves_are_the_stock_forward_bit_for_bit(
    make: Callable[..., DiffusionRestorer], loaded: LoadedModel, crops: np.ndarray
) -> None:
    model = make(loaded, prompt="a face")
    shape = (2 * len(crops), model.unet.config.in_channels, 16, 16)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode(), model._condition(to_unit(crops), [0, 1]) as condition:
        for time in (900, 300):
            step = StepInputs(noise, torch.tensor(time), *condition)
            whole = model._predict(step, 0.7)
            down, mid = model._residuals(step, 0.7)
            kept = encode(model.unet, step).with_residuals(down, mid)
            assert torch.equal(decode(model.unet, kept, step), whole)
            assert min(float(part.abs().max()) for part in (*down, mid)) > 0  # the ControlNet is heard
            later = step._replace(t=step.t - 100)
            assert not torch.equal(decode(model.unet, kept, later), whole)  # the decoder hears the new time


def test_the_encoder_is_computed_in_every_so_many_th_step(
    make: Callable[..., DiffusionRestorer], loaded: LoadedModel, crops: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def told_encode(*given: object) -> Features:
        ran.append("encode")
        return encode(*given)  # type: ignore[arg-type]

    def told_decode(*given: object) -> torch.Tensor:
        ran.append("decode")
        return decode(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(sampler, "encode", told_encode)
    monkeypatch.setattr(sampler, "decode", told_decode)
    full = np.stack(make(loaded).restore(crops, SEEDS))
    assert not ran
    near = np.stack(make(loaded, reuse=2).restore(crops, SEEDS))
    assert ran == ["encode", "decode", "decode"] * 3
    assert (
        0 < np.abs(near.astype(int) - full).mean() < np.abs(make(loaded, reuse=6).restore(crops, SEEDS) - full).mean()
    )


def test_with_features_of_every_step_nothing_changes(
    make: Callable[..., DiffusionRestorer], loaded: LoadedModel, crops: np.ndarray
) -> None:
    """Halves in each of a single step, with guidance."""
    alone, halves = (make(loaded, steps=1, guidance=3, reuse=reuse).restore(crops, SEEDS) for reuse in (1, 3))
    np.testing.assert_array_equal(alone, halves)


def test_reuse_leaves_faces_to_themselves(
    make: Callable[..., DiffusionRestorer], loaded: LoadedModel, crops: np.ndarray
) -> None:
    together = np.stack(make(loaded, reuse=2, batch=3).restore(crops, SEEDS))
    alone = make(loaded, reuse=2, batch=1).restore(crops, SEEDS)
    assert np.abs(together.astype(int) - alone).max() <= 1


def test_reuse_of_networks_offloaded_by_layer(
    make: Callable[..., DiffusionRestorer], family: Path, loaded: LoadedModel, crops: np.ndarray
) -> None:
    away = LoadedModel(resolve(str(family)), replace(CPU, offload="sequential"))
    given = [make(of, reuse=2, steps=3).restore(crops[:1], SEEDS[:1]) for of in (away, loaded)]
    np.testing.assert_array_equal(*given)


def test_what_reuse_is_taken(make: Callable[..., DiffusionRestorer], family: Path, loaded: LoadedModel) -> None:
    assert {preset.reuse for preset in PRESETS.values()} == {1}
    assert make(loaded).sampling.reuse == 1 and make(loaded, reuse=3).sampling.at(0.2).reuse == 3
    compiled = LoadedModel(resolve(str(family)), replace(CPU, compile=True))
    with pytest.raises(UsageError, match="restore.compile and restore.reuse=2 do not go together"):
        make(compiled, reuse=2)


def test_a_changed_reuse_does_a_finished_photo_again() -> None:
    from authface.console import Console
    from authface.restore.session import Request, Session

    prints = [Session(Request(RestoreSettings(model="identity", reuse=k)), Console()).fingerprint for k in (None, 2, 3)]
    assert len(set(prints)) == 3
