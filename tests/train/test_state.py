"""What a training leaves on disk: checkpoints that are pruned, and runs that may not share a folder."""

from pathlib import Path

import pytest

from authface.errors import AuthfaceError, UsageError
from authface.train.prior import train_prior
from authface.train.settings import (
    PriorSettings,
)
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
    with FileLock(folder / ".lock"), pytest.raises(AuthfaceError, match="another training"):
        train_prior(PriorSettings(**values), Quiet(), "cpu")
