"""Grain and noise of a photo: strength, colour and coarseness measured in flat areas, and synthesis of more.

A restored face without the grain of its photo looks pasted in: `add_grain` adds what is missing, from its seed.

Noise is taken for Gaussian and even, with an autocovariance in space for each of three uncorrelated axes of colour.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from authface.imaging.png import Pixels, is_grey

PATCHES = (32, 16)
"""Sides of the patches in which noise is measured, pixels; the smaller if too few of the larger fit."""
MIN_PATCHES = 6
MAX_PATCHES = 200
FLAT_SHARE = 0.05
"""Share of the patches assumed flat at first: others count as flat by comparison with them."""
REACH = 7
"""Distance in pixels beyond which noise is uncorrelated."""
TILE = 256
"""Side in pixels of the synthesised field, which repeats."""
MIN_LEVEL = 0.6
"""Levels of 255, standard deviation in the flattest small patches, below which a photo has no noise; rounding to 8 bits
makes 0.29. Larger patches hold some of a busy photo's texture, and texture is no noise."""
TONES = 3.5
"""What is smoother than a Gaussian of so many pixels are tones that a restoration moved, and no noise that went."""
AROUND = 0.5
"""Margin around a face, in sides of its crop, in which noise is measured first; then in the whole photo."""

Box = tuple[int, int, int, int]
Plane = NDArray[np.float32]
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Grain:
    """Noise, in levels of 255."""

    axes: Numbers
    """(3, 3) columns: unit axes of RGB, uncorrelated."""
    covariance: Numbers
    """(3, 2 REACH + 1, 2 REACH + 1) autocovariance along each axis; lag 0 in the middle."""

    @property
    def level(self) -> float:
        """Standard deviation along the strongest axis."""
        return float(np.sqrt(max(self.covariance[:, REACH, REACH].max(), 0.0)))

    def spectrum(self, side: int = TILE) -> Numbers:
        """(3, side, side) power of each frequency in `numpy.fft`'s order; its mean is the variance."""
        grid = np.zeros((3, side, side))
        lags = np.arange(-REACH, REACH + 1)
        grid[:, lags[:, None], lags[None, :]] = self.covariance
        power = np.maximum(np.fft.fft2(grid).real, 0)
        mean = power.mean(axis=(1, 2), keepdims=True)
        variance = np.maximum(self.covariance[:, REACH, REACH], 0)[:, None, None]
        return np.asarray(power * variance / np.maximum(mean, 1e-12))


def measure(photo: Pixels, usable: NDArray[np.bool_]) -> Grain | None:
    """The noise of a (h, w, 3) photo of 8 or 16 bits in flat areas of the `usable` (h, w) pixels.

    None if too few patches are usable.
    """
    rest = _residuals(photo, usable, PATCHES[-1])
    if len(rest) < MIN_PATCHES:
        return None
    if np.quantile(rest.var(axis=(1, 2)).mean(axis=1), FLAT_SHARE) < MIN_LEVEL**2:
        return Grain(np.eye(3), np.zeros((3, 2 * REACH + 1, 2 * REACH + 1)))
    for side in PATCHES[:-1]:
        larger = _residuals(photo, usable, side)
        if len(larger) >= MIN_PATCHES:
            rest = larger
            break
    variance = rest.var(axis=(1, 2)).sum(axis=1)
    order = np.argsort(variance, kind="stable")
    flattest = float(variance[order[int(FLAT_SHARE * len(order))]])
    flat = rest[order[: max(MIN_PATCHES, int(2 * FLAT_SHARE * len(order)))]]
    for _ in range(2):
        spread = _spread(flat[:: max(1, len(flat) // 32)])
        usual = flattest / max(1 - 1.64 * spread, 0.4)  # a normal distribution's 5th percentile
        flat = rest[variance <= max(usual * (1 + 2 * spread), flattest)]
    _, axes = np.linalg.eigh(np.einsum("nyxc,nyxd->cd", flat, flat) / flat[..., 0].size)
    return Grain(axes, _covariance(flat @ axes))


def field(spectrum: Numbers, axes: Numbers, height: int, width: int, seed: int) -> Plane:
    """(height, width, 3) noise of a `Grain.spectrum`, drawn from `seed`; it repeats after as many pixels as that."""
    side = spectrum.shape[-1]
    white = np.random.default_rng(seed).standard_normal((3, side, side))
    shaped = np.fft.ifft2(np.fft.fft2(white) * np.sqrt(spectrum)).real
    tile = np.einsum("ayx,ca->yxc", shaped, axes).astype(np.float32)
    return np.asarray(tile[np.arange(height)[:, None] % side, np.arange(width)[None, :] % side])


def add_grain(
    out: Pixels, photo: Pixels, places: Sequence[tuple[Box, Plane]], seeds: Sequence[int], strength: float
) -> None:
    """Add to each face in `out`, in place, the noise that it lacks compared with the (h, w, 3) `photo` around it.

    `places` are those of `replaced_shares`. What a face lacks is what it lost: of each frequency, and the more the more
    of the noise went around a pixel. A photo without noise gets none.
    """
    free = np.ones(photo.shape[:2], np.bool_)
    total = np.zeros(photo.shape[:2], np.float32)
    for (x0, y0, x1, y1), share in places:
        free[y0:y1, x0:x1] = False
        total[y0:y1, x0:x1] += share
    grey = is_grey(photo)
    most = np.iinfo(out.dtype).max
    for ((x0, y0, x1, y1), share), seed in zip(places, seeds, strict=True):
        there = _beside(photo, free, (x0, y0, x1, y1))
        if there is None or not there.level or not share.size:
            continue
        part, before = out[y0:y1, x0:x1], photo[y0:y1, x0:x1]
        gone = np.where(share > 0, _gone(before, part, there), 0)
        if not gone.any():
            continue
        usable = gone >= np.median(gone[gone > 0])
        lost = _lost(before, part, usable, there)
        added = field(lost, there.axes, y1 - y0, x1 - x0, seed)
        if grey:
            added = np.repeat(added.mean(axis=2, keepdims=True), 3, axis=2)
        # What was lost is known where it is usable, and is nowhere more than the noise.
        gone = np.minimum(gone / gone[usable].mean(), there.spectrum().sum() / max(lost.sum(), 1e-12))
        own = share / np.maximum(total[y0:y1, x0:x1], 1e-6)
        amount = np.sqrt(gone * own) * np.float32(strength * most / 255)
        mixed = part + amount[..., None] * added
        part[...] = np.where(gone[..., None] > 0, np.clip(np.rint(mixed), 0, most), part).astype(out.dtype)


def _gone(before: Pixels, after: Pixels, noise: Grain) -> Plane:
    """(h, w) about what share of the noise's power went around each pixel, 0..1, by how far the pixels moved."""
    moved = (after.astype(np.float32) - before) * np.float32(255 / np.iinfo(before.dtype).max)
    moved -= cv2.GaussianBlur(moved, (0, 0), TONES)
    around = cv2.GaussianBlur((moved**2).mean(axis=2), (0, 0), REACH)
    blurred = np.exp(-2 * (np.pi * TONES * np.fft.fftfreq(TILE)) ** 2)
    power = (noise.spectrum() * (1 - np.outer(blurred, blurred)) ** 2).mean()
    share = np.sqrt(around / np.float32(max(power, 1e-12)))
    return np.asarray(1 - (1 - np.minimum(share, 1)) ** 2, np.float32)


def _lost(before: Pixels, after: Pixels, usable: NDArray[np.bool_], there: Grain) -> Numbers:
    """(3, TILE, TILE) power that a face lost by its restoration, of each frequency, as far as it is the noise `there`.

    Skin is never as flat as a wall: its texture would pass for noise. It is in the face before and after, so what is
    compared is the same patches of both, the flattest third. All of the noise where too few patches are usable.
    """
    noise = there.spectrum()
    both = np.concatenate([before, after], axis=2)
    for side in PATCHES:
        rest = _residuals(both, usable, side)
        if len(rest) >= MIN_PATCHES:
            order = np.argsort(rest[..., :3].var(axis=(1, 2)).sum(axis=1), kind="stable")
            flat = rest[order[: max(MIN_PATCHES, len(order) // 3)]]
            was, stays = (Grain(there.axes, _covariance(flat[..., part] @ there.axes)).spectrum()
                          for part in (slice(3), slice(3, 6)))  # fmt: skip
            return np.clip(was - stays, 0, noise)
    return noise


def _residuals(photo: Pixels, usable: NDArray[np.bool_], side: int) -> Numbers:
    """(n, side, side, channels) patches of usable pixels, none clipped, less the parabola that fits each best."""
    rows = list(_patches(usable, side))
    if not rows:
        return np.zeros((0, side, side, photo.shape[2]))
    level = (255 if photo.dtype == np.uint8 else 65535) / 255
    every = np.stack([photo[y : y + side, x : x + side] for y, x in rows]).astype(np.float64) / level
    clipped = ((every <= 0) | (every >= 255)).mean(axis=(1, 2, 3))
    every = every[clipped < 0.02]
    at = np.linspace(-1, 1, side)
    y, x = (part.ravel() for part in np.meshgrid(at, at, indexing="ij"))
    shapes = np.linalg.qr(np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=1))[0]
    flat = every.reshape(len(every), side * side, photo.shape[2])
    return np.asarray((flat - shapes @ (shapes.T @ flat)).reshape(every.shape))


def _patches(usable: NDArray[np.bool_], side: int) -> Iterator[tuple[int, int]]:
    """Top-left corners of patches that hold usable pixels only, spread over the photo."""
    if min(usable.shape) < side:
        return
    step = side // 2
    free = sliding_window_view(usable, (side, side))[::step, ::step].all(axis=(2, 3))
    corners = np.argwhere(free) * step
    every = max(1, len(corners) // MAX_PATCHES)
    for y, x in corners[::every]:
        yield int(y), int(x)


def _spread(patches: Numbers) -> float:
    """Relative standard deviation of the variance in patches of noise as coarse as that of these."""
    grey = _covariance(patches)
    share = grey / np.maximum(grey[:, REACH : REACH + 1, REACH : REACH + 1], 1e-12)
    return float(np.sqrt(2 * (share**2).sum(axis=(1, 2)).mean() / patches.shape[1] ** 2 / 3))


def _covariance(patches: Numbers) -> Numbers:
    """(3, 2 REACH + 1, 2 REACH + 1) autocovariance of (n, side, side, 3) patches, along the last axis' three.

    By the mean periodogram under Hann's window (Welch 1967), less the window's own autocorrelation.
    """
    side = patches.shape[1]
    shape = np.hanning(side + 2)[1:-1]
    window = np.outer(shape, shape)
    padded = (2 * side, 2 * side)
    power = np.abs(np.fft.fft2(patches * window[..., None], padded, axes=(1, 2))) ** 2
    own = np.fft.ifft2(np.abs(np.fft.fft2(window, padded)) ** 2).real
    lags = np.fft.ifft2(power.mean(axis=0), axes=(0, 1)).real / np.maximum(own, 1e-9)[..., None]
    near = np.arange(-REACH, REACH + 1)
    return np.asarray(lags[near[:, None], near[None, :]].transpose(2, 0, 1))


def _beside(photo: Pixels, free: NDArray[np.bool_], box: Box) -> Grain | None:
    """The noise around a face; if faces fill the photo, that of the face before restoring."""
    x0, y0, x1, y1 = box
    edge = round(AROUND * max(x1 - x0, y1 - y0))
    rows, columns = slice(max(0, y0 - edge), y1 + edge), slice(max(0, x0 - edge), x1 + edge)
    near = measure(photo[rows, columns], free[rows, columns])
    if near is None:
        near = measure(photo, free)
    if near is None:
        face = photo[y0:y1, x0:x1]
        near = measure(face, np.ones(face.shape[:2], np.bool_))
    return near
