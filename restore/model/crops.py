"""Around a model's networks, whichever library runs them: crops cleaned, given detail, and their inputs' colours.

The two corrections of colour are those of AuthFace's released inference, as formulas; neither changes a crop that
equals its source. Differences of colours are CIEDE2000 of CIELAB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.faces.geometry import Side, resize_square
from authface.models.graphs import passes
from authface.models.sampling import NAMED, Preset
from authface.restore.settings import RestoreSettings

Floats = NDArray[np.floating[Any]]

_TO_XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]], np.float64
)
"""Linear sRGB to CIE XYZ, ITU-R BT.709 primaries and D65."""
_WHITE = np.array([0.95047, 1.0, 1.08883])
"""XYZ of D65, 2 degree observer."""
_FAR = 25.0**7
"""Seventh power of the chroma at which greys turn into colours."""


def lab_of_srgb(rgb: Floats) -> Floats:
    """(..., 3) CIELAB under D65 of sRGB in 0..1 (IEC 61966-2-1; CIE 15): L* 0..100; in the type of `rgb`."""
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = linear @ (_TO_XYZ.T / _WHITE).astype(rgb.dtype)
    bent = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * ((29 / 6) ** 2 / 3) + 4 / 29)
    x, y, z = np.moveaxis(bent, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype(rgb.dtype)


def ciede2000(first: Floats, second: Floats) -> Floats:
    """(...) CIEDE2000 of (..., 3) CIELAB colours, all three weights 1 (Sharma, Wu and Dalal 2005, equations 2 to 22).

    Computed in float64; 0 for equal colours, 1 is about just visible side by side.
    """
    (l1, a1, b1), (l2, a2, b2) = (np.moveaxis(np.asarray(lab, np.float64), -1, 0) for lab in (first, second))
    stretch = 1.5 - 0.5 * _colourful((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2)
    a1, a2 = a1 * stretch, a2 * stretch
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = (np.arctan2(b, a) % (2 * np.pi) for a, b in ((a1, b1), (a2, b2)))
    grey = c1 * c2 == 0
    turn = np.where(grey, 0.0, (h2 - h1 + np.pi) % (2 * np.pi) - np.pi)
    hue = np.where(grey, h1 + h2, (h1 + turn / 2) % (2 * np.pi))
    away, chroma = ((l1 + l2) / 2 - 50) ** 2, (c1 + c2) / 2
    shape = (
        1 - 0.17 * np.cos(hue - np.pi / 6) + 0.24 * np.cos(2 * hue)
        + 0.32 * np.cos(3 * hue + np.radians(6)) - 0.20 * np.cos(4 * hue - np.radians(63))
    )  # fmt: skip
    lightness = (l2 - l1) / (1 + 0.015 * away / np.sqrt(20 + away))
    colour = (c2 - c1) / (1 + 0.045 * chroma)
    tint = 2 * np.sqrt(c1 * c2) * np.sin(turn / 2) / (1 + 0.015 * chroma * shape)
    blue = np.radians(60) * np.exp(-(((np.degrees(hue) - 275) / 25) ** 2))
    crossed = 2 * _colourful(chroma) * np.sin(blue) * colour * tint
    return np.asarray(np.sqrt(np.maximum(lightness**2 + colour**2 + tint**2 - crossed, 0)), np.float64)


def _colourful(chroma: Floats) -> Floats:
    """0 for greys, 1 far from them."""
    seventh = chroma**7
    return np.asarray(np.sqrt(seventh / (seventh + _FAR)), np.float64)


ColourFix = Literal["wavelet", "adain", "none"]

LEVELS = 5
"""Blurs in the cascade: they reach 31 px and together weigh like a Gaussian of sigma 13.1 px."""
VARIANCE_FLOOR = 1e-5
"""Added to AdaIN's variances, of values 0..1, so that a flat crop does not divide by 0."""
LUMA = (0.299, 0.587, 0.114)
"""Rec. 601, as JPEG and Pillow turn RGB to grey."""


def low_pass(image: NDArray[np.float32], levels: int = LEVELS) -> NDArray[np.float32]:
    """The coarse tones of an (h, w, 3) or (h, w) float image.

    Blurs with [1 2 1] x [1 2 1] / 16, dilated 1, 2, 4, 8, 16 ... Beyond the border the nearest pixel is repeated. The
    a-trous wavelet's approximation after `levels` of them: two weigh like a Gaussian of sigma 1.6 px, three 3.2,
    four 6.5.
    """
    for level in range(levels):
        taps = np.zeros(2 ** (level + 1) + 1, np.float32)
        taps[[0, len(taps) // 2, -1]] = 0.25, 0.5, 0.25
        image = cv2.sepFilter2D(image, cv2.CV_32F, taps, taps, borderType=cv2.BORDER_REPLICATE)
    return image


def wavelet_fix(restored: NDArray[np.uint8], source: NDArray[np.uint8], levels: int = LEVELS) -> NDArray[np.uint8]:
    """Fine detail of `restored` on the coarse tones of `source`, both (h, w, 3) uint8 of one shape.

    The fewer `levels`, the finer is what the source keeps.

    The wavelet sum of the details telescopes: ``restored - low_pass(restored) + low_pass(source)``, clipped to
    0..255. Rounded to the nearest level, where AuthFace's script cuts the fraction off and darkens by half a level.
    """
    fine, coarse = restored.astype(np.float32), source.astype(np.float32)
    return to_uint8(fine + low_pass(coarse - fine, levels))


def adain_fix(restored: NDArray[np.uint8], source: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`restored` with each channel's mean and standard deviation those of `source`, both (h, w, 3) uint8.

    Adaptive instance normalisation (Huang and Belongie 2017), per channel over all pixels, with unbiased variances.
    """
    fine, coarse = restored.astype(np.float64) / 255, source.astype(np.float64) / 255
    spread = [np.sqrt(values.var(axis=(0, 1), ddof=1) + VARIANCE_FLOOR) for values in (fine, coarse)]
    fixed = (fine - fine.mean(axis=(0, 1))) / spread[0] * spread[1] + coarse.mean(axis=(0, 1))
    return to_uint8(fixed * 255)


def keep(restored: NDArray[np.uint8], source: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`restored`, unchanged."""
    return restored


def mixed(
    restored: NDArray[np.uint8], source: NDArray[np.uint8], levels: int | None, share: float
) -> NDArray[np.uint8]:
    """The restored (h, w, 3) crop with the tones that `levels` of blur leave, and `share` of all the rest, of `source`.

    Without `levels` the tones are unchanged.
    """
    if levels is not None:
        restored = wavelet_fix(restored, source, levels)
    if not share:
        return restored
    return np.rint(restored + share * (source.astype(np.float32) - restored)).astype(np.uint8)


FIXES: dict[ColourFix, Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.uint8]]] = {
    "wavelet": wavelet_fix,
    "adain": adain_fix,
    "none": keep,
}


def to_grey(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The (h, w, 3) crop without colour: every channel is its Rec. 601 luma."""
    return np.repeat(to_uint8(rgb.astype(np.float64) @ LUMA)[..., None], 3, axis=2)


def to_uint8(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Levels rounded to the nearest of 0..255."""
    rounded: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded


OnStep = Callable[[], None]
"""Called after each step of a restorer; what it raises ends the work."""
Clean = Callable[[NDArray[np.uint8], float, int, OnStep | None], NDArray[np.float32]]
"""Cleans a (h, w, 3) uint8 face with a perception of 0..1 and its seed: levels, about 0..255, not rounded.

Its last argument is called after each pass of the network.
"""


class DetailPrior(Protocol):
    """A prior that adds detail to faces: `DiffusionRestorer` or `OnnxDiffusion`."""

    size: int
    """Side of the crops it takes, pixels."""
    on_step: OnStep | None

    def detail(self, crops: Sequence[NDArray[np.uint8]], seeds: Sequence[int]) -> Sequence[NDArray[np.float32]]:
        """The detail to add to (size, size, 3) uint8 RGB crops: (size, size, 3) levels, of any sign."""
        ...


@dataclass
class NoPrior:
    """Stands in for a prior that adds no detail, which is then not loaded."""

    size: int
    on_step: OnStep | None = None

    def detail(self, crops: Sequence[NDArray[np.uint8]], seeds: Sequence[int]) -> Sequence[NDArray[np.float32]]:
        """Zeros."""
        return [np.zeros(crop.shape, np.float32) for crop in crops]


class CleanedRestorer:
    """A cleaner removes the damage of a face at its own resolution; the prior then adds as much detail as requested.

    cleaned + (1 - fidelity) x detail x high pass of (decoded - decoded latents of the cleaned face), where the cleaner
    has a perception of (1 - fidelity) x perception, at most 1; the preset names both factors, and whether cleaned is
    the mean of the face's and its mirror image's. If nothing is added, no step of the prior is run; its `on_step` is
    called after each pass of the cleaner, too.
    """

    colour: ColourFix = "none"

    def __init__(
        self, clean: Clean, diffusion: DetailPrior, side: Side, fidelity: float, preset: Preset, engine: str
    ) -> None:
        self.clean, self.diffusion, self.side = clean, diffusion, side
        self.fidelity, self.preset, self.engine = fidelity, preset, engine

    def idle(self, settings: RestoreSettings) -> list[str]:
        """Settings of the prior that have no effect, since none of its detail is added."""
        return [] if self.preset.detail else [name for name in NAMED if getattr(settings, name) is not None]

    def passes(self, sides: Sequence[int]) -> int:
        """How often the cleaner runs for square faces of so many pixels a side."""
        return sum(map(passes, sides)) * (2 if self.preset.mirrored else 1)

    def restore(
        self, crops: Sequence[NDArray[np.uint8]], seeds: Sequence[int], fidelity: float | None = None
    ) -> Sequence[NDArray[np.uint8]]:
        """Restored (side, side, 3) uint8 RGB crops; `fidelity` 0..1 is the settings' unless given.

        Raises AuthfaceError if memory or precision is insufficient.
        """
        trust = 1 - (self.fidelity if fidelity is None else fidelity)
        told, pairs = min(1.0, trust * self.preset.perception), zip(crops, seeds, strict=True)
        cleaned = [self._cleaned(crop, told, seed) for crop, seed in pairs]
        if gain := trust * self.preset.detail:
            small = [to_uint8(resize_square(face, self.diffusion.size)) for face in cleaned]
            details = self.diffusion.detail(small, seeds)
            both = zip(cleaned, details, strict=True)
            cleaned = [face + gain * resize_square(detail, len(face)) for face, detail in both]
        return [to_uint8(face) for face in cleaned]

    def _cleaned(self, crop: NDArray[np.uint8], perception: float, seed: int) -> NDArray[np.float32]:
        on_pass = self.diffusion.on_step
        once = self.clean(crop, perception, seed, on_pass)
        if not self.preset.mirrored:
            return once
        return (once + self.clean(crop[:, ::-1], perception, seed, on_pass)[:, ::-1]) / np.float32(2)
