"""Decode images safely and save them: EXIF turn, ICC to sRGB, alpha, 16 bit, CMYK, size bombs."""

from __future__ import annotations

import functools
import io
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from authface.errors import ImageError, one_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

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
"""Formats that are read, by Pillow's name, with the file ending each is stored under."""

MAX_PIXELS = 200_000_000
"""Largest photo that is decoded, in pixels: 200 MP hold the largest medium-format frames and 0.6 GB of RGB."""


_plugins = threading.Lock()

_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95, "method": 4},
    "PNG": {"compress_level": 4},
    "TIFF": {"compression": "tiff_lzw"},
}


@dataclass(frozen=True)
class Decoded:
    """An upright 8-bit sRGB photo and what a faithful save needs.

    `rgb` is (height, width, 3) uint8, `alpha` (height, width) uint8 or None. `icc` is the profile the
    file carried (the pixels are already converted to sRGB), `exif` its EXIF block with the orientation
    reset to 1, `grey` whether the file stored a single channel.
    """

    rgb: NDArray[np.uint8]
    alpha: NDArray[np.uint8] | None
    format: str
    grey: bool
    exif: bytes
    icc: bytes


def sniff(data: bytes) -> bool:
    """Whether `data` begins like an image of a format that is read."""
    try:
        _open(data).close()
    except ImageError:
        return False
    return True


def decode(data: bytes, *, to_srgb: bool = True, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode an encoded still image.

    `to_srgb=False` leaves RGB and grey pixels in the file's own colour space, for a caller that writes the
    profile back. Raises ImageError (`empty`, `not_an_image`, `truncated`, `too_large`, `animated`,
    `unsupported_mode`).
    """
    image = _open(data)
    if image.width * image.height > max_pixels:
        raise ImageError(
            "too_large",
            f"{image.width} x {image.height} is {image.width * image.height / 1e6:.0f} megapixels, "
            f"the limit is {max_pixels / 1e6:.0f}: make it smaller",
        )
    if image.format in {"GIF", "PNG", "WEBP"} and getattr(image, "n_frames", 1) > 1:
        raise ImageError("animated", f"an animation of {getattr(image, 'n_frames', 0)} frames: save one as a still")
    return _normalise(image, to_srgb)


def read(path: Path, *, to_srgb: bool = True, max_pixels: int = MAX_PIXELS, max_bytes: int = 1 << 30) -> Decoded:
    """Decode a file; see `decode`. Raises ImageError, also for a file that cannot be read (`unreadable`)."""
    return decode(read_bytes(path, max_bytes=max_bytes), to_srgb=to_srgb, max_pixels=max_pixels)


def read_bytes(path: Path, *, max_bytes: int = 1 << 30) -> bytes:
    """The bytes of a regular file of at most `max_bytes`.

    Raises ImageError (`unreadable`, `not_a_file`, `too_large`).
    """
    try:
        if not path.is_file():
            reason = "not_a_file" if path.exists() else "unreadable"
            raise ImageError(reason, "not a regular file" if path.exists() else "no such file")
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
    import numpy as np
    from PIL import Image

    image = _open(read_bytes(path))
    full = max(image.size)
    seen = full if box is None else max(box[2] - box[0], box[3] - box[1], 1.0)
    if image.width * image.height > MAX_PIXELS:
        raise ImageError("too_large", f"{image.width} x {image.height}: too large for a preview")
    image.draft("RGB", tuple(max(1, int(length * side / seen)) for length in image.size))
    rgb = _normalise(image, to_srgb=True).rgb
    scale = max(rgb.shape[:2]) / full
    if box is not None:
        x0, y0, x1, y1 = (round(edge * scale) for edge in box)
        rgb = rgb[max(y0, 0) : max(y1, 1), max(x0, 0) : max(x1, 1)]
    small = Image.fromarray(np.ascontiguousarray(rgb))
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(small)


def encode_png(rgb: NDArray[np.uint8]) -> bytes:
    """Lossless PNG of a (h, w, 3) RGB or (h, w) grey array, tuned for speed (zlib level 1, sub filter)."""
    import cv2

    bgr = rgb if rgb.ndim == 2 else cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise ImageError("unsupported_mode", f"cannot encode an array of shape {rgb.shape} as PNG")
    return bytes(data)


def encode_jpeg(rgb: NDArray[np.uint8], *, quality: int = 95) -> bytes:
    """JPEG of a (h, w, 3) RGB or (h, w) grey array with full colour resolution (4:4:4), `quality` 1..100."""
    import cv2

    bgr = rgb if rgb.ndim == 2 else cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality, *sampling])
    if not done:
        raise ImageError("unsupported_mode", f"cannot encode an array of shape {rgb.shape} as JPEG")
    return bytes(data)


def encode(decoded: Decoded, rgb: NDArray[np.uint8], format: str) -> bytes:
    """`rgb` in `format` with the alpha, EXIF, profile and greyness of `decoded`.

    `format` is ``JPEG``, ``PNG``, ``WEBP`` or ``TIFF``. JPEG and WebP are written at quality 95; JPEG has no alpha, which is laid over white.
    """
    import numpy as np
    from PIL import Image

    image = Image.fromarray(rgb)
    if decoded.alpha is not None:
        alpha = Image.fromarray(decoded.alpha).resize(image.size, Image.Resampling.LANCZOS)
        if format == "JPEG":
            white = Image.new("RGB", image.size, (255, 255, 255))
            image = Image.composite(image, white, alpha)
        else:
            image.putalpha(alpha)
    elif decoded.grey and np.array_equal(rgb[..., 0], rgb[..., 1]) and np.array_equal(rgb[..., 1], rgb[..., 2]):
        image = Image.fromarray(rgb[..., 0])
    options: dict[str, Any] = dict(_SAVE_OPTIONS[format])
    if decoded.exif:
        options["exif"] = decoded.exif
    if decoded.icc:
        options["icc_profile"] = decoded.icc
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _open(data: bytes) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise ImageError("empty", "the file has 0 bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limit replaces Pillow's warning, its error stays above it
            return Image.open(io.BytesIO(data), formats=_formats())
    except UnidentifiedImageError as error:
        raise ImageError("not_an_image", "no photo in a format that is read here") from error
    except Image.DecompressionBombError as error:
        raise ImageError("too_large", one_line(error)) from error
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
        raise ImageError("not_an_image", one_line(error)) from error


def _formats() -> list[str]:
    """Names of the decoders to try; loads Pillow's plugins once, which two threads must not do at a time."""
    with _plugins:
        return _load_plugins()


@functools.cache
def _load_plugins() -> list[str]:
    from PIL import Image, features

    Image.init()
    try:
        import pillow_heif  # type: ignore[import-not-found]  # an extra

        pillow_heif.register_heif_opener()
        heif = ["HEIF"]
    except ImportError:
        heif = []
    avif = ["AVIF"] if features.check("avif") else []
    return [name for name in EXTENSIONS if name not in {"HEIF", "AVIF"}] + heif + avif


def _normalise(image: Image.Image, to_srgb: bool) -> Decoded:
    import numpy as np
    from PIL import ImageOps

    source_format = image.format or ""
    icc = image.info.get("icc_profile") or b""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, IndexError) as error:
        raise ImageError("truncated", one_line(error)) from error
    try:
        image = ImageOps.exif_transpose(image)
        exif = image.getexif()
        exif_bytes = exif.tobytes() if len(exif) else b""
    except Exception:  # noqa: BLE001  broken EXIF comes as any error of the TIFF reader; the pixels are still good
        exif_bytes = b""
    grey = image.mode in {"1", "L", "LA", "I", "I;16", "I;16B", "I;16L"}
    alpha = None
    if image.mode in {"LA", "PA", "La", "RGBA", "RGBa"} or "transparency" in image.info:
        rgba = image.convert("RGBA")
        alpha = np.asarray(rgba.getchannel("A"))
        image = rgba.convert("RGB")
        if alpha.min() == 255:
            alpha = None
    if image.mode == "F":
        raise ImageError("unsupported_mode", "floating-point pixels: save as 8 or 16 bit")
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64)
        narrow = np.clip((wide + 128) // 257 if wide.max(initial=0) > 255 else wide, 0, 255).astype(np.uint8)
        rgb = np.repeat(narrow[..., None], 3, axis=2)
        return Decoded(rgb, alpha, source_format, grey, exif_bytes, b"")
    keep_profile = not to_srgb and image.mode in {"RGB", "L"}
    try:
        image = image.convert("RGB") if keep_profile or not icc else _to_srgb(image, icc)
    except (OSError, ValueError) as error:
        raise ImageError("unsupported_mode", one_line(f"mode {image.mode}: {error}")) from error
    return Decoded(np.asarray(image), alpha, source_format, grey, exif_bytes, icc if keep_profile else b"")


def _to_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        if "sRGB" in ImageCms.getProfileDescription(profile) and image.mode == "RGB":
            return image
        turned = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image.convert("RGB")  # a profile that is broken or of another mode says nothing
    return turned if turned is not None else image.convert("RGB")
