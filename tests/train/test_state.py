"""What a training leaves on disk: checkpoints that are pruned, and runs that may not share a folder.

The learning rate, optimizers that need a package, and the moving average against diffusers'.
"""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from authface.errors import AuthfaceError, UsageError
from authface.train.controlnet import train_controlnet
from authface.train.prior import train_prior
from authface.train.settings import (
    ControlNetSettings,
    DecodedSettings,
    FacialSettings,
    PriorSettings,
    TrainSettings,
)
from authface.train.state import ONE_PROCESS, MovingAverage, RunFolder, learning_rate, make_optimizer
from tests.train.conftest import Quiet, quick


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
    with pytest.raises(UsageError, match="was begun on 4 faces, and .* has 2 others now: set another out"):
        train_prior(PriorSettings(**values | {"steps": 6}), Quiet(), "cpu", limit=2)
    moved = shutil.copytree(dataset, tmp_path / "moved")
    assert train_prior(PriorSettings(**values | {"steps": 6, "dataset": moved}), Quiet(), "cpu").step == 6
    with FileLock(folder / ".lock"), pytest.raises(AuthfaceError, match="in use by another authface"):
        train_prior(PriorSettings(**values), Quiet(), "cpu")


def test_a_run_of_an_older_version_goes_on_and_what_differs_is_named_by_its_leaf(tmp_path: Path) -> None:
    """A setting that run.json does not have yet counts as its default, wherever it stands."""
    folder = RunFolder(tmp_path)
    (folder.checkpoints / "step-00000001").mkdir(parents=True)
    begun = ControlNetSettings(from_degraded=0.5, degradation={"gfpgan": 1.0}, pixels=DecodedSettings(adversarial=0.5))
    run = folder.training / "run.json"
    old = json.loads(begun.model_dump_json())
    del old["pixels"]["patch"], old["facial"], old["clip"], old["lr"]
    older = json.dumps({"seed": 0, "settings": old})

    def claim(**changed: object) -> None:
        run.write_text(older)
        folder.claim(begun.model_copy(update=changed), 0, dict(ONE_PROCESS))

    claim()
    assert json.loads(run.read_text())["settings"]["pixels"]["patch"] == 0
    for changed, said in (
        ({"pixels": DecodedSettings(adversarial=1)}, "pixels.adversarial 0.5, now 1.0: set"),
        ({"pixels": DecodedSettings(adversarial=0.5, patch=64)}, "pixels.patch 0, now 64: set"),
        ({"facial": FacialSettings(m=0.5)}, "facial.m -0.5, now 0.5: set"),
        ({"lr": 1e-3}, "lr 0.0001, now 0.001: set"),
        ({"degradation": "gfpgan"}, "degradation {'gfpgan': 1.0}, now gfpgan: set"),
    ):
        with pytest.raises(UsageError, match=f"was begun with {re.escape(said)}"):
            claim(**changed)
        assert run.read_text() == older


def test_one_stage_does_not_go_on_with_another(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """Where all their settings are the same, too; a run of an older version does not say which it is."""
    values = quick(tiny, dataset, tmp_path / "out", steps=1)
    train_prior(PriorSettings(**values), Quiet(), "cpu")
    with pytest.raises(UsageError, match="begun with stage prior, now controlnet: set another out"):
        train_controlnet(ControlNetSettings(**values), Quiet(), "cpu")
    run = tmp_path / "out" / "training" / "run.json"
    run.write_text(json.dumps({name: value for name, value in json.loads(run.read_text()).items() if name != "stage"}))
    assert train_prior(PriorSettings(**values), Quiet(), "cpu").finished
    held = json.loads(run.read_text())
    for odd in ({"built_on": 3}, {"content": 4}, {"faces": "many"}):
        run.write_text(json.dumps(held | odd))
        with pytest.raises(AuthfaceError, match="run.json is broken"):
            train_prior(PriorSettings(**values), Quiet(), "cpu")


def test_the_rate_rises_and_falls() -> None:
    """Linear over the warm-up, then half a cosine to zero or constant."""
    falling = TrainSettings(steps=110, warmup=10, lr=1.0)
    assert [learning_rate(s, falling) for s in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert [learning_rate(s, falling) for s in (10, 60, 110)] == pytest.approx([1.0, 0.5, 0.0])
    assert learning_rate(105, TrainSettings(steps=110, warmup=10, lr=1.0, schedule="constant")) == 1.0


def test_eight_bits_need_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TrainSettings(optimizer="adamw8bit")
    with pytest.raises(UsageError, match="needs CUDA, this is cpu"):
        make_optimizer([], settings, torch.device("cpu"))
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UsageError, match=r"pip install 'authface\[8bit\]'"):
        make_optimizer([], settings, torch.device("cuda"))


@pytest.mark.parametrize("device", ["same", "cpu"])
def test_the_average_is_diffusers(device: Any) -> None:
    """Against EMAModel over 30 steps of a random walk; its state goes on; the weights come back."""
    from diffusers.training_utils import EMAModel

    torch.manual_seed(0)
    walk = [torch.nn.Parameter(torch.randn(3, 4)), torch.nn.Parameter(torch.randn(5))]
    ours, theirs = MovingAverage(walk, 0.7, device), EMAModel(walk, decay=0.7, foreach=True)
    for step in range(30):
        for parameter in walk:
            parameter.data += torch.randn_like(parameter)
        if step == 15:
            state = ours.state_dict()
            ours = MovingAverage(walk, 0.7, device)
            ours.load_state_dict(state)
        ours.step()
        theirs.step(walk)
        for mine, other in zip(ours.state_dict()["average"], theirs.shadow_params, strict=True):
            assert torch.allclose(mine, other, atol=1e-6)
    before = [parameter.detach().clone() for parameter in walk]
    ours.store()
    ours.copy_to()
    assert not torch.equal(walk[0], before[0]) and torch.allclose(walk[0], theirs.shadow_params[0], atol=1e-6)
    ours.restore()
    assert all(torch.equal(a, b) for a, b in zip(walk, before, strict=True))
