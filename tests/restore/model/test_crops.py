"""The colour fixes against their definitions, computed another way.

Colours by CIELAB and CIEDE2000, beside the published pairs and scikit-image's.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from skimage import data
from skimage.color import deltaE_ciede2000, rgb2lab

from authface.imaging.png import is_grey
from authface.restore.model import crops
from authface.restore.model.crops import ciede2000, lab_of_srgb


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return data.astronaut()[:256, 96:352].copy()


def decompose(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of the five wavelet details and the last approximation, as the transform is defined: level by level."""
    row = torch.tensor([1.0, 2.0, 1.0])
    kernel = (torch.outer(row, row) / 16).expand(3, 1, 3, 3)
    details = torch.zeros_like(image)
    for level in range(5):
        radius = 2**level
        padded = torch.nn.functional.pad(image, (radius,) * 4, mode="replicate")
        blurred = torch.nn.functional.conv2d(padded, kernel, groups=3, dilation=radius)
        details += image - blurred
        image = blurred
    return details, image


def as_tensor(rgb: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(rgb.astype(np.float32)).permute(2, 0, 1)[None]


def test_the_wavelet_fix_is_the_details_of_one_on_the_approximation_of_the_other(portrait: np.ndarray) -> None:
    restored = np.clip(portrait.astype(int)[:, ::-1] * 0.7 + (60, 10, 0), 0, 255).astype(np.uint8)
    details, _ = decompose(as_tensor(restored))
    _, approximation = decompose(as_tensor(portrait))
    expected = (details + approximation)[0].permute(1, 2, 0).clamp(0, 255).numpy()
    assert np.abs(crops.wavelet_fix(restored, portrait) - expected).max() <= 0.5 + 1e-3


def test_the_low_pass_has_the_published_reach_and_width() -> None:
    impulse = np.zeros((129, 129, 3), np.float32)
    impulse[64, 64] = 1
    response = crops.low_pass(impulse)[..., 0]
    axis = np.arange(129) - 64
    reached = np.flatnonzero(response.sum(axis=0) > 1e-9) - 64
    assert (reached.min(), reached.max()) == (-31, 31)
    assert np.sqrt((response.sum(axis=0) * axis**2).sum()) == pytest.approx(np.sqrt(0.5 * 341), abs=1e-3)


@settings(max_examples=30, deadline=None)
@given(arrays.arrays(np.uint8, st.tuples(st.integers(2, 70), st.integers(2, 70), st.just(3))))
def test_an_unchanged_crop_stays_as_it_is(crop: np.ndarray) -> None:
    for fix in crops.FIXES.values():
        np.testing.assert_array_equal(fix(crop, crop), crop)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_grey_stays_grey(seed: int) -> None:
    levels = np.random.default_rng(seed).integers(0, 256, (2, 40, 56, 1), dtype=np.uint8)
    restored, source = np.repeat(levels, 3, axis=3)
    for fix in crops.FIXES.values():
        assert is_grey(fix(restored, source))


def test_a_cast_is_taken_back(portrait: np.ndarray) -> None:
    cast = np.clip(portrait.astype(int) + (25, -15, 10), 0, 255).astype(np.uint8)
    inner = np.s_[32:-32, 32:-32]
    before = np.abs(cast[inner].mean((0, 1)) - portrait[inner].mean((0, 1))).max()
    for fix in (crops.wavelet_fix, crops.adain_fix):
        after = np.abs(fix(cast, portrait)[inner].mean((0, 1)) - portrait[inner].mean((0, 1))).max()
        assert after < before / 10


def test_adain_takes_mean_and_deviation_of_the_source(portrait: np.ndarray) -> None:
    restored = (portrait[::-1] * 0.4 + 70).astype(np.uint8)
    source = (portrait * 0.5 + 50).astype(np.uint8)
    fixed = crops.adain_fix(restored, source).astype(float)
    np.testing.assert_allclose(fixed.mean((0, 1)), source.mean((0, 1)), atol=0.25)
    np.testing.assert_allclose(fixed.std((0, 1)), source.std((0, 1)), atol=0.25)


def test_grey_is_the_luma_that_pillow_uses(portrait: np.ndarray) -> None:
    from PIL import Image

    grey = crops.to_grey(portrait)
    assert is_grey(grey) and not is_grey(portrait)
    assert np.abs(grey[..., 0].astype(int) - np.asarray(Image.fromarray(portrait).convert("L"))).max() <= 1


PAIRS = (
    ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
    ((50, 0, 0), (50, -1, 2), 2.3669),
    ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
    ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
)
"""Of table 1 of Sharma, Wu and Dalal 2005, with hues on both sides of 0 and of 180 degrees, greys and blues."""


@pytest.mark.parametrize(("first", "second", "difference"), PAIRS)
def test_ciede2000_is_the_published_one(first: tuple[float], second: tuple[float], difference: float) -> None:
    assert ciede2000(np.array(first), np.array(second)) == pytest.approx(difference, abs=5e-5)
    assert ciede2000(np.array(second), np.array(first)) == pytest.approx(difference, abs=5e-5)
    assert ciede2000(np.array(first), np.array(first)) == 0


def test_both_are_scikit_images_on_any_colour() -> None:
    random = np.random.default_rng(0)
    old, new = (random.integers(0, 256, (200, 100, 3)) / 255 for _ in range(2))
    new[:50] = old[:50, :, :1]  # greys
    old[:5] = 0
    labs = rgb2lab(old), rgb2lab(new)
    assert np.abs(lab_of_srgb(old) - labs[0]).max() < 1e-3
    assert np.abs(ciede2000(*labs) - deltaE_ciede2000(*labs)).max() < 1e-9
    assert lab_of_srgb(old.astype(np.float32)).dtype == np.float32
