"""Statistics of real faces: what they see, and what they leave out on purpose.

A network by name: a tiny real one of timm's with random weights, from a folder, offline.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from authface.curate.learn.features import (
    LARGEST,
    NAMES,
    PLACES,
    SIDE,
    PatchNetwork,
    face_statistics,
    patches,
    weights_of,
)
from authface.curate.learn.table import MEASURES, TakeFeatures, column_names
from authface.errors import AuthfaceError, UsageError
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


@pytest.fixture(scope="module", params=["test_vit", "test_resnet"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    timm = pytest.importorskip("timm")
    found = tmp_path_factory.mktemp(request.param)
    timm.models.save_for_hf(timm.create_model(request.param, pretrained=False), found, safe_serialization=True)
    return found


def test_it_sees_the_photos_own_pixels_one_face_like_many(folder: Path) -> None:
    network = PatchNetwork(f"local-dir:{folder}", "cpu")
    rng = np.random.default_rng(0)
    faces = [[rng.integers(0, 256, (side, side, 3), np.uint8) for side in (160, 40, 12)] for _ in range(3)]
    together = network(faces)
    assert {row.shape for row in together} == {(len(together[0]),)}
    assert len(together[0]) % len(PLACES) == 0
    np.testing.assert_allclose(network(faces[1:2])[0], together[1], atol=1e-4)
    seen = network._seen(faces[0][0])
    inner = (SIDE - 160) // 2
    back = seen.transpose(1, 2, 0) * network._deviation + network._mean
    np.testing.assert_allclose(back[inner : inner + 160, inner : inner + 160], faces[0][0], atol=0.01)
    names = column_names(len(NAMES) + len(together[0]), "x")
    assert len(names) == 1 + len(MEASURES) + len(NAMES) + len(together[0])


def test_its_weights_are_the_provenance(folder: Path, tmp_path: Path) -> None:
    name = f"local-dir:{folder}"
    assert len(weights_of(name)[name]) == 64
    assert TakeFeatures(tmp_path, name).provenance.weights == weights_of(name)
    with pytest.raises(UsageError, match="there is no"):
        weights_of(f"local-dir:{tmp_path}")


def test_no_such_network_and_no_weights_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="timm has no such network"):
        PatchNetwork("no_such_network", "cpu")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(AuthfaceError, match=r"^curate.learn.network test_vit.r160_in1k cannot be loaded: [^\n]+$"):
        PatchNetwork("test_vit.r160_in1k", "cpu")
