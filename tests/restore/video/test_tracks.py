"""Faces followed over time: who is who, and places without jitter and without lag."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from authface.faces.geometry import Side
from authface.records import Box
from authface.restore.photo import FaceFinder
from authface.restore.settings import RestoreSettings
from authface.restore.video.tracks import (
    NEAR,
    REACH,
    FaceFollower,
    Sighting,
    Track,
    apart,
    gaussian,
    is_cut,
    line_at,
    look,
    matched,
)
from tests.restore.video.films import RATE, scene

NUMBERS = st.floats(-1e3, 1e3)


def square(x: float, y: float, across: float, down: float) -> np.ndarray:
    """A quad's eight numbers: its centre and half of its upper edge, as `ffhq_quad` lays them."""
    centre, half, side = np.array([x, y]), np.array([across, down]), np.array([-down, across])
    return np.ravel([centre - half - side, centre - half + side, centre + half + side, centre + half - side])


def track(times: list[float], values: list[np.ndarray]) -> Track:
    made = Track(0, (0, 0, 1, 1), times[-1])
    made.sightings.extend(Sighting(t, v, 1.0) for t, v in zip(times, values, strict=True))
    return made


@given(
    *[NUMBERS] * 8, st.integers(0, 19), st.floats(0.02, 0.3), st.lists(st.floats(0.001, 0.1), min_size=19, max_size=19)
)
def test_what_moves_steadily_stays_where_it_is(
    x: float, y: float, a: float, b: float, dx: float, dy: float, da: float, db: float, i: int, width: float,
    steps: list[float],
) -> None:  # fmt: skip
    times = [0.0, *np.cumsum(steps).tolist()]  # of a variable rate
    values = [square(x + dx * t, y + dy * t, a + da * t, b + db * t) for t in times]
    found = track(times, values).at(times[i], width)
    assert found is not None
    np.testing.assert_allclose(found.values, values[i], atol=1e-6)


@given(st.lists(st.tuples(*[NUMBERS] * 4), min_size=3, max_size=12), st.floats(0.01, 0.3))
def test_smoothed_squares_are_squares(moved: list[tuple[float, float, float, float]], width: float) -> None:
    times = [0.04 * i for i in range(len(moved))]
    found = track(times, [square(*values) for values in moved]).at(times[1], width)
    assert found is not None
    corners = found.values.reshape(4, 2)
    up, left = corners[3] - corners[0], corners[1] - corners[0]
    np.testing.assert_allclose([-up[1], up[0]], left, atol=1e-6)
    np.testing.assert_allclose(corners[0] + corners[2], corners[1] + corners[3], atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_jitter_goes_down_to_what_the_window_averages(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = [0.04 * i for i in range(200)]
    one = track(times, [rng.normal(0, 1, 8) for _ in times])
    smooth = np.stack([found.values for t in times[10:-10] if (found := one.at(t, 0.1))])
    assert len(smooth) == 180
    # 1 / sqrt(2 sqrt(pi) * 2.5 frames) = 0.336 for a whole Gaussian.
    assert 0.25 < smooth.std() < 0.42
    assert np.diff(smooth, axis=0).std() < 0.15  # from frame to frame it was 1.41


def test_without_width_it_is_as_seen() -> None:
    one = track([0.0, 1.0, 2.0], [np.full(8, v) for v in (1.0, 5.0, 2.0)])
    found = one.at(1.0, 0)
    assert found is not None and (found.values == 5).all()
    assert one.at(1.5, 0) is None


def test_a_gap_is_filled_whole_or_not_at_all_and_nothing_is_made_up_beyond_the_ends() -> None:
    width = 0.1
    one = track([0.0, 0.04, 0.04 + REACH * width, 0.8], [np.full(8, v) for v in (0.0, 4.0, 24.0, 80.0)])
    filled = one.at(0.14, width)
    assert filled is not None and filled.values == pytest.approx(np.full(8, 14.0))
    assert one.at(0.5, width) is None  # between two that are farther apart
    assert one.at(-0.01, width) is None and one.at(0.81, width) is None


def test_a_single_sighting_is_taken_as_it_is() -> None:
    np.testing.assert_allclose(line_at([0.02], np.ones((1, 3)), gaussian(np.array([0.02]), 0.1)), np.ones(3))


BOXES = st.tuples(NUMBERS, NUMBERS, st.floats(5, 300), st.floats(5, 300)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@given(BOXES, BOXES, st.floats(0.1, 10), NUMBERS)
def test_distance_is_a_distance_and_knows_no_scale(one: Box, other: Box, scale: float, shift: float) -> None:
    assert apart(one, one) == 0
    assert apart(one, other) == pytest.approx(apart(other, one))
    moved = [tuple(scale * v + shift for v in box) for box in (one, other)]
    assert apart(moved[0], moved[1]) == pytest.approx(apart(one, other), rel=1e-6, abs=1e-6)  # type: ignore[arg-type]


@given(st.lists(BOXES, max_size=5), st.lists(BOXES, max_size=5))
def test_each_box_is_in_one_pair_at_most_and_none_is_far(old: list[Box], new: list[Box]) -> None:
    known = matched(old, new)
    assert len(set(known.values())) == len(known)
    assert all(apart(old[i], new[j]) <= NEAR for j, i in known.items())


@given(st.permutations(range(4)), *[st.floats(-8, 8)] * 2)
def test_faces_keep_their_names_in_any_order(order: list[int], dx: float, dy: float) -> None:
    old: list[Box] = [(100.0 * i, 0, 100.0 * i + 60, 80) for i in range(4)]
    new = [tuple(v + d for v, d in zip(old[i], (dx, dy, dx, dy), strict=True)) for i in order]
    assert matched(old, new) == dict(enumerate(order))  # type: ignore[arg-type]


@given(st.integers(0, 225), st.integers(-20, 20))
def test_another_scene_is_a_cut_and_flicker_is_none(level: int, flicker: int) -> None:
    one = np.full((18, 32, 3), level, np.uint8)
    assert not is_cut(one, np.clip(one.astype(int) + flicker, 0, 255).astype(np.uint8))
    other = 255 - one
    assume(abs(255 - 2 * level) > 40)
    assert is_cut(one, other)


def test_a_face_that_is_missed_for_a_moment_is_restored_there_too(tmp_path: Path) -> None:
    """A flash of noise hides it for two frames; its place there lies between its places before and after."""
    shown = [scene(i) for i in range(12)]
    for i in (5, 6):
        shown[i] = scene(i, noise=70)
    follower = FaceFollower(Blind(5, 6), Side(64), 0.1, "ab", 0)
    for i, rgb in enumerate(shown):
        follower.see(rgb, i / RATE, look(follower.finder, rgb))
    quads = [follower.faces(rgb, i / RATE)[0].aligned.quad.mean(axis=0) for i, rgb in enumerate(shown)]
    steps = np.diff(quads, axis=0)
    np.testing.assert_allclose(steps, np.broadcast_to([-2, -1], steps.shape), atol=0.8)
    assert follower.followed == 1


class Blind(FaceFinder):
    """Sees no face in some frames."""

    def __init__(self, *blind: int) -> None:
        super().__init__(RestoreSettings())
        self.frame, self.blind, self.real = -1, blind, self.detector
        self.detector = self  # type: ignore[assignment]

    def survey(self, rgb: NDArray[np.uint8], doubtful: float) -> Any:
        self.frame += 1
        return ([], []) if self.frame in self.blind else self.real.survey(rgb, doubtful)


def jitter(smooth: float) -> tuple[float, float]:
    """How far a face's crops under noise lie from their steady path, and from the one before; pixels, of all corners.

    It moves by a third of the step, so that it stays in the picture.
    """
    frames = 24
    shown = [scene(i / 3, noise=12, seed=i) for i in range(frames)]
    follower = FaceFollower(FaceFinder(RestoreSettings()), Side(64), smooth, "ab", 0)
    for i, rgb in enumerate(shown):
        follower.see(rgb, i / RATE, look(follower.finder, rgb))
    quads = np.stack([follower.faces(rgb, i / RATE)[0].aligned.quad for i, rgb in enumerate(shown)])
    rest = quads - np.arange(frames)[:, None, None] / 3 * np.array([-2.0, -1.0])
    return float(rest.std(axis=0).mean()), float(np.diff(rest, axis=0).std())


def test_smoothing_holds_the_crop_still() -> None:
    rough, smooth = jitter(0.0), jitter(0.1)
    assert smooth[0] < 0.6 * rough[0], (rough, smooth)
    assert smooth[1] < 0.25 * rough[1], (rough, smooth)


def test_a_new_scene_ends_a_face() -> None:
    follower = FaceFollower(FaceFinder(RestoreSettings()), Side(64), 0.1, "ab", 0)
    shown = [
        scene(i) if i < 4 else 255 - scene(i) if i == 4 else np.ascontiguousarray(scene(i)[:, ::-1]) for i in range(8)
    ]
    for i, rgb in enumerate(shown):
        follower.see(rgb, i / RATE, look(follower.finder, rgb))
    seeds = [[face.seed for face in follower.faces(rgb, i / RATE)] for i, rgb in enumerate(shown)]
    assert {len(found) for found in seeds[:4]} == {len(found) for found in seeds[5:]} == {1}
    assert not set(sum(seeds[:4], [])) & set(sum(seeds[5:], []))
