"""Seconds and memory: the arithmetic, parts seen from outside, and the command on a real family."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from authface.console import Console
from authface.evaluate.runtime import REST, UNSEEN, measure, peak_memory, seconds_of, watching
from authface.evaluate.settings import RuntimeSettings
from tests.conftest import Install

Command = Callable[..., tuple[int, str, str]]


def test_median_and_quartiles_a_face() -> None:
    found = seconds_of([4.0, 2.0, 10.0, 6.0, 8.0], faces=2)
    assert (found.least, found.low, found.median, found.high, found.most) == (1, 2, 3, 4, 5)
    assert seconds_of([3.0], faces=1).low == seconds_of([3.0], faces=1).high == 3


def test_runs_are_counted_and_the_cold_one_is_apart() -> None:
    calls = []

    def restore() -> None:
        calls.append(1)
        time.sleep(0.3 if len(calls) == 1 else 0.02)

    settings = RuntimeSettings(count=3, warmup=2)
    found = measure(restore, settings, "cpu", Console())
    assert len(calls) == 1 + 2 + 3 + 1
    assert found.first >= 0.3 and 0.02 <= found.face.median < 0.2
    assert found.processor is not None and found.processor < 0.02, "it slept"
    assert set(found.parts) == {REST} and found.parts[REST].seconds >= 0.02


def test_the_outermost_part_takes_the_time() -> None:
    import torch

    class Slow(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module | None = None) -> None:
            super().__init__()
            self.inner = inner
            self.weight = torch.nn.Parameter(torch.zeros(5))

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
            time.sleep(0.02)
            return (self.inner(image)[0] if self.inner is not None else image,)

    def named(name: str, inner: torch.nn.Module | None = None) -> torch.nn.Module:
        return type(name, (Slow,), {"__module__": "diffusers.models"})(inner)  # type: ignore[no-any-return]  # a Slow

    outer, stranger = named("UNet2DConditionModel", named("ControlNetModel")), Slow(named("Decoder"))
    with watching() as parts:
        outer(torch.zeros(2, 3))
        outer(torch.zeros(2, 3))
        stranger(torch.zeros(1, 3))
    assert set(parts) == {"U-Net", "VAE decoder"}, "a part within another is not counted twice"
    unet = parts["U-Net"]
    assert (unet.calls, unet.rows, unet.parameters, unet.dtype) == (2, 2, 10, "float32") and unet.seconds >= 0.08
    assert parts["VAE decoder"].calls == 1
    outer(torch.zeros(2, 3))
    assert unet.calls == 2, "the hooks are gone"


def test_the_peak_is_that_of_the_work() -> None:
    def work(mebibytes: int) -> None:
        np.ones((mebibytes, 2**20), np.uint8)

    peak_memory("cpu", lambda: work(400))
    small, of = peak_memory("cpu", lambda: work(1))
    large, _ = peak_memory("cpu", lambda: work(300))
    assert small is not None and large is not None
    if "since it began" not in of:
        assert 250 < large - small < 350, "what was freed before does not count"


def test_the_command_measures_a_family(authface: Command, family: Path, tmp_path: Path) -> None:
    words = ("runtime", "--model", family, "--size", 64, "--count", 2, "-o", tmp_path, "--device", "cpu")
    few = ("-O", "restore.steps=3", "-O", "evaluate.runtime.warmup=0")
    code, text, _ = authface(*words, *few, "--json")
    told: dict[str, Any] = json.loads(text)
    assert code == 0 and told["runs"] == 2 and 0 < told["face"]["low"] <= told["face"]["median"] <= told["face"]["high"]
    parts = told["parts"]
    assert set(parts) == {"ControlNet", "U-Net", "VAE decoder", REST}
    assert (parts["U-Net"]["calls"], parts["U-Net"]["rows"]) == (3, 2), "three steps, guidance in a second row"
    assert parts["ControlNet"]["calls"] == 1 + 3 and parts["VAE decoder"]["calls"] == 1
    assert parts["ControlNet"]["parameters"] > parts["U-Net"]["parameters"] / 3 > 0
    assert sum(part["share"] for part in parts.values()) == pytest.approx(1)
    assert told["first"] > told["face"]["median"] and told["memory"] > 100 and told["processor"] > 0
    how = told["protocol"]
    assert how["preset"] == "official" and how["settings"] == {"steps": 3} and how["device"].endswith("(cpu)")
    assert set(how["weights"]) == {
        f"{part}/{name}.safetensors"
        for part, name in [(p, "diffusion_pytorch_model") for p in ("unet", "vae", "controlnet")]
        + [(p, "model") for p in ("text_encoder", "text_encoder_2")]
    }
    assert json.loads((tmp_path / "runtime.json").read_text()) == {k: v for k, v in told.items() if k != "report"}
    code, text, _ = authface(*words, *few, "--preset", "fast")
    assert code == 0 and "preset fast, 64 px, 3 steps with guidance, on" in text and "s a face, quartiles" in text


def test_a_cleaner_is_a_part_and_what_onnx_runtime_runs_is_said_to_be_unseen(authface: Command, tmp_path: Path) -> None:
    """The built-in family at its own side, by its graphs and by torch."""
    words = ("runtime", "--model", "tiny", "--preset", "fast", "--size", 256, "--count", 1, "-o", tmp_path)
    short = (*words, "--device", "cpu", "-O", "evaluate.runtime.warmup=0")
    code, text, log = authface(*short)
    assert code == 0 and UNSEEN in text and "\ncleaner" not in text, log
    code, text, log = authface(*short, "-O", "restore.engine=torch")
    assert code == 0 and UNSEEN not in text, log
    (line,) = [line for line in text.splitlines() if line.startswith("cleaner")]
    assert "4.2 M" in line and "cpu" in line


def test_what_cannot_be_measured_is_said(authface: Command, family: Path, tmp_path: Path) -> None:
    for words, said in (
        (("--model", tmp_path / "none"), "no model"),
        (("--model", family, "--preset", "best"), "preset"),
        (("--model", family, "--size", 72), "multiples of 16 px"),
        (("--model", family, "--count", 0), "--count 0: "),
        (("--model", family, "--seed", -1), "seeds are 0 and more"),
        (("--model", family, "-O", "restore.stepz=3"), "restore.steps"),
    ):
        code, _, log = authface("runtime", *words, "-o", tmp_path / "r", "--device", "cpu")
        assert code == 2 and said in log and log.count("\n") == 1, log
    code, text, _ = authface("runtime", "--model", family, "-o", tmp_path / "r", "--dry-run")
    assert code == 0 and "5 runs, official, 512 px" in text and not (tmp_path / "r").exists()


def test_a_restorer_of_another_package_is_measured_and_its_release_named(
    authface: Command, install: Install, tmp_path: Path
) -> None:
    module = "from authface.restore.model.restorer import Identity\nclass Same(Identity):\n    pass\n"
    install("shoebox", "[authface.restorers]\nsame = shoebox:Same\n", module)
    words = ("runtime", "--model", "same", "--size", 64, "--count", 1, "--device", "cpu", "-o", tmp_path)
    code, text, log = authface(*words, "--json")
    assert code == 0, log
    assert json.loads(text)["protocol"]["weights"] == {"same": "shoebox 1.0"}
