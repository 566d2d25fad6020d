"""Whole photos: nothing but faces changes, and what does not need to change does not."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib.cbook
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from authface.errors import AuthfaceError
from authface.faces.geometry import Side, ffhq_quad, spread_points
from authface.restore.model.restorer import CropRestorer, Identity, find_weights, load_restorer
from authface.restore.photo import (
    FaceFinder,
    FaceResult,
    Finder,
    PhotoResult,
    paste_faces,
    restore_faces,
    whole_photo,
)
from authface.restore.settings import RestoreSettings, face_rule
from tests.restore.conftest import Painter

SETTINGS = RestoreSettings(min_face=8)


def restore_photo(
    rgb: NDArray[np.uint8], finder: Finder, restorer: CropRestorer, chosen: RestoreSettings, content: str
) -> PhotoResult:
    faces = restore_faces(restorer, finder(rgb, restorer.side, content, 0), chosen)
    return paste_faces(rgb, faces, chosen.upscale)


def hopper() -> np.ndarray:
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        return np.asarray(Image.open(file).convert("RGB"))


def turned(photo: np.ndarray, degrees: float) -> np.ndarray:
    height, width = photo.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    return cv2.warpAffine(photo, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)


def group() -> np.ndarray:
    """Six small faces on a photo without one."""
    photo = np.ascontiguousarray(data.coffee()[:400, :600])
    for i, face in enumerate((data.astronaut()[:260, 90:350], hopper()[20:320, 110:410]) * 3):
        side = (80, 105, 140)[i // 2]
        small = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
        x, y = 20 + 190 * (i % 3), 30 + 190 * (i // 3)
        photo[y : y + side, x : x + side] = small
    return photo


PHOTOS = {
    "astronaut": (lambda: data.astronaut(), 1),
    "hopper": (hopper, 1),
    "turned": (lambda: turned(hopper(), 25), 1),
    "cut by the border": (lambda: np.ascontiguousarray(data.astronaut()[50:, 200:]), 1),
    "group": (group, 6),
    "no face": (lambda: data.coffee(), 0),
}


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    return FaceFinder(SETTINGS)


@pytest.fixture(scope="module")
def model(family: Path) -> CropRestorer:
    chosen = RestoreSettings(model=str(family), steps=2)
    return load_restorer(find_weights(chosen.model), chosen, "cpu")


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("size", [64, 512])
def test_the_identity_changes_no_pixel(finder: FaceFinder, name: str, size: int) -> None:
    make, faces = PHOTOS[name]
    photo = make()
    result = restore_photo(photo, finder, Identity(Side(size)), SETTINGS, "ab")
    assert result.restored == faces
    np.testing.assert_array_equal(result.rgb, photo)


def inside(shape: tuple[int, ...], faces: Sequence[FaceResult], margin: float) -> np.ndarray:
    mask = np.zeros(shape[:2], np.uint8)
    for face in faces:
        assert face.quad is not None
        middle = face.quad.mean(axis=0)
        cv2.fillConvexPoly(mask, np.rint(middle + (face.quad - middle) * margin).astype(np.int32), 1)
    return mask.astype(bool)


@pytest.mark.parametrize("name", ["astronaut", "turned", "cut by the border", "group"])
def test_a_model_changes_faces_and_nothing_else(finder: FaceFinder, model: CropRestorer, name: str) -> None:
    photo = PHOTOS[name][0]()
    result = restore_photo(photo, finder, model, SETTINGS, "ab")
    changed = (result.rgb != photo).any(axis=2)
    assert not (changed & ~inside(photo.shape, result.faces, 1.02)).any()
    middles = inside(photo.shape, result.faces, 0.5)
    assert changed[middles].mean() > 0.9


def test_what_is_restored_is_what_is_seen(finder: FaceFinder) -> None:
    photo = group()
    result = restore_photo(photo, finder, Painter(), RestoreSettings(colour="none", min_face=8), "ab")
    middles = inside(photo.shape, result.faces, 0.5)
    assert np.abs(result.rgb[middles].astype(int) - (0, 255, 0)).max() <= 3
    for face in result.faces:
        assert face.before is not None and face.after is not None
        assert face.before.shape == face.after.shape == (64, 64, 3)
        assert (face.after == (0, 255, 0)).all()


def test_a_grey_photo_stays_grey(finder: FaceFinder, model: CropRestorer) -> None:
    grey = np.repeat(cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    for colour in ("wavelet", "adain", "none"):
        result = restore_photo(grey, finder, model, RestoreSettings(colour=colour), "ab")
        assert (result.rgb != grey).any()
        assert (result.rgb == result.rgb[..., :1]).all()


def test_faces_left_alone_say_why_and_do_not_change_the_others(finder: FaceFinder) -> None:
    photo = group()
    every = restore_photo(photo, finder, Identity(Side(64)), SETTINGS, "ab").faces
    assert [face.index for face in every] == list(range(6))
    assert len({face.seed for face in every}) == 6
    sizes = [max(face.box[2] - face.box[0], face.box[3] - face.box[1]) for face in every]
    assert sizes[0] > 2 * sizes[-1]
    chosen = RestoreSettings(faces="2", min_face=sum(sizes[3:5]) / 2)
    some = restore_photo(photo, FaceFinder(chosen), Identity(Side(64)), chosen, "ab").faces
    assert [face.reason for face in some] == ["", "", "not_chosen", "not_chosen", "too_small", "too_small"]
    assert [face.seed for face in some[:2]] == [face.seed for face in every[:2]]
    other = restore_photo(photo, finder, Identity(Side(64)), SETTINGS, "cd").faces
    assert not {face.seed for face in other} & {face.seed for face in every}


def reasons(**chosen: object) -> list[str]:
    picked = SETTINGS.model_copy(update=chosen)
    return [face.reason for face in restore_photo(group(), FaceFinder(picked), Identity(Side(64)), picked, "ab").faces]


def test_faces_are_chosen_by_number_and_by_region() -> None:
    assert reasons(faces="largest") == [""] + ["not_chosen"] * 5
    assert reasons(faces="4") == [""] * 4 + ["not_chosen"] * 2
    picked = SETTINGS.model_copy(update={"faces": "190,0,220,220"})  # the second of six places, by `group`
    faces = restore_photo(group(), FaceFinder(picked), Identity(Side(64)), picked, "ab").faces
    (chosen,) = [face for face in faces if not face.reason]
    x, y = (chosen.box[0] + chosen.box[2]) / 2, (chosen.box[1] + chosen.box[3]) / 2
    assert 190 <= x < 410 and 0 <= y < 220
    both = reasons(faces="1+190,0,220,220")
    assert both[0] == "" and sorted(both) == ["", "", *["not_chosen"] * 4]


def test_a_region_without_a_face_that_was_found_marks_one(finder: FaceFinder) -> None:
    chosen = SETTINGS.model_copy(update={"faces": "520,20,70,90"})
    result = restore_photo(group(), FaceFinder(chosen), Painter(), chosen, "ab")
    *found, marked = result.faces
    assert [face.reason for face in found] == ["not_chosen"] * 6
    assert (marked.index, marked.reason, marked.placed_by) == (6, "", "marked") and marked.score < 0.9
    assert inside(group().shape, [marked], 0.5)[20:110, 520:590].any()
    both = SETTINGS.model_copy(update={"faces": "all+520,20,70,90+520,20,70,90+510,10,90,110"})  # one place, one face
    assert [face.reason for face in FaceFinder(both)(group(), Side(64), "ab", 0)] == [""] * 7
    outside = SETTINGS.model_copy(update={"faces": "all+700,20,70,90"})
    every = finder(group(), Side(64), "ab", 0)
    assert len(FaceFinder(outside)(group(), Side(64), "ab", 0)) == len(every) == 6


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_photo_is_restored_as_the_upright_one(finder: FaceFinder, model: CropRestorer, turns: int) -> None:
    photo = data.astronaut()
    upright = restore_photo(photo, finder, model, SETTINGS, "ab")
    copy = restore_photo(np.ascontiguousarray(np.rot90(photo, turns)), finder, model, SETTINGS, "ab")
    back = np.rot90(copy.rgb, -turns)
    change = np.abs(upright.rgb.astype(int) - photo).mean()
    assert copy.restored == 1 and np.abs(back.astype(int) - upright.rgb).mean() < 0.05 * change


def test_small_and_doubtful_faces_are_named_with_value_and_limit() -> None:
    strict = SETTINGS.model_copy(update={"min_eyes": 1000.0})
    faces = restore_photo(group(), FaceFinder(strict), Identity(Side(64)), strict, "ab").faces
    assert {face.reason for face in faces} == {"too_small"}
    assert all("px apart, the limit is 1000 (restore.min_eyes)" in face.detail for face in faces)
    sure = SETTINGS.model_copy(update={"min_score": 0.99999})
    faces = restore_photo(group(), FaceFinder(sure), Identity(Side(64)), sure, "ab").faces
    assert len(faces) == 6 and [face.index for face in faces] == list(range(6))
    doubtful = [face for face in faces if face.reason == "low_score"]
    assert doubtful and all(face.detail.startswith(f"score {face.score:.2f}") for face in doubtful)


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "none", "1,2,3", "1,2,0,4", "1,2,3,-4", "nan,0,1,1", "0,0,inf,1", "1.5"]
)
def test_a_rule_that_is_none_is_told_what_there_is(text: str) -> None:
    with pytest.raises(ValueError, match="all, largest, a number from 1, or a region"):
        RestoreSettings(faces=text)


@given(*[st.floats(-1e6, 1e6)] * 2, *[st.floats(1, 1e6)] * 2, st.floats(-1, 2), st.floats(-1, 2))
def test_a_region_wants_the_boxes_whose_middle_it_holds(
    x: float, y: float, width: float, height: float, u: float, v: float
) -> None:
    assume(min(abs(t) for t in (u, u - 1, v, v - 1)) > 1e-3)
    middle = (x + u * width, y + v * height)
    rule = face_rule(f"{x!r},{y!r},{width!r},{height!r}")
    assert rule.wants((*middle, *middle), 99) == (0 < u < 1 and 0 < v < 1)


def test_where_dlib_is_lost_the_detector_s_points_place_the_crop(finder: FaceFinder) -> None:
    photo = data.astronaut()
    good = restore_photo(photo, finder, Identity(Side(64)), SETTINGS, "ab").faces[0]
    strict = RestoreSettings(max_disagreement=1e-6)
    other = restore_photo(photo, FaceFinder(strict), Identity(Side(64)), strict, "ab").faces[0]
    assert (good.placed_by, other.placed_by) == ("dlib68", "retinaface5")
    assert good.quad is not None and other.quad is not None
    side = np.linalg.norm(good.quad[3] - good.quad[0])
    assert 0 < np.abs(good.quad - other.quad).max() < 0.15 * side


@given(st.lists(st.floats(-500, 500), min_size=10, max_size=10))
def test_the_five_points_are_the_ones_the_quad_reads(values: list[float]) -> None:
    points = spread_points(values)
    left, right, nose, mouth_left, mouth_right = np.reshape(values, (5, 2))
    np.testing.assert_allclose(points[36:42].mean(axis=0), left, atol=1e-9)
    np.testing.assert_allclose(points[42:48].mean(axis=0), right, atol=1e-9)
    np.testing.assert_array_equal([points[30], points[48], points[54]], [nose, mouth_left, mouth_right])


def test_a_level_face_s_quad_is_level() -> None:
    quad = ffhq_quad(spread_points([40, 50, 60, 50, 50, 60, 43, 70, 57, 70]))
    # |E| = 20, |M| = 20: half side max(40, 36), centre 0.1 M below the eyes.
    np.testing.assert_allclose(quad, [[10, 12], [10, 92], [90, 92], [90, 12]])


SHAPES = st.tuples(st.integers(1, 90), st.integers(1, 90))


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.sampled_from([64, 96]))
def test_an_aligned_image_of_any_shape_is_the_crop(shape: tuple[int, int], size: int) -> None:
    photo = np.random.default_rng(7).integers(0, 256, (*shape, 3), dtype=np.uint8)
    same = restore_photo(photo, whole_photo, Identity(Side(size)), SETTINGS, "ab")
    np.testing.assert_array_equal(same.rgb, photo)
    painted = restore_photo(photo, whole_photo, Painter(Side(size)), RestoreSettings(colour="none"), "ab")
    assert painted.rgb.shape == photo.shape
    assert (painted.rgb == (0, 255, 0)).all()


def test_an_aligned_image_is_not_stretched() -> None:
    tall = np.ascontiguousarray(data.astronaut()[:300, 100:300])
    crop = whole_photo(tall, Side(150), "ab", 0)[0].aligned
    expected = cv2.resize(tall, (100, 150), interpolation=cv2.INTER_AREA)
    assert np.abs(crop.rgb[:, 25:125].astype(int) - expected).max() <= 1
    assert crop.pad_fraction == pytest.approx(1 / 3)
    np.testing.assert_allclose(crop.quad, [[-50.5, -0.5], [-50.5, 299.5], [249.5, 299.5], [249.5, -0.5]])
    assert not crop.upscaled


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda crop: [], "0 faces for 1 crops"),
        (lambda crop: None, "0 faces for 1 crops"),
        (lambda crop: [crop[:50, :50]], r"uint8 (50, 50, 3) for a crop of uint8 (64, 64, 3)"),
        (lambda crop: [crop / 255], r"float64 (64, 64, 3) for a crop of uint8 (64, 64, 3)"),
        (lambda crop: [crop[..., 0]], r"uint8 (64, 64) for a crop of uint8 (64, 64, 3)"),
    ],
)
def test_a_restorer_that_gives_no_restored_crops_is_said_in_one_line(
    finder: FaceFinder, made: Callable[[NDArray[np.uint8]], Any], said: str
) -> None:
    class Wrong(Painter):
        def restore(self, crops: Any, seeds: Any, fidelity: float | None = None) -> Any:
            return made(crops[0])

    named = SETTINGS.model_copy(update={"model": "shoebox"})
    with pytest.raises(AuthfaceError, match=f"the restorer shoebox gives {re.escape(said)}: it has to"):
        restore_photo(data.astronaut(), finder, Wrong(), named, "ab")
