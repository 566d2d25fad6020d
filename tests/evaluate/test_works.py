"""What is measured of a face: where it is moved, blurred or not there."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from authface.errors import ImageError
from authface.evaluate.works import FaceGauge, landmark_error
from authface.faces.degrade import PRESETS, degrade

Rgb = NDArray[np.uint8]


def test_a_face_moved_and_a_face_blurred(portrait: Rgb) -> None:
    gauge = FaceGauge(0.5)
    found = gauge.find("truth", portrait)
    assert gauge.landmarks(portrait, found) == (0, 0)
    assert gauge.identity(portrait, portrait, "truth", found.points) == pytest.approx(1, abs=1e-6)
    percent, pixels = gauge.landmarks(np.roll(portrait, 4, axis=1), found)
    assert 1.5 < pixels < 6, "all features are 4 px away; the box of the truth stays where it was"
    eyes = np.linalg.norm(found.points[45] - found.points[36])
    assert percent == pytest.approx(100 * pixels / eyes)
    mild, heavy = (
        gauge.identity(degrade(portrait, 5, PRESETS[name]), portrait, "truth", found.points)
        for name in ("mild", "heavy")
    )
    assert 0.8 < heavy < mild < 1
    assert gauge.identity(degrade(portrait, 5, PRESETS["heavy"]), portrait, "not asked yet", found.points) == heavy
    assert gauge.landmarks(np.full_like(portrait, 127), found)[0] > 5, "no face is looked for in an output"


def test_no_face_is_said_and_the_last_references_are_remembered(portrait: Rgb) -> None:
    gauge = FaceGauge(0.5)
    with pytest.raises(ImageError, match="no face"):
        gauge.find("grey", np.full_like(portrait, 128))
    first = gauge.find("0", portrait)
    assert gauge.find("0", portrait) is first
    for number in range(1, 20):
        gauge.find(str(number), portrait)
    assert len(gauge._found) == 8 and gauge.find("0", portrait) is not first


def test_the_landmark_error_is_300ws() -> None:
    truth = np.zeros((68, 2))
    truth[45] = (40, 30)
    assert landmark_error(truth + [3, 4], truth) == (pytest.approx(10), pytest.approx(5))
    with pytest.raises(ImageError, match="one point"):
        landmark_error(truth, np.zeros((68, 2)))
