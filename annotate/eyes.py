"""Lids and irises of an aligned crop: whether an eye is open, and to which side it looks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from authface.annotate.regions import LEFT_EYE, RIGHT_EYE, Regions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WIDTH, _HEIGHT, _MIDDLE_X, _MIDDLE_Y, _HALF = 73, 49, 36, 24, 20
"""The patch of an eye, pixels: its corners lie level, `_HALF` to either side of the middle."""
_CONVERGENCE = 0.035
"""How far outwards of the middle between the corners each iris lies when a head looks straight at the camera, in
halves of the eye's width: half the difference of the means of 1,500 portraits (the caruncle is in the inner corner)."""
_PER_DEGREE = 0.0095
"""How far an iris moves, in the same unit, when the head turns by a degree and the gaze stays on the camera."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Eye:
    """One eye. Lengths are in halves of the distance of its corners, contrasts are L* over that of the skin."""

    opening: float
    """Gap of the lids over the width (eye aspect ratio, Soukupova and Cech 2016): 0.3 open, under 0.15 nearly shut."""
    bend: float
    """Contrast of the darkest line between the corners that hangs, over that of the darkest that is level or arched:
    the lashes of a lowered lid hang, the lid of an open eye, however narrow, is arched."""
    disc: float
    """Contrast of the best dark spot of an iris's breadth with what lies on both sides of it."""
    iris: float
    """Contrast of the darkest third of what lies between the lids with the rest."""
    gaze: float
    """How far the iris lies from where it would look at the camera; > 0 to the picture's right, about -0.7..0.7."""


_UNSEEN = Eye(opening=0.0, bend=0.0, disc=0.0, iris=0.0, gaze=0.0)


def measure(regions: Regions) -> tuple[Eye, Eye]:
    """The eyes on the picture's left and right; all zero where the corners are less than 8 of 256 pixels apart."""
    turn = _PER_DEGREE * regions.pose.yaw
    return (
        _measure_eye(regions.rgb, regions.points[LEFT_EYE], turn + _CONVERGENCE),
        _measure_eye(regions.rgb, regions.points[RIGHT_EYE], turn - _CONVERGENCE),
    )


def _measure_eye(rgb: NDArray[np.uint8], lids: NDArray[np.float64], shift: float) -> Eye:
    import cv2
    import numpy as np

    across = lids[3] - lids[0]
    width = float(np.hypot(*across))
    if width < 8:
        return _UNSEEN
    u = across / (2 * _HALF)
    v = np.array([-u[1], u[0]])
    corner = lids[0] - u * (_MIDDLE_X - _HALF) - v * _MIDDLE_Y
    to_crop = np.column_stack([u, v, corner])
    patch = cv2.warpAffine(
        rgb,
        to_crop,
        (_WIDTH, _HEIGHT),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    lightness = cv2.cvtColor(patch.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[..., 0]
    skin = max(float(np.percentile(lightness, 80)), 5.0)
    lightness = cv2.GaussianBlur(lightness, (0, 0), 1.2)  # 0.8 px of the crop: noise and blocks
    outline = np.stack([(lids - corner) @ u, (lids - corner) @ v], 1) / (u @ u)
    iris, position = _iris(lightness, outline)
    return Eye(
        opening=float(np.hypot(*(lids[[1, 2]] - lids[[5, 4]]).T).sum()) / (2 * width),
        bend=_bend(lightness) / skin,
        disc=_disc(lightness) / skin,
        iris=iris / skin,
        gaze=position + shift if iris > 0 else 0.0,
    )


def _bend(lightness: NDArray[np.float32]) -> float:
    """Darkest hanging line less darkest arched line. A line is as dark as three quarters of it are at least."""
    import numpy as np

    line = np.zeros_like(lightness)
    line[5:-5] = np.minimum(lightness[:-10], lightness[10:]) - lightness[5:-5]
    rows, columns, arched, hanging = _curves()
    quarter = columns.size // 4
    contrast = np.partition(line[rows, columns], quarter, axis=1)[:, quarter]
    return float(contrast[hanging].max() - contrast[arched].max())


@lru_cache(maxsize=1)
def _curves() -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_], NDArray[np.bool_]]:
    """Rows (curves, 33) of parabolas between the corners, their columns, and which of them are arched or hang."""
    import numpy as np

    columns = np.arange(_MIDDLE_X - 16, _MIDDLE_X + 17)
    x = (columns - _MIDDLE_X) / _HALF
    bend, height, slope = (
        a.reshape(-1, 1) for a in np.meshgrid(np.arange(-10, 11), np.arange(-8, 9), (-4, 0, 4), indexing="ij")
    )
    rows = np.rint(_MIDDLE_Y + height + slope * x + bend * (0.5 - x**2)).astype(np.intp)
    return rows, columns, bend[:, 0] < 0, bend[:, 0] > 0


def _disc(lightness: NDArray[np.float32]) -> float:
    """Largest contrast of 9 x 7 px (an iris is 12 mm of the eye's 30) with the lighter half of what flanks it."""
    import cv2
    import numpy as np

    spot, flank = cv2.blur(lightness, (9, 7)), cv2.blur(lightness, (5, 7))
    rows = slice(_MIDDLE_Y - 8, _MIDDLE_Y + 9)
    left, right = (slice(_MIDDLE_X - 12 + step, _MIDDLE_X + 13 + step) for step in (-12, 12))
    beside = np.minimum(flank[rows, left], flank[rows, right])
    return float((beside - spot[rows, _MIDDLE_X - 12 : _MIDDLE_X + 13]).max())


def _iris(lightness: NDArray[np.float32], outline: NDArray[np.float64]) -> tuple[float, float]:
    """Contrast of the darkest third between the lids, and its centre from -1 (left corner) to 1.

    Weighted by darkness; 0, 0 where the lids leave fewer than 40 px. The corners themselves lie in shadow.
    """
    import cv2
    import numpy as np

    mask = np.zeros((_HEIGHT, _WIDTH), np.uint8)
    cv2.fillPoly(mask, [np.rint(outline).clip(-999, 999).astype(np.int32)], 1)
    mask[:, : _MIDDLE_X - 16] = mask[:, _MIDDLE_X + 17 :] = 0
    y, x = np.nonzero(mask)
    if len(x) < 40:
        return 0.0, 0.0
    seen = lightness[y, x]
    dark = np.clip(np.percentile(seen, 35) - seen, 0, None)
    if dark.sum() <= 0:
        return 0.0, 0.0
    contrast = float(seen[dark == 0].mean() - seen[dark > 0].mean())
    return contrast, float((dark @ x / dark.sum() - _MIDDLE_X) / _HALF)
