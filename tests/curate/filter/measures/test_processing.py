"""Enlarged pixels and sharpened edges are told from what photos, lenses and JPEG do."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from authface.curate.fetch.sources import make_source
from authface.curate.filter.judge import judge_alone
from authface.curate.filter.measure import measure_faces
from authface.curate.filter.measures import processing
from authface.curate.filter.measures.quality import FaceRegion, face_region
from authface.curate.settings import FetchSettings, FilterSettings
from authface.faces.detector import Detection, RetinaFace
from authface.imaging.decode import read
from authface.store.photoset import PhotoSet

Shown = tuple[np.ndarray, tuple[float, ...]]
LIMITS = FilterSettings()


def resized(shown: Shown, factor: float, how: Image.Resampling) -> Shown:
    rgb, points = shown
    height, width = rgb.shape[:2]
    side = round(width * factor), round(height * factor)
    place = (np.reshape(points, (5, 2)) + 0.5) * [side[0] / width, side[1] / height] - 0.5
    return np.asarray(Image.fromarray(rgb).resize(side, how)), tuple(place.ravel())


def saved(rgb: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)


def masked(rgb: np.ndarray, amount: float, sigma: float) -> np.ndarray:
    change = amount * (rgb - cv2.GaussianBlur(rgb.astype(np.float32), (0, 0), sigma))
    return np.clip(np.rint(rgb + change), 0, 255).astype(np.uint8)


def patch(native: np.ndarray, scale: float = 1.0) -> FaceRegion:
    """A region without a photo."""
    nothing = np.full((256, 256), 128, np.uint8), np.zeros((1, 1, 3), np.uint8)
    return FaceRegion(nothing[0], scale, native.astype(np.float32), nothing[1], np.eye(2, 3))


@pytest.fixture(scope="module")
def faces() -> list[Shown]:
    """Portraits of the samples, their eyes 60 px apart: as sharp as their pixels allow."""
    source = make_source(FetchSettings(source="samples"), PhotoSet(Path("unused")))
    found = []
    for item in list(source.items())[:2]:
        rgb = read(Path(item.path)).rgb
        points = RetinaFace().detect(rgb)[0].points5
        factor = 60 / np.hypot(points[2] - points[0], points[3] - points[1])
        found.append(resized((rgb, points), factor, Image.Resampling.BOX if factor < 1 else Image.Resampling.BICUBIC))
    return found


@pytest.mark.parametrize(
    ("factor", "quality"), [(1.5, 60), (1.5, 90), (2, 90), (2.5, 60), (3, 60), (4, 60), (4, 90), (6, 60), (6, 90)]
)
def test_enlarged_pixels_are_found_after_jpeg(faces: list[Shown], factor: float, quality: int) -> None:
    for face in faces:
        small = resized(face, 1 / 2, Image.Resampling.BOX)
        rgb, points = resized(small, factor, Image.Resampling.NEAREST)
        assert processing.pixelation(face_region(saved(rgb, quality), points)) > LIMITS.max_pixelation


@pytest.mark.parametrize("quality", [60, 75, 95])
def test_jpeg_is_no_enlargement_nor_is_saving_twice(faces: list[Shown], quality: int) -> None:
    for rgb, points in faces:
        assert processing.pixelation(face_region(saved(rgb, quality), points)) < LIMITS.max_pixelation
        again = saved(saved(rgb, quality)[3:, 5:], quality)
        moved = tuple(np.array(points) - [5, 3] * 5)
        assert processing.pixelation(face_region(again, moved)) < LIMITS.max_pixelation


def test_a_bilinear_kernel_shows_in_second_differences(faces: list[Shown]) -> None:
    for face in faces:
        small = resized(face, 1 / 2, Image.Resampling.BOX)
        rgb, points = resized(small, 3, Image.Resampling.BILINEAR)
        native = face_region(rgb, points).native
        assert processing.pixelation(patch(native)) > LIMITS.max_pixelation
        assert processing._repetition(native, 1, processing.FIRST_CAP) < LIMITS.max_pixelation


def test_sharpening_rises_with_the_mask_and_the_photo_itself_passes(faces: list[Shown]) -> None:
    for rgb, points in faces:
        values = [
            processing.sharpening(face_region(saved(masked(rgb, amount, 0.8), 90), points))
            for amount in (0, 0.3, 1.5, 4)
        ]
        assert values == sorted(values) and values[0] < LIMITS.max_sharpening < values[3]


def drawn(sigma: float) -> np.ndarray:
    """Discs as a lens draws them, on grey: edges in all directions."""
    y, x = np.mgrid[:200, :200] + 0.5
    inside = (((x % 50 - 25) ** 2 + (y % 50 - 25) ** 2) < 15**2).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(90 + 80 * inside, (0, 0), sigma))


def test_a_lens_is_below_the_limit_and_a_halo_is_above() -> None:
    lens = drawn(0.7)
    assert processing.sharpening(patch(lens)) < LIMITS.max_sharpening
    halo = lens + 4 * (lens - cv2.GaussianBlur(lens, (0, 0), 1.5))
    assert processing.sharpening(patch(halo)) > LIMITS.max_sharpening


def test_wide_halos_of_a_large_face_are_seen_in_the_size_of_a_crop() -> None:
    lens = cv2.resize(drawn(0.7), None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)[:512, :512]
    halo = lens + 5 * (lens - cv2.GaussianBlur(lens, (0, 0), 6))
    scale = 64 / 512  # eyes 512 px apart: a crop of 512 has a quarter of that
    assert processing.sharpening(patch(halo)) < LIMITS.max_sharpening < processing.sharpening(patch(halo, scale))
    assert processing.sharpening(patch(lens, scale)) < LIMITS.max_sharpening


class Known:
    """A detector that knows the face."""

    def __init__(self, points: tuple[float, ...]) -> None:
        self.points = points

    def detect(self, rgb: np.ndarray) -> list[Detection]:
        x, y = np.reshape(self.points, (5, 2)).mean(0)
        return [Detection((x - 100, y - 100, x + 100, y + 100), 1.0, self.points)]


def test_the_filter_says_which_it_was(faces: list[Shown]) -> None:
    loose = LIMITS.model_copy(
        update={
            "min_sharpness": 0,
            "max_piqe": 100,
            "max_noise": 255,
            "max_pepper": 1,
            "max_clipped": 1,
            "max_hatching": 9,
        }
    )
    face = faces[0]
    small = resized(face, 1 / 2, Image.Resampling.BOX)
    made = {
        "": face,
        "pixelated": resized(small, 3, Image.Resampling.NEAREST),
        "enlarged": resized(small, 3, Image.Resampling.LANCZOS),
        "over_sharpened": (masked(face[0], 4, 1.5), face[1]),
    }
    for reason, (rgb, points) in made.items():
        assert judge_alone(measure_faces(saved(rgb, 90), Known(points))[0], 1, loose).reason == reason


@settings(max_examples=20)
@given(st.integers(0, 70), st.integers(0, 70), st.integers(0, 255))
def test_any_patch_is_measured(height: int, width: int, level: int) -> None:
    region = patch(np.full((height, width), level), 0.5)
    assert processing.pixelation(region) == pytest.approx(0.0, abs=1e-9)
    assert processing.sharpening(region) == 0.0
