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
from authface.curate.filter.measure import judge_alone, measure_faces
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


def pixelation(rgb: np.ndarray, points: tuple[float, ...]) -> float:
    return processing.pixelation(processing.face_traces(face_region(rgb, points)))


def sharpening(rgb: np.ndarray, points: tuple[float, ...]) -> float:
    return processing.sharpening(processing.face_traces(face_region(rgb, points)))


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
        assert pixelation(saved(rgb, quality), points) > LIMITS.max_pixelation


@pytest.mark.parametrize("quality", [60, 75, 95])
def test_jpeg_is_no_enlargement_nor_is_saving_twice(faces: list[Shown], quality: int) -> None:
    for rgb, points in faces:
        assert pixelation(saved(rgb, quality), points) < LIMITS.max_pixelation
        again = saved(saved(rgb, quality)[3:, 5:], quality)
        moved = tuple(np.array(points) - [5, 3] * 5)
        assert pixelation(again, moved) < LIMITS.max_pixelation


@pytest.mark.parametrize("how", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
@pytest.mark.parametrize(("factor", "quality"), [(2.5, 90), (2.5, 75), (3, 75), (4, 60)])
def test_smooth_enlargements_are_found_after_jpeg(
    faces: list[Shown], how: Image.Resampling, factor: float, quality: int
) -> None:
    for face in faces:
        rgb, points = resized(resized(face, 1 / 2, Image.Resampling.BOX), factor, how)
        assert pixelation(saved(rgb, quality), points) > LIMITS.max_pixelation


def test_a_soft_photo_is_no_enlargement(faces: list[Shown]) -> None:
    for rgb, points in faces:
        for sigma in (0.5, 0.8):
            soft = np.asarray(cv2.GaussianBlur(rgb, (0, 0), sigma))
            assert pixelation(saved(soft, 90), points) < LIMITS.max_pixelation


def test_a_bilinear_kernel_shows_in_second_differences(faces: list[Shown]) -> None:
    for face in faces:
        small = resized(face, 1 / 2, Image.Resampling.BOX)
        native = face_region(*resized(small, 3, Image.Resampling.BILINEAR)).native
        first, second = (processing.repetition(native, order, cap)[0] for order, cap in ((1, 12.0), (2, 24.0)))
        assert second > max(2 * first, processing.REPETITION_HALF / processing.SECOND_WEIGHT)


def test_sharpening_rises_with_the_mask_and_the_photo_itself_passes(faces: list[Shown]) -> None:
    for rgb, points in faces:
        values = [sharpening(saved(masked(rgb, amount, 0.8), 90), points) for amount in (0, 0.3, 1.5, 4)]
        assert values == sorted(values) and values[1] < LIMITS.max_sharpening < values[3]


def test_an_enlargement_that_was_sharpened_is_found(faces: list[Shown]) -> None:
    for face in faces:
        rgb, points = resized(resized(face, 1 / 2, Image.Resampling.BOX), 2, Image.Resampling.BICUBIC)
        assert sharpening(saved(masked(rgb, 2, 1.5), 85), points) > LIMITS.max_sharpening


def test_wide_halos_of_a_large_face_are_seen_in_the_size_of_a_crop(faces: list[Shown]) -> None:
    for rgb, points in faces:
        halo = resized((masked(rgb, 4, 1.5), points), 4, Image.Resampling.BICUBIC)
        found = processing.face_traces(face_region(*halo))
        assert processing.SHARPENED.probability(found.native) < LIMITS.max_sharpening < processing.sharpening(found)
        plain = processing.face_traces(face_region(*resized((rgb, points), 4, Image.Resampling.BICUBIC)))
        assert processing.SHARPENED.probability(plain.crop) < LIMITS.max_sharpening


def test_the_size_of_a_face_is_no_trace(faces: list[Shown]) -> None:
    for rgb, points in faces:
        whole = face_region(saved(rgb, 90), points).native
        part = whole[: whole.shape[0] * 3 // 4, : whole.shape[1] * 3 // 4]
        for one in (whole, part):
            assert processing.pixelation(processing.face_traces(patch(one))) < LIMITS.max_pixelation


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
        "pixelated, too": resized(small, 3, Image.Resampling.LANCZOS),
        "over_sharpened": (masked(face[0], 4, 1.5), face[1]),
    }
    for reason, (rgb, points) in made.items():
        assert judge_alone(measure_faces(saved(rgb, 90), Known(points))[0], 1, loose).reason == reason.partition(",")[0]


@settings(max_examples=20)
@given(st.integers(0, 70), st.integers(0, 70), st.integers(0, 255))
def test_any_patch_is_measured(height: int, width: int, level: int) -> None:
    found = processing.face_traces(patch(np.full((height, width), level), 0.5))
    assert (processing.pixelation(found), processing.sharpening(found)) == (0.0, 0.0)
