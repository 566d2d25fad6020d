"""dlib's 68 points on RetinaFace's detections: their place, whatever the photo's size, and what the two disagree on.

The predictor read from dlib's file gives dlib's own points, to the pixel, and refuses what is no such file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import dlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from authface.errors import AuthfaceError
from authface.faces.detector import Detection, RetinaFace
from authface.faces.landmarks import SIZE, Dlib68, ShapePredictor, disagreement, dlib_box, weights_file, weights_sha256
from tests.portraits import ASTRONAUT, PORTRAITS

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def detector() -> RetinaFace:
    return RetinaFace()


@pytest.fixture(scope="module")
def predictor() -> Dlib68:
    return Dlib68()


def eyes_apart(points: NDArray[np.float64]) -> float:
    return float(np.hypot(*(points[42:48].mean(axis=0) - points[36:42].mean(axis=0))))


@pytest.mark.parametrize("name", PORTRAITS)
def test_points_are_those_dlib_finds_on_its_own_box(name: str, detector: RetinaFace, predictor: Dlib68) -> None:
    rgb = PORTRAITS[name]
    hog: Any = dlib.get_frontal_face_detector()
    box = hog(rgb, 1)[0]
    theirs = np.array([(p.x, p.y) for p in dlib.shape_predictor(str(weights_file()))(rgb, box).parts()], float)
    found = detector.detect(rgb)[0]
    ours = predictor.landmarks(rgb, found)
    assert np.hypot(*(ours - theirs).T).mean() < 0.04 * eyes_apart(theirs)
    assert np.abs(dlib_box(found) - [box.left(), box.top(), box.right(), box.bottom()]).max() < 0.25 * box.width()


@pytest.mark.parametrize("factor", [0.6, 3.0, 8.0])
def test_points_follow_the_photos_size(factor: float, detector: RetinaFace, predictor: Dlib68) -> None:
    rgb = ASTRONAUT
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    scaled = np.asarray(cv2.resize(rgb, None, fx=factor, fy=factor, interpolation=way))
    found = detector.detect(rgb)[0]
    moved = Detection(
        tuple((np.array(found.box) + 0.5) * factor - 0.5),
        found.score,
        tuple((np.array(found.points5) + 0.5) * factor - 0.5),
    )
    native = predictor.landmarks(rgb, found)
    there = (predictor.landmarks(scaled, moved) + 0.5) / factor - 0.5
    assert np.hypot(*(there - native).T).mean() < 0.02 * eyes_apart(native)


def test_a_face_at_the_corner_gets_points_near_its_box(detector: RetinaFace, predictor: Dlib68) -> None:
    x0, y0, x1, y1 = (round(v) for v in detector.detect(ASTRONAUT)[0].box)
    close = np.ascontiguousarray(ASTRONAUT[y0:y1, x0:x1])
    found = detector.detect(close)[0]
    points = predictor.landmarks(close, found)
    assert disagreement(points, found.points5) < 0.15
    assert points.min() > -0.3 * (x1 - x0)


def test_the_two_agree_on_portraits_and_not_on_a_wrong_place(detector: RetinaFace, predictor: Dlib68) -> None:
    for rgb in PORTRAITS.values():
        found = detector.detect(rgb)[0]
        points = predictor.landmarks(rgb, found)
        assert disagreement(points, found.points5) < 0.1
        away = np.array(found.points5).reshape(5, 2)
        eyes = float(np.hypot(*(away[1] - away[0])))
        assert disagreement(points + [0.5 * eyes, 0], found.points5) > 0.4


@given(
    st.lists(st.floats(-100, 100), min_size=136, max_size=136),
    st.floats(-300, 300),
    st.floats(0.1, 50),
)
def test_disagreement_does_not_depend_on_place_or_size(numbers: list[float], shift: float, scale: float) -> None:
    many = np.array(numbers)
    few = np.array([0, 0, 10, 0, 5, 5, 0, 10, 10, 10], dtype=float)
    assert disagreement(many * scale + shift, few * scale + shift) == pytest.approx(disagreement(many, few), rel=1e-6)


def test_disagreement_by_hand() -> None:
    few = (0, 0, 10, 0, 5, 5, 2, 9, 8, 9)
    many = np.zeros((68, 2))
    many[36:42], many[42:48], many[30], many[48], many[54] = (0, 0), (10, 0), (5, 5), (2, 9), (8, 9)
    assert disagreement(many, few) == 0.0
    many[30] = (5, 10)  # five pixels off at one of five points, eyes ten apart
    assert disagreement(many.ravel(), few) == pytest.approx(0.1)


def test_the_weights_have_a_name_of_their_own() -> None:
    assert weights_file().suffix == ".dat" and len(weights_sha256()) == 64


FACE = cv2.resize(cv2.cvtColor(ASTRONAUT, cv2.COLOR_RGB2GRAY)[:256, 96:352], (300, 300))


@pytest.fixture(scope="module")
def reference() -> Any:
    return dlib.shape_predictor(str(weights_file()))


@pytest.fixture(scope="module")
def shape() -> ShapePredictor:
    return ShapePredictor(weights_file(), SIZE)


@given(
    corner=st.tuples(st.integers(-200, 300), st.integers(-200, 300)),
    sides=st.tuples(st.integers(1, 500), st.integers(1, 500)),
    noise=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=150, deadline=None)
def test_points_are_dlibs_in_any_box_of_any_picture(
    shape: ShapePredictor, reference: Any, corner: tuple[int, int], sides: tuple[int, int], noise: float, seed: int
) -> None:
    made = np.random.default_rng(seed).integers(0, 256, FACE.shape).astype(np.float32)
    grey = (FACE * (1 - noise) + made * noise).astype(np.uint8)
    box = np.array([*corner, corner[0] + sides[0], corner[1] + sides[1]])
    theirs = reference(grey, dlib.rectangle(*box.tolist()))
    assert shape(grey, box).tolist() == [[point.x, point.y] for point in theirs.parts()]


def test_the_order_in_which_faces_come_changes_nothing(shape: ShapePredictor, reference: Any) -> None:
    box: NDArray[np.int64] = np.array([60, 60, 240, 240])
    other: NDArray[np.uint8] = np.ascontiguousarray(FACE[::-1])
    first = ShapePredictor(weights_file(), SIZE)
    first(other, box)
    assert np.array_equal(first(FACE, box), ShapePredictor(weights_file(), SIZE)(FACE, box))
    assert np.array_equal(first(FACE, box), shape(FACE, box))


def _cut(content: bytes) -> bytes:
    return content[:-7]


def _longer(content: bytes) -> bytes:
    return content + b"\x01\x02"


def _pixel_beyond_the_last(content: bytes) -> bytes:
    # of the first tree: its splits begin after the mean shape; 15 of them are told by 01 0f
    at = content.index(b"\x01\x0f\x02") + 2
    return content[:at] + b"\x02\xff\xff" + content[at + 3 :]


@pytest.mark.parametrize("spoil", [_cut, _longer, _pixel_beyond_the_last])
def test_a_spoilt_file_is_refused(spoil: Any, tmp_path: Path) -> None:
    spoilt = tmp_path / "predictor.dat"
    spoilt.write_bytes(spoil(weights_file().read_bytes()))
    with pytest.raises(AuthfaceError, match=r"predictor\.dat is not dlib's predictor of 68 points: install"):
        ShapePredictor(spoilt, SIZE)
    spoilt.unlink()


@pytest.mark.parametrize(
    "content", [b"", b"no predictor", b"\x81\x88\x81\x01" * 120_001], ids=["empty", "text", "marks"]
)
def test_another_file_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "predictor.dat"
    file.write_bytes(content)
    with pytest.raises(AuthfaceError, match="install its package again"):
        ShapePredictor(file, SIZE)


def test_the_predictor_of_five_points_is_another_one() -> None:
    five = weights_file().with_name("shape_predictor_5_face_landmarks.dat")
    with pytest.raises(AuthfaceError, match="is not dlib's predictor of 68 points"):
        ShapePredictor(five, SIZE)
