"""Measures of a face order what they should order, at any size of the photo; PIQE equals pyiqa's on real regions."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from authface.curate.fetch.sources import make_source
from authface.curate.fetch.sources.folder import Samples
from authface.curate.filter.measures.quality import EYE_DISTANCE, REGION, face_region, noise, piqe, sharpness
from authface.curate.settings import FetchSettings
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
