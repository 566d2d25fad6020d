"""The pictures of the page: thumbnails, whole crops, and the eyes in the original photo's own pixels."""

from __future__ import annotations

import threading
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from authface.curate.review.faces import Shown
from authface.errors import ImageError
from authface.imaging import decode as images
from authface.review.reviews import Reviewed
from authface.store.photoset import PhotoSet

THUMBNAIL = 256
"""Side of a thumbnail, pixels: sharp in a cell of the grid on a screen of double density."""
WHOLE = 1024
"""Longest side of the picture of a face that has no crop, pixels."""
CACHED = 4096
"""Thumbnails in memory, of about 12 KB."""
_MARGIN = 0.5
"""Room around the box of a face that has no crop, of its size."""
_AT_ONCE = 4
"""Pictures decoded at a time: an original may take hundreds of megabytes."""


class Pictures:
    """Encoded pictures of faces; all methods raise ImageError where a file cannot be read."""

    def __init__(self, photoset: PhotoSet, people: Reviewed) -> None:
        self._photoset = photoset
        self._people = people
        self._slots = threading.Semaphore(_AT_ONCE)
        self._one = threading.Lock()
        self._cached = lru_cache(CACHED)(self._preview)
        self._photo = lru_cache(1)(self._decoded)
        self._landmarks = lru_cache(8)(self._landmarks_of)

    def file(self, shown: Shown) -> str:
        """The crop's file, retouched if it was."""
        assert shown.crop is not None
        return self._people.file(shown.crop)

    def thumbnail(self, shown: Shown) -> bytes:
        """A JPEG of at most 256 px."""
        return self._cached(*self._source(shown), THUMBNAIL)

    def whole(self, shown: Shown) -> tuple[bytes, str]:
        """The crop's own PNG, or a JPEG of the face in its photo; with its media type."""
        if shown.crop is not None:
            return self._photoset.read(self.file(shown)), "image/png"
        return self._preview(*self._source(shown), WHOLE), "image/jpeg"

    def eyes(self, shown: Shown, width: int, height: int) -> bytes:
        """A PNG of at most `width` x `height` pixels of the original photo around the eyes, one to one."""
        with self._one:  # the photo is decoded once, and one at a time
            rgb = self._photo(shown.face.photo_file)
        x, y = self._between_the_eyes(shown)
        left, right = _window(x, width, rgb.shape[1])
        top, bottom = _window(y, height, rgb.shape[0])
        return images.encode_png(np.ascontiguousarray(rgb[top:bottom, left:right]))

    def _source(self, shown: Shown) -> tuple[str, tuple[float, float, float, float] | None]:
        """A file of the set and the part of it to show."""
        if shown.crop is not None:
            return self.file(shown), None
        if shown.face.box is None:
            raise ImageError("no_face", "the face has no box")
        x0, y0, x1, y1 = shown.face.box
        margin = _MARGIN * max(x1 - x0, y1 - y0)
        return shown.face.photo_file, (x0 - margin, y0 - margin, x1 + margin, y1 + margin)

    def _preview(self, file: str, box: tuple[float, float, float, float] | None, side: int) -> bytes:
        with self._slots:
            rgb = images.preview(self._photoset.root / file, side, box)
        return images.encode_jpeg(rgb, quality=85)

    def _decoded(self, file: str) -> NDArray[np.uint8]:
        return images.decode(self._photoset.read(file)).rgb

    def _between_the_eyes(self, shown: Shown) -> tuple[float, float]:
        """In the photo, by dlib's points, else by RetinaFace's, else the middle of the box."""
        points = self._landmarks(shown.part).get(shown.id) if shown.crop is not None else None
        if points:
            x, y = np.reshape(points, (68, 2))[36:48].mean(axis=0)
            return float(x), float(y)
        if shown.face.points5:
            x0, y0, x1, y1 = shown.face.points5[:4]
        elif shown.face.box:
            x0, y0, x1, y1 = shown.face.box
        else:
            raise ImageError("no_face", "the face has no box")
        return (x0 + x1) / 2, (y0 + y1) / 2

    def _landmarks_of(self, part: int) -> dict[str, list[float] | None]:
        return dict(self._photoset.crops.columns(part, ["id", "landmarks"]))


def _window(centre: float, length: int, whole: int) -> tuple[int, int]:
    """First pixel and the one after the last of `length` pixels around `centre`, moved into `whole` pixels."""
    length = min(length, whole)
    first = min(max(round(centre + 0.5 - length / 2), 0), whole - length)
    return first, first + length
