"""Bounds of settings: what no training can use is refused before it begins, in one line that names it."""

import pytest
from pydantic import ValidationError

from authface.train.settings import AutoencoderSettings, CleanerSettings, PriorSettings, TrainSettings


@pytest.mark.parametrize("stage", [PriorSettings, AutoencoderSettings, CleanerSettings])
def test_both_betas_are_shares_below_1(stage: type[TrainSettings]) -> None:
    assert stage.model_validate({"betas": [0, 0.9999]}).betas == (0, 0.9999)
    for wrong in ([0.9, 1.5], [0.9, 1], [-0.1, 0.9], [0.9]):
        with pytest.raises(ValidationError, match="betas"):
            stage.model_validate({"betas": wrong})
