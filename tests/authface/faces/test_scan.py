"""Scans of old photos: the same for the same seed, and each part alone does what it says, measured."""

import hashlib
import math
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from authface.faces.degrade import PRESETS, degrade
from authface.faces.scan import DrawnGrain, Scan, draw_scan, grained, screened

NOTHING = Scan(
    blur=(0, 0), shrink=(1, 1), grain=(0, 0), grain_size=(0, 0), halftone=0, descreen=(0, 0), specks=(0, 0),
    hairs=(0, 0), scratches=(0, 0), black=(0, 0), white=(1, 1), yellow=(0, 0), cast=(0, 0), uneven=(0, 0), sepia=0,
    grey=0, jpeg=(100, 100),
)  # fmt: skip


def face(side: int) -> NDArray[np.uint8]:
    """A square crop of a real portrait."""
    crop = skimage.data.astronaut()[0:256, 96:352]
    return np.asarray(cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def flat(level: int, side: int = 512) -> NDArray[np.uint8]:
    """One tone."""
    return np.full((side, side, 3), level, np.uint8)


def luminance(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """0..255, of (height, width, 3)."""
    return np.asarray(rgb.astype(float) @ np.array([0.299, 0.587, 0.114]))


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Of 8-bit images, dB."""
    return 10 * math.log10(255**2 / max(float(np.mean((a.astype(float) - b.astype(float)) ** 2)), 1e-12))


def digest() -> str:
    """Of several scans of a face and of their seeds."""
    made = [degrade(face(side), (side, seed), PRESETS["scan"]) for side in (64, 256) for seed in range(6)]
    return hashlib.sha256(b"".join(scan.tobytes() for scan in made)).hexdigest()


def test_another_process_makes_the_same_scans() -> None:
    """Nothing of a scan depends on the process that makes it."""
    here = str(Path(__file__).parent)
    code = f"import sys; sys.path.insert(0, {here!r}); import test_scan; print(test_scan.digest())"
    run = [sys.executable, "-c", code]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip() == digest()


def test_a_scan_is_damaged_and_the_face_still_there() -> None:
    """20 to 25 dB at 256 px for most seeds, and no two seeds alike."""
    clean = face(256)
    made = [degrade(clean, seed, PRESETS["scan"]) for seed in range(40)]
    low, middle, high = np.percentile([psnr(clean, scan) for scan in made], [20, 50, 80])
    assert low > 17 and 19 < middle < 25 and high < 28
    alike = [np.corrcoef(luminance(clean).ravel(), luminance(scan).ravel())[0, 1] for scan in made]
    assert min(alike) > 0.9
    assert len({scan.tobytes() for scan in made}) == 40


@pytest.mark.parametrize("side", [256, 512])
def test_nothing_is_nearly_nothing(side: int) -> None:
    """Ranges of no effect leave a face but for two JPEGs at quality 100."""
    assert psnr(face(side), degrade(face(side), 0, NOTHING)) > 38


def spans(low: float, high: float) -> st.SearchStrategy[tuple[float, float]]:
    """Ranges within low..high."""
    return st.tuples(st.floats(low, high), st.floats(low, high)).map(lambda two: (min(two), max(two)))


@settings(max_examples=40, deadline=None)
@given(
    scan=st.builds(
        Scan, blur=spans(0, 8), shrink=spans(0.8, 30), grain=spans(0, 60), grain_size=spans(0, 5),
        halftone=st.floats(0, 1), dots=spans(2, 20), specks=spans(0, 90), hairs=spans(0, 9), scratches=spans(0, 9),
        black=spans(0, 0.5), white=spans(0.5, 1), yellow=spans(0, 1), cast=spans(0, 0.5), uneven=spans(0, 1),
        sepia=st.floats(0, 0.5), grey=st.floats(0, 0.5), jpeg=spans(1, 100),
    ),
    side=st.sampled_from([8, 33, 100]),
    seed=st.integers(0, 2**70),
)  # fmt: skip
def test_any_ranges_make_an_image(scan: Scan, side: int, seed: int) -> None:
    """Shape and type stay, the same seed gives the same bytes, and the face given is not written to."""
    clean = face(side)
    before = clean.copy()
    once = degrade(clean, seed, scan)
    assert once.shape == clean.shape and once.dtype == np.uint8
    assert np.array_equal(once, degrade(clean, seed, scan)) and np.array_equal(clean, before)


def test_blur_and_shrinking_are_scaled_to_the_image() -> None:
    """The same photo at 256 px comes out as the 512 px one made smaller; either costs more than nothing."""
    for scan in (replace(NOTHING, blur=(4, 4)), replace(NOTHING, shrink=(6, 6))):
        small = cv2.resize(degrade(face(512), 0, scan), (256, 256), interpolation=cv2.INTER_AREA)
        assert psnr(np.asarray(small, np.uint8), degrade(face(256), 0, scan)) > 33
        assert psnr(face(256), degrade(face(256), 0, scan)) < psnr(face(256), degrade(face(256), 0, NOTHING)) - 5


def test_grain_is_correlated_as_its_size_says() -> None:
    """Noise filtered by a Gaussian of sigma s correlates by exp(-d^2 / (4 s^2)) at a distance of d pixels."""
    scan = replace(NOTHING, grain=(12, 12), grain_size=(1.5, 1.5))
    noise = luminance(degrade(flat(128), 0, scan)) - 128
    assert noise.std() == pytest.approx(12, rel=0.12)  # the channels' gains move it a little
    for distance in (1, 2, 3):
        beside = np.corrcoef(noise[:, distance:].ravel(), noise[:, :-distance].ravel())[0, 1]
        below = np.corrcoef(noise[distance:].ravel(), noise[:-distance].ravel())[0, 1]
        expected = math.exp(-(distance**2) / (4 * 1.5**2))
        assert (beside, below) == pytest.approx((expected, expected), abs=0.05)


def grain(sigma: float, size: float, side: int, seed: int) -> DrawnGrain:
    """Drawn for an image of `side` pixels: grains of `size` pixels and a deviation of `sigma` levels."""
    at_512 = size * 512 / side
    scan = replace(NOTHING, grain=(sigma, sigma), grain_size=(at_512, at_512))
    return draw_scan(np.random.default_rng(seed), side, scan).grain


def test_grain_is_of_mid_tones_and_of_luminance() -> None:
    """Near black and white there is hardly any, and the channels have it together."""
    scan = replace(NOTHING, grain=(12, 12), grain_size=(0.8, 0.8))
    spread = {level: float(luminance(degrade(flat(level), 0, scan)).std()) for level in (8, 128, 247)}
    assert spread[8] < spread[128] / 5 and spread[247] < spread[128] / 5
    made = grained(np.full((128, 128, 3), 0.5, np.float32), grain(12, 0.8, 128, 0)) - 0.5
    assert np.corrcoef(made.reshape(-1, 3).T).min() > 0.99


@given(st.floats(0.0, 3.0), st.floats(1.0, 30.0))
@settings(max_examples=20, deadline=None)
def test_grain_has_the_asked_deviation(size: float, sigma: float) -> None:
    """At every size of the grains, in the middle tone, with the channels' gains taken out."""
    noise = grained(np.full((256, 256, 3), 0.5, np.float32), grain(sigma, size, 256, 1))[..., 1] - 0.5
    assert 0.75 * sigma < noise.std() * 255 < 1.25 * sigma


def peak(rgb: NDArray[np.uint8]) -> tuple[float, float]:
    """Frequency (cycles per pixel) and height of the strongest wave of an image's luminance."""
    waves = np.abs(np.fft.fftshift(np.fft.fft2(luminance(rgb) - luminance(rgb).mean())))
    y, x = np.unravel_index(int(waves.argmax()), waves.shape)
    half = rgb.shape[0] / 2
    return math.hypot(y - half, x - half) / rgb.shape[0], float(waves.max())


@pytest.mark.parametrize("period", [5.0, 8.0])
def test_a_printed_tone_has_the_screens_frequency(period: float) -> None:
    """One cycle in `dots` pixels, at half of them in an image of half the side; the tone itself stays."""
    scan = replace(NOTHING, halftone=1, dots=(period, period))
    for side in (256, 512):
        printed = degrade(flat(128, side), 4, scan)
        assert peak(printed)[0] == pytest.approx(512 / side / period, abs=2 / side)
        assert luminance(printed).mean() == pytest.approx(128, abs=4)
    assert psnr(flat(128), degrade(flat(128), 4, NOTHING)) > 45  # without a screen there is none


def test_descreening_takes_the_dots_away() -> None:
    """A Gaussian of s periods leaves exp(-2 pi^2 s^2) of the dots' wave."""
    dots = replace(NOTHING, halftone=1, dots=(8, 8))
    left = peak(degrade(flat(128), 4, replace(dots, descreen=(0.3, 0.3))))[1] / peak(degrade(flat(128), 4, dots))[1]
    assert left == pytest.approx(math.exp(-2 * math.pi**2 * 0.3**2), rel=0.1)


@given(st.floats(0.1, 0.9), st.floats(4, 12), st.floats(0, math.pi / 2))
@settings(max_examples=30, deadline=None)
def test_a_screen_is_paper_and_ink(level: float, period: float, angle: float) -> None:
    """Its values stay in 0..1, and darker tones have more ink."""
    printed = screened(np.full((96, 96, 3), level, np.float32), period, angle)
    assert printed.min() >= -1e-5 and printed.max() <= 1 + 1e-5
    assert printed.mean() < screened(np.full((96, 96, 3), level + 0.1, np.float32), period, angle).mean()


def changed(scan: Scan, seed: int, by: int = 25) -> NDArray[np.int16]:
    """Signed change of a mid tone's luminance at 512 px, 0 where it is less than `by` levels."""
    change = luminance(degrade(flat(128), seed, scan)) - 128
    return np.where(np.abs(change) < by, 0, change).astype(np.int16)


@pytest.mark.parametrize(
    ("scan", "most"),
    [
        (replace(NOTHING, specks=(8, 8)), 0.02),
        (replace(NOTHING, hairs=(8, 8)), 0.02),
        (replace(NOTHING, scratches=(8, 8)), 0.03),
    ],
    ids=["specks", "hairs", "scratches"],
)
def test_marks_change_few_pixels_a_lot(scan: Scan, most: float) -> None:
    """Some are light, some dark, and the rest of the image stays as it was."""
    marks = [changed(scan, seed) for seed in range(6)]
    for mark in marks:
        assert 0 < np.mean(mark != 0) < most and np.abs(mark).max() > 50
    assert min(mark.min() for mark in marks) < -60 and max(mark.max() for mark in marks) > 60


def test_scratches_run_from_top_to_bottom_and_specks_are_small() -> None:
    """A scratch is far taller than wide; a speck is at most 7 pixels either way."""
    for seed in range(6):
        ys, xs = np.nonzero(changed(replace(NOTHING, scratches=(1, 1)), seed))
        assert np.ptp(ys) > 80 and np.ptp(xs) < np.ptp(ys) / 3
        marks = (changed(replace(NOTHING, specks=(40, 40)), seed) != 0).astype(np.uint8)
        count, _, stats, _ = cv2.connectedComponentsWithStats(marks)
        sizes = stats[1:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]]
        assert 5 < count - 1 <= 40 and np.median(sizes) <= 4 and sizes.max() < 16


def test_fading_brings_tones_together() -> None:
    """Contrast is `white` - `black` of what it was; uneven fading leaves more of it."""
    clean = face(256)
    scan = replace(NOTHING, black=(0.1, 0.1), white=(0.9, 0.9))
    faded = degrade(clean, 0, scan)
    assert luminance(faded).std() / luminance(clean).std() == pytest.approx(0.8, abs=0.01)
    assert luminance(faded).min() >= 0.1 * 255 - 4 and luminance(faded).max() <= 0.9 * 255 + 4
    uneven = degrade(flat(0), 0, replace(scan, uneven=(1, 1)))
    assert np.ptp(luminance(degrade(flat(0), 0, scan))) < 4 < 10 < np.ptp(luminance(uneven))
    assert luminance(uneven).max() <= 0.1 * 255 + 2


def test_yellow_takes_blue_and_a_cast_moves_channels() -> None:
    """By the share that they say, for each channel."""
    mean = degrade(flat(200), 0, replace(NOTHING, yellow=(0.15, 0.15))).mean((0, 1))
    assert mean == pytest.approx([200, 200 * 0.95, 200 * 0.85], abs=2.5)
    casts = np.stack([degrade(flat(200), s, replace(NOTHING, cast=(0.1, 0.1))).mean((0, 1)) for s in range(8)])
    assert np.abs(casts - 200).max() > 8 and np.abs(casts - 200).max() < 23


def test_grey_has_equal_channels_and_sepia_one_tone() -> None:
    """Whatever else happens to a grey photo, it stays grey; a sepia one is brown everywhere."""
    for seed in range(5):
        grey = degrade(face(256), seed, replace(Scan(), grey=1, sepia=0))
        assert np.array_equal(grey[..., 0], grey[..., 1]) and np.array_equal(grey[..., 1], grey[..., 2])
    brown = cv2.GaussianBlur(degrade(face(256), 0, replace(NOTHING, sepia=1)), (0, 0), 3).astype(float)
    brown = brown[luminance(face(256)) > 60]
    tones = brown / brown.mean(1, keepdims=True)
    assert tones.std(0).max() < 0.04 and tones[:, 0].mean() > 1.05 > 0.9 > tones[:, 2].mean()


def test_the_second_jpeg_has_its_blocks_elsewhere() -> None:
    """Steps between columns are largest at the edges of blocks: of the last JPEG, at another place for each seed."""
    places = set()
    for seed in range(12):
        made = luminance(degrade(face(512), seed, replace(NOTHING, jpeg=(10, 10))))
        steps = np.abs(np.diff(made, axis=1)).mean(0)
        places.add(int(np.argmax([steps[place::8].mean() for place in range(8)])))
    assert len(places) >= 4


def test_every_range_of_the_preset_is_one() -> None:
    """Ranges go from least to most, shares are shares."""
    assert PRESETS["scan"] == Scan()
    for field in fields(Scan):
        value = getattr(Scan(), field.name)
        assert value[0] <= value[1] if isinstance(value, tuple) else 0 <= value <= 1
