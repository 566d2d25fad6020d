"""Damage of a batch of faces on the device that trains: by torch, what `authface.faces.degrade.apply` does to one face.

A loader's process draws the damage (`degrade.draw`: parameters, noise, and what dust covers), the device applies it.
All steps are those of OpenCV and libjpeg-turbo in the same order (`opencv`), so that only float32's last bits
differ, and what JPEG rounds the other way for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from authface.faces.degrade import Drawn, DrawnDegradation, jitter
from authface.faces.scan import LIGHT_AND_DARK, DrawnScan, Screen, grain_filter
from authface.train.data import Batch, no_autocast
from authface.train.opencv import (
    area_weights,
    cubic_weights,
    filtered,
    jpeg,
    linear_weights,
    luminance,
    repeated,
    resized,
    steps,
    taken,
)

AT_ONCE = 8
"""Faces that are damaged together: at 512 px they take up to 0.8 GB for a moment, before anything of a step is kept."""

_NO_SCREEN = Screen(period=1, angle=0, descreen=0)
"""Stands in a batch for that of a face without one."""


@dataclass(frozen=True, kw_only=True)
class DegradedBatch(Batch):
    """A batch of faces and what damage left of them.

    `degraded` are tensors (n, 3, h, w) of an objective's own range. Where `drawn` is not empty they are still whole:
    uint8, each in the upper left corner; moved to a device, they are damaged there, and in 0..1.
    """

    degraded: torch.Tensor
    drawn: tuple[Drawn, ...] = ()

    def to(self, device: torch.device) -> Self:
        """The same batch with its tensors on `device`, damaged."""
        moved = super().to(device)
        return replace(moved, degraded=damaged(moved.degraded, self.drawn), drawn=()) if self.drawn else moved


def damages_on(device: torch.device) -> bool:
    """Whether faces are damaged on `device`: a GPU does it beside a step, a CPU has its loaders for it.

    Apple's GPUs have no float64, which JPEG is computed in.
    """
    return device.type == "cuda"


def together(faces: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
    """(n, 3, h, w) uint8: square RGB images of several sides, each in the upper left corner."""
    widest = max(len(rgb) for rgb in faces)
    whole = np.zeros((len(faces), 3, widest, widest), np.uint8)
    for place, rgb in enumerate(faces):
        whole[place, :, : len(rgb), : len(rgb)] = rgb.transpose(2, 0, 1)
    return torch.from_numpy(whole)


def damaged(faces: torch.Tensor, drawn: Sequence[Drawn]) -> torch.Tensor:
    """(n, 3, h, w) float32, whole 255ths of 0..1: `faces`, uint8 as by `together`, damaged each as `drawn` says."""
    made = torch.zeros(faces.shape, device=faces.device)
    with torch.no_grad(), no_autocast(faces.device), _full_precision():
        for places in _groups(drawn):
            index, width = torch.tensor(places).to(faces.device), max(drawn[place].side for place in places)
            image = faces[index, :, :width, :width].float() / 255
            scans = [one for place in places if isinstance(one := drawn[place], DrawnScan)]
            others = [one for place in places if isinstance(one := drawn[place], DrawnDegradation)]
            image = _scanned(image, scans) if scans else _degraded(image, others)
            made[index, :, :width, :width] = (image * 255).round().clamp(0, 255) / 255
    return made


def _groups(drawn: Sequence[Drawn]) -> Iterator[list[int]]:
    """Places of faces of one kind of damage, up to `AT_ONCE`, with those together that are made alike small."""
    scans = [place for place, one in enumerate(drawn) if isinstance(one, DrawnScan)]
    others = [(one.low, place) for place, one in enumerate(drawn) if isinstance(one, DrawnDegradation)]
    for places in (scans, [place for _, place in sorted(others)]):
        yield from (places[start : start + AT_ONCE] for start in range(0, len(places), AT_ONCE))


@contextmanager
def _full_precision() -> Iterator[None]:
    """Within the block products of float32 matrices are no TensorFloat32, whatever the process has set."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _degraded(image: torch.Tensor, drawn: Sequence[DrawnDegradation]) -> torch.Tensor:
    """`degrade.apply` to faces (n, 3, h, w) in 0..1."""
    on, width, low = image.device, image.shape[-1], max(one.low for one in drawn)
    sides, lows = _column([one.side for one in drawn], on), _column([one.low for one in drawn], on)
    image = filtered(image, sides, _stacked([one.kernel for one in drawn], on))
    image = resized(image, linear_weights(sides, lows, width, low))
    image = (image + _noise(drawn, low, on) * _column([one.sigma for one in drawn], on, 4)).clamp(0, 1)
    image = jpeg(image, lows, lows, _tables([one.quality for one in drawn], on))
    image = resized(image, linear_weights(lows, sides, low, width))
    shifts = np.stack([np.zeros(3, np.float32) if one.shift is None else one.shift for one in drawn])
    image = (image + _tensor(shifts, on)[..., None, None]).clamp(0, 1)
    image = torch.where(_column([one.grey for one in drawn], on, 4), luminance(image), image)
    for pixels, one in zip(image, drawn, strict=True):
        if one.jitter:
            pixels[:, : one.side, : one.side] = jitter(pixels[:, : one.side, : one.side], one.jitter)
    return image


def _noise(drawn: Sequence[DrawnDegradation], low: int, on: torch.device) -> torch.Tensor:
    """(n, 3, low, low), and 0 beyond each face."""
    noise = torch.zeros(len(drawn), 3, low, low, device=on)
    for plane, one in zip(noise, drawn, strict=True):
        plane[:, : one.low, : one.low] = _tensor(one.noise, on).permute(2, 0, 1)
    return noise


def _scanned(image: torch.Tensor, drawn: Sequence[DrawnScan]) -> torch.Tensor:
    """`scan.scanned` of faces (n, 3, h, w) in 0..1."""
    on = image.device
    sides = _column([one.side for one in drawn], on)
    image = _shrunk(image, drawn, sides, 0)
    image = _enlarged(image, drawn, sides, 0)
    image = _grained(image, drawn, sides)
    image = _screened(image, drawn, sides)
    image = _marked(_faded(image, drawn, sides), drawn)
    image = _shrunk(image, drawn, sides, 1)
    image = _saved_twice(image.clamp(0, 1), drawn)
    return _enlarged(image, drawn, sides, 1)


def _shrunk(image: torch.Tensor, drawn: Sequence[DrawnScan], sides: torch.Tensor, turn: int) -> torch.Tensor:
    """`image` blurred and made smaller, as the print (`turn` 0) or as the scan (1)."""
    on = image.device
    image = filtered(image, sides, _stacked([_gaussian(one.blur[turn]) for one in drawn], on))
    lows, made = _column([one.lows[turn] for one in drawn], on), max(one.lows[turn] for one in drawn)
    area = _column([one.down[turn] == cv2.INTER_AREA for one in drawn], on, 3)
    sizes = (sides, lows, image.shape[-1], made)
    return resized(image, torch.where(area, area_weights(*sizes), linear_weights(*sizes)))


def _enlarged(image: torch.Tensor, drawn: Sequence[DrawnScan], sides: torch.Tensor, turn: int) -> torch.Tensor:
    """`image` as large as its face again."""
    on = image.device
    lows, made = _column([one.lows[turn] for one in drawn], on), max(one.side for one in drawn)
    cubic = _column([one.up[turn] == cv2.INTER_CUBIC for one in drawn], on, 3)
    sizes = (lows, sides, image.shape[-1], made)
    return resized(image, torch.where(cubic, cubic_weights(*sizes), linear_weights(*sizes)))


def _grained(image: torch.Tensor, drawn: Sequence[DrawnScan], sides: torch.Tensor) -> torch.Tensor:
    on, width = image.device, image.shape[-1]
    noise = torch.zeros(len(drawn), 1, width, width, device=on)
    for plane, one in zip(noise, drawn, strict=True):
        plane[0, : one.side, : one.side] = _tensor(one.grain.noise, on)
    rows = [grain_filter(one.grain.size) for one in drawn]
    kernels = [np.ones((1, 1)) if row is None else row @ row.T / np.square(row).sum() for row in rows]
    noise = filtered(noise, sides, _stacked(kernels, on))
    light = luminance(image).clamp(0, 1)
    noise = noise * (light * (1 - light) * _column([4 * one.grain.sigma for one in drawn], on, 4))
    return image + noise * _tensor(np.stack([one.grain.gains for one in drawn]), on)[..., None, None]


def _screened(image: torch.Tensor, drawn: Sequence[DrawnScan], sides: torch.Tensor) -> torch.Tensor:
    if not any(one.screen for one in drawn):
        return image
    on, screens = image.device, [one.screen or _NO_SCREEN for one in drawn]
    period, turn = _tensor(np.array([(one.period, one.angle) for one in screens]), on)[..., None, None, None].unbind(1)
    x = torch.arange(image.shape[-1], device=on, dtype=torch.float64)
    y, step = x[:, None], 2 * torch.pi / period
    u, v = (x * turn.cos() + y * turn.sin()) * step, (y * turn.cos() - x * turn.sin()) * step
    light = luminance(image)
    paper = ((light - ((u.cos() + v.cos() + 2) / 4).float()) * period.float() + 0.5).clamp(0, 1)
    printed = filtered(image + (paper - light), sides, _stacked([_gaussian(screen.descreen) for screen in screens], on))
    return torch.where(_column([one.screen is not None for one in drawn], on, 4), printed, image)


def _faded(image: torch.Tensor, drawn: Sequence[DrawnScan], sides: torch.Tensor) -> torch.Tensor:
    on, fadings = image.device, [one.fading for one in drawn]
    strength = _tensor(np.stack([one.strength for one in fadings]), on).float()[:, None]
    strength = resized(strength, linear_weights(torch.full_like(sides, 3), sides, 3, image.shape[-1]))
    image = torch.where(_column([one.grey for one in fadings], on, 4), luminance(image), image)
    gains = _tensor(np.stack([one.gains for one in fadings]), on)[..., None, None]
    black, white = _column([one.black for one in fadings], on, 4), _column([one.white for one in fadings], on, 4)
    return image + ((image * (white - black) + black) * gains - image) * strength


def _marked(image: torch.Tensor, drawn: Sequence[DrawnScan]) -> torch.Tensor:
    shares = torch.zeros(len(drawn), 2, *image.shape[-2:], device=image.device)
    for planes, one in zip(shares, drawn, strict=True):
        planes[:, : one.side, : one.side] = _tensor(one.covers, image.device)
    for tone, share in zip(LIGHT_AND_DARK, (shares / 255).unbind(1), strict=True):
        image = image + (tone - image) * share[:, None]
    return image


def _saved_twice(image: torch.Tensor, drawn: Sequence[DrawnScan]) -> torch.Tensor:
    on, width = image.device, image.shape[-1]
    sizes = _column([one.lows[1] for one in drawn], on)
    top, left = (_column([one.corner[axis] for one in drawn], on) for axis in (0, 1))
    first, second = (_tables([one.qualities[turn] for one in drawn], on) for turn in (0, 1))
    image = jpeg(image, sizes, sizes, first)
    image = taken(image, repeated(width + 7, top, sizes), repeated(width + 7, left, sizes))
    image = jpeg(image, sizes + top, sizes + left, second)
    return taken(image, repeated(width, -top, sizes + top), repeated(width, -left, sizes + left))


def _gaussian(sigma: float) -> NDArray[Any]:
    """(n, n): the kernel of cv2.GaussianBlur; below a sigma of 0.1 pixels, which `scan` leaves out, nothing but 1."""
    if sigma < 0.1:
        return np.ones((1, 1))
    row = cv2.getGaussianKernel(round(sigma * 8 + 1) | 1, sigma)
    return np.asarray(row @ row.T)


def _stacked(kernels: Sequence[NDArray[Any]], on: torch.device) -> torch.Tensor:
    """(n, k, k) float32: square kernels of odd sides, with 0 around the smaller ones."""
    most = max(len(kernel) for kernel in kernels)
    padded = [np.pad(kernel, (most - len(kernel)) // 2) for kernel in kernels]
    return _tensor(np.stack(padded), on).float()


def _tables(qualities: Sequence[int], on: torch.device) -> torch.Tensor:
    return _tensor(np.stack([steps(quality) for quality in qualities]), on)


def _column(values: Sequence[float], on: torch.device, axes: int = 1) -> torch.Tensor:
    """A number a face, of int64, bool or float32: (n,), or (n, 1, ...) with more `axes`."""
    made = torch.tensor(values).to(on, non_blocking=True)
    return made.view(-1, *[1] * (axes - 1))


def _tensor(values: ArrayLike, on: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values)).to(on, non_blocking=True)
