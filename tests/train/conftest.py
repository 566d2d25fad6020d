"""What tests of the trainings share: a dataset of real portraits, a family to begin from, short runs, their results."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import datasets
import pytest
import skimage.data
import torch
from safetensors.torch import load_file

from authface.console import Console, Tick
from authface.models.families import make_tiny

SIZE = 64
CPU = torch.device("cpu")


class Quiet(Console):
    """Keeps its lines; does `action` at step `at`, which sends this process SIGTERM if nothing else is given."""

    def __init__(self, at: int = 0, action: Callable[[], object] | None = None) -> None:
        super().__init__()
        self.at, self.action, self.lines, self.steps = at, action, list[str](), 0

    def log(self, text: str) -> None:
        """Keep the line."""
        self.lines.append(text)

    @contextmanager
    def progress(self, title: str, total: int | None, unit: str, left: object = None) -> Iterator[Tick]:
        """Count steps."""

        def tick(done: int = 1, note: str = "") -> None:
            if unit == "steps":
                self.steps += done
                if self.steps == self.at:
                    self.action() if self.action else os.kill(os.getpid(), signal.SIGTERM)

        yield tick


class OneProcess:
    """An accelerator of one process, as far as losses ask it."""

    num_processes = 1


def quick(model: Path, dataset: Path, out: Path, **more: Any) -> dict[str, Any]:
    """Settings of a run of seconds."""
    return {
        "model": str(model), "dataset": dataset, "out": out, "size": SIZE, "steps": 4, "batch": 2, "warmup": 1,
        "ema": 0.5, "validate_every": 0, "validate_count": 2, "tracker": "none", **more,
    }  # fmt: skip


def weights(folder: Path, part: str) -> dict[str, torch.Tensor]:
    """A part's tensors."""
    return dict(load_file(folder / part / "diffusion_pytorch_model.safetensors"))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def metrics(out: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (out / "training" / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four crops of two real portraits, with prompts."""
    import matplotlib.cbook

    hopper = cv2.imread(str(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))[..., ::-1]
    astronaut = skimage.data.astronaut()
    crops = [astronaut[0:240, 100:340], hopper[20:420, 60:460], astronaut[40:200, 150:310], hopper[60:340, 120:400]]
    rows = [
        {
            "id": f"face-{i}",
            "image": {"bytes": cv2.imencode(".png", crop[..., ::-1])[1].tobytes(), "path": None},
            "prompt": ["soft light, smile", "uniform, cap"][i % 2],
            "prompt_semantic": ["", "cap"][i % 2],
            "size": crop.shape[0],
            # About where FFHQ's alignment would have put them: enough for a loss to look at.
            "roi": {
                name: [float(x * crop.shape[0]), float(y * crop.shape[0]), 0.07 * crop.shape[0]]
                for name, (x, y) in {"left_eye": (0.37, 0.47), "right_eye": (0.62, 0.47), "mouth": (0.5, 0.72)}.items()
            },
        }
        for i, crop in enumerate(crops)
    ]
    number = datasets.Value("float32")
    features = datasets.Features({
        "id": datasets.Value("string"), "image": datasets.Image(), "prompt": datasets.Value("string"),
        "prompt_semantic": datasets.Value("string"), "size": datasets.Value("int32"),
        "roi": {name: datasets.List(number, length=3) for name in ("left_eye", "right_eye", "mouth")},
    })  # fmt: skip
    folder = tmp_path_factory.mktemp("photoset") / "dataset"
    (folder / "data").mkdir(parents=True)
    datasets.Dataset.from_list(rows, features=features).to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny family with random weights."""
    folder = tmp_path_factory.mktemp("family") / "tiny"
    make_tiny(folder, seed=0, image_size=SIZE)
    return folder
