"""Measured tags on real faces whose truth is made by the benchmark's changes, and on turned faces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.annotate.measured import tagger as measured
from authface.annotate.measured.quantities import RIGID, SHAPE, Eye, Regions, find_pose, find_regions, measure_eyes
from authface.annotate.measured.tagger import Measures, measure, tags
from authface.annotate.settings import MeasuredSettings
from authface.annotate.vocabulary.vocabulary import GROUP_OF

MIRROR = [
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    *range(45, 41, -1), 47, 46, *range(39, 35, -1), 41, 40,
    *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65,
]  # fmt: skip
"""Where each of the 68 points goes when the picture is mirrored."""


Face = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def faces(aligned: dict[str, Face]) -> dict[str, Face]:
    return aligned


def names(rgb: np.ndarray, points: np.ndarray, tilt: float = 0.0) -> set[str]:
    return {tag.name for tag in tags(measure(rgb, points, tilt), MeasuredSettings())}


def test_a_tag_follows_what_was_done_to_the_picture(faces: dict[str, Face], benchmark_module: ModuleType) -> None:
    """Both faces, two draws of what is true, one of what is false: a word may be missing once in four, wrong never.

    The gaze has tests of its own.
    """
    rng = np.random.default_rng(1)
    regions = [find_regions(*face) for face in faces.values()]

    def said(tag: str, move: Any, draws: int) -> list[bool]:
        made = [move(one, rng) for one in regions for _ in range(draws)]
        return [tag in benchmark_module.said(face, MeasuredSettings()) for face in made if face is not None]

    for trial in benchmark_module.TRIALS:
        if not trial.tag.startswith("looking"):
            for move in trial.true:
                assert sum(said(trial.tag, move, 2)) >= 3, f"{trial.tag} is not said"
            for move in trial.false:
                assert not any(said(trial.tag, move, 1)), f"{trial.tag} is said"


def test_the_astronaut_smiles_and_the_admiral_does_not(faces: dict[str, Face]) -> None:
    mouths = {"smiling", "mouth open", "mouth closed"}
    assert names(*faces["astronaut"]) & mouths == {"smiling", "mouth open"}
    assert names(*faces["hopper"]) & mouths == {"mouth closed"}


@given(st.floats(0, 12), st.floats(0, 12), st.floats(-40, 40), st.floats(0.5, 4))
def test_a_mouth_smiles_more_as_it_widens_and_its_corners_rise(
    widen: float, rise: float, roll: float, scale: float
) -> None:
    """Whatever the roll and the size; a mouth of which only the lower lip falls opens."""
    face = np.full((68, 2), 128.0)
    face[[36, 45]] = [[80, 110], [176, 110]]
    outer = [[100, 180], [108, 176], [118, 174], [128, 175], [138, 174], [148, 176], [156, 180], [148, 186],
             [138, 189], [128, 190], [118, 189], [108, 186]]  # fmt: skip
    inner = [[104, 180], [118, 180], [128, 180], [138, 180], [152, 180], [138, 181], [128, 181], [118, 181]]
    face[48:60], face[60:68] = outer, inner
    turn = np.radians(roll)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * scale
    other = face.copy()
    for corner, side in ((48, -1), (60, -1), (54, 1), (64, 1)):
        other[corner] += [side * widen, -rise]
    fallen = face.copy()
    fallen[[65, 66, 67], 1] += rise
    assert measured.smile(other @ matrix.T) == pytest.approx(measured.smile(other), abs=1e-9)
    assert measured.smile(other) - measured.smile(face) >= widen / 96 - 1e-9
    assert measured.mouth_open(fallen @ matrix.T) == pytest.approx(measured.mouth_open(face) + rise / 96, abs=1e-9)


def test_every_tag_that_can_be_said_has_a_trial(benchmark_module: ModuleType) -> None:
    source = Path(measured.__file__).read_text("utf-8")
    tried = {trial.tag for trial in benchmark_module.TRIALS} | {"smiling", "mouth open", "mouth closed"}
    assert {name for name in GROUP_OF if f'"{name}"' in source} <= tried
    assert tried - {f"{colour} background" for colour in benchmark_module.COLOURS} <= {
        name for name in GROUP_OF if f'"{name}"' in source
    }


def test_the_interval_is_wilsons(benchmark_module: ModuleType) -> None:
    assert benchmark_module.interval(9, 10) == pytest.approx((0.5958, 0.9, 0.9821), abs=1e-3)
    assert benchmark_module.interval(0, 0) == (0, 0, 1)


@pytest.mark.parametrize("face", ["astronaut", "hopper"])
def test_a_mirrored_crop_swaps_left_and_right(face: str, faces: dict[str, Face]) -> None:
    rgb, points = faces[face]
    turned = points[MIRROR] * [-1, 1] + [rgb.shape[0] - 1, 0]
    here, there = measure(rgb, points, 7.0), measure(np.ascontiguousarray(rgb[:, ::-1]), turned, -7.0)
    for name in ("light", "yaw", "tilt"):
        assert abs(getattr(here, name)) > 0.05
        assert getattr(there, name) == pytest.approx(-getattr(here, name), rel=0.1, abs=0.06)
    for name in ("lightness", "contrast", "chroma", "smile", "mouth_open", "skin_texture", "warmth"):
        assert getattr(there, name) == pytest.approx(getattr(here, name), rel=0.05, abs=0.02)


@pytest.mark.parametrize("size", [256, 1024])
@pytest.mark.parametrize("face", ["astronaut", "hopper"])
def test_the_size_of_the_crop_does_not_matter(face: str, size: int, faces: dict[str, Face]) -> None:
    rgb, points = faces[face]
    other = cv2.resize(rgb, (size, size), interpolation=cv2.INTER_AREA if size < 512 else cv2.INTER_CUBIC)
    here, there = measure(rgb, points), measure(other, (points + 0.5) * size / 512 - 0.5)
    spread = {"lightness": 1.0, "contrast": 1.5, "chroma": 0.5, "light": 0.1, "yaw": 0.1,
              "smile": 1e-6, "mouth_open": 1e-6, "skin_texture": 0.02, "warmth": 0.1}  # fmt: skip
    for name, allowed in spread.items():
        assert getattr(there, name) == pytest.approx(getattr(here, name), abs=allowed), name


def test_grey_pictures_have_no_colour_tags(faces: dict[str, Face]) -> None:
    for rgb, points in faces.values():
        grey = np.stack([cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)] * 3, 2)
        found = names(grey, points)
        assert "black and white" in found
        assert not found & {"warm tones", "cool tones", "vivid colours", "muted colours"}


def turned(yaw: float, rng: np.random.Generator) -> np.ndarray:
    """Points of a face of its own (depth and breadth off by a tenth, landmarks by a pixel) turned by `yaw` degrees."""
    shape = np.array(SHAPE) * rng.normal(1, 0.1, 3) + rng.normal(0, 0.01, (len(SHAPE), 3))
    angle = np.radians(yaw)
    x = shape[:, 0] * np.cos(angle) + shape[:, 2] * np.sin(angle)
    return np.asarray(np.stack([x, shape[:, 1]], 1) * 92 + 128)


@given(st.integers(0, 2**32 - 1), st.floats(18, 35), st.sampled_from([-1, 1]))
def test_a_turned_head_is_turned_to_its_side(seed: int, degrees: float, side: int) -> None:
    rng = np.random.default_rng(seed)
    points = np.full((68, 2), 128.0)
    points[list(RIGID)] = turned(side * degrees, rng)
    assert find_pose(points).yaw * side > 8


@given(st.floats(-60, 60), st.floats(0.2, 5), st.floats(-500, 500), st.floats(-500, 500))
def test_pose_is_the_same_anywhere_at_any_size(roll: float, scale: float, x: float, y: float) -> None:
    points = np.full((68, 2), 128.0)
    points[list(RIGID)] = turned(20, np.random.default_rng(3))
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


def test_a_background_that_was_made_up_is_not_described(faces: dict[str, Face], benchmark_module: ModuleType) -> None:
    regions = find_regions(*faces["hopper"])
    rgb = benchmark_module.before(benchmark_module.plain((125, 125, 125)))(regions, np.random.default_rng(0))
    for padding, said in ((0.05, True), (0.2, False)):
        found = {tag.name for tag in tags(measure(rgb, regions.points, padding=padding), MeasuredSettings())}
        assert (found >= {"plain background", "grey background"}) == said
        assert bool({name for name in found if GROUP_OF[name] in ("background", "lens")}) == said


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


WORDS = {"looking at the camera", "looking to the left", "looking to the right"}
Aligned = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def faces_read(aligned: dict[str, Aligned]) -> dict[str, Regions]:
    return {name: find_regions(*crop) for name, crop in aligned.items()}


def said(rgb: np.ndarray, points: np.ndarray) -> set[str]:
    return WORDS & {tag.name for tag in tags(measure(rgb, points), MeasuredSettings())}


def gazing(module: ModuleType, regions: Regions, aside: float) -> np.ndarray:
    return np.asarray(module.gazing(aside)(regions, np.random.default_rng(0)))


@pytest.mark.parametrize("face", ["astronaut", "hopper"])
def test_the_gaze_follows_the_irises(face: str, faces_read: dict[str, Regions], benchmark_module: ModuleType) -> None:
    moved = [measure_eyes(replace(faces_read[face], rgb=gazing(benchmark_module, faces_read[face], aside)))
             for aside in (-0.6, -0.3, 0.0, 0.3, 0.6)]  # fmt: skip
    gazes = [np.average([eye.gaze for eye in pair], weights=[eye.iris**2 for eye in pair]) for pair in moved]
    assert min(np.diff(gazes)) > 0.05
    assert gazes[0] < -0.3 and abs(gazes[2]) < 0.15 and gazes[4] > 0.3


@pytest.mark.parametrize("face", ["astronaut", "hopper"])
def test_a_side_glance_and_a_look_at_the_camera_are_said(
    face: str, faces_read: dict[str, Regions], benchmark_module: ModuleType
) -> None:
    regions = faces_read[face]
    assert said(gazing(benchmark_module, regions, -0.6), regions.points) == {"looking to the left"}
    assert said(gazing(benchmark_module, regions, 0.6), regions.points) == {"looking to the right"}
    assert said(regions.rgb, regions.points) == {"looking at the camera"}


@pytest.mark.parametrize("face", ["astronaut", "hopper"])
def test_nothing_is_said_of_lids_that_meet(face: str, faces_read: dict[str, Regions]) -> None:
    points = faces_read[face].points.copy()
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
        points[upper] = points[lower] - [0, 1]
    assert not said(faces_read[face].rgb, points)


def test_a_mirrored_crop_looks_to_the_other_side(faces_read: dict[str, Regions], benchmark_module: ModuleType) -> None:
    swap = [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    for regions in faces_read.values():
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
