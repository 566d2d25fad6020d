"""`benchmarks/widen.py`: a family with more latent channels does what it did with fewer."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from authface.models import sdxl
from authface.models.families import load, make_tiny, resolve
from authface.models.layout import write_family

ROOT = Path(__file__).parents[1]
MORE = 16
NAMES = ("vae", "unet", "controlnet")


@pytest.fixture
def widen(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return import_module("widen")


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, in the ControlNet's last layers too, which begin at 0."""
    base, whole = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("whole")
    make_tiny(base, seed=0, image_size=64)
    parts = load(resolve(str(base)), ["vae", "unet"], "cpu", torch.float32)
    control = sdxl.new_controlnet(parts.unet, sdxl.spatial_factor(parts.vae))
    torch.manual_seed(0)
    for weight in control.parameters():
        torch.nn.init.normal_(weight, std=0.05)
    write_family(whole, base, {"controlnet": control})
    return whole


@torch.no_grad()
def said(parts: Any, latents: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
    """What the U-Net predicts of `latents` under the ControlNet."""
    text = {"text_embeds": torch.ones(2, 64), "time_ids": sdxl.time_ids(64, 2, latents)}
    given = {"encoder_hidden_states": torch.ones(2, 77, 128), "added_cond_kwargs": text}
    down, mid = parts.controlnet(latents, torch.tensor([5, 900]), controlnet_cond=condition, return_dict=False, **given)
    made: torch.Tensor = parts.unet(
        latents,
        torch.tensor([5, 900]),
        down_block_additional_residuals=down,
        mid_block_additional_residual=mid,
        **given,
    ).sample
    return made


def test_a_wider_family_does_what_it_did(widen: Any, family: Path, tmp_path: Path) -> None:
    """Its new channels hold features of the face that nobody hears: picture and prediction stay, of them it says 0."""
    widen.widen(str(family), tmp_path / "wide", MORE)
    old, new = (load(resolve(str(one)), NAMES, "cpu", torch.float32) for one in (family, tmp_path / "wide"))
    before = int(old.vae.config.latent_channels)
    torch.manual_seed(1)
    faces = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        narrow, wide = (sdxl.encode(parts.vae, faces * 2 - 1) for parts in (old, new))
        assert wide.shape[1] == MORE and torch.allclose(wide[:, :before], narrow, atol=1e-5)
        assert wide[:, before:].std() > 0.01
        spread, own = (parts.vae.encode(faces * 2 - 1).latent_dist.std for parts in (new, old))
        assert torch.allclose(spread[:, :before], own, atol=1e-5) and spread[:, before:].max() < 0.1
        assert torch.allclose(sdxl.decode(new.vae, wide), sdxl.decode(old.vae, narrow), atol=1e-4)
    predicted = said(new, wide, faces)
    assert torch.allclose(predicted[:, :before], said(old, narrow, faces), atol=1e-4)
    assert not predicted[:, before:].any()
    assert not torch.allclose(said(new, wide, faces), said(new, wide, 1 - faces), atol=1e-3), "the ControlNet is heard"


def test_a_family_that_is_as_wide_is_refused(widen: Any, family: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="4 channels: .* has 4; ask for more"):
        widen.widen(str(family), tmp_path / "same", 4)
    assert not (tmp_path / "same").exists()
