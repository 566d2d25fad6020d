"""SIGKILL at any moment loses at most the part under way: the tables end as those of an undisturbed run."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from authface.photoset import PhotoSet

PARTS = 12
STEPS = (["fetch", "--from", "folder"], ["filter"], ["align"])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 photos, a third with a face: turned, shifted and shrunk copies of the samples, one truncated, two equal."""
    from PIL import Image

    from authface.curate.sources import Samples

    folder = tmp_path_factory.mktemp("photos")
    rng = random.Random(7)
    for index, item in zip(range(46), list(Samples().items()) * 8, strict=False):
        with Image.open(item.path) as image:
            turned = image.convert("RGB").rotate(rng.uniform(-20, 20), translate=(rng.randint(-9, 9), 0))
            turned.resize((360, 300)).save(folder / f"{index:02d}.jpg", quality=92)
    shutil.copy(folder / "03.jpg", folder / "97.jpg")
    (folder / "98.jpg").write_bytes((folder / "00.jpg").read_bytes()[:3000])
    return folder


def command(photoset: Path, photos: Path, step: list[str]) -> list[str]:
    source = [str(photos)] if "folder" in step else []
    rows = 48 // PARTS
    options = ["-O", f"curate.fetch.part_rows={rows}", "-O", "curate.align.size=128", "-O", "curate.filter.min_size=40"]
    return [sys.executable, "-m", "authface.cli", "curate", step[0], str(photoset), *step[1:], *source, *options]


def finish(photoset: Path, photos: Path) -> float:
    start = time.monotonic()
    for step in STEPS:
        done = subprocess.run(command(photoset, photos, step), capture_output=True, text=True, check=False)
        assert done.returncode in {0, 3}, done.stderr
    return time.monotonic() - start


def test_ten_kills_leave_the_tables_of_an_undisturbed_run(photos: Path, tmp_path: Path) -> None:
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    seconds = finish(calm, photos) / len(STEPS)
    rng = random.Random(20)
    hits = 0
    for kill in range(10):
        step = STEPS[kill * len(STEPS) // 10]
        with subprocess.Popen(
            command(killed, photos, step), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as run:
            try:
                run.wait(rng.uniform(0.3, 1.0) * seconds)
            except subprocess.TimeoutExpired:
                hits += 1
                run.send_signal(signal.SIGKILL)
        if kill * len(STEPS) // 10 != (kill + 1) * len(STEPS) // 10:  # the next step reads whole tables
            subprocess.run(command(killed, photos, step), capture_output=True, check=False)
    finish(killed, photos)
    assert hits >= 3
    for table in ("photos", "faces", "crops"):
        undisturbed, survived = (getattr(PhotoSet(root), table) for root in (calm, killed))
        assert len(undisturbed.parts()) == PARTS
        assert list(undisturbed) == list(survived)
        assert [undisturbed.meta(n) for n in range(PARTS)] == [survived.meta(n) for n in range(PARTS)]
    assert files(calm) == files(killed)
    assert sum(crop.status == "kept" for crop in PhotoSet(calm).crops) >= 8


def files(root: Path) -> dict[str, bytes]:
    kept = [path for folder in ("photos", "crops") for path in (root / folder).rglob("*.*")]
    return {str(path.relative_to(root)): path.read_bytes() for path in kept if not path.name.startswith(".tmp-")}
