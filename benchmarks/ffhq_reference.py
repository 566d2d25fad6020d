"""The crop of `ffhq-dataset` (Karras et al. 2019), step by step: the yardstick for authface.faces.geometry."""

from __future__ import annotations

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray
from PIL import Image


def reference(
    rgb: NDArray[np.uint8], quad: NDArray[np.float64], size: int, *, half_pixel: bool = False
) -> NDArray[np.uint8]:
    """(size, size, 3) by way of 4096 x 4096 bilinear samples and Lanczos.

    The original divides the quad by the shrink factor, which moves the crop by up to half a shrunk pixel;
    `half_pixel` shrinks it about the photo's corner, as the pixels are.
    """
    image = Image.fromarray(rgb)
    quad = quad.copy()
    side = float(np.hypot(*(quad[3] - quad[0])))
    if (factor := int(side / size * 0.5)) > 1:
        small = (int(np.rint(image.width / factor)), int(np.rint(image.height / factor)))
        if half_pixel:
            quad = (quad + 0.5) * [small[0] / image.width, small[1] / image.height] - 0.5
        else:
            quad /= factor
        image = image.resize(small, Image.Resampling.LANCZOS)
        side /= factor
    border = max(int(np.rint(side * 0.1)), 3)
    x0, y0 = np.maximum(np.floor(quad.min(axis=0)).astype(int) - border, 0)
    x1, y1 = np.minimum(np.ceil(quad.max(axis=0)).astype(int) + border, image.size)
    image = image.crop((x0, y0, x1, y1))
    quad -= [x0, y0]
    low = border - np.floor(quad.min(axis=0)).astype(int)
    high = np.ceil(quad.max(axis=0)).astype(int) + border - image.size
    if max(*low, *high) > border - 4:
        least = int(np.rint(side * 0.3))
        low, high = np.maximum(low, least), np.maximum(high, least)
        image = Image.fromarray(_padded(np.asarray(image, dtype=np.float32), low, high, side * 0.02))
        quad += low
    corners = tuple((quad + 0.5).ravel())
    image = image.transform((4096, 4096), Image.Transform.QUAD, corners, Image.Resampling.BILINEAR)
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))


def _padded(
    pixels: NDArray[np.float32], low: NDArray[np.int_], high: NDArray[np.int_], sigma: float
) -> NDArray[np.uint8]:
    """Reflected by `low` (x, y) and `high` pixels, blurred and faded to the median towards the new border."""
    wide = np.pad(pixels, ((low[1], high[1]), (low[0], high[0]), (0, 0)), mode="reflect")
    y, x = np.ogrid[: wide.shape[0], : wide.shape[1]]
    across = 1 - np.minimum(x / low[0], (wide.shape[1] - 1 - x) / high[0])
    down = 1 - np.minimum(y / low[1], (wide.shape[0] - 1 - y) / high[1])
    mask = np.maximum(across, down)[..., None]
    wide = wide + (scipy.ndimage.gaussian_filter(wide, [sigma, sigma, 0]) - wide) * np.clip(3 * mask + 1, 0, 1)
    wide = wide + (np.median(wide, axis=(0, 1)) - wide) * np.clip(mask, 0, 1)
    return np.asarray(np.clip(np.rint(wide), 0, 255), np.uint8)


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of two 8-bit images, dB."""
    return float(10 * np.log10(255**2 / max(float(((a.astype(float) - b) ** 2).mean()), 1e-9)))
