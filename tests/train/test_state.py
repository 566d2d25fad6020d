"""What a training leaves on disk: checkpoints that are pruned, and runs that may not share a folder."""

import json
import re
import shutil
from pathlib import Path

import pytest

from authface.errors import AuthfaceError, UsageError
from authface.train.prior import train_prior
from authface.train.settings import ControlNetSettings, DecodedSettings, FacialSettings, PriorSettings
from authface.train.state import ONE_PROCESS, RunFolder
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
