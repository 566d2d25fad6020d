"""The three trainings on real faces with the tiny family: they learn, stop, go on, and write what stock code reads."""

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import datasets
import numpy as np
import pytest
import skimage.data
import torch

from authface import Restorer
from authface.console import Console, Tick
from authface.errors import AuthfaceError, UsageError
from authface.faces.degrade import PRESETS, mixture
from authface.imaging.decode import read
from authface.models import sdxl
from authface.models.families import load, make_tiny, resolve
from authface.models.layout import OWN_PRESETS
from authface.models.tiny import VAE, VAES
from authface.options import SECTIONS
from authface.recipe import load as load_recipe
from authface.train.autoencoder import AutoencoderObjective, ImageBatch, RoundTrip, train_autoencoder
from authface.train.cache import Store, cache_latents, cache_texts
from authface.train.controlnet import ControlNetObjective, begin, train_controlnet
from authface.train.data import Draw, Faces, validation
from authface.train.loop import learning_rate
from authface.train.losses.critic import Critic
from authface.train.noise import Noise
from authface.train.picture import fidelity
from authface.train.prior import ENCODERS, PriorObjective, train_prior
from authface.train.settings import (
    AutoencoderSettings,
    ControlNetSettings,
    FacialSettings,
    PriorSettings,
    TrainSettings,
)

SIZE = 64
CPU = torch.device("cpu")


class Quiet(Console):
    """Keeps its lines; sends this process a signal at a step if asked to."""

    def __init__(self, kill_at: int = 0, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.kill_at, self.number, self.lines, self.steps = kill_at, number, list[str](), 0

    def log(self, text: str) -> None:
        """Keep the line."""
        self.lines.append(text)

    @contextmanager
    def progress(self, title: str, total: int | None, unit: str) -> Iterator[Tick]:
        """Count steps."""

        def tick(done: int = 1, note: str = "") -> None:
            if unit == "steps":
                self.steps += done
                if self.steps == self.kill_at:
                    os.kill(os.getpid(), self.number)

        yield tick


def quick(model: Path, dataset: Path, out: Path, **more: Any) -> dict[str, Any]:
    """Settings of a run of seconds."""
    return {
        "model": str(model), "dataset": dataset, "out": out, "size": SIZE, "steps": 4, "batch": 2, "warmup": 1,
        "ema": 0.5, "validate_every": 0, "validate_count": 2, "tracker": "none", **more,
    }  # fmt: skip


def weights(folder: Path, part: str) -> dict[str, torch.Tensor]:
    """A part's tensors."""
    from safetensors.torch import load_file

    found: dict[str, torch.Tensor] = load_file(str(folder / part / "diffusion_pytorch_model.safetensors"))
    return found


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def metrics(out: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (out / "training" / "metrics.jsonl").read_text().splitlines()]


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
    faces = Faces(dataset, SIZE)
    picture = read(out / "training" / "validation" / "step-00000060.png").rgb
    assert picture.shape == (2 * SIZE, 2 * SIZE, 3) and np.array_equal(picture[:SIZE, :SIZE], faces.rgb(0))
    vae = load(resolve(str(out)), ["vae"], CPU, torch.float32).vae
    with torch.no_grad():
        latents = torch.cat([sdxl.encode(vae, sdxl.to_signed(faces.rgb(i)[None])) for i in range(4)])
    assert float(latents.square().mean().sqrt()) == pytest.approx(1, rel=0.01)
    assert list((out / "training" / "tracker").glob("events.*"))


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """SIGTERM saves and ends; the same call finishes; weights and metrics equal those of an unbroken run."""
    whole = PriorSettings(**quick(tiny, dataset, tmp_path / "whole", save_every=3, accumulate=2))
    assert train_prior(whole, Quiet(), "cpu", seed=3).finished
    broken = PriorSettings(**quick(tiny, dataset, tmp_path / "broken", save_every=3, accumulate=2))
    before = signal.getsignal(signal.SIGTERM)
    stopped = train_prior(broken, Quiet(kill_at=2), "cpu", seed=3)
    assert (stopped.finished, stopped.step) == (False, 2) and not (broken.out / "unet").exists()
    assert signal.getsignal(signal.SIGTERM) is before
    console = Quiet()
    assert train_prior(broken, console, "cpu", seed=3).finished
    assert console.steps == 2 and console.lines == ["prior: goes on from step 2 of 4"]
    assert same(weights(whole.out, "unet"), weights(broken.out, "unet"))
    assert metrics(whole.out) == metrics(broken.out)
    again = Quiet()
    assert train_prior(broken, again, "cpu", seed=3).finished and again.steps == 0


def test_checkpoints_are_pruned_and_other_settings_refused(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """The last two stay; more steps go on, another rate or seed does not; a second run waits for its turn."""
    from filelock import FileLock

    values = quick(tiny, dataset, tmp_path / "out", save_every=1)
    train_prior(PriorSettings(**values), Quiet(), "cpu")
    folder = tmp_path / "out" / "training"
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["step-00000003", "step-00000004"]
    assert train_prior(PriorSettings(**values | {"steps": 5}), Quiet(), "cpu").step == 5
    with pytest.raises(UsageError, match="begun with lr 0.0001, now 0.001"):
        train_prior(PriorSettings(**values | {"lr": 1e-3}), Quiet(), "cpu")
    with pytest.raises(UsageError, match="begun with seed 0, now 1"):
        train_prior(PriorSettings(**values), Quiet(), "cpu", seed=1)
    with FileLock(folder / ".lock"), pytest.raises(AuthfaceError, match="another training"):
        train_prior(PriorSettings(**values), Quiet(), "cpu")


def test_a_loss_that_is_not_finite_stops_with_the_faces(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """An absurd rate: one line with the step, the ids, and what to go back to."""
    settings = PriorSettings(**quick(tiny, dataset, tmp_path / "out", steps=50, save_every=1, lr=1e30, warmup=0))
    with pytest.raises(AuthfaceError, match=r"the loss is (nan|inf) at step \d+ on face-\d") as caught:
        train_prior(settings, Quiet(), "cpu")
    assert "last good checkpoint" in str(caught.value) and "\n" not in str(caught.value)


def test_prior_then_controlnet(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """Stage I changes the U-Net alone; stage II leaves it be, trains a ControlNet, and both draw their pictures."""
    from diffusers import StableDiffusionXLControlNetPipeline

    prior, out = tmp_path / "prior", tmp_path / "authface"
    drawn: dict[str, Any] = {"validate_every": 4, "validate_steps": 2}
    train_prior(PriorSettings(**quick(tiny, dataset, prior, **drawn)), Quiet(), "cpu")
    assert not same(weights(tiny, "unet"), weights(prior, "unet")) and same(weights(tiny, "vae"), weights(prior, "vae"))
    done = train_controlnet(ControlNetSettings(**quick(prior, dataset, out, **drawn)), Quiet(), "cpu")
    assert done.finished and same(weights(prior, "unet"), weights(out, "unet"))
    trained = weights(out, "controlnet")
    assert float(trained["controlnet_mid_block.weight"].abs().max()) > 0  # the zero convolutions have moved
    samples = read(prior / "training" / "validation" / "step-00000004.png").rgb
    rows = read(out / "training" / "validation" / "step-00000004.png").rgb
    assert samples.shape == (SIZE, 2 * SIZE, 3) and rows.shape == (2 * SIZE, 3 * SIZE, 3)
    assert np.array_equal(rows[:SIZE, 2 * SIZE :], Faces(dataset, SIZE).rgb(0))
    pipeline = StableDiffusionXLControlNetPipeline.from_pretrained(str(out))
    assert pipeline.controlnet.config.conditioning_channels == 3
    (out / OWN_PRESETS).write_text("[quality]\nsteps = 3\n")
    further = ControlNetSettings(**quick(prior, dataset, tmp_path / "further", steps=1, ema=0, begin_from=str(out)))
    train_controlnet(further, Quiet(), "cpu")
    assert (tmp_path / "further" / OWN_PRESETS).read_bytes() == (out / OWN_PRESETS).read_bytes()
    moved = weights(tmp_path / "further", "controlnet")
    assert not same(moved, trained)  # by one step of at most the learning rate and its decay
    assert max(float((moved[name] - trained[name]).abs().max()) for name in trained) < 1.1 * further.lr
    with pytest.raises(AuthfaceError, match="controlnet"):  # a prior has none
        train_controlnet(further.model_copy(update={"begin_from": str(prior), "out": tmp_path / "no"}), Quiet(), "cpu")


def test_a_decoder_learns_texture_and_leaves_the_latents(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """With its discriminator, killed and gone on to the same weights; the encoder and the latents' scale stay."""

    def settings(out: str) -> AutoencoderSettings:
        return AutoencoderSettings(
            **quick(tiny, dataset, tmp_path / out, steps=6, decoder_only=True, adversarial=0.05, critic_start=2)
        )

    train_autoencoder(settings("whole"), Quiet(), "cpu")
    assert not train_autoencoder(settings("cut"), Quiet(kill_at=3), "cpu").finished
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


@pytest.mark.parametrize("name", VAES)
def test_every_vae_goes_through_all_stages(name: str, dataset: Path, tmp_path: Path) -> None:
    """Two steps each of whole images, then one face restored; latents are cached in the VAE's own shape."""
    models, shape = tmp_path / "models", VAES[name]
    made: dict[str, Any] = {"dataset": dataset, "size": SIZE, "steps": 2, "batch": 2, "warmup": 1, "tracker": "none"}
    first = AutoencoderSettings(vae=name, out=models / "vae", **made)  # type: ignore[arg-type]
    assert train_autoencoder(first, Quiet(), "cpu").finished
    second = PriorSettings(model=str(first.out), out=models / "prior", **made)
    assert train_prior(second, Quiet(), "cpu").finished
    third = ControlNetSettings(model=str(second.out), out=models / "restorer", facial={"weight": "off"}, **made)
    assert train_controlnet(third, Quiet(), "cpu").finished
    for out in (second.out, third.out):
        cached = Store(out / "training" / "cache")
        entries = [cached.read(file.stem) for file in cached.folder.rglob("*.safetensors")]
        shapes = {tuple(entry["latents"].shape) for entry in entries if "latents" in entry}
        assert shapes == {(2, shape.latents, SIZE // shape.factor, SIZE // shape.factor)}
    widths = load(resolve(str(third.out)), ["controlnet"], CPU, torch.float32).controlnet.config
    assert len(widths["conditioning_embedding_out_channels"]) == len(shape.channels)
    face = Faces(dataset, SIZE).rgb(0)
    with Restorer(str(third.out), device="cpu", steps=2) as restorer:
        (restored,) = restorer.restore_aligned([face])
    assert restored.faces[0].after is not None and restored.faces[0].after.shape == face.shape


def test_a_patch_that_the_vae_cannot_halve_is_refused(dataset: Path, tmp_path: Path) -> None:
    """In one line with the step, before anything is read."""
    settings = AutoencoderSettings(**quick(Path("new"), dataset, tmp_path, patch=34))
    with pytest.raises(UsageError, match="patch=34: this VAE takes multiples of 4 px"):
        train_autoencoder(settings, Quiet(), "cpu")


def test_tones_count_by_their_weight(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """A difference of 0.1 everywhere costs 10 x 0.01 more; one that squares of 16 px average away costs nothing."""
    parts = load(resolve(str(tiny)), ["vae"], CPU, torch.float32)
    clean = torch.zeros(1, 3, SIZE, SIZE)
    checks = (torch.arange(SIZE)[:, None] + torch.arange(SIZE)) % 2 * 2.0 - 1

    def loss(error: torch.Tensor, tones: float) -> float:
        settings = AutoencoderSettings(**quick(tiny, dataset, tmp_path, tones=tones, moments=0))
        trained = RoundTrip(parts.vae)
        objective = AutoencoderObjective(Faces(dataset, SIZE), tiny, trained, settings, CPU, 0)
        made = (clean + error, torch.zeros(1, VAE.latents, SIZE // VAE.factor, SIZE // VAE.factor))
        return float(objective.loss(lambda *_: made, ImageBatch(("",), clean), Noise(0, range(1)), 0).total)  # type: ignore[arg-type]

    flat, fine = torch.full_like(clean, 0.1), 0.1 * checks.expand_as(clean)
    assert loss(flat, 10) - loss(flat, 0) == pytest.approx(0.1, rel=1e-4)
    assert loss(fine, 10) == pytest.approx(loss(fine, 0), rel=1e-6)


@pytest.fixture(scope="module")
def stage_two(tiny: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> ControlNetObjective:
    """Stage II's objective before its first step."""
    settings = ControlNetSettings(**quick(tiny, dataset, tmp_path_factory.mktemp("stage-two")))
    source, faces = resolve(str(tiny)), Faces(dataset, SIZE)
    store = Store(settings.out / "cache")
    parts = load(source, ["vae", "unet", "scheduler"], CPU, torch.float32)
    parts.unet.requires_grad_(False)
    parts.controlnet = sdxl.new_controlnet(parts.unet, VAE.factor)
    null = cache_texts([], source, CPU, store, Quiet()).read([""])
    latents = cache_latents(faces, source, parts.vae, store, 3, Quiet())
    return ControlNetObjective(faces, parts, latents, null, PRESETS["gfpgan"], settings, seed=0)


def test_equation_1(stage_two: ControlNetObjective) -> None:
    """With its zero convolutions untrained the loss is the prior's own error, written out by hand."""
    batch = stage_two.batch([Draw(0, 0, False), Draw(1, 0, True)])
    loss = stage_two.loss(stage_two.trained, batch, Noise(4, range(2)), 0).total
    random = Noise(4, range(2))
    noise, steps = random.normal(*batch.latents.shape[1:]), random.integers(1000)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, 0)[steps].float().view(-1, 1, 1, 1)
    with torch.no_grad():
        guess = stage_two.parts.unet(
            kept.sqrt() * batch.latents + (1 - kept).sqrt() * noise, steps,
            encoder_hidden_states=stage_two.null.states.expand(2, -1, -1),
            added_cond_kwargs={
                "text_embeds": stage_two.null.pooled.expand(2, -1),
                "time_ids": torch.tensor([[SIZE, SIZE, 0, 0, SIZE, SIZE]] * 2),
            },
        ).sample  # fmt: skip
    assert float(loss.detach()) == pytest.approx(float((guess - noise).square().mean()), rel=1e-4)


def test_faces_noised_from_their_degraded_latents_aim_at_the_clean_ones(stage_two: ControlNetObjective) -> None:
    """The loss is (1 - abar) times the error of the noise that leads from the degraded latents to the clean ones."""
    from dataclasses import replace

    objective = replace(stage_two, settings=stage_two.settings.model_copy(update={"from_degraded": 1.0}))
    batch = objective.batch([Draw(0, 0, False), Draw(1, 0, True)])
    loss = objective.loss(objective.trained, batch, Noise(4, range(2)), 0).total
    random = Noise(4, range(2))
    noise, steps = random.normal(*batch.latents.shape[1:]), random.integers(1000) // 2
    kept = objective.parts.scheduler.alphas_cumprod[steps].view(-1, 1, 1, 1)
    with torch.no_grad():
        start = sdxl.encode(objective.parts.vae, batch.degraded * 2 - 1)
        noisy = kept.sqrt() * start + (1 - kept).sqrt() * noise
        guess = objective._predict(objective.trained, noisy, steps, batch.degraded)
    aim = (noisy - kept.sqrt() * batch.latents) / (1 - kept).sqrt()
    expected = ((guess - aim).square().mean((1, 2, 3)) * (1 - kept.flatten())).mean()
    assert not torch.allclose(start, batch.latents, atol=0.01)
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-4)


def test_pictures_begin_from_the_photo_where_training_does(stage_two: ControlNetObjective) -> None:
    """The latents that are denoised first are the degraded face's with a little noise, or noise alone."""
    from dataclasses import replace

    more = {"from_degraded": 1.0, "strength": 0.05, "validate_steps": 40}
    objective = replace(stage_two, settings=stage_two.settings.model_copy(update=more))
    seen: list[torch.Tensor] = []
    hook = stage_two.parts.unet.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    firsts = []
    with torch.no_grad():
        for one in (objective, stage_two):
            seen.clear()
            degraded = one.picture().image.reshape(2, SIZE, 3, SIZE, 3)[:, :, 0]
            firsts.append(seen[0])
        latents = sdxl.encode(stage_two.parts.vae, sdxl.to_signed(np.ascontiguousarray(degraded)))
    hook.remove()
    near, far = (float((first - latents).square().mean()) for first in firsts)
    assert near < 0.2 * far


def test_only_the_controlnet_learns_and_the_down_path_keeps_nothing(stage_two: ControlNetObjective) -> None:
    """Gradients reach the ControlNet; no output of the prior's down blocks carries a graph."""
    graphs: list[bool] = []
    hooks = [
        block.register_forward_hook(lambda module, inputs, output: graphs.append(output[0].requires_grad))
        for block in stage_two.parts.unet.down_blocks
    ]
    batch = stage_two.batch([Draw(2, 0, False)])
    stage_two.loss(stage_two.trained, batch, Noise(0, [0]), 0).total.backward()  # type: ignore[no-untyped-call]
    for hook in hooks:
        hook.remove()
    assert graphs == [False] * len(stage_two.parts.unet.down_blocks)
    assert all(p.grad is None for p in stage_two.parts.unet.parameters())
    assert float(stage_two.parts.controlnet.controlnet_mid_block.weight.grad.abs().max()) > 0


def test_checkpointing_covers_the_prior_that_gradients_cross(stage_two: ControlNetObjective) -> None:
    """Loss and gradients are the same, and much less is kept than where the ControlNet alone computes twice."""
    parts = stage_two.parts
    batch = stage_two.batch([Draw(0, 0, False), Draw(1, 0, True)])

    def once() -> tuple[int, torch.Tensor, list[torch.Tensor]]:
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            if not isinstance(tensor, torch.nn.Parameter):
                kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = stage_two.loss(stage_two.trained, batch, Noise(0, range(2)), 0).total
        return sum(kept.values()), loss, list(torch.autograd.grad(loss, list(parts.controlnet.parameters())))

    plain, whole, gradients = once()
    parts.controlnet.enable_gradient_checkpointing()
    alone, *_ = once()
    begin(
        parts.unet,
        stage_two.settings.model_copy(update={"gradient_checkpointing": True}),
        0,
        VAE.factor,
        parts.controlnet,
    )
    both, again, same_gradients = once()
    for net in (parts.controlnet, parts.unet):
        net.disable_gradient_checkpointing()
    assert both < 0.5 * alone < 0.5 * plain
    assert torch.equal(whole, again)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(gradients, same_gradients, strict=True))


def test_each_pass_degrades_anew_and_mirrors_together(stage_two: ControlNetObjective) -> None:
    """Degraded and latents of a mirrored face are both mirrored; passes differ, a repeated one does not."""
    first, second = (stage_two.batch([Draw(0, epoch, False)]) for epoch in (0, 1))
    assert torch.equal(first.latents, second.latents) and not torch.equal(first.degraded, second.degraded)
    assert torch.equal(first.degraded, stage_two.batch([Draw(0, 0, False)]).degraded)
    assert float(first.degraded.min()) >= 0 and float(first.degraded.max()) <= 1
    mirrored = stage_two.batch([Draw(0, 0, True)])
    vae, rgb = stage_two.parts.vae, stage_two.faces.rgb(0, flip=True)
    with torch.no_grad():
        expected = sdxl.encode(vae, sdxl.to_signed(rgb[None]))
    assert torch.allclose(mirrored.latents, expected, atol=2e-3 * float(expected.abs().max()))
    blur = torch.nn.functional.avg_pool2d
    distance = [float((blur(d, 16) - blur(sdxl.to_unit(rgb[None]), 16)).abs().mean())
                for d in (mirrored.degraded, mirrored.degraded.flip(-1))]  # fmt: skip
    assert distance[0] < 0.5 * distance[1]


def test_dropped_prompts_do_not_matter(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """With a dropout of 1 the loss is the empty prompt's; with 0 it is the prompt's own."""
    source, faces = resolve(str(tiny)), Faces(dataset, SIZE)
    parts = load(source, ["vae", "unet", "scheduler"], CPU, torch.float32)
    store = Store(tmp_path / "cache")
    texts = cache_texts(faces.prompts(), source, CPU, store, Quiet())
    latents = cache_latents(faces, source, parts.vae, store, 2, Quiet())
    draws = [Draw(0, 0, False), Draw(1, 0, False)]
    loss: dict[tuple[float, str], float] = {}
    for dropout in (0.0, 1.0):
        values = quick(tiny, dataset, tmp_path / "out", prompt_dropout=dropout)
        objective = PriorObjective(faces, parts, source, latents, texts, faces.prompts(), PriorSettings(**values))
        batch = objective.batch(draws)
        null = texts.read(["", ""])
        empty = type(batch)(batch.ids, batch.latents, null.states, null.pooled, batch.null_states, batch.null_pooled)
        for name, one in (("prompt", batch), ("empty", empty)):
            with torch.no_grad():
                value = objective.loss(objective.trained, one, Noise(0, range(2)), 0)
            loss[dropout, name] = float(value.total)
    assert loss[1.0, "prompt"] == loss[1.0, "empty"] == loss[0.0, "empty"] != loss[0.0, "prompt"]


def test_the_cache_is_filled_once(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """Another VAE means other files; the same one reads what is there."""
    other = Path(shutil.copytree(tiny, tmp_path / "other"))
    vae = load(resolve(str(tiny)), ["vae"], CPU, torch.float32).vae
    faces, store = Faces(dataset, SIZE), Store(tmp_path / "cache")
    first = cache_latents(faces, resolve(str(tiny)), vae, store, 2, Quiet())
    written = {path: path.stat().st_mtime_ns for path in store.folder.rglob("*.safetensors")}
    assert cache_latents(faces, resolve(str(tiny)), vae, store, 2, Quiet()) == first
    assert {path: path.stat().st_mtime_ns for path in store.folder.rglob("*.safetensors")} == written
    make_tiny(other, seed=9, image_size=SIZE)
    vae = load(resolve(str(other)), ["vae"], CPU, torch.float32).vae
    assert not set(cache_latents(faces, resolve(str(other)), vae, store, 2, Quiet()).keys) & set(first.keys)


def test_the_rate_rises_and_falls() -> None:
    """Linear over the warm-up, then half a cosine to zero or constant."""
    falling = TrainSettings(steps=110, warmup=10, lr=1.0)
    assert [learning_rate(s, falling) for s in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert [learning_rate(s, falling) for s in (10, 60, 110)] == pytest.approx([1.0, 0.5, 0.0])
    assert learning_rate(105, TrainSettings(steps=110, warmup=10, lr=1.0, schedule="constant")) == 1.0


def test_what_is_missing_is_said_in_one_line(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No prior yet, no dataset, an unknown degradation."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="authface train prior first"):
        train_controlnet(ControlNetSettings(), Quiet(), "cpu")
    with pytest.raises(UsageError, match="annotate export"):
        train_controlnet(ControlNetSettings(model=str(tiny)), Quiet(), "cpu")
    with pytest.raises(UsageError, match="gfpgan"):
        train_controlnet(ControlNetSettings(degradation="rain"), Quiet(), "cpu")
    with pytest.raises(UsageError, match="share of degradation scan is -1"):
        train_controlnet(ControlNetSettings(degradation={"scan": -1}), Quiet(), "cpu")


def test_degradations_by_share_are_said_in_a_recipe_or_by_hand(tmp_path: Path) -> None:
    """A table of a recipe, an inline table or single shares by -O; a name alone as ever."""
    (tmp_path / "mine.toml").write_text("[train.controlnet.degradation]\nscan = 1\nmild = 2.5\n")
    said: list[tuple[str, list[str], Any]] = [
        (str(tmp_path / "mine.toml"), [], {"scan": 1, "mild": 2.5}),
        (str(tmp_path / "mine.toml"), [".mild=0.5"], {"scan": 1, "mild": 0.5}),
        (str(tmp_path / "mine.toml"), ["=heavy"], "heavy"),
        ("default", ["={gfpgan=0.7,scan=0.3}"], {"gfpgan": 0.7, "scan": 0.3}),
        ("default", [], "gfpgan"),
    ]
    for recipe, by_hand, degradation in said:
        made = load_recipe(recipe, [f"train.controlnet.degradation{words}" for words in by_hand], SECTIONS)
        assert made.section("train.controlnet", ControlNetSettings).degradation == degradation
    with pytest.raises(UsageError, match="degradation.*scan = .many"):
        load_recipe("default", ["train.controlnet.degradation.scan=many"], SECTIONS)


def test_faces_are_degraded_by_the_mixtures_shares(stage_two: ControlNetObjective) -> None:
    """Each face of a batch has what its own seed draws."""
    from dataclasses import replace

    mixed = replace(stage_two, degradation=mixture({"nearly_clean": 1, "heavy": 1}))
    draws = [Draw(0, epoch, False) for epoch in range(8)]
    made = mixed.batch(draws).degraded
    alone = {name: replace(stage_two, degradation=PRESETS[name]).batch(draws).degraded
             for name in ("nearly_clean", "heavy")}  # fmt: skip
    drawn = [[name for name, batch in alone.items() if torch.equal(batch[n], made[n])] for n in range(8)]
    assert sorted({name for names in drawn for name in names}) == ["heavy", "nearly_clean"]
    assert all(len(names) == 1 for names in drawn)


def test_stage_two_goes_on_with_its_discriminators(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """With the facial loss on: figures of it are logged, a stopped run goes on exactly, ablations differ."""
    facial: dict[str, Any] = {"weight": "time", "cut": 0.0, "start": 1}
    settings = {
        name: ControlNetSettings(**quick(tiny, dataset, tmp_path / name, save_every=2, facial=facial))
        for name in ("whole", "broken")
    }
    assert train_controlnet(settings["whole"], Quiet(), "cpu").finished
    assert not train_controlnet(settings["broken"], Quiet(kill_at=2), "cpu").finished
    assert train_controlnet(settings["broken"], Quiet(), "cpu").finished
    assert metrics(settings["whole"].out) == metrics(settings["broken"].out)
    assert same(*(weights(one.out, "controlnet") for one in settings.values()))
    line = metrics(settings["whole"].out)[-1]
    assert {"noise", "adversarial", "style", "critic"} <= line.keys() and line["critic"] > 0
    assert line["noise"] < line["loss"] and 0.02 < line["adversarial_share"] < 2 and 0.01 < line["style_share"] < 1
    first = metrics(settings["whole"].out)[0]
    assert first["loss"] == first["noise"] and first["adversarial_share"] == first["style_share"] == 0
    off = ControlNetSettings(**quick(tiny, dataset, tmp_path / "off", facial={"weight": "off"}))
    assert train_controlnet(off, Quiet(), "cpu").finished
    without = metrics(off.out)[0]
    assert "critic" not in without and without["loss"] == pytest.approx(first["noise"])
    assert not same(weights(off.out, "controlnet"), weights(settings["whole"].out, "controlnet"))


def test_the_facial_loss_waits_for_its_start(stage_two: ControlNetObjective) -> None:
    """Before `start` the ControlNet is led by the noise alone, while the discriminators learn."""
    settings = stage_two.settings.model_copy(update={"facial": FacialSettings(start=5, cut=0)})
    channels = int(stage_two.parts.vae.config.latent_channels)
    critic = Critic(channels, VAE.factor, settings.facial, CPU, seed=0)
    late = ControlNetObjective(
        stage_two.faces, stage_two.parts, stage_two.latents, stage_two.null, PRESETS["gfpgan"], settings, 0, critic
    )
    batch = late.batch([Draw(0, 0, False), Draw(1, 0, True)])
    before, after = (late.loss(late.trained, batch, Noise(4, range(2)), step) for step in (4, 5))
    assert before.critic is not None and after.critic is not None
    assert float(before.total.detach()) == float(before.parts["noise"].detach()) < float(after.total.detach())


def test_a_run_too_short_for_the_facial_loss_is_told(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """One line with the step, the run's length and the setting."""
    console = Quiet()
    assert train_controlnet(ControlNetSettings(**quick(tiny, dataset, tmp_path, steps=1)), console, "cpu").finished
    (line,) = [line for line in console.lines if "facial" in line]
    assert "from step 1000 on, this run has 1: lower train.controlnet.facial.start" in line
    assert metrics(tmp_path)[0]["loss"] == metrics(tmp_path)[0]["noise"]


def test_boxes_follow_the_picture(stage_two: ControlNetObjective) -> None:
    """In latents of the resized face; mirrored, left and right eye change places and sides."""
    faces = stage_two.faces
    plain, mirrored = faces.boxes(1, False), faces.boxes(1, True)
    assert plain[0, :2] == pytest.approx([0.37 * SIZE + 0.5 * SIZE / 400, 0.47 * SIZE + 0.5 * SIZE / 400])
    assert mirrored[0, 0] == pytest.approx(SIZE - plain[1, 0]) and mirrored[1, 0] == pytest.approx(SIZE - plain[0, 0])
    assert mirrored[2, 1] == plain[2, 1] and np.allclose(plain[:, 2], 0.07 * SIZE)


def test_an_adapter_is_trained_kept_and_merged(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """LoRA moves nothing but itself; stock pipelines give the same picture with it and with the merged U-Net."""
    from diffusers import StableDiffusionXLPipeline

    settings = PriorSettings(**quick(tiny, dataset, tmp_path / "out", lora_rank=2, lora_alpha=4, lr=0.02, ema=0))
    assert train_prior(settings, Quiet(), "cpu").finished
    before, after = weights(tiny, "unet"), weights(settings.out, "unet")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys() and changed
    assert all(re.search(r"attn\d\.to_(q|k|v|out\.0)\.weight", name) for name in changed)

    def picture(folder: Path, adapter: Path | None) -> torch.Tensor:
        pipeline = StableDiffusionXLPipeline.from_pretrained(str(folder), add_watermarker=False)
        pipeline.set_progress_bar_config(disable=True)
        if adapter:
            pipeline.load_lora_weights(str(adapter))
        made: torch.Tensor = pipeline(
            "cap", num_inference_steps=2, height=SIZE, width=SIZE, guidance_scale=1, output_type="latent",
            generator=torch.Generator().manual_seed(0),
        ).images  # fmt: skip
        return made

    merged, loaded, base = picture(settings.out, None), picture(tiny, settings.out / "lora"), picture(tiny, None)
    assert torch.allclose(merged, loaded, atol=1e-4) and not torch.allclose(merged, base, atol=1e-2)


def test_text_encoders_are_trained_with_the_prior(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """Both encoders change, are written, and are what the pictures are drawn with; a stopped run goes on."""
    settings = {
        name: PriorSettings(**quick(tiny, dataset, tmp_path / name, train_text=True, save_every=2, validate_every=2))
        for name in ("whole", "broken")
    }
    assert train_prior(settings["whole"], Quiet(), "cpu").finished
    assert not train_prior(settings["broken"], Quiet(kill_at=2), "cpu").finished
    assert train_prior(settings["broken"], Quiet(), "cpu").finished
    assert metrics(settings["whole"].out) == metrics(settings["broken"].out)
    for part in ("text_encoder", "text_encoder_2"):
        old, new = (load(resolve(str(f)), [part], CPU, torch.float32) for f in (tiny, settings["whole"].out))
        moved = [
            not torch.equal(a, b)
            for a, b in zip(getattr(old, part).parameters(), getattr(new, part).parameters(), strict=True)
        ]
        assert sum(moved) >= len(moved) / 2  # of the first, all but the last layer
    assert not (settings["whole"].out / "training" / "cache" / "text").exists()


def test_the_ablation_of_prompts(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """`semantic` trains on the other column; a dataset without it is told of in one line."""
    values = quick(tiny, dataset, tmp_path / "out", steps=1)
    losses = []
    for kind in ("all", "semantic"):
        settings = PriorSettings(**values | {"out": tmp_path / kind, "prompts": kind, "prompt_dropout": 0})
        assert train_prior(settings, Quiet(), "cpu").finished
        losses.append(metrics(settings.out)[0]["loss"])
    assert losses[0] != losses[1]


def test_pictures_show_faces_that_were_not_trained_on(dataset: Path, tmp_path: Path) -> None:
    """The split `validation` if there is one, else the first of `train`."""
    both = tmp_path / "dataset"
    shutil.copytree(dataset, both)
    rows = datasets.load_dataset(str(dataset), split="train")
    rows.select([3]).to_parquet(both / "data" / "validation-00000-of-00001.parquet")
    assert [validation(one, SIZE, 2).id(0) for one in (dataset, both)] == ["face-0", "face-3"]
    assert len(validation(both, SIZE, 2)) == 1 and len(Faces(both, SIZE)) == 4


def test_a_checkpoint_of_another_family_is_told_of(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """The folder of the base holds other widths now; or the checkpoint was cut short: one line, and what to do."""
    base = Path(shutil.copytree(tiny, tmp_path / "base"))
    settings = PriorSettings(**quick(base, dataset, tmp_path / "out", steps=2))
    train_prior(settings, Quiet(), "cpu")
    shutil.rmtree(base)
    make_tiny(base, seed=0, image_size=SIZE, channels=(32, 64, 96))
    more = settings.model_copy(update={"steps": 3})
    with pytest.raises(AuthfaceError, match=r"step-00000002 cannot be gone on from .* of another"):
        train_prior(more, Quiet(), "cpu")
    shutil.rmtree(base)
    shutil.copytree(tiny, base)
    weights_file = tmp_path / "out" / "training" / "checkpoints" / "step-00000002" / "model.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:1000])
    with pytest.raises(AuthfaceError, match="it is broken") as caught:
        train_prior(more, Quiet(), "cpu")
    assert "\n" not in str(caught.value)


def test_cached_and_encoded_anew_give_the_same_loss(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """Half precision of the cache is far below the noise: 1e-5 of the loss; a cut file is told of."""
    source, faces = resolve(str(tiny)), Faces(dataset, SIZE)
    parts = load(source, list(ENCODERS) + ["vae", "unet", "scheduler"], CPU, torch.float32)
    store = Store(tmp_path / "cache")
    texts = cache_texts(faces.prompts(), source, CPU, store, Quiet())
    latents = cache_latents(faces, source, parts.vae, store, 2, Quiet())
    settings = PriorSettings(**quick(tiny, dataset, tmp_path / "out"))
    objective = PriorObjective(faces, parts, source, latents, texts, faces.prompts(), settings)
    batch = objective.batch([Draw(0, 0, False), Draw(1, 0, False)])
    with torch.no_grad():
        clean = torch.cat([sdxl.encode(parts.vae, sdxl.to_signed(faces.rgb(i)[None])) for i in range(2)])
        text, null = (sdxl.encode_prompts(parts, p) for p in (list(faces.prompts()[:2]), [""]))
        anew = type(batch)(batch.ids, clean, text.states, text.pooled, null.states, null.pooled)
        cached, encoded = (
            float(objective.loss(objective.trained, b, Noise(0, range(2)), 0).total) for b in (batch, anew)
        )
    assert cached == pytest.approx(encoded, abs=1e-5)
    file = store.path(latents.keys[0])
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(AuthfaceError, match="is broken: delete it and run again"):
        objective.batch([Draw(0, 0, False)])


def test_figures_of_pictures(tmp_path: Path) -> None:
    """A face is itself, a blurred one less so, noise nobody; without landmarks only the error is told."""
    from authface.faces.detector import RetinaFace
    from authface.faces.landmarks import Dlib68

    face = np.ascontiguousarray(skimage.data.astronaut()[0:256, 100:356])
    points = Dlib68().landmarks(face, RetinaFace().detect(face)[0])
    row: dict[str, Any] = {"image": {"bytes": cv2.imencode(".png", face[..., ::-1])[1].tobytes(), "path": None}}
    faces = {}
    for name, more in (("plain", {}), ("known", {"size": 256, "landmarks": np.asarray(points).tolist()})):
        folder = tmp_path / name / "data"
        folder.mkdir(parents=True)
        rows = datasets.Dataset.from_list([row | more])
        rows.cast_column("image", datasets.Image()).to_parquet(folder / "train-00000-of-00001.parquet")
        faces[name] = Faces(tmp_path / name, 128)
    clean = faces["known"].rgb(0)[None]
    soft = cv2.GaussianBlur(clean[0], (0, 0), 2)[None]
    # As a network gives them: channels before rows in memory.
    noise = np.random.default_rng(0).integers(0, 255, (1, 3, 128, 128), np.uint8).transpose(0, 2, 3, 1)
    same, blurred, other = (fidelity(faces["known"], clean, made) for made in (clean, soft, noise))
    assert same["identity"] == pytest.approx(1, abs=1e-5)
    assert 0.999 > blurred["identity"] > 0.9 > other["identity"]
    assert same["psnr"] > 100 > blurred["psnr"] > 15 > other["psnr"] > 4
    assert fidelity(faces["plain"], clean, soft) == {"psnr": blurred["psnr"]}


def test_weights_move_at_the_papers_rate(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """5e-7 under bfloat16 arithmetic: float32 weights move by it, where most of bfloat16 ones would stay."""
    rate = 5e-7
    settings = PriorSettings(
        **quick(tiny, dataset, tmp_path / "out", steps=1, lr=rate, warmup=0, schedule="constant", ema=0, clip=1e9)
        | {"precision": "bf16", "weight_decay": 0}
    )
    assert train_prior(settings, Quiet(), "cpu").finished
    before, after = weights(tiny, "unet"), weights(settings.out, "unet")
    moved = torch.cat([(after[name] - before[name]).abs().flatten() for name in before])
    assert float((moved > 0).float().mean()) > 0.9 and float(moved.max()) < 2.5 * rate
    rounded = torch.cat([((before[n].bfloat16() - rate).ne(before[n].bfloat16())).float().flatten() for n in before])
    assert float(rounded.mean()) < 0.2
