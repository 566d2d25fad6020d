"""Looks at large photos: their scales, their tiles, and the small faces that they find, each once."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from authface.faces import looks
from authface.faces.detector import Detection, RetinaFace
from authface.faces.looks import MARGIN, SURE_FACE, TILE, TRUSTED_FACE, least_found, scales_of, spans, tiles_of

Pixels = NDArray[np.uint8]
ASTRONAUT = np.asarray(data.astronaut())[0:230, 110:340]
"""Her head, whose box is about 90 x 125 pixels."""


def with_faces(canvas: Pixels, side: int, places: list[tuple[int, int]]) -> NDArray[np.float64]:
    """Paste the face so that its box's longer side has `side` pixels; (n, 2) middles of its boxes."""
    (face,) = RetinaFace().detect(ASTRONAUT)
    scale = side / (face.box[3] - face.box[1])
    small = cv2.resize(ASTRONAUT, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else 2)
    height, width = small.shape[:2]
    for x, y in places:
        canvas[y : y + height, x : x + width] = small
    middle = scale * (np.array(face.box[:2]) + face.box[2:]) / 2
    return np.array(places) + middle


def once_each(found: list[Detection], middles: NDArray[np.float64], side: int) -> None:
    """Every place has one face, and no other place has one."""
    assert len(found) == len(middles)
    seen = np.array([[(one.box[0] + one.box[2]) / 2, (one.box[1] + one.box[3]) / 2] for one in found])
    apart = np.abs(seen[:, None] - middles[None]).max(axis=2)
    assert (apart.min(axis=0) < side / 4).all() and len(set(apart.argmin(axis=0).tolist())) == len(middles)


@pytest.mark.parametrize("side", [20, 28, 48, 93])
def test_small_faces_of_a_large_photo_are_found_once_each(side: int) -> None:
    photo = np.full((3000, 4000, 3), 110, np.uint8)
    middles = with_faces(photo, side, [(330 * i, (613 * i) % 2700) for i in range(11)])
    found, doubtful = RetinaFace(0.9, threads=0, least_face=16).survey(photo, 0.5)
    once_each(found, middles, side)
    assert doubtful == []


def test_a_small_face_of_a_long_strip_is_found() -> None:
    photo = np.full((20_000, 420, 3), 110, np.uint8)
    middles = with_faces(photo, 40, [(200, 11_111)])
    once_each(RetinaFace(0.9, least_face=16).detect(photo), middles, 40)


@pytest.mark.parametrize("side", [30, 60, 125, 250])
def test_tiles_see_what_one_look_sees(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = np.full((1000, 1500, 3), 110, np.uint8)
    step = max(1.9 * side, 70)
    with_faces(
        photo,
        side,
        [(int(x), int(y)) for y in np.arange(0, 1000 - step, step) for x in np.arange(0, 1500 - step, step)],
    )
    detector = RetinaFace(0.9, least_face=16)
    whole = detector.detect(photo)
    monkeypatch.setattr(looks, "TILE", 640)
    assert len(tiles_of(1500, 1000)) > 6
    found = detector.detect(photo)
    assert len(found) == len(whole) > 5
    for one in whole:
        near = min(found, key=lambda other: float(np.abs(np.subtract(one.box, other.box)).max()))
        assert np.abs(np.subtract(one.box, near.box)).max() < max(3, 0.08 * side)


def test_a_huge_face_of_a_large_photo_is_one_face() -> None:
    photo = np.full((3000, 4000, 3), 110, np.uint8)
    middles = with_faces(photo, 1500, [(900, 100)])
    once_each(RetinaFace(0.9, threads=0, least_face=16).detect(photo), middles, 1500)


def test_texture_without_a_face_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[float] = []
    look = RetinaFace.look
    monkeypatch.setattr(RetinaFace, "look", lambda *given: taken.append(given[2]) or look(*given))
    monkeypatch.setattr(looks, "PATIENCE", 5)
    gravel = np.tile(np.repeat(np.asarray(data.gravel())[..., None], 3, axis=2), (2, 2, 1))
    assert RetinaFace(0.9, least_face=16).detect(gravel) == []
    assert 5 <= len(taken) <= 5 + 3


@pytest.mark.parametrize(
    ("width", "height"),
    [(641, 30), (1024, 768), (4000, 3000), (8000, 6000), (420, 20_000), (13_000, 13_000), (1, 65_000)],
)
@pytest.mark.parametrize("least", [0, 16, 48, 400])
def test_looks_leave_no_size_out_and_fit_into_memory(width: int, height: int, least: float) -> None:
    scales = scales_of(width, height, least)
    assert scales[-1] <= 1 and scales == sorted(scales)
    assert all(
        fine / coarse <= TRUSTED_FACE / SURE_FACE + 1e-9 for coarse, fine in zip(scales, scales[1:], strict=False)
    )
    assert scales[-1] * max(least, 24) >= 24 - 1e-9 or scales[-1] == 1
    for scale in scales:
        w, h = max(1, round(width * scale)), max(1, round(height * scale))
        parts = tiles_of(w, h)
        assert all((x.stop - x.start) * (y.stop - y.start) <= TILE**2 for x, y in parts)
        assert sum((x.stop - x.start) * (y.stop - y.start) for x, y in parts) <= 1.5 * w * h


@pytest.mark.parametrize("length", [1, 31, 2048, 2049, 20_001])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_every_place_is_answered_for_with_room_around(length: int, count: int) -> None:
    made = spans(length, count)
    for place in np.linspace(-5, length + 5, 200):
        own = [span for span in made if span.holds(np.array([place - span.start]))[0]]
        assert own
        assert any(
            (span.start == 0 or place - span.start >= MARGIN) and (span.stop == length or span.stop - place > MARGIN)
            for span in own
        )


def test_what_was_looked_for_is_said() -> None:
    assert least_found(600, 400, 16) == 16
    assert least_found(4000, 3000, 16) == 24
    assert least_found(4000, 3000, 100) == 100
    assert least_found(1500, 1000, 16) == 24
