"""Training of the cleaner on real faces: it learns, stops, goes on, and takes its place in a family."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import save_file

from authface.errors import AuthfaceError, UsageError
from authface.faces.degrade import mixture
from authface.imaging.decode import read
from authface.models import sdxl
from authface.models.cleaner import Cleaner, make_cleaner
from authface.models.families import load, resolve
from authface.models.layout import BASE, part_files, write_family
from authface.models.tiny import VAE
from authface.train.cache import TensorStore, cache_latents, cache_texts
from authface.train.cleaner import (
    KNEE,
    LEGIBLE,
    SEEN,
    CleanerObjective,
    grid_distance,
    lost,
    part_weights,
    train_cleaner,
)
from authface.train.controlnet import ControlNetObjective, train_controlnet
from authface.train.data import Draw, FaceDataset
from authface.train.losses.pixels import PixelLosses, PixelTerms
from authface.train.objective import Noise
from authface.train.settings import CleanerSettings, ControlNetSettings, PixelSettings
from tests.train.conftest import CPU, SIZE, Quiet, metrics, quick, same, weights

NETWORK = "mobilenetv3_small_050"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the weights of `NETWORK`, random ones."""
    import timm

    path = tmp_path_factory.mktemp("timm") / "network.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(timm.create_model(NETWORK, pretrained=False).state_dict(), path)
    return path


def quick_cleaner(model: Path, dataset: Path, out: Path, **more: Any) -> CleanerSettings:
    """Settings of a run of seconds."""
    return CleanerSettings(**quick(model, dataset, out, **{"patch": 48, "channels": (16, 16), **more}))


@pytest.fixture(scope="module")
def guided(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny family with a ControlNet."""

    out = tmp_path_factory.mktemp("guided") / "family"
    unet = load(resolve(str(tiny)), ["unet"], CPU, torch.float32).unet
    write_family(out, tiny, {"controlnet": sdxl.new_controlnet(unet, VAE.factor)})
    return out


@pytest.fixture
def objective(tiny: Path, dataset: Path, tmp_path: Path) -> CleanerObjective:
    """As it is before the first step."""
    chosen = quick_cleaner(tiny, dataset, tmp_path / "objective")
    net = Cleaner(make_cleaner(0, chosen.channels))
    return CleanerObjective(FaceDataset(dataset, SIZE), tiny, net, mixture("nearly_clean"), chosen, CPU, 0)


def test_it_learns_and_the_family_has_it(guided: Path, dataset: Path, tmp_path: Path) -> None:
    """The loss on the same patches falls; all else is the base's, its ControlNet too; stock diffusers reads it."""
    from diffusers import DiffusionPipeline, UNet2DModel

    out = tmp_path / "out"
    chosen = quick_cleaner(
        guided, dataset, out, steps=60, degradation="medium", lr=2e-3, ema=0.9, validate_every=60, batch=4
    )
    done = train_cleaner(chosen, Quiet(), "cpu", seed=1)
    assert done.finished
    damage = mixture("medium")
    draws = [Draw(index, epoch, False) for index in range(4) for epoch in (100, 101)]  # damage that it has not seen
    before, after = (
        float(objective.loss(objective.trained, objective.batch(draws), Noise(0, range(8)), 0).total.detach())
        for net in (make_cleaner(1, (16, 16)), UNet2DModel.from_pretrained(out / "cleaner"))
        for objective in [CleanerObjective(FaceDataset(dataset, SIZE), guided, Cleaner(net), damage, chosen, CPU, 1)]
    )
    assert after < 0.95 * before
    for part in (*BASE, "controlnet"):
        assert [p.read_bytes() for p in part_files(out, part)] == [p.read_bytes() for p in part_files(guided, part)]
    assert read(out / "training" / "validation" / "step-00000060.png").rgb.shape == (2 * SIZE, 3 * SIZE, 3)
    lines = (out / "training" / "validation.jsonl").read_text("utf-8")
    assert "gain_mild" in lines and "gain_medium" in lines and "gain_scan" not in lines  # two faces: two damages
    pipeline = DiffusionPipeline.from_pretrained(str(out))
    assert type(pipeline).__name__ == "StableDiffusionXLControlNetPipeline" and pipeline.controlnet is not None
    assert "cleaner" in (out / "README.md").read_text("utf-8")


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    whole, broken = (quick_cleaner(tiny, dataset, tmp_path / name, save_every=3) for name in ("whole", "broken"))
    assert train_cleaner(whole, Quiet(), "cpu", seed=3).finished
    stopped = train_cleaner(broken, Quiet(at=2), "cpu", seed=3)
    assert (stopped.finished, stopped.step) == (False, 2) and not (broken.out / "cleaner").exists()
    assert train_cleaner(broken, Quiet(), "cpu", seed=3).finished
    assert same(weights(whole.out, "cleaner"), weights(broken.out, "cleaner")) and metrics(whole.out) == metrics(
        broken.out
    )


def test_it_goes_on_from_another_familys(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """By one step of at most the learning rate; a family that has none says so."""
    first = tmp_path / "first"
    train_cleaner(quick_cleaner(tiny, dataset, first), Quiet(), "cpu")
    further = quick_cleaner(tiny, dataset, tmp_path / "further", steps=1, ema=0, begin_from=str(first), channels=(8, 8))
    train_cleaner(further, Quiet(), "cpu")
    before, after = weights(first, "cleaner"), weights(further.out, "cleaner")
    assert not same(before, after)
    assert max(float((after[name] - before[name]).abs().max()) for name in before) < 1.1 * further.lr
    with pytest.raises(AuthfaceError, match="has no cleaner; train it with authface train cleaner"):
        train_cleaner(quick_cleaner(tiny, dataset, tmp_path / "no", begin_from=str(tiny)), Quiet(), "cpu")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(4, 60), st.integers(4, 60), st.integers(1, 12)), max_size=4))
def test_weights_of_eyes_and_mouth_sit_where_their_boxes_are(boxes: list[tuple[int, int, int]]) -> None:
    made = part_weights(np.array(boxes, np.float32).reshape(-1, 3), SIZE, 3.0)
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    inside = np.zeros((SIZE, SIZE), bool)
    for at_x, at_y, half in boxes:
        inside |= (np.abs(x - at_x) < half) & (np.abs(y - at_y) < half)
    np.testing.assert_array_equal(made, np.where(inside, 3.0, 1.0))


def test_the_same_draw_gives_the_same_patches(objective: CleanerObjective) -> None:
    """Another pass, face or side another; the two of a pair are of one place, and weights follow the mirror."""
    draws = [Draw(0, 0, False), Draw(0, 1, False), Draw(1, 0, False), Draw(0, 0, True)]
    first, again = objective.batch(draws), objective.batch(draws)
    assert first.clean.shape == first.degraded.shape == (4, 3, 48, 48) and first.weights.shape == (4, 1, 48, 48)
    for name in ("clean", "degraded", "weights"):
        one = getattr(first, name)
        assert torch.equal(one, getattr(again, name))
        assert torch.equal(one[2], getattr(objective.batch(draws[2:3]), name)[0])
    assert all(not torch.equal(first.clean[0], first.clean[i]) for i in (1, 2, 3))
    own = (first.degraded - first.clean).abs().mean((1, 2, 3))
    other = (first.degraded - first.clean.roll(1, 0)).abs().mean((1, 2, 3))
    assert (own < 0.4 * other).all()
    assert set(first.weights.unique().tolist()) == {1.0, 3.0}


def test_some_faces_have_no_colour(objective: CleanerObjective) -> None:
    chosen = objective.settings.model_copy(update={"grey": 1.0})
    objective.settings = chosen
    batch = objective.batch([Draw(0, 0, False)])
    assert torch.equal(batch.clean[:, :1].expand(-1, 3, -1, -1), batch.clean)


def test_the_loss_is_as_it_is_written(objective: CleanerObjective) -> None:
    """By numpy; eyes and mouth count three times."""
    batch = objective.batch([Draw(0, 0, False), Draw(1, 0, True)])
    loss = objective.loss(objective.trained, batch, Noise(0, range(2)), 0)
    error = (batch.degraded - batch.clean).numpy().astype(float)  # a new cleaner changes nothing
    each = np.sqrt((error**2 * batch.weights.numpy()).mean((1, 2, 3)) + KNEE**2)
    assert float(loss.total.detach()) == pytest.approx(np.log(each).mean(), rel=1e-4)


def test_a_mild_damage_counts_as_a_heavy_one(objective: CleanerObjective) -> None:
    """A step that takes a hundredth of either's error is worth the same."""
    batch = objective.batch([Draw(0, 0, False)])
    error = torch.randn(batch.clean.shape, generator=torch.Generator().manual_seed(0))

    def loss(size: float) -> float:
        damaged = replace(batch, degraded=batch.clean + size * error)
        return float(objective.loss(objective.trained, damaged, Noise(0, range(1)), 0).total.detach())

    assert loss(0.5) - loss(0.495) == pytest.approx(np.log(1 / 0.99), rel=1e-2)
    assert loss(0.05) - loss(0.0495) == pytest.approx(np.log(1 / 0.99), rel=2e-2)
    assert abs(loss(1e-5) - loss(0)) < 1e-3, "what no eye sees counts nothing"


def test_half_of_a_texture_is_lost_at_the_damage_that_is_written() -> None:
    damage = torch.tensor([0.0, SEEN, 2.0]).view(3, 1, 1, 1).expand(3, 3, 32, 32)
    assert lost(damage).tolist() == pytest.approx([0, 0.5, 1], abs=1e-3), "tones hide nothing"
    signs = torch.tensor([1.0, -1.0]).repeat(16).expand(1, 3, 32, 32)
    told = torch.cat([lost(size * signs) for size in (SEEN, LEGIBLE, 2 * LEGIBLE)])
    assert told.tolist() == pytest.approx([0.5, 0.8, 16 / 17 / 4], abs=1e-3), "fine damage hides what there was"
    assert lost(SEEN * signs[..., :8, :8]).tolist() == pytest.approx([0.5], abs=1e-3), "of a small patch, too"


def test_a_weave_is_told_from_texture() -> None:
    """Of one deviation dots every second or fourth pixel count more than noise does, wherever they begin."""
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    dots = [x % 2, (x + y) % 2, x % 4 // 2, (x + 1) % 4 // 2, (x - y) % 4 // 2]
    for weave in dots:
        assert float(grid_distance(2.0 * weave[None, None] - 1)) > 1.3 * float(grid_distance(noise))
    assert float(grid_distance(torch.ones(1, 3, 64, 64))) < 1e-4, "tones are none"


def test_the_grid_is_part_of_the_loss(objective: CleanerObjective) -> None:
    batch = objective.batch([Draw(0, 0, False), Draw(1, 1, True)])
    chosen = objective.settings.model_copy(update={"grid": 12.0, "face_parts": 1})
    held = replace(objective, settings=chosen).loss(objective.trained, batch, Noise(0, range(2)), 0)
    error = batch.degraded - batch.clean
    each = ((error.square() * batch.weights).mean((1, 2, 3)) + KNEE**2).sqrt() + 12 * grid_distance(error)
    assert float(held.parts["grid"].detach()) == pytest.approx(float(grid_distance(error).mean())) and each.min() > 0
    assert float(held.total.detach()) == pytest.approx(float(each.log().mean()), rel=1e-4)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"patch": 96}, "patch 96 is larger than size 64"),
        ({"patch": 40}, "patch"),
        ({"zoom": (1.2, 0.8)}, "two scales above 0"),
        ({"zoom": (0, 1)}, "two scales above 0"),
        ({"channels": (12,)}, "multiples of 8"),
        ({"channels": ()}, "multiples of 8"),
    ],
)
def test_wrong_settings_are_refused(tiny: Path, dataset: Path, tmp_path: Path, wrong: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        quick_cleaner(tiny, dataset, tmp_path, **wrong)


def test_what_is_missing_is_one_line(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """No dataset, no such damage, no boxes; without boxes it trains where eyes and mouth count as the rest."""
    with pytest.raises(UsageError, match="annotate export"):
        train_cleaner(quick_cleaner(tiny, tmp_path / "nothing", tmp_path / "out"), Quiet(), "cpu")
    with pytest.raises(UsageError, match="gfpgan"):
        train_cleaner(quick_cleaner(tiny, dataset, tmp_path / "out", degradation="rain"), Quiet(), "cpu")
    bare = tmp_path / "bare" / "dataset"
    (bare / "data").mkdir(parents=True)
    rows = datasets.load_dataset(str(dataset), split="train", cache_dir=str(tmp_path / "cache"))
    rows.remove_columns(["roi"]).to_parquet(bare / "data" / "train-00000-of-00001.parquet")
    with pytest.raises(UsageError, match=r"no column roi.*train\.cleaner\.face_parts=1"):
        train_cleaner(quick_cleaner(tiny, bare, tmp_path / "out"), Quiet(), "cpu")
    assert train_cleaner(quick_cleaner(tiny, bare, tmp_path / "out", steps=1, face_parts=1.0), Quiet(), "cpu").finished


@pytest.fixture(scope="module")
def cleaned_prior(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny family with a cleaner that changes every pixel."""
    out = tmp_path_factory.mktemp("prior") / "family"
    net = make_cleaner(5, (16, 16))
    torch.nn.init.normal_(net.conv_out.weight, std=0.05, generator=torch.Generator().manual_seed(5))
    write_family(out, tiny, {"cleaner": net})
    return out


def test_stage_two_sees_cleaned_faces(cleaned_prior: Path, dataset: Path, tmp_path: Path) -> None:
    """In its losses, what it begins from and its pictures; without a cleaner the degraded ones."""

    chosen = ControlNetSettings(
        model=str(cleaned_prior), dataset=dataset, size=SIZE, from_degraded=1.0, validate_count=2, validate_steps=2
    )
    source, faces = resolve(str(cleaned_prior)), FaceDataset(dataset, SIZE)
    store = TensorStore(tmp_path / "cache")
    parts = load(source, ["vae", "unet", "scheduler", "cleaner"], CPU, torch.float32)
    parts.controlnet = sdxl.new_controlnet(parts.unet, VAE.factor)
    null = cache_texts([], source, CPU, store, Quiet()).read([""])
    latents = cache_latents(faces, source, parts.vae, store, 3, Quiet())
    stage = ControlNetObjective(faces, parts, latents, null, mixture("medium"), chosen, seed=0)
    seen: list[torch.Tensor] = []
    encoded: list[torch.Tensor] = []
    parts.controlnet.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["controlnet_cond"]), with_kwargs=True
    )
    parts.vae.encoder.register_forward_pre_hook(lambda module, args: encoded.append(args[0]))
    batch = stage.batch([Draw(0, 0, False), Draw(1, 0, False)])
    with torch.no_grad():
        expected = Cleaner(parts.cleaner)(batch.degraded * 2 - 1).clamp(-1, 1)
        stage.loss(stage.trained, batch, Noise(0, range(2)), 0)
        assert (expected - (batch.degraded * 2 - 1)).abs().mean() > 0.02
        torch.testing.assert_close(seen[0], (expected + 1) / 2)
        torch.testing.assert_close(encoded[0], expected, atol=1e-5, rtol=0)
        seen.clear()
        stage.picture()
        assert seen[0].shape[-1] == SIZE and float(seen[0].min()) >= 0 and float(seen[0].max()) <= 1
        parts.cleaner = None
        seen.clear()
        stage.loss(stage.trained, batch, Noise(0, range(2)), 0)
        torch.testing.assert_close(seen[0], batch.degraded)


def test_stage_two_over_a_cleaner_trains_stops_and_goes_on(cleaned_prior: Path, dataset: Path, tmp_path: Path) -> None:
    """The family that it writes has the cleaner as it was, which no step has moved."""

    def stage(name: str) -> ControlNetSettings:
        return ControlNetSettings(
            model=str(cleaned_prior), dataset=dataset, out=tmp_path / name, size=SIZE, steps=2, batch=2, warmup=1,
            from_degraded=0.5, ema=0.5, validate_every=2, validate_steps=1, validate_count=1, tracker="none",
        )  # fmt: skip

    assert train_controlnet(stage("whole"), Quiet(), "cpu", seed=2).finished
    assert train_controlnet(stage("broken"), Quiet(at=1), "cpu", seed=2).step == 1
    assert train_controlnet(stage("broken"), Quiet(), "cpu", seed=2).finished
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert same(weights(whole, "controlnet"), weights(broken, "controlnet"))
    assert same(weights(whole, "cleaner"), weights(cleaned_prior, "cleaner"))


def test_some_faces_are_cleaned_for_their_looks(tiny: Path, dataset: Path, tmp_path: Path, network: Path) -> None:
    """Half have a perception, drawn evenly; the network is told, and only they are judged, each as far as it goes."""
    pixels = PixelSettings(perceptual=0.5, adversarial=0.2, network=NETWORK, weights=str(network), start=0)
    chosen = quick_cleaner(tiny, dataset, tmp_path / "looks", patch=64, pixels=pixels, perceived=0.5)
    told: list[torch.Tensor] = []
    judged: list[tuple[torch.Tensor, torch.Tensor]] = []

    class Listening(Cleaner):
        def forward(
            self,
            images: torch.Tensor,
            perception: torch.Tensor | float = 0.0,
            noise: torch.Tensor | None = None,
        ) -> torch.Tensor:
            assert isinstance(perception, torch.Tensor) and noise is not None and noise.shape == images[:, :1].shape
            told.append(perception)
            return super().forward(images, perception, noise)

    class Judge(PixelTerms):
        def losses(self, made: torch.Tensor, real: torch.Tensor, weights: torch.Tensor | None = None) -> PixelLosses:
            assert weights is not None and len(made) == len(real) == len(weights)
            judged.append((real, weights))
            return super().losses(made, real, weights)

    net, terms = Listening(make_cleaner(0, (16, 16))), Judge(pixels, CPU, 0)
    faces = FaceDataset(dataset, SIZE)
    objective = CleanerObjective(faces, tiny, net, mixture("medium"), chosen, CPU, 0, terms)
    batch = objective.batch([Draw(i % len(faces), i, False) for i in range(16)])
    loss = objective.loss(net, batch, Noise(0, range(16)), 0)
    perception = told[0]
    assert 4 <= int((perception > 0).sum()) <= 12 and float(perception.max()) <= 1
    real, weights = judged[0]
    error = batch.degraded - batch.clean  # a new cleaner changes nothing
    each = ((error.square() * batch.weights).mean((1, 2, 3)) + KNEE**2).sqrt()
    torch.testing.assert_close(weights, (perception * lost(error) / each)[perception > 0])
    torch.testing.assert_close(real, batch.clean[perception > 0])
    assert {"pixels", "perceptual", "texture"} <= set(loss.parts) and loss.critic is not None
    distances = terms.perceptual(net(batch.degraded, perception, batch.weights), batch.clean)[perception > 0] * weights
    assert float(loss.parts["perceptual"]) == pytest.approx(float(distances.sum()) / 16, rel=1e-4)


def test_a_run_with_a_discriminator_goes_on_as_it_was(tiny: Path, dataset: Path, tmp_path: Path, network: Path) -> None:
    pixels = PixelSettings(perceptual=0.5, adversarial=0.2, network=NETWORK, weights=str(network), start=0)
    whole, broken = (
        quick_cleaner(tiny, dataset, tmp_path / name, save_every=3, patch=64, pixels=pixels, perceived=0.7)
        for name in ("whole", "broken")
    )
    assert train_cleaner(whole, Quiet(), "cpu", seed=3).finished
    assert not train_cleaner(broken, Quiet(at=2), "cpu", seed=3).finished
    assert train_cleaner(broken, Quiet(), "cpu", seed=3).finished
    assert same(weights(whole.out, "cleaner"), weights(broken.out, "cleaner")) and metrics(whole.out) == metrics(
        broken.out
    )
    heard = weights(whole.out, "cleaner")["conv_in.weight"][:, 12:]  # the folded plane of noise
    assert heard.shape[1] == 4 and heard.abs().max() > 0, "a discriminator asks for texture, which is made of noise"
