"""PSNR and SSIM against another implementation, on the same pixels.

The Fréchet distance against its closed forms, and moments against numpy's.
The wrapper of pyiqa: what it keeps from being fetched, and what it says of a metric that cannot be loaded.
"""

from __future__ import annotations

import sys
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from skimage import data
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from authface.errors import AuthfaceError
from authface.faces.degrade import PRESETS, degrade
from authface.metrics.quality import Moments, QualityMetric, frechet_distance, loading, psnr, psnr_y, ssim, ssim_y

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


def test_moments_are_numpys_however_they_come() -> None:
    vectors = np.random.default_rng(0).normal(3, 2, (101, 5)).astype(np.float32)
    moments = Moments(5)
    for part in (vectors[:1], vectors[1:1], vectors[1:60], vectors[60:]):
        moments.add(part)
    assert moments.count == 101
    assert np.allclose(moments.mean, vectors.astype(float).mean(axis=0), atol=1e-12)
    assert np.allclose(moments.covariance, np.cov(vectors.astype(float), rowvar=False), atol=1e-12)


def test_the_frechet_distance_has_its_closed_form() -> None:
    """Of Gaussians with one set of axes it is |m1 - m2|^2 + sum (s1 - s2)^2, s the deviations along them."""
    random = np.random.default_rng(2)
    axes = np.linalg.qr(random.normal(size=(7, 7)))[0]
    s1, s2 = random.uniform(0.1, 3, 7), random.uniform(0.1, 3, 7)
    m1, m2 = random.normal(size=7), random.normal(size=7)
    first, second = ((m, (axes * s**2) @ axes.T) for m, s in ((m1, s1), (m2, s2)))
    expected = ((m1 - m2) ** 2).sum() + ((s1 - s2) ** 2).sum()
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)


def test_the_frechet_distance_of_any_gaussians_is_that_of_the_matrix_root() -> None:
    random = np.random.default_rng(3)
    features = [random.normal(size=(60, 12)) @ random.normal(size=(12, 12)) + n for n in range(2)]
    (m1, c1), (m2, c2) = [(f.mean(axis=0), np.cov(f, rowvar=False)) for f in features]
    expected = ((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real)
    assert frechet_distance((m1, c1), (m2, c2)) == pytest.approx(expected, rel=1e-9)
    few = Moments(12)
    few.add(features[0][:4])
    value = frechet_distance((few.mean, few.covariance), (m2, c2))
    assert np.isfinite(value) and value > 0, "of fewer images than features the covariance is singular"


def test_maniqa_alone_is_made_without_fetching_its_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyiqa
    import timm
    import torch

    made: list[bool] = []
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: made.append(pretrained))
    monkeypatch.setattr(pyiqa, "create_metric", lambda *_, **__: timm.create_model("vit", pretrained=True))
    before = timm.create_model
    for name in ("maniqa", "topiq_nr"):
        QualityMetric(name, torch.device("cpu"))
    assert made == [False, True] and timm.create_model is before


def test_what_cannot_be_loaded_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    failure = r"^musiq cannot be loaded \(OSError: no\\nroute\): copy it$"
    with pytest.raises(AuthfaceError, match=failure), loading("musiq cannot be loaded", "copy it"):
        sys.stdout.write("noise of a library")
        raise OSError("no\nroute")
    assert capsys.readouterr() == ("", "")
