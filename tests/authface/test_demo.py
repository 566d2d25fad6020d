"""The demo: every stage goes on from a family, each picture shows a face, and again it does nothing twice."""

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.cbook
import numpy as np
import pytest

from authface.console import Console
from authface.demo import demo
from authface.faces.detector import RetinaFace
from authface.imaging import decode as images
from authface.models.cleaner import make_cleaner
from authface.models.families import BUILTIN
from authface.models.layout import OWN_PRESETS
from authface.options import Run

STAGES = ["autoencoder", "prior", "cleaner", "controlnet"]


class Quiet(Console):
    """Says nothing and counts the steps of the trainings."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def log(self, text: str) -> None:
        """Nothing."""

    def result(self, text: str, **values: Any) -> None:
        """Nothing."""

    @contextmanager
    def progress(self, title: str, total: int | None, unit: str, left: Any = None) -> Any:
        """Count."""

        def tick(done: int = 1, note: str = "") -> None:
            self.steps += done if unit == "steps" else 0

        yield tick


MADE = os.environ.get("AUTHFACE_DEMO")
"""Where `.ci/run` has just made the demo with the command, so that it is not made twice."""


def run(out: Path, steps: int | None, overrides: Sequence[str] = (), limit: int = 0) -> int:
    """The demo below `out` with `steps` in place of the recipe's, None: those; how many were done."""
    fewer = [] if steps is None else [f"train.{stage}.steps={steps}" for stage in STAGES]
    console = Quiet()
    demo(out, Run("default", (*fewer, *overrides), "cpu", 1, "local", 0, limit, False, console))
    return console.steps


def picture(out: Path, stage: str) -> Any:
    """The validation picture of a stage: pixels."""
    [path] = (out / "models" / stage / "training" / "validation").glob("*.png")
    return images.read(path).rgb


@pytest.fixture(scope="module")
def built_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo as it is, with two steps a stage where it is not there yet."""
    if MADE:
        return Path(MADE)
    out = tmp_path_factory.mktemp("built-in")
    stages = len(STAGES) - (not (BUILTIN / "cleaner").is_dir())
    assert run(out, 2) == 2 * stages
    return out


def test_every_training_shows_faces_and_the_last_picture_a_restored_one(built_in: Path) -> None:
    find = RetinaFace(min_score=0.6).detect
    for stage, rows in {"autoencoder": 1, "prior": 1, "controlnet": 2}.items():
        shown = picture(built_in, stage)
        faces = [
            shown[y : y + 256, x : x + 256] for y in range(0, 256 * rows, 256) for x in range(0, len(shown[0]), 256)
        ]
        assert len(faces) >= 2 and all(find(np.ascontiguousarray(face)) for face in faces), stage
    photo = Path(str(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))
    clean, degraded, restored = (
        images.read(path).rgb[:512, :512].astype(float)
        for path in (photo, built_in / "degraded.png", built_in / "restored.png")
    )
    face = (slice(117, 323), slice(170, 353))
    before, after = (np.square(made[face] - clean[face]).mean() for made in (degraded, restored))
    assert after < 0.97 * before
    assert (built_in / "models" / "controlnet" / OWN_PRESETS).read_bytes() == (BUILTIN / OWN_PRESETS).read_bytes()


def test_run_again_it_trains_nothing(built_in: Path) -> None:
    page = built_in / "report.html"
    page.unlink()
    assert run(built_in, None if MADE else 2) == 0
    assert page.read_text("utf-8").count("<h2>") == 4


def test_a_family_may_have_a_cleaner_and_one_photo_is_enough(tmp_path: Path) -> None:
    """The built-in family with the cleaner that it lacks, or without the one that it has."""
    family, out = tmp_path / "family", tmp_path / "out"
    shutil.copytree(BUILTIN, family)
    has = not (family / "cleaner").is_dir()
    if has:
        make_cleaner(0, [8, 16]).save_pretrained(str(family / "cleaner"))
    else:
        shutil.rmtree(family / "cleaner")
    assert run(out, 1, [f"train.autoencoder.model={family}"], limit=1) == 3 + has
    assert (out / "models" / "controlnet" / "cleaner").is_dir() == has
    if has:
        told = json.loads((out / "models" / "cleaner" / "training" / "run.json").read_text())["settings"]
        assert told["begin_from"] == str(family)
        config = json.loads((out / "models" / "controlnet" / "cleaner" / "config.json").read_text())
        assert config["block_out_channels"] == [8, 16]
    assert ("damaged | cleaned" in (out / "report.html").read_text("utf-8")) == has
