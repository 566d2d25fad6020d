"""The faces a person may look at, with what was measured of them, and views of them: filtered, sorted, fixed."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict

from authface.records import Crop, Face, Photo
from authface.review.decisions import Decision
from authface.store.photoset import PhotoSet

KEPT_VIEWS = 16
"""Views that are remembered; a page holds one, so that several tabs and a few steps back fit."""

_NO_MEASURE = {"value", "limit"}
_CROP_MEASURES = ("disagreement", "pad_fraction")
_CROP_COLUMNS = ("id", "photo_id", "file", "size", "quad", "upscaled", "status", *_CROP_MEASURES)


@dataclass(frozen=True, slots=True)
class Shown:
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


class Query(BaseModel):
    """Which faces a view shows, in which order; as the page's address holds it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    show: Literal["crops", "rejected"] = "crops"
    decision: Literal["", "undecided", "keep", "reject", "retouch"] = ""
    """The reviewer's own; empty for any."""
    reason: str = ""
    """The reviewer's reason to reject, or the filter's; empty for any."""
    measure: str = ""
    """Sorts, and is what `low` and `high` speak of; empty keeps the order of the set."""
    descending: bool = False
    low: float | None = None
    high: float | None = None


class Faces:
    """All faces of a set, in memory, and the views that pages hold."""

    def __init__(self, shown: Sequence[Shown]) -> None:
        self.shown = shown
        self.by_id = {entry.id: entry for entry in shown}
        self.crops = sum(entry.crop is not None for entry in shown)
        self.measures = sorted({name for entry in shown for name in entry.measures})
        self.filter_reasons = Counter(entry.face.reason for entry in shown if entry.crop is None)
        self._views: OrderedDict[int, list[Shown]] = OrderedDict()
        self._last = 0

    def open(self, query: Query, decisions: Mapping[str, Decision]) -> tuple[int, int]:
        """Fix a view under the decisions of now: its number, and how many faces it holds."""
        found = list(_selected(self.shown, query, decisions))
        self._last += 1
        self._views[self._last] = found
        while len(self._views) > KEPT_VIEWS:
            self._views.popitem(last=False)
        return self._last, len(found)

    def view(self, number: int) -> list[Shown] | None:
        """The faces of a view; None where it is no longer remembered."""
        if number in self._views:
            self._views.move_to_end(number)
        return self._views.get(number)


def load(photoset: PhotoSet, limit: int = 0) -> Faces:
    """The first `limit` kept crops of a set, or all, and the faces its filter rejected."""
    shown, crops = [], 0
    for part in photoset.faces.parts():
        for entry in _of_part(photoset, part):
            if entry.crop is not None:
                crops += 1
                if limit and crops > limit:
                    continue
            shown.append(entry)
    return Faces(shown)


def _of_part(photoset: PhotoSet, part: int) -> Iterator[Shown]:
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
            yield Shown(part, face, crop, photo, dict(_measured(face, crop)))
        elif face.status == "rejected" and face.box is not None:
            yield Shown(part, face, None, photo, dict(_measured(face, None)))


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


def _selected(shown: Iterable[Shown], query: Query, decisions: Mapping[str, Decision]) -> Iterable[Shown]:
    found = [entry for entry in shown if _wanted(entry, query, decisions)]
    if not query.measure:
        return found
    name, sign = query.measure, -1 if query.descending else 1
    known = [entry for entry in found if name in entry.measures]
    unknown = [] if query.low is not None or query.high is not None else found
    unknown = [entry for entry in unknown if name not in entry.measures]
    return sorted(known, key=lambda entry: sign * entry.measures[name]) + unknown


def _wanted(entry: Shown, query: Query, decisions: Mapping[str, Decision]) -> bool:
    if (entry.crop is not None) != (query.show == "crops"):
        return False
    decision = decisions.get(entry.id)
    if query.show == "crops":
        if query.decision and query.decision != (decision.verdict if decision else "undecided"):
            return False
        if query.reason and query.reason != (decision.reason if decision else ""):
            return False
    elif query.reason and query.reason != entry.face.reason:
        return False
    value = entry.measures.get(query.measure)
    if value is None:
        return True
    return not ((query.low is not None and value < query.low) or (query.high is not None and value > query.high))
