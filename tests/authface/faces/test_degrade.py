"""Degradation: the published ranges, the same result for the same seed, and what each part does to real faces."""

import math
import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from authface.errors import UsageError
from authface.faces.degrade import PRESETS, Degradation, apply, degrade, draw, gaussian_kernel, mixture, preset

NOTHING = Degradation(blur=(1e-3, 1e-3), downsample=(1, 1), noise=(0, 0), jpeg=(100, 100))


def face(side: int) -> NDArray[np.uint8]:
    """A square crop of a real portrait."""
    crop = skimage.data.astronaut()[0:256, 96:352]
    return np.asarray(cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Of 8-bit images, dB."""
    error = float(np.mean((a.astype(float) - b.astype(float)) ** 2))
    return 10 * math.log10(255**2 / max(error, 1e-12))


def test_the_published_ranges() -> None:
    """research of GFP-GAN v1, BFRffusion and CodeFormer: kernel, sigma, scale, noise, JPEG."""
    gfpgan = PRESETS["gfpgan"]
    assert isinstance(gfpgan, Degradation)
    assert (gfpgan.kernel, gfpgan.blur, gfpgan.downsample) == (41, (0.1, 10.0), (0.8, 8.0))
    assert (gfpgan.noise, gfpgan.jpeg, gfpgan.isotropic) == ((0.0, 20.0), (60.0, 100.0), 0.5)
    assert PRESETS["bfrffusion"] == gfpgan
    assert (gfpgan.shift, gfpgan.grey, gfpgan.jitter) == (0, 0, 0)
    large = PRESETS["codeformer_large"]
    assert isinstance(large, Degradation)
    assert (large.blur, large.downsample, large.noise, large.jpeg) == ((1, 15), (4, 30), (0, 20), (30, 80))


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(sorted(PRESETS)),
    side=st.sampled_from([8, 33, 64, 128]),
    seed=st.one_of(st.integers(0, 2**40), st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))),
)
def test_same_seed_same_face(name: str, side: int, seed: int | tuple[int, ...]) -> None:
    """Shape and type stay; the same seed gives the same bytes; the input is not written to."""
    clean = face(side)
    before = clean.copy()
    once, again = degrade(clean, seed, PRESETS[name]), degrade(clean, seed, PRESETS[name])
    assert once.shape == clean.shape and once.dtype == np.uint8
    assert np.array_equal(once, again)
    assert np.array_equal(clean, before)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_drawing_and_applying_are_degrading(name: str) -> None:
    """What is drawn knows no pixel, is the same each time, and does the same to a face however often it is applied."""
    clean, drawn = face(64), draw((7, 1), 64, PRESETS[name])
    expected = degrade(clean, (7, 1), PRESETS[name])
    assert pickle.dumps(draw((7, 1), 64, PRESETS[name])) == pickle.dumps(drawn)
    apply(face(64)[::-1], drawn)
    assert np.array_equal(apply(clean, drawn), expected) and np.array_equal(apply(clean, drawn), expected)


def test_each_sample_and_epoch_has_its_own() -> None:
    """(run, epoch, sample): a change of any number changes the result."""
    clean = face(64)
    results = {
        degrade(clean, seed, PRESETS["gfpgan"]).tobytes() for seed in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
    }
    assert len(results) == 4


def test_stronger_presets_lose_more() -> None:
    """Mild, medium and heavy in this order, over several seeds."""
    clean = face(256)
    loss = {name: np.mean([psnr(clean, degrade(clean, s, PRESETS[name])) for s in range(5)]) for name in PRESETS}
    assert loss["mild"] > loss["medium"] > loss["heavy"]
    assert loss["gfpgan"] > loss["codeformer_large"]


def test_nothing_is_nearly_nothing() -> None:
    """Ranges of no effect leave a 512 px face but for JPEG at quality 100."""
    clean = face(512)
    assert psnr(clean, degrade(clean, 0, NOTHING)) > 40


def test_noise_has_the_asked_deviation() -> None:
    """On a flat image, with the rest off, the deviation is sigma (JPEG at 100 and the clip take little)."""
    flat = np.full((512, 512, 3), 128, np.uint8)
    noisy = degrade(flat, 0, replace(NOTHING, noise=(12, 12))).astype(float) - 128
    luma = noisy @ np.array([0.299, 0.587, 0.114])  # JPEG keeps luma, and halves the chroma's resolution
    assert luma.std() == pytest.approx(12 * math.sqrt(0.299**2 + 0.587**2 + 0.114**2), rel=0.05)


def test_blur_is_scaled_to_the_image() -> None:
    """The same photo at 256 px, blurred, is the blurred 512 px photo made smaller."""
    blurred = replace(NOTHING, blur=(6, 6), isotropic=1)
    small = cv2.resize(degrade(face(512), 0, blurred), (256, 256), interpolation=cv2.INTER_AREA)
    assert psnr(np.asarray(small, np.uint8), degrade(face(256), 0, blurred)) > 38


def test_grey_and_colour_ops_only_when_asked() -> None:
    """A certain grey makes the channels equal; without colour operations the mean colour stays."""
    clean = face(128)
    grey = degrade(clean, 3, replace(NOTHING, grey=1))
    assert np.array_equal(grey[..., 0], grey[..., 1]) and np.array_equal(grey[..., 1], grey[..., 2])
    for seed in range(5):
        drift = np.abs(degrade(clean, seed, PRESETS["gfpgan"]).mean((0, 1)) - clean.mean((0, 1)))
        assert drift.max() < 3
    shifted = [
        degrade(clean, s, replace(NOTHING, shift=1, jitter=1)).mean((0, 1)) - clean.mean((0, 1)) for s in range(5)
    ]
    assert np.abs(shifted).max() > 10


@given(
    st.integers(1, 30).map(lambda n: 2 * n + 1), st.floats(0.05, 15), st.floats(0.05, 15), st.floats(-math.pi, math.pi)
)
def test_kernels_have_unit_sum_and_symmetry(size: int, sigma_x: float, sigma_y: float, angle: float) -> None:
    """A Gaussian is symmetric about its centre and sums to one at every angle."""
    kernel = gaussian_kernel(size, sigma_x, sigma_y, angle)
    assert kernel.shape == (size, size)
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-4)
    assert np.allclose(kernel, kernel[::-1, ::-1], atol=1e-6)


def test_kernel_has_the_asked_moments() -> None:
    """Second moments along the turned axes are the two variances."""
    kernel = gaussian_kernel(81, 3.0, 7.0, 0.5).astype(float)
    steps = np.arange(81) - 40.0
    x, y = np.meshgrid(steps, steps)
    along, across = x * math.cos(0.5) + y * math.sin(0.5), y * math.cos(0.5) - x * math.sin(0.5)
    assert math.sqrt((kernel * along**2).sum()) == pytest.approx(3, rel=0.01)
    assert math.sqrt((kernel * across**2).sum()) == pytest.approx(7, rel=0.01)


def test_what_cannot_be_degraded() -> None:
    """One line for a wrong name and for images that are not square RGB."""
    with pytest.raises(UsageError, match="gfpgan"):
        preset("gfgan")
    for shape in [(64, 32, 3), (64, 64), (4, 4, 3), (64, 64, 4)]:
        with pytest.raises(UsageError, match="square RGB"):
            degrade(np.zeros(shape, np.uint8), 0, PRESETS["mild"])


@settings(max_examples=20, deadline=None)
@given(name=st.sampled_from(sorted(PRESETS)), seed=st.integers(0, 2**40))
def test_a_mixture_of_one_is_that_one(name: str, seed: int) -> None:
    """Choosing takes nothing of the random numbers that the damage itself draws."""
    assert np.array_equal(degrade(face(32), seed, mixture(name)), degrade(face(32), seed, PRESETS[name]))
    assert mixture(name) == mixture({name: 1})


def test_a_mixture_keeps_its_shares() -> None:
    """Over 2,000 seeds each part comes as often as its share says, within four standard deviations, in any order."""
    shares = {"heavy": 6.0, "nearly_clean": 3.0, "mild": 1.0}
    drawn = [mixture(shares).draw((7, 0, n, 0)) for n in range(2000)]
    for name, share in shares.items():
        expected = share / 10
        spread = 4 * math.sqrt(expected * (1 - expected) / len(drawn))
        assert drawn.count(PRESETS[name]) / len(drawn) == pytest.approx(expected, abs=spread), name
    again = mixture(dict(reversed(shares.items())))
    assert [again.draw((7, 0, n, 0)) for n in range(2000)] == drawn
    clean = face(32)
    for n in range(20):
        assert np.array_equal(degrade(clean, (7, 0, n, 0), again), degrade(clean, (7, 0, n, 0), drawn[n]))


@given(st.dictionaries(st.sampled_from(sorted(PRESETS)), st.floats(1e-6, 1e6), min_size=1), st.integers(0, 2**70))
def test_a_mixture_draws_what_it_names(shares: dict[str, float], seed: int) -> None:
    """One of its parts for every seed, and the same one for the same shares at another scale."""
    drawn = mixture(shares).draw(seed)
    assert drawn in [PRESETS[name] for name in shares]
    assert mixture({name: share * 4 for name, share in shares.items()}).draw(seed) == drawn


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("rain", "no degradation 'rain': there are gfpgan"),
        ({}, "of no degradations"),
        ({"mild": 1.0, "rain": 1.0}, "no degradation 'rain'"),
        ({"mild": 1.0, "heavy": -0.5}, "heavy is -0.5"),
        ({"mild": 0.0}, "mild is 0.0"),
        ({"mild": math.nan}, "mild is nan"),
        ({"mild": math.inf}, "mild is inf"),
    ],
)
def test_what_is_no_mixture(spec: str | dict[str, float], said: str) -> None:
    """Each in one line."""
    with pytest.raises(UsageError, match=said) as caught:
        mixture(spec)
    assert "\n" not in str(caught.value)


def test_noise_that_is_not_resampled_stays_white() -> None:
    """Neighbouring pixels of `noise_jpeg` at the best quality share no noise; those of `heavy` do."""
    flat = np.full((256, 256, 3), 128, np.uint8)

    def correlation(damage: Degradation) -> float:
        noise = degrade(flat, 3, damage)[..., 1].astype(float) - 128
        return float(np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1])

    white = replace(PRESETS["noise_jpeg"], noise=(20, 20), jpeg=(100, 100))
    softened = replace(PRESETS["heavy"], noise=(20, 20), jpeg=(100, 100))
    assert abs(correlation(white)) < 0.1 and correlation(softened) > 0.3


def test_a_good_photo_stays_nearly_whole() -> None:
    """`nearly_clean` costs a face little: the weakest damage of all presets."""
    clean = face(256)
    loss = {name: np.mean([psnr(clean, degrade(clean, s, PRESETS[name])) for s in range(5)]) for name in PRESETS}
    assert loss["nearly_clean"] > 34 and max(loss, key=lambda name: float(loss[name])) == "nearly_clean"
