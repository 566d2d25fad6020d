"""The whole arrow on 20 photos, as typed: each command finds what the one before left, and names the next."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import matplotlib.cbook
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from typer.testing import CliRunner

from authface.cli import app

SHAPES = ((1, 1, 0, 0), (1.3, 1, -0.25, 10), (0.75, 1.05, 0.25, -12), (1, 0.75, 0.3, 20), (1.15, 1.25, -0.3, -25))
"""How wide and high a face becomes, how far it bulges, and by how many degrees its colours turn."""


def typed(command: str, *more: object) -> str:
    """What ``authface COMMAND`` says; it ends well, and no line of it is a trace."""
    done = CliRunner().invoke(app, [*command.split(), *map(str, more)], catch_exceptions=False)
    assert done.exit_code == 0, (command, done.output)
    assert "Traceback" not in done.output
    return done.output


def settings(section: str, **values: object) -> list[str]:
    return [word for name, value in values.items() for word in ("-O", f"{section}.{name}={value}")]


def shaped(
    rgb: NDArray[np.uint8], centre: tuple[int, int], wide: float, high: float, bulge: float, hue: float
) -> NDArray[np.uint8]:
    """A face of other proportions and colours."""
    y, x = np.mgrid[0 : rgb.shape[0], 0 : rgb.shape[1]].astype(np.float32)
    dx, dy = x - centre[0], y - centre[1]
    near = 1 - bulge * np.exp(-(dx**2 + dy**2) / (2 * 80**2))
    places = (centre[0] + dx / wide * near).astype(np.float32), (centre[1] + dy / high * near).astype(np.float32)
    made = cv2.remap(rgb, *places, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    hsv = cv2.cvtColor(made, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + round(hue / 2)) % 180
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


@pytest.fixture
def portraits(tmp_path: Path) -> Path:
    """20 photos: two people in five shapes, each taken twice."""
    folder = tmp_path / "portraits"
    folder.mkdir()
    with Image.open(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)) as image:
        people = [(data.astronaut(), (224, 120)), (np.asarray(image.convert("RGB")), (256, 200))]
    for who, (rgb, centre) in enumerate(people):
        for at, shape in enumerate(SHAPES):
            made = shaped(rgb, centre, *shape)
            for shot in range(2):
                turn = cv2.getRotationMatrix2D(centre, 6 * shot * (-1) ** at, 1 + 0.12 * shot)
                taken = cv2.warpAffine(made, turn, made.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=4)
                light = np.clip(taken * (1 - 0.15 * shot) + 12 * shot, 0, 255).astype(np.uint8)
                Image.fromarray(light).save(folder / f"{who}{at}{shot}.jpg", quality=93)
    return folder


def test_from_photos_to_figures(portraits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    commands = [
        f"curate fetch faces --from folder {portraits}", "curate filter faces -O curate.filter.min_size=64",
        "curate align faces -O curate.align.size=256", "curate split faces", "annotate tags faces --with measured",
        "annotate export faces",
    ]  # fmt: skip
    for at, command in enumerate(commands):
        said = typed(command)
        following = commands[at + 1].split(" -")[0] if at + 1 < len(commands) else "train prior"
        assert f"next: authface {following}" in said, said
    assert "next: authface train prior faces/dataset" in typed("status faces")

    few = {"size": 256, "batch": 1, "steps": 2, "warmup": 1, "validate_steps": 2, "validate_count": 1}
    said = typed("train prior faces/dataset", *settings("train.prior", model="tiny", out="prior", **few))
    assert "next: authface train controlnet faces/dataset -O train.controlnet.model=prior" in said
    begun = {"begin_from": "tiny", "from_degraded": 0.85, "strength": 0.5, "out": "family"}
    said = typed("train controlnet faces/dataset", *settings("train.controlnet", model="prior", **begun, **few))
    assert "next: authface restore PHOTO --model family" in said

    said = typed("evaluate synth faces/dataset -o test")
    assert "next: authface restore test/degraded" in said
    test = sorted(path.name for path in (tmp_path / "test" / "clean").iterdir())
    assert test, "the split keeps somebody for the test"
    typed("restore test/degraded --aligned --model family -o restored")
    assert sorted(path.name for path in (tmp_path / "restored").glob("*.png")) == test
    pairs = "--outputs ours=restored --truth test/clean --inputs test/degraded"
    said = typed(f"evaluate restoration {pairs} --metrics psnr,ssim -o evaluation --json").splitlines()[-1]
    assert (
        set(json.loads(said)["means"]["ours"]) == {"psnr", "ssim"}
        and (tmp_path / "evaluation" / "restoration.html").is_file()
    )

    typed(f"restore {portraits / '000.jpg'} -o old.jpg")
    assert "from:" in typed("why old.jpg")
    for again in (*commands, f"restore {portraits / '000.jpg'} -o old.jpg"):
        typed(again)
