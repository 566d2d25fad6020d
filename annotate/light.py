"""Light and colour of an aligned crop: where the light falls from, how bright, how hard, how warm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from authface.annotate.geometry import HEAD_RADII
from authface.annotate.regions import LEFT_EYE, RIGHT_EYE, SIDE, Regions, linear_light, polygon

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DAYLIGHT_SKIN, _DAYLIGHT_WHITE = 1.22, 0.96
"""Medians of log2(red / blue) over 1,500 portraits; the whites of small eyes hold some skin."""


def direction(regions: Regions) -> float:
    """Light across the face in stops, > 0 where it comes from the picture's right.

    The logarithm of the skin's luminance is fitted by c + x*nx + y*ny + z*nz over the normals of an
    ellipsoid in the head's place: the logarithm of first-order shading, which neither exposure nor the skin's
    tone can move. Huber weights keep glasses, hair and highlights out of it. The result is the difference
    between normals that point 45 degrees to either side; 0 where too little skin is seen.
    """
    import numpy as np

    y, x = np.nonzero(regions.skin)
    if len(x) < 200:
        return 0.0
    pose = regions.pose
    x, y = x[::3], y[::3]
    nx = (x - pose.centre[0]) / (HEAD_RADII[0] * pose.scale)
    ny = (y - pose.centre[1]) / (HEAD_RADII[1] * pose.scale)
    longest = np.maximum(np.hypot(nx, ny) / 0.98, 1)
    nx, ny = nx / longest, ny / longest
    normals = np.stack([np.ones(len(x)), nx, ny, np.sqrt(1 - nx**2 - ny**2)], 1)
    stops = regions.stops[y, x].astype(np.float64)
    weights = np.ones(len(x))
    for _ in range(4):
        root = np.sqrt(weights)
        light = np.linalg.lstsq(normals * root[:, None], stops * root, rcond=None)[0]
        off = np.abs(stops - normals @ light)
        weights = np.minimum(1, 1.5 * np.median(off) / np.maximum(off, 1e-6))
    return float(light[1] * np.sqrt(2))


_NEAR, _FAR = 4, 9
"""Where the sides of a shadow's edge are looked at, pixels of the 256 px crop (eyes are 60 apart): a penumbra
narrower than 8 px, 8 mm on a face, and even skin for 5 px on both sides of it."""
_DIRECTIONS = ((1, 0), (0, 1), (0.707, 0.707), (0.707, -0.707))


def shadow_edges(regions: Regions) -> float:
    """Narrow edges of shadows on the skin below the middle of the nose, percent of that skin; 0 for soft light.

    A pixel counts where the light changes by 0.9 stops or more from one side to the other, hardly on either side
    (a fold or a strand is a line, a cheek's shading a slope), and the colour stays the skin's (hair and frames
    have their own). Above, glasses and fringes throw what looks the same.
    """
    import cv2
    import numpy as np

    skin = _inner_skin(regions)
    part = skin & (np.arange(SIDE)[:, None] > regions.points[29:31, 1].mean())
    if part.sum() < 500:
        return 0.0
    # The floor keeps the noise of 8-bit shadows below half a stop.
    colours = np.log2(cv2.GaussianBlur(linear_light()[regions.rgb] + np.float32(1 / 128), (0, 0), 1.2))
    stops = colours @ np.array([0.3, 0.5, 0.2], np.float32)
    hues = (colours[..., 0] - colours[..., 2], colours[..., 0] - colours[..., 1])
    darkest = float(np.median(stops[skin])) - 3
    found = np.zeros_like(skin)
    for direction in _DIRECTIONS:
        one, other = _beside(stops, direction, _NEAR)
        step = np.abs(one - other)
        edge = part & (step > 0.9) & (np.minimum(one, other) > darkest)
        for side, far, inside in zip(
            (one, other), _beside(stops, direction, _FAR), _beside(skin, direction, _FAR), strict=True
        ):
            edge &= inside & (np.abs(far - side) < 0.3 * step)
        for hue in hues:
            here, there = _beside(hue, direction, _NEAR)
            edge &= np.abs(here - there) < 0.35 * step
        found |= edge
    return float(100 * found.sum() / part.sum())


def steepness(regions: Regions) -> float:
    """Steepest shading of the skin (97th percentile) in stops a pixel of the 256 px crop: 0.06 soft, 0.3 hard.

    Glasses and strands of hair are steep too. 9 stands for what cannot be called soft: skin that is burnt or
    drowned in black, which hides its shading, and a face that shows too little of it.
    """
    import cv2
    import numpy as np

    skin = _inner_skin(regions)
    if skin.sum() < 500 or (regions.stops[skin] > -0.2).mean() > 0.02 or np.median(regions.stops[skin]) < -4.5:
        return 9.0
    stops = np.log2(np.exp2(regions.stops) + np.float32(1 / 64))
    smooth = cv2.GaussianBlur(stops, (0, 0), 1.5)
    slope = np.hypot(*(cv2.Sobel(smooth, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1))))
    return float(np.percentile(slope[skin], 97))


def _inner_skin(regions: Regions) -> NDArray[np.bool_]:
    """The skin without its rim and without what lies at the crop's border."""
    import cv2
    import numpy as np

    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    skin = cv2.erode(regions.skin.astype(np.uint8), kernel).astype(bool)
    skin[:_FAR] = skin[-_FAR:] = skin[:, :_FAR] = skin[:, -_FAR:] = False
    return np.asarray(skin)


def _beside(values: NDArray[Any], direction: tuple[float, float], far: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """What lies `far` pixels to both sides of every pixel."""
    import numpy as np

    x, y = round(direction[0] * far), round(direction[1] * far)
    return np.roll(values, (-y, -x), (0, 1)), np.roll(values, (y, x), (0, 1))


def key(regions: Regions) -> tuple[float, float]:
    """Median L* of the crop and of the skin, 0..100."""
    import numpy as np

    lightness = regions.lab[..., 0]
    skin = lightness[regions.skin] if regions.skin.any() else lightness
    return float(np.median(lightness)), float(np.median(skin))


def contrast(regions: Regions) -> float:
    """Distance of the 5th and 95th percentile of L*, 0..100."""
    import numpy as np

    low, high = np.percentile(regions.lab[..., 0], [5, 95])
    return float(high - low)


def chroma(regions: Regions) -> tuple[float, float]:
    """Mean CIE chroma of the crop, and what is left of it when every tone is given one colour.

    The second is 0 for grey and for toned (sepia, cyanotype) pictures alike: the root mean square distance
    of a*, b* from their mean at the same L*.
    """
    import numpy as np

    lab = regions.lab[::2, ::2].reshape(-1, 3)
    tone = np.clip(lab[:, 0] / 4, 0, 24).astype(int)
    count = np.maximum(np.bincount(tone, minlength=25), 1)
    rest = [lab[:, c] - (np.bincount(tone, lab[:, c], 25) / count)[tone] for c in (1, 2)]
    return float(np.hypot(lab[:, 1], lab[:, 2]).mean()), float(np.sqrt(np.mean(rest[0] ** 2 + rest[1] ** 2)))


def warmth(regions: Regions) -> float:
    """log2 of red over blue in linear light against daylight portraits, > 0 where the light is warm.

    Taken of the skin and of the whites of the eyes: both follow the colour of the light alike, while skin tones
    spread the first and bloodshot or badly resolved eyes the second. Where they agree on the side, the smaller of
    the two counts, otherwise 0.
    """
    import numpy as np

    eyes = polygon(regions.points[LEFT_EYE]) | polygon(regions.points[RIGHT_EYE])
    skin, white = regions.rgb[regions.skin], regions.rgb[eyes]
    if len(skin) == 0 or len(white) < 8:
        return 0.0
    lightness = regions.lab[..., 0][eyes]
    of_skin = _red_over_blue(skin) - _DAYLIGHT_SKIN
    of_white = _red_over_blue(white[lightness >= np.percentile(lightness, 70)]) - _DAYLIGHT_WHITE
    return 0.0 if of_skin * of_white <= 0 else min(of_skin, of_white, key=abs)


def _red_over_blue(rgb: NDArray[np.uint8]) -> float:
    import numpy as np

    mean = linear_light()[rgb].mean(0) + 1e-3
    return float(np.log2(mean[0] / mean[2]))


def lip_redness(regions: Regions) -> float:
    """How much redder the lips are than the cheeks: difference of the medians of a*."""
    import numpy as np

    if not regions.lips.any() or not regions.cheeks.any():
        return 0.0
    a = regions.lab[..., 1]
    return float(np.median(a[regions.lips]) - np.median(a[regions.cheeks]))
