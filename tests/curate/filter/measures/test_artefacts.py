"""Each measure of an artefact rises with it, and says so in its unit."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authface.curate.fetch.sources import make_source
from authface.curate.filter.measures import quality
from authface.curate.filter.measures.quality import EYE_DISTANCE, FaceRegion, face_region, noise
from authface.curate.settings import FetchSettings, FilterSettings
from authface.faces.detector import RetinaFace
from authface.imaging.decode import read
from authface.store.photoset import PhotoSet

Face = tuple[np.ndarray, tuple[float, ...]]


@pytest.fixture(scope="module")
def faces() -> list[Face]:
    source = make_source(FetchSettings(source="samples"), PhotoSet(Path("unused")))
    portraits = [read(Path(item.path)).rgb for item in source.items()][:2]
    return [(rgb, RetinaFace().detect(rgb)[0].points5) for rgb in portraits]


def rising(values: list[float]) -> bool:
    return all(a < b for a, b in zip(values, values[1:], strict=False))


def flat(native: np.ndarray, luma: np.ndarray | None = None) -> FaceRegion:
    """A region without a photo."""
    luma = np.full((256, 256), 128, np.uint8) if luma is None else luma
    return FaceRegion(luma, 1.0, native.astype(np.float32), np.zeros((1, 1, 3), np.uint8), np.eye(2, 3))


def test_pepper_counts_the_share_of_single_pixels(faces: list[Face]) -> None:
    rng = np.random.default_rng(3)
    for rgb, points in faces:
        assert quality.pepper(face_region(rgb, points)) < 0.001
        for share in (0.003, 0.01, 0.03):
            drawn, spoilt = rng.random(rgb.shape[:2]), rgb.copy()
            spoilt[drawn < share / 2], spoilt[drawn > 1 - share / 2] = 0, 255
            assert quality.pepper(face_region(spoilt, points)) == pytest.approx(share, rel=0.35)


@pytest.mark.parametrize("shift", [(0, 0), (3, 5), (7, 1)])
def test_blocks_are_found_wherever_the_grid_begins(faces: list[Face], shift: tuple[int, int]) -> None:
    for rgb, points in faces:
        x, y = shift
        values = [quality.blockiness(face_region(rgb, points))]
        for level in (40, 15, 5):
            seen = cv2.imdecode(cv2.imencode(".jpg", rgb[y:, x:], [cv2.IMWRITE_JPEG_QUALITY, level])[1], 1)
            values.append(quality.blockiness(face_region(seen, tuple(np.array(points) - [x, y] * 5))))
        assert rising(values) and values[0] < 1.4 and values[-1] > 2


def test_resolution_falls_to_what_enlarging_leaves(faces: list[Face]) -> None:
    for rgb, points in faces:
        height, width = rgb.shape[:2]
        values = []
        for factor in (1, 2, 4):
            small = cv2.resize(rgb, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
            back = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
            values.append(quality.resolution(face_region(rgb if factor == 1 else back, points)))
        assert rising(values[::-1]) and values[1] < 0.65 and values[2] < 0.4


def test_smoothing_rises_with_the_filter_though_eyes_are_kept(faces: list[Face]) -> None:
    for rgb, points in faces:
        soft = cv2.bilateralFilter(rgb, 9, 45, 5).astype(float)
        for x, y in np.reshape(points, (5, 2))[:2]:
            box = np.s_[int(y) - 9 : int(y) + 9, int(x) - 14 : int(x) + 14]
            soft[box] = rgb[box]
        mixed = [(rgb + share * (soft - rgb)).round().astype(np.uint8) for share in (0, 0.4, 0.7, 1)]
        assert rising([quality.smoothing(face_region(picture, points)) for picture in mixed])


def lines(grey: np.ndarray, pitch: float) -> np.ndarray:
    """The picture as black lines on white, `pitch` pixels apart, as wide as it is dark."""
    y, x = np.mgrid[: grey.shape[0], : grey.shape[1]]
    across = ((0.83 * x + 0.56 * y) / pitch) % 1
    return np.clip((grey / 255 - np.abs(across - 0.5) * 2) * pitch / 2 + 0.5, 0, 1) * 255


def dots(grey: np.ndarray, pitch: float) -> np.ndarray:
    """The picture as an amplitude-modulated halftone at 45 degrees, its dots `pitch` pixels apart."""
    y, x = np.mgrid[: grey.shape[0], : grey.shape[1]] * (np.sqrt(2) * np.pi / pitch)
    return np.clip((grey / 255 - (np.cos(x + y) + np.cos(x - y)) / 4 - 0.5) * pitch / 2 + 0.5, 0, 1) * 255


@pytest.mark.parametrize("eyes", [45, 64, 90, 128])  # of faces of about 110 to 320 px
def test_engravings_and_halftones_are_hatched_and_their_photos_are_not(faces: list[Face], eyes: float) -> None:
    limit = FilterSettings().max_hatching
    for rgb, points in faces:
        factor = eyes / np.hypot(points[2] - points[0], points[3] - points[1])
        photo = cv2.resize(
            rgb, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        )
        place = tuple(np.array(points) * factor)
        assert quality.hatching(face_region(photo, place)) < limit
        grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(float)
        for made in (lines, dots):
            for pitch in (3, 4, 6, 8):  # pixels of the region
                drawn = made(grey, pitch * eyes / EYE_DISTANCE).round().astype(np.uint8)
                assert quality.hatching(face_region(cv2.merge([drawn] * 3), place)) > 2 * limit, (made, pitch)


def test_noise_that_may_stay_is_no_hatching(faces: list[Face]) -> None:
    settings = FilterSettings()
    for rgb, points in faces:
        drawn = np.random.default_rng(5).normal(0, settings.max_noise, rgb.shape[:2])[..., None]
        grainy = np.clip(rgb + drawn, 0, 255).round().astype(np.uint8)
        region = face_region(grainy, points)
        assert noise(region) > settings.max_noise
        assert quality.hatching(region) < min(settings.max_hatching, quality.hatching(face_region(rgb, points)) + 0.4)


def test_light_is_measured_on_the_face_and_clipping_at_both_ends(faces: list[Face]) -> None:
    for rgb, points in faces:
        lights = [quality.exposure(face_region((rgb * gain).astype(np.uint8), points)) for gain in (0.1, 0.4, 1.0)]
        assert rising([light for light, _ in lights]) and lights[0][0] < 30 < lights[2][0]
        burnt = np.clip(rgb.astype(int) * 4, 0, 255).astype(np.uint8)
        assert quality.exposure(face_region(burnt, points))[1] > 0.3 > quality.exposure(face_region(rgb, points))[1]
    half = np.full((256, 256), 128, np.uint8)
    half[:, 128:] = 0
    assert quality.exposure(flat(np.zeros((64, 64)), half))[1] == pytest.approx(0.5, abs=0.01)


@settings(max_examples=20)
@given(st.integers(0, 70), st.integers(0, 70), st.integers(0, 255))
def test_any_patch_is_measured(height: int, width: int, level: int) -> None:
    region = flat(np.full((height, width), level), np.full((256, 256), level, np.uint8))
    assert quality.pepper(region) == 0.0
    assert quality.blockiness(region) == pytest.approx(1.0) or quality.blockiness(region) == 0.0
    assert quality.resolution(region) == 0.0
    assert quality.smoothing(region) == pytest.approx(1.0, abs=1e-3)
    assert quality.hatching(region) == pytest.approx(0.0, abs=1e-3)
    light, clipped = quality.exposure(region)
    assert light == pytest.approx(level, abs=1) and clipped == (level <= 5 or level >= 250)
