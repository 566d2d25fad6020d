"""Noise of known strength and coarseness is measured as such, and made again; photos without it have none."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from authface.imaging.grain import REACH, field, measure

CLEAN = cv2.GaussianBlur(data.astronaut(), (0, 0), 2) * 0.8 + 25
ALL = np.ones(CLEAN.shape[:2], np.bool_)


def noise(sigma: float, coarse: float, shape: tuple[int, ...] = CLEAN.shape, seed: int = 0) -> NDArray[np.float64]:
    made = np.random.default_rng(seed).standard_normal(shape)
    made = cv2.GaussianBlur(made, (0, 0), coarse) if coarse else made
    return np.asarray(made * sigma / made.std())


def lag(values: NDArray[np.floating], step: int) -> float:
    return float((values[:, step:] * values[:, :-step]).mean() / (values**2).mean())


def pixels(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("coarse", [0, 0.7, 1.2, 1.8])
@pytest.mark.parametrize("sigma", [3, 8, 20])
def test_known_noise_is_measured_and_made_again(sigma: float, coarse: float) -> None:
    found = measure(pixels(CLEAN + noise(sigma, coarse)), ALL)
    assert found is not None
    again = field(found.spectrum(), found.axes, 300, 400, 1)
    assert again.std(axis=(0, 1)) == pytest.approx(sigma, rel=0.1)
    truth = noise(sigma, coarse, (600, 600), 5)
    for step in (1, 2, 4):
        assert lag(again[..., 0], step) == pytest.approx(lag(truth, step), abs=0.1 if step < 4 else 0.15)


def test_colours_of_noise_are_kept() -> None:
    grey = noise(9, 0.7, CLEAN.shape[:2])[..., None] * [1, 1, 1]
    blue = noise(6, 1.2, CLEAN.shape[:2], 1)[..., None] * [0, 0.2, 1]
    found = measure(pixels(CLEAN + grey + blue), ALL)
    assert found is not None
    again = field(found.spectrum(), found.axes, 256, 256, 2).reshape(-1, 3)
    np.testing.assert_allclose(np.cov(again.T), np.cov((grey + blue).reshape(-1, 3).T), atol=12)


def test_a_clean_photo_has_none_and_16_bits_are_read_alike() -> None:
    for clean in (CLEAN, np.full(CLEAN.shape, 90.0), CLEAN + noise(0.3, 0)):
        found = measure(pixels(clean), ALL)
        assert found is not None and found.level == 0
    noisy = pixels(CLEAN + noise(8, 0))
    wide = measure(noisy.astype(np.uint16) * np.uint16(257), ALL)
    narrow = measure(noisy, ALL)
    assert wide is not None and narrow is not None and wide.level == pytest.approx(narrow.level)


def test_only_usable_pixels_count_and_too_few_say_nothing() -> None:
    noisy = CLEAN + noise(5, 0)
    noisy[:256] += noise(30, 0)[:256]
    lower = ALL.copy()
    lower[:256] = False
    found = measure(pixels(noisy), lower)
    assert found is not None and found.covariance[:, REACH, REACH].mean() ** 0.5 == pytest.approx(5, rel=0.15)
    assert measure(pixels(noisy), np.zeros_like(ALL)) is None
    assert measure(pixels(noisy)[:10, :10], ALL[:10, :10]) is None


def test_the_field_is_the_seed_s_and_has_any_size() -> None:
    found = measure(pixels(CLEAN + noise(5, 0)), ALL)
    assert found is not None
    made = [field(found.spectrum(), found.axes, height, 700, seed) for height, seed in ((300, 1), (300, 1), (300, 2))]
    np.testing.assert_array_equal(made[0], made[1])
    assert made[0].shape == (300, 700, 3) and (made[0] != made[2]).any()
