"""`--device`: one of torch's, what is read as several, and which GPU each of these workers sees."""

from __future__ import annotations

import pytest
import torch

from authface import devices
from authface.devices import Devices, pick_device, several
from authface.errors import UsageError


@pytest.fixture(autouse=True)
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "_gpus", lambda: 3)


@pytest.mark.parametrize("text", ["auto", "cpu", "cuda", "cuda:1", "mps"])
def test_one_device_is_none_of_several(text: str) -> None:
    assert several(text) is None


def test_all_gpus_some_of_them_or_shares_of_the_cpu() -> None:
    assert several("cuda:all") == Devices("cuda", (0, 1, 2))
    assert several("cuda:0,cuda:2") == Devices("cuda", (0, 2))
    assert several("cuda:1,cuda:1") == Devices("cuda", (1, 1)), "two small models on one GPU"
    assert several("cpu:2") == Devices("cpu", (0, 1))


def test_a_worker_sees_its_own_gpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = Devices("cuda", (0, 2))
    assert [dict(seat) for seat in chosen.seats] == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "2"}]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-6fa1,7")
    assert [dict(seat) for seat in chosen.seats] == [{"CUDA_VISIBLE_DEVICES": "5"}, {"CUDA_VISIBLE_DEVICES": "7"}]
    assert chosen.first == "cuda:0" and Devices("cpu", (0, 1)).first == "cpu"


@pytest.mark.parametrize(
    "text", ["cuda:0,cuda:3", "cuda,cuda:1", "cpu:0", "cpu:9999", "cuda:0,cpu", "cuda:0,", ",", "cuda:0,\n"]
)
def test_what_is_not_there_is_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="--device") as told:
        several(text)
    assert "\n" not in str(told.value)


def test_no_gpu_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_gpus", lambda: 0)
    with pytest.raises(UsageError, match="finds 0 cuda devices"):
        several("cuda:all")


@pytest.mark.parametrize("text", ["cuda:all", "cpu:2"])
def test_a_command_of_one_device_says_which_take_several(text: str) -> None:
    with pytest.raises(UsageError, match="restore, annotate tags and evaluate restoration"):
        pick_device(text)


def test_a_device_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """auto finds one, CUDA has a number, a wrong name and an absent one are said in one line."""
    assert pick_device("auto").type in {"cpu", "cuda", "mps"}
    assert pick_device("cpu") == torch.device("cpu")
    for name in ["gpu", "cuda:99", "xpu", "meta"]:
        with pytest.raises(UsageError, match="--device"):
            pick_device(name)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick_device("cuda") == torch.device("cuda", 0)
