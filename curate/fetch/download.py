"""One photo of the web into the set: previewed where that may save it, fetched, decoded, stored, and told of."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from authface.curate.fetch.hosts import WebError
from authface.curate.fetch.ledger import Unwritten
from authface.curate.fetch.originals import MEGA, described, small, store
from authface.curate.fetch.pace import Paused
from authface.curate.fetch.sources.base import Item, Source
from authface.curate.fetch.web import Answer, Web
from authface.curate.settings import FetchSettings
from authface.errors import AuthfaceError, ImageError, one_line
from authface.faces.detector import RetinaFace
from authface.imaging import decode as images
from authface.records import Photo, Status
from authface.store.photoset import PhotoSet
from authface.store.tombstones import Forgotten

PREVIEW_BYTES = 20 * MEGA
PRESCREEN_SCORE = 0.9
"""Least confidence of a face on a preview; the filter asks more of the original."""


class Download:
    """What is done to one item, in a thread: it returns the item's row, or none if the item has to wait for a quota."""

    def __init__(
        self,
        photoset: PhotoSet,
        source: Source,
        web: Web,
        settings: FetchSettings,
        unwritten: Unwritten,
        forgotten: Forgotten,
    ) -> None:
        self._photoset, self._source, self._web = photoset, source, web
        self._settings, self._unwritten, self._forgotten = settings, unwritten, forgotten
        self._faces = _Faces()

    def __call__(self, item: Item) -> list[Photo]:
        if (photo := small(item.photo, self._settings)).status != "kept":
            return [photo]
        if self._web.paused:
            return []
        try:
            return [self._finished(item)]
        except Paused:
            return []

    def _finished(self, item: Item) -> Photo:
        before = self._unwritten.get(item.photo)
        if before:
            photo, owed = before.photo, before.owed
        else:
            photo, owed = self._fetched(item), True
        if owed and photo.status == "kept" and photo.download_location:
            self._unwritten.add(photo, owed=True)
            photo = self._source.told(photo)
        if owed:
            self._unwritten.add(photo)
        return photo

    def _fetched(self, item: Item) -> Photo:
        """The row of an item after all requests for it; its bytes are stored if it is kept."""
        photo = item.photo
        try:
            if self._settings.prescreen_face and item.preview:
                photo = self._prescreened(photo, item.preview)
            if photo.status == "kept":
                photo = self._source.enrich(photo)
                answer = self._web.get(item.url, max_bytes=int(self._settings.max_megabytes * MEGA))
                photo = self._described(photo, answer)
                store(photo, answer.body, self._photoset)
        except WebError as error:
            status: Status = "rejected" if error.rejected else "failed"
            return replace(item.photo, status=status, reason=error.reason, detail=one_line(error))
        except ImageError as error:
            return replace(item.photo, status="failed", reason=error.reason, detail=one_line(error))
        except (AuthfaceError, Paused):
            raise
        except Exception as error:  # noqa: BLE001  whatever one photo provokes in a library is that photo's row
            detail = one_line(f"{type(error).__name__}: {error}")
            return replace(item.photo, status="failed", reason="error", detail=detail)
        return photo

    def _described(self, photo: Photo, answer: Answer) -> Photo:
        try:
            return described(photo, answer.body, self._photoset, self._settings, self._forgotten)
        except ImageError as error:
            kind = answer.headers.get("content-type", "").partition(";")[0]
            if error.reason == "not_an_image" and kind:
                raise ImageError(
                    "not_an_image", f"the host sent {one_line(kind, 60)}, no photo that is read"
                ) from error
            raise

    def _prescreened(self, photo: Photo, preview: str) -> Photo:
        """The row, rejected where the preview shows no face, or none that is large enough in the original."""
        least = self._settings.prescreen_face
        try:
            rgb = images.decode(self._web.get(preview, max_bytes=PREVIEW_BYTES).body).rgb
        except ImageError as error:
            if error.reason == "opted_out":
                raise
            return photo  # the original will speak for itself
        long_side = max(photo.width, photo.height)
        if not long_side:
            return photo
        size = self._faces.largest(rgb) * long_side / max(rgb.shape[:2])
        if size >= least:
            return photo
        reason = "small_face" if size else "no_face"
        return replace(photo, status="rejected", reason=reason, value=size, limit=least, detail="seen on a preview")


class _Faces:
    """The detector, made at its first use; its session may be used by several threads."""

    def __init__(self) -> None:
        self._detector: RetinaFace | None = None
        self._lock = threading.Lock()

    def largest(self, rgb: NDArray[np.uint8]) -> float:
        """Longer side of the largest face in pixels, 0 if there is none."""
        with self._lock:
            self._detector = self._detector or RetinaFace(PRESCREEN_SCORE)
        faces = self._detector.detect(rgb)
        return max((max(f.box[2] - f.box[0], f.box[3] - f.box[1]) for f in faces), default=0.0)
