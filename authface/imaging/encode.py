"""Save a changed photo like its source file: format, depth, alpha, profile, EXIF, XMP, resolution, quality."""

from __future__ import annotations

import io
from typing import Any, cast

import cv2
import numpy as np
from PIL import Image

from authface.errors import ImageError
from authface.imaging import png, tiff
from authface.imaging.decode import Decoded
from authface.imaging.metadata import JpegStyle, with_segments
from authface.imaging.png import Pixels, is_grey, to_8_bits

QUALITY = 95
"""Quality of JPEG and WebP if the input's is not kept."""
KEEP_QUALITY = 90
"""Lowest quality at which a JPEG's tables are kept: coarser ones would lose the detail of a restored face."""
FORMATS_OF_16_BITS = frozenset({"PNG", "TIFF"})

MAX_SIDE = {"JPEG": 65_500, "WEBP": 16_383}
"""Longest side of a format, pixels: the limits of libjpeg and libwebp."""
_GREY_ALPHA = {1: {"PNG", "TIFF"}, 2: {"PNG"}}
"""Formats that hold grey with alpha, by bytes per channel; Pillow cannot read such a TIFF of 16 bits."""
_JPEG_SEGMENT = 65533
"""Longest EXIF block of a JPEG, bytes: a segment's length has 16 bits and counts itself."""
_JPEG_XMP = 65504
"""Longest XMP packet in one segment of a JPEG, beside its name (XMP specification part 3, 1.1.3)."""
_STANDARD_LUMA = 57.625
"""Mean of the luminance table of quality 50 (ITU-T T.81, K.1)."""
_EXIF_IFD, _WIDTH, _HEIGHT = 0x8769, 0xA002, 0xA003


def encode(decoded: Decoded, pixels: Pixels, format: str, *, quality: int = 0) -> bytes:
    """`pixels`, (h, w, 3) of 8 or 16 bits, in `format`, with all else as in `decoded`, whose own pixels may be fewer.

    `format` is ``JPEG``, ``PNG``, ``WEBP`` or ``TIFF``. PNG and TIFF keep 16 bits, the others are written with 8.
    `quality` 1..100 is that of JPEG and WebP; 0 keeps the tables and the subsampling of a JPEG of quality 90 and
    more, and a WebP without loss; else it is 95, in JPEG at full colour resolution, as where the input's subsampling
    is one that is not written (4:1:1, 4:4:0). JPEG has no alpha, which is laid over white, and no room for more than
    64 kB of EXIF or XMP, which are then left out. `Decoded.extras` says what else is kept.
    Raises ImageError (`unsupported_mode`) where the format cannot hold so large a picture.
    """
    if format not in FORMATS_OF_16_BITS:
        pixels = to_8_bits(pixels)
    alpha = _alpha(decoded, pixels)
    if alpha is None and decoded.grey and is_grey(pixels):
        pixels = pixels[..., 0]
    elif alpha is not None and format != "JPEG":
        single = decoded.grey and format in _GREY_ALPHA[pixels.dtype.itemsize] and is_grey(pixels)
        colours = pixels[..., :1] if single else pixels
        pixels = cast("Pixels", np.dstack([colours, alpha]))
    icc = decoded.icc if (decoded.icc[16:20] == b"GRAY") == (pixels.ndim == 2 or pixels.shape[2] == 2) else b""
    height, width = pixels.shape[:2]
    exif = _sized(decoded.exif, width, height)
    if format == "PNG":
        extras = decoded.extras
        told = png.metadata_chunks(icc, exif, decoded.xmp, decoded.dpi, extras.comments, extras.photoshop)
        return png.encode(pixels, [*decoded.png_chunks, *told])
    if format == "TIFF":
        return tiff.encode(pixels, exif, icc, decoded.xmp, decoded.dpi, decoded.extras)
    options = _options(decoded, format, quality)
    if exif and not (format == "JPEG" and len(exif) > _JPEG_SEGMENT):
        options["exif"] = exif
    if decoded.xmp and has_room(format, decoded.xmp):
        options["xmp"] = decoded.xmp
    if icc:
        options["icc_profile"] = icc
    if format == "JPEG" and alpha is not None:
        pixels = _over_white(pixels, alpha)
    saved = _save(pixels, format, options)
    return with_segments(saved, decoded.extras) if format == "JPEG" else saved


def has_room(format: str, xmp: bytes) -> bool:
    """Whether the format holds an XMP packet of this length."""
    return format != "JPEG" or len(xmp) <= _JPEG_XMP


def check_sides(format: str, width: int, height: int) -> None:
    """Raise ImageError (`too_large`) where the format cannot hold so wide or high a picture."""
    most = MAX_SIDE.get(format, width + height)
    if max(width, height) > most:
        held = f"{format} holds at most {most} px a side"
        raise ImageError("too_large", f"{width} x {height}, {held}: write png or tiff (restore.format)")


def describe(decoded: Decoded, format: str, wide: bool, quality: int = 0) -> str:
    """How `encode` compresses, as a short text for a log."""
    if format in FORMATS_OF_16_BITS:
        return f"{format}, {16 if wide else 8} bits, lossless"
    if format == "WEBP":
        return "WEBP, lossless" if decoded.lossless_webp and not quality else f"WEBP, quality {quality or QUALITY}"
    style = decoded.jpeg if not quality else None
    if style is not None and quality_of(style) >= KEEP_QUALITY:
        kept = "tables and subsampling" if style.subsampling >= 0 or decoded.grey else "4:4:4, tables"
        return f"JPEG, {kept} of the input (quality about {quality_of(style)})"
    return f"JPEG, quality {quality or QUALITY}, 4:4:4"


def quality_of(style: JpegStyle) -> int:
    """The quality 1..100 at which libjpeg's luminance table is about as fine."""
    scale = 100 * float(np.mean(style.tables[0])) / _STANDARD_LUMA
    return int(np.clip(round((200 - scale) / 2 if scale <= 100 else 5000 / scale), 1, 100))


def _options(decoded: Decoded, format: str, quality: int) -> dict[str, Any]:
    if format == "WEBP":
        # `exact`: the colours of what is transparent stay, too
        return {
            "lossless": decoded.lossless_webp and not quality,
            "quality": quality or QUALITY,
            "method": 4,
            "exact": True,
        }
    options: dict[str, Any] = {"dpi": decoded.dpi} if decoded.dpi else {}
    style = decoded.jpeg
    if style is None or quality or quality_of(style) < KEEP_QUALITY:
        progressive = style is not None and style.progressive
        return options | {"quality": quality or QUALITY, "subsampling": 0, "progressive": progressive}
    tables = {"qtables": [list(table) for table in style.tables], "progressive": style.progressive}
    return options | tables | {"subsampling": max(style.subsampling, 0)}


def _save(pixels: Pixels, format: str, options: dict[str, Any]) -> bytes:
    height, width = pixels.shape[:2]
    buffer = io.BytesIO()
    try:
        Image.fromarray(pixels).save(buffer, format, **options)
    except (OSError, ValueError) as error:
        raise ImageError("unsupported_mode", f"{format} cannot hold {width} x {height}: {error}") from error
    return buffer.getvalue()


def _alpha(decoded: Decoded, pixels: Pixels) -> Pixels | None:
    """(h, w) the alpha at the size and depth of `pixels`."""
    if decoded.alpha is None:
        return None
    alpha: Any = decoded.alpha
    if pixels.dtype == np.uint16:
        alpha = decoded.alpha.astype(np.uint16) * 257 if decoded.alpha16 is None else decoded.alpha16
    height, width = pixels.shape[:2]
    if alpha.shape != (height, width):
        alpha = cv2.resize(alpha, (width, height), interpolation=cv2.INTER_LANCZOS4)
    return np.asarray(alpha)


def _over_white(pixels: Pixels, alpha: Pixels) -> Pixels:
    picture = Image.fromarray(pixels)
    white = Image.new("RGB", picture.size, (255, 255, 255))
    return np.asarray(Image.composite(picture, white, Image.fromarray(alpha)))


def _sized(exif: bytes, width: int, height: int) -> bytes:
    """The EXIF block with its picture size, if it has one, set to the size that is written."""
    block: Any = Image.Exif()
    if not exif:
        return exif
    block.load(exif)
    inner = block.get_ifd(_EXIF_IFD)
    if {_WIDTH, _HEIGHT}.isdisjoint(inner) or (inner.get(_WIDTH), inner.get(_HEIGHT)) == (width, height):
        return exif
    inner[_WIDTH], inner[_HEIGHT] = width, height
    return bytes(block.tobytes())
