"""The FFHQ crop: from landmarks to a square in the photo, and from there to pixels.

A quad is (4, 2): the crop's top-left, bottom-left, bottom-right and top-right corner in the photo, in pixels with
the centre of the first pixel at (0, 0). Crop coordinates count pixels in the same way: the centre of the crop's
first pixel is (0, 0), so its corners lie at -0.5 and `size` - 0.5, and crop point (u, v) is the photo point
``TL + (u + 0.5) / size * (TR - TL) + (v + 0.5) / size * (BL - TL)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from authface.errors import ImageError
from authface.faces.warp import Frame, fade, warp

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
