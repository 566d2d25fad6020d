"""Quality of the face itself, not of the photo: a portrait's background may be blurred and its face sharp.

Measures are taken on a `FaceRegion`: the face brought to one scale, so that a photo of 20 megapixels and one of 0.1
are judged by the same detail, and the face in the photo's own pixels for what depends on those; see also
`authface.curate.filter.measures.artefacts`. PIQE takes any picture, without a model or training data.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
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
