"""The change map: it shows what changed, only that, and it is in no other file's way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from skimage.color import deltaE_ciede2000, rgb2lab

from authface.restore.inputs import RestoreJob, with_maps
from authface.restore.picture import DIM, LEGEND, change_map, delta_e

PHOTO: NDArray[np.uint8] = np.ascontiguousarray(data.astronaut()[:300, 60:400])
Command = Callable[..., tuple[int, str, str]]


def test_what_did_not_change_is_the_dimmed_photo() -> None:
    shown = change_map(PHOTO, PHOTO)
    assert shown.shape == (300 + LEGEND, 340, 3)
    grey = cv2.cvtColor(PHOTO, cv2.COLOR_RGB2GRAY) * DIM
    assert np.abs(shown[:300].astype(float) - grey[..., None]).max() <= 1


def test_a_stronger_change_is_brighter_and_in_its_place() -> None:
    after = PHOTO.copy()
    after[50:100, 50:100] = np.clip(after[50:100, 50:100].astype(int) + 12, 0, 255)
    after[150:200, 50:100] = 255 - after[150:200, 50:100]
    shown = change_map(PHOTO, after).astype(int)
    still = change_map(PHOTO, PHOTO).astype(int)
    moved = (shown != still).any(axis=2)
    assert moved[150:200, 50:100].mean() > 0.8
    moved[50:100, 50:100] = moved[150:200, 50:100] = False
    assert not moved.any()
    # Inferno runs from black by red to yellow: a strong change is bright, a slight one dark.
    assert np.median(shown[150:200, 50:100].sum(axis=2)) > np.median(shown[50:100, 50:100].sum(axis=2)) + 100


def test_differences_are_those_of_the_formula_pixel_by_pixel() -> None:
    one, other = np.random.default_rng(0).integers(0, 256, (2, 20, 30, 3), dtype=np.uint8)
    other[:10] = one[:10]
    found = delta_e(one, other)
    assert (found[:10] == 0).all()
    np.testing.assert_allclose(found, deltaE_ciede2000(rgb2lab(one), rgb2lab(other)), atol=1e-2)
    greys = [np.full((1, 1, 3), level, np.uint8) for level in (119, 122)]  # L* of 50.0 and 51.2
    assert delta_e(*greys)[0, 0] == pytest.approx(1.2, abs=0.1)


def test_a_large_and_a_deep_photo_are_shown_small() -> None:
    wide = np.full((400, 4096, 3), 30_000, np.uint16)
    after = wide.copy()
    after[:, 2048:] += 9000
    shown = change_map(wide, after)
    assert shown.shape == (200 + LEGEND, 2048, 3) and shown.dtype == np.uint8
    assert shown[100, 100].max() < shown[100, 1900].max()


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 60), st.integers(1, 60))
def test_any_shape_has_a_map(height: int, width: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    assert change_map(*pixels).shape == (height + LEGEND, width, 3)


def test_maps_are_in_no_other_file_s_way() -> None:
    names = ["a.png", "a.jpg", "b.png", "b.change.png", "c.tif"]
    jobs = with_maps([RestoreJob.of(Path("/in") / name, Path("/out") / name, Path("/out")) for name in names])
    assert [job.map_name for job in jobs] == [
        "a.change.png",
        "a.jpg.change.png",
        "b.png.change.png",
        "b.change.change.png",
        "c.change.png",
    ]


def test_the_command_writes_them_and_knows_them_again(authface: Command, family: Path, tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    Image.fromarray(data.coffee()[:200, :200]).save(tmp_path / "none.png")
    arguments = ["--model", family, "-O", "restore.steps=1", "--device", "cpu", "--json"]
    for run in range(2):  # results and maps lie beside the photos, and are no photos themselves
        code, out, err = authface(tmp_path, *arguments, "--change-map")
        assert code == 0, err
        assert (json.loads(out)["photos"], json.loads(out)["done_before"]) == (2, 2 * run)
    shown = np.asarray(Image.open(tmp_path / "a.restored.change.png"))
    result = np.asarray(Image.open(tmp_path / "a.restored.png"))
    np.testing.assert_array_equal(shown, change_map(PHOTO, result))
    assert not (tmp_path / "none.restored.change.png").exists(), "nothing was altered there"
    assert "what changed" in (tmp_path / "restore.html").read_text()
    (tmp_path / "a.restored.change.png").unlink()
    assert json.loads(authface(tmp_path, *arguments, "--change-map")[1])["done_before"] == 1
    (tmp_path / "a.restored.change.png").write_text("mine")
    (tmp_path / "restore.jsonl").unlink()
    code, _, err = authface(tmp_path / "a.png", *arguments, "--change-map", "-o", tmp_path / "out")
    assert code == 0, err
    (tmp_path / "out/restore.jsonl").unlink()
    code, _, err = authface(tmp_path / "a.png", *arguments, "--change-map", "-o", tmp_path / "out")
    assert code == 1 and "target_exists" in err
