"""Every figure against another implementation of it, on the same pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from scipy.stats import wilcoxon
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from authface.errors import ImageError, UsageError
from authface.evaluate.catalogue import METRICS, choose
from authface.evaluate.faces import FaceGauge, landmark_error
from authface.evaluate.pixels import psnr, psnr_y, ssim, ssim_y
from authface.evaluate.statistics import bootstrap_means, difference, mean_of
from authface.faces.degrade import PRESETS, degrade
from authface.metrics.frechet import Moments, frechet_distance

Rgb = NDArray[np.uint8]


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


def test_a_face_moved_and_a_face_blurred(portrait: Rgb) -> None:
    gauge = FaceGauge(0.5)
    found = gauge.find("truth", portrait)
    assert gauge.landmarks(portrait, found) == (0, 0)
    assert gauge.identity(portrait, portrait, "truth", found) == pytest.approx(1, abs=1e-6)
    percent, pixels = gauge.landmarks(np.roll(portrait, 4, axis=1), found)
    assert 1.5 < pixels < 6, "all features are 4 px away; the box of the truth stays where it was"
    eyes = np.linalg.norm(found.points[45] - found.points[36])
    assert percent == pytest.approx(100 * pixels / eyes)
    mild, heavy = (
        gauge.identity(degrade(portrait, 5, PRESETS[name]), portrait, "truth", found) for name in ("mild", "heavy")
    )
    assert 0.8 < heavy < mild < 1
    assert gauge.identity(degrade(portrait, 5, PRESETS["heavy"]), portrait, "not asked yet", found) == heavy
    assert gauge.landmarks(np.full_like(portrait, 127), found)[0] > 5, "no face is looked for in an output"


def test_no_face_is_said_and_the_last_references_are_remembered(portrait: Rgb) -> None:
    gauge = FaceGauge(0.5)
    with pytest.raises(ImageError, match="no face"):
        gauge.find("grey", np.full_like(portrait, 128))
    first = gauge.find("0", portrait)
    assert gauge.find("0", portrait) is first
    for number in range(1, 20):
        gauge.find(str(number), portrait)
    assert len(gauge._found) == 8 and gauge.find("0", portrait) is not first


def test_the_landmark_error_is_300ws() -> None:
    truth = np.zeros((68, 2))
    truth[45] = (40, 30)
    assert landmark_error(truth + [3, 4], truth) == (pytest.approx(10), pytest.approx(5))
    with pytest.raises(ImageError, match="one point"):
        landmark_error(truth, np.zeros((68, 2)))


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


def test_the_bootstrap_interval_covers_a_known_mean() -> None:
    """Of 300 samples of 40 from N(0, 1) the 95 % interval holds 0 in 93.5 % or so: percentile intervals are narrow."""
    random = np.random.default_rng(4)
    held = 0
    for seed in range(300):
        mean = mean_of(random.normal(size=40).tolist(), seed, 500)
        assert mean.low is not None and mean.high is not None and mean.low < mean.mean < mean.high
        held += mean.low <= 0 <= mean.high
    assert 0.89 <= held / 300 <= 0.98


def test_the_bootstrap_is_seeded_and_its_memory_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(5).normal(size=50)
    assert np.array_equal(bootstrap_means(values, 1, 300), bootstrap_means(values, 1, 300))
    assert not np.array_equal(bootstrap_means(values, 1, 300), bootstrap_means(values, 2, 300))
    monkeypatch.setattr("authface.evaluate.statistics._DRAWN", 120)
    assert len(bootstrap_means(values, 1, 301)) == 301
    one = mean_of([2.5], 0, 100)
    assert (one.count, one.mean, one.low, one.high) == (1, 2.5, None, None)


def test_a_difference_is_paired() -> None:
    random = np.random.default_rng(6)
    faces = random.normal(0, 10, 60)
    better = faces + 0.3 + random.normal(0, 0.1, 60)
    told = difference(("a", faces.tolist()), ("b", better.tolist()), "psnr", lower_better=False, seed=0, resamples=500)
    assert told.mean.low is not None and told.mean.low > 0.2, "30 times less than what the faces differ by"
    assert told.p == pytest.approx(wilcoxon(better - faces).pvalue) and told.p < 1e-9 and told.better > 0.98
    other = difference(("a", faces.tolist()), ("b", better.tolist()), "lpips", lower_better=True, seed=0, resamples=500)
    assert other.better == pytest.approx(1 - told.better) and other.mean == told.mean
    same = difference(("a", [1.0] * 9), ("b", [1.0] * 9), "psnr", lower_better=False, seed=0, resamples=100)
    assert same.p is None and same.better == 0.5 and same.mean.mean == 0


def test_metrics_are_chosen_by_what_is_given() -> None:
    def names(**given: bool) -> set[str]:
        return {metric.name for metric in choose([], **given)}

    alone = {"piqe", "musiq", "clipiqa", "maniqa", "fid_ffhq_basicsr", "fid_ffhq_clean"}
    assert names(truth=False, inputs=False) == alone
    assert names(truth=False, inputs=True) == alone | {"identity_input"}
    assert names(truth=True, inputs=True) == {metric.name for metric in METRICS} - {"identity_input"}
    assert [m.name for m in choose(["lpips", "psnr"], truth=True, inputs=False)] == ["psnr", "lpips"]
    with pytest.raises(UsageError, match="needs --truth"):
        choose(["psnr"], truth=False, inputs=False)
    with pytest.raises(UsageError, match="there are .*lpips"):
        choose(["lpip"], truth=True, inputs=False)
