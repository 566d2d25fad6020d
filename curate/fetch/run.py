"""`curate fetch`: a source's photos into the set, byte for byte, named by content, each with its row.

Photos of this machine are read by a step in worker processes (`Fetch`), those of the web in threads (`Download`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from authface.console import Console
from authface.curate.fetch.hosts import Deferred, Interrupted, Paused, Wait, WebError
from authface.curate.fetch.keys import photo_key
from authface.curate.fetch.ledger import Lanes, Retries, UnwrittenRows
from authface.curate.fetch.optouts.judge import Level, OptedOut, judged, rejudge
from authface.curate.fetch.optouts.sites import OptOuts, PhotoWatch
from authface.curate.fetch.roll import LISTED, MET, Roll
from authface.curate.fetch.sources import MEGA, PhotoItem, PhotoSource, describe, reject_small, store
from authface.curate.fetch.stated import Stated, told_again
from authface.curate.fetch.web import Web, WebResponse
from authface.curate.settings import FetchSettings
from authface.engine.pool import processes, seats
from authface.engine.runner import CHUNK_ROWS, INLINE_ROWS, Engine, Summary, append
from authface.engine.workers import Step, inline
from authface.errors import AuthfaceError, ImageError, one_line
from authface.faces.detector import RetinaFace
from authface.imaging import decode as images
from authface.records import Photo, Status, now
from authface.store.journal import REASON, Forgotten, blank, bury, tombstone
from authface.store.numbers import NumberSet
from authface.store.photoset import PhotoSet, Provenance
from authface.store.statements import repeated_row

PREVIEW_BYTES = 20 * MEGA
PRESCREEN_SCORE = 0.9
"""Least confidence of a face on a preview; the filter demands more of the original."""
PREVIEW_FACE = 16
"""Pixels of the smallest face that is found on a preview; where less is asked for the original decides."""
VERSION = 2


class Download:
    """Fetch one item, in a thread: returns its row, or no row if it is left to the next run; raises Wait."""

    def __init__(
        self,
        photoset: PhotoSet,
        source: PhotoSource,
        web: Web,
        settings: FetchSettings,
        unwritten: UnwrittenRows,
        forgotten: Forgotten,
    ) -> None:
        self._photoset, self._source, self._web = photoset, source, web
        self._settings, self._unwritten, self._forgotten = settings, unwritten, forgotten
        self._opt_outs = OptOuts(photoset, web, settings.opt_outs)
        self._faces = _PreviewDetector()

    def __call__(self, item: PhotoItem) -> list[Photo]:
        if (photo := reject_small(item.photo, self._settings)).status != "kept":
            return [photo]
        if self._web.paused:
            return []
        try:
            with self._web.handing_back():
                return [self._finished(item)]
        except Wait:
            raise
        except Deferred as deferred:
            self._web.defer(deferred)
            return []
        except Interrupted:
            return []

    def _finished(self, item: PhotoItem) -> Photo:
        before = self._unwritten.get(item.photo)
        if before:
            photo, owed = judged(told_again(before.photo, item), self._settings.opt_outs), before.owed
        else:
            photo, owed = self._fetched(item), True
        if owed and photo.status == "kept" and photo.download_location:
            self._unwritten.add(photo, owed=True)
            photo = self._source.track_download(photo)
        if owed:
            self._unwritten.add(photo)
        return photo

    def _fetched(self, item: PhotoItem) -> Photo:
        """The row of an item after all its requests; the bytes are stored if it is kept."""
        photo = item.photo
        watch = PhotoWatch(self._opt_outs)
        status: Status = "failed"
        try:
            if self._source.reads_pages:
                watch.page(photo.page_url)
            if self._settings.prescreen_face and item.preview:
                photo = self._prescreened(photo, item.preview, watch)
            if photo.status == "kept":
                photo = self._source.enrich(photo)
                answer = self._web.get(item.url, max_bytes=int(self._settings.max_megabytes * MEGA), watch=watch)
                photo = self._described(replace(photo, signals=watch.signals), answer)
                store(photo, answer.body, self._photoset)
            return photo
        except WebError as error:
            status, reason, detail = "rejected" if error.rejected else "failed", error.reason, one_line(error)
        except ImageError as error:
            reason, detail = error.reason, one_line(error)
        except (AuthfaceError, Interrupted):
            raise
        except Exception as error:  # noqa: BLE001  whatever one photo provokes in a library is that photo's row
            reason, detail = "error", one_line(f"{type(error).__name__}: {error}")
        return replace(item.photo, status=status, reason=reason, detail=detail, signals=watch.signals, asked_at=now())

    def _described(self, photo: Photo, answer: WebResponse) -> Photo:
        try:
            return describe(photo, answer.body, self._photoset, self._settings, self._forgotten)
        except ImageError as error:
            kind = answer.headers.get("content-type", "").partition(";")[0]
            if error.reason == "not_an_image" and kind:
                raise ImageError(
                    "not_an_image", f"the host sent {one_line(kind, 60)}, which is no photo format that can be read"
                ) from error
            raise

    def _prescreened(self, photo: Photo, preview: str, watch: PhotoWatch) -> Photo:
        """The row, rejected if the preview shows no face, or none that is large enough in the original."""
        least = self._settings.prescreen_face
        try:
            rgb = images.decode(self._web.get(preview, max_bytes=PREVIEW_BYTES, watch=watch).body).rgb
        except OptedOut:
            raise
        except ImageError:
            return photo  # the original will speak for itself
        long_side = max(photo.width, photo.height)
        if not long_side:
            return photo
        scale = long_side / max(rgb.shape[:2])
        size = self._faces.largest(rgb) * scale
        if size >= least or least < PREVIEW_FACE * scale:
            return photo
        reason = "small_face" if size else "no_face"
        return replace(photo, status="rejected", reason=reason, value=size, limit=least, detail="seen on a preview")


class _PreviewDetector:
    """The detector, loaded at its first use; thread-safe."""

    def __init__(self) -> None:
        self._detector: RetinaFace | None = None
        self._lock = threading.Lock()

    def largest(self, rgb: NDArray[np.uint8]) -> float:
        """Longer side of the largest face in pixels, 0 if there is none."""
        with self._lock:
            self._detector = self._detector or RetinaFace(PRESCREEN_SCORE, least_face=PREVIEW_FACE)
        faces = self._detector.detect(rgb)
        return max((face.long_side for face in faces), default=0.0)


@dataclass(frozen=True)
class LoadedPhoto:
    """A photo that was read, and decoded once as a check."""

    data: bytes
    photo: Photo


@dataclass(frozen=True)
class Fetch(Step[PhotoItem, LoadedPhoto, LoadedPhoto, Photo]):
    """Read, decode and store one photo that lies on this machine."""

    root: Path
    settings: FetchSettings
    forgotten: Forgotten = Forgotten()
    batch_size: int = 8

    @property
    def provenance(self) -> Provenance:
        """Without settings: a changed one concerns photos to come, none is fetched again."""
        return PROVENANCE

    def load(self, item: PhotoItem) -> LoadedPhoto:
        """Read and decode. Raises ImageError."""
        if item.photo.status != "kept":
            return LoadedPhoto(b"", item.photo)
        data = images.read_bytes(Path(item.path), max_bytes=int(self.settings.max_megabytes * MEGA))
        return LoadedPhoto(data, describe(item.photo, data, PhotoSet(self.root), self.settings, self.forgotten))

    def save(self, item: PhotoItem, fetched: LoadedPhoto) -> list[Photo]:
        """Store the bytes of a kept photo."""
        store(fetched.photo, fetched.data, PhotoSet(self.root))
        return [fetched.photo]

    def failed(self, item: PhotoItem, reason: str, detail: str) -> list[Photo]:
        """The row of a photo that could not be read."""
        return [replace(item.photo, status="failed", reason=reason, detail=detail)]


PROVENANCE = Provenance("fetch", VERSION, {}, {})


def fetch(
    photoset: PhotoSet, source: PhotoSource, settings: FetchSettings, console: Console, *, workers: int, limit: int
) -> Summary:
    """Add the source's photos that the set does not hold; the caller holds the set's lock.

    Photos of the web that a killed run had completed are not requested again; see `UnwrittenRows`.
    """
    forgotten = Forgotten.of(photoset)
    for line in rejudge(photoset, settings.opt_outs):
        console.log(line)
    kept = _KnownPhotos(photoset)
    retries = Retries(photoset, settings.retry, settings.opt_outs, web=source.web is not None)
    roll = Roll(retries.known())
    unwritten = UnwrittenRows(photoset, roll)
    extend = partial(
        append, PROVENANCE, target=photoset.photos, console=console, part_rows=settings.part_rows,
        finish=lambda rows: [retries.counted(row) for row in kept.settle(rows)], written=unwritten.mark_written,
    )  # fmt: skip
    stated = Stated(photoset, settings.path, roll, retries.due)
    new = _new(source, forgotten, retries, roll, stated, unwritten)
    chosen = islice(new, limit) if limit else new
    with stated:
        if source.web is None:
            head = list(islice(chosen, INLINE_ROWS))
            more = len(head) == INLINE_ROWS
            many = more and workers > 1
            work = Fetch(photoset.root, settings, forgotten)
            engine: Engine[PhotoItem] = (
                partial(processes, work, seats=seats(workers)) if many else partial(inline, work)
            )
            total = _expected(source, photoset, limit) if more else len(head)
            summary = extend(engine, chain(head, chosen), total=total, chunk_rows=CHUNK_ROWS)
        else:
            download = Download(photoset, source, source.web, settings, unwritten, forgotten)
            lanes = Lanes(download, settings.web.connections)
            total = _expected(source, photoset, limit)
            summary = extend(lanes, _until_paused(chosen, source), total=total, chunk_rows=1)
        if source.web is None or not (limit or source.paused):
            summary = _with_leftovers(summary, unwritten, extend, settings.opt_outs)
        retries.settle()
    for when, count in sorted(retries.later.items()):
        console.log(
            f"fetch: {count:,} failed before and may pass: asked for again from {when}, now with --retry failed"
        )
    for line in stated.lines():
        console.log(f"fetch: {line}")
    return replace(summary, counts=photoset.photos.counts(), restated=stated.restated)


def _new(
    source: PhotoSource, forgotten: Forgotten, retries: Retries, roll: Roll, stated: Stated, unwritten: UnwrittenRows
) -> Iterator[PhotoItem]:
    """The items that the set lacks, each with what is said of it; of the others what is said is heard."""
    for listed in source.items():
        photo = retries.as_noted(listed.photo)
        item = listed if photo is listed.photo else replace(listed, photo=photo)
        number = roll.number(photo_key(photo))
        if source.repeats and not roll.mark(number, LISTED):
            source.ignored[source.repeats] += 1
        if not _wanted(photo, source, forgotten) or not _may_pass(item, retries):
            continue
        again = not roll.mark(number, MET)
        if again or number >= 0:
            stated.hear(item, number, again=again)
        else:
            earlier = unwritten.get(photo)
            yield replace(item, photo=stated.first(item, number, earlier.photo if earlier else None))
    stated.whole = True


def _wanted(photo: Photo, source: PhotoSource, forgotten: Forgotten) -> bool:
    """Whether a photo may be fetched; a forgotten one gets no row, which would name it again."""
    by = (photo.photographer, photo.photographer_url)
    if not forgotten.holds(source=photo.source, source_id=photo.source_id, photographers=by):
        return True
    source.ignored["forgotten before"] += 1
    return False


def _may_pass(item: PhotoItem, retries: Retries) -> bool:
    """Whether another try may end otherwise: not of a file of this machine that still cannot be read."""
    again = item.path and retries.retry == "transient" and photo_key(item.photo) in retries.due
    return not again or os.access(item.path, os.R_OK)


def _until_paused(items: Iterator[PhotoItem], source: PhotoSource) -> Iterator[PhotoItem]:
    """The items up to a wait that the run must not make, in the listing or for a photo."""
    try:
        for item in items:
            yield item
            if source.paused:
                return
    except Paused:
        return


def _with_leftovers(summary: Summary, unwritten: UnwrittenRows, extend: Any, level: Level) -> Summary:
    """Write what an earlier run left unwritten of photos that this run's source does not list, judged at this level."""
    if not (rows := [judged(row, level) for row in unwritten.rows()]):
        return summary
    more: Summary = extend(lambda chunks: ((1, chunk) for chunk in chunks), iter(rows), total=len(rows), chunk_rows=1)
    return replace(summary, made=summary.made + more.made, rows=summary.rows + more.rows, counts=more.counts)


def _expected(source: PhotoSource, photoset: PhotoSet, limit: int) -> int | None:
    """About how many photos are new, for the progress bar only."""
    listed = source.count()
    if listed is None:
        return limit or None
    new = listed - sum(photoset.photos.counts().values())
    return min(new, limit or new) if new > 0 else None


class _KnownPhotos:
    """The photos the set holds: the first of several equal files is kept."""

    def __init__(self, photoset: PhotoSet) -> None:
        self._photoset = photoset

    @cached_property
    def _ids(self) -> NumberSet:
        """The first 64 bits of their sha256; read before a kept photo of this run is written."""
        photos = self._photoset.photos
        rows = (row for part in photos.parts() for row in photos.columns(part, ["id", "status"]))
        return NumberSet(_number(photo_id) for photo_id, status in rows if status == "kept")

    def settle(self, rows: list[Photo]) -> list[Photo]:
        """The rows of a part: a photo that the set has is rejected, of one that it forgot no name is left."""
        bury(self._photoset, [tombstone(row, "the same bytes", done=True) for row in rows if row.reason == REASON])
        return [blank(row.source) if row.reason == REASON else self._once(row) for row in rows]

    def _once(self, row: Photo) -> Photo:
        return row if row.status != "kept" or self._ids.add(_number(row.id)) else repeated_row(row)


def _number(photo_id: str) -> int:
    """The first 64 bits of a sha256 in hex."""
    return int(photo_id[:16], 16)
