"""What OpenCV does to one image, done by torch to a batch of several sizes: resampling, filters, borders, JPEG.

A canvas is a tensor (n, channels, height, width) whose images begin in its upper left corner. How far each reaches,
tensors of int64 (n,) say; what lies beyond is any finite number, and none of it gets into an image.

JPEG is what libjpeg-turbo makes of 8-bit images, level by level, without the bytes between. Baseline, 4:2:0, its slow
integer cosine transforms and smooth chroma: the defaults of OpenCV and Pillow. Each pass of these transforms is a
matrix of whole numbers and one rounding (jfdctint.c, jidctint.c of the Independent JPEG Group), so that float64 holds
every number exactly, whatever the order of sums. Images are 4 pixels wide and high or more.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray

_SHARPNESS = -0.75
"""Of OpenCV's bicubic interpolation."""
_LEAST_COVER = 1e-3
"""OpenCV's INTER_AREA leaves out pixels of which a smaller share is covered."""
_STEP = 32
"""Fourier transforms are of a multiple of it: fast, and few sizes."""


def linear_weights(before: torch.Tensor, after: torch.Tensor, width: int, made: int) -> torch.Tensor:
    """(n, made, width) float32: the rows that cv2.INTER_LINEAR makes `after` pixels of `before` (n,) with."""
    place, within = _places(before, after, made)
    return _gathered(place, torch.stack([1 - within, within], -1), 0, before, width)


def cubic_weights(before: torch.Tensor, after: torch.Tensor, width: int, made: int) -> torch.Tensor:
    """(n, made, width) float32: those of cv2.INTER_CUBIC."""
    place, within = _places(before, after, made)
    a, far, back = _SHARPNESS, within + 1, 1 - within
    first = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    second = ((a + 2) * within - (a + 3)) * within * within + 1
    third = ((a + 2) * back - (a + 3)) * back * back + 1
    return _gathered(place, torch.stack([first, second, third, 1 - first - second - third], -1), -1, before, width)


def area_weights(before: torch.Tensor, after: torch.Tensor, width: int, made: int) -> torch.Tensor:
    """(n, made, width) float32: those of cv2.INTER_AREA, where `after` is at most `before`."""
    scale = (before.double() / after)[:, None, None]
    start = torch.arange(made, device=before.device)[None, :, None] * scale
    pixel = torch.arange(width, device=before.device)[None, None, :]
    end, length = start + scale, before[:, None, None]
    cover = (torch.minimum(pixel + 1, end) - torch.maximum(pixel, start)).clamp(0, 1)
    cover = cover * (cover > _LEAST_COVER) * (pixel < length)
    return (cover / torch.minimum(scale, length - start).clamp(min=_LEAST_COVER)).float()


def _places(before: torch.Tensor, after: torch.Tensor, made: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each of `made` pixels lies among those of `before`, (n, made): whole pixels, and the rest in 0..1."""
    scale = (before.double() / after)[:, None]
    at = (torch.arange(made, device=before.device) + 0.5) * scale - 0.5
    place = at.floor()
    return place.long(), (at - place).float()


def _gathered(place: torch.Tensor, weights: torch.Tensor, first: int, before: torch.Tensor, width: int) -> torch.Tensor:
    """(n, made, width): `weights` (n, made, taps) of the pixels from `place` + `first` on; the border is repeated."""
    pixels = torch.arange(width, device=place.device)
    made = torch.zeros(*place.shape, width, device=place.device)
    for tap in range(weights.shape[-1]):
        at = (place + first + tap).clamp(min=0).minimum(before[:, None] - 1)
        made += (at[..., None] == pixels) * weights[..., tap, None]
    return made


def resized(canvas: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """(n, channels, made, made): images resampled both ways by `weights` (n, made, width)."""
    rows = weights[:, None]
    made: torch.Tensor = rows @ (canvas[..., : weights.shape[2], : weights.shape[2]] @ rows.transpose(-1, -2))
    return made


def filtered(canvas: torch.Tensor, sides: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Square images correlated with `kernels` (n, k, k), k odd, as by cv2.filter2D: borders are mirrored (101)."""
    width, size = canvas.shape[-1], kernels.shape[-1]
    if size == 1:
        return canvas * kernels[:, None]
    index = mirrored(width + size - 1, size // 2, sides)
    whole = -(-index.shape[1] // _STEP) * _STEP
    waves = torch.fft.rfft2(taken(canvas, index, index), s=(whole, whole))
    waves = waves * torch.fft.rfft2(kernels[:, None], s=(whole, whole)).conj()
    made: torch.Tensor = torch.fft.irfft2(waves, s=(whole, whole))
    return made[..., :width, :width]


def taken(canvas: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """(n, channels, h, w): of each image the `rows` (n, h) and `columns` (n, w)."""
    n, channels, _, width = canvas.shape
    chosen = canvas.gather(2, rows[:, None, :, None].expand(n, channels, -1, width))
    return chosen.gather(3, columns[:, None, None, :].expand(n, channels, rows.shape[1], -1))


def mirrored(count: int, before: int, lengths: torch.Tensor) -> torch.Tensor:
    """(n, count): places from `before` pixels ahead of each image on, mirrored at its first and last pixel."""
    period = (2 * (lengths - 1)).clamp(min=1)[:, None]
    at = (torch.arange(count, device=lengths.device) - before).remainder(period)
    return torch.minimum(at, period - at).minimum(lengths[:, None] - 1)


def repeated(count: int, before: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """(n, count): places from `before` (n,) pixels ahead of each image on; its first and last pixels are repeated."""
    at = torch.arange(count, device=lengths.device) - before[:, None]
    return at.clamp(min=0).minimum(lengths[:, None] - 1)


def luminance(canvas: torch.Tensor) -> torch.Tensor:
    """(n, 1, h, w): that of RGB, as by cv2.COLOR_RGB2GRAY."""
    red, green, blue = canvas.unbind(1)
    return (red * 0.299 + green * 0.587 + blue * 0.114)[:, None]


_BITS = 13
"""Of the fraction of the cosine transforms' constants."""
_PASS_BITS = 2
"""Of the fraction that is kept between rows and columns."""
_CONSTANTS = (
    0.298631336, 0.390180644, 0.541196100, 0.765366865, 0.899976223, 1.175875602, 1.501321110, 1.847759065,
    1.961570560, 2.053119869, 2.562915447, 3.072711026,
)  # fmt: skip
"""Of the cosine transforms."""
_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
"""Steps of luma at quality 50, by rows (annex K of the standard)."""
_CHROMA = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))
"""The upper left quarter of those of chroma; all others are 99."""


def steps(quality: int) -> NDArray[np.float64]:
    """(2, 8, 8): what coefficients of luma and chroma are divided by at `quality` (0..100, 0 is 1)."""
    quality = max(quality, 1)
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    chroma = np.full((8, 8), 99)
    chroma[:4, :4] = _CHROMA
    both = np.stack([np.array(_LUMA).reshape(8, 8), chroma])
    clipped: NDArray[np.float64] = np.clip((both * percent + 50) // 100, 1, 255).astype(np.float64)
    return clipped


def jpeg(canvas: torch.Tensor, heights: torch.Tensor, widths: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
    """RGB images (n, 3, h, w) in 0..1, rounded to 8 bits, encoded with the `steps` in `tables` (n, 2, 8, 8), decoded.

    `heights` and `widths` (n,) say how far each image reaches on the canvas.
    """
    height, width = canvas.shape[-2:]
    whole = (-(-height // 16) * 16, -(-width // 16) * 16)
    none = torch.zeros_like(heights)
    pixels = (canvas * 255).round().double()
    pixels = taken(pixels, repeated(whole[0], none, heights), repeated(whole[1], none, widths))
    colours = _to_ycc(pixels)
    luma = _coded(colours[:, :1], tables[:, :1])
    chroma_heights, chroma_widths = (heights + 1) // 2, (widths + 1) // 2
    chroma = _halved(colours[:, 1:])
    every = torch.arange(chroma.shape[-1], device=canvas.device).expand(len(canvas), -1)
    chroma = _coded(taken(chroma, repeated(chroma.shape[-2], none, chroma_heights), every), tables[:, 1:])
    chroma = _doubled(chroma, chroma_heights, chroma_widths)
    return (_to_rgb(luma, chroma)[..., :height, :width] / 255).float()


def _fix(value: float) -> float:
    """A constant of the colour conversion with 16 bits of fraction."""
    return float(int(value * 65536 + 0.5))


@functools.cache
def _colours(device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(3, 3) and (3, 1, 1) to luma and chroma, (3, 2) from chroma back; times 65536."""
    red, green, blue = _fix(0.299), _fix(0.587), _fix(0.114)
    blueness, redness = (_fix(0.16874), _fix(0.33126)), (_fix(0.41869), _fix(0.08131))
    half = _fix(0.5)
    there = [[red, green, blue], [-blueness[0], -blueness[1], half], [half, -redness[0], -redness[1]]]
    back = [[0, _fix(1.402)], [-_fix(0.34414), -_fix(0.71414)], [_fix(1.772), 0]]
    offset = [32768, 128 * 65536 + 32767, 128 * 65536 + 32767]
    made = (torch.tensor(values, dtype=torch.float64, device=device) for values in (there, offset, back))
    matrix, added, inverse = made
    return matrix, added.view(3, 1, 1), inverse


def _to_ycc(rgb: torch.Tensor) -> torch.Tensor:
    matrix, offset, _ = _colours(rgb.device)
    return torch.floor((torch.einsum("dc,nchw->ndhw", matrix, rgb) + offset) / 65536)


def _to_rgb(luma: torch.Tensor, chroma: torch.Tensor) -> torch.Tensor:
    added = torch.einsum("dc,nchw->ndhw", _colours(luma.device)[2], chroma - 128)
    return (luma + torch.floor((added + 32768) / 65536)).clamp(0, 255)


def _halved(planes: torch.Tensor) -> torch.Tensor:
    """Means of 2 x 2 pixels, that are rounded down and up in turn."""
    rows = planes[..., ::2, :] + planes[..., 1::2, :]
    sums = rows[..., ::2] + rows[..., 1::2]
    bias = 1 + torch.arange(sums.shape[-1], device=planes.device) % 2
    return torch.floor((sums + bias) / 4)


def _doubled(planes: torch.Tensor, heights: torch.Tensor, widths: torch.Tensor) -> torch.Tensor:
    """Twice as large: each pixel is 3/4 the nearest, 1/4 the next in both directions; as it is in a width of 1 or 2."""
    rows, columns = (
        torch.arange(2 * length, device=planes.device).expand(len(planes), -1) for length in planes.shape[-2:]
    )
    smooth = (widths > 2)[:, None]
    near_rows, far_rows = _near_and_far(rows, heights, smooth)
    near, far = _near_and_far(columns, widths, smooth)
    summed = 3 * taken(planes, near_rows, near) + taken(planes, far_rows, near)
    beside = 3 * taken(planes, near_rows, far) + taken(planes, far_rows, far)
    bias = 8 - columns[:, None, None, :] % 2
    return torch.floor((3 * summed + beside + bias) / 16)


def _near_and_far(at: torch.Tensor, lengths: torch.Tensor, smooth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    near = (at // 2).minimum(lengths[:, None] - 1)
    far = (near - 1 + 2 * (at % 2)).clamp(min=0).minimum(lengths[:, None] - 1)
    return near, torch.where(smooth, far, near)


def _coded(planes: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
    """Planes (n, c, h, w) of 0..255 in blocks of 8 x 8 quantised by `tables` (n, 1, 8, 8)."""
    matrix = _cosines(planes.device)
    n, channels, height, width = planes.shape
    blocks = (planes - 128).reshape(n, channels, height // 8, 8, width // 8, 8).transpose(-2, -3)
    rows = _shifted(blocks @ matrix.T, _BITS - _PASS_BITS)
    waves = _shifted(rows.mT @ matrix.T, _BITS + _PASS_BITS).mT
    step = tables[:, :, None, None]
    divisor = step * 8
    levels = torch.floor((waves.abs() + torch.floor(divisor / 2)) / divisor) * waves.sign()
    columns = _shifted((levels * step).mT @ matrix, _BITS - _PASS_BITS).mT
    pixels = _shifted(columns @ matrix, _BITS + _PASS_BITS + 3) + 128
    return pixels.clamp(0, 255).transpose(-2, -3).reshape(planes.shape)


def _shifted(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Whole numbers divided by 2 ** `bits` and rounded, halves up."""
    return torch.floor((values + 2.0 ** (bits - 1)) / 2.0**bits)


@functools.cache
def _cosines(device: torch.device) -> torch.Tensor:
    """(8, 8): one pass of the forward transform, times 2 ** 13 sqrt 8; its transpose is one of the inverse.

    Made as Loeffler, Ligtenberg and Moschytz multiply (jfdctint.c), by the same constants of 13 bits.
    """
    fixed = [round(value * 2**_BITS) for value in _CONSTANTS]
    one = np.eye(8)
    sums, (t7, t6, t5, t4) = one[:4] + one[:3:-1], one[:4] - one[:3:-1]
    t10, t11, t12, t13 = sums[0] + sums[3], sums[1] + sums[2], sums[1] - sums[2], sums[0] - sums[3]
    shared = (t12 + t13) * fixed[2]
    z1, z2, z3, z4 = -(t4 + t7) * fixed[4], -(t5 + t6) * fixed[10], t4 + t6, t5 + t7
    z5 = (z3 + z4) * fixed[5]
    z3, z4 = z5 - z3 * fixed[8], z5 - z4 * fixed[1]
    rows = [
        (t10 + t11) * 2**_BITS, t7 * fixed[6] + z1 + z4, shared + t13 * fixed[3], t6 * fixed[11] + z2 + z3,
        (t10 - t11) * 2**_BITS, t5 * fixed[9] + z2 + z4, shared - t12 * fixed[7], t4 * fixed[0] + z1 + z3,
    ]  # fmt: skip
    return torch.from_numpy(np.stack(rows)).to(device)
