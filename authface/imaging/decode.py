"""Decode images safely: EXIF turn, ICC to sRGB, alpha, 16 bit, CMYK, size bombs. `encode` saves them."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import threading
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from authface.errors import ImageError, one_line
from authface.extras import lack
from authface.files import is_local, why_absent
from authface.imaging import png
from authface.imaging.metadata import (
    Extras,
    JpegStyle,
    bmp_is_whole,
    depth_of_boxes,
    dpi_of,
    extras_of,
    is_hdr,
    jpeg_end,
    jpeg_style,
    orientation_of,
    riff_chunks,
    upright,
)
from authface.imaging.png import Pixels, is_deep_png, kept_chunks, read_16_bits, to_8_bits
from authface.imaging.tiff import open_tiff
from authface.imaging.tiff_directory import SIGNATURES
from authface.imaging.xmp import truthful

EXTENSIONS = {
    "JPEG": "jpg",
    "MPO": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "TIFF": "tif",
    "BMP": "bmp",
    "GIF": "gif",
    "HEIF": "heic",
    "AVIF": "avif",
}
"""Formats that can be read, by Pillow's name, and the file extension each is stored with."""

MAX_PIXELS = 178_000_000
"""Pixels of the largest photo that is decoded: Pillow refuses 179 MP and more; the largest sensors have 151 MP."""

PNG_GREY_ALPHA = 4
"""Colour type in IHDR (PNG 11.2.2); Pillow spreads it to RGB where it has 16 bits."""

_MORE = (b"", b"\x55" * 64, b"\xaa" * 64, bytes(64))
"""Bytes tried in place of the missing end of a JPEG: missing pixels would change with them."""

_plugins = threading.Lock()

_HEIF = {b"ftyp" + brand for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")}
"""Signatures of HEIC files after the first four bytes (ISO/IEC 23008-12, annex B)."""

_READ = "JPEG, PNG, WebP, TIFF, BMP, GIF, HEIC or AVIF"
"""Formats that can be read, as they are told."""
_UNREAD = (
    (re.compile(rb"P[1-7]\s"), "PPM, PGM or PBM"),
    (re.compile(rb"\0\0\0\x0cjP  |\xffO\xffQ"), "JPEG 2000"),
    (re.compile(rb"\0\0\0\x0cJXL |\xff\x0a"), "JPEG XL"),
    (re.compile(rb"8BPS"), "Photoshop"),
    (re.compile(rb"%PDF"), "PDF"),
    (re.compile(rb"v/1\x01"), "OpenEXR"),
    (re.compile(rb"\0\0\x01\0"), "icon"),
    (re.compile(rb"(?i)\s*<(!doctype html|html)"), "web page"),
)
"""First bytes of files that are taken for photos and are not read; a TGA has none that tell."""

_ANIMATED = {"GIF", "PNG", "WEBP", "AVIF"}
"""Formats whose further frames are an animation; those of MPO and TIFF are depth maps, thumbnails, pages."""


@dataclass(frozen=True)
class Decoded:
    """An upright 8-bit photo and all that a faithful save needs (`authface.imaging.encode`).

    `rgb` is (height, width, 3) uint8, `alpha` (height, width) uint8 or None. `icc` is the profile of the
    pixels: none if they were converted to sRGB. `exif` is the EXIF block with the orientation reset to 1, `grey`
    says whether the file stored a single channel. Pixels of 16 bits are read where `decode` is asked for them.
    """

    rgb: NDArray[np.uint8]
    alpha: NDArray[np.uint8] | None
    format: str
    grey: bool
    exif: bytes
    icc: bytes
    mode: str = ""
    """Pixel mode of the file by Pillow's name, such as `RGB`, `L`, `CMYK`."""
    depth: int = 8
    """Bits a channel in the file."""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None
    rgb16: NDArray[np.uint16] | None = None
    """(height, width, 3) of a PNG or TIFF of more than 8 bits a channel; `rgb` is then its nearest 8 bits."""
    alpha16: NDArray[np.uint16] | None = None
    jpeg: JpegStyle | None = None
    lossless_webp: bool = False
    png_chunks: tuple[tuple[bytes, bytes], ...] = ()
    """Chunks of a PNG whose colours were not converted: colour information (gamma and the like) and texts."""
    extras: Extras = Extras()
    """Other content of the file, unless the colours were converted."""


def decode(data: bytes, *, to_srgb: bool = True, max_pixels: int = MAX_PIXELS, keep_16_bits: bool = False) -> Decoded:
    """Decode an encoded still image.

    `to_srgb=False` leaves RGB and grey pixels in the file's own colour space, for a caller that writes the profile
    back; CMYK always becomes sRGB. `keep_16_bits=True` reads the 16 bits of a PNG or TIFF besides.
    Raises ImageError (`empty`, `not_an_image`, `truncated`, `too_large`, `animated`, `unsupported_mode`,
    `readers_disagree`).
    """
    opened = _open(data, max_pixels)
    orientation = orientation_of(opened.image) if keep_16_bits else 1
    decoded = _normalise(opened, to_srgb)
    if decoded.format == "WEBP":
        decoded = replace(decoded, lossless_webp=b"VP8L" in riff_chunks(data))
    if to_srgb:
        return decoded
    extras = opened.extras or extras_of(data, decoded.format, opened.image)
    decoded = replace(decoded, extras=extras, xmp=truthful(decoded.xmp))
    if decoded.format == "PNG":
        decoded = replace(decoded, png_chunks=kept_chunks(data), grey=decoded.grey or data[25] == PNG_GREY_ALPHA)
    if not keep_16_bits:
        return decoded
    read = read_16_bits(data, orientation, decoded.rgb) if opened.deep is None else (opened.deep, opened.alpha)
    if read is None:
        return decoded
    alpha = None if read[1] is None or decoded.alpha is None else np.asarray(read[1], np.uint16)
    return replace(decoded, rgb=to_8_bits(read[0]), rgb16=read[0], alpha16=alpha)


def read(path: Path, *, to_srgb: bool = True, max_pixels: int = MAX_PIXELS, max_bytes: int = 1 << 30) -> Decoded:
    """Decode a file; see `decode`. Raises ImageError, also for a file that cannot be read (`unreadable`)."""
    return decode(read_bytes(path, max_bytes=max_bytes), to_srgb=to_srgb, max_pixels=max_pixels)


def header_size(path: Path) -> tuple[int, int] | None:
    """Width and height of a photo by its header; None where that cannot be read: who opens it says why."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return None
        with Image.open(path, formats=[*_formats(), "TIFF"]) as image:
            return image.width, image.height
    except Exception:  # noqa: BLE001  on hostile bytes Pillow's readers raise nearly anything
        return None


def read_bytes(path: Path, *, max_bytes: int = 1 << 30) -> bytes:
    """A regular file of at most `max_bytes`. Raises ImageError (`unreadable`, `not_a_file`, `too_large`)."""
    try:
        if is_local(path) and not path.is_file():
            reason = "not_a_file" if path.exists() else "unreadable"
            raise ImageError(reason, "not a regular file" if path.exists() else why_absent(path))
        if (size := path.stat().st_size) > max_bytes:
            raise ImageError("too_large", f"{size} bytes, the limit is {max_bytes}")
        return path.read_bytes()
    except OSError as error:
        raise ImageError("unreadable", error.strerror or type(error).__name__) from error


def preview(path: Path, side: int, box: tuple[float, float, float, float] | None = None) -> NDArray[np.uint8]:
    """The part of a photo inside `box` (x0, y0, x1, y1 of the upright photo; None: all), at most `side` px.

    JPEGs are decoded at the smallest scale that will do, so a sheet of large photos costs little.
    Raises ImageError.
    """
    opened = _open(read_bytes(path), MAX_PIXELS)
    image = opened.image
    full = max(image.size)
    seen = full if box is None else max(box[2] - box[0], box[3] - box[1], 1.0)
    image.draft("RGB", (max(1, int(image.width * side / seen)), max(1, int(image.height * side / seen))))
    rgb = _normalise(opened, to_srgb=True).rgb
    if box is not None:
        scale = max(rgb.shape[:2]) / full
        x0, x1 = _inside(box[0] * scale, box[2] * scale, rgb.shape[1])
        y0, y1 = _inside(box[1] * scale, box[3] * scale, rgb.shape[0])
        rgb = rgb[y0:y1, x0:x1]
    small = Image.fromarray(np.ascontiguousarray(rgb))
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(small)


def _inside(start: float, end: float, length: int) -> tuple[int, int]:
    first = min(max(round(start), 0), length - 1)
    return first, min(max(round(end), first + 1), length)


def encode_png(rgb: NDArray[np.uint8]) -> bytes:
    """Lossless PNG of a (h, w, 3) RGB or (h, w) grey array, tuned for speed; see `authface.imaging.png`."""
    return png.encode(rgb)


def encode_jpeg(rgb: NDArray[np.uint8], *, quality: int = 95) -> bytes:
    """JPEG of a (h, w, 3) RGB or (h, w) grey array with full colour resolution (4:4:4), `quality` 1..100."""
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    pixels = rgb if rgb.ndim == 2 else cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality, *sampling])[1])


@dataclass(frozen=True)
class _Opened:
    """An image within the size limit, of 8 bits a channel and, except for a TIFF, not decoded yet."""

    image: Image.Image
    depth: int = 8
    alpha: Pixels | None = None
    """Alpha of a TIFF, whose image has none."""
    deep: NDArray[np.uint16] | None = None
    """(h, w, 3) pixels of a TIFF with more than 8 bits."""
    extras: Extras | None = None
    """Extras of a TIFF."""
    data: bytes = b""
    """The file, unless it is a TIFF."""


def _open(data: bytes, max_pixels: int) -> _Opened:
    """The image, if it is a still picture within the limit."""
    if not data:
        raise ImageError("empty", "the file has 0 bytes")
    if data.startswith(SIGNATURES):
        tiff = open_tiff(data, functools.partial(_check_size, max_pixels))
        return _Opened(tiff.image, tiff.depth, tiff.alpha, tiff.deep, tiff.extras)
    try:
        image = Image.open(io.BytesIO(data), formats=_formats())
        frames = getattr(image, "n_frames", 1) if image.format in _ANIMATED else 1
    except UnidentifiedImageError as error:
        lacking = lack("a HEIC photo", "heic") if data[4:12] in _HEIF else ""
        raise ImageError("not_an_image", lacking or _unsupported(data)) from error
    except Image.DecompressionBombError as error:
        raise _too_large(_pixels_said(error), max_pixels) from error
    except Exception as error:  # on hostile bytes Pillow's readers raise nearly anything
        if "Truncated File Read" in str(error):
            raise ImageError("truncated", f"it ends within its header, after {len(data):,} bytes") from error
        raise ImageError("not_an_image", f"a damaged header: {one_line(error)}") from error
    _check_size(max_pixels, image.width, image.height)
    if image.format == "BMP" and not bmp_is_whole(data):
        raise ImageError("truncated", "a BMP whose pixels would begin within its headers or beyond its end")
    if image.format in {"HEIF", "AVIF"} and not image.info.get("icc_profile") and is_hdr(data):
        raise ImageError(
            "unsupported_mode", "HDR colours (PQ or HLG), which are not read: save as sRGB or with a profile"
        )
    if frames > 1:
        raise ImageError("animated", f"an animation of {frames} frames: save one as a still")
    return _Opened(image, _depth(image, data), data=data)


def _depth(image: Image.Image, data: bytes) -> int:
    """Bits a channel in the file."""
    if image.format in {"HEIF", "AVIF"}:
        return depth_of_boxes(data)
    return 16 if is_deep_png(data) else 8


def _unsupported(data: bytes) -> str:
    """What the file is instead, if its first bytes tell, and the formats that are read."""
    found = next((f" ({name})" for start, name in _UNREAD if start.match(data)), "")
    return f"not a photo in a supported format{found}: save it as {_READ}"


def _check_size(max_pixels: int, width: int, height: int) -> None:
    if width * height > max_pixels:
        raise _too_large(width * height, max_pixels, f"{width} x {height} is ")


def _too_large(pixels: int, max_pixels: int, size: str = "") -> ImageError:
    limit = f"the limit is {max_pixels / 1e6:.0f}: make it smaller"
    return ImageError("too_large", f"{size}{pixels / 1e6:.0f} megapixels, {limit}")


def _pixels_said(error: Image.DecompressionBombError) -> int:
    """The pixels that Pillow's words name; where they name none, those from which it refuses a photo."""
    said = re.search(r"\((\d+) pixels\)", str(error))
    return int(said[1]) if said else MAX_PIXELS


def _formats() -> list[str]:
    """Names of the decoders to try; Pillow's plugins load once, which two threads must not do at a time."""
    with _plugins:
        return _load_plugins()


@functools.cache
def _load_plugins() -> list[str]:
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of large or damaged files: a row or an ImageError says it
    with contextlib.suppress(ImportError):
        import pillow_heif  # an extra

        pillow_heif.register_heif_opener()
    Image.init()
    return [
        name for name in EXTENSIONS if name in Image.OPEN and name != "TIFF"
    ]  # MPO opens as JPEG and has no opener of its own


def _normalise(opened: _Opened, to_srgb: bool) -> Decoded:
    image = _loaded(opened)
    source_format = image.format or ""
    icc = image.info.get("icc_profile") or b""
    style = jpeg_style(image)
    exif = upright(image)
    mode, dpi = image.mode, dpi_of(image)
    xmp = image.info.get("xmp") or b""
    metadata: dict[str, Any] = {
        "mode": mode,
        "depth": opened.depth,
        "dpi": dpi,
        "jpeg": style,
        "xmp": xmp if isinstance(xmp, bytes) else b"",
    }
    grey = image.mode in {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L"}
    try:
        if image.mode == "F":
            raise ValueError("floating-point pixels")
        if image.mode.startswith("I"):
            of_grey = icc if not to_srgb and icc[16:20] == b"GRAY" else b""
            return Decoded(_from_16_bit(image), None, source_format, grey, exif, of_grey, **metadata)
        alpha = (
            None
            if opened.alpha is None or opened.alpha.min() == np.iinfo(opened.alpha.dtype).max
            else (to_8_bits(opened.alpha))
        )
        if image.mode in {"LA", "PA", "La", "RGBA", "RGBa"} or "transparency" in image.info:
            rgba = image.convert("RGBA")
            alpha = np.asarray(rgba.getchannel("A"))
            alpha = alpha if alpha.min() < 255 else None
            image = rgba.convert("RGB")
        if image.mode == "P":
            image = image.convert("RGB")
        space = b"GRAY" if grey else b"RGB "  # the colour space in a profile's header, ICC.1:2022, 7.2
        keep_profile = not to_srgb and image.mode in {"RGB", "L"} and icc[16:20] == space
        image = image.convert("RGB") if keep_profile or not icc else _to_srgb(image, icc)
    except (OSError, ValueError) as error:
        raise ImageError("unsupported_mode", one_line(f"mode {image.mode}: {error}: save as 8-bit RGB")) from error
    return Decoded(np.asarray(image), alpha, source_format, grey, exif, icc if keep_profile else b"", **metadata)


def _loaded(opened: _Opened) -> Image.Image:
    """The decoded image, also of a JPEG that lacks only its end marker.

    Only the marker is missing if the pixels do not depend on the bytes that follow the last one.
    """
    image = opened.image
    try:
        image.load()
    except Exception as error:  # on hostile bytes Pillow's readers raise nearly anything
        if image.format not in {"JPEG", "MPO"} or jpeg_end(opened.data):
            raise ImageError("truncated", one_line(error)) from error
        data = opened.data.removesuffix(b"\xff")
        ended = [Image.open(io.BytesIO(data + more + b"\xff\xd9"), formats=["JPEG"]) for more in _MORE]
        with contextlib.suppress(Exception):
            first, *others = (np.asarray(one) for one in ended)
            if all(np.array_equal(first, other) for other in others):
                return ended[0]
        raise ImageError("truncated", one_line(error)) from error
    return image


def _from_16_bit(image: Image.Image) -> NDArray[np.uint8]:
    wide = np.asarray(image).astype(np.int64)
    if wide.min(initial=0) < 0 or wide.max(initial=0) > 65535:
        raise ValueError(f"values {wide.min()}..{wide.max()} are no 16-bit grey")
    return np.repeat(to_8_bits(wide.astype(np.uint16))[..., None], 3, axis=2)


def _to_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        if "sRGB" in ImageCms.getProfileDescription(profile) and image.mode == "RGB":
            return image
        turned = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image.convert("RGB")  # a profile that is broken or of another mode says nothing
    return turned if turned is not None else image.convert("RGB")
