"""Measured tags on real faces whose truth is made by the benchmark's changes, and on turned faces."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface import images
from authface.annotate.geometry import RIGID, find_pose
from authface.annotate.measured import Measures, measure, tags
from authface.annotate.regions import find_regions
from authface.annotate.settings import MeasuredSettings
from authface.annotate.vocabulary import GROUP_OF

MIRROR = [
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    *range(45, 41, -1), 47, 46, *range(39, 35, -1), 41, 40,
    *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65,
]  # fmt: skip
"""Where each of the 68 points goes when the picture is mirrored."""


def _benchmark() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "measured_tags.py"
    spec = importlib.util.spec_from_file_location("measured_tags_benchmark", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


BENCHMARK = _benchmark()
Face = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def faces() -> dict[str, Face]:
    """The astronaut and Grace Hopper, aligned at 512 px, with landmarks in crop pixels."""
    import matplotlib
    from skimage import data

    from authface.faces.detector import RetinaFace
    from authface.faces.geometry import align, crop_points, ffhq_quad
    from authface.faces.landmarks import Dlib68

    detector, landmarker = RetinaFace(0.9), Dlib68()
    hopper = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    found = {}
    for name, photo in (("astronaut", data.astronaut()), ("hopper", images.read(hopper).rgb)):
        points = landmarker.landmarks(photo, detector.detect(photo)[0])
        quad = ffhq_quad(points)
        found[name] = (align(photo, quad, 512).rgb, crop_points(points, quad, 512))
    return found


def names(rgb: np.ndarray, points: np.ndarray, tilt: float = 0.0) -> set[str]:
    return {tag.name for tag in tags(measure(rgb, points, tilt), MeasuredSettings())}


@pytest.mark.parametrize("face", ["astronaut", "hopper"])
@pytest.mark.parametrize("trial", BENCHMARK.TRIALS, ids=lambda trial: trial.tag)
def test_a_tag_follows_what_was_done_to_the_picture(trial, face: str, faces: dict[str, Face]) -> None:  # type: ignore[no-untyped-def]
    """Three draws of each change: silence in one of them is allowed (recall is under 1), a wrong word in none."""
    regions = find_regions(*faces[face])
    rng = np.random.default_rng(1)

    def said(change) -> list[bool]:  # type: ignore[no-untyped-def]
        return [trial.tag in names(change(regions, rng), regions.points) for _ in range(3)]

    for change in trial.true:
        assert sum(said(change)) >= 2
    for change in trial.false:
        assert not any(said(change))


@pytest.mark.parametrize("face", ["astronaut", "hopper"])
def test_hardness_is_that_of_the_shadow(face: str, faces: dict[str, Face]) -> None:
    """The same shadows, sharp and blurred; then the face filled with light. The limit is half the usual one."""
    limits = MeasuredSettings(hard_light=2.5)
    regions = find_regions(*faces[face])
    sharp, blurred = [], []
    for seed in range(12):
        for blur, found in ((1.2, sharp), (14.0, blurred)):
            rgb = BENCHMARK.shadowed(blur)(regions, np.random.default_rng(seed))
            found.append(measure(rgb, regions.points))
    assert np.mean([m.shadow_edges for m in sharp]) > 1 + np.mean([m.shadow_edges for m in blurred])
    said = [{tag.name for tag in tags(m, limits)} & {"hard light", "soft light"} for m in sharp + blurred]
    assert {"hard light"} in said[:12]
    assert "soft light" not in set().union(*said[:12])
    assert "hard light" not in set().union(*said[12:])
    filled = measure(BENCHMARK.filled(regions, np.random.default_rng(0)), regions.points)
    assert filled.steepness < 0.6 * measure(*faces[face]).steepness
    assert filled.shadow_edges < 0.2


@pytest.mark.parametrize("face", ["astronaut", "hopper"])
def test_a_mirrored_crop_swaps_left_and_right(face: str, faces: dict[str, Face]) -> None:
    rgb, points = faces[face]
    turned = points[MIRROR] * [-1, 1] + [rgb.shape[0] - 1, 0]
    here, there = measure(rgb, points, 7.0), measure(np.ascontiguousarray(rgb[:, ::-1]), turned, -7.0)
    for name in ("light", "yaw", "tilt"):
        assert abs(getattr(here, name)) > 0.05
        assert getattr(there, name) == pytest.approx(-getattr(here, name), rel=0.1, abs=0.06)
    for name in ("lightness", "contrast", "chroma", "smile", "mouth_open", "skin_texture", "warmth", "steepness"):
        assert getattr(there, name) == pytest.approx(getattr(here, name), rel=0.05, abs=0.02)


@pytest.mark.parametrize("size", [256, 1024])
@pytest.mark.parametrize("face", ["astronaut", "hopper"])
def test_the_size_of_the_crop_does_not_matter(face: str, size: int, faces: dict[str, Face]) -> None:
    rgb, points = faces[face]
    other = cv2.resize(rgb, (size, size), interpolation=cv2.INTER_AREA if size < 512 else cv2.INTER_CUBIC)
    here, there = measure(rgb, points), measure(other, (points + 0.5) * size / 512 - 0.5)
    spread = {"lightness": 1.0, "skin_lightness": 1.0, "contrast": 1.5, "chroma": 0.5, "light": 0.1, "yaw": 0.1,
              "smile": 1e-6, "mouth_open": 1e-6, "skin_texture": 0.02, "warmth": 0.1, "lip_redness": 1.0}  # fmt: skip
    for name, allowed in spread.items():
        assert getattr(there, name) == pytest.approx(getattr(here, name), abs=allowed), name


def test_grey_pictures_have_no_colour_tags(faces: dict[str, Face]) -> None:
    for rgb, points in faces.values():
        grey = np.stack([cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)] * 3, 2)
        found = names(grey, points)
        assert "black and white" in found
        assert not found & {"warm tones", "cool tones", "vivid colours", "muted colours", "red lipstick"}


@given(st.integers(0, 2**32 - 1), st.floats(18, 35), st.sampled_from([-1, 1]))
def test_a_turned_head_is_turned_to_its_side(seed: int, degrees: float, side: int) -> None:
    rng = np.random.default_rng(seed)
    points = np.full((68, 2), 128.0)
    points[list(RIGID)] = BENCHMARK.turned(side * degrees, rng)
    assert find_pose(points).yaw * side > 8  # the limit of a head that faces the camera


@given(st.floats(-60, 60), st.floats(0.2, 5), st.floats(-500, 500), st.floats(-500, 500))
def test_pose_is_the_same_anywhere_at_any_size(roll: float, scale: float, x: float, y: float) -> None:
    points = np.full((68, 2), 128.0)
    points[list(RIGID)] = BENCHMARK.turned(20, np.random.default_rng(3))
    turn = np.radians(roll)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    before, after = find_pose(points), find_pose(points @ matrix.T * scale + [x, y])
    assert after.roll - before.roll == pytest.approx(roll, abs=1)
    assert np.hypot(after.yaw, after.pitch) == pytest.approx(np.hypot(before.yaw, before.pitch), abs=1)
    assert after.scale == pytest.approx(before.scale * scale, rel=1e-6)


def leaves(value) -> Iterator[float]:  # type: ignore[no-untyped-def]
    if isinstance(value, dict):
        value = tuple(value.values())
    yield from (leaf for part in value for leaf in leaves(part)) if isinstance(value, tuple) else [value]


def test_degenerate_crops_give_finite_measures_and_known_tags(faces: dict[str, Face]) -> None:
    rgb, points = faces["astronaut"]
    for picture in (np.zeros_like(rgb), np.full_like(rgb, 255), np.random.default_rng(0).integers(0, 256, rgb.shape)):
        for landmarks in (points, np.full((68, 2), 9.0), points - 400):
            found = measure(picture.astype(np.uint8), landmarks)
            assert all(np.isfinite(np.array(list(leaves(asdict(found))))))
            assert {tag.name for tag in tags(found, MeasuredSettings())} <= GROUP_OF.keys()


def test_the_same_crop_has_the_same_measures(faces: dict[str, Face]) -> None:
    assert measure(*faces["hopper"]) == measure(*faces["hopper"])


def test_wrong_shapes_are_refused(faces: dict[str, Face]) -> None:
    rgb, points = faces["hopper"]
    for picture, landmarks in ((rgb[:100], points), (rgb[..., 0], points), (rgb, points[:5])):
        with pytest.raises(ValueError, match="a crop is"):
            measure(picture, landmarks)


def test_confidence_is_a_half_at_the_limit_and_grows(faces: dict[str, Face]) -> None:
    found: Measures = measure(*faces["hopper"])
    at = MeasuredSettings(tilted=5)
    for tilt, sure in ((4.9, None), (5.0, 0.5), (20.0, 0.999)):
        from dataclasses import replace

        leaning = [t for t in tags(replace(found, tilt=tilt), at) if t.name == "head tilted to the right"]
        assert bool(leaning) == (sure is not None)
        if sure is not None:
            assert leaning[0].confidence == pytest.approx(sure, abs=1e-3)
