"""What OpenCV does to one image, done by torch to a batch of images of several sizes: resampling, filters, borders.

A canvas is a tensor (n, channels, height, width) whose images begin in its upper left corner. How far each reaches,
tensors of int64 (n,) say; what lies beyond is any finite number, and none of it gets into an image.
"""

from __future__ import annotations

import torch

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
