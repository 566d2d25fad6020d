"""Lossless TIFF of 8 or 16 bits a channel with its metadata: EXIF, ICC profile, XMP, resolution."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray
from PIL import Image

from authface.imaging.bitdepth import Pixels
from authface.imaging.extras import Extras, TiffPage
from authface.imaging.tiff_directory import (
    STRIP_SIZES,
    STRIPS,
    SUB_DIRECTORIES,
    TILE_SIZES,
    TILES,
    longs,
    write_directory,
)

STRIP_BYTES = 1 << 20
"""Approximate bytes of the picture per compressed strip."""
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
    extras: Extras | None = None,
) -> bytes:
    """(h, w) grey or (h, w, 2..4) grey with alpha, RGB, RGB with alpha as a TIFF 6.0 file.

    Strips are deflated after horizontal differencing (TIFF 6.0, section 14; Adobe's deflate). `exif` is a block as
    Pillow gives it; its tags become the file's own. Of `extras` it takes Photoshop's resources, IPTC and further pages,
    whose byte order becomes that of the file.
    """
    height, width = pixels.shape[:2]
    samples = pixels.reshape(height, width, -1)
    channels = samples.shape[2]
    tags: Any = Image.Exif()
    tags.endian = "<"
    if exif:
        tags.load(exif)
    pages = () if extras is None else extras.pages
    if pages:
        tags.endian = pages[0].directory.order
    tags[256], tags[257], tags[259], tags[317] = width, height, DEFLATE, HORIZONTAL
    tags[258] = (8 * pixels.itemsize,) * channels
    tags[262], tags[277], tags[284] = (GREY if channels < 3 else RGB), channels, 1
    if channels in {2, 4}:
        tags[338] = UNASSOCIATED_ALPHA
    iptc, photoshop = (b"", b"") if extras is None else (extras.iptc, extras.photoshop)
    for tag, value in ((34675, icc), (700, xmp), (33723, iptc), (34377, photoshop)):
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
    first = b"".join([tags.tobytes().removeprefix(b"Exif\0\0"), *strips])
    return _followed(first, order, pages) if pages else first


def _followed(file: bytes, order: Literal["<", ">"], pages: Sequence[TiffPage]) -> bytes:
    """A one-page file, whose directory is at byte 8, followed by pages copied from another file of its byte order."""
    first = file + b"\0" * (len(file) % 2)
    (entries,) = struct.unpack_from(order + "H", file, 8)
    links = 8 + 2 + 12 * entries
    at = len(first)
    parts: list[bytes | memoryview] = [first[:links], struct.pack(order + "L", at), first[links + 4 :]]
    for i, page in enumerate(pages):
        sizes = [len(chunk) for chunk in page.chunks]
        place, lengths = (TILES, TILE_SIZES) if TILES in page.directory.entries else (STRIPS, STRIP_SIZES)
        own = {tag: entry for tag, entry in page.directory.entries.items() if tag != SUB_DIRECTORIES}
        entries_of = own | {place: longs(order, *sizes), lengths: longs(order, *sizes)}
        start = at + len(write_directory(replace(page.directory, entries=entries_of), at))
        ends = np.cumsum([start, *sizes]).tolist()
        end = ends[-1] + ends[-1] % 2
        entries_of[place] = longs(order, *ends[:-1])
        following = end if i + 1 < len(pages) else 0
        parts += [write_directory(replace(page.directory, entries=entries_of), at, following), *page.chunks]
        parts.append(b"\0" * (end - ends[-1]))
        at = end
    return b"".join(parts)


def _deflate(rows: NDArray[np.generic], order: Literal["<", ">"]) -> bytes:
    steps = rows.copy()
    np.subtract(rows[:, 1:], rows[:, :-1], out=steps[:, 1:])
    return bytes(isal_zlib.compress(steps.astype(steps.dtype.newbyteorder(order), copy=False).tobytes(), _LEVEL))
