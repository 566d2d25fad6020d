"""The wrapper of pyiqa: what it keeps from being fetched, and what it says of a metric that cannot be loaded."""

from __future__ import annotations

import sys

import pytest

from authface.errors import AuthfaceError
from authface.metrics.quality import QualityMetric, loading


def test_maniqa_alone_is_made_without_fetching_its_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyiqa
    import timm
    import torch

    made: list[bool] = []
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: made.append(pretrained))
    monkeypatch.setattr(pyiqa, "create_metric", lambda *_, **__: timm.create_model("vit", pretrained=True))
    before = timm.create_model
    for name in ("maniqa", "topiq_nr"):
        QualityMetric(name, torch.device("cpu"))
    assert made == [False, True] and timm.create_model is before


def test_what_cannot_be_loaded_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    failure = r"^musiq cannot be loaded \(OSError: no\\nroute\): copy it$"
    with pytest.raises(AuthfaceError, match=failure), loading("musiq cannot be loaded", "copy it"):
        sys.stdout.write("noise of a library")
        raise OSError("no\nroute")
    assert capsys.readouterr() == ("", "")
