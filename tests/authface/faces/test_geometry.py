"""The FFHQ crop: its formula, its coordinates, and its pixels against the reference's."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from authface.errors import ImageError
from authface.faces.geometry import (
    LARGEST,
    Side,
    align,
    crop_points,
    ffhq_quad,
    photo_points,
    quad_side,
    resize_square,
    scale_quad,
)
from tests.portraits import ASTRONAUT, HOPPER

Pixels = NDArray[np.uint8]
Array = NDArray[np.float64]


def square(x: float, y: float, side: float, degrees: float = 0.0) -> Array:
    """The quad of `side` around (x, y), turned clockwise as seen."""
    a = np.deg2rad(degrees)
    across = np.array([np.cos(a), np.sin(a)]) * side / 2
    down = np.array([-across[1], across[0]])
    centre = np.array([x, y])
    return np.stack([centre - across - down, centre - across + down, centre + across + down, centre + across - down])


quads = st.builds(
    square, st.floats(-50, 4000), st.floats(-50, 4000), st.floats(2, 3000), st.floats(-180, 180, allow_subnormal=False)
)


def face(eyes: float = 60.0, mouth: float = 70.0) -> Array:
    """68 points of which only eyes and mouth corners matter here, upright, the eyes' middle at (200, 150)."""
    points = np.full((68, 2), 7.0)
    points[36:42], points[42:48] = [200 - eyes / 2, 150], [200 + eyes / 2, 150]
    points[48], points[54] = [180, 150 + mouth], [220, 150 + mouth]
    return points


@pytest.fixture(scope="module")
def ffhq() -> ModuleType:
    path = Path(__file__).parents[3] / "benchmarks" / "ffhq_reference.py"
    spec = importlib.util.spec_from_file_location("ffhq_reference", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_quad_of_an_upright_face_by_hand() -> None:
    # E = (60, 0), M = (0, 70): the half side is max(2 * 60, 1.8 * 70) = 126, the centre 0.1 * 70 below the eyes.
    assert ffhq_quad(face()).tolist() == [[74, 31], [74, 283], [326, 283], [326, 31]]
    assert ffhq_quad(face(eyes=80).ravel()).tolist() == [[40, -3], [40, 317], [360, 317], [360, -3]]


@given(st.floats(-180, 180), st.floats(0.1, 20), st.floats(-500, 500), st.floats(-500, 500))
def test_the_quad_turns_scales_and_moves_with_the_face(degrees: float, scale: float, dx: float, dy: float) -> None:
    a = np.deg2rad(degrees)
    turn = scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    points = face(75, 66)
    assert np.allclose(ffhq_quad(points @ turn.T + [dx, dy]), ffhq_quad(points) @ turn.T + [dx, dy], atol=1e-6)


def test_points_on_one_spot_are_no_face() -> None:
    with pytest.raises(ImageError, match="no face"):
        ffhq_quad(np.ones((68, 2)))


@given(quads, st.sampled_from([64, 256, 512, 1024]), st.lists(st.floats(-100, 1200), min_size=2, max_size=2))
def test_crop_and_photo_coordinates_round_trip(quad: Array, size: int, point: list[float]) -> None:
    there = photo_points([point], quad, size)
    assert np.allclose(crop_points(there, quad, size), [point], atol=1e-4)
    corners = [[-0.5, -0.5], [-0.5, size - 0.5], [size - 0.5, size - 0.5], [size - 0.5, -0.5]]
    assert np.allclose(photo_points(corners, quad, size), quad, atol=1e-6)


@settings(deadline=None, max_examples=25)
@given(
    st.floats(60, 700),
    st.floats(-180, 180, allow_subnormal=False),
    st.floats(0.25, 0.75),
    st.floats(0.25, 0.75),
    st.sampled_from([64, 128, 256]),
)
def test_a_dot_lands_where_crop_points_says(side: float, degrees: float, u: float, v: float, size: int) -> None:
    quad = square(399.5, 399.5, side, degrees)
    target = photo_points([[u * size, v * size]], quad, size)[0]
    y, x = np.mgrid[:800, :800]
    spread = max(2.0, 2.0 * side / size)  # photo pixels: wide enough for both grids
    dot = np.exp(-((x - target[0]) ** 2 + (y - target[1]) ** 2) / (2 * spread**2))
    photo = np.repeat(np.rint(255 * dot).astype(np.uint8)[..., None], 3, axis=2)
    crop = align(photo, quad, size).rgb[..., 0].astype(float)
    rows, columns = np.mgrid[:size, :size]
    seen = np.array([(crop * columns).sum(), (crop * rows).sum()]) / crop.sum()
    assert np.abs(seen - [u * size, v * size]).max() < 0.12


@given(quads, st.integers(1, 8), st.floats(0, 1), st.floats(0, 1))
def test_a_scaled_quad_cuts_the_same_part_of_an_enlarged_photo(quad: Array, factor: int, u: float, v: float) -> None:
    point = photo_points([[u * 63, v * 63]], quad, 64)
    assert np.allclose(photo_points([[u * 63, v * 63]], scale_quad(quad, factor), 64), (point + 0.5) * factor - 0.5)


PLACES = {"inside": (224, 118, 205, 8), "turned": (224, 118, 190, 72), "at the border": (224, 60, 260, -12)}


@pytest.mark.parametrize("size", [256, 512, 1024])
@pytest.mark.parametrize("place", PLACES)
def test_pixels_are_the_references_when_enlarged(place: str, size: int, ffhq: ModuleType) -> None:
    quad = square(*PLACES[place])
    assert ffhq.psnr(align(ASTRONAUT, quad, size).rgb, ffhq.reference(ASTRONAUT, quad, size)) > 47


@pytest.mark.parametrize(("side", "size"), [(420, 256), (420, 512), (900, 256), (1100, 512), (1100, 1024)])
def test_pixels_are_the_references_when_reduced(side: int, size: int, ffhq: ModuleType) -> None:
    factor = 3
    wide = np.asarray(cv2.resize(HOPPER, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC))
    quad = square(260 * factor, 260 * factor, side, 11)
    assert ffhq.psnr(align(wide, quad, size).rgb, ffhq.reference(wide, quad, size)) > 47


def test_pixels_are_the_references_when_it_shrinks_the_photo_first(ffhq: ModuleType) -> None:
    wide = np.asarray(cv2.resize(HOPPER, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC))
    quad = square(1040, 1040, 1400, 5)
    assert ffhq.psnr(align(wide, quad, 256).rgb, ffhq.reference(wide, quad, 256, half_pixel=True)) > 47


@settings(deadline=None, max_examples=40)
@given(quads, st.sampled_from([16, 64]))
def test_what_align_says_of_a_crop(quad: Array, size: int) -> None:
    photo = np.full((300, 400, 3), 77, dtype=np.uint8)
    u, v = np.meshgrid(*[(np.arange(200) + 0.5) * size / 200 - 0.5] * 2)
    x, y = photo_points(np.stack([u.ravel(), v.ravel()], axis=1), quad, size).T
    outside = float(((x < -0.5) | (x > 399.5) | (y < -0.5) | (y > 299.5)).mean())
    try:
        crop = align(photo, quad, size)
    except ImageError:
        assert outside > 0.98
        return
    assert crop.rgb.shape == (size, size, 3) and crop.rgb.dtype == np.uint8
    assert (np.abs(crop.rgb.astype(int) - 77) <= 1).all()  # reflection, blur and median of one colour are that colour
    assert abs(crop.pad_fraction - outside) < 0.02
    assert crop.upscaled == (quad_side(quad) < size)


@pytest.mark.parametrize(
    "quad",
    [np.full((4, 2), np.nan), np.zeros((4, 2)), square(10, 10, 0.5), square(5000, 10, 100), square(-5000, 10, 100)],
)
def test_a_quad_that_holds_no_photo_is_refused(quad: Array) -> None:
    with pytest.raises(ImageError) as error:
        align(ASTRONAUT, quad, 64)
    assert error.value.reason == "quad"


def test_a_part_of_a_huge_photo_costs_no_copy_of_it() -> None:
    huge = np.broadcast_to(np.array([10, 120, 230], dtype=np.uint8), (40_000, 40_000, 3))  # 4.8 GB if it were copied
    assert align(huge, square(20_000, 20_000, 600, 30), 64).rgb[32, 32].tolist() == [10, 120, 230]


@given(st.floats(1, 1e6), st.integers(16, 1024))
def test_a_crop_is_as_large_as_its_face_within_bounds(photo: float, least: int) -> None:
    assert Side(least).of(photo) == least
    own = Side(least, own=True).of(photo)
    assert least <= own <= LARGEST and (own == int(photo) or photo < least or photo > LARGEST)


@pytest.mark.parametrize("type", [np.uint8, np.uint16, np.float32])
def test_a_square_is_resized_in_its_own_type(type: Any) -> None:
    square = np.full((8, 8, 3), 7, type)
    assert resize_square(square, 8) is square
    for side in (3, 20):
        resized = resize_square(square, side)
        assert resized.shape == (side, side, 3) and resized.dtype == type and np.allclose(resized, 7)
