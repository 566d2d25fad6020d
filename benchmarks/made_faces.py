"""Changes by known amounts that make a tag true of a real face, or false: what `measured_tags.py` tries tags on.

None of them is made of what the tags measure: light comes from a modelled head, gazes from moved pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.annotate.measured.quantities import LEFT_EYE, RIGHT_EYE, Regions

Image = NDArray[np.uint8]
Grey = NDArray[np.float32]


Change = Callable[[Regions, np.random.Generator], Image]
"""From the parts of a crop (256 px) to a changed crop of the same landmarks."""


def linear(rgb: Image) -> NDArray[np.float64]:
    value = rgb / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def encoded(light: NDArray[np.float64]) -> Image:
    light = np.clip(light, 0, 1)
    value = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(value * 255), np.uint8)


def relief(regions: Regions) -> Grey:
    """(256, 256) height of a head towards the camera, in pixels: an ellipsoid with nose, sockets, brows and lips."""
    points, pose = regions.points, regions.pose
    y, x = np.mgrid[:256, :256].astype(np.float32)
    eyes = points[36:48].mean(0)
    across, down = (x - pose.centre[0]) / pose.scale, (y - eyes[1]) / pose.scale
    height = 0.95 * np.sqrt(np.clip(1 - (across / 0.85) ** 2 - ((down - 0.3) / 1.15) ** 2, 0, 1))
    bridge = np.linspace(0, 1, 10)[:, None]
    ridge = points[27] + bridge * (points[30] - points[27])
    nose = np.zeros_like(height)
    for (nx, ny), along in zip(ridge, bridge[:, 0], strict=True):
        far = np.hypot(x - nx, y - ny) / pose.scale
        nose = np.maximum(nose, (0.06 + 0.2 * along) * np.exp(-((far / (0.08 + 0.06 * along)) ** 2)))
    height += nose
    bumps = [(points[LEFT_EYE].mean(0), -0.06, 0.15), (points[RIGHT_EYE].mean(0), -0.06, 0.15)]
    bumps += [(points[19], 0.04, 0.12), (points[24], 0.04, 0.12), (points[62], 0.05, 0.15), (points[8], 0.04, 0.15)]
    for (bx, by), tall, wide in bumps:
        height += tall * np.exp(-(((x - bx) ** 2 + (y - by) ** 2) / (wide * pose.scale) ** 2))
    return np.asarray(cv2.GaussianBlur(height.astype(np.float32) * np.float32(pose.scale), (0, 0), 1.5))


def lit(azimuth: float, elevation: float, spread: float, fill: float) -> Change:
    """The skin's slow light replaced by that of a lamp on a modelled head, which throws shadows.

    `azimuth` degrees to the picture's right, `elevation` above the camera, `spread` the half angle the lamp covers
    (0 is a point, 60 a softbox near by), `fill` the share of light from everywhere.
    """

    def change(regions: Regions, rng: np.random.Generator) -> Image:
        height = relief(regions)
        slopes = [cv2.Sobel(height, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1))]
        normals = np.dstack([-slopes[0], -slopes[1], np.ones_like(height)])
        normals /= np.linalg.norm(normals, axis=2, keepdims=True)
        lamps = 12 if spread > 5 else 4
        shade = np.zeros_like(height)
        for _ in range(lamps):
            turn = np.radians([azimuth, elevation]) + np.radians(spread) * rng.uniform(-1, 1, 2)
            to = np.array([np.sin(turn[0]) * np.cos(turn[1]), -np.sin(turn[1]), np.cos(turn[0]) * np.cos(turn[1])])
            shade += np.clip(normals @ to.astype(np.float32), 0, 1) * _reached(height, to) / lamps
        shade = cv2.GaussianBlur(fill + (1 - fill) * shade, (0, 0), 0.8)
        light = linear(regions.rgb)
        skin = regions.skin.astype(np.float64)
        slow = (cv2.GaussianBlur(light.mean(2) * skin, (0, 0), 14) + 1e-4) / (cv2.GaussianBlur(skin, (0, 0), 14) + 1e-2)
        near = np.clip(4 * cv2.GaussianBlur(skin, (0, 0), 10), 0, 1)  # elsewhere nothing is known of the old light
        flat = np.where(near > 0, np.median(slow[regions.skin]) / slow, 1) ** near if skin.any() else near * 0 + 1
        head = cv2.GaussianBlur((height > 0.3 * regions.pose.scale).astype(np.float64), (0, 0), 4)
        gain = head * flat * shade / np.median(shade[regions.skin]) + (1 - head)
        return encoded(0.7 * light * np.clip(gain, 0, 4)[..., None])

    return change


def _reached(height: Grey, to: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where nothing on the way to a lamp in direction `to` (x right, y down, z to the camera) stands higher."""
    seen = np.ones(height.shape, bool)
    for way in np.linspace(3, 70, 16):
        move = np.array([[1, 0, -way * to[0]], [0, 1, -way * to[1]]])
        there = cv2.warpAffine(height, move, height.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
        seen &= there < height + way * max(to[2], 0.02) + 0.5
    return seen


def tone(lightness: float | None = None, contrast: float = 1.0, chroma: float | None = None) -> Change:
    """Median L* and mean chroma set, contrast scaled around the median."""

    def change(regions: Regions, rng: np.random.Generator) -> Image:
        lab = regions.lab.copy()
        middle = float(np.median(lab[..., 0]))
        lab[..., 0] = (lab[..., 0] - middle) * contrast + (middle if lightness is None else lightness)
        if chroma is not None:
            lab[..., 1:] *= chroma / max(float(np.hypot(lab[..., 1], lab[..., 2]).mean()), 1)
        return np.asarray(np.rint(np.clip(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), 0, 1) * 255), np.uint8)

    return change


def tinted(stops: float) -> Change:
    """The skin brought to an average portrait's red over blue (1.22 stops), then moved by `stops`."""

    def change(regions: Regions, rng: np.random.Generator) -> Image:
        light = linear(regions.rgb)
        skin = light[regions.skin].mean(0) + 1e-3
        move = stops + 1.22 - np.log2(skin[0] / skin[2])
        gains = 2 ** (move * np.array([0.5, 0, -0.5]))
        return encoded(light * gains / max(gains))

    return change


def toned(red: float, blue: float) -> Change:
    """Grey, its tones coloured: (1, 1) stays grey."""

    def change(regions: Regions, rng: np.random.Generator) -> Image:
        grey = linear(regions.rgb) @ np.array([0.2126, 0.7152, 0.0722])
        return encoded(grey[..., None] * np.array([red, 1, blue]))

    return change


def colourful(regions: Regions, rng: np.random.Generator) -> Image:
    """Colour of at least two hues: the left third of the crop turned blue-green."""
    light = linear(tone(chroma=15)(regions, rng))
    light[:, :85] *= np.array([0.6, 1, 1.2])
    return encoded(light)


def before(backdrop: Callable[[np.random.Generator], Image]) -> Change:
    """Head and shoulders, cut out by an ellipse and a trapezium with a soft edge, before a backdrop."""

    def change(regions: Regions, rng: np.random.Generator) -> Image:
        pose = regions.pose
        mask = np.zeros((256, 256), np.float32)
        centre = (round(pose.centre[0]), round(pose.centre[1] - 0.12 * pose.scale))
        cv2.ellipse(mask, centre, (round(0.95 * pose.scale), round(1.3 * pose.scale)), 0, 0, 360, 1, -1)
        chin = round(regions.points[8, 1])
        cv2.fillPoly(mask, [np.array([[60, chin], [196, chin], [256, 256], [0, 256]], np.int32)], 1)
        mask = cv2.GaussianBlur(mask, (0, 0), 1.2)[..., None]
        return encoded(mask * linear(regions.rgb) + (1 - mask) * linear(backdrop(rng)))

    return change


@functools.lru_cache(maxsize=1)
def _scenes() -> list[Image]:
    """Photos with sharp detail all over: a square of empty sky, or of a blurred part, would make a false truth."""
    from skimage import data

    grey = (data.coins(), data.brick(), data.grass(), data.gravel())
    motorcycle = data.stereo_motorcycle()[0]
    return [data.coffee(), motorcycle, *(np.stack([one] * 3, 2) for one in grey)]


def scene(blur: float) -> Callable[[np.random.Generator], Image]:
    """A random square of a photo, sharp at 256 px, then blurred by `blur` px."""

    def backdrop(rng: np.random.Generator) -> Image:
        photo = _scenes()[rng.integers(len(_scenes()))]
        side = int(rng.integers(256, min(photo.shape[:2])))
        y, x = (int(rng.integers(0, room - side + 1)) for room in photo.shape[:2])
        square = cv2.resize(photo[y : y + side, x : x + side], (256, 256), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.GaussianBlur(square, (0, 0), blur) if blur else square)

    return backdrop


def plain(rgb: tuple[int, int, int]) -> Callable[[np.random.Generator], Image]:
    """One colour with a slow gradient of a tenth and noise of 2."""

    def backdrop(rng: np.random.Generator) -> Image:
        fall = np.linspace(1, 0.9, 256)[:, None, None]
        return np.asarray(np.clip(np.array(rgb) * fall + rng.normal(0, 2, (256, 256, 1)), 0, 255), np.uint8)

    return backdrop


def skin_of(grain: float) -> Change:
    """The skin smoothed as retouching does; then `grain` (L*) of texture of about a pixel laid over it."""

    def change(regions: Regions, rng: np.random.Generator) -> Image:
        rgb = regions.rgb.astype(np.float32)
        smooth = cv2.GaussianBlur(rgb, (0, 0), 3)
        noise = rng.normal(0, 1, (256, 256)).astype(np.float32)
        pores = cv2.GaussianBlur(noise, (0, 0), 0.7) - cv2.GaussianBlur(noise, (0, 0), 2)
        mask = cv2.GaussianBlur(regions.skin.astype(np.float32), (0, 0), 1.5)[..., None]
        made = rgb + mask * (smooth - rgb + grain * 2.55 * pores[..., None] / pores.std())
        return np.asarray(np.clip(made, 0, 255), np.uint8)

    return change


def gazing(aside: float) -> Change:
    """Both irises moved to the right by `aside` halves of the eye's width; the lids and what is around them stay."""

    def change(regions: Regions, rng: np.random.Generator) -> Image:
        y, x = np.mgrid[:256, :256].astype(np.float32)
        move = np.zeros((256, 256), np.float32)
        for eye in (LEFT_EYE, RIGHT_EYE):
            lids = regions.points[eye]
            half, middle = np.hypot(*(lids[3] - lids[0])) / 2, lids.mean(0)
            across, down = (x - middle[0]) / half, (y - middle[1]) / (0.8 * half)
            move += aside * half * np.clip(2 - 2 * across**2, 0, 1) * np.clip(2 - 2 * down**2, 0, 1)
        moved = x - move.astype(np.float32)
        return np.asarray(cv2.remap(regions.rgb, moved, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE))

    return change
