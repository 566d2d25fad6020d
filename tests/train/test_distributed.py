"""Several processes train as one, sharded or not; a killed run goes on exactly; what disk or loss refuse is said."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import pytest
import torch
from safetensors.torch import load_file

from authface.console import Console
from authface.errors import AuthfaceError, UsageError
from authface.files import refusal
from authface.train import distributed as parallel
from authface.train import loop
from authface.train.controlnet import train_controlnet
from authface.train.prior import train_prior
from authface.train.settings import ControlNetSettings, PriorSettings, TrainSettings
from tests.train.conftest import Quiet, metrics, quick, weights

ROOT = Path(__file__).parent.parent.parent
CONFIGS = ROOT / "train" / "configs"


@pytest.fixture(scope="module")
def given(tiny: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of a short run with a cache that runs share, as JSON has them."""
    cache = tmp_path_factory.mktemp("distributed") / "cache"
    settings = quick(tiny, dataset, cache.parent, cache=str(cache), validate_steps=2)
    return settings | {"dataset": str(dataset), "out": str(cache.parent / "out")}


def words(stage: str, settings: dict[str, Any]) -> list[str]:
    """The command line of a training."""
    chosen = [f"train.{stage}.{name}={json.dumps(value)}" for name, value in settings.items()]
    return ["authface.cli", "train", stage, "--device", "cpu", *[word for one in chosen for word in ("-O", one)]]


def launch(config: str, *what: str) -> str:
    """Run `what` in two processes, as a user does; what was said on standard output."""
    options = ["--config_file", CONFIGS / f"{config}.yaml", "--num_processes", "2", "--main_process_port", "0"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, *what]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[:6000]
    return done.stdout


def train(stage: str, settings: dict[str, Any], console: Console | None = None) -> None:
    """Train in this process."""
    if stage == "prior":
        train_prior(PriorSettings(**settings), console or Quiet(), "cpu")
    else:
        train_controlnet(ControlNetSettings(**settings), console or Quiet(), "cpu")


def losses(out: Path) -> list[float]:
    """The loss of every step that was logged."""
    return [line["loss"] for line in metrics(out)]


def test_two_copies_train_as_one(given: dict[str, Any], tmp_path: Path) -> None:
    """Stage I, accumulating: the same losses, one voice, weights that stock code reads."""
    run = given | {"accumulate": 2, "validate_every": 4, "cache": str(tmp_path / "cache")}
    said = launch("ddp", "-m", *words("prior", run | {"batch": 1, "out": str(tmp_path / "two")}))
    assert said.count("trained: ") == 1
    train("prior", run | {"out": tmp_path / "one"})
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
    one, two = weights(tmp_path / "one", "unet"), weights(tmp_path / "two", "unet")
    assert one.keys() == two.keys() and max(float((one[k] - two[k]).abs().max()) for k in one) < 2e-3
    pictures = [cv2.imread(str(next((tmp_path / n / "training/validation").iterdir()))) for n in ("one", "two")]
    assert int(cv2.absdiff(*pictures).max()) <= 3


TWICE = """
import json, shutil, sys
from pathlib import Path
from authface.console import Console
from authface.devices import rank
from authface.train.controlnet import train_controlnet
from authface.train.distributed import barrier
from authface.train.settings import ControlNetSettings
import torch
settings = ControlNetSettings(**json.loads(sys.argv[1]))
train_controlnet(settings, Console(), "cpu")
if rank() == 0:
    shutil.copytree(settings.out, Path(f"{settings.out}-first"))
    shutil.rmtree(settings.out / "training" / "checkpoints" / "step-00000004")
barrier(torch.device("cpu"))
train_controlnet(settings, Console(), "cpu")
"""
"""Trains to the end, loses the last checkpoint, and trains again: one start of two processes instead of two."""


def test_two_parts_train_as_one_and_go_on(given: dict[str, Any], tmp_path: Path) -> None:
    """Stage II under FSDP2: weights in two parts, a picture on the way, resumed from step 2 with the same losses."""
    run = given | {"validate_every": 2, "save_every": 2, "accumulate": 2, "facial": {"start": 1}}
    one, two = tmp_path / "one", tmp_path / "two"
    train("controlnet", run | {"batch": 1, "accumulate": 4, "out": one})  # the same kernels: two faces take others
    (tmp_path / "twice.py").write_text(TWICE)
    launch("fsdp", str(tmp_path / "twice.py"), json.dumps(run | {"batch": 1, "out": str(two)}))
    first, again, reference = (weights(out, "controlnet") for out in (tmp_path / "two-first", two, one))
    whole = losses(tmp_path / "two-first")
    assert whole == pytest.approx(losses(one), abs=1e-5)
    assert reference.keys() == first.keys()
    assert max(float((first[k] - reference[k]).abs().max()) for k in first) < 2e-3
    assert json.loads((two / "controlnet" / "config.json").read_text())["_class_name"] == "ControlNetModel"
    checkpoint = two / "training" / "checkpoints" / "step-00000002"
    parts = [torch.load(checkpoint / f"average-{i}.pt", weights_only=True)["average"] for i in (0, 1)]
    assert sum(t.numel() for part in parts for t in part) == sum(t.numel() for t in reference.values())
    assert losses(two) == whole and all(torch.equal(first[k], again[k]) for k in first)
    with pytest.raises(UsageError, match="begun with processes 2, now 1"):
        train("controlnet", run | {"batch": 1, "out": two})


@pytest.mark.parametrize("stage", ["prior", "controlnet"])
def test_after_a_kill_fifty_losses_are_the_same(stage: str, given: dict[str, Any], tmp_path: Path) -> None:
    """A real SIGKILL between checkpoints; the run that goes on and one that was never stopped agree to the last bit."""
    run = given | {"steps": 56, "batch": 1, "save_every": 3}
    facial: dict[str, Any] = {"facial": {"start": 2}} if stage == "controlnet" else {}
    option = ["-O", "train.controlnet.facial.start=2"] if facial else []
    killed = tmp_path / "killed"
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads()), "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-m", *words(stage, run | {"out": str(killed)}), *option]
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL)
    log = killed / "training" / "metrics.jsonl"
    while process.poll() is None and not (log.is_file() and log.read_text().count("\n") >= 4):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert len(losses(killed)) <= 8  # what was done since the last checkpoint is done again
    for out in (killed, tmp_path / "whole"):
        train(stage, run | facial | {"save_every": 100, "out": out})
    assert len(losses(killed)) == 56 and losses(killed) == losses(tmp_path / "whole")


def test_a_disk_that_refuses_leaves_the_last_checkpoint(given: dict[str, Any], tmp_path: Path) -> None:
    """The second checkpoint may not be written: one line, nothing half is left, and the run goes on when it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    run = given | {"save_every": 2, "out": tmp_path}
    try:
        with pytest.raises(
            AuthfaceError, match="cannot write a checkpoint to .*last good checkpoint is of step 2"
        ) as said:
            train("prior", run, Quiet(3, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(said.value) and "MB are free" in str(said.value)
    assert [path.name for path in (tmp_path / "training" / "checkpoints").iterdir()] == ["step-00000002"]
    train("prior", run)
    assert len(losses(tmp_path)) == 4
    assert refusal(RuntimeError("Error: No space left on device (os error 28)")).startswith("the disk is full")
    assert refusal(OSError(28, "No space left")).startswith("the disk is full")


def test_a_bad_loss_names_all_faces_of_the_step(given: dict[str, Any], tmp_path: Path) -> None:
    """stopped.json holds each batch's loss and faces; the line names the file."""
    run = given | {"steps": 50, "lr": 1e30, "warmup": 0, "accumulate": 2, "out": tmp_path}
    with pytest.raises(AuthfaceError, match=r"the loss is (nan|inf) at step \d+ on face-\d.*stopped\.json"):
        train("prior", run)
    stopped = json.loads((tmp_path / "training" / "stopped.json").read_text())
    assert stopped["step"] > 1 and stopped["lr"] > 1e29
    assert [len(batch["ids"]) for batch in stopped["batches"]] == [2, 2]
    assert sorted(name for batch in stopped["batches"] for name in batch["ids"]) == [f"face-{i}" for i in range(4)]


def test_layout_and_compiler_change_speed_alone(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """channels_last and compile (traced here, generated code left out): losses, names and layout stay."""
    monkeypatch.setattr(loop, "COMPILER", "eager")
    run = given | {"steps": 2, "validate_every": 2}
    train("prior", run | {"out": tmp_path / "plain"})
    train("prior", run | {"out": tmp_path / "fast", "channels_last": True, "compile": True})
    assert losses(tmp_path / "fast") == pytest.approx(losses(tmp_path / "plain"), abs=1e-5)
    plain, fast = weights(tmp_path / "plain", "unet"), weights(tmp_path / "fast", "unet")
    saved = load_file(tmp_path / "fast/training/checkpoints/step-00000002/model.safetensors")
    assert plain.keys() == fast.keys() == {name.removeprefix("unet.") for name in saved}


def test_trackers_need_their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What accelerate would pass over in silence is said, before anything is trained."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match=r"pip install 'authface\[wandb\]'"):
        parallel.make_accelerator(torch.device("cpu"), TrainSettings(tracker="wandb"), tmp_path)


def test_accelerate_reads_the_configurations() -> None:
    """As its launcher does; DeepSpeed's engine gets batch, accumulation and clipping from the settings."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    read = {}
    for path in CONFIGS.glob("*.yaml"):
        args = launch_command_parser().parse_args(["--config_file", str(path), "-m", "authface.cli"])
        read[path.stem] = _validate_launch_command(args)[0]
    assert set(read) == {"ddp", "fsdp", "deepspeed"} and all(args.num_processes == 4 for args in read.values())
    assert read["ddp"].multi_gpu and read["fsdp"].use_fsdp and read["fsdp"].fsdp_version == 2
    assert read["deepspeed"].use_deepspeed and read["deepspeed"].zero_stage == 2
    config: dict[str, Any] = {"zero_optimization": {"stage": 2}, "train_micro_batch_size_per_gpu": "auto"}
    state = SimpleNamespace(deepspeed_plugin=SimpleNamespace(deepspeed_config=config))
    accelerator = SimpleNamespace(state=state, device=torch.device("cuda"))
    parallel._deepspeed(accelerator, TrainSettings(batch=3, accumulate=2, clip=0.5))
    assert config["train_micro_batch_size_per_gpu"] == 3 and config["gradient_accumulation_steps"] == 2
    assert config["gradient_clipping"] == 0.5 and config["torch_autocast"]["enabled"]
    config["zero_optimization"]["stage"] = 3
    with pytest.raises(UsageError, match="ZeRO stage 3, where 2 is the most"):
        parallel._deepspeed(accelerator, TrainSettings())
