"""Colours by CIELAB and CIEDE2000, beside the published pairs and scikit-image's."""

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from authface.restore.model.crops import ciede2000, lab_of_srgb

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
