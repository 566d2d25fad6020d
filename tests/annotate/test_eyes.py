"""Closed eyes and the gaze: real faces whose irises are moved and whose lids are painted shut."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface import images
from authface.annotate import eyes
from authface.annotate.measured import Measures, measure, tags
from authface.annotate.regions import LEFT_EYE, RIGHT_EYE, Regions, find_regions
from authface.annotate.settings import MeasuredSettings

WORDS = {"eyes closed", "looking at the camera", "looking to the left", "looking to the right"}


def _benchmark() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "measured_tags.py"
    spec = importlib.util.spec_from_file_location("measured_tags_of_eyes", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


BENCHMARK = _benchmark()


@pytest.fixture(scope="module")
def faces() -> dict[str, Regions]:
    """The astronaut, and Grace Hopper in glasses, aligned at 512 px."""
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
        found[name] = find_regions(align(photo, quad, 512).rgb, crop_points(points, quad, 512))
    return found


def said(rgb: np.ndarray, points: np.ndarray) -> set[str]:
    return WORDS & {tag.name for tag in tags(measure(rgb, points), MeasuredSettings())}


def shut(regions: Regions, sag: float) -> tuple[np.ndarray, np.ndarray]:
    """The eyes painted over with the skin around them, lashes across; `sag` > 0 hangs, in halves of the width.

    The landmarks of the lids meet on the line.
    """
    rgb, points = regions.rgb.copy(), regions.points.copy()
    for eye in (LEFT_EYE, RIGHT_EYE):
        lids = points[eye].copy()
        half = float(np.hypot(*(lids[3] - lids[0])) / 2)
        hole = np.zeros(rgb.shape[:2], np.uint8)
        cv2.fillPoly(hole, [np.rint(lids).astype(np.int32)], 1)
        hole = cv2.dilate(hole, np.ones((9, 9), np.uint8))
        rgb = cv2.inpaint(rgb, hole, 5, cv2.INPAINT_TELEA)
        x = np.linspace(-1, 1, 25)
        middle, across = lids[[0, 3]].mean(0), (lids[3] - lids[0]) / 2
        line = middle + x[:, None] * across + np.stack([0 * x, sag * half * (0.5 - x**2)], 1)
        rgb = cv2.polylines(rgb, [np.rint(line * 16).astype(np.int32)], False, (45, 30, 25), 1, cv2.LINE_AA, shift=4)
        points[eye] = line[[0, 8, 16, 24, 16, 8]] + [[0, 0], [0, -1], [0, -1], [0, 0], [0, 1], [0, 1]]
    return rgb, points


@pytest.mark.parametrize("face", ["astronaut", "hopper"])
def test_lids_shut_under_hanging_lashes_are_closed(face: str, faces: dict[str, Regions]) -> None:
    assert said(*shut(faces[face], 0.3)) == {"eyes closed"}


@pytest.mark.parametrize("face", ["astronaut", "hopper"])
def test_an_arched_lid_is_not_said_to_be_closed(face: str, faces: dict[str, Regions]) -> None:
    """A narrow eye's landmarks meet as a closed one's do; its upper lid is arched."""
    assert said(*shut(faces[face], -0.3)) == set()


@pytest.mark.parametrize("face", ["astronaut", "hopper"])
def test_the_pixels_outvote_landmarks_that_call_open_eyes_closed(face: str, faces: dict[str, Regions]) -> None:
    assert "eyes closed" not in said(faces[face].rgb, shut(faces[face], 0.1)[1])


def test_one_closed_eye_is_a_wink(faces: dict[str, Regions]) -> None:
    regions = faces["astronaut"]
    rgb, points = shut(regions, 0.3)
    half = int(points[27, 0])
    rgb[:, half:] = regions.rgb[:, half:]
    points[RIGHT_EYE] = regions.points[RIGHT_EYE]
    assert said(rgb, points) == set()


@pytest.mark.parametrize("face", ["astronaut", "hopper"])
def test_the_gaze_follows_the_irises(face: str, faces: dict[str, Regions]) -> None:
    rng = np.random.default_rng(0)
    gazes = []
    for aside in (-0.6, -0.3, 0.0, 0.3, 0.6):
        moved = replace(faces[face], rgb=BENCHMARK.gazing(aside)(faces[face], rng))
        gazes.append(np.mean([eye.gaze for eye in eyes.measure(moved)]))
    assert min(np.diff(gazes)) > 0.05
    assert gazes[0] < -0.25 and abs(gazes[2]) < 0.1 and gazes[4] > 0.25


@pytest.mark.parametrize("face", ["astronaut", "hopper"])
@pytest.mark.parametrize("trial", BENCHMARK.GAZE_TRIALS, ids=lambda trial: trial.tag)
def test_the_wrong_side_is_never_said(trial, face: str, faces: dict[str, Regions]) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    for change in trial.false:
        assert trial.tag not in said(change(faces[face], rng), faces[face].points)


def test_a_side_glance_and_a_look_at_the_camera_are_said(faces: dict[str, Regions]) -> None:
    rng = np.random.default_rng(0)
    hopper, astronaut = faces["hopper"], faces["astronaut"]
    assert said(BENCHMARK.gazing(-0.6)(hopper, rng), hopper.points) == {"looking to the left"}
    assert said(BENCHMARK.gazing(0.6)(hopper, rng), hopper.points) == {"looking to the right"}
    assert said(astronaut.rgb, astronaut.points) == {"looking at the camera"}


def test_a_mirrored_crop_looks_to_the_other_side(faces: dict[str, Regions]) -> None:
    swap = [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    for regions in faces.values():
        rgb = BENCHMARK.gazing(0.5)(regions, np.random.default_rng(0))
        points = regions.points.copy()
        points[36:48] = points[swap]
        points = points * [-1, 1] + [255, 0]
        pose = replace(regions.pose, yaw=-regions.pose.yaw)
        here = eyes.measure(replace(regions, rgb=rgb))
        there = eyes.measure(replace(regions, rgb=np.ascontiguousarray(rgb[:, ::-1]), points=points, pose=pose))
        for one, other in zip(here, there[::-1], strict=True):
            assert other.gaze == pytest.approx(-one.gaze, abs=0.03)
            for name in ("opening", "bend", "disc", "iris"):
                assert getattr(other, name) == pytest.approx(getattr(one, name), abs=0.03), name


eye = st.builds(
    eyes.Eye,
    opening=st.floats(0, 0.6),
    bend=st.floats(-0.5, 0.5),
    disc=st.floats(-0.5, 1),
    iris=st.floats(0, 1),
    gaze=st.floats(-1, 1),
)


@given(eye, eye)
def test_at_most_one_word_is_said_and_both_eyes_earn_it(left: eyes.Eye, right: eyes.Eye) -> None:
    limits = MeasuredSettings()
    blank = eyes.Eye(opening=0, bend=0, disc=0, iris=0, gaze=0)
    found = replace(_plain(), left_eye=left, right_eye=right)
    words = WORDS & {tag.name for tag in tags(found, limits)}
    assert len(words) <= 1
    assert words == WORDS & {tag.name for tag in tags(replace(found, left_eye=right, right_eye=left), limits)}
    assert not WORDS & {tag.name for tag in tags(replace(found, left_eye=blank), limits)}


def _plain() -> Measures:
    grey = np.full((256, 256, 3), 128, np.uint8)
    return measure(grey, np.full((68, 2), 9.0))
