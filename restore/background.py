"""The photo around the faces, enlarged: by Lanczos, or by a super-resolution model from a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, cast

import cv2
import numpy as np

from authface.errors import AuthfaceError, UsageError, one_line
from authface.extras import need
from authface.files import sha256_of_weights
from authface.imaging.png import Pixels, is_grey
from authface.models.networks import load_network
from authface.restore.model.crops import LUMA

TILE = 256
"""Side of the tiles that a model processes at a time; halved if memory is short."""
MIN_TILE = 32
STRIP = 256
"""Rows of a photo with alpha that are enlarged at a time."""
LOBES = 8
"""Extra rows around such a strip, at least as many as Lanczos reads."""
OVERLAP = 16
"""Context in photo pixels around a tile, cut off afterwards: convolutions are inexact at borders."""

PixelBox = tuple[int, int, int, int]
"""x0, y0, x1, y1; the last ones excluded."""


class Upscaler(Protocol):
    """Enlarges photos."""

    def __call__(self, photo: Pixels, scale: int) -> Pixels:
        """The (h, w, 3) photo `scale` times as large, of its depth; a grey one stays grey."""
        ...


def lanczos(photo: Pixels, scale: int) -> Pixels:
    """The photo enlarged by OpenCV's Lanczos kernel of 8 x 8 pixels; pixel 0 covers the first `scale` ones."""
    height, width = photo.shape[:2]
    if scale == 1:
        return photo
    enlarged = cv2.resize(photo, (width * scale, height * scale), interpolation=cv2.INTER_LANCZOS4)
    return cast("Pixels", enlarged)


def enlarge(photo: Pixels, scale: int, upscaler: Upscaler = lanczos, alpha: Pixels | None = None) -> Pixels:
    """The photo enlarged by `upscaler`; colours hidden by its (h, w) `alpha` do not bleed into visible ones.

    Lanczos weights pixels by alpha (premultiplied, in floating point); a model is given the photo with
    the nearest visible colours in place of hidden ones. Hidden pixels keep their own enlarged colours.
    """
    if scale == 1 or alpha is None:
        return upscaler(photo, scale)
    if upscaler is not lanczos:
        return upscaler(_filled(photo, alpha), scale)
    out = lanczos(photo, scale)
    height, width = alpha.shape
    most = float(np.iinfo(photo.dtype).max)
    for top in range(0, height, STRIP):
        first, last = max(0, top - LOBES), min(height, top + STRIP + LOBES)
        share = alpha[first:last].astype(np.float32) / np.iinfo(alpha.dtype).max
        size = (width * scale, (last - first) * scale)
        seen = cv2.resize(share, size, interpolation=cv2.INTER_LANCZOS4)
        colours = cv2.resize(photo[first:last] * share[..., None], size, interpolation=cv2.INTER_LANCZOS4)
        rows = slice((top - first) * scale, (min(height, top + STRIP) - first) * scale)
        own = out[top * scale : top * scale + rows.stop - rows.start]
        near = cv2.dilate((share < 1).astype(np.uint8), np.ones((2 * LOBES + 1, 2 * LOBES + 1), np.uint8))
        mixed = cv2.resize(near, size, interpolation=cv2.INTER_NEAREST)[rows] > 0
        shown = mixed & (seen[rows] > 0.5 / 255)  # where all around is opaque, it is exactly what Lanczos makes
        divided = colours[rows] / np.where(shown, seen[rows], 1)[..., None]
        own[shown] = np.rint(np.clip(divided, 0, most)).astype(photo.dtype)[shown]
    return out


def _filled(photo: Pixels, alpha: Pixels) -> Pixels:
    """The photo with the nearest visible pixel in place of each fully transparent one."""
    hidden = (alpha == 0).astype(np.uint8)
    if not hidden.any() or hidden.all():
        return photo
    _, labels = cv2.distanceTransformWithLabels(hidden, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    visible = np.zeros(int(labels.max()) + 1, np.intp)
    visible[labels[hidden == 0]] = np.flatnonzero(hidden == 0)
    return photo.reshape(-1, 3)[visible[labels]]


class ModelUpscaler:
    """A super-resolution network that spandrel knows by its weights (ESRGAN, SwinIR, HAT and some forty more).

    If its factor is not the requested scale, its result is resized. Raises UsageError for a file that is no such
    network, or where spandrel is not installed.
    """

    def __init__(self, file: Path, device: str = "cpu") -> None:
        need("restore.upscaler", "upscale", "spandrel", "torch")
        import torch

        self._device = torch.device(device)
        self._network: Any = _load(file).to(self._device)

    def __call__(self, photo: Pixels, scale: int) -> Pixels:
        """The photo `scale` times as large. Raises AuthfaceError if not even the smallest tile fits into memory."""
        import torch

        height, width = photo.shape[:2]
        tile = TILE
        while True:
            try:
                out = np.empty((height * scale, width * scale, 3), photo.dtype)
                for box in tiles(width, height, tile):
                    self._fill(out, photo, box, scale)
                return _like(out, photo)
            except torch.OutOfMemoryError as error:
                tile //= 2
                if tile < MIN_TILE:
                    raise AuthfaceError(
                        f"a tile of {MIN_TILE} px does not fit into memory: a smaller restore.upscaler, or none"
                    ) from error

    def _fill(self, out: Pixels, photo: Pixels, box: PixelBox, scale: int) -> None:
        import torch

        height, width = photo.shape[:2]
        x0, y0, x1, y1 = box
        left, top = max(0, x0 - OVERLAP), max(0, y0 - OVERLAP)
        seen = photo[top : min(height, y1 + OVERLAP), left : min(width, x1 + OVERLAP)]
        most = float(np.iinfo(photo.dtype).max)
        values = np.ascontiguousarray(seen.transpose(2, 0, 1)[None], np.float32) / np.float32(most)
        with torch.inference_mode():
            result = self._network(torch.from_numpy(values).to(self._device))[0]
        large = result.float().cpu().numpy().transpose(1, 2, 0)
        size = (seen.shape[1] * scale, seen.shape[0] * scale)
        if large.shape[1::-1] != size:
            larger = large.shape[1] > size[0]
            large = cv2.resize(large, size, interpolation=cv2.INTER_AREA if larger else cv2.INTER_LANCZOS4)
        a, b = (y0 - top) * scale, (x0 - left) * scale
        own = large[a : a + (y1 - y0) * scale, b : b + (x1 - x0) * scale]
        out[y0 * scale : y1 * scale, x0 * scale : x1 * scale] = np.rint(np.clip(own, 0, 1) * most).astype(photo.dtype)


def tiles(width: int, height: int, side: int) -> Iterator[PixelBox]:
    """Boxes of at most `side` pixels that cover a photo, each pixel once."""
    for y in range(0, height, side):
        for x in range(0, width, side):
            yield x, y, min(x + side, width), min(y + side, height)


def file_sha256(file: str) -> str:
    """Hex sha256 of an upscaler's file, for fingerprints. Raises UsageError if it is missing."""
    try:
        return sha256_of_weights(Path(file))
    except OSError as error:
        raise UsageError(f"restore.upscaler={one_line(file)}: {error.strerror or type(error).__name__}") from error


def _like(out: Pixels, photo: Pixels) -> Pixels:
    """`out` without colour if `photo` has none; a network need not keep grey."""
    if not is_grey(photo):
        return out
    for rows in np.array_split(np.arange(len(out)), max(1, len(out) // 256)):
        out[rows] = np.rint(out[rows].astype(np.float64) @ LUMA)[..., None].astype(out.dtype)
    return out


def _load(file: Path) -> Any:
    """The super-resolution network in `file`."""
    what = f"restore.upscaler={one_line(file)}"
    network = load_network(file, what, "upscale")
    if getattr(network, "purpose", "") != "SR" or network.scale < 2:
        raise UsageError(f"{what} is not a super-resolution network: choose another file")
    if (network.input_channels, network.output_channels) != (3, 3):
        raise UsageError(f"{what} takes {network.input_channels} channels: RGB needs 3")
    return network
