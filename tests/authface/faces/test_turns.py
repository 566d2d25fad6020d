"""Quarter turns: a point goes where its pixel goes, and comes back."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.faces.detector import Detection, quarter_turns, roll, turned, turned_back, turned_detection


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 3), st.data())
def test_a_point_goes_with_its_pixel_and_back(width: int, height: int, turns: int, data: st.DataObject) -> None:
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    photo = np.zeros((height, width))
    photo[y, x] = 1
    ((row, column),) = np.argwhere(np.rot90(photo, turns) == 1)
    np.testing.assert_array_equal(turned([x, y], turns, width, height), [[column, row]])
    np.testing.assert_array_equal(turned_back([column, row], turns, width, height), [[x, y]])


@pytest.mark.parametrize(("degrees", "turns"), [(0, 0), (44, 0), (-44, 0), (90, 1), (46, 1), (180, 2), (-90, 3)])
def test_a_leaning_face_stands_after_its_turns(degrees: float, turns: int) -> None:
    angle = math.radians(degrees)
    right = 50 + 20 * math.cos(angle), 50 + 20 * math.sin(angle)
    points = (50.0, 50.0, *right, 50.0, 50.0, 50.0, 50.0, 50.0, 50.0)
    assert roll(points) == pytest.approx(degrees) and quarter_turns(points) == turns
    face = turned_detection(Detection((40, 30, 60, 80), 0.9, points), turns, 200, 100)
    assert abs(roll(face.points5)) <= 45 and face.box[0] < face.box[2] and face.box[1] < face.box[3]
