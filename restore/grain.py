"""The photo's own grain on restored faces: a face without it looks pasted in.

Noise is measured beside each face and on the restored one; what that lacks of it is drawn from the face's seed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from authface.imaging import grain as noise
from authface.imaging.bitdepth import Pixels, is_grey

AROUND = 0.5
"""How far around a face, in sides of its crop, noise is measured first; then in all of the photo."""
RESTORED = 0.9
"""Share of the photo's noise that has to be gone where the noise of a restored face is measured."""

Box = tuple[int, int, int, int]
Plane = NDArray[np.float32]


def add_grain(
    out: Pixels, photo: Pixels, places: Sequence[tuple[Box, Plane]], seeds: Sequence[int], strength: float
) -> None:
    """Add to `out`, in place, of each face what it lacks of the noise that the (h, w, 3) `photo` has beside it.

    `places` are those of `replaced_shares`: only where the photo's noise went something is added, with the square root
    of the variance that went. A photo without noise gets none.
    """
    free = np.ones(photo.shape[:2], np.bool_)
    for (x0, y0, x1, y1), _ in places:
        free[y0:y1, x0:x1] = False
    grey = is_grey(photo)
    most = np.iinfo(out.dtype).max
    for ((x0, y0, x1, y1), share), seed in zip(places, seeds, strict=True):
        there = _beside(photo, free, (x0, y0, x1, y1))
        if there is None or not there.level or not share.size:
            continue
        part = out[y0:y1, x0:x1]
        wanted = there.spectrum()
        own = noise.measure(part, share > RESTORED, there.axes)
        if own is not None:
            wanted = np.maximum(wanted - own.spectrum(), 0)
        added = noise.field(wanted, there.axes, y1 - y0, x1 - x0, seed)
        if grey:
            added = np.repeat(added.mean(axis=2, keepdims=True), 3, axis=2)
        amount = np.sqrt(1 - (1 - share) ** 2) * np.float32(strength * most / 255)
        mixed = part + amount[..., None] * added
        part[...] = np.where(share[..., None] > 0, np.clip(np.rint(mixed), 0, most), part).astype(out.dtype)


def _beside(photo: Pixels, free: NDArray[np.bool_], box: Box) -> noise.Grain | None:
    """The noise beside a face; where faces fill the photo, that of the face as it was."""
    x0, y0, x1, y1 = box
    edge = round(AROUND * max(x1 - x0, y1 - y0))
    rows, columns = slice(max(0, y0 - edge), y1 + edge), slice(max(0, x0 - edge), x1 + edge)
    near = noise.measure(photo[rows, columns], free[rows, columns])
    if near is None:
        near = noise.measure(photo, free)
    if near is None:
        face = photo[y0:y1, x0:x1]
        near = noise.measure(face, np.ones(face.shape[:2], np.bool_))
    return near
