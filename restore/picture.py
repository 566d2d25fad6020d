"""Photos in memory: read from any input that callers pass, and encoded as results: marked if faces were generated.

Settings are embedded and a signature is put in if requested. A map shows where and how strongly a photo was altered:
colour differences on a perceptual scale over the dimmed photo.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from authface.errors import ImageError, UsageError, one_line
from authface.files import write_file
from authface.imaging import decode as images
from authface.imaging.encode import FORMATS_OF_16_BITS, describe, encode, has_room
from authface.imaging.metadata import CREDENTIALS, MANIFEST_MEDIA
from authface.imaging.png import Pixels, to_8_bits
from authface.imaging.xmp import is_readable, without_padding
from authface.restore.inputs import ENDINGS
from authface.restore.mark import Asset, Credentials, Mark
from authface.restore.model.crops import ciede2000, lab_of_srgb
from authface.restore.photo import FaceResult, PhotoResult
from authface.store.restore_log import LOG

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

    @property
    def ending(self) -> str:
        """The file extension of the photo's own format, ``.png`` if that cannot be written."""
        return ENDING_OF.get(self.photo.format, ".png")

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


def check_size(width: int, height: int, scale: int) -> None:
    """Raise ImageError (`too_large`) if the enlarged photo would be larger than authface reads and writes."""
    pixels = width * height * scale * scale
    if scale > 1 and pixels > images.MAX_PIXELS:
        fits = next((smaller for smaller in (2, 1) if width * height * smaller**2 <= images.MAX_PIXELS), 1)
        raise ImageError(
            "too_large",
            f"{width} x {height} at --upscale {scale} is {pixels / 1e6:.0f} megapixels, the limit is "
            f"{images.MAX_PIXELS / 1e6:.0f}: --upscale {fits}, or a smaller photo",
        )


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


@dataclass(frozen=True)
class Finish:
    """How every result of a run is finished."""

    mark: Mark
    quality: int = 0
    """Quality of JPEG and WebP; 0 keeps that of a good JPEG."""
    settings: Mapping[str, Any] | None = None
    """Settings to embed in the files, with each photo's faces; None: nothing is embedded."""
    credentials: Credentials | None = None
    """The signer; None: results are not signed."""

    def encoded(self, picture: Picture, result: PhotoResult, format: str, title: str) -> Encoded:
        """The result as a file in `format`.

        If no pixel and no format changed, it is the picture's own file, byte for byte. If no face changed, it is
        neither marked nor signed. `title` is its name in its credentials. Raises ImageError as
        `authface.imaging.encode.encode` does, and if a file cannot be signed.
        """
        if not result.changed:
            return picture.encoded(result.rgb, format, self.quality)
        mark = replace(self.mark, settings=self.settings_text(result))
        xmp, lost = _packet(mark, picture.photo.xmp, format)
        made = picture.encoded(result.rgb, format, self.quality, xmp)
        made = replace(made, losses=(*made.losses, *lost))
        if self.credentials is None:
            return made
        out = io.BytesIO()
        self.credentials.sign(Asset(io.BytesIO(made.data), format), _original(picture), out, title, mark)
        kept = tuple(line for line in made.losses if CREDENTIALS not in line)  # they are the ingredient's
        return Encoded(out.getvalue(), f"{made.encoding}, signed", kept)

    def settings_text(self, result: PhotoResult | None = None) -> str:
        """JSON of the settings with the faces of a photo; empty if they are not embedded."""
        if self.settings is None:
            return ""
        faces = [{name: face.facts()[name] for name in _TOLD} for face in result.faces] if result else []
        return json.dumps({**self.settings, "faces": faces} if result else self.settings, separators=(",", ":"))


def _packet(mark: Mark, before: bytes, format: str) -> tuple[bytes, list[str]]:
    """The marked packet of a result whose photo has the packet `before`, and its losses, a line each.

    If room is short, its padding is dropped first, then the settings, then the photo's own packet, never the mark.
    """
    lost = [] if is_readable(before) else ["the result does not keep its XMP, which is no XML"]
    whole = mark.packet(before)
    bare = replace(mark, settings="")
    no_settings = f"{format} has no room for the settings inside: see {LOG}"
    no_xmp = f"{format} has no room for its XMP beside the mark: png, tiff and webp have"
    choices: list[tuple[bytes, list[str]]] = [(whole, []), (without_padding(whole), [])]
    if mark.settings:
        choices.append((without_padding(bare.packet(before)), [no_settings]))
    if before:
        choices.append((mark.packet(), [no_xmp]))
    choices.append((bare.packet(), [*([no_xmp] if before else []), *([no_settings] if mark.settings else [])]))
    packet, missing = next((one for one in choices if has_room(format, one[0])), choices[-1])
    return packet, lost + missing


_TOLD = ("box", "status", "reason", "identity", "suspect", "fidelity")


def _original(picture: Picture) -> Asset:
    """The input as an asset; for pixels, and for a file that cannot hold credentials, a PNG of its pixels."""
    if picture.data and picture.photo.format in MANIFEST_MEDIA:
        return Asset(io.BytesIO(picture.data), picture.photo.format)
    return Asset(io.BytesIO(images.encode_png(picture.photo.rgb)), "PNG")


@dataclass(frozen=True)
class Restored:
    """The result of `Restorer.restore`."""

    source: Picture
    """The input photo; `source.photo` has its profile, EXIF and alpha."""
    result: PhotoResult
    finish: Finish
    """How it is written as a file."""

    @property
    def image(self) -> NDArray[np.uint8]:
        """(h, w, 3) RGB, upright, `upscale` times as large, in the colour space of its file (`source.photo.icc`)."""
        return to_8_bits(self.result.rgb)

    @property
    def pixels(self) -> Pixels:
        """The same, of 16 bits if the photo had them."""
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
        """The file extension of the photo's own format, ``.png`` if that cannot be written."""
        return self.source.ending

    def change_map(self) -> NDArray[np.uint8]:
        """(h, w, 3) where and how strongly the photo was altered, at most 2,048 px a side, over a scale."""
        return change_map(self.result.background, self.result.rgb)

    def encoded(self, ending: str = "") -> bytes:
        """The result as a file of that ending, or of the photo's own, with all its metadata; see `Finish.encoded`.

        Losses are warnings of the logger `authface`. Raises UsageError for an ending that is not
        written, ImageError for too large a picture.
        """
        format = ENDINGS.get((ending or self.ending).lower())
        if format is None:
            raise UsageError(f"{one_line(ending)} is not written: there are {', '.join(ENDINGS)}")
        made = self.as_file(format)
        for loss in made.losses:
            logging.getLogger("authface").warning("%s", loss)
        return made.data

    def as_file(self, format: str) -> Encoded:
        """The result as a file in a format of Pillow's name. Raises ImageError."""
        title = self.source.path.name if self.source.path else "photo"
        return self.finish.encoded(self.source, self.result, format, title)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the result in the format of the path's extension; see `encoded`. Raises AuthfaceError.

        The photo's own file is never overwritten (UsageError).
        """
        target = Path(path)
        source = self.source.path
        if source is not None and os.path.realpath(target) == os.path.realpath(source):
            raise UsageError(f"{one_line(target)} is the input itself: originals are not overwritten")
        data = self.encoded(target.suffix or "(no ending)")
        write_file(target, data)
        return target


MAX_MAP_SIDE = 2048
"""Longer side of the map, pixels; a larger photo is averaged."""
FULL = 20.0
"""CIEDE2000 at the end of the scale; larger ones look the same."""
JUST_VISIBLE = 1.0
"""CIEDE2000 above which a difference is visible side by side, and shown in the map."""
CLEARLY_VISIBLE = 3.0
"""CIEDE2000 above which the colours are opaque."""
DIM = 0.4
"""Brightness of the photo under the colours."""
LEGEND = 28
"""Rows of the scale under the photo, pixels."""


def change_map(before: Pixels, after: Pixels) -> NDArray[np.uint8]:
    """The map of two (h, w, 3) pictures of one shape, as (h', w', 3) uint8 RGB; the scale is its last rows.

    Colours run with CIEDE2000 (Sharma et al. 2005) from 0 to 20 and more over the perceptually uniform scale
    `inferno`; pixels are taken as sRGB. Unchanged pixels are the photo in dimmed grey.
    """
    old, new = _small(before), _small(after)
    difference = delta_e(old, new)
    colours = cv2.applyColorMap(np.rint(np.clip(difference / FULL, 0, 1) * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    share = np.clip((difference - JUST_VISIBLE) / (CLEARLY_VISIBLE - JUST_VISIBLE), 0, 1)[..., None].astype(np.float32)
    dimmed = np.repeat(cv2.cvtColor(old, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2) * np.float32(DIM)
    mixed = dimmed + share * (colours[..., ::-1] - dimmed)
    return np.concatenate([np.rint(mixed).astype(np.uint8), _legend(old.shape[1])])


def delta_e(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(h, w) CIEDE2000 of two (h, w, 3) uint8 sRGB pictures; 0 exactly where they are equal."""
    difference = np.zeros(before.shape[:2], np.float32)
    changed = (before != after).any(axis=2)
    if changed.any():
        # Of the pixels that changed alone: most of a photo did not.
        old, new = (lab_of_srgb(picture[changed].astype(np.float32) / 255) for picture in (before, after))
        difference[changed] = ciede2000(old, new)
    return difference


def _small(picture: Any) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    scale = MAX_MAP_SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), picture.dtype)
    return to_8_bits(picture)


def _legend(width: int) -> NDArray[np.uint8]:
    """(LEGEND, width, 3) the scale from 0 to `FULL`, with its ends labelled if there is room."""
    steps = np.rint(np.linspace(0, 255, width)).astype(np.uint8)[None]
    bar = np.repeat(cv2.applyColorMap(steps, cv2.COLORMAP_INFERNO)[..., ::-1], LEGEND, axis=0)
    bar = np.ascontiguousarray(bar)
    for text, place, colour in (("0", 4, 255), (f"{FULL:g}+ CIEDE2000", width - 138, 0)):
        if width >= 320:
            cv2.putText(bar, text, (place, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (colour,) * 3, 1, cv2.LINE_AA)
    return bar
