"""How a photo of any size and shape is looked at: at which scales, in which tiles, and where again, enlarged.

Tiles give memory a bound. Places where a look gave but a hint of a small face are looked at once more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from authface.faces.candidates import SURE_FACE, TRUSTED_FACE, Candidates, joined

SINGLE_SIDE = 640
"""Photos up to this long are seen once, as they are: no face in them is too large for the network."""
COARSE_SIDE = 512
"""Longer photos are first seen shrunk to this, for the large faces.
Photos longer than 2 : 1 are shrunk to as many pixels as one of 2 : 1: a strip keeps its faces."""
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


def least_found(width: int, height: int, least_face: float) -> float:
    """Pixels of the smallest faces that are surely looked for in a photo in which there is no larger one."""
    finest = 2.0 if 2 * max(width, height) <= FINE_SIDE else scales_of(width, height, least_face)[-1]
    return max(least_face, HINTED_FACE / finest)


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
