"""What photos lost or gained on their way here: pepper noise, smoothing, JPEG blocks, false light, enlarging, print.

Pepper, blocks and true resolution are read from the photo's own pixels (`FaceRegion.native`), skin and light from the
face at one scale. On 300 sharp portraits of 300 px (``benchmarks/calibrate_quality.py``) they order a less and a more
degraded picture of one face rightly in: pepper 100 %, blockiness 98.6, smoothing 99.3, exposure 98.8, clipped 97.7,
resolution 100; and a clean face and any other's degraded one in: pepper 99.8, blockiness 93, smoothing 72 to 79 (faces
differ more in skin than filters do), exposure 81 to 91, clipped 92 to 96, resolution 97. `hatching` orders
made engravings and halftones in the tests; of real ones see its docstring.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.curate.filter.measures.quality import EYE_DISTANCE, EYES_Y, FaceRegion, window

_FACE = window(EYES_Y - 0.4 * EYE_DISTANCE, EYES_Y + 1.35 * EYE_DISTANCE, 0.75 * EYE_DISTANCE)
"""Brows to chin, and so far to both sides as a face in half profile has skin."""
PEPPER_STEP = 20.0
"""Levels by which a pixel must pass all of its eight neighbours to count as pepper or salt."""
JPEG_BLOCK = 8
BLOCK_STEP = 24.0
"""Larger steps between pixels are edges of the face; they count as this much."""
BLACK, WHITE = 5, 250
"""Luma at and beyond which a pixel holds no more detail."""
TILE = 8
"""Side of the tiles in which the skin's texture is measured, pixels of the region."""
SKIN_SHARE = 0.2
"""The flattest of the face's tiles up to this share stand for skin: brows, eyes, lips, hair and shadows are rougher."""
TEXTURE_HALF = 0.3
"""Levels of texture, in skin of middle luma, at which `smoothing` is 0.5."""
HATCH_BAND = (0.6, 1.2)
"""Band of detail in which hatching is looked for: difference of Gaussians, sigma in pixels of the region."""
HATCH_REACH = 3.0
"""Sigma, pixels of the region, over which the strength of that detail is taken: a few lines of a hatching."""
QUIET, LOUD = 0.25, 0.98
"""Quantiles over the face: of that strength, in its quietest quarter; of the detail itself, at its hardest edges."""
LEAST_LOUD = 1.0
"""Levels of the hardest edges under which a face has no detail to compare."""
SPECTRUM_SIDE = 256
"""Largest side of the patch whose spectrum is taken, pixels."""
RINGS = 32
DETAIL_FLOOR = 2.0
"""Power, levels squared, taken off the spectrum: rounding and JPEG leave as much."""
DETAIL_BEYOND = 0.1
"""Share of the detail that lies beyond the frequency which is called the true resolution."""
FULL_DETAIL = 0.7
"""That frequency, over the highest there is, in sharp photos that were never enlarged."""


def pepper(region: FaceRegion) -> float:
    """Share of single pixels, 0..1, that are darker or brighter than all their eight neighbours by `PEPPER_STEP`."""
    grey = region.native
    if min(grey.shape) < 3:
        return 0.0
    ring = np.ones((3, 3), np.uint8)
    ring[1, 1] = 0
    out = (grey > cv2.dilate(grey, ring) + PEPPER_STEP) | (grey < cv2.erode(grey, ring) - PEPPER_STEP)
    return float(out[1:-1, 1:-1].mean())


def smoothing(region: FaceRegion) -> float:
    """How far the skin lacks its fine texture, 0..1: 0.5 is `TEXTURE_HALF`; beauty filters and denoising come near 1.

    1 / (1 + t / TEXTURE_HALF), t the root mean square of detail around one pixel of the region in the face's
    flattest tiles, brought to middle luma.
    """
    face = region.luma[_FACE]
    grey = face[: face.shape[0] // TILE * TILE, : face.shape[1] // TILE * TILE].astype(np.float32)
    fine = cv2.GaussianBlur(grey, (0, 0), 0.5) - cv2.GaussianBlur(grey, (0, 0), 1.0)
    rough = np.sort(np.sqrt(_tiles(fine * fine)), axis=None)
    texture = float(rough[: max(1, int(len(rough) * SKIN_SHARE))].mean()) * 128 / max(float(grey.mean()), 30.0)
    return 1 / (1 + texture / TEXTURE_HALF)


def hatching(region: FaceRegion) -> float:
    """How strong and how even fine texture is over the face, levels of 255: engravings, coarse halftones.

    quiet squared / loud: the root mean square of detail around one pixel of the region in the face's quietest quarter,
    and the 98th percentile of the detail. Photos: 0.05 to 0.9, since skin is quiet beside eyes and hair, however sharp
    they are; noise of standard deviation 6 adds less than 0.4. Hatching leaves no part quiet: 0.5 to 20. Over 1 are, of
    1,146 old portraits, 43 (by eye 39 prints or drawings, 1 photo, 3 unclear) and 0 of 889 photos of today; it
    finds two prints in five: soft, finely screened or mostly blank ones measure like photos.
    """
    face = region.luma[_FACE].astype(np.float32)
    detail = cv2.GaussianBlur(face, (0, 0), HATCH_BAND[0]) - cv2.GaussianBlur(face, (0, 0), HATCH_BAND[1])
    strength = cv2.GaussianBlur(detail * detail, (0, 0), HATCH_REACH)
    return float(np.quantile(strength, QUIET) / max(np.quantile(np.abs(detail), LOUD), LEAST_LOUD))


def blockiness(region: FaceRegion) -> float:
    """Steps at the borders of JPEG's 8 px blocks over those within; about 1 without blocks, 2 where they are plain.

    The mean difference of neighbours is taken by column, and by row, modulo 8; where the grid begins is not known
    after a crop, so the largest of the eight is held against the rest.
    """
    grey = region.native
    if min(grey.shape) < 2 * JPEG_BLOCK:
        return 1.0
    ratios = []
    for along in (grey, grey.T):
        steps = np.minimum(np.abs(np.diff(along, axis=1)), np.float32(BLOCK_STEP)).mean(axis=0)
        phases = np.array([steps[at::JPEG_BLOCK].mean() for at in range(JPEG_BLOCK)])
        largest = int(phases.argmax())
        ratios.append(float(phases[largest]) / max(float(np.delete(phases, largest).mean()), 0.1))
    return float(np.sqrt(ratios[0] * ratios[1]))


def exposure(region: FaceRegion) -> tuple[float, float]:
    """Mean luma of the skin, 0..255 (the middle half of the face's values), and the share of clipped pixels, 0..1."""
    face = region.luma[_FACE]
    counts = np.bincount(face.ravel(), minlength=256)
    below = np.cumsum(counts) / face.size
    share = np.clip(below, 0.25, 0.75)
    middle = np.diff(share, prepend=0.25)
    light = float((middle * np.arange(256)).sum() / middle.sum())
    return light, float((counts[: BLACK + 1].sum() + counts[WHITE:].sum()) / face.size)


def resolution(region: FaceRegion) -> float:
    """True detail over nominal, 0..1: about 0.5 for a sharp photo that was enlarged twice; a soft one reads the same.

    The frequency (the larger of both axes, over the highest) below which nine tenths of the gradients' power lie,
    over `FULL_DETAIL`.
    """
    grey = _middle(region.native, SPECTRUM_SIDE)
    if min(grey.shape) < 16:
        return 0.0
    power = _spectrum(grey)
    frequency = (np.arange(RINGS) + 0.5) / RINGS
    detail = np.maximum(power - DETAIL_FLOOR, 0) * frequency**3  # squared for the gradient, once for the ring's size
    beyond = np.append(np.cumsum(detail[::-1])[::-1], 0) / max(float(detail.sum()), 1e-9)
    first = int(np.argmax(beyond < DETAIL_BEYOND))
    if first == 0:
        return 0.0
    part = (beyond[first - 1] - DETAIL_BEYOND) / (beyond[first - 1] - beyond[first])
    return min(float(first - 1 + part) / RINGS / FULL_DETAIL, 1.0)


def _tiles(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of each tile, for a height and width of whole tiles."""
    rows, columns = (side // TILE for side in values.shape)
    return np.asarray(values.reshape(rows, TILE, columns, TILE).mean(axis=(1, 3)))


def _middle(grey: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """At most `side` pixels each way around the middle, multiples of 16, of which a spectrum is quickly taken."""
    height, width = (min(length // 16 * 16, side) for length in grey.shape)
    y, x = (grey.shape[0] - height) // 2, (grey.shape[1] - width) // 2
    return grey[y : y + height, x : x + width]


def _spectrum(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """(RINGS,) mean power in square rings of frequency, levels squared: white noise of sigma s has s squared in all."""
    height, width = grey.shape
    taper, ring, sizes = _grid(height, width)
    seen = cv2.dft((grey - grey.mean()) * taper, flags=cv2.DFT_COMPLEX_OUTPUT)[:, : width // 2 + 1]
    power = (seen[..., 0] ** 2 + seen[..., 1] ** 2).ravel()
    return np.asarray(np.bincount(ring, power, RINGS) / sizes)


@lru_cache(maxsize=256)
def _grid(height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.intp], NDArray[np.float64]]:
    """Of a patch: its taper, the ring of each coefficient of half a spectrum, and how much counts as one in a ring."""
    taper = cv2.createHanningWindow((width, height), cv2.CV_32F)
    down, across = np.abs(np.fft.fftfreq(height)), np.fft.rfftfreq(width)
    ring = np.minimum(np.maximum(down[:, None], across) * 2 * RINGS, RINGS - 1).astype(np.intp).ravel()
    sizes = np.maximum(np.bincount(ring, minlength=RINGS), 1) * float(np.square(taper).sum())
    return taper, ring, sizes
