"""Looks of the detector at a photo of any size and shape: at which scales, in which tiles, and what they saw.

Tiles give memory a bound. Places where a look gave but a hint of a small face are looked at once more, enlarged.
Candidates are faces as the network saw them, before they are agreed upon: one of several looks, and none of parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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


SINGLE_SIDE = 640
"""Photos up to this long are seen once, as they are: no face in them is too large for the network."""
COARSE_SIDE = 512
"""Longer photos are first seen shrunk to this, for the large faces.
Photos longer than 2 : 1 are shrunk to as many pixels as one of 2 : 1: a strip keeps its faces."""
LOOK_SIDE = 1024
"""Turned copies are first looked at with so many pixels at most: a face has to have 3 % of the photo's longer side."""
FINE_SIDE = 2048
"""Whatever faces are wanted, photos are at last seen with so many pixels a side, or as they are."""
HINTED_FACE = 24
"""Pixels from which a face leaves a hint in a look, which a second look at its place makes sure of."""
STEP = TRUSTED_FACE / SURE_FACE
"""Most by which a look is finer than the one before: what is too large for it was surely seen before."""
TILE = 2048
"""A look of more than so many pixels squared is taken in tiles."""
MARGIN = 128
"""Pixels around the part of a tile whose faces are taken from it. A face up to twice as large is whole in its tile;
larger ones were seen in the look before, where they have 2 * `MARGIN` / `STEP` pixels and more."""
SLACK = 8
"""Pixels beyond that part from which faces are taken, too: two tiles may see a face's middle a little apart."""
GRID = 32
"""The network's largest stride: tiles that begin on it see the cells that a whole look would see."""


def scale_to(side: int, width: int, height: int) -> float:
    """By how much a photo is shrunk to be `side` pixels long; beyond 2 : 1, to have as many pixels as at 2 : 1."""
    long, short = max(width, height), min(width, height)
    return min(1.0, side * max(1.0, math.sqrt(long / short / 2)) / long)


def scales_of(width: int, height: int, least_face: float) -> list[float]:
    """How the photo is resized for each look, from coarse to fine: at last so that `least_face` pixels leave a hint."""
    if max(width, height) <= SINGLE_SIDE:
        return [1.0]
    coarse = scale_to(COARSE_SIDE, width, height)
    wanted = min(1.0, HINTED_FACE / max(least_face, HINTED_FACE))
    finest = max(scale_to(FINE_SIDE, width, height), wanted)
    steps = max(1, math.ceil(math.log(finest / coarse) / math.log(STEP) - 1e-9))
    return [coarse * (finest / coarse) ** (i / steps) for i in range(steps)] + [finest]


def pixels_looked_at(width: int, height: int, least_face: float, *, found: bool) -> float:
    """Pixels that the network sees of a photo in which a face is `found`, upright and not small.

    Without one it looks again at an enlarged copy of a small photo, and at three turned ones.
    """
    areas = sum(scale**2 for scale in scales_of(width, height, least_face))
    if not found:
        areas += 3 * scale_to(LOOK_SIDE, width, height) ** 2
        areas += 4 if 2 * max(width, height) <= FINE_SIDE else 0
    return areas * width * height


def least_found(width: int, height: int, least_face: float) -> float:
    """Pixels of the smallest faces that are surely looked for in a photo in which there is no larger one."""
    finest = 2.0 if 2 * max(width, height) <= FINE_SIDE else scales_of(width, height, least_face)[-1]
    return max(least_face, HINTED_FACE / finest)


def no_face_text(width: int, height: int, least_face: float) -> str:
    """What is said of a photo of that size in which no face was found."""
    return f"no face found of {least_found(width, height, least_face):.0f} px or more"


@dataclass(frozen=True)
class Span:
    """A part of one axis, `start` to `stop`, and within it that whose faces it answers for."""

    start: int
    stop: int
    first: float
    last: float

    def holds(self, middles: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(n,) which middles, counted from `start`, it answers for: each is in one of the spans of `spans` at least."""
        place = middles + self.start
        return np.asarray((place >= self.first - SLACK) & (place < self.last + SLACK), dtype=np.bool_)


def spans(length: int, count: int) -> list[Span]:
    """An axis of `length` pixels in at most `count` overlapping spans of about the same length."""
    inner = GRID * math.ceil(length / count / GRID)
    starts = list(range(0, length, inner))
    return [
        Span(
            max(0, start - MARGIN),
            min(length, start + inner + MARGIN),
            -math.inf if start == 0 else start,
            math.inf if start == starts[-1] else start + inner,
        )
        for start in starts
    ]


def tiles_of(width: int, height: int) -> list[tuple[Span, Span]]:
    """Columns and rows of a look's tiles, in which the fewest pixels are seen twice; one tile where it is small."""
    if width * height <= TILE**2:
        return [(x, y) for x in spans(width, 1) for y in spans(height, 1)]
    most = 2 + width * height // (TILE - 2 * MARGIN) ** 2
    layouts = [(spans(width, nx), spans(height, ny)) for nx in range(1, most) for ny in _rows(width, height, nx)]
    columns, rows = min(layouts, key=lambda layout: _cost(*layout))
    return [(x, y) for y in rows for x in columns]


def _rows(width: int, height: int, columns: int) -> Sequence[int]:
    """The fewest rows with which tiles of so many columns are small enough; none where they never are."""
    widest = max(span.stop - span.start for span in spans(width, columns))
    room = TILE**2 // widest - 2 * MARGIN
    return [math.ceil(height / (room - GRID))] if room > 2 * GRID else []


def _cost(columns: Sequence[Span], rows: Sequence[Span]) -> int:
    """Pixels that are seen in all."""
    return sum(span.stop - span.start for span in columns) * sum(span.stop - span.start for span in rows)


def own(seen: Candidates, x: Span, y: Span) -> Candidates:
    """What a tile saw, in its own pixels, without the faces that another tile answers for."""
    return seen.take(np.flatnonzero(x.holds(seen.centres[:, 0]) & y.holds(seen.centres[:, 1])))


Look = Callable[[NDArray[np.uint8], float], Candidates]
"""Candidates in a picture resized by a scale, in the picture's coordinates: sure faces only."""

# 140 portraits shrunk to a box of the given longer side, share of them with a candidate above 0.02: 16 px 61 %, 20 px
# 91 %, 24 px 94 %, 32 px 96 %, 48 px all; above 0.9: 0, 1, 5, 64, 96 %. The same enlarged three times, above 0.9: 94,
# 97, 99, 100, 100 %. Candidates above 0.02 in a megapixel of photos and scans without such faces: 1 to 10; of grass
# and gravel 110 and 310.
HINT_SCORE = 0.02
"""Above this a candidate is a hint."""
SMALL_FACE = 48
"""Pixels of a face, as the network sees it, from which it needs no second look."""
MIN_SHARE = 0.6
"""Candidates smaller than this share of the least face that is wanted are no hint."""
ZOOM = 3.0
"""By how much a place is enlarged."""
PLACE = 128
"""Side of a place before, pixels of the look that gave the hint."""
EDGE = 28
"""What lies so near to the border of a place was perhaps not seen whole, pixels as of `PLACE`."""
PATIENCE = 64
"""After so many places in a row that showed no face the rest of the hints, which are weaker, is texture."""


@dataclass(frozen=True)
class Spot:
    """A part of a photo, x0 to x1 and y0 to y1, and the smaller one in which everything was seen whole."""

    x0: int
    y0: int
    x1: int
    y1: int
    whole: NDArray[np.float64]
    """x0, y0, x1, y1; without bounds where the photo ends."""

    def holds(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(n,) which of (n, 2) points were seen whole."""
        return np.asarray(((points >= self.whole[:2]) & (points < self.whole[2:])).all(axis=1), dtype=np.bool_)


def place_around(middle: NDArray[np.float64], scale: float, width: int, height: int) -> Spot:
    """The place of a hint at `middle` in a photo of which the look saw `scale` times the pixels."""
    side, edge = PLACE / scale, EDGE / scale
    low = np.floor(np.clip(middle - side / 2, 0, None)).astype(int)
    high = np.minimum(np.ceil(middle + side / 2).astype(int), [width, height])
    bounds = [
        *np.where(low == 0, -np.inf, low + edge),
        *np.where(high == [width, height], np.inf, high - edge),
    ]
    return Spot(int(low[0]), int(low[1]), int(high[0]), int(high[1]), np.array(bounds, np.float64))


def followed(
    rgb: NDArray[np.uint8], seen: Candidates, scale: float, found: Candidates, least_face: float, look: Look
) -> Candidates:
    """Faces at the places where the finest look, of `scale`, saw a hint of a small one of `least_face` pixels or more.

    The strongest hints come first; those in a place that was looked at, or in a face of `found`, need no look.
    """
    small = (seen.sides * scale < SMALL_FACE) & (seen.sides >= MIN_SHARE * least_face)
    hints = seen.take(np.flatnonzero(small & (seen.scores > HINT_SCORE)))
    hints = hints.take(np.argsort(-hints.scores, kind="stable"))
    middles, faces, idle = hints.centres, [seen.take(np.array([], np.intp))], 0
    for x0, y0, x1, y1 in found.boxes:
        middles = middles[~((middles >= (x0, y0)) & (middles <= (x1, y1))).all(axis=1)]
    while len(middles) and idle < PATIENCE:
        place = place_around(middles[0], scale, rgb.shape[1], rgb.shape[0])
        part = look(np.ascontiguousarray(rgb[place.y0 : place.y1, place.x0 : place.x1]), ZOOM * scale)
        part = part.moved(np.ones(2), place.x0, place.y0)
        part = part.take(np.flatnonzero(place.holds(part.centres) & (part.sides * scale <= SURE_FACE)))
        faces.append(part)
        idle = 0 if len(part.scores) else idle + 1
        middles = middles[1:][~place.holds(middles[1:])]
    return joined(faces)
