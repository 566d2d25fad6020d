"""The VAE's training on real faces: it learns, its parts count as they are said to, a decoder alone is trained."""

from pathlib import Path

import numpy as np
import pytest
import torch

from authface.errors import UsageError
from authface.imaging.decode import read
from authface.models import sdxl
from authface.models.families import load, resolve
from authface.models.tiny import VAE
from authface.train.autoencoder import AutoencoderObjective, ImageBatch, RoundTrip, train_autoencoder
from authface.train.data import FaceDataset
from authface.train.objective import Noise
from authface.train.settings import (
    AutoencoderSettings,
)
from tests.train.conftest import CPU, SIZE, Quiet, metrics, quick, same, weights


def test_the_autoencoder_learns_faces(dataset: Path, tmp_path: Path) -> None:
    """The loss falls by a third or more, latents get unit scale, and pictures of clean | reconstructed are drawn."""
    out = tmp_path / "vae"
    settings = AutoencoderSettings(
        dataset=dataset,
        out=out,
        size=SIZE,
        steps=60,
        batch=4,
        warmup=2,
        ema=0.5,
        validate_every=30,
        validate_count=2,
    )
    done = train_autoencoder(settings, Quiet(), "cpu")
    lines = metrics(out)
    assert done.finished and [line["step"] for line in lines] == list(range(1, 61))
    assert np.mean([line["loss"] for line in lines[-5:]]) < 0.67 * np.mean([line["loss"] for line in lines[:3]])
    assert sorted(p.name for p in (out / "training" / "validation").iterdir()) == [
        "step-00000030.png", "step-00000060.png",
    ]  # fmt: skip
    faces = FaceDataset(dataset, SIZE)
    picture = read(out / "training" / "validation" / "step-00000060.png").rgb
    assert picture.shape == (2 * SIZE, 2 * SIZE, 3) and np.array_equal(picture[:SIZE, :SIZE], faces.rgb(0))
    vae = load(resolve(str(out)), ["vae"], CPU, torch.float32).vae
    with torch.no_grad():
        latents = torch.cat([sdxl.encode(vae, sdxl.to_signed(faces.rgb(i)[None])) for i in range(4)])
    assert float(latents.square().mean().sqrt()) == pytest.approx(1, rel=0.01)
    assert list((out / "training" / "tracker").glob("events.*"))


def test_a_decoder_learns_texture_and_leaves_the_latents(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """With its discriminator, killed and gone on to the same weights; the encoder and the latents' scale stay."""

    def settings(out: str) -> AutoencoderSettings:
        return AutoencoderSettings(
            **quick(tiny, dataset, tmp_path / out, steps=6, decoder_only=True, adversarial=0.05, critic_start=2)
        )

    train_autoencoder(settings("whole"), Quiet(), "cpu")
    assert not train_autoencoder(settings("cut"), Quiet(at=3), "cpu").finished
    train_autoencoder(settings("cut"), Quiet(), "cpu")
    whole, cut, before = (weights(folder, "vae") for folder in (tmp_path / "whole", tmp_path / "cut", tiny))
    assert same(whole, cut)
    kept = {name for name in before if torch.equal(before[name], whole[name])}
    assert kept == {name for name in before if name.startswith(("encoder.", "quant_conv."))}
    factors = [
        load(resolve(str(f)), ["vae"], CPU, torch.float32).vae.config.scaling_factor for f in (tiny, tmp_path / "cut")
    ]
    assert factors[0] == factors[1]
    assert all(np.isfinite([line["adversarial"], line["critic"]]).all() for line in metrics(tmp_path / "cut"))


def test_a_patch_that_the_vae_cannot_halve_is_refused(dataset: Path, tmp_path: Path) -> None:
    """In one line with the step, before anything is read."""
    settings = AutoencoderSettings(**quick(Path("new"), dataset, tmp_path, patch=34))
    with pytest.raises(UsageError, match="patch=34: this VAE takes multiples of 4 px"):
        train_autoencoder(settings, Quiet(), "cpu")


def test_a_family_is_made_anew_until_something_was_saved(dataset: Path, tmp_path: Path) -> None:
    """What a refused run made is not what the next one asks for."""
    asked = AutoencoderSettings(**quick(Path("new"), dataset, tmp_path / "out", steps=1, patch=34))
    with pytest.raises(UsageError, match="multiples of 4 px"):
        train_autoencoder(asked, Quiet(), "cpu")
    other = {"patch": 0, "vae": "f8c16", "prediction": "v_prediction"}
    assert train_autoencoder(asked.model_copy(update=other), Quiet(), "cpu").finished
    made = load(resolve(str(tmp_path / "out")), ["vae", "scheduler"], "cpu", torch.float32)
    assert made.vae.config.latent_channels == 16 and made.scheduler.config.prediction_type == "v_prediction"


def test_tones_count_by_their_weight(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """A difference of 0.1 everywhere costs 10 x 0.01 more; one that squares of 16 px average away costs nothing."""
    parts = load(resolve(str(tiny)), ["vae"], CPU, torch.float32)
    clean = torch.zeros(1, 3, SIZE, SIZE)
    checks = (torch.arange(SIZE)[:, None] + torch.arange(SIZE)) % 2 * 2.0 - 1

    def loss(error: torch.Tensor, tones: float) -> float:
        settings = AutoencoderSettings(**quick(tiny, dataset, tmp_path, tones=tones, moments=0))
        trained = RoundTrip(parts.vae)
        objective = AutoencoderObjective(FaceDataset(dataset, SIZE), tiny, trained, settings, CPU, 0)
        made = (clean + error, torch.zeros(1, VAE.latents, SIZE // VAE.factor, SIZE // VAE.factor))
        return float(objective.loss(lambda *_: made, ImageBatch(("",), clean), Noise(0, range(1)), 0).total)  # type: ignore[arg-type]

    flat, fine = torch.full_like(clean, 0.1), 0.1 * checks.expand_as(clean)
    assert loss(flat, 10) - loss(flat, 0) == pytest.approx(0.1, rel=1e-4)
    assert loss(fine, 10) == pytest.approx(loss(fine, 0), rel=1e-6)
