"""What a reviewer's decisions teach: faces, kept or not and why, and which of them belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from authface.curate.filter.duplicates import near_pairs
from authface.curate.learn.table import FaceTable, face_parts, together
from authface.curate.split.groups import DisjointSets
from authface.review.reviews import Decision
from authface.store.photoset import PhotoSet


@dataclass(frozen=True)
class Lesson:
    """Decided faces, row by row."""

    faces: FaceTable
    kept: NDArray[np.bool_]
    """A face that is to be retouched is kept: it is good but for its flaws."""
    reasons: tuple[str, ...]
    """In the reviewer's words; empty where they gave none, or kept the face."""
    groups: NDArray[np.int64]
    """Faces of one person, one photo or nearly one picture have one number: they are never on both sides of a test."""

    @property
    def rejected(self) -> int:
        """Faces that were rejected."""
        return int((~self.kept).sum())

    def take(self, rows: NDArray[np.int64]) -> Lesson:
        """Some of the faces, by their place."""
        reasons = tuple(self.reasons[int(row)] for row in rows)
        return Lesson(self.faces.take(rows), self.kept[rows], reasons, self.groups[rows])


def read_lesson(photoset: PhotoSet, decisions: Mapping[str, Decision]) -> Lesson:
    """The lesson of a set whose table `features` is there, by the decisions of one reviewer."""
    return make_lesson(together(list(face_parts(photoset, decisions.keys()))), decisions, identities(photoset))


def make_lesson(pool: FaceTable, decisions: Mapping[str, Decision], people: Mapping[str, str]) -> Lesson:
    """The decided of the faces of `pool`; `people` are the groups of `curate split`, by face, as far as known."""
    faces = pool.take([row for row, face in enumerate(pool.ids) if face in decisions])
    said = [decisions[face] for face in faces.ids]
    reasons = tuple(one.reason if one.verdict == "reject" else "" for one in said)
    kept = np.array([one.verdict != "reject" for one in said], np.bool_)
    return Lesson(faces, kept, reasons, grouped(faces, people))


def identities(photoset: PhotoSet) -> dict[str, str]:
    """The group of every face that `curate split` has put into one."""
    parts = photoset.people.parts()
    return {face: group for part in parts for face, group in photoset.people.columns(part, ["id", "group"]) if group}


def grouped(faces: FaceTable, people: Mapping[str, str]) -> NDArray[np.int64]:
    """A number for each face, the same for those of one person, one photo or nearly one picture."""
    sets = DisjointSets(len(faces.ids))
    for names in (faces.photo_ids, [people.get(face, face) for face in faces.ids]):
        _join_alike(sets, names)
    hashed = [row for row, code in enumerate(faces.hashes) if code]
    for first, second in near_pairs([faces.hashes[row] for row in hashed]):
        sets.join(hashed[first], hashed[second])
    return np.array(sets.labels(), np.int64)


def _join_alike(sets: DisjointSets, names: Sequence[str]) -> None:
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        sets.join(first.setdefault(name, row), row)
