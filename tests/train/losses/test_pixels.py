"""Stage II judged on its pixels: the distance of features, the detail that is judged, the shares, and resuming."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from authface.console import Console
from authface.errors import AuthfaceError, UsageError
from authface.faces.degrade import degrade, preset
from authface.models import sdxl
from authface.models.cleaner import high_pass, make_cleaner
from authface.models.families import load, resolve
from authface.train.controlnet import ControlBatch, ControlNetObjective, train_controlnet
from authface.train.losses.pixels import (
    Perceptual,
    PixelTerms,
    energy_distance,
    random_squares,
    restored,
    trained_network,
)
from authface.train.objective import Noise
from authface.train.prior import ENCODERS
from authface.train.settings import ControlNetSettings, DecodedSettings, FacialSettings
from tests.train.conftest import CPU, OneProcess

NETWORK = "mobilenetv3_small_050"
SIZE = 128


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file with a network's weights, random ones."""
    import timm

    path = tmp_path_factory.mktemp("timm") / "network.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(timm.create_model(NETWORK, pretrained=False).state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def portraits() -> torch.Tensor:
    """(2, 3, SIZE, SIZE) in -1..1: a face twice, moved by some pixels."""
    portrait = skimage.data.astronaut()[0:240, 100:340]
    return sdxl.to_signed(np.stack([portrait[y : y + SIZE, 60 : 60 + SIZE] for y in (20, 30)]))


@pytest.fixture(scope="module")
def stage(weights: str) -> ControlNetObjective:
    """Stage II over the built-in family with a cleaner, without a dataset."""
    parts = load(resolve("tiny"), [*ENCODERS, "vae", "unet", "controlnet", "scheduler"], CPU, torch.float32)
    parts.cleaner = make_cleaner(0)
    for frozen in (parts.vae, parts.unet, parts.cleaner):
        frozen.requires_grad_(False)
    pixels = DecodedSettings(perceptual=0.5, adversarial=0.2, network=NETWORK, weights=weights, start=0)
    settings = ControlNetSettings(
        size=SIZE, from_degraded=1, strength=0.3, facial=FacialSettings(weight="off"), pixels=pixels
    )
    faces, null = cast(Any, SimpleNamespace(size=SIZE)), sdxl.encode_prompts(parts, [""])
    terms = PixelTerms(pixels, CPU, seed=0)
    return ControlNetObjective(
        faces, parts, cast(Any, None), null, preset("medium"), settings, 0, critic=None, pixels=terms
    )


@pytest.fixture(scope="module")
def batch(stage: ControlNetObjective, portraits: torch.Tensor) -> ControlBatch:
    """Two faces, clean and degraded."""
    degraded = np.stack([degrade(rgb, (0, i), preset("medium")) for i, rgb in enumerate(sdxl.to_rgb(portraits))])
    with torch.no_grad():
        latents = sdxl.encode(stage.parts.vae, portraits)
    return ControlBatch(("a", "b"), latents=latents, degraded=sdxl.to_unit(degraded), clean=portraits)


def test_features_tell_a_face_from_its_blurred_self(weights: str, portraits: torch.Tensor) -> None:
    network = Perceptual(trained_network(NETWORK, weights))
    soft, softer = (
        torch.stack([torch.from_numpy(cv2.GaussianBlur(one.permute(1, 2, 0).numpy(), (0, 0), sigma)).permute(2, 0, 1)
                     for one in portraits])
        for sigma in (1, 3)
    )  # fmt: skip
    near, far = network(soft, portraits), network(softer, portraits)
    assert near.shape == (2,) and torch.equal(network(portraits, portraits), torch.zeros(2))
    assert bool((near > 0).all()) and bool((near < far).all()) and bool((far < 4).all())
    assert network.train().training is False and not any(p.requires_grad for p in network.parameters())
    made = softer.clone().requires_grad_()
    network(made, portraits).sum().backward()  # type: ignore[no-untyped-call]
    assert made.grad is not None and bool(made.grad.abs().sum() > 0)


def test_a_network_that_cannot_be_had_is_one_line(weights: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="timm has no network nonsense"):
        trained_network("nonsense")
    for wrong in (tmp_path / "none.safetensors", tmp_path / "broken.safetensors"):
        (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
        with pytest.raises(AuthfaceError, match="name a file, pixels.weights") as told:
            trained_network(NETWORK, str(wrong))
        assert "\n" not in str(told.value)
    with pytest.raises(AuthfaceError, match="mobilenetv3_small_075 from"):
        trained_network("mobilenetv3_small_075", weights)


def test_pixels_need_faces_that_begin_from_the_degraded_one() -> None:
    with pytest.raises(ValidationError, match="from_degraded above 0"):
        ControlNetSettings(pixels=DecodedSettings(perceptual=0.5))


def test_what_is_judged_is_what_restore_makes(stage: ControlNetObjective, portraits: torch.Tensor) -> None:
    """The cleaned face where the estimate is its own latents; else what is fine in the difference on top."""
    vae = stage.parts.vae
    with torch.no_grad():
        own = sdxl.encode(vae, portraits)
        other = own + 0.3 * torch.randn(own.shape, generator=torch.Generator().manual_seed(1))
        assert torch.allclose(restored(vae, own, portraits, own), portraits, atol=1e-5)
        made = restored(vae, other, portraits, own)
        assert torch.allclose(made - portraits, high_pass(sdxl.decode(vae, other) - sdxl.decode(vae, own)), atol=1e-5)
        assert torch.allclose(restored(vae, other), sdxl.decode(vae, other), atol=1e-5)
    assert float((made - portraits).mean((2, 3)).abs().max()) < 0.02, "tones stay"


def test_squares_lie_alike_in_all_planes() -> None:
    """A plane whose values are its places, and one of three times its size: the same squares, to the borders."""
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    small = torch.stack([y, x]).expand(3, 2, 8, 8)
    large = small.repeat_interleave(3, 2).repeat_interleave(3, 3)
    places = torch.tensor([[0.0, 0.0], [0.999, 0.5], [0.3, 0.999]])
    a, b = random_squares(places, 4, small, large)
    assert a.shape == (3, 2, 4, 4) and b.shape == (3, 2, 12, 12) and torch.equal(b[..., ::3, ::3], a)
    assert a[0, :, 0, 0].tolist() == [0, 0] and a[1, :, -1, -1].tolist() == [7, 5] and a[2, 1, 0, 0] == 4
    none, _ = random_squares(places[:0], 4, small[:0], large[:0])
    assert none.shape == (0, 2, 4, 4)


def test_a_square_of_each_face_is_judged(stage: ControlNetObjective, batch: ControlBatch) -> None:
    """Its gradient reaches the ControlNet; where the squares lie depends on the face alone."""
    part = replace(stage, settings=stage.settings.model_copy(
        update={"pixels": stage.settings.pixels.model_copy(update={"patch": 64})}
    ))  # fmt: skip
    loss = part.loss(part.trained, batch, Noise(1, range(2)), 0)
    loss.total.backward()  # type: ignore[no-untyped-call]
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.trained.parameters())
    again = part.loss(part.trained, batch, Noise(1, range(2)), 0)
    assert torch.allclose(loss.parts["perceptual"], again.parts["perceptual"])
    other = part.loss(part.trained, batch, Noise(1, range(5, 7)), 0)
    assert not torch.allclose(loss.parts["perceptual"], other.parts["perceptual"])
    part.trained.zero_grad()


def test_each_term_gets_its_share(stage: ControlNetObjective, batch: ControlBatch) -> None:
    assert stage.pixels is not None and stage.auxiliaries == (stage.pixels,)
    squares = torch.zeros(2)
    for step in range(12):
        loss = stage.loss(stage.trained, batch, Noise(1, range(2 * step, 2 * step + 2)), step)
        told = torch.stack([loss.parts["perceptual_share"], loss.parts["texture_share"]])
        squares += told.square() * (step >= 6)
        assert loss.critic is not None
        loss.critic.backward()  # type: ignore[no-untyped-call]
        stage.pixels.step(OneProcess())
    perceptual, texture = (squares / 6).sqrt().tolist()
    assert 0.25 < perceptual < 1 and 0.1 < texture < 0.4


def test_the_verdict_waits_for_its_start(
    stage: ControlNetObjective, batch: ControlBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage.pixels, "settings", stage.settings.pixels.model_copy(update={"start": 5}))
    for step, listens in ((4, False), (5, True)):
        loss = stage.loss(stage.trained, batch, Noise(1, range(2)), step)
        assert bool(loss.parts["texture_share"] > 0) is listens and bool(loss.parts["perceptual_share"] > 0)


def test_only_faces_from_the_degraded_ones_are_judged(stage: ControlNetObjective, batch: ControlBatch) -> None:
    none = replace(stage, settings=stage.settings.model_copy(update={"from_degraded": 1e-9}))
    loss = none.loss(stage.trained, batch, Noise(1, range(2)), 9)
    assert loss.parts["perceptual"].item() == loss.parts["texture"].item() == 0 and bool(loss.total.isfinite())


def test_it_goes_on_as_it_was(stage: ControlNetObjective, portraits: torch.Tensor) -> None:
    first, second = (PixelTerms(stage.settings.pixels, CPU, seed=seed) for seed in (0, 1))
    first.losses(portraits.flip(3), portraits).critic.backward()  # type: ignore[no-untyped-call]
    first.balance.gathered = torch.tensor([3.0, 2, 1, 4])
    first.step(OneProcess())
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.balance.weights(), second.balance.weights())
    seen = [terms.losses(portraits, portraits.flip(3)) for terms in (first, second)]
    assert torch.equal(seen[0].adversarial, seen[1].adversarial) and torch.equal(seen[0].critic, seen[1].critic)
    state = first.state_dict()
    second.load_state_dict(state | {"balance": state["balance"][:3]})  # of a version without the last term
    assert torch.equal(second.balance.average[:3], first.balance.average[:3]) and second.balance.average[3] == 0


def test_energy_tells_grain_and_where_it_lies(portraits: torch.Tensor) -> None:
    """What is blurred has too little of it, what is noisy too much; other noise as strong is hardly told from it."""
    drawn = torch.Generator().manual_seed(0)
    one, other = (0.05 * torch.randn(portraits.shape, generator=drawn) for _ in range(2))
    blurred, grain = portraits - high_pass(portraits, 1.0), torch.zeros_like(portraits)
    grain[..., SIZE // 2 :] = one[..., SIZE // 2 :]
    assert float(energy_distance(blurred + one, blurred + one).max()) == 0
    alike = energy_distance(blurred + one, blurred + other)
    assert alike.shape == (2,) and float(alike.max()) < 0.25
    assert float(energy_distance(blurred, blurred + one).min()) > 5 * float(alike.max())
    assert float(energy_distance(blurred + grain, blurred + grain.flip(3)).min()) > 5 * float(alike.max())
    made = blurred.clone().requires_grad_()
    energy_distance(made, blurred + one).sum().backward()  # type: ignore[no-untyped-call]
    stronger = (made - 0.1 * made.grad / made.grad.abs().max()).detach()  # type: ignore[operator, union-attr]
    assert float(energy_distance(stronger, blurred + one).max()) < float(energy_distance(blurred, blurred + one).min())


@pytest.mark.parametrize("shares", [{"perceptual": 0.5}, {"adversarial": 0.2}, {"energy": 0.2}, {
    "perceptual": 0.5, "adversarial": 0.2, "energy": 0.2
}])  # fmt: skip
def test_a_run_meets_batches_without_such_faces(
    shares: dict[str, float], tiny: Path, dataset: Path, weights: str, tmp_path: Path
) -> None:
    """A face a step, half of which begin from the degraded one; no other discriminator learns beside."""
    pixels = DecodedSettings(network=NETWORK, weights=weights, start=0, **shares)  # type: ignore[arg-type]
    settings = ControlNetSettings(
        model=str(tiny), dataset=dataset, out=tmp_path / "out", size=64, batch=1, steps=6, from_degraded=0.5,
        facial=FacialSettings(weight="off"), pixels=pixels, validate_every=3, validate_steps=2, tracker="none",
    )  # fmt: skip
    assert train_controlnet(settings, Console(), "cpu").finished
    lines = [json.loads(line) for line in (tmp_path / "out/training/metrics.jsonl").read_text().splitlines()]
    judged = [line["perceptual"] + line["texture"] + line["energy"] > 0 for line in lines]
    assert len(lines) == 6 and any(judged) and not all(judged)


def test_a_batch_in_pieces_is_the_batch_as_a_whole(stage: ControlNetObjective) -> None:
    """However many of each piece are judged: of four faces one here and two there."""
    terms = PixelTerms(stage.settings.pixels, CPU, 0)
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1

    def told(faces: list[int], judged: list[int]) -> list[float]:
        made = (images.flip(3)[faces] * 0.9).requires_grad_()
        some = [faces.index(face) for face in judged]
        whole = terms.loss(made.square().mean(), made, made[some], images[judged], step=9)
        assert whole.critic is not None
        return [float(whole.parts[name]) for name in ("perceptual", "texture", "pixel_critic")] + [float(whole.critic)]

    whole = told([0, 1, 2, 3], [0, 2, 3])
    pieces = [told([0, 1], [0]), told([2, 3], [2, 3])]
    assert whole == pytest.approx([sum(values) / 2 for values in zip(*pieces, strict=True)], rel=1e-4)
