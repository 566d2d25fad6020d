"""Damage of scanned old photos, seeded: blur and film grain, printing screens, fading, dust and scratches, two JPEGs.

A print is made (blur, resampling, film grain, in some a printing screen), ages (fading, dust, scratches), is scanned
(blur, resampling by other interpolations) and saved twice, with JPEG's blocks at another place the second time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Range = tuple[float, float]
"""Least and most; numbers between are drawn uniformly."""
REFERENCE = 512
"""Side of the images that ranges in pixels are for."""
_SEPIA = (1.06, 0.95, 0.76)
"""Red, green and blue of a sepia tone over its grey."""
_GRAIN_TINT = 0.2
"""Most by which a channel's grain differs from the luminance's, as a share."""
LIGHT_AND_DARK = (0.93, 0.1)
"""Luminance of what lies bare where the emulsion is scratched off or a hair kept light away, and of dust."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Ranges that are drawn from uniformly, in pixels of a 512 px image: they are scaled with the side.

    As they are, a 256 px face keeps 20 to 25 dB, of which fading takes most in many: the darkest and the brightest
    tones come as near to each other as 70 % of what they were, blue loses up to a sixth.
    """

    blur: Range = (0.3, 2.2)
    """Sigma of the Gaussian of the print, and of that of the scanner, pixels."""
    shrink: Range = (1.0, 4.0)
    """Either round makes the image 512 / r pixels wide, where it is not smaller already, and large again."""
    grain: Range = (3.0, 14.0)
    """Sigma of the film grain in mid tones, 0..255; black and white have none."""
    grain_size: Range = (0.5, 1.6)
    """Sigma of the Gaussian that correlates neighbouring grains, pixels."""
    halftone: float = 0.15
    """Share of images that were printed with a screen of dots."""
    dots: Range = (4.5, 8.0)
    """Distance of the dots, pixels; the screen's angle is any."""
    descreen: Range = (0.2, 0.4)
    """Sigma of the blur that is to hide the dots, as a share of their distance."""
    specks: Range = (0.0, 40.0)
    """Number of specks of dust, of a radius of 0.6..3 pixels. Each is light or dark, as hairs and scratches are."""
    hairs: Range = (0.0, 3.0)
    """Number of hairs: thin curves of 30..140 pixels."""
    scratches: Range = (0.0, 3.0)
    """Number of nearly vertical scratches, as long as a fifth of the image up to all of it."""
    black: Range = (0.0, 0.12)
    """What black has faded to, 0..1."""
    white: Range = (0.82, 1.0)
    """What white has become, 0..1."""
    yellow: Range = (0.0, 0.16)
    """Share of blue that is lost; green loses a third of it."""
    cast: Range = (0.0, 0.05)
    """Most by which each channel is made brighter or darker, as a share."""
    uneven: Range = (0.0, 0.7)
    """Share of the fading that is missing where it is weakest; it varies smoothly."""
    sepia: float = 0.15
    """Share of images in one brown tone."""
    grey: float = 0.35
    """Share of images without colour: neither yellow nor of another cast."""
    jpeg: Range = (55.0, 95.0)
    """Quality of either JPEG."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnGrain:
    """Film grain of one image."""

    noise: NDArray[np.float32]
    """(side, side), standard normal."""
    sigma: float
    """Deviation in mid tones, 0..1."""
    size: float
    """Sigma of the Gaussian that correlates neighbouring grains, pixels."""
    gains: NDArray[np.float32]
    """(3,): each channel's share of it."""


@dataclass(frozen=True, kw_only=True)
class Screen:
    """A printing screen of round dots, and the blur that is to hide them."""

    period: float
    """Distance of the dots, pixels."""
    angle: float
    """Turn of their rows, radians."""
    descreen: float
    """Sigma of the blur, pixels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fading:
    """What black and white of one image have become, 0..1, and where."""

    black: float
    white: float
    gains: NDArray[np.float32]
    """(3,): what each channel is times."""
    grey: bool
    """Whether the image has no colour, or that of `gains` alone."""
    strength: NDArray[np.float64]
    """(3, 3), 0..1: how much of the fading there is, between these places evenly changing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnScan:
    """All that `Scan` leaves to chance, drawn for one image of `side` pixels; lengths are pixels of that image."""

    side: int
    down: tuple[int, int]
    """Interpolations, OpenCV's, that make the print, and then the scan, smaller."""
    up: tuple[int, int]
    """Those that make them `side` pixels wide again."""
    blur: tuple[float, float]
    """Sigmas of the Gaussians of print and scanner."""
    lows: tuple[int, int]
    """Widths in between, at most `side`."""
    grain: DrawnGrain
    screen: Screen | None
    fading: Fading
    covers: NDArray[np.uint8]
    """(2, side, side): how opaque the light marks are, and the dark ones: dust, hairs and scratches."""
    qualities: tuple[int, int]
    """Of both JPEGs."""
    corner: tuple[int, int]
    """Rows and columns, 0..7, by which the second JPEG's blocks are moved."""


def draw_scan(random: np.random.Generator, side: int, scan: Scan) -> DrawnScan:
    """The numbers that damage an image of `side` pixels: what `degrade.draw` does for a `Scan`."""
    scale = side / REFERENCE
    down = random.permutation([cv2.INTER_AREA, cv2.INTER_LINEAR]).tolist()
    up = random.permutation([cv2.INTER_LINEAR, cv2.INTER_CUBIC]).tolist()
    print_blur, print_low = random.uniform(*scan.blur) * scale, _low(random, side, scan)
    grain = _draw_grain(random, side, scan)
    screen = _draw_screen(random, scale, scan) if random.random() < scan.halftone else None
    fading = _draw_fading(random, scan)
    covers = _draw_covers(random, side, scan)
    scan_blur, scan_low = random.uniform(*scan.blur) * scale, _low(random, side, scan)
    first, second = (int(random.uniform(*scan.jpeg)) for _ in range(2))
    top, left = (int(value) for value in random.integers(0, 8, 2))
    return DrawnScan(
        side=side, down=(down[0], down[1]), up=(up[0], up[1]), blur=(print_blur, scan_blur),
        lows=(print_low, scan_low), grain=grain, screen=screen, fading=fading, covers=covers,
        qualities=(first, second), corner=(top, left),
    )  # fmt: skip


def _low(random: np.random.Generator, side: int, scan: Scan) -> int:
    return min(side, max(1, int(REFERENCE // random.uniform(*scan.shrink))))


def _draw_grain(random: np.random.Generator, side: int, scan: Scan) -> DrawnGrain:
    sigma, size = random.uniform(*scan.grain) / 255, random.uniform(*scan.grain_size) * (side / REFERENCE)
    noise = random.standard_normal((side, side), np.float32)
    gains = random.uniform(1 - _GRAIN_TINT, 1 + _GRAIN_TINT, 3).astype(np.float32)
    return DrawnGrain(noise=noise, sigma=sigma, size=size, gains=gains)


def _draw_screen(random: np.random.Generator, scale: float, scan: Scan) -> Screen:
    period = random.uniform(*scan.dots) * scale
    angle = random.uniform(0, math.pi / 2)
    return Screen(period=period, angle=angle, descreen=random.uniform(*scan.descreen) * period)


def _draw_fading(random: np.random.Generator, scan: Scan) -> Fading:
    black, white = random.uniform(*scan.black), random.uniform(*scan.white)
    yellow, cast = random.uniform(*scan.yellow), random.uniform(*scan.cast)
    gains = np.array([1, 1 - yellow / 3, 1 - yellow]) * random.uniform(1 - cast, 1 + cast, 3)
    strength = random.uniform(1 - random.uniform(*scan.uneven), 1, (3, 3))
    tone = random.random()
    grey = tone < scan.grey + scan.sepia
    if grey:
        gains = np.ones(3) if tone < scan.grey else np.array(_SEPIA)
    return Fading(black=black, white=white, gains=gains.astype(np.float32), grey=grey, strength=strength)


def _draw_covers(random: np.random.Generator, side: int, scan: Scan) -> NDArray[np.uint8]:
    """(2, side, side): dust, hairs and scratches, drawn at `REFERENCE` pixels."""
    covers = np.zeros((2, REFERENCE, REFERENCE), np.uint8)
    for count, mark in ((scan.specks, _speck), (scan.hairs, _hair), (scan.scratches, _scratch)):
        for _ in range(round(random.uniform(*count))):
            mark(covers[random.integers(2)], random)
    sized = [cv2.resize(cover, (side, side), interpolation=cv2.INTER_AREA) for cover in covers]
    return np.asarray(np.stack(sized), np.uint8)


def scanned(rgb: NDArray[np.uint8], drawn: DrawnScan) -> NDArray[np.uint8]:
    """A copy of `rgb` (side, side, 3) damaged as `drawn` says: what `degrade.apply` does for a `DrawnScan`."""
    size = (drawn.side, drawn.side)
    image: NDArray[Any] = rgb.astype(np.float32) / 255
    image = _shrunk(_blurred(image, drawn.blur[0]), drawn.lows[0], drawn.down[0])
    image = cv2.resize(image, size, interpolation=drawn.up[0])
    image = grained(image, drawn.grain)
    if drawn.screen is not None:
        image = _blurred(screened(image, drawn.screen.period, drawn.screen.angle), drawn.screen.descreen)
    image = _marked(_faded(image, drawn.fading), drawn.covers)
    image = _shrunk(_blurred(image, drawn.blur[1]), drawn.lows[1], drawn.down[1])
    image = _saved_twice(np.clip(image, 0, 1), drawn)
    image = cv2.resize(image, size, interpolation=drawn.up[1])
    damaged: NDArray[np.uint8] = np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
    return damaged


def grained(image: NDArray[Any], grain: DrawnGrain) -> NDArray[Any]:
    """`image` (side, side, 3) in 0..1 with film grain.

    The grain is white noise filtered by a Gaussian, and times 4 l (1 - l) of luminance l. It is alike in all channels
    but for `gains`.
    """
    noise: NDArray[Any] = grain.noise
    if (row := grain_filter(grain.size)) is not None:
        noise = cv2.sepFilter2D(noise, -1, row, row) / np.float32(np.square(row).sum())
    light = np.clip(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 0, 1)
    noise = noise * (light * (1 - light) * np.float32(4 * grain.sigma))
    grainy: NDArray[Any] = image + noise[..., None] * grain.gains
    return grainy


def grain_filter(size: float) -> NDArray[Any] | None:
    """(n, 1): the Gaussian of sigma `size` pixels that rows and columns are filtered by; None for one too narrow."""
    return cv2.getGaussianKernel(2 * math.ceil(3 * size) + 1, size) if size >= 0.1 else None


def screened(image: NDArray[Any], period: float, angle: float) -> NDArray[Any]:
    """`image` (height, width, 3) in 0..1 printed with round dots `period` pixels apart, in rows turned by `angle`.

    Ink lies where luminance is below the screen (cos u + cos v + 2) / 4, u and v being 2 pi / `period` times the
    turned coordinates; colours keep their distance to luminance. Edges of dots are as soft as a pixel is wide.
    """
    height, width = image.shape[:2]
    y, x = np.ogrid[:height, :width]
    turn, step = (math.cos(angle), math.sin(angle)), 2 * math.pi / period
    u, v = (x * turn[0] + y * turn[1]) * step, (y * turn[0] - x * turn[1]) * step
    screen = ((np.cos(u) + np.cos(v) + 2) / 4).astype(np.float32)
    light = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    paper = np.clip((light - screen) * np.float32(period) + 0.5, 0, 1)
    printed: NDArray[Any] = image + (paper - light)[..., None]
    return printed


def _faded(image: NDArray[Any], fading: Fading) -> NDArray[Any]:
    side = image.shape[0]
    strength = cv2.resize(fading.strength, (side, side), interpolation=cv2.INTER_LINEAR)
    if fading.grey:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    most = (image * np.float32(fading.white - fading.black) + np.float32(fading.black)) * fading.gains
    faded: NDArray[Any] = image + (most - image) * strength.astype(np.float32)[..., None]
    return faded


def _marked(image: NDArray[Any], covers: NDArray[np.uint8]) -> NDArray[Any]:
    """`image` with dust, hairs and scratches."""
    for luminance, cover in zip(LIGHT_AND_DARK, covers, strict=True):
        if cover.any():
            share = cover.astype(np.float32)[..., None] / 255
            image = image + (np.float32(luminance) - image) * share
    return image


def _speck(cover: NDArray[np.uint8], random: np.random.Generator) -> None:
    centre, axes = random.uniform(0, REFERENCE, 2), 0.6 + 2.4 * random.random(2) ** 3
    spot = [round(float(value) * 16) for value in (*centre, *axes)]
    cv2.ellipse(cover, (spot[0], spot[1]), (spot[2], spot[3]), random.uniform(0, 180), 0, 360, _opacity(random), -1,
                cv2.LINE_AA, 4)  # fmt: skip


def _hair(cover: NDArray[np.uint8], random: np.random.Generator) -> None:
    """A curve whose direction turns by a random, slowly changing angle."""
    steps = 16
    turns = np.cumsum(np.cumsum(random.normal(0, 0.05, steps)) + random.normal(0, 0.12)) + random.uniform(0, 2 * np.pi)
    walk = np.cumsum(np.stack([np.cos(turns), np.sin(turns)], 1), 0) * random.uniform(30, 140) / steps
    _line(cover, random.uniform(0, REFERENCE, 2) + walk, random)


def _scratch(cover: NDArray[np.uint8], random: np.random.Generator) -> None:
    """A line from top to bottom or a part of it, that leans a little and trembles."""
    length = REFERENCE * random.uniform(0.2, 1)
    y = random.uniform(0, REFERENCE - length) + np.linspace(0, length, 24)
    x = random.uniform(0, REFERENCE) + np.linspace(0, length * random.normal(0, 0.03), 24)
    _line(cover, np.stack([x + np.cumsum(random.normal(0, 0.4, 24)), y], 1), random)


def _line(cover: NDArray[np.uint8], points: NDArray[Any], random: np.random.Generator) -> None:
    """A line through `points` (n, 2), x and y in pixels, 1 or 2 pixels wide, that ends faintly and is uneven."""
    where, width = np.rint(points * 16).astype(int).tolist(), int(random.integers(1, 3))
    ends = np.sqrt(np.sin(np.linspace(0, np.pi, len(points) + 1)[1:-1]))
    opacities = (_opacity(random) * ends * random.uniform(0.6, 1, len(ends))).tolist()
    for start, end, opacity in zip(where, where[1:], opacities, strict=False):
        cv2.line(cover, start, end, round(opacity), width, cv2.LINE_AA, 4)


def _opacity(random: np.random.Generator) -> int:
    return int(random.uniform(90, 255))


def _blurred(image: NDArray[Any], sigma: float) -> NDArray[Any]:
    """`image` blurred by a Gaussian; below a sigma of 0.1 pixels there is nothing to see."""
    return cv2.GaussianBlur(image, (0, 0), sigma) if sigma >= 0.1 else image


def _shrunk(image: NDArray[Any], low: int, interpolation: int) -> NDArray[Any]:
    """`image` made `low` pixels wide, or left where it is so already."""
    return cv2.resize(image, (low, low), interpolation=interpolation) if low < image.shape[0] else image


def _saved_twice(image: NDArray[Any], drawn: DrawnScan) -> NDArray[Any]:
    """`image` through JPEG, and once more with its blocks' corners moved by up to 7 pixels each way."""
    top, left = drawn.corner
    moved = cv2.copyMakeBorder(jpeg(image, drawn.qualities[0]), top, 0, left, 0, cv2.BORDER_REPLICATE)
    return jpeg(np.asarray(moved, np.float32), drawn.qualities[1])[top:, left:]


def jpeg(image: NDArray[np.float32], quality: int) -> NDArray[np.float32]:
    """`image` (height, width, 3), RGB in 0..1, encoded by OpenCV at `quality` (0..100) and decoded."""
    pixels = cv2.cvtColor(np.rint(image * 255).astype(np.uint8), cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done  # an 8-bit BGR array is always encoded
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None  # just encoded
    back: NDArray[np.float32] = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(np.float32) / 255
    return back
