"""Which faces of a photo are restored: the rule `--faces` as typed."""

from __future__ import annotations

import math
from dataclasses import dataclass

Region = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels of the upright photo."""


@dataclass(frozen=True)
class FaceRule:
    """The faces whose box has its middle in `region`, of those the `count` largest; None: all."""

    count: int | None = None
    region: Region | None = None

    def wants(self, box: Region, taken: int) -> bool:
        """Whether a face of that box is restored after `taken` larger ones were."""
        if self.region is not None:
            x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            if not (self.region[0] <= x < self.region[2] and self.region[1] <= y < self.region[3]):
                return False
        return self.count is None or taken < self.count


def face_rule(text: str) -> FaceRule:
    """The rule of ``all``, ``largest``, a number N (the N largest) or ``X,Y,W,H`` (a region of the upright photo).

    Raises ValueError with what there is.
    """
    if text == "all":
        return FaceRule()
    if text == "largest":
        return FaceRule(1)
    if text.isascii() and text.isdigit() and int(text) > 0:
        return FaceRule(int(text))
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        x = y = width = height = math.nan
    if not (math.isfinite(x + y) and 0 < width < math.inf and 0 < height < math.inf):
        raise ValueError("faces are all, largest, a number from 1, or a region X,Y,WIDTH,HEIGHT in pixels")
    return FaceRule(None, (x, y, x + width, y + height))
