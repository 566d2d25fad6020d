"""The 16 bits of a PNG or TIFF, which Pillow reads as 8."""

from __future__ import annotations

import io
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels: TypeAlias = "NDArray[np.uint8] | NDArray[np.uint16]"
"""A picture of 8 or of 16 bits a channel."""

TOLERANCE = 1.5
"""Levels of 255 by which 16-bit pixels may differ from the same picture read with 8 bits, on average: rounding."""


def has_16_bits(data: bytes) -> bool:
    """Whether an encoded PNG or TIFF has more than 8 bits a channel."""
    if data.startswith(b"\x89PNG"):
        return data[24] == 16  # the bit depth in IHDR, PNG 11.2.2
    if not data.startswith((b"II", b"MM")):
        return False

    try:
        with Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
            depths: tuple[int, ...] = image.tag_v2.get(258, (8,))  # type: ignore[attr-defined]  # BitsPerSample, of TIFF only
            return max(depths) > 8
    except Exception:  # noqa: BLE001  on hostile bytes Pillow's readers raise nearly anything
        return False


def read_16_bits(
    data: bytes, orientation: int, shallow: NDArray[np.uint8]
) -> tuple[NDArray[np.uint16], NDArray[np.uint16] | None] | None:
    """(h, w, 3) uint16 pixels and (h, w) alpha, upright, of a PNG or TIFF of 16 bits; None where they cannot be had.

    `orientation` is that of the EXIF block of a PNG; a TIFF's own tag OpenCV follows. `shallow` is the picture as it
    was read with 8 bits, upright: pixels that do not agree with it (planes, inks and the like) are not taken.
    """
    try:
        read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if read is None or read.dtype != np.uint16:
        return None
    pixels = turned(read if read.ndim == 3 else read[..., None], orientation if data.startswith(b"\x89PNG") else 1)
    channels = pixels.shape[2]
    if channels not in {1, 2, 3, 4} or pixels.shape[:2] != shallow.shape[:2]:
        return None
    alpha = np.ascontiguousarray(pixels[..., -1]) if channels in {2, 4} else None
    rgb = pixels[..., 2::-1] if channels > 2 else np.repeat(pixels[..., :1], 3, axis=2)
    rgb = np.ascontiguousarray(rgb)
    if np.abs(to_8_bits(rgb).astype(np.int16) - shallow).mean() > TOLERANCE:
        return None
    return rgb, alpha


def to_8_bits(wide: Pixels) -> NDArray[np.uint8]:
    """The nearest 8-bit levels: 0 stays 0, and 65535 becomes 255; 8 bits stay as they are."""
    if wide.dtype == np.uint8:
        return np.asarray(wide, np.uint8)
    return np.asarray(((wide.astype(np.uint32) + 128) // 257).astype(np.uint8))


def turned(pixels: NDArray[np.uint16], orientation: int) -> NDArray[np.uint16]:
    """(h, w, ...) pixels upright, from one of the eight orientations of EXIF (tag 0x0112)."""
    if orientation in {5, 6, 7, 8}:
        pixels = pixels.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def is_grey(pixels: Pixels) -> bool:
    """Whether every pixel of an (h, w, 3) photo has equal channels."""
    return bool(np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 1], pixels[..., 2]))
