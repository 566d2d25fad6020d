"""What every source is: a stable list of photos, each with all that its row can say before a byte is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import urlsplit

from authface.curate.fetch.pace import Paused
from authface.curate.fetch.web import Web
from authface.records import Photo


@dataclass(frozen=True, slots=True)
class PhotoItem:
    """One photo a source offers, at a `path` of this machine or at a `url`.

    A `photo` that the listing itself rejects or fails is its row already: its bytes are not asked for.
    """

    photo: Photo
    path: str = ""
    url: str = ""
    preview: str = ""
    """Address of a smaller version of the same picture."""


class PhotoSource:
    """Lists photos in a stable order, so that a second run finds what the first left."""

    web: Web | None = None
    """What the photos are asked for with; None where they lie on this machine."""

    def __init__(self) -> None:
        self.ignored: Counter[str] = Counter()
        """What was passed over while listing and is no row, by its kind."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.web:
            self.web.close()

    @property
    def paused(self) -> Paused | None:
        """Why the run came to its end before the source did."""
        return self.web.paused if self.web else None

    def items(self) -> Iterator[PhotoItem]:
        """The photos. Raises AuthfaceError where the listing breaks, Paused where it would wait and may not."""
        raise NotImplementedError

    def count(self) -> int | None:
        """How many photos `items` will list, where that is cheap to say."""
        return None

    def ready(self, *, accept_terms: bool = False) -> None:
        """Called before anything is written. Raises UsageError where the source needs something first."""

    def forecast(self, limit: int, *, ask: bool) -> str:
        """What the run will cost, in a line; `ask` allows the requests that the run itself begins with."""
        return ""

    def enrich(self, photo: Photo) -> Photo:
        """The row with what a further request to the source says of it."""
        return photo

    def track_download(self, photo: Photo) -> Photo:
        """The row of a kept photo after the source was told that it was taken."""
        return photo


def http_url(text: str) -> str:
    """The text if it is a web address, else nothing: pages that name a source link to it."""
    return text if text.startswith(("https://", "http://")) else ""


def reject_premium(photo: Photo) -> Photo:
    """The row, rejected where its address is one of Unsplash's watermarked previews of paid photos."""
    try:
        address = urlsplit(photo.file_url)
    except ValueError:
        return photo  # asking for it will say what is wrong
    if address.hostname != "plus.unsplash.com" and "premium_photo" not in address.path:
        return photo
    return replace(photo, status="rejected", reason="premium", detail="a watermarked preview of a paid photo")
