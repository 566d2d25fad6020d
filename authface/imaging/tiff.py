"""TIFF: its first page upright as a photo, with its metadata; written lossless, of 8 or 16 bits a channel."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray
from PIL import Image

from authface.errors import ImageError
from authface.imaging import tiff_directory as tags
from authface.imaging.metadata import CREDENTIALS, Extras, TiffPage, kept_resources
from authface.imaging.png import Pixels, to_8_bits, turned
from authface.imaging.tiff_directory import (
    STRIP_SIZES,
    STRIPS,
    SUB_DIRECTORIES,
    TILE_SIZES,
    TILES,
    Directory,
    classic_header,
    longs,
    read_pages,
    write_directory,
)
from authface.imaging.tiff_samples import TiffSamples, read_samples, size_of

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


_LAYOUT = frozenset(
    (*range(254, 260), 262, 263, 266, 273, 274, *range(277, 281), 284, *range(288, 294), 297, 301, 317, 320)
    + (*range(322, 326), 330, 332, 333, 334, 336, *range(338, 344), 347, *range(512, 522), *range(529, 533))
    + (tags.XMP, tags.PROFILE, tags.IPTC, tags.PHOTOSHOP, tags.LAYERS)
)
"""Tags of the file's layout, palette and inks; those that are handled elsewhere; and Photoshop's
layers, which show the old picture."""
_REDUCED = 1
"""Bit of NewSubfileType: a smaller copy of another page."""


@dataclass(frozen=True)
class TiffPhoto:
    """The first page, upright."""

    image: Image.Image
    """Of 8 bits, with EXIF, profile, XMP and resolution in its `info`."""
    alpha: Pixels | None
    deep: NDArray[np.uint16] | None
    """(h, w, 3), where a grey or RGB page has more than 8 bits."""
    depth: int
    extras: Extras


def open_tiff(data: bytes, check: Callable[[int, int], None]) -> TiffPhoto:
    """The first page of a TIFF or BigTIFF; `check(width, height)` refuses one that is too large before it is read.

    Raises ImageError (`not_an_image`, `truncated`, `too_large`, `unsupported_mode`).
    """
    page, *further = read_pages(data)
    others = [other for other in further if not other.number(tags.NEW_SUBFILE) & _REDUCED]
    if page.number(tags.NEW_SUBFILE) & _REDUCED and (others or tags.SUB_DIRECTORIES in page.entries):
        raise ImageError("unsupported_mode", "a TIFF that begins with a preview, such as a raw photo: export it")
    check(*size_of(page))
    samples = _upright(read_samples(data, page), page.number(tags.ORIENTATION, 1))
    mode = {"grey": "L", "rgb": "RGB", "cmyk": "CMYK"}[samples.space]
    image = Image.frombuffer(mode, samples.pixels.shape[1::-1], to_8_bits(samples.pixels).tobytes(), "raw", mode, 0, 1)
    image.format = "TIFF"
    image.info.update(_info(page))
    is_deep = samples.pixels.dtype == np.uint16 and samples.space != "cmyk"
    deep = np.asarray(samples.pixels, np.uint16) if is_deep else None
    if deep is not None and deep.ndim == 2:
        deep = np.repeat(deep[..., None], 3, axis=2)
    return TiffPhoto(image, samples.alpha, deep, samples.depth, _extras(data, page, others, samples.others))


def _upright(samples: TiffSamples, orientation: int) -> TiffSamples:
    alpha = None if samples.alpha is None else turned(samples.alpha, orientation)
    return replace(samples, pixels=turned(samples.pixels, orientation), alpha=alpha)


def _extras(data: bytes, page: Directory, others: list[Directory], channels: int) -> Extras:
    """Content of the file besides the first page's colours and alpha, including `channels` of that page."""
    pages = [kept for other in others if (kept := _page(memoryview(data), other)) is not None]
    lost = []
    if channels:
        lost.append(f"{channels} further channel{'s' * (channels > 1)}, such as a saved selection")
    if tags.LAYERS in page.entries:
        lost.append("Photoshop's layers, which show the old picture")
    if tags.C2PA in page.entries:
        lost.append(CREDENTIALS)
    if len(pages) < len(others):
        lost.append(f"{len(others) - len(pages)} of its further pages, which cannot be copied")
    photoshop = kept_resources(page.bytes_of(tags.PHOTOSHOP), page.bytes_of(tags.IPTC))
    return Extras(photoshop, pages=tuple(pages), lost=tuple(lost))


def _page(data: memoryview, page: Directory) -> TiffPage | None:
    """A page with its strips or tiles; None if they do not go together, or are stored as in TIFF 6.0's own JPEG.

    Raises ImageError (`truncated`) where one lies beyond the file's end.
    """
    tiled = tags.TILES in page.entries
    places = page.numbers(tags.TILES if tiled else tags.STRIPS)
    sizes = page.numbers(tags.TILE_SIZES if tiled else tags.STRIP_SIZES)
    chunks = tuple(data[at : at + size] for at, size in zip(places, sizes, strict=False))
    for at, size, chunk in zip(places, sizes, chunks, strict=False):
        if len(chunk) < size:
            raise ImageError("truncated", f"a further page's pixels at byte {at}, of {len(data)}, are {size} bytes")
    fits = len(places) == len(sizes) > 0
    return TiffPage(page, chunks) if fits and tags.JPEG_PLACE not in page.entries else None


def _info(page: Directory) -> dict[str, Any]:
    """`Image.info` as Pillow's readers fill it."""
    info: dict[str, Any] = {}
    for name, tag in (("icc_profile", tags.PROFILE), ("xmp", tags.XMP)):
        if body := page.bytes_of(tag):
            info[name] = body
    about = {tag: entry for tag, entry in page.entries.items() if tag not in _LAYOUT}
    if about:
        block = write_directory(replace(page, entries=about), 8)
        info["exif"] = b"Exif\0\0" + classic_header(page.order) + block
    inches = {2: 1.0, 3: 2.54}.get(page.number(tags.RESOLUTION_UNIT, 2))
    across, down = page.ratio(tags.X_RESOLUTION), page.ratio(tags.Y_RESOLUTION)
    if inches and across > 0 and down > 0:
        info["dpi"] = (across * inches, down * inches)
    return info
