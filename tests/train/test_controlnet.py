"""Stage II: equation 1, what it begins from, what it keeps, and the facial loss beside it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from authface.errors import AuthfaceError, UsageError
from authface.faces.degrade import PRESETS, mixture
from authface.imaging.decode import read
from authface.models import sdxl
from authface.models.families import load, resolve
from authface.models.layout import OWN_PRESETS
from authface.models.tiny import VAE
from authface.options import SECTIONS
from authface.recipe import load as load_recipe
from authface.train.cache import TensorStore, cache_latents, cache_texts
from authface.train.controlnet import ControlNetObjective, init_controlnet, train_controlnet
from authface.train.data import Draw, FaceDataset
from authface.train.losses.critic import FacialCritic
from authface.train.objective import Noise
from authface.train.prior import train_prior
from authface.train.settings import (
    ControlNetSettings,
    FacialSettings,
    PriorSettings,
)
from tests.train.conftest import CPU, SIZE, Quiet, metrics, quick, same, weights


@pytest.fixture(scope="module")
def stage_two(tiny: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> ControlNetObjective:
    """Stage II's objective before its first step."""
    settings = ControlNetSettings(**quick(tiny, dataset, tmp_path_factory.mktemp("stage-two")))
    source, faces = resolve(str(tiny)), FaceDataset(dataset, SIZE)
    store = TensorStore(settings.out / "cache")
    parts = load(source, ["vae", "unet", "scheduler"], CPU, torch.float32)
    parts.unet.requires_grad_(False)
    parts.controlnet = sdxl.new_controlnet(parts.unet, VAE.factor)
    null = cache_texts([], source, CPU, store, Quiet()).read([""])
    latents = cache_latents(faces, source, parts.vae, store, 3, Quiet())
    return ControlNetObjective(faces, parts, latents, null, PRESETS["gfpgan"], settings, seed=0)


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
    assert np.array_equal(rows[:SIZE, 2 * SIZE :], FaceDataset(dataset, SIZE).rgb(0))
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
    init_controlnet(
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


def test_a_gpu_is_to_damage_the_same_faces(stage_two: ControlNetObjective) -> None:
    """Whole faces with their damage come out as those that loaders degrade, but for a level here and there."""
    from dataclasses import replace

    mixed = replace(stage_two, degradation=mixture({"heavy": 1, "scan": 1, "noise_jpeg": 1}))
    draws = [Draw(epoch % 4, epoch, bool(epoch % 2)) for epoch in range(6)]
    now, later = mixed.batch(draws), replace(mixed, damages_later=True).batch(draws)
    assert later.degraded.dtype == torch.uint8 and len(later.drawn) == 6
    moved = later.to(CPU)
    assert torch.equal(now.latents, moved.latents) and now.degraded.shape == moved.degraded.shape
    assert float(((moved.degraded - now.degraded).abs() * 255 < 1.01).float().mean()) > 0.99


def test_stage_two_goes_on_with_its_discriminators(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """With the facial loss on: figures of it are logged, a stopped run goes on exactly, ablations differ."""
    facial: dict[str, Any] = {"weight": "time", "cut": 0.0, "start": 1}
    settings = {
        name: ControlNetSettings(**quick(tiny, dataset, tmp_path / name, save_every=2, facial=facial))
        for name in ("whole", "broken")
    }
    assert train_controlnet(settings["whole"], Quiet(), "cpu").finished
    assert not train_controlnet(settings["broken"], Quiet(at=2), "cpu").finished
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
    critic = FacialCritic(channels, VAE.factor, settings.facial, CPU, seed=0)
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
