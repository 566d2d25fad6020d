"""Measures of a face order what they should order, at any size of the photo; PIQE equals pyiqa's on real regions.

Each measure of an artefact rises with it, and says so in its unit.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authface.curate.fetch.sources import make_source
from authface.curate.fetch.sources.folder import Samples
from authface.curate.filter.measures import quality
from authface.curate.filter.measures.quality import (
    EYE_DISTANCE,
    REGION,
    FaceRegion,
    face_region,
    noise,
    piqe,
    sharpness,
)
from authface.curate.settings import FetchSettings, FilterSettings
from authface.faces.detector import RetinaFace
from authface.imaging import decode as images
from authface.imaging.decode import read
from authface.store.photoset import PhotoSet

Rgb = np.ndarray


@pytest.fixture(scope="module")
def faces() -> list[tuple[Rgb, tuple[float, ...]]]:
    """The two sample portraits with RetinaFace's five points."""
    portraits = [images.read(Path(item.path)).rgb for item in Samples().items()][:2]
    detector = RetinaFace()
    return [(rgb, detector.detect(rgb)[0].points5) for rgb in portraits]


def resized(rgb: Rgb, points: tuple[float, ...], factor: float) -> tuple[Rgb, tuple[float, ...]]:
    flag = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    scaled = (np.array(points) + 0.5) * factor - 0.5
    return cv2.resize(rgb, None, fx=factor, fy=factor, interpolation=flag), tuple(scaled)


def test_the_region_has_level_eyes_at_one_distance(faces: list) -> None:
    detector = RetinaFace(0.5)
    for rgb, points in faces:
        for factor in (1.0, 2.5):
            region = face_region(*resized(rgb, points, factor))
            assert region.rgb.shape == (REGION, REGION, 3)
            left, right = np.reshape(detector.detect(region.rgb)[0].points5, (5, 2))[:2]
            assert np.hypot(*(right - left)) == pytest.approx(EYE_DISTANCE, rel=0.08)
            assert abs(right[1] - left[1]) < 4


@pytest.mark.parametrize("factor", [1.0, 2.0, 4.0])
def test_blur_lowers_sharpness_step_by_step_at_every_size(faces: list, factor: float) -> None:
    for rgb, points in faces:
        large, where = resized(rgb, points, factor)
        scale = face_region(large, where).scale
        values = [
            sharpness(face_region(cv2.GaussianBlur(large, (0, 0), s / scale), where)) for s in (0.4, 0.9, 1.6, 3.0)
        ]
        assert values == sorted(values, reverse=True)
        assert values[0] > 1.5 * values[-1]


def test_noise_is_measured_in_grey_levels(faces: list) -> None:
    rng = np.random.default_rng(3)
    for rgb, points in faces:
        soft = cv2.GaussianBlur(rgb, (0, 0), 1.5).astype(float)
        for sigma in (3.0, 6.0, 12.0):
            noisy = np.clip(soft + rng.normal(0, sigma, rgb.shape[:2])[..., None], 0, 255).astype(np.uint8)
            assert noise(face_region(noisy, points)) == pytest.approx(sigma, rel=0.25)
        assert noise(face_region(soft.astype(np.uint8), points)) < 1


def test_a_face_at_the_very_border_is_measured(faces: list) -> None:
    rgb, points = faces[0]
    x, y = int(points[0]), int(points[1])
    moved = tuple(np.array(points) - np.tile([x, y], 5))
    region = face_region(rgb[y:, x:], moved)
    assert np.isfinite(sharpness(region))
    assert np.isfinite(noise(region))


def reference(rgb: np.ndarray, double: bool) -> float:
    import torch
    from pyiqa.archs.piqe_arch import piqe as theirs

    picture = torch.from_numpy(rgb.transpose(2, 0, 1).copy())[None]
    return float(theirs((picture.double() if double else picture.float()) / 255)[0])


@pytest.fixture(scope="module")
def regions() -> list[np.ndarray]:
    """Face regions in colour: as they are, blurred, noisy, as JPEG, cut to odd sizes."""
    source = make_source(FetchSettings(source="samples"), PhotoSet(Path("unused")))
    portraits = [read(Path(item.path)).rgb for item in source.items()][:2]
    clean = [face_region(rgb, RetinaFace().detect(rgb)[0].points5).rgb for rgb in portraits]
    rng = np.random.default_rng(5)
    found = []
    for rgb in clean:
        noise = rgb + rng.normal(0, 12, rgb.shape[:2])[..., None]
        jpeg = cv2.imdecode(cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, 20])[1], 1)
        blurred = [cv2.GaussianBlur(rgb, (0, 0), sigma) for sigma in (0.7, 1.5, 3)]
        found += [rgb, *blurred, np.clip(noise, 0, 255).astype(np.uint8), jpeg, rgb[:131, :200], rgb[5:, 3:]]
    for rgb in found:
        rgb[0, 0] = 255  # white: luma is then scaled by 1, and no level lies halfway between two
    return found


def test_it_equals_the_reference_on_luma(regions: list[np.ndarray]) -> None:
    for rgb in regions:
        luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        ours, theirs = piqe(luma), reference(np.repeat(luma[..., None], 3, axis=2), double=True)
        assert ours == pytest.approx(theirs, abs=0.1)  # 1e-3 of the range of 100


def test_in_single_precision_the_reference_is_off_by_a_block_at_most(regions: list[np.ndarray]) -> None:
    """Its variances lose digits: 7 % of 410 real faces differ from its own answer in double precision."""
    away = [abs(piqe(rgb) - reference(rgb, double=False)) for rgb in regions]
    assert np.median(away) < 0.01 and max(away) < 2.5


def test_a_picture_without_structure_is_the_worst() -> None:
    for level in (0, 128, 255):
        assert piqe(np.full((64, 64, 3), level, np.uint8)) == 100.0
    rng = np.random.default_rng(2)
    assert 0 <= piqe(rng.integers(0, 256, (96, 80), np.uint8)) <= 100


Face = tuple[np.ndarray, tuple[float, ...]]


@pytest.fixture(scope="module")
def portraits() -> list[Face]:
    source = make_source(FetchSettings(source="samples"), PhotoSet(Path("unused")))
    photos = [read(Path(item.path)).rgb for item in source.items()][:2]
    return [(rgb, RetinaFace().detect(rgb)[0].points5) for rgb in photos]


def rising(values: list[float]) -> bool:
    return all(a < b for a, b in zip(values, values[1:], strict=False))


def flat(native: np.ndarray, luma: np.ndarray | None = None) -> FaceRegion:
    """A region without a photo."""
    luma = np.full((256, 256), 128, np.uint8) if luma is None else luma
    return FaceRegion(luma, 1.0, native.astype(np.float32), np.zeros((1, 1, 3), np.uint8), np.eye(2, 3))


def test_pepper_counts_the_share_of_single_pixels(portraits: list[Face]) -> None:
    rng = np.random.default_rng(3)
    for rgb, points in portraits:
        assert quality.pepper(face_region(rgb, points)) < 0.001
        for share in (0.003, 0.01, 0.03):
            drawn, spoilt = rng.random(rgb.shape[:2]), rgb.copy()
            spoilt[drawn < share / 2], spoilt[drawn > 1 - share / 2] = 0, 255
            assert quality.pepper(face_region(spoilt, points)) == pytest.approx(share, rel=0.35)


@pytest.mark.parametrize("shift", [(0, 0), (3, 5), (7, 1)])
def test_blocks_are_found_wherever_the_grid_begins(portraits: list[Face], shift: tuple[int, int]) -> None:
    for rgb, points in portraits:
        x, y = shift
        values = [quality.blockiness(face_region(rgb, points))]
        for level in (40, 15, 5):
            seen = cv2.imdecode(cv2.imencode(".jpg", rgb[y:, x:], [cv2.IMWRITE_JPEG_QUALITY, level])[1], 1)
            values.append(quality.blockiness(face_region(seen, tuple(np.array(points) - [x, y] * 5))))
        assert rising(values) and values[0] < 1.4 and values[-1] > 2


def test_resolution_falls_to_what_enlarging_leaves(portraits: list[Face]) -> None:
    for rgb, points in portraits:
        height, width = rgb.shape[:2]
        values = []
        for factor in (1, 2, 4):
            small = cv2.resize(rgb, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
            back = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
            values.append(quality.resolution(face_region(rgb if factor == 1 else back, points)))
        assert rising(values[::-1]) and values[1] < 0.65 and values[2] < 0.4


def test_smoothing_rises_with_the_filter_though_eyes_are_kept(portraits: list[Face]) -> None:
    for rgb, points in portraits:
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
def test_engravings_and_halftones_are_hatched_and_their_photos_are_not(portraits: list[Face], eyes: float) -> None:
    limit = FilterSettings().max_hatching
    for rgb, points in portraits:
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


def test_noise_that_may_stay_is_no_hatching(portraits: list[Face]) -> None:
    settings = FilterSettings()
    for rgb, points in portraits:
        drawn = np.random.default_rng(5).normal(0, settings.max_noise, rgb.shape[:2])[..., None]
        grainy = np.clip(rgb + drawn, 0, 255).round().astype(np.uint8)
        region = face_region(grainy, points)
        assert noise(region) > settings.max_noise
        assert quality.hatching(region) < min(settings.max_hatching, quality.hatching(face_region(rgb, points)) + 0.4)


def test_light_is_measured_on_the_face_and_clipping_at_both_ends(portraits: list[Face]) -> None:
    for rgb, points in portraits:
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
