"""Measures of a face order what they should order, at any size of the photo."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from authface.curate.fetch.sources import Samples
from authface.curate.filter.measures.quality import EYE_DISTANCE, REGION, face_region, noise, sharpness
from authface.faces.detector import RetinaFace
from authface.imaging import decode as images

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
