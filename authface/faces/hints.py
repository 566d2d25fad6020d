"""Small faces that a look gave but a hint of: their places are looked at once more, enlarged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from authface.faces.candidates import SURE_FACE, Candidates, joined

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
