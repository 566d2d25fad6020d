"""Faces as the network saw them, before they are agreed upon: one of several looks at a photo, and none of parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NMS_IOU = 0.4
TRUSTED_FACE = 400
"""Pixels of a face as the network sees it; beyond, another scale's view is preferred and parts of it are dropped."""
SURE_FACE = 80
"""Pixels of a face from which a look at a smaller scale would have found it too: a finer look's box beyond is false."""
PART_INSIDE = 0.5
"""Share of a box inside a face beyond `TRUSTED_FACE` at its scale from which it counts as a part of that face."""


@dataclass(frozen=True)
class Candidates:
    """Faces before suppression: (n, 4) boxes, (n,) scores, (n, 10) points, all with the first pixel's corner at 0."""

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    points: NDArray[np.float64]
    scale: NDArray[np.float64]
    """(n,) how many pixels the network saw for one pixel of these coordinates."""

    def take(self, index: NDArray[np.intp]) -> Candidates:
        """Those of these numbers."""
        return Candidates(self.boxes[index], self.scores[index], self.points[index], self.scale[index])

    def above(self, score: float) -> Candidates:
        """Those of a higher score."""
        return self.take(np.flatnonzero(self.scores > score))

    def moved(self, ratio: NDArray[np.float64], x: float, y: float) -> Candidates:
        """In coordinates of which one is `ratio` (x, y) of these, with the corner of these at (x, y)."""
        corner = np.array([x, y])
        return Candidates(
            self.boxes * np.tile(ratio, 2) + np.tile(corner, 2),
            self.scores,
            self.points * np.tile(ratio, 5) + np.tile(corner, 5),
            self.scale,
        )

    @property
    def centres(self) -> NDArray[np.float64]:
        """(n, 2) middle of each box."""
        return np.asarray((self.boxes[:, :2] + self.boxes[:, 2:]) / 2, dtype=np.float64)

    @property
    def sides(self) -> NDArray[np.float64]:
        """(n,) longer side of each box."""
        return np.asarray(np.max(self.boxes[:, 2:] - self.boxes[:, :2], axis=1, initial=0.0), dtype=np.float64)

    @property
    def areas(self) -> NDArray[np.float64]:
        """(n,) of each box."""
        return np.asarray(np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1), dtype=np.float64)


def joined(looks: Sequence[Candidates]) -> Candidates:
    """All of several looks, of which there is at least one."""
    fields = [(c.boxes, c.scores, c.points, c.scale) for c in looks]
    return Candidates(*(np.concatenate(column) for column in zip(*fields, strict=True)))


def merge(looks: Sequence[Candidates]) -> Candidates:
    """One candidate a face out of several looks at a photo, the largest first.

    Of two that overlap by more than `NMS_IOU` the one seen at a trusted size stays, then the one of higher
    score. A box that lies inside a face too large for the finer look is a part of it (an eye, a mouth) and goes.
    """
    every = joined(looks)
    trusted = every.sides * every.scale <= TRUSTED_FACE
    rest = every.take(np.lexsort((-every.scores, ~trusted)))
    kept = []
    while len(rest.scores):
        head = rest.take(np.array([0]))
        kept.append(head)
        apart = iou(head.boxes[0], rest.boxes) <= NMS_IOU
        apart[0] = False  # a box without area overlaps nothing, not even itself
        rest = rest.take(np.flatnonzero(apart))
    if not kept:
        return every
    faces = joined(kept)
    faces = faces.take(np.argsort(-faces.areas, kind="stable"))
    return faces.take(np.flatnonzero(~_parts(faces)))


def confirmed(looks: Sequence[Candidates], scales: Sequence[float]) -> list[Candidates]:
    """Looks from coarse to fine, each without what the one before, or an even coarser one, would have seen too."""
    kept = list(looks[:1])
    for fine, scale in zip(looks[1:], scales, strict=False):
        kept.append(fine.take(np.flatnonzero(~_unconfirmed(fine, joined(kept), scale))))
    return kept


def _unconfirmed(fine: Candidates, coarse: Candidates, scale: float) -> NDArray[np.bool_]:
    """(n,) which boxes of a finer look are large enough for a coarser one of `scale`, and not in it."""
    return np.array(
        [
            side * scale > SURE_FACE and not (iou(box, coarse.boxes) > NMS_IOU).any()
            for box, side in zip(fine.boxes, fine.sides, strict=True)
        ],
        dtype=np.bool_,
    )


def apart(candidates: Candidates, faces: Candidates) -> Candidates:
    """Those that overlap none of the faces."""
    free = [not (_intersection(box, faces.boxes) > 0).any() for box in candidates.boxes]
    return candidates.take(np.flatnonzero(np.array(free, dtype=np.bool_)))


def _parts(faces: Candidates) -> NDArray[np.bool_]:
    """(n,) which boxes lie inside a face that was too large at the scale the box was seen at."""
    part = np.zeros(len(faces.scores), dtype=np.bool_)
    for i in range(len(part)):
        inside = _intersection(faces.boxes[i], faces.boxes) > PART_INSIDE * faces.areas
        too_large = faces.sides[i] * faces.scale > TRUSTED_FACE
        part |= inside & too_large & (faces.areas < faces.areas[i])
    return part


def iou(box: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) intersection over union of a box with (n, 4) others."""
    shared = _intersection(box, boxes)
    area, areas = np.prod(box[2:] - box[:2]), np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return np.asarray(shared / np.maximum(area + areas - shared, 1e-9), dtype=np.float64)


def _intersection(box: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    return np.asarray(np.prod(np.clip(high - low, 0, None), axis=1), dtype=np.float64)
