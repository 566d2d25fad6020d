"""Lossless TIFF of 8 or 16 bits a channel with its metadata: EXIF, ICC profile, XMP, resolution."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from authface.imaging.bitdepth import Pixels

STRIP_BYTES = 1 << 20
"""About so much of the picture is deflated at a time."""
_LEVEL = 3

DEFLATE, HORIZONTAL = 8, 2
GREY, RGB = 1, 2
UNASSOCIATED_ALPHA = 2


def encode(
    pixels: Pixels,
    exif: bytes = b"",
    icc: bytes = b"",
    xmp: bytes = b"",
    dpi: tuple[float, float] | None = None,
) -> bytes:
    """(h, w) grey or (h, w, 2..4) grey with alpha, RGB, RGB with alpha as a TIFF 6.0 file.

    Strips are deflated after horizontal differencing (TIFF 6.0, section 14; Adobe's deflate). `exif` is a block as
    Pillow gives it; its tags become the file's own.
    """
    height, width = pixels.shape[:2]
    samples = pixels.reshape(height, width, -1)
    channels = samples.shape[2]
    tags: Any = Image.Exif()
    tags.endian = "<"
    if exif:
        tags.load(exif)
    tags[256], tags[257], tags[259], tags[317] = width, height, DEFLATE, HORIZONTAL
    tags[258] = (8 * pixels.itemsize,) * channels
    tags[262], tags[277], tags[284] = (GREY if channels < 3 else RGB), channels, 1
    if channels in {2, 4}:
        tags[338] = UNASSOCIATED_ALPHA
    for tag, value in ((34675, icc), (700, xmp)):
        if value:
            tags[tag] = value
    if dpi is not None:
        tags[282], tags[283], tags[296] = dpi[0], dpi[1], 2
    order: Literal["<", ">"] = "<" if tags.endian == "<" else ">"
    rows = max(1, STRIP_BYTES // max(1, width * channels * pixels.itemsize))
    strips = [_deflate(samples[top : top + rows], order) for top in range(0, height, rows)]
    sizes = [len(strip) for strip in strips]
    tags[278], tags[279] = rows, tuple(sizes)
    tags[273] = tuple(np.cumsum([0, *sizes[:-1]]).tolist())  # from the end of the tags: Pillow adds where that is
    return b"".join([tags.tobytes().removeprefix(b"Exif\0\0"), *strips])


def _deflate(rows: NDArray[np.generic], order: Literal["<", ">"]) -> bytes:
    from isal import isal_zlib

    steps = rows.copy()
    np.subtract(rows[:, 1:], rows[:, :-1], out=steps[:, 1:])
    return bytes(isal_zlib.compress(steps.astype(steps.dtype.newbyteorder(order), copy=False).tobytes(), _LEVEL))
