"""dlib's 68 points on RetinaFace's detections: their place, whatever the photo's size, and what the two disagree on."""

from __future__ import annotations

from typing import Any

import cv2
import dlib
import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from authface.faces.detector import Detection, RetinaFace
from authface.faces.landmarks import Dlib68, disagreement, dlib_box, weights_file, weights_sha256

Pixels = NDArray[np.uint8]


def hopper() -> Pixels:
    from matplotlib import cbook

    with Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=True)) as image:
        return np.asarray(image.convert("RGB"))


PHOTOS = {"astronaut": np.asarray(skimage.data.astronaut()), "hopper": hopper()}


@pytest.fixture(scope="module")
def detector() -> RetinaFace:
    return RetinaFace()


@pytest.fixture(scope="module")
def predictor() -> Dlib68:
    return Dlib68()


def eyes_apart(points: NDArray[np.float64]) -> float:
    return float(np.hypot(*(points[42:48].mean(axis=0) - points[36:42].mean(axis=0))))


@pytest.mark.parametrize("name", PHOTOS)
def test_points_are_those_dlib_finds_on_its_own_box(name: str, detector: RetinaFace, predictor: Dlib68) -> None:
    rgb = PHOTOS[name]
    hog: Any = dlib.get_frontal_face_detector()
    box = hog(rgb, 1)[0]
    theirs = np.array([(p.x, p.y) for p in dlib.shape_predictor(str(weights_file()))(rgb, box).parts()], float)
    found = detector.detect(rgb)[0]
    ours = predictor.landmarks(rgb, found)
    assert np.hypot(*(ours - theirs).T).mean() < 0.04 * eyes_apart(theirs)
    assert np.abs(dlib_box(found) - [box.left(), box.top(), box.right(), box.bottom()]).max() < 0.25 * box.width()


@pytest.mark.parametrize("factor", [0.6, 3.0, 8.0])
def test_points_follow_the_photos_size(factor: float, detector: RetinaFace, predictor: Dlib68) -> None:
    rgb = PHOTOS["astronaut"]
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
    x0, y0, x1, y1 = (round(v) for v in detector.detect(PHOTOS["astronaut"])[0].box)
    close = np.ascontiguousarray(PHOTOS["astronaut"][y0:y1, x0:x1])
    found = detector.detect(close)[0]
    points = predictor.landmarks(close, found)
    assert disagreement(points, found.points5) < 0.15
    assert points.min() > -0.3 * (x1 - x0)


def test_the_two_agree_on_portraits_and_not_on_a_wrong_place(detector: RetinaFace, predictor: Dlib68) -> None:
    for rgb in PHOTOS.values():
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
