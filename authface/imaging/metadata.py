"""Metadata of an image file, read from Pillow's image: orientation, EXIF, resolution, compression."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageOps, JpegImagePlugin


@dataclass(frozen=True)
class JpegStyle:
    """How a JPEG was compressed."""

    tables: tuple[tuple[int, ...], ...]
    """Its quantisation tables of 64 numbers, luminance first."""
    subsampling: int
    """0: 4:4:4, 1: 4:2:2, 2: 4:2:0; -1: one channel, or a scheme that is not written."""
    progressive: bool


_LAYOUT_TAGS = frozenset(
    (*range(254, 260), 262, 266, 273, *range(277, 280), 284, 317, 320, *range(322, 326), 330, 338, 339, 347)
    + (*range(529, 533), 700, 34675, 52545)
)
"""TIFF tags of size, compression, palette, strips and tiles: true of the file that was read, not of the one written;
those of XMP and of the profile, which are carried apart; and that of the C2PA manifest, true of other bytes."""


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1..8, of an image that is not decoded yet."""
    try:
        found = image.getexif().get(0x0112, 1)
    except Exception:  # noqa: BLE001  broken EXIF comes as any error of the TIFF reader; it then turns nothing
        return 1
    return found if found in range(1, 9) else 1


def upright(image: Image.Image) -> bytes:
    """The image turned upright by its EXIF, and its EXIF without orientation and layout tags."""
    try:
        ImageOps.exif_transpose(image, in_place=True)  # a copy would lose the tags of a TIFF
        exif = image.getexif()
        for tag in _LAYOUT_TAGS & set(exif):
            del exif[tag]
        return exif.tobytes() if len(exif) else b""
    except Exception:  # noqa: BLE001  broken EXIF comes as any error of the TIFF reader; the pixels are still good
        return b""


def dpi_of(image: Image.Image) -> tuple[float, float] | None:
    """Dots per inch, if the file has a plausible value."""
    try:
        x, y = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if 1 < x < 1e5 and 1 < y < 1e5 else None


def jpeg_style(image: Image.Image) -> JpegStyle | None:
    """How a JPEG was compressed; None for other formats, and for inks, which are not written."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or image.mode == "CMYK":
        return None
    tables = tuple(tuple(image.quantization[i]) for i in sorted(image.quantization))
    progressive = bool(image.info.get("progressive"))
    return JpegStyle(tables, JpegImagePlugin.get_sampling(image), progressive) if tables else None
