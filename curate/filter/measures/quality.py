"""Quality of the face itself, not of the photo: a portrait's background may be blurred and its face sharp.

Measures are taken on a `FaceRegion`: the face brought to one scale, so that a photo of 20 megapixels and one of 0.1
are judged by the same detail, and the face in the photo's own pixels for what depends on those. PIQE takes any picture,
without a model or training data.

What photos lost or gained on their way here is pepper noise, smoothing, JPEG blocks, false light, enlarging, print.
Pepper, blocks and true resolution are read from the photo's own pixels (`FaceRegion.native`), skin and light from the
face at one scale. On 300 sharp portraits of 300 px (``benchmarks/calibrate_quality.py``) they order a less and a more
degraded picture of one face rightly in: pepper 100 %, blockiness 98.6, smoothing 99.3, exposure 98.8, clipped 97.7,
resolution 100; and a clean face and any other's degraded one in: pepper 99.8, blockiness 93, smoothing 72 to 79 (faces
differ more in skin than filters do), exposure 81 to 91, clipped 92 to 96, resolution 97. `hatching` orders
made engravings and halftones in the tests; of real ones see its docstring.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.errors import ImageError
from authface.faces.geometry import Frame, crop_to_photo, warp
from authface.records import Points5

Plane = NDArray[np.float32]

EYE_DISTANCE = 64.0
"""Distance of the eyes in a face region, pixels: that of an FFHQ-style crop of 256 px."""
REGION = 256
"""Side of a face region, pixels."""
EYES_Y = int(0.42 * REGION)
"""Row of the eyes in the region: hair to chin fit below and above."""
NATIVE_SIDE = 512
"""Largest side of the native patch, pixels."""
_FINE, _COARSE = (0.6, 1.2), (1.2, 4.8)
"""Bands of detail at the eyes as differences of Gaussians, sigma in pixels of the region."""
_REACH = 20
"""Pixels that the widest of these Gaussians sees beyond a window; OpenCV cuts it off at four sigmas."""
_MAD_TO_SIGMA = 0.6745
"""Median absolute value of a standard normal variable."""
_BLOCK = 16
"""Side of a block of PIQE, pixels; this and the constants below are the paper's."""
_ACTIVE = 0.1
"""Variance of the normalised block from which it counts as active."""
_FLAT = 0.1
"""Standard deviation under which a segment of a block's edge shows no structure."""
_SEGMENT = 6
"""Pixels of an edge's segment."""
_SIGMA = 7 / 6
"""Of the 7 x 7 window in which luma is normalised."""


@dataclass(frozen=True)
class FaceRegion:
    """A face at one scale.

    `luma` is (256, 256) uint8 with the eyes level and 64 px apart; beyond the photo it is reflected. `scale` is
    region pixels a photo pixel: above 1 the region was enlarged and holds less detail than its pixels. `native` is
    the face from eyes to mouth in the photo's own pixels, luma, float32 0..255, at most 512 px a side.
    """

    luma: NDArray[np.uint8]
    scale: float
    native: NDArray[np.float32]
    photo: NDArray[np.uint8]
    """The (h, w, 3) part of the photo around the face, and ..."""
    turn: NDArray[np.float64]
    """... (2, 3) where the region's pixels lie in it."""

    @cached_property
    def rgb(self) -> NDArray[np.uint8]:
        """(256, 256, 3) the region in colour, made when it is first asked for."""
        return warp(self.photo, self.turn, REGION, REGION)


def face_region(rgb: NDArray[np.uint8], points5: Points5) -> FaceRegion:
    """Bring the face to one scale from (h, w, 3) uint8 and RetinaFace's five points.

    Raises ImageError (`quad`) where the face lies wholly outside the photo.
    """
    left, right = np.array(points5[0:2]), np.array(points5[2:4])
    distance = max(float(np.hypot(*(right - left))), 1.0)
    across = (right - left) / distance
    down = np.array([-across[1], across[0]])
    side = distance * REGION / EYE_DISTANCE
    top_left = (left + right) / 2 - across * side / 2 - down * side * 0.42
    quad = np.array([top_left, top_left + down * side, top_left + (across + down) * side, top_left + across * side])
    height, width = rgb.shape[:2]
    frame = Frame.around(quad.min(axis=0), quad.max(axis=0), side, width, height)
    photo = rgb[frame.y0 : frame.y1, frame.x0 : frame.x1]
    if photo.size == 0:
        raise ImageError("quad", "the face lies wholly outside the photo")
    turn = crop_to_photo(quad - [frame.x0, frame.y0], REGION)
    luma = warp(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), turn, REGION, REGION)
    return FaceRegion(luma, REGION / side, native_luma(rgb, points5), photo, turn)


def sharpness(region: FaceRegion) -> float:
    """How crisp the eyes are: about 0.08 (blurred) to 0.3 (crisp), higher is sharper.

    fine / sqrt(coarse x brightness): the 99th percentiles of a band of detail around one pixel of the region
    and of the next two octaves around both eyes, and the face's mean luma. The first quotient falls with the
    width of edges, the second with their contrast.
    """
    rows, columns = window(EYES_Y - 0.3 * EYE_DISTANCE, EYES_Y + 0.3 * EYE_DISTANCE, 0.85 * EYE_DISTANCE)
    wide = region.luma[rows.start - _REACH : rows.stop + _REACH, columns.start - _REACH : columns.stop + _REACH]
    blurred = {sigma: _blurred(wide.astype(np.float32), sigma) for sigma in {*_FINE, *_COARSE}}
    fine, coarse = (_percentile_99(blurred[inner] - blurred[outer]) for inner, outer in (_FINE, _COARSE))
    face = region.luma[window(EYES_Y - 0.6 * EYE_DISTANCE, EYES_Y + 1.7 * EYE_DISTANCE, 0.95 * EYE_DISTANCE)]
    return fine / float(np.sqrt(max(coarse, 1.0) * max(float(face.mean()), 30.0)))


def noise(region: FaceRegion) -> float:
    """Standard deviation of the noise on the face, 0..255, in the photo's own pixels."""
    return noise_sigma(region.native)


def noise_sigma(grey: Plane) -> float:
    """Standard deviation of the noise of (h, w) luma, in its unit; 0 of under 8 px a side.

    Median absolute value of the finest diagonal Haar coefficients (Donoho and Johnstone 1994), which
    edges and skin hardly reach.
    """
    height, width = (side // 2 * 2 for side in grey.shape)
    if min(height, width) < 8:
        return 0.0
    a, b = grey[0:height:2, 0:width:2], grey[0:height:2, 1:width:2]
    c, d = grey[1:height:2, 0:width:2], grey[1:height:2, 1:width:2]
    return float(np.median(np.abs(a - b - c + d)) / 2 / _MAD_TO_SIGMA)


def window(top: float, bottom: float, half_width: float) -> tuple[slice, slice]:
    """Rows and columns of the region, even about its middle."""
    return slice(int(top), int(bottom)), slice(int(REGION / 2 - half_width), int(REGION / 2 + half_width))


def _blurred(grey: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """The middle of the blurred patch, `_REACH` pixels in from each side."""
    return np.asarray(cv2.GaussianBlur(grey, (0, 0), sigma)[_REACH:-_REACH, _REACH:-_REACH])


def _percentile_99(band: NDArray[np.float32]) -> float:
    return float(np.percentile(np.abs(band), 99))


def native_luma(rgb: NDArray[np.uint8], points5: Points5) -> NDArray[np.float32]:
    """Eyes to mouth in the photo's own pixels, luma 0..255, at most 512 px a side; empty where outside the photo."""
    left, right = np.array(points5[0:2]), np.array(points5[2:4])
    middle, distance = (left + right) / 2, max(float(np.hypot(*(right - left))), 1.0)
    half = min(distance * 0.9, NATIVE_SIDE / 2)
    x0, x1 = int(max(middle[0] - half, 0)), int(min(middle[0] + half, rgb.shape[1]))
    y0, y1 = int(max(middle[1] - half * 0.5, 0)), int(min(middle[1] + half * 1.5, rgb.shape[0]))
    patch = rgb[y0 : max(y1, 0), x0 : max(x1, 0)]
    if patch.size == 0:
        return np.zeros((0, 0), np.float32)
    return np.asarray(cv2.cvtColor(patch.astype(np.float32), cv2.COLOR_RGB2GRAY))


def piqe(image: NDArray[np.uint8]) -> float:
    """PIQE of a (h, w, 3) RGB or (h, w) luma picture, 0..100, lower is better (Venkatanath et al., NCC 2015).

    A picture is judged by its 16 x 16 blocks that hold activity: how many show an edge without structure (blocking,
    blur) and how many are noisy.

    ((1 + sum of the distortion of active blocks) / (1 + their number)) x 100; a block's distortion is 1 - v where its
    edge is flat somewhere, plus v where it is noisy, v its variance.
    """
    normal = _normalised(_luma(image))
    rows, columns = (side // _BLOCK for side in normal.shape)
    variance, noisy = _noisy_blocks(normal, rows, columns)
    active = variance > _ACTIVE
    impaired = _impaired_blocks(normal, rows, columns)
    distortion = np.where(impaired, 1 - variance, 0) + np.where(noisy, variance, 0)
    return float((distortion[active].sum() + 1) / (active.sum() + 1) * 100)


def _luma(image: NDArray[np.uint8]) -> Plane:
    """Whole levels of luma, the brightest 255, reflected to whole blocks as the reference code does."""
    grey = image.astype(np.float32)
    if grey.ndim == 3:
        grey = cv2.transform(grey, np.array([[0.299, 0.587, 0.114]], np.float32))
    grey = np.rint(grey * np.float32(255 / max(float(grey.max()), 1.0)))
    down, across = (side % _BLOCK for side in grey.shape)
    if down or across:
        grey = cv2.copyMakeBorder(grey, 0, down, 0, across, cv2.BORDER_REFLECT)
    return np.asarray(grey, dtype=np.float32)


def _normalised(luma: Plane) -> Plane:
    """(luma - mean) / (deviation + 1) in a window around every pixel."""
    around: dict[str, Any] = {"ksize": (7, 7), "sigmaX": _SIGMA, "borderType": cv2.BORDER_REPLICATE}
    centred = luma - np.float32(128)  # squares of small numbers keep their digits
    mean = cv2.GaussianBlur(centred, **around)
    deviation = cv2.sqrt(cv2.absdiff(cv2.GaussianBlur(centred * centred, **around), mean * mean))
    return np.asarray((centred - mean) / (deviation + np.float32(1)), dtype=np.float32)


def _noisy_blocks(normal: Plane, rows: int, columns: int) -> tuple[Plane, NDArray[np.bool_]]:
    """(rows, columns) variance of each block, and whether its two middle columns differ as little as noise does.

    With s the block's deviation and c that of the middle over that of the rest: noisy where
    s > 2 |s - c| / max(s, c). The rest is all columns but the 8th and the 10th, as in the authors' code.
    """
    shape = (rows, _BLOCK, columns, _BLOCK)
    blocks = normal[: rows * _BLOCK, : columns * _BLOCK].reshape(shape)
    total = blocks.sum(1, dtype=np.float64)
    squares = np.square(blocks).sum(1, dtype=np.float64)

    def variance(chosen: list[int]) -> NDArray[np.float64]:
        count = _BLOCK * len(chosen)
        sums, powers = total[..., chosen].sum(-1), squares[..., chosen].sum(-1)
        return np.asarray(np.maximum(powers - sums * sums / count, 0) / (count - 1))

    whole = variance(list(range(_BLOCK)))
    middle, rest = variance([7, 8]), variance([c for c in range(_BLOCK) if c not in (7, 9)])
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = np.nan_to_num(np.sqrt(middle) / np.sqrt(rest))
        deviation = np.sqrt(whole)
        beta = np.abs(deviation - centre) / np.maximum(deviation, centre)
        return whole.astype(np.float32), np.asarray(deviation > 2 * beta)


def _impaired_blocks(normal: Plane, rows: int, columns: int) -> NDArray[np.bool_]:
    """(rows, columns) whether any segment of a block's four edges is flat."""
    whole = normal[: rows * _BLOCK, : columns * _BLOCK]
    lying = [whole[at::_BLOCK].reshape(rows, columns, _BLOCK) for at in (0, _BLOCK - 1)]
    standing = [whole[:, at::_BLOCK].T.reshape(columns, rows, _BLOCK).transpose(1, 0, 2) for at in (0, _BLOCK - 1)]
    edges = np.stack(lying + standing, axis=2).reshape(-1, _BLOCK)
    filtering: dict[str, Any] = {
        "ddepth": -1,
        "ksize": (_SEGMENT, 1),
        "anchor": (0, 0),
        "borderType": cv2.BORDER_REPLICATE,
    }
    mean = cv2.boxFilter(edges, **filtering)
    square = cv2.sqrBoxFilter(edges, **filtering)
    variance = (square - mean * mean)[:, : _BLOCK - _SEGMENT + 1] * np.float32(_SEGMENT / (_SEGMENT - 1))
    return np.asarray((variance.min(1) < _FLAT * _FLAT).reshape(rows, columns, 4).any(-1))


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
