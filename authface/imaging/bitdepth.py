"""Pixels of 8 and 16 bits; the 16 bits of a PNG, which Pillow reads as 8."""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.errors import ImageError, one_line

Pixels: TypeAlias = "NDArray[np.uint8] | NDArray[np.uint16]"
"""A picture of 8 or of 16 bits a channel."""

P = TypeVar("P", NDArray[np.uint8], NDArray[np.uint16], Pixels)

TOLERANCE = 1
"""Largest difference, in levels of 255, of 16-bit pixels from the same picture read with 8 bits: rounding."""


def read_16_bits(
    data: bytes, orientation: int, shallow: NDArray[np.uint8]
) -> tuple[NDArray[np.uint16], NDArray[np.uint16] | None] | None:
    """(h, w, 3) uint16 pixels and (h, w) alpha, upright, of a PNG; None where it has 8 bits or less.

    `orientation` is that of its EXIF block, `shallow` the picture as Pillow read it with 8 bits, upright. Raises
    ImageError (`readers_disagree`) where OpenCV, which reads the 16 bits, decodes other pixels than Pillow.
    """
    if not is_deep_png(data):
        return None
    try:
        read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise _disagree(one_line(error)) from error
    if read is None or read.dtype != np.uint16:
        raise _disagree("one reads 16 bits, the other none")
    pixels = turned(read if read.ndim == 3 else read[..., None], orientation)
    if pixels.shape[:2] != shallow.shape[:2]:
        raise _disagree(f"{pixels.shape[1]} x {pixels.shape[0]} and {shallow.shape[1]} x {shallow.shape[0]}")
    channels = pixels.shape[2]
    alpha = np.ascontiguousarray(pixels[..., -1]) if channels in {2, 4} else None
    rgb = pixels[..., 2::-1] if channels > 2 else np.repeat(pixels[..., :1], 3, axis=2)
    rgb = np.ascontiguousarray(rgb)
    apart = np.abs(to_8_bits(rgb).astype(np.int16) - shallow).max(initial=0)
    if apart > TOLERANCE:
        raise _disagree(f"they differ by up to {apart} of 255 levels")
    return rgb, alpha


def is_deep_png(data: bytes) -> bool:
    """Whether it is a PNG of 16 bits a channel."""
    return data.startswith(b"\x89PNG") and data[24] == 16  # the bit depth in IHDR, PNG 11.2.2


def _disagree(how: str) -> ImageError:
    return ImageError("readers_disagree", f"two readers see two pictures in it ({how}): save it anew")


def to_8_bits(wide: Pixels) -> NDArray[np.uint8]:
    """The nearest 8-bit levels: 0 stays 0, and 65535 becomes 255; 8 bits stay as they are."""
    if wide.dtype == np.uint8:
        return np.asarray(wide, np.uint8)
    return np.asarray(((wide.astype(np.uint32) + 128) // 257).astype(np.uint8))


def turned(stored: P, orientation: int) -> P:
    """(h, w, ...) pixels upright, from one of the eight orientations of EXIF (tag 0x0112)."""
    pixels: Any = stored
    if orientation in {5, 6, 7, 8}:
        pixels = pixels.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return cast("P", np.ascontiguousarray(pixels))


def is_grey(pixels: Pixels) -> bool:
    """Whether every pixel of an (h, w, 3) photo has equal channels."""
    return bool(np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 1], pixels[..., 2]))
