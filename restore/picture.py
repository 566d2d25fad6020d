"""Photos in memory: read from any input that callers pass, and encoded as files again."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image as Pillow

from authface.errors import UsageError
from authface.imaging import decode as images
from authface.imaging.bitdepth import Pixels, to_8_bits
from authface.imaging.encode import FORMATS_OF_16_BITS, describe, encode

Image: TypeAlias = "str | os.PathLike[str] | bytes | Pillow.Image | Pixels | Picture"
"""A path, a file's bytes, a PIL image, (h, w, 3) pixels of 8 or 16 bits, or one of them read by `open_picture`."""

_MODES = frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"})
"""Modes of Pillow that PNG stores unchanged."""
ENDING_OF = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif"}
"""Extension of a result by the format of its photo, if that can be written."""


@dataclass(frozen=True)
class Encoded:
    """A picture as a file."""

    data: bytes
    encoding: str
    """Compression, as a text for the log."""
    losses: tuple[str, ...] = ()
    """Content of the picture that it loses, a line each."""


@dataclass(frozen=True)
class Picture:
    """A photo in memory."""

    photo: images.Decoded
    content: str
    """Hash of its file, or of its pixels without one: the seed of its faces' noise."""
    data: bytes = b""
    """Its file, if it was read from one."""
    path: Path | None = None

    @property
    def pixels(self) -> Pixels:
        """The pixels that are written back: of 16 bits, if the file has them."""
        return self.photo.rgb if self.photo.rgb16 is None else self.photo.rgb16

    @property
    def alpha(self) -> Pixels | None:
        """(h, w) that goes with `pixels`."""
        return self.photo.alpha if self.photo.alpha16 is None else self.photo.alpha16

    def encoded(self, pixels: Pixels, format: str, quality: int = 0, xmp: bytes | None = None) -> Encoded:
        """The picture with other pixels as a file, and with another XMP packet, if `xmp` is one.

        If no pixel and no format changed, it is the picture's own file, byte for byte. Raises ImageError as
        `encode` does.
        """
        same_format = {"MPO": "JPEG"}.get(self.photo.format, self.photo.format) == format
        own = self.pixels
        if self.data and same_format and pixels.shape == own.shape and np.array_equal(pixels, own):
            return Encoded(self.data, "the input, byte for byte")
        encoding = describe(self.photo, format, pixels.dtype == np.uint16, quality)
        photo = self.photo if xmp is None else replace(self.photo, xmp=xmp)
        return Encoded(encode(photo, pixels, format, quality=quality), encoding, tuple(self.losses(format)))

    def losses(self, format: str) -> list[str]:
        """The picture's content that a result in `format` cannot keep, a line each."""
        photo, lost = self.photo, []
        if photo.depth > 8 and (photo.rgb16 is None or format not in FORMATS_OF_16_BITS):
            hint = ": png and tiff keep them" if photo.rgb16 is not None else ""
            lost.append(f"has {photo.depth} bits a channel, the result has 8{hint}")
        if photo.mode in {"CMYK", "LAB", "YCbCr"}:
            lost.append(f"{photo.mode} pixels, the result is sRGB")
        if photo.alpha is not None and format == "JPEG":
            lost.append("JPEG has no alpha: what is transparent becomes white")
        return lost + photo.extras.losses(format)


def open_picture(image: Image, max_pixels: int = images.MAX_PIXELS) -> Picture:
    """Read an image of any type of `Image`, of at most `max_pixels`.

    Raises ImageError for a file that is not a photo or too large, UsageError for another type.
    """
    if isinstance(image, Picture):
        return image
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        return replace(_of_file(images.read_bytes(path), max_pixels), path=path)
    if isinstance(image, bytes | bytearray | memoryview):
        return _of_file(bytes(image), max_pixels)
    if isinstance(image, np.ndarray):
        return _of_array(image)

    if isinstance(image, Pillow.Image):
        return _of_pillow(image)
    raise UsageError(
        f"an image of type {type(image).__name__}: give a path, a file's bytes, a PIL image or an (h, w, 3) uint8 array"
    )


def _of_file(data: bytes, max_pixels: int) -> Picture:
    photo = images.decode(data, to_srgb=False, max_pixels=max_pixels, keep_16_bits=True)
    return Picture(photo, hashlib.sha256(data).hexdigest(), data)


def _of_array(pixels: Any) -> Picture:
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        hint = "; of values 0..1: (255 * x).round().astype('uint8')" if pixels.dtype.kind == "f" else ""
        raise UsageError(f"an array of {pixels.dtype}, shape {pixels.shape}: (h, w, 3) uint8 RGB is needed{hint}")
    if (size := pixels.shape[0] * pixels.shape[1]) > images.MAX_PIXELS:
        raise UsageError(f"{size / 1e6:.0f} megapixels, the limit is {images.MAX_PIXELS / 1e6:.0f}: make it smaller")
    pixels = np.ascontiguousarray(pixels)
    rgb16 = pixels if pixels.dtype == np.uint16 else None
    photo = images.Decoded(to_8_bits(pixels), None, "", grey=False, exif=b"", icc=b"", mode="RGB", rgb16=rgb16)
    return Picture(photo, _digest(pixels))


def _of_pillow(image: Pillow.Image) -> Picture:
    """By way of an uncompressed PNG, so that turn, profile, palette, alpha and 16 bits are read in one place."""
    if image.mode not in _MODES:
        raise UsageError(f"a PIL image of mode {image.mode}: give its file, or image.convert('RGB')")
    options = {name: image.info[name] for name in ("exif", "icc_profile", "dpi") if image.info.get(name)}
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=0, **options)
    photo = replace(images.decode(buffer.getvalue(), to_srgb=False, keep_16_bits=True), format=image.format or "PNG")
    picture = Picture(photo, "")
    return replace(picture, content=_digest(picture.pixels))


def _digest(pixels: Pixels) -> str:
    return hashlib.sha256(f"{pixels.dtype} {pixels.shape}\n".encode() + pixels.tobytes()).hexdigest()
