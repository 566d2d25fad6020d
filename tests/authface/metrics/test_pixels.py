"""PSNR and SSIM against another implementation, on the same pixels."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from authface.faces.degrade import PRESETS, degrade
from authface.metrics.quality import psnr, psnr_y, ssim, ssim_y

Rgb = NDArray[np.uint8]


@pytest.fixture(scope="module")
def portrait() -> Rgb:
    """(128, 128, 3): the astronaut's face."""
    return cv2.resize(data.astronaut()[20:276, 90:346], (128, 128), interpolation=cv2.INTER_AREA).astype(np.uint8)


@pytest.fixture(scope="module", params=["mild", "heavy", "noise"])
def two(request: pytest.FixtureRequest, portrait: Rgb) -> tuple[Rgb, Rgb]:
    """An output and its truth."""
    if request.param == "noise":
        return np.random.default_rng(1).integers(0, 256, portrait.shape, np.uint8), portrait
    return degrade(portrait, 5, PRESETS[request.param]), portrait


def tensor(rgb: Rgb) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))[None].float() / 255


def test_psnr_and_ssim_are_skimages(two: tuple[Rgb, Rgb]) -> None:
    output, truth = two
    assert psnr(output, truth) == pytest.approx(peak_signal_noise_ratio(truth, output, data_range=255), abs=1e-9)
    luma = [rgb2ycbcr(rgb)[..., 0] for rgb in (truth, output)]
    assert psnr_y(output, truth) == pytest.approx(peak_signal_noise_ratio(*luma, data_range=255), abs=1e-9)
    theirs = structural_similarity(
        truth / 255.0, output / 255.0, channel_axis=2, data_range=1
    )  # as the authors call it
    assert ssim(output, truth) == pytest.approx(theirs, abs=1e-9)


def test_ssim_of_luma_is_pyiqas(two: tuple[Rgb, Rgb]) -> None:
    import pyiqa

    output, truth = two
    theirs = pyiqa.create_metric("ssim", device="cpu")(tensor(output), tensor(truth)).item()
    assert ssim_y(output, truth) == pytest.approx(theirs, abs=1e-6)


def test_identical_images_have_the_best_finite_value(portrait: Rgb) -> None:
    nearly = portrait.copy()
    nearly[3, 4, 2] += 1
    assert psnr(nearly, portrait) == psnr(portrait, portrait)
    assert psnr_y(nearly, portrait) == pytest.approx(psnr_y(portrait, portrait))
    assert psnr(portrait, portrait) == pytest.approx(10 * np.log10(255**2 * portrait.size))
    assert ssim(portrait, portrait) == ssim_y(portrait, portrait) == 1
