"""Statistics of real faces: what they see, and what they leave out on purpose."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from authface.curate.learn.features import LARGEST, NAMES, face_statistics, patches
from authface.records import Points5

POINTS: Points5 = (204.2, 100.5, 246.8, 102.9, 223.1, 128.9, 202.1, 137.7, 243.9, 139.9)


@pytest.fixture(scope="module")
def photo() -> NDArray[np.uint8]:
    from skimage import data

    return np.asarray(data.astronaut())


def seen(rgb: NDArray[np.uint8], points: Points5 = POINTS) -> dict[str, float]:
    return dict(zip(NAMES, face_statistics(rgb, points).tolist(), strict=True))


def test_a_real_face_has_every_number(photo: NDArray[np.uint8]) -> None:
    assert np.isfinite(list(seen(photo).values())).all()
    assert len(set(NAMES)) == len(NAMES)


def test_an_enlargement_loses_the_finest_band_and_sharpening_bends_it_up(photo: NDArray[np.uint8]) -> None:
    height, width = photo.shape[:2]
    small = cv2.resize(photo, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    enlarged = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    soft = cv2.GaussianBlur(photo, (0, 0), 1.2).astype(np.float32)
    sharpened = np.clip(photo + 2 * (photo - soft), 0, 255).astype(np.uint8)
    plain = seen(photo)
    for place in ("eyes", "skin", "hair"):
        assert seen(enlarged)[f"{place}_band1"] < plain[f"{place}_band1"] - 0.3
        assert seen(sharpened)[f"{place}_gradient"] > plain[f"{place}_gradient"] + 0.3
    pixelated = cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)
    assert seen(pixelated)["skin_equal"] > plain["skin_equal"] + 0.2


def test_what_covers_a_cheek_is_seen(photo: NDArray[np.uint8]) -> None:
    covered = photo.copy()
    covered[115:140, 190:215] = (20, 90, 30)
    assert seen(covered)["left_cheek_colour"] > seen(photo)["left_cheek_colour"] + 10
    assert seen(covered)["sides_colour"] > seen(photo)["sides_colour"] + 10


def test_the_colour_of_skin_is_not_among_them(photo: NDArray[np.uint8]) -> None:
    """One shift of all colours, as of other skin, leaves what parts are to each other."""
    shifted = np.clip(photo.astype(np.int16) // 2 + [40, 20, 10], 0, 255).astype(np.uint8)
    halved = np.clip(photo.astype(np.int16) // 2 + 20, 0, 255).astype(np.uint8)
    for name in NAMES:
        if name.endswith("_colour"):
            assert seen(shifted)[name] == pytest.approx(seen(halved)[name], abs=1.5), name


def test_a_place_outside_the_photo_is_not_a_number(photo: NDArray[np.uint8]) -> None:
    cut = photo[85:]
    moved: Points5 = tuple(value - (85 if at % 2 else 0) for at, value in enumerate(POINTS))
    found = seen(cut, moved)
    assert np.isnan(found["hair_contrast"])
    assert np.isfinite(found["skin_contrast"])


def test_patches_are_the_photos_own_pixels_and_not_too_large(photo: NDArray[np.uint8]) -> None:
    big = cv2.resize(photo, None, fx=8, fy=8)
    points: Points5 = tuple(8 * value for value in POINTS)
    assert [patch.shape for patch in patches(big, points)] == [(LARGEST, LARGEST, 3)] * 3
    small = patches(photo, POINTS)[0]
    rows = [bytes(row) for row in small.reshape(len(small), -1)]
    assert any(rows[0] in bytes(np.ascontiguousarray(line)) for line in photo.reshape(len(photo), -1))
