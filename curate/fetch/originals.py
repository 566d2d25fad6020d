"""From the bytes of a photo to its row: decoded once as a check, named by content."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

from PIL import Image

from authface.curate.fetch.optouts.judge import judged
from authface.curate.fetch.optouts.statements import embedded_signals
from authface.curate.settings import FetchSettings
from authface.imaging import decode as images
from authface.records import Camera, Photo, now
from authface.store.journal import REASON, Forgotten
from authface.store.photoset import PhotoSet

MEGA = 1_000_000

_MAKE, _MODEL = 0x010F, 0x0110
_EXIF, _EXPOSURE, _APERTURE, _ISO, _FOCAL_LENGTH = 0x8769, 0x829A, 0x829D, 0x8827, 0x920A
"""EXIF 2.32, 4.6.4 and 4.6.5."""


def describe(photo: Photo, data: bytes, photoset: PhotoSet, settings: FetchSettings, forgotten: Forgotten) -> Photo:
    """The row completed from the bytes: id, file, size, format, and camera if the source named none.

    What the file says of training joins its signals; photos that are opted out, too small or forgotten are refused.
    Raises ImageError if the bytes are no photo.
    """
    decoded = images.decode(data, max_pixels=int(settings.max_megapixels * MEGA))
    height, width = decoded.rgb.shape[:2]
    photo_id = hashlib.sha256(data).hexdigest()
    photo = replace(
        photo,
        id=photo_id,
        file=photoset.photo_file(photo_id, images.EXTENSIONS[decoded.format]),
        width=width,
        height=height,
        bytes=len(data),
        format=decoded.format,
        camera=photo.camera or camera(decoded.exif),
        signals=(*photo.signals, *embedded_signals(data, decoded)),
        asked_at=now(),
    )
    if forgotten.holds(photo_id=photo_id):
        return replace(photo, file="", status="rejected", reason=REASON)
    if (refused := judged(photo, settings.opt_outs)).status != "kept":
        return replace(refused, file="")
    return reject_small(photo, settings)


def reject_small(photo: Photo, settings: FetchSettings) -> Photo:
    """The row, rejected if the photo's longer side is known and below `min_long_side`."""
    long_side, least = max(photo.width, photo.height), settings.min_long_side
    if photo.status != "kept" or not long_side or long_side >= least:
        return photo
    return replace(photo, file="", status="rejected", reason="small_photo", value=long_side, limit=least)


def store(photo: Photo, data: bytes, photoset: PhotoSet) -> None:
    """Save the bytes of a kept photo, unless the set has them."""
    if photo.status == "kept" and not photoset.exists(photo.file):
        photoset.save(photo.file, data)


def camera(exif: bytes) -> Camera | None:
    """The camera data in an EXIF block; None if there is none that can be read."""
    if not exif:
        return None
    try:
        tags = Image.Exif()
        tags.load(exif)
        inner = tags.get_ifd(_EXIF)
        found = Camera(
            make=_text(tags.get(_MAKE)),
            model=_text(tags.get(_MODEL)),
            iso=parse_positive(inner.get(_ISO)),
            aperture=parse_positive(inner.get(_APERTURE)),
            focal_length=parse_positive(inner.get(_FOCAL_LENGTH)),
            exposure=parse_positive(inner.get(_EXPOSURE)),
        )
    except Exception:  # noqa: BLE001  broken EXIF comes as any error of the TIFF reader; the pixels are still good
        return None
    return found if found != Camera() else None


def parse_positive(value: object) -> float | None:
    """A finite number above 0 from a number, a tuple of them, or text such as ``1/125``, ``f/2.8`` or ``50.0 mm``."""
    if isinstance(value, tuple | list):
        return parse_positive(value[0]) if value else None
    try:
        if isinstance(value, str):
            words = value.lower().replace("f/", "").split()
            above, slash, below = (words[0] if words else "").removesuffix("mm").removesuffix("s").partition("/")
            number = float(above) / (float(below) if slash else 1.0)
        else:
            number = float(value)  # type: ignore[arg-type]  # anything else is refused by float itself
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _text(value: object) -> str:
    """Printable text of an EXIF string, at most 80 characters."""
    text = value if isinstance(value, str) else ""
    return "".join(letter for letter in text if letter.isprintable()).strip()[:80]
