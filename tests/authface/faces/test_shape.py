"""The predictor read from dlib's file gives dlib's own points, to the pixel, and refuses what is no such file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import dlib
import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from authface.errors import AuthfaceError
from authface.faces.landmarks import SIZE, ShapePredictor, weights_file

FACE = cv2.resize(cv2.cvtColor(np.asarray(skimage.data.astronaut()), cv2.COLOR_RGB2GRAY)[:256, 96:352], (300, 300))


@pytest.fixture(scope="module")
def reference() -> Any:
    return dlib.shape_predictor(str(weights_file()))


@pytest.fixture(scope="module")
def predictor() -> ShapePredictor:
    return ShapePredictor(weights_file(), SIZE)


@given(
    corner=st.tuples(st.integers(-200, 300), st.integers(-200, 300)),
    sides=st.tuples(st.integers(1, 500), st.integers(1, 500)),
    noise=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=150, deadline=None)
def test_points_are_dlibs_in_any_box_of_any_picture(
    predictor: ShapePredictor, reference: Any, corner: tuple[int, int], sides: tuple[int, int], noise: float, seed: int
) -> None:
    made = np.random.default_rng(seed).integers(0, 256, FACE.shape).astype(np.float32)
    grey = (FACE * (1 - noise) + made * noise).astype(np.uint8)
    box = np.array([*corner, corner[0] + sides[0], corner[1] + sides[1]])
    theirs = reference(grey, dlib.rectangle(*box.tolist()))
    assert predictor(grey, box).tolist() == [[point.x, point.y] for point in theirs.parts()]


def test_the_order_in_which_faces_come_changes_nothing(predictor: ShapePredictor, reference: Any) -> None:
    box: NDArray[np.int64] = np.array([60, 60, 240, 240])
    other: NDArray[np.uint8] = np.ascontiguousarray(FACE[::-1])
    first = ShapePredictor(weights_file(), SIZE)
    first(other, box)
    assert np.array_equal(first(FACE, box), ShapePredictor(weights_file(), SIZE)(FACE, box))
    assert np.array_equal(first(FACE, box), predictor(FACE, box))


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
