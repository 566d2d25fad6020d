"""The interface of a source, and the row that the bytes of a photo become.

A source is a stable list of photos, each with all that is known before a byte is read. Its bytes are decoded once as a
check, and the photo is named by content.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from PIL import Image

from authface.backends import load_backend
from authface.curate.fetch.hosts import Paused
from authface.curate.fetch.optouts.judge import judged
from authface.curate.fetch.optouts.statements import embedded_signals
from authface.curate.fetch.web import Web
from authface.curate.settings import FetchSettings
from authface.errors import UsageError, one_line
from authface.imaging import decode as images
from authface.records import Camera, Photo, now
from authface.store.journal import REASON, Forgotten
from authface.store.photoset import PhotoSet


@dataclass(frozen=True, slots=True)
class PhotoItem:
    """One photo that a source offers, at a `path` on this machine or at a `url`.

    A `photo` that the listing itself rejects or fails is stored as it is; its bytes are not requested.
    """

    photo: Photo
    path: str = ""
    url: str = ""
    preview: str = ""
    """Address of a smaller version of the same picture."""
    silent: bool = False
    """The source has no word on licences, not even that none is known: what it stated before stays."""


@dataclass(frozen=True)
class SourceRequest:
    """What a source is made of."""

    settings: FetchSettings
    photoset: PhotoSet
    wait: bool = True
    """Whether to wait for quotas."""
    say: Callable[[str], None] = field(default=lambda text: None)
    """Tells the user something in a line."""

    def path(self, example: str) -> Path:
        """The path given with ``--from``. Raises UsageError without one; `example` says what it should be."""
        if not self.settings.path:
            raise UsageError(f"--from {self.settings.source}: give {example}")
        return Path(self.settings.path)

    def web(self) -> Web:
        """A new client for downloads, paced and checked."""
        return Web(self.settings.web, wait=self.wait, say=self.say)


class PhotoSource:
    """Lists photos in a stable order, so that a second run finds what the first left. A subclass needs `items`."""

    web: Web | None = None
    """The client that photos are downloaded with; None where they lie on this machine."""
    reads_pages = False
    """Whether the pages of photos are read for what they say of training: where a person listed them, not an API."""
    repeats = ""
    """Kind, among `ignored`, of photos that were listed before in the run; empty where that is nothing to tell of."""

    def __init__(self) -> None:
        self.ignored: Counter[str] = Counter()
        """What the listing skipped without a row, by kind."""
        self.made_here: Counter[str] = Counter()
        """What authface made itself, skipped likewise, by kind (`authface.curate.fetch.sources.folder`)."""

    @classmethod
    def make(cls, request: SourceRequest) -> Self:
        """The source that the settings ask for. Raises UsageError if they do not fit."""
        return cls()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.web:
            self.web.close()

    @property
    def paused(self) -> Paused | None:
        """Why the run ended before the source was exhausted."""
        return self.web.paused if self.web else None

    def left_for_later(self) -> list[str]:
        """What the next run has to ask for because hosts were not to be waited for, a line a host."""
        if not self.web:
            return []
        return [
            f"fetch: {one_line(self.web.deferred[host])}: {count:,} photos are left for the next run; "
            "-O curate.fetch.web.longest_wait_seconds=N waits longer"
            for host, count in self.web.left.items()
        ]

    def items(self) -> Iterator[PhotoItem]:
        """The photos. Raises AuthfaceError if the listing fails, Paused if it would have to wait and must not."""
        raise NotImplementedError

    def count(self) -> int | None:
        """How many photos `items` will list, if that is cheap to find out."""
        return None

    def ready(self, *, accept_terms: bool = False) -> None:
        """Check what the source needs, before anything is written. Raises UsageError if something is missing."""

    def forecast(self, limit: int, *, ask: bool) -> str:
        """What the run will cost, in one line; `ask` allows the requests that the run itself would start with."""
        return ""

    def enrich(self, photo: Photo) -> Photo:
        """The row completed by a further request to the source."""
        return photo

    def track_download(self, photo: Photo) -> Photo:
        """Notify the source that a kept photo was taken; returns its row."""
        return photo


_PREMIUM = re.compile(r"plus\.unsplash\.com|premium_photo", re.IGNORECASE)


def http_url(text: str) -> str:
    """The text if it is a web address, else nothing: reports link to it."""
    return text if text.startswith(("https://", "http://")) else ""


def reject_premium(photo: Photo) -> Photo:
    """The row, rejected if its address is one of Unsplash's watermarked previews of paid photos."""
    if not _PREMIUM.search(photo.file_url):  # to take addresses apart is a fifth of the work on a list of them
        return photo
    try:
        address = urlsplit(photo.file_url)
    except ValueError:
        return photo  # asking for it will say what is wrong
    if address.hostname != "plus.unsplash.com" and "premium_photo" not in address.path:
        return photo
    return replace(photo, status="rejected", reason="premium", detail="a watermarked preview of a paid photo")


def make_source(
    settings: FetchSettings, photoset: PhotoSet, *, wait: bool = True, say: Callable[[str], None] = lambda text: None
) -> PhotoSource:
    """The source that the settings name; `wait` for quotas, and `say` so. Raises UsageError, AuthfaceError."""
    kind: type[PhotoSource] = load_backend("sources", settings.source)
    return kind.make(SourceRequest(settings, photoset, wait, say))


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
