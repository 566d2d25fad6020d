"""What the review page shows: the faces of a set in filtered, sorted views, their pictures, a reviewer's decisions."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Literal, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from authface.curate.learn.run import LEARNED
from authface.errors import ImageError
from authface.imaging import decode as images
from authface.records import Crop, Face, Photo, now
from authface.review.reviews import Decision, Reviewed, Verdict, effective_decisions
from authface.store.journal import Journal
from authface.store.photoset import PhotoSet

ASKED = "asked"
"""Name of the order of `--next`."""
KEPT_VIEWS = 16
"""Views that are remembered; a page holds one, so that several tabs and a few steps back fit."""

_NO_MEASURE = {"value", "limit"}
_CROP_MEASURES = ("disagreement", "pad_fraction")
_CROP_COLUMNS = ("id", "photo_id", "file", "size", "quad", "upscaled", "status", *_CROP_MEASURES)
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


@dataclass(frozen=True, slots=True)
class GalleryFace:
    """One face on the page: a crop to judge, or a face the filter rejected, to look at."""

    part: int
    """Of the tables it is in."""
    face: Face
    crop: Crop | None
    """Without landmarks; None for a face the filter rejected."""
    photo: Photo
    measures: Mapping[str, float]

    @property
    def id(self) -> str:
        """The face's id."""
        return self.face.id

    @property
    def judgeable(self) -> bool:
        """Whether a person may decide on it: a crop, or a face that only a learned model rejected."""
        return self.crop is not None or self.face.reason == LEARNED


@dataclass(frozen=True)
class Judgements:
    """What views are filtered and sorted by besides the faces: decisions, and the order in which to ask."""

    mine: Mapping[str, Decision]
    """The reviewer's own, by face."""
    others: Mapping[str, Mapping[str, Decision]] = field(default_factory=dict)
    """By other reviewer and face."""
    asking: Mapping[str, int] = field(default_factory=dict)
    """Places of faces in the order of `--next`."""

    def disputed(self, face: str) -> bool:
        """Whether another reviewer decided otherwise than this one."""
        own = self.mine.get(face)
        if own is None:
            return False
        return any(face in said and said[face].verdict != own.verdict for said in self.others.values())


class ViewQuery(BaseModel):
    """Which faces a view shows, in which order; as the page's address holds it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    show: Literal["crops", "rejected"] = "crops"
    decision: Literal["", "undecided", "keep", "reject", "retouch", "disputed"] = ""
    """The reviewer's own; `disputed` where another reviewer decided otherwise; empty for any."""
    reason: str = ""
    """The reviewer's reason to reject, or the filter's; empty for any."""
    measure: str = ""
    """Sorts by this measure, which `low` and `high` limit; empty keeps the order of the set, `ASKED` shows what
    `--next` asks, undecided faces alone."""
    descending: bool = False
    low: float | None = None
    high: float | None = None
    after: int = 0
    """Number of a view that this one goes on from: ..."""
    head: int = 0
    """... its first faces, as many, stay where they are, so that nothing changes under a reviewer's hand."""


class FaceGallery:
    """All faces of a set, in memory, and the views that pages hold."""

    def __init__(self, entries: Sequence[GalleryFace]) -> None:
        self.entries = entries
        self.by_id = {entry.id: entry for entry in entries}
        self.crops = sum(entry.judgeable for entry in entries)
        """Faces that can be judged."""
        self.measures = sorted({name for entry in entries for name in entry.measures})
        self.filter_reasons = Counter(entry.face.reason for entry in entries if entry.crop is None)
        self._views: OrderedDict[int, list[GalleryFace]] = OrderedDict()
        self._last = 0

    def open(self, query: ViewQuery, judged: Judgements) -> tuple[int, int]:
        """Freeze a view of the current decisions; returns its number and its number of faces."""
        head = (self.view(query.after) or [])[: query.head]
        staying = {entry.id for entry in head}
        rest = _selected(self.entries, query, judged)
        found = [*head, *(entry for entry in rest if entry.id not in staying)]
        self._last += 1
        self._views[self._last] = found
        while len(self._views) > KEPT_VIEWS:
            self._views.popitem(last=False)
        return self._last, len(found)

    def view(self, number: int) -> list[GalleryFace] | None:
        """The faces of a view; None if it is no longer remembered."""
        if number in self._views:
            self._views.move_to_end(number)
        return self._views.get(number)


def load_gallery(photoset: PhotoSet, limit: int = 0) -> FaceGallery:
    """The first `limit` kept crops of a set, or all, and the faces its filter rejected."""
    entries, crops = [], 0
    for part in photoset.faces.parts():
        for entry in _of_part(photoset, part):
            if entry.crop is not None:
                crops += 1
                if limit and crops > limit:
                    continue
            entries.append(entry)
    return FaceGallery(entries)


def _of_part(photoset: PhotoSet, part: int) -> Iterator[GalleryFace]:
    photos = {photo.id: photo for photo in photoset.photos.rows(part) if photo.status == "kept"}
    crops = {}
    if part in photoset.crops.parts():
        for values in photoset.crops.columns(part, _CROP_COLUMNS):
            row = dict(zip(_CROP_COLUMNS, values, strict=True))
            quad = row.pop("quad")
            crops[row["id"]] = Crop(quad=tuple(quad) if quad else None, **row)
    for face in photoset.faces.rows(part):
        crop, photo = crops.get(face.id), photos.get(face.photo_id)
        if photo is None:
            continue
        if face.status == "kept" and crop is not None and crop.status == "kept":
            yield GalleryFace(part, face, crop, photo, dict(_measured(face, crop)))
        elif face.status == "rejected" and face.box is not None:
            yield GalleryFace(part, face, None, photo, dict(_measured(face, None)))


def _face_measures() -> list[str]:
    """The numbers a face may hold, in the order of its fields."""
    hints = get_type_hints(Face)
    return [f.name for f in fields(Face) if f.name not in _NO_MEASURE and float in get_args(hints[f.name])]


_FACE_MEASURES = _face_measures()


def _measured(face: Face, crop: Crop | None) -> Iterable[tuple[str, float]]:
    found = [(name, getattr(face, name)) for name in _FACE_MEASURES]
    found += [(score.metric, score.value) for score in face.scores]
    found += [(name, getattr(crop, name)) for name in _CROP_MEASURES if crop is not None]
    return ((name, value) for name, value in found if value is not None and value == value)  # no NaN: it has no order


def _selected(entries: Iterable[GalleryFace], query: ViewQuery, judged: Judgements) -> Iterable[GalleryFace]:
    if query.measure == ASKED:
        asked = [entry for entry in entries if entry.id in judged.asking and entry.id not in judged.mine]
        return sorted((entry for entry in asked if entry.judgeable), key=lambda entry: judged.asking[entry.id])
    found = [entry for entry in entries if _wanted(entry, query, judged)]
    if not query.measure:
        return found
    name, sign = query.measure, -1 if query.descending else 1
    known = [entry for entry in found if name in entry.measures]
    unknown = [] if query.low is not None or query.high is not None else found
    unknown = [entry for entry in unknown if name not in entry.measures]
    return sorted(known, key=lambda entry: sign * entry.measures[name]) + unknown


def _wanted(entry: GalleryFace, query: ViewQuery, judged: Judgements) -> bool:
    if (entry.crop is not None) != (query.show == "crops"):
        return False
    if query.show == "crops" and not _decided_so(entry.id, query, judged):
        return False
    if query.show == "rejected" and query.reason and query.reason != entry.face.reason:
        return False
    value = entry.measures.get(query.measure)
    if value is None:
        return True
    return not ((query.low is not None and value < query.low) or (query.high is not None and value > query.high))


def _decided_so(face: str, query: ViewQuery, judged: Judgements) -> bool:
    """Whether the reviewer's decision on a crop is what the query asks for."""
    decision = judged.mine.get(face)
    if query.decision == "disputed":
        if not judged.disputed(face):
            return False
    elif query.decision and query.decision != (decision.verdict if decision else "undecided"):
        return False
    return not query.reason or query.reason == (decision.reason if decision else "")


class FacePictures:
    """Encoded pictures of faces; all methods raise ImageError where a file cannot be read."""

    def __init__(self, photoset: PhotoSet, people: Reviewed) -> None:
        self._photoset = photoset
        self._people = people
        self._slots = threading.Semaphore(_AT_ONCE)
        self._one = threading.Lock()
        self._cached = lru_cache(CACHED)(self._preview)
        self._photo = lru_cache(1)(self._decoded)
        self._landmarks = lru_cache(8)(self._landmarks_of)

    def file(self, entry: GalleryFace) -> str:
        """The crop's file: the retouched one if there is one."""
        assert entry.crop is not None
        return self._people.file(entry.crop)

    def is_there(self, entry: GalleryFace) -> bool:
        """Whether the set still has its picture: `curate forget` may have run since the page was opened."""
        return self._photoset.exists(entry.face.photo_file if entry.crop is None else self.file(entry))

    def thumbnail(self, entry: GalleryFace) -> bytes:
        """A JPEG of at most 256 px."""
        return self._cached(*self._source(entry), THUMBNAIL)

    def whole(self, entry: GalleryFace) -> tuple[bytes, str]:
        """The crop's own PNG, or a JPEG of the face in its photo; with its media type."""
        if entry.crop is not None:
            return self._photoset.read(self.file(entry)), "image/png"
        return self._preview(*self._source(entry), WHOLE), "image/jpeg"

    def eyes(self, entry: GalleryFace, width: int, height: int) -> bytes:
        """A PNG of at most `width` x `height` pixels of the original photo around the eyes, one to one."""
        with self._one:  # the photo is decoded once, and one at a time
            rgb = self._photo(entry.face.photo_file)
        x, y = self._between_the_eyes(entry)
        left, right = _window(x, width, rgb.shape[1])
        top, bottom = _window(y, height, rgb.shape[0])
        return images.encode_png(np.ascontiguousarray(rgb[top:bottom, left:right]))

    def _source(self, entry: GalleryFace) -> tuple[str, tuple[float, float, float, float] | None]:
        """A file of the set and the part of it to show."""
        if entry.crop is not None:
            return self.file(entry), None
        if entry.face.box is None:
            raise ImageError("no_face", "the face has no box")
        x0, y0, x1, y1 = entry.face.box
        margin = _MARGIN * max(x1 - x0, y1 - y0)
        return entry.face.photo_file, (x0 - margin, y0 - margin, x1 + margin, y1 + margin)

    def _preview(self, file: str, box: tuple[float, float, float, float] | None, side: int) -> bytes:
        with self._slots:
            rgb = images.preview(self._photoset.root / file, side, box)
        return images.encode_jpeg(rgb, quality=85)

    def _decoded(self, file: str) -> NDArray[np.uint8]:
        return images.decode(self._photoset.read(file)).rgb

    def _between_the_eyes(self, entry: GalleryFace) -> tuple[float, float]:
        """In the photo, by dlib's points, else by RetinaFace's, else the middle of the box."""
        points = self._landmarks(entry.part).get(entry.id) if entry.crop is not None else None
        if points:
            x, y = np.reshape(points, (68, 2))[36:48].mean(axis=0)
            return float(x), float(y)
        if entry.face.points5:
            x0, y0, x1, y1 = entry.face.points5[:4]
        elif entry.face.box:
            x0, y0, x1, y1 = entry.face.box
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


class ReviewerDecisions:
    """The decisions of one reviewer, each on disk before it is answered; thread-safe."""

    def __init__(self, journal: Journal[Decision]) -> None:
        lines, _ = journal.read()
        self._journal = journal
        self._live = effective_decisions(lines)
        self._lock = threading.Lock()
        self.decisions = {decision.id: decision for decision in self._live}
        """The decisions in force, by crop id."""

    def decide(self, crop_id: str, verdict: Verdict, reason: str) -> None:
        """Record a decision on a crop, unless it is unchanged. Raises AuthfaceError if the disk refuses."""
        with self._lock:
            before = self.decisions.get(crop_id)
            if before is not None and (before.verdict, before.reason) == (verdict, reason):
                return
            decision = Decision(id=crop_id, verdict=verdict, reason=reason, at=now("microseconds"))
            self._journal.append(decision)
            self._live.append(decision)
            self.decisions = {**self.decisions, crop_id: decision}

    def undo(self, is_there: Callable[[str], bool]) -> str | None:
        """Take back the latest decision on a crop that is there; returns its id, None if there is none left.

        Of a crop that is gone, maybe forgotten, no line is written any more.
        """
        with self._lock:
            while self._live and not is_there(self._live[-1].id):
                self._live.pop()
            if not self._live:
                return None
            crop_id = self._live[-1].id
            self._journal.append(Decision(id=crop_id, verdict="undo", at=now("microseconds")))
            self._live.pop()
            self.decisions = {decision.id: decision for decision in self._live}
            return crop_id
