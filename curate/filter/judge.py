"""Which faces are kept: measures against limits, cheap ones first. Pure functions that read no pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from authface.curate.settings import FilterSettings
from authface.records import Crop, Face

Row = TypeVar("Row", Face, Crop)


@dataclass(frozen=True)
class Limit:
    """One threshold on one measure of `records.Face`."""

    setting: str
    """Its name in `FilterSettings`: ``min_...`` rejects lower values, ``max_...`` higher ones."""
    measure: str
    reason: str

    @property
    def least(self) -> bool:
        """Whether values below the limit are rejected, rather than those above."""
        return self.setting.startswith("min_")

    def value(self, face: Face) -> float | None:
        """The value that is compared with the limit: the measure, of an angle its size; None if it was not measured."""
        value: float | None = getattr(face, self.measure)
        return abs(value) if value is not None and self.measure in ANGLES else value

    def refuses(self, value: float, limit: float) -> bool:
        """Whether `value` lies beyond `limit`."""
        return value < limit if self.least else value > limit


ANGLES = frozenset({"yaw", "pitch", "roll"})

LIMITS = (
    Limit("min_score", "score", "unsure"),
    Limit("min_size", "size", "small_face"),
    Limit("max_yaw", "yaw", "turned_aside"),
    Limit("max_pitch", "pitch", "turned_up_or_down"),
    Limit("max_roll", "roll", "leaning"),
    Limit("min_exposure", "exposure", "too_dark"),
    Limit("max_exposure", "exposure", "too_bright"),
    Limit("max_clipped", "clipped", "clipped"),
    Limit("min_sharpness", "sharpness", "blurred"),
    Limit("max_noise", "noise", "noisy"),
    Limit("max_pepper", "pepper", "pepper_noise"),
    Limit("max_blockiness", "blockiness", "blocky"),
    Limit("max_pixelation", "pixelation", "pixelated"),
    Limit("min_resolution", "resolution", "enlarged"),
    Limit("max_sharpening", "sharpening", "over_sharpened"),
    Limit("max_smoothing", "smoothing", "over_smoothed"),
    Limit("max_hatching", "hatching", "hatched"),
    Limit("max_piqe", "piqe", "low_quality"),
)
"""In the order they are checked: the first broken one is the reason."""


@dataclass(frozen=True)
class Neighbours:
    """What a face's verdict depends on beside the face itself."""

    in_photo: int = 1
    """Faces found in its photo."""
    repeats: str = ""
    """Id of the better face it nearly repeats, if any."""
    distance: int = 0
    """To that face, bits."""


def judge(face: Face, near: Neighbours, limits: FilterSettings) -> Face:
    """A measured face with its verdict before any metric of pyiqa; a face that is not `kept` stays as it is."""
    face = judge_alone(face, near.in_photo, limits)
    if face.status == "kept" and near.repeats:
        return replace(
            rejected(face, "near_duplicate", near.distance, limits.duplicate_radius), duplicate_of=near.repeats
        )
    return face


def judge_alone(face: Face, in_photo: int, limits: FilterSettings) -> Face:
    """The verdict without near duplicates."""
    if face.status != "kept":
        return face
    if limits.faces == "one" and in_photo > 1:
        return rejected(face, "several_faces", in_photo, 1)
    if limits.faces == "largest" and face.index > 0:
        return rejected(face, "not_largest", face.index + 1, 1)
    for limit, value, bound in broken(face, limits):
        return rejected(face, limit.reason, value, bound)
    return face


def broken(face: Face, limits: FilterSettings) -> Iterator[tuple[Limit, float, float]]:
    """Every limit that the face breaks, in order, with its value and bound."""
    for limit in LIMITS:
        value, bound = limit.value(face), getattr(limits, limit.setting)
        if value is not None and limit.refuses(value, bound):
            yield limit, value, bound


def judge_score(face: Face, metric: str, limits: Mapping[str, float], *, lower_better: bool) -> Face:
    """The verdict once the face has a score of `metric`, the last in `face.scores`."""
    value, limit = face.scores[-1].value, limits[metric]
    if value > limit if lower_better else value < limit:
        return rejected(face, f"{'high' if lower_better else 'low'}_{metric}", value, limit)
    return face


def rejected(row: Row, reason: str, value: float, limit: float) -> Row:
    """The row of a face or a crop, rejected."""
    return replace(row, status="rejected", reason=reason, value=value, limit=limit)
