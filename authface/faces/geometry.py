"""The FFHQ crop: from landmarks to a square in the photo, and from there to pixels, sampled without aliasing.

Beyond its border the photo is padded as `ffhq-dataset` pads it: a reflection, blurred and faded to the median.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from authface.errors import ImageError

T = TypeVar("T", np.uint8, np.float32)

DETAIL_RATIO = 0.65
"""Photo pixels in a crop pixel from which the warp is filtered; below it, sampling alone is within 50 dB of that."""
MAX_RATIO = 2.0
"""Photo pixels in a crop pixel beyond which whole photo pixels are averaged first."""
BLUR_GRID = 128
"""Side of the grid the blur is made on, pixels: its sigma is 2.6 of them whatever the crop's size."""
MEDIAN_GRID = 128
"""Longer side of the padded region when its median is taken, pixels: the rest of a large one adds nothing to it."""


def warp(image: NDArray[T], turn: NDArray[np.float64], width: int, height: int) -> NDArray[T]:
    """Sample (h, w, 3) at `turn` of every pixel of a (height, width, 3) grid, filtered to the grid's resolution.

    The result is rounded to uint8 if `image` is uint8; of float32 fractions stay. `turn` is (2, 3), grid to image, and
    keeps shapes. The image is reflected at its borders.
    """
    ratio = float(np.hypot(*turn[:, 0]))
    if ratio >= 2 * MAX_RATIO:
        image, turn = _averaged(image, turn, int(ratio / MAX_RATIO))
    if ratio < DETAIL_RATIO:
        return _sample(image, turn, width, height)
    # Two samples a pixel each way, then Lanczos-3: each of the four grids takes every second tap of its kernel. The
    # grids are three pixels wider on each side, so that the kernel finds at the borders what is there.
    total = None
    for row in (0, 1):
        for column in (0, 1):
            grid = turn.copy()
            grid[:, 2] += turn[:, :2] @ [column / 2 - 0.25 - 3, row / 2 - 0.25 - 3]
            part = cv2.sepFilter2D(
                _sample(image, grid, width + 6, height + 6),
                cv2.CV_32F,
                _LANCZOS[1 - column :: 2],
                _LANCZOS[1 - row :: 2],
                anchor=(2 + column, 2 + row),
            )
            total = part if total is None else cv2.add(total, part, total)
    if image.dtype != np.uint8:
        return np.asarray(cv2.max(total, 0.0)[3:-3, 3:-3], dtype=image.dtype)
    return np.asarray(cv2.convertScaleAbs(cv2.max(total, 0.0)[3:-3, 3:-3]), dtype=image.dtype)


def _lanczos(factor: int, lobes: int = 3) -> NDArray[np.float32]:
    """Taps of the Lanczos kernel for a reduction by `factor`; they sum to 1."""
    x = (np.arange(-lobes * factor, lobes * factor) + 0.5) / factor
    taps = np.sinc(x) * np.sinc(x / lobes)
    return np.asarray(taps / taps.sum(), dtype=np.float32)


_LANCZOS = _lanczos(2)


def _sample(image: NDArray[T], turn: NDArray[np.float64], width: int, height: int) -> NDArray[T]:
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(image, turn, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101))


def _averaged(image: NDArray[T], turn: NDArray[np.float64], factor: int) -> tuple[NDArray[T], NDArray[np.float64]]:
    """The image shrunk about `factor` times by averaging, and `turn` into it."""
    height, width = image.shape[:2]
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    scale = np.array([small[0] / width, small[1] / height])
    turn = turn * scale[:, None]
    turn[:, 2] += scale / 2 - 0.5
    return np.asarray(cv2.resize(image, small, interpolation=cv2.INTER_AREA)), turn


@dataclass(frozen=True)
class Frame:
    """The part of a photo a crop is made from, and by how much it is padded on each side (0: nowhere padded)."""

    x0: int
    y0: int
    x1: int
    y1: int
    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def around(cls, low: NDArray[np.float64], high: NDArray[np.float64], side: float, width: int, height: int) -> Frame:
        """The frame of a quad from `low` to `high`: 0.1 sides around it, 0.3 of padding if the photo lacks any."""
        border = max(round(side * 0.1), 3)
        low, high = np.floor(low).astype(int), np.ceil(high).astype(int)
        x0, y0 = (int(v) for v in np.maximum(low - border, 0))
        x1, y1 = (int(v) for v in np.minimum(high + border, [width, height]))
        missing = [border - low[0], border - low[1], high[0] + border - width, high[1] + border - height]
        if max(missing) <= border - 4:
            return cls(x0, y0, x1, y1, 0, 0, 0, 0)
        left, top, right, bottom = (max(int(m), round(side * 0.3)) for m in missing)
        return cls(x0, y0, x1, y1, left, top, right, bottom)

    @property
    def padded(self) -> bool:
        return self.left > 0

    def depth(self, x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.float32]:
        """How far points of the region lie beyond its border, in pads: 0 at it, negative inside.

        `x` and `y` count from the region's first pixel and broadcast against each other.
        """
        across = np.maximum(-x / self.left, (x - (self.x1 - self.x0 - 1)) / self.right)
        down = np.maximum(-y / self.top, (y - (self.y1 - self.y0 - 1)) / self.bottom)
        return np.maximum(across, down).astype(np.float32)


def blurred_share(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much of a pixel at `depth` is blurred, 0..1: it begins a third of a pad inside the photo."""
    return np.asarray(np.clip(depth * 3.0 + 1.0, 0.0, 1.0), dtype=np.float32)


def fade(
    crop: NDArray[np.uint8], region: NDArray[np.uint8], turn: NDArray[np.float64], frame: Frame
) -> NDArray[np.uint8]:
    """The crop with what was reflected blurred (sigma 0.02 sides) and faded to the region's median.

    `turn` is (2, 3), crop to region. `ffhq-dataset` does this to the photo before it is warped; both steps are
    smooth, so they commute with the warp to within rounding.
    """
    size = crop.shape[0]
    share = blurred_share(_depth_grid(frame, turn, size, size))
    soft = _soft(region, turn, size, frame)
    return np.asarray(cv2.blendLinear(crop, soft, np.float32(1.0) - share, share), dtype=np.uint8)


def _depth_grid(frame: Frame, turn: NDArray[np.float64], width: int, height: int) -> NDArray[np.float32]:
    """(height, width) the depth at `turn` of every pixel of a grid."""
    u, v = np.arange(width, dtype=np.float32)[None, :], np.arange(height, dtype=np.float32)[:, None]
    deepest = None
    for axis, low, high, last in (
        (0, frame.left, frame.right, frame.x1 - frame.x0 - 1),
        (1, frame.top, frame.bottom, frame.y1 - frame.y0 - 1),
    ):
        across, down, start = turn[axis]
        for pad, sign, edge in ((low, -1.0, 0.0), (high, 1.0, last)):  # depth is affine on each side of the photo
            scale = sign / pad
            side = u * np.float32(across * scale) + (v * np.float32(down * scale) + np.float32((start - edge) * scale))
            deepest = side if deepest is None else np.maximum(deepest, side, out=deepest)
    assert deepest is not None
    return deepest


def _soft(region: NDArray[np.uint8], turn: NDArray[np.float64], size: int, frame: Frame) -> NDArray[np.uint8]:
    """(size, size, 3) the crop blurred by 0.02 sides and faded to the median, made at `BLUR_GRID` pixels a side."""
    step = size / BLUR_GRID
    margin = BLUR_GRID // 8  # six sigmas
    side = BLUR_GRID + 2 * margin
    first = (0.5 - margin) * step - 0.5  # the grid's first pixel in crop coordinates, both ways
    coarse = np.hstack([turn[:, :2] * step, (turn[:, :2] @ [first, first] + turn[:, 2])[:, None]])
    seen = warp(region, coarse, side, side).astype(np.float32)
    soft = cv2.GaussianBlur(seen, (0, 0), 0.02 * BLUR_GRID, borderType=cv2.BORDER_REFLECT_101)
    faded = np.clip(_depth_grid(frame, coarse, side, side), 0.0, 1.0)[..., None]
    soft += (_median(region, frame) - soft) * faded
    inside = np.rint(soft[margin:-margin, margin:-margin])
    return np.asarray(
        cv2.resize(np.clip(inside, 0, 255).astype(np.uint8), (size, size), interpolation=cv2.INTER_CUBIC),
        dtype=np.uint8,
    )


def _median(region: NDArray[np.uint8], frame: Frame) -> NDArray[np.float32]:
    """(3,) median of the padded region after its blur, taken at `MEDIAN_GRID` pixels."""
    height, width = region.shape[:2]
    scale = min(1.0, MEDIAN_GRID / max(height + frame.top + frame.bottom, width + frame.left + frame.right))
    small = cv2.resize(
        region, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
    )
    pads = [max(1, round(p * scale)) for p in (frame.top, frame.bottom, frame.left, frame.right)]
    padded = cv2.copyMakeBorder(small, pads[0], pads[1], pads[2], pads[3], cv2.BORDER_REFLECT_101).astype(np.float32)
    sigma = 0.02 * min(frame.left, frame.top) / 0.3 * scale
    y, x = np.ogrid[: padded.shape[0], : padded.shape[1]]
    depth = frame.depth((x - pads[2] + 0.5) / scale - 0.5, (y - pads[0] + 0.5) / scale - 0.5)[..., None]
    soft = cv2.GaussianBlur(padded, (0, 0), max(sigma, 0.1))
    mixed = padded + (soft - padded) * blurred_share(depth)
    return np.asarray(np.median(mixed, axis=(0, 1)), dtype=np.float32)


S = TypeVar("S", bound=NDArray[Any])

LARGEST = 4096
"""Side of the largest crops that are as large as their face, pixels: a larger one takes gigabytes and shows no more."""


@dataclass(frozen=True)
class Side:
    """How large crops are, pixels a side: all alike, or each as large as its face is in the photo."""

    least: int
    own: bool = False
    """A face that has more pixels than `least` keeps them, up to `LARGEST`."""

    def of(self, photo: float) -> int:
        """The side of the crop for a face whose crop covers `photo` pixels a side of its photo."""
        return max(self.least, int(min(photo, LARGEST))) if self.own else self.least


@dataclass(frozen=True)
class Aligned:
    """A face cut out of its photo.

    `rgb` is (size, size, 3) uint8 and `quad` its corners in the photo. `pad_fraction` (0..1) is the share of
    the crop outside the photo; `upscaled` says that the quad's side in the photo is shorter than `size`.
    """

    rgb: NDArray[np.uint8]
    quad: NDArray[np.float64]
    pad_fraction: float
    upscaled: bool


def ffhq_quad(points68: ArrayLike) -> NDArray[np.float64]:
    """The FFHQ crop (Karras et al. 2019, `ffhq-dataset`) of 68 iBUG points: 136 numbers or (68, 2), to (4, 2).

    With E from eye to eye and M from the eyes' middle to the mouth's, the half side is E + rot90(M), made
    max(2 |E|, 1.8 |M|) long; the centre lies 0.1 M below the eyes. Raises ImageError (`landmarks`) if they coincide.
    """
    points = np.asarray(points68, dtype=np.float64).reshape(68, 2)
    left, right = points[36:42].mean(axis=0), points[42:48].mean(axis=0)
    eyes, mouth = (left + right) / 2, (points[48] + points[54]) / 2
    across, down = right - left, mouth - eyes
    x = across + np.array([down[1], -down[0]])
    length = float(np.hypot(*x))
    if not np.isfinite(length) or length < 1e-6:
        raise ImageError("landmarks", "the landmarks lie on one point: this is no face")
    x *= max(2.0 * float(np.hypot(*across)), 1.8 * float(np.hypot(*down))) / length
    y = np.array([-x[1], x[0]])
    centre = eyes + 0.1 * down
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def spread_points(points5: Sequence[float]) -> NDArray[np.float64]:
    """68 points with the same FFHQ quad as the five given: each eye's at its centre, the corners of the mouth.

    The outline and the brows, which no quad reads, lie at the nose.
    """
    left, right, nose, mouth_left, mouth_right = np.asarray(points5, np.float64).reshape(5, 2)
    points = np.tile(nose, (68, 1))
    points[36:42], points[42:48] = left, right
    points[48:68] = (mouth_left + mouth_right) / 2
    points[[48, 60]], points[[54, 64]] = mouth_left, mouth_right
    return points


def whole_quad(side: int) -> NDArray[np.float64]:
    """(4, 2) the quad of all of a square photo of `side` pixels, from its first pixel's border to its last one's."""
    end = side - 0.5
    return np.array([[-0.5, -0.5], [-0.5, end], [end, end], [end, -0.5]])


def quad_side(quad: NDArray[np.float64]) -> float:
    """Length of the quad's upper edge, photo pixels."""
    return float(np.hypot(*(quad[3] - quad[0])))


def scale_quad(quad: ArrayLike, factor: float) -> NDArray[np.float64]:
    """The quad in the photo enlarged `factor` times, in which pixel 0 covers what were 1 / `factor` of pixel 0."""
    return (np.asarray(quad, dtype=np.float64).reshape(4, 2) + 0.5) * factor - 0.5


def grow_quad(quad: ArrayLike, factor: float) -> NDArray[np.float64]:
    """The quad `factor` times as large about its centre: above 1 it holds more hair and shoulders than FFHQ's."""
    corners = np.asarray(quad, dtype=np.float64).reshape(4, 2)
    centre = corners.mean(axis=0)
    return np.asarray(centre + (corners - centre) * factor)


def crop_to_photo(quad: ArrayLike, size: int) -> NDArray[np.float64]:
    """(2, 3) affine matrix that takes crop coordinates to photo coordinates."""
    top_left, bottom_left, _, top_right = np.asarray(quad, dtype=np.float64).reshape(4, 2)
    x, y = (top_right - top_left) / size, (bottom_left - top_left) / size
    return np.stack([x, y, top_left + (x + y) / 2], axis=1)


def photo_points(points: ArrayLike, quad: ArrayLike, size: int) -> NDArray[np.float64]:
    """(n, 2) points of the crop in photo coordinates."""
    turn = crop_to_photo(quad, size)
    return np.asarray(np.asarray(points, dtype=np.float64).reshape(-1, 2) @ turn[:, :2].T + turn[:, 2])


def crop_points(points: ArrayLike, quad: ArrayLike, size: int) -> NDArray[np.float64]:
    """(n, 2) points of the photo in crop coordinates."""
    turn = cv2.invertAffineTransform(crop_to_photo(quad, size))
    return np.asarray(np.asarray(points, dtype=np.float64).reshape(-1, 2) @ turn[:, :2].T + turn[:, 2])


def align(rgb: NDArray[np.uint8], quad: ArrayLike, size: int) -> Aligned:
    """Cut the quad out of an upright (h, w, 3) uint8 photo as a (size, size, 3) crop.

    What `ffhq-dataset` makes by way of 4096 x 4096 pixels and a Lanczos filter, made directly; beyond the
    photo's border the same reflection, blurred and faded to the median. Raises ImageError (`quad`) if the quad
    is not finite, under a pixel wide or wholly outside the photo.
    """
    quad = np.array(quad, dtype=np.float64).reshape(4, 2)
    height, width = rgb.shape[:2]
    padding = pad_fraction(quad, width, height)
    side = quad_side(quad)
    frame = Frame.around(quad.min(axis=0), quad.max(axis=0), side, width, height)
    region = rgb[frame.y0 : frame.y1, frame.x0 : frame.x1]
    turn = crop_to_photo(quad - [frame.x0, frame.y0], size)
    crop = warp(region, turn, size, size)
    if frame.padded:
        crop = fade(crop, region, turn, frame)
    return Aligned(crop, quad, padding, side < size)


def pad_fraction(quad: NDArray[np.float64], width: int, height: int) -> float:
    """Share of the quad outside a photo of `width` x `height` pixels, 0..1.

    Raises ImageError (`quad`) if the quad is not finite, under a pixel wide or wholly outside.
    """
    if not np.isfinite(quad).all() or quad_side(quad) < 1.0:
        raise ImageError("quad", f"a crop of {quad_side(quad):.2f} photo pixels a side: at least 1 is needed")
    photo = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float32) - np.float32(0.5)
    # In the quad's own unit square, so that float32 is exact enough for any photo.
    origin, side = quad[0], quad_side(quad)
    corners = [((shape - origin) / side).astype(np.float32) for shape in (quad, photo)]
    shared, _ = cv2.intersectConvexConvex(*corners)
    share = float(np.clip(shared / cv2.contourArea(corners[0]), 0.0, 1.0))
    if share == 0.0:
        raise ImageError("quad", "the crop lies wholly outside the photo: check the landmarks")
    return 1.0 - share if share < 1.0 - 1e-6 else 0.0


def resize_square(square: S, side: int) -> S:
    """A (n, n, 3) square as (side, side, 3), of the same type: by areas where it gets smaller, else cubic."""
    if len(square) == side:
        return square
    method = cv2.INTER_AREA if side < len(square) else cv2.INTER_CUBIC
    resized: S = cv2.resize(square, (side, side), interpolation=method)
    return resized


def square_of(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The smallest square around an (h, w, 3) photo, centred and padded by reflection."""
    height, width = rgb.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    border = cv2.BORDER_REFLECT if min(height, width) == 1 else cv2.BORDER_REFLECT_101
    square = cv2.copyMakeBorder(rgb, top, side - height - top, left, side - width - left, border)
    return np.asarray(square, np.uint8)
