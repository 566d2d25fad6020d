"""Faces at any quarter turn, in strips, and in places that a person marked: found, and placed as upright ones are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from authface.faces.detector import Detection, RetinaFace, quarter_turns, turned_back, upright
from authface.faces.geometry import Side
from authface.faces.landmarks import Dlib68, disagreement
from authface.faces.search import marked_face, survey_turned
from authface.records import Box
from authface.restore.photo import FaceFinder
from authface.restore.settings import RestoreSettings
from tests.portraits import HOPPER, PORTRAITS

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def detector() -> RetinaFace:
    return RetinaFace()


@pytest.fixture(scope="module")
def landmarker() -> Dlib68:
    return Dlib68()


def surveyed(detector: RetinaFace, photo: Pixels) -> tuple[list[Detection], list[Detection]]:
    """At any turn, as a photo to restore is."""
    sure, unsure = detector.survey(photo, 0.5)
    return (sure, unsure) if upright(sure) else survey_turned(detector, photo, sure, unsure)


def eyes(points5: tuple[float, ...]) -> float:
    return float(np.hypot(points5[2] - points5[0], points5[3] - points5[1]))


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("name", PORTRAITS)
def test_a_turned_face_is_the_upright_one(name: str, turns: int, detector: RetinaFace, landmarker: Dlib68) -> None:
    photo = PORTRAITS[name]
    height, width = photo.shape[:2]
    (upright,) = detector.detect(photo)
    copy = np.ascontiguousarray(np.rot90(photo, turns))
    ((face,), _) = surveyed(detector, copy)
    assert quarter_turns(face.points5) == (4 - turns) % 4
    back = turned_back(face.points5, turns, width, height).ravel()
    np.testing.assert_allclose(back, upright.points5, atol=0.02 * eyes(upright.points5))
    points = turned_back(landmarker.landmarks(copy, face), turns, width, height)
    expected = landmarker.landmarks(photo, upright)
    np.testing.assert_allclose(points, expected, atol=0.02 * eyes(upright.points5))


def test_upright_photos_are_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    look = RetinaFace.look
    monkeypatch.setattr(RetinaFace, "look", lambda *given: looks.append(1) or look(*given))
    finder = FaceFinder(RestoreSettings())
    finder.detector.survey(HOPPER, 0.5)
    once = len(looks)
    assert len(finder(HOPPER, Side(64), "ab", 0)) == 1 and len(looks) == 2 * once
    turned = np.ascontiguousarray(np.rot90(HOPPER))
    assert len(finder(turned, Side(64), "ab", 0)) == 1 and len(looks) > 3 * once


def test_a_face_that_lies_beside_an_upright_one_is_found_too(detector: RetinaFace) -> None:
    photo = np.full((400, 800, 3), 128, np.uint8)
    small = cv2.resize(HOPPER[20:420, 60:460], (360, 360), interpolation=cv2.INTER_AREA)
    photo[20:380, 20:380], photo[20:380, 420:780] = small, np.rot90(small)
    sure, doubtful = surveyed(detector, photo)
    assert sorted(quarter_turns(face.points5) for face in sure) == [0, 3] and doubtful == []


@pytest.mark.parametrize("name", ["coffee", "rocket", "chelsea", "coins", "moon", "gravel"])
def test_turned_copies_of_what_shows_nobody_show_nobody(name: str, detector: RetinaFace) -> None:
    photo = np.asarray(getattr(data, name)())
    photo = np.repeat(photo[..., None], 3, axis=2) if photo.ndim == 2 else photo
    assert surveyed(detector, np.ascontiguousarray(photo))[0] == []


@pytest.mark.parametrize("turns", [0, 1])
def test_the_faces_of_a_long_strip_are_found(turns: int, detector: RetinaFace) -> None:
    tile = cv2.resize(HOPPER[20:420, 60:460], (150, 150), interpolation=cv2.INTER_AREA)
    strip = np.concatenate([tile] * 60)
    strip = np.ascontiguousarray(np.rot90(strip, turns))
    sure, _ = surveyed(detector, strip)
    assert len(sure) == 60 and {quarter_turns(face.points5) for face in sure} == {(4 - turns) % 4}


def covered() -> tuple[Pixels, Detection]:
    """A portrait so blurred and noisy that the detector misses the face, and where it is."""
    photo = HOPPER
    (face,) = RetinaFace().detect(photo)
    noise = np.random.default_rng(0).normal(0, 70, photo.shape)
    return np.clip(cv2.GaussianBlur(photo, (0, 0), 9) + noise, 0, 255).astype(np.uint8), face


@pytest.mark.parametrize("grown", [0.0, 0.15])
def test_a_face_that_was_missed_can_be_marked(grown: float, detector: RetinaFace, landmarker: Dlib68) -> None:
    photo, truth = covered()
    assert surveyed(detector, photo)[0] == []
    x0, y0, x1, y1 = truth.box
    edge = grown * (x1 - x0)
    region: Box = (x0 - edge, y0 - edge, x1 + edge, y1 + edge)
    face, points = marked_face(detector, landmarker, photo, region)
    assert disagreement(points, truth.points5) < 0.5 and face.score < 0.9


def test_a_mark_on_nothing_is_taken_at_its_word(detector: RetinaFace, landmarker: Dlib68) -> None:
    flat = np.full((200, 300, 3), 90, np.uint8)
    for region in ((100.0, 50.0, 180.0, 150.0), (-40.0, -40.0, 30.0, 30.0), (299.0, 199.0, 400.0, 300.0)):
        face, points = marked_face(detector, landmarker, flat, region)
        assert face.score == 0 and face.box == region and len(face.points5) == 10
        assert np.isfinite(points).all()
        middle = np.array([region[0] + region[2], region[1] + region[3]]) / 2
        assert np.abs(points.mean(axis=0) - middle).max() < 0.5 * (region[2] - region[0])
