"""The loop on real faces with the tiny family: stages follow each other, runs stop and go on."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from authface import Restorer
from authface.console import Console
from authface.errors import AuthfaceError
from authface.models import sdxl
from authface.models.families import load, make_tiny, resolve
from authface.models.tiny import VAES
from authface.train.autoencoder import train_autoencoder
from authface.train.controlnet import train_controlnet
from authface.train.data import FaceDataset, Stream
from authface.train.logbook import Logbook
from authface.train.prior import train_prior
from authface.train.settings import (
    AutoencoderSettings,
    ControlNetSettings,
    PriorSettings,
)
from tests.train.conftest import CPU, SIZE, Quiet, metrics, quick, same, weights


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """SIGTERM saves and ends; the same call finishes; weights and metrics equal those of an unbroken run."""
    whole = PriorSettings(**quick(tiny, dataset, tmp_path / "whole", save_every=3, accumulate=2))
    assert train_prior(whole, Quiet(), "cpu", seed=3).finished
    broken = PriorSettings(**quick(tiny, dataset, tmp_path / "broken", save_every=3, accumulate=2))
    before = signal.getsignal(signal.SIGTERM)
    stopped = train_prior(broken, Quiet(at=2), "cpu", seed=3)
    assert (stopped.finished, stopped.step) == (False, 2) and not (broken.out / "unet").exists()
    assert signal.getsignal(signal.SIGTERM) is before
    console = Quiet()
    assert train_prior(broken, console, "cpu", seed=3).finished
    assert console.steps == 2 and console.lines == ["prior: goes on from step 2 of 4"]
    assert same(weights(whole.out, "unet"), weights(broken.out, "unet"))
    assert metrics(whole.out) == metrics(broken.out)
    again = Quiet()
    assert train_prior(broken, again, "cpu", seed=3).finished and again.steps == 0


def test_a_kill_before_the_last_picture_leaves_it_to_the_next_run(
    tiny: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state is saved first; its picture and figures come once, whenever the kill came."""
    names = ("whole", "before", "between")
    runs = {
        name: AutoencoderSettings(**quick(tiny, dataset, tmp_path / name, steps=2, validate_every=2)) for name in names
    }
    assert train_autoencoder(runs["whole"], Quiet(), "cpu", seed=3).finished

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for name, place in (("before", "show"), ("between", "_picture")):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Logbook, place, killed)
            train_autoencoder(runs[name], Quiet(), "cpu", seed=3)
        again = Quiet()
        assert train_autoencoder(runs[name], again, "cpu", seed=3).finished and again.steps == 0
    for file in ("validation.jsonl", "validation/step-00000002.png"):
        whole, before, between = ((tmp_path / name / "training" / file).read_bytes() for name in names)
        assert whole == before == between, file


def test_a_signal_to_the_whole_job_leaves_the_loaders_alone(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """Slurm and systemd signal every process of a job: those that load go on until the run was saved."""

    def stop_all() -> None:
        loaders = [str(child.pid) for child in psutil.Process().children(recursive=True)]
        subprocess.run(["kill", "-TERM", *loaders], check=True)  # a parent's own signal would be heeded
        time.sleep(1)  # a loader that dies is noticed by then
        os.kill(os.getpid(), signal.SIGTERM)

    settings = PriorSettings(**quick(tiny, dataset, tmp_path / "out", steps=8, loader_workers=1))
    stopped = train_prior(settings, Quiet(at=2, action=stop_all), "cpu", seed=3)
    assert (stopped.finished, stopped.step) == (False, 2)
    assert train_prior(settings, Quiet(), "cpu", seed=3).finished


def test_a_loss_that_is_not_finite_stops_with_the_faces(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """An absurd rate: one line with the step, the ids, and what to go back to."""
    settings = PriorSettings(**quick(tiny, dataset, tmp_path / "out", steps=50, save_every=1, lr=1e30, warmup=0))
    with pytest.raises(AuthfaceError, match=r"the loss is (nan|inf) at step \d+ on face-\d") as caught:
        train_prior(settings, Quiet(), "cpu")
    assert "last good checkpoint" in str(caught.value) and "\n" not in str(caught.value)


def test_a_gradient_that_is_not_finite_moves_no_weight(
    tiny: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The root of a square that is 0, at the last step: the loss is whole, and no family of NaN is written."""
    measured = sdxl.square_error

    def rooted(guess: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return measured(guess, target) + (guess - guess.detach()).square().flatten(1).sum(1).sqrt()

    settings = PriorSettings(**quick(tiny, dataset, tmp_path / "out", save_every=2))
    with monkeypatch.context() as patch:
        last = Quiet(at=3, action=lambda: patch.setattr(sdxl, "square_error", rooted))
        with pytest.raises(AuthfaceError, match=r"gradient's norm is nan at step 4 on face-\d, .* of step 2;"):
            train_prior(settings, last, "cpu")
    assert not (settings.out / "unet").exists()
    assert len(json.loads((settings.out / "training" / "stopped.json").read_text())["batches"][0]["ids"]) == 2
    assert train_prior(settings, Quiet(), "cpu").finished
    assert all(tensor.isfinite().all() for tensor in weights(settings.out, "unet").values())


@pytest.mark.parametrize("fault", ["loss", "picture"])
def test_an_error_leaves_no_loader(
    fault: str, tiny: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one line, wherever it was raised; a loader that stays would keep the command from ending for ever."""

    def broken(faces: FaceDataset, index: int, flip: bool = False) -> None:
        raise AuthfaceError(f"{faces.id(index)} cannot be read")

    rate = 1e30 if fault == "loss" else 1e-4
    settings = PriorSettings(**quick(tiny, dataset, tmp_path / fault, steps=50, lr=rate, warmup=0, loader_workers=1))
    if fault == "picture":
        cached = settings.model_copy(update={"steps": 1})
        train_prior(cached, Quiet(), "cpu")
        monkeypatch.setattr(Stream, "__getitem__", lambda stream, k: broken(FaceDataset(dataset, SIZE), k % 2))
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with pytest.raises(AuthfaceError) as caught:
        train_prior(settings, Quiet(), "cpu")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("the loss is" if fault == "loss" else "face-")
    assert not [child for child in psutil.Process().children(recursive=True) if child.pid not in before]


def test_a_run_goes_on_over_the_weights_it_was_begun_over(
    tiny: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prior that was trained on has other latents to control: one line. Another spelling of `out` is the same."""
    prior = PriorSettings(**quick(tiny, dataset, tmp_path / "prior", steps=1))
    train_prior(prior, Quiet(), "cpu")
    stage = ControlNetSettings(**quick(prior.out, dataset, tmp_path / "stage", steps=1))
    assert train_controlnet(stage, Quiet(), "cpu").finished
    monkeypatch.chdir(tmp_path)
    more = stage.model_copy(update={"steps": 2, "out": Path("stage")})
    assert train_controlnet(more, Quiet(), "cpu").finished
    train_prior(prior.model_copy(update={"steps": 2}), Quiet(), "cpu")
    with pytest.raises(AuthfaceError, match="stage was begun over another unet than that of .*prior now: set another"):
        train_controlnet(more, Quiet(), "cpu")
    shutil.rmtree(tmp_path / "stage" / "training")
    assert train_controlnet(more, Quiet(), "cpu").finished


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
        packs = [load_file(pack) for pack in (out / "training" / "cache").glob("*.safetensors")]
        shapes = {tuple(pack["latents"].shape[1:]) for pack in packs if "latents" in pack}
        assert shapes == {(2, shape.latents, SIZE // shape.factor, SIZE // shape.factor)}
    widths = load(resolve(str(third.out)), ["controlnet"], CPU, torch.float32).controlnet.config
    assert len(widths["conditioning_embedding_out_channels"]) == len(shape.channels)
    face = FaceDataset(dataset, SIZE).rgb(0)
    with Restorer(str(third.out), device="cpu", steps=2) as restorer:
        (restored,) = restorer.restore_aligned([face])
    assert restored.faces[0].after is not None and restored.faces[0].after.shape == face.shape


def test_a_checkpoint_of_another_family_is_told_of(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """The folder of the base holds other widths now; or the checkpoint was cut short: one line, and what to do."""
    base = Path(shutil.copytree(tiny, tmp_path / "base"))
    settings = PriorSettings(**quick(base, dataset, tmp_path / "out", steps=2))
    train_prior(settings, Quiet(), "cpu")
    shutil.rmtree(base)
    make_tiny(base, seed=0, image_size=SIZE, channels=(32, 64, 96))
    more = settings.model_copy(update={"steps": 3})
    with pytest.raises(AuthfaceError, match="out was begun over another (vae|unet) than that of .*base now"):
        train_prior(more, Quiet(), "cpu")
    run = tmp_path / "out" / "training" / "run.json"
    told = json.loads(run.read_text("utf-8"))
    del told["built_on"]  # as versions before wrote it
    run.write_text(json.dumps(told), "utf-8")
    with pytest.raises(AuthfaceError, match=r"step-00000002 cannot be gone on from .* of another"):
        train_prior(more, Quiet(), "cpu")
    run.write_text(json.dumps(told), "utf-8")
    shutil.rmtree(base)
    shutil.copytree(tiny, base)
    weights_file = tmp_path / "out" / "training" / "checkpoints" / "step-00000002" / "model.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:1000])
    with pytest.raises(AuthfaceError, match="it is broken") as caught:
        train_prior(more, Quiet(), "cpu")
    assert "\n" not in str(caught.value)


def test_a_broken_file_of_a_run_is_one_line(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """Whatever a library raises of it. Lines of metrics that a power cut spoilt are dropped."""
    settings = PriorSettings(**quick(tiny, dataset, tmp_path / "out", save_every=2))
    train_prior(settings, Quiet(), "cpu")
    training, more = settings.out / "training", settings.model_copy(update={"steps": 5})
    newest = training / "checkpoints" / "step-00000004"
    for file in (newest / "average.pt", newest / "optimizer.bin", training / "run.json"):
        whole = file.read_bytes()
        for spoilt in (b"", whole[: len(whole) // 2], b"[1]\x80 junk\n" * 40):
            file.write_bytes(spoilt)
            with pytest.raises(AuthfaceError, match="cannot be gone on from|run.json is broken") as caught:
                train_prior(more, Quiet(), "cpu")
            assert "\n" not in str(caught.value)
        file.write_bytes(whole)
    (newest / "average.pt").unlink()
    with pytest.raises(AuthfaceError, match="step-00000004 cannot be gone on from"):
        train_prior(more, Quiet(), "cpu")
    shutil.rmtree(newest)
    lines = (training / "metrics.jsonl").read_bytes()
    (training / "metrics.jsonl").write_bytes(b"\x80\n[1]\n" + lines + bytes(30) + b"\n")
    assert train_prior(more, Quiet(), "cpu").finished
    assert [line["step"] for line in metrics(settings.out)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("capable", [True, False])
def test_bf16_on_a_cpu_is_for_cpus_that_have_it(
    capable: bool, tiny: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Emulated it takes eight times as long: then float32, bit for bit, and a line that says so."""
    monkeypatch.setattr("authface.train.settings.cpu_has_bf16", lambda: capable)
    made = {}
    for precision in ("bf16", "fp32"):
        settings = PriorSettings(**quick(tiny, dataset, tmp_path / precision, steps=1, precision=precision))
        assert train_prior(settings, Console(), "cpu").finished
        made[precision] = weights(settings.out, "unet")
    assert same(made["bf16"], made["fp32"]) is not capable
    assert ("has no instructions for bfloat16" in capsys.readouterr().err) is not capable


def test_weights_move_at_the_papers_rate(
    tiny: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5e-7 under bfloat16 arithmetic: float32 weights move by it, where most of bfloat16 ones would stay."""
    monkeypatch.setattr("authface.train.settings.cpu_has_bf16", lambda: True)
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
