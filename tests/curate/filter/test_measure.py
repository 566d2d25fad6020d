"""The pose that is measured is the pose of the head."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.curate.filter.measure import SHAPE, find_pose


@given(st.floats(-60, 60), st.floats(-40, 40), st.floats(-45, 45), st.floats(10, 500))
def test_the_pose_of_the_mean_face_is_found(yaw: float, pitch: float, roll: float, eyes: float) -> None:
    a, b, c = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    turned = np.array(SHAPE) @ (about_y @ about_x @ about_z).T
    found = find_pose(tuple((turned[:, :2] * eyes + [300, 200]).ravel().tolist()))
    nose = (about_y @ about_x @ about_z)[:, 2]
    assert found[0] == pytest.approx(np.degrees(np.arctan2(nose[0], nose[2])), abs=0.1)
    assert found[1] == pytest.approx(np.degrees(np.arctan2(-nose[1], np.hypot(nose[0], nose[2]))), abs=0.1)
    if abs(yaw) < 1 and abs(pitch) < 1:
        assert found[2] == pytest.approx(roll, abs=0.5)
