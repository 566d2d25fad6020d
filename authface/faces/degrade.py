"""Blind degradation of a clean face, seeded: blur, downsampling, noise, JPEG, and back to size; or a scan's damage.

Order and ranges are those of GFP-GAN and BFRffusion, which AuthFace's training names; CodeFormer's ranges are
the alternatives. Colour operations are off by default: the wavelet colour fix takes the low frequencies from the
degraded input, so a network taught to undo colour shifts would be undone itself. That holds for the fading of `scan`
too: its colours come back only where they are taken from what a network made of the input, not from the input itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.errors import UsageError, one_line
from authface.faces.scan import REFERENCE, DrawnScan, Range, Scan, draw_scan, jpeg, scanned

if TYPE_CHECKING:
    import torch

_MOST_PARTS = 6
"""A kernel of more row times column filters is slower by parts than whole."""
_WHICH = 1
"""Key of the random numbers that choose among a mixture's parts: those of the damage itself stay as they are."""


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """Ranges that are drawn from uniformly. `blur` is scaled with the image's side over `REFERENCE`."""

    blur: Range = (0.1, 10.0)
    """Sigma of the Gaussian, pixels of a 512 px image; both axes have their own in an anisotropic one."""
    kernel: int = 41
    """Side of the blur kernel at 512 px, odd."""
    isotropic: float = 0.5
    """Share of kernels that are round; the others have two sigmas and an angle in -pi..pi."""
    downsample: Range | None = (0.8, 8.0)
    """The degraded image is int(512 // r) pixels wide, whatever the size of the clean one. None resamples nothing:
    noise and JPEG's blocks stay as sharp as a camera leaves them."""
    noise: Range = (0.0, 20.0)
    """Sigma of Gaussian noise of each channel, 0..255."""
    jpeg: Range = (60.0, 100.0)
    """JPEG quality; the draw is cut to a whole number."""
    shift: float = 0.0
    """Chance of adding a constant of up to `shift_by` to each channel (GFP-GAN: 0.3)."""
    shift_by: float = 20.0
    grey: float = 0.0
    """Chance of turning the image grey (GFP-GAN: 0.01)."""
    jitter: float = 0.0
    """Chance of colour jitter: brightness, contrast 0.5..1.5, saturation 0..1.5, hue +-0.1 (GFP-GAN: 0.3)."""


_GFPGAN = Degradation()
PRESETS: dict[str, Degradation | Scan] = {
    "gfpgan": _GFPGAN,
    "gfpgan_colour": replace(_GFPGAN, shift=0.3, grey=0.01, jitter=0.3),
    "bfrffusion": _GFPGAN,
    "codeformer_large": Degradation(blur=(1, 15), downsample=(4, 30), noise=(0, 20), jpeg=(30, 80)),
    "codeformer_small": Degradation(blur=(0.1, 10), downsample=(1, 12), noise=(0, 15), jpeg=(60, 100)),
    # Thirds of the way from nothing to codeformer_large, narrow enough to compare restorers at one strength.
    "mild": Degradation(blur=(0.5, 2), downsample=(1.5, 3), noise=(2, 6), jpeg=(80, 95)),
    "medium": Degradation(blur=(2, 5), downsample=(3, 6), noise=(6, 14), jpeg=(65, 80)),
    "heavy": Degradation(blur=(5, 10), downsample=(6, 12), noise=(14, 20), jpeg=(40, 65)),
    # An ordinary good photo: learned from, it teaches a model to leave whole what is whole.
    "nearly_clean": Degradation(blur=(0.1, 0.8), downsample=(1, 1.2), noise=(0, 3), jpeg=(90, 100)),
    # Noise of single pixels and JPEG's blocks of 8, which resampling would soften: what a camera saved.
    "noise_jpeg": Degradation(blur=(0.1, 1.0), downsample=None, noise=(0, 25), jpeg=(30, 100)),
    "scan": Scan(),
}
"""GFP-GAN v1 without and with its colour operations, BFRffusion (the same without), CodeFormer stages II and III."""


@dataclass(frozen=True)
class Mixture:
    """Damages that faces have in given shares: each seed draws one of them."""

    parts: tuple[tuple[Degradation | Scan, float], ...]
    """Each with its share, above 0; they need not sum to 1."""

    def draw(self, seed: int | Sequence[int]) -> Degradation | Scan:
        """The damage of `seed`, by random numbers of its own: what that damage draws does not depend on it."""
        at = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_WHICH,))).random()
        ends = np.cumsum([share for _, share in self.parts])
        place = int(np.searchsorted(ends, at * ends[-1], side="right"))
        return self.parts[min(place, len(self.parts) - 1)][0]


def preset(name: str) -> Degradation | Scan:
    """The degradation called `name`. Raises UsageError."""
    if name not in PRESETS:
        raise UsageError(f"no degradation {one_line(name)!r}: there are {', '.join(PRESETS)}")
    return PRESETS[name]


def mixture(spec: str | Mapping[str, float]) -> Mixture:
    """The presets that `spec` names: one alone, or several with their shares, in any order. Raises UsageError.

    Shares are above 0 and need not sum to 1: {"gfpgan": 3, "nearly_clean": 1} barely damages a quarter of the faces.
    """
    shares = {spec: 1.0} if isinstance(spec, str) else spec
    if not shares:
        raise UsageError(f"a mixture of no degradations: name one or more of {', '.join(PRESETS)}")
    parts = tuple((preset(name), float(shares[name])) for name in sorted(shares))
    for name, share in shares.items():
        if not (share > 0 and math.isfinite(share)):
            raise UsageError(f"the share of degradation {name} is {share}: give a number above 0, or leave it out")
    return Mixture(parts)


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnDegradation:
    """All that `Degradation` leaves to chance, drawn for one image of `side` pixels."""

    side: int
    kernel: NDArray[np.float32]
    """(n, n), n odd, of unit sum: the blur."""
    low: int
    """Width of the degraded image; `side` where nothing is resampled."""
    sigma: float
    """Of the noise, 0..1."""
    noise: NDArray[np.float32]
    """(low, low, 3), standard normal."""
    quality: int
    """Of the JPEG."""
    shift: NDArray[np.float32] | None
    """(3,): what is added to the channels; None adds nothing."""
    grey: bool
    jitter: tuple[tuple[int, float], ...]
    """Changes of colour in their order: the place in `_JITTERS`, and how much."""


Drawn = DrawnDegradation | DrawnScan
"""What a seed draws for one image: damage in numbers, without a pixel of the image."""


def degrade(
    rgb: NDArray[np.uint8], seed: int | Sequence[int], damage: Degradation | Scan | Mixture
) -> NDArray[np.uint8]:
    """A degraded copy of `rgb` (side, side, 3), of the same shape: the same for the same seed, on every machine.

    `seed` is one non-negative number or several, such as (run, epoch, sample). Raises UsageError for an image
    that is not square RGB.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.shape[0] != rgb.shape[1] or rgb.shape[0] < 8:
        raise UsageError(
            f"an array of shape {rgb.shape} cannot be degraded: a square RGB face of 8 px or more is needed"
        )
    return apply(rgb, draw(seed, rgb.shape[0], damage))


def draw(seed: int | Sequence[int], side: int, damage: Degradation | Scan | Mixture) -> Drawn:
    """What `seed` draws for a face of `side` pixels."""
    one = damage.draw(seed) if isinstance(damage, Mixture) else damage
    random = np.random.default_rng(np.random.SeedSequence(seed))
    return draw_scan(random, side, one) if isinstance(one, Scan) else _draw_degradation(random, side, one)


def apply(rgb: NDArray[np.uint8], drawn: Drawn) -> NDArray[np.uint8]:
    """A copy of `rgb` (side, side, 3), of the side that `drawn` is for, damaged as it says."""
    return scanned(rgb, drawn) if isinstance(drawn, DrawnScan) else _degraded(rgb, drawn)


def _draw_degradation(random: np.random.Generator, side: int, degradation: Degradation) -> DrawnDegradation:
    kernel, low = _kernel(random, degradation, side / REFERENCE), side
    if degradation.downsample is not None:
        low = max(1, int(REFERENCE // random.uniform(*degradation.downsample)))
    sigma = random.uniform(*degradation.noise) / 255
    noise = random.standard_normal((low, low, 3), np.float32)
    quality = int(random.uniform(*degradation.jpeg))
    shift = None
    if random.random() < degradation.shift:
        by = degradation.shift_by / 255
        shift = random.uniform(-by, by, 3).astype(np.float32)
    grey = random.random() < degradation.grey
    jitter: tuple[tuple[int, float], ...] = ()
    if random.random() < degradation.jitter:
        places = random.permutation(len(_JITTERS)).tolist()
        jitter = tuple((place, float(random.uniform(*_JITTERS[place][1]))) for place in places)
    return DrawnDegradation(
        side=side, kernel=kernel, low=low, sigma=sigma, noise=noise, quality=quality, shift=shift, grey=grey,
        jitter=jitter,
    )  # fmt: skip


def _degraded(rgb: NDArray[np.uint8], drawn: DrawnDegradation) -> NDArray[np.uint8]:
    """`rgb` blurred, made small, with noise, as JPEG, at its size again and in other colours, in this order."""
    image: NDArray[Any] = rgb.astype(np.float32) / 255
    image = _filter(image, drawn.kernel)
    if drawn.low != drawn.side:
        image = cv2.resize(image, (drawn.low, drawn.low), interpolation=cv2.INTER_LINEAR)
    image = np.clip(image + drawn.noise * np.float32(drawn.sigma), 0, 1)
    image = jpeg(image, drawn.quality)
    if drawn.low != drawn.side:
        image = cv2.resize(image, (drawn.side, drawn.side), interpolation=cv2.INTER_LINEAR)
    if drawn.shift is not None:
        image = np.clip(image + drawn.shift, 0, 1)
    if drawn.grey:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    if drawn.jitter:
        image = _jittered(image, drawn.jitter)
    return np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)


def gaussian_kernel(size: int, sigma_x: float, sigma_y: float, angle: float) -> NDArray[np.float32]:
    """(size, size) Gaussian of unit sum whose main axes have the given sigmas (pixels), turned by `angle` (radians)."""
    steps = np.arange(size) - (size - 1) / 2
    x, y = np.meshgrid(steps, steps)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    weights = np.exp(-0.5 * ((along / sigma_x) ** 2 + (across / sigma_y) ** 2))
    kernel: NDArray[np.float32] = (weights / weights.sum()).astype(np.float32)
    return kernel


def _kernel(random: np.random.Generator, degradation: Degradation, scale: float) -> NDArray[np.float32]:
    size = 2 * max(1, round(degradation.kernel // 2 * scale)) + 1
    round_one = random.random() < degradation.isotropic
    sigma_x, sigma_y = (random.uniform(*degradation.blur) * scale for _ in range(2))
    angle = random.uniform(-math.pi, math.pi)
    return gaussian_kernel(size, sigma_x, sigma_x, 0.0) if round_one else gaussian_kernel(size, sigma_x, sigma_y, angle)


def _filter(image: NDArray[Any], kernel: NDArray[np.float32]) -> NDArray[Any]:
    """`image` filtered by `kernel`, as a sum of row times column filters where few of them make it up.

    A round Gaussian is one, a slightly turned or stretched one a few: a tenth of the time of the whole kernel, and
    the same to 1e-5 of its peak. What JPEG rounds the other way for it can move a pixel by some levels: 174 of 200
    faces came out as by the whole kernel, no pixel of the others further than 11.
    """
    left, weights, right = np.linalg.svd(kernel.astype(np.float64))
    rank = int((weights > 1e-5 * weights[0]).sum())
    if rank > _MOST_PARTS:
        whole: NDArray[Any] = cv2.filter2D(image, -1, kernel)
        return whole
    parts: list[NDArray[Any]] = [cv2.sepFilter2D(image, -1, right[i], left[:, i] * weights[i]) for i in range(rank)]
    summed: NDArray[Any] = parts[0] if rank == 1 else np.sum(parts, axis=0)
    return summed


_JITTERS = (
    ("adjust_brightness", (0.5, 1.5)),
    ("adjust_contrast", (0.5, 1.5)),
    ("adjust_saturation", (0.0, 1.5)),
    ("adjust_hue", (-0.1, 0.1)),
)
"""Changes of colour: functions of torchvision, and the range of each."""


def _jittered(image: NDArray[np.float32], changes: Sequence[tuple[int, float]]) -> NDArray[np.float32]:
    import torch

    pixels = jitter(torch.from_numpy(image.transpose(2, 0, 1).copy()), changes)
    jittered: NDArray[np.float32] = pixels.numpy().transpose(1, 2, 0)
    return jittered


def jitter(pixels: torch.Tensor, changes: Sequence[tuple[int, float]]) -> torch.Tensor:
    """`pixels` (3, height, width) in 0..1, on any device, changed in colour as `DrawnDegradation.jitter` says."""
    from torchvision.transforms import functional

    for place, strength in changes:
        pixels = getattr(functional, _JITTERS[place][0])(pixels, strength)
    return pixels.clamp(0, 1)
