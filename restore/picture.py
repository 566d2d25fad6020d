"""Photos in memory: a picture as it came, from whatever a caller has, and restored; and both as files again."""

from __future__ import annotations

import hashlib
import io
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from authface.errors import UsageError, one_line
from authface.files import write_file
from authface.imaging import decode as images
from authface.imaging.bitdepth import Pixels, to_8_bits
from authface.imaging.encode import FORMATS_OF_16_BITS, describe, encode
from authface.restore.change import change_map
from authface.restore.inputs import ENDINGS
from authface.restore.types import FaceResult, PhotoResult

Image: TypeAlias = "str | os.PathLike[str] | bytes | Pillow.Image | Pixels | Picture"
"""A path, a file's bytes, a PIL image, (h, w, 3) pixels of 8 or 16 bits, or one of them read by `open_picture`."""

_MODES = frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"})
"""Modes of Pillow that a PNG holds as they are."""
_ENDING_OF = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif"}


@dataclass(frozen=True)
class Picture:
    """A photo in memory."""

    photo: images.Decoded
    content: str
    """Hash of its file, or of its pixels where it is none: what the noise of its faces is drawn from."""
    data: bytes = b""
    """Its file, if it came from one."""
    path: Path | None = None

    @property
    def pixels(self) -> Pixels:
        """Those that are written back: the 16 bits, where the file has them."""
        return self.photo.rgb if self.photo.rgb16 is None else self.photo.rgb16

    @property
    def alpha(self) -> Pixels | None:
        """(h, w) that goes with `pixels`."""
        return self.photo.alpha if self.photo.alpha16 is None else self.photo.alpha16

    def encoded(self, pixels: Pixels, format: str, quality: int = 0) -> tuple[bytes, str]:
        """The picture with other pixels as a file, and how it was compressed, for the log.

        It is the picture's own file, byte for byte, where no pixel changed and the format stays. Raises ImageError as
        `encode` does.
        """
        same_format = {"MPO": "JPEG"}.get(self.photo.format, self.photo.format) == format
        own = self.pixels
        if self.data and same_format and pixels.shape == own.shape and np.array_equal(pixels, own):
            return self.data, "the input, byte for byte"
        encoding = describe(self.photo, format, pixels.dtype == np.uint16, quality)
        return encode(self.photo, pixels, format, quality=quality), encoding

    def losses(self, format: str) -> list[str]:
        """What a result in `format` cannot keep of the picture, a line each."""
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
    """Read an image, whatever it comes as; a file of at most `max_pixels`.

    Raises ImageError for a file that is no photo or too large, UsageError for another type.
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


@dataclass(frozen=True)
class Restored:
    """What `Restorer.restore` gives."""

    source: Picture
    """The photo as it came; `source.photo` has its profile, EXIF and alpha."""
    result: PhotoResult
    quality: int = 0
    """Of JPEG and WebP; 0 keeps a good JPEG's own."""

    @property
    def image(self) -> NDArray[np.uint8]:
        """(h, w, 3) RGB, upright, `upscale` times as large, in the colour space of its file (`source.photo.icc`)."""
        return to_8_bits(self.result.rgb)

    @property
    def pixels(self) -> Pixels:
        """The same with the 16 bits of a photo that had them."""
        return self.result.rgb

    @property
    def faces(self) -> tuple[FaceResult, ...]:
        """All faces that were found, the largest first, restored or not and why."""
        return self.result.faces

    @property
    def restored(self) -> int:
        """How many faces were restored."""
        return self.result.restored

    @property
    def ending(self) -> str:
        """The file ending of the photo's own format, ``.png`` where that is not written."""
        return _ENDING_OF.get(self.source.photo.format, ".png")

    def change_map(self) -> NDArray[np.uint8]:
        """(h, w, 3) where and how strongly the photo was altered, at most 2,048 px a side, over a scale."""
        return change_map(self.result.background, self.result.rgb)

    def encoded(self, ending: str = "") -> bytes:
        """The result as a file of that ending, or of the photo's own, with all its metadata.

        Where nothing changed it is the photo's file, byte for byte. What the format cannot hold is a warning of the
        logger `authface`. Raises UsageError for an ending that is not written, ImageError for too large a picture.
        """
        format = ENDINGS.get((ending or self.ending).lower())
        if format is None:
            raise UsageError(f"{one_line(ending)} is not written: there are {', '.join(ENDINGS)}")
        made, _ = self.source.encoded(self.result.rgb, format, self.quality)
        if made is not self.source.data:
            for loss in self.source.losses(format):
                logging.getLogger("authface").warning("%s", loss)
        return made

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the result in the format of the path's ending; see `encoded`. Raises AuthfaceError where the disk does.

        The photo's own file is never overwritten (UsageError).
        """
        target = Path(path)
        source = self.source.path
        if source is not None and os.path.realpath(target) == os.path.realpath(source):
            raise UsageError(f"{one_line(target)} is the input itself: originals are not overwritten")
        data = self.encoded(target.suffix or "(no ending)")
        write_file(target, data)
        return target
