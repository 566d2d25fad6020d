"""The learning rate, optimizers that need a package, and the moving average against diffusers'."""

import sys
from typing import Any

import pytest
import torch

from authface.errors import UsageError
from authface.train.settings import (
    TrainSettings,
)
from authface.train.state import MovingAverage, learning_rate, make_optimizer


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
