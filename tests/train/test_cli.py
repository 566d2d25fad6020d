"""What `authface train` refuses before anything is begun."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from authface.cli import app
from authface.errors import UsageError


@pytest.mark.parametrize("stage", ["autoencoder", "cleaner", "prior", "controlnet"])
def test_a_seed_below_0_and_betas_that_are_no_shares_are_one_line(stage: str, tmp_path: Path) -> None:
    def refused(*words: str) -> str:
        error = CliRunner().invoke(app, ["train", stage, str(tmp_path), *words]).exception
        assert isinstance(error, UsageError), error
        return str(error)

    assert refused("--seed", "-1") == "--seed -1: seeds are 0 and more"
    assert refused("--engine", "ray").startswith("--engine ray: trainings run in the processes of accelerate launch")
    said = refused("-O", f"train.{stage}.betas=[0.9,1.5]")
    assert f"train.{stage}.betas" in said and "1.5" in said and "\n" not in said


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("controlnet.degradation=awful", "no degradation 'awful'"),
        ("cleaner.degradation={mild = 0}", "share of degradation mild is 0.0"),
        ("cleaner.degradation={}", "degradation"),
        ("cleaner.zoom=[0.5,inf]", "the second finite and not the smaller"),
    ],
)
def test_a_dry_run_refuses_what_the_training_would(setting: str, said: str, tmp_path: Path) -> None:
    """Names and shares of degradations, before anything is loaded."""
    stage, model = setting.partition(".")[0], f"train.{setting.partition('.')[0]}.model=tiny"
    words = ["train", stage, str(tmp_path), "--dry-run", "-O", model, "-O", f"train.{setting}"]
    error = CliRunner().invoke(app, words).exception
    assert isinstance(error, UsageError) and said in str(error) and "\n" not in str(error)
