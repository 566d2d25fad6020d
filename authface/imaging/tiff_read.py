"""A TIFF as a photo: its first page upright, and its metadata."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from authface.errors import ImageError
from authface.imaging import tiff_directory as tags
from authface.imaging.bitdepth import Pixels, to_8_bits, turned
from authface.imaging.extras import CREDENTIALS, Extras, TiffPage, kept_resources
from authface.imaging.tiff_directory import Directory, classic_header, read_pages, write_directory
from authface.imaging.tiff_samples import TiffSamples, read_samples, size_of

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
    """A page with its strips or tiles; None if they are damaged, or stored as in TIFF 6.0's own JPEG."""
    tiled = tags.TILES in page.entries
    places = page.numbers(tags.TILES if tiled else tags.STRIPS)
    sizes = page.numbers(tags.TILE_SIZES if tiled else tags.STRIP_SIZES)
    chunks = tuple(data[at : at + size] for at, size in zip(places, sizes, strict=False))
    whole = (
        len(places)
        == len(sizes)
        == len([True for chunk, size in zip(chunks, sizes, strict=True) if len(chunk) == size])
    )
    return TiffPage(page, chunks) if whole and chunks and tags.JPEG_PLACE not in page.entries else None


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
