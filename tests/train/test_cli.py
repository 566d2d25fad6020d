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
    said = refused("-O", f"train.{stage}.betas=[0.9,1.5]")
    assert f"train.{stage}.betas" in said and "1.5" in said and "\n" not in said
