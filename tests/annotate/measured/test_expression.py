"""The gaze: real faces whose irises are moved."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.annotate.measured.expression import Eye, measure_eyes
from authface.annotate.measured.regions import Regions, find_regions
from authface.annotate.measured.tagger import Measures, measure, tags
from authface.annotate.settings import MeasuredSettings

WORDS = {"looking at the camera", "looking to the left", "looking to the right"}
Aligned = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def faces(aligned: dict[str, Aligned]) -> dict[str, Regions]:
    return {name: find_regions(*crop) for name, crop in aligned.items()}


def said(rgb: np.ndarray, points: np.ndarray) -> set[str]:
    return WORDS & {tag.name for tag in tags(measure(rgb, points), MeasuredSettings())}


def gazing(module: ModuleType, regions: Regions, aside: float) -> np.ndarray:
    return np.asarray(module.gazing(aside)(regions, np.random.default_rng(0)))


@pytest.mark.parametrize("face", ["astronaut", "hopper"])
def test_the_gaze_follows_the_irises(face: str, faces: dict[str, Regions], benchmark_module: ModuleType) -> None:
    moved = [measure_eyes(replace(faces[face], rgb=gazing(benchmark_module, faces[face], aside)))
             for aside in (-0.6, -0.3, 0.0, 0.3, 0.6)]  # fmt: skip
    gazes = [np.average([eye.gaze for eye in pair], weights=[eye.iris**2 for eye in pair]) for pair in moved]
    assert min(np.diff(gazes)) > 0.05
    assert gazes[0] < -0.3 and abs(gazes[2]) < 0.15 and gazes[4] > 0.3


@pytest.mark.parametrize("face", ["astronaut", "hopper"])
def test_a_side_glance_and_a_look_at_the_camera_are_said(
    face: str, faces: dict[str, Regions], benchmark_module: ModuleType
) -> None:
    regions = faces[face]
    assert said(gazing(benchmark_module, regions, -0.6), regions.points) == {"looking to the left"}
    assert said(gazing(benchmark_module, regions, 0.6), regions.points) == {"looking to the right"}
    assert said(regions.rgb, regions.points) == {"looking at the camera"}


@pytest.mark.parametrize("face", ["astronaut", "hopper"])
def test_nothing_is_said_of_lids_that_meet(face: str, faces: dict[str, Regions]) -> None:
    points = faces[face].points.copy()
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
        points[upper] = points[lower] - [0, 1]
    assert not said(faces[face].rgb, points)


def test_a_mirrored_crop_looks_to_the_other_side(faces: dict[str, Regions], benchmark_module: ModuleType) -> None:
    swap = [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    for regions in faces.values():
        rgb = gazing(benchmark_module, regions, 0.5)
        points = regions.points.copy()
        points[36:48] = points[swap]
        points = points * [-1, 1] + [255, 0]
        pose = replace(regions.pose, yaw=-regions.pose.yaw)
        here = measure_eyes(replace(regions, rgb=rgb))
        there = measure_eyes(replace(regions, rgb=np.ascontiguousarray(rgb[:, ::-1]), points=points, pose=pose))
        for one, other in zip(here, there[::-1], strict=True):
            assert other.gaze == pytest.approx(-one.gaze, abs=0.03)
            for name in ("opening", "iris"):
                assert getattr(other, name) == pytest.approx(getattr(one, name), abs=0.03), name


eye = st.builds(Eye, opening=st.floats(0, 0.6), iris=st.floats(0, 1), gaze=st.floats(-1, 1))


@given(eye, eye)
def test_at_most_one_word_is_said_and_no_eye_is_shut(left: Eye, right: Eye) -> None:
    limits = MeasuredSettings()
    blank = Eye(opening=0, iris=0, gaze=0)
    found = replace(_plain(), left_eye=left, right_eye=right)
    words = WORDS & {tag.name for tag in tags(found, limits)}
    assert len(words) <= 1
    assert words == WORDS & {tag.name for tag in tags(replace(found, left_eye=right, right_eye=left), limits)}
    assert not WORDS & {tag.name for tag in tags(replace(found, left_eye=blank), limits)}


def _plain() -> Measures:
    grey = np.full((256, 256, 3), 128, np.uint8)
    return measure(grey, np.full((68, 2), 9.0))
