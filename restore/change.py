"""Where and how strongly a photo was altered: colour differences on a perceptual scale over the dimmed photo."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.imaging.bitdepth import Pixels, to_8_bits
from authface.restore.model.colour import ciede2000, lab_of_srgb

MAX_MAP_SIDE = 2048
"""Longer side of the map, pixels; a larger photo is averaged."""
FULL = 20.0
"""CIEDE2000 at the end of the scale; larger ones look the same."""
JUST_VISIBLE = 1.0
"""CIEDE2000 above which a difference is visible side by side, and shown in the map."""
CLEARLY_VISIBLE = 3.0
"""CIEDE2000 above which the colours are opaque."""
DIM = 0.4
"""Brightness of the photo under the colours."""
LEGEND = 28
"""Rows of the scale under the photo, pixels."""


def change_map(before: Pixels, after: Pixels) -> NDArray[np.uint8]:
    """The map of two (h, w, 3) pictures of one shape, as (h', w', 3) uint8 RGB; the scale is its last rows.

    Colours run with CIEDE2000 (Sharma et al. 2005) from 0 to 20 and more over the perceptually uniform scale
    `inferno`; pixels are taken as sRGB. Unchanged pixels are the photo in dimmed grey.
    """
    old, new = _small(before), _small(after)
    difference = delta_e(old, new)
    colours = cv2.applyColorMap(np.rint(np.clip(difference / FULL, 0, 1) * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    share = np.clip((difference - JUST_VISIBLE) / (CLEARLY_VISIBLE - JUST_VISIBLE), 0, 1)[..., None].astype(np.float32)
    dimmed = np.repeat(cv2.cvtColor(old, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2) * np.float32(DIM)
    mixed = dimmed + share * (colours[..., ::-1] - dimmed)
    return np.concatenate([np.rint(mixed).astype(np.uint8), _legend(old.shape[1])])


def delta_e(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(h, w) CIEDE2000 of two (h, w, 3) uint8 sRGB pictures; 0 exactly where they are equal."""
    difference = np.zeros(before.shape[:2], np.float32)
    changed = (before != after).any(axis=2)
    if changed.any():
        # Of the pixels that changed alone: most of a photo did not.
        old, new = (lab_of_srgb(picture[changed].astype(np.float32) / 255) for picture in (before, after))
        difference[changed] = ciede2000(old, new)
    return difference


def _small(picture: Any) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    scale = MAX_MAP_SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), picture.dtype)
    return to_8_bits(picture)


def _legend(width: int) -> NDArray[np.uint8]:
    """(LEGEND, width, 3) the scale from 0 to `FULL`, with its ends labelled if there is room."""
    steps = np.rint(np.linspace(0, 255, width)).astype(np.uint8)[None]
    bar = np.repeat(cv2.applyColorMap(steps, cv2.COLORMAP_INFERNO)[..., ::-1], LEGEND, axis=0)
    bar = np.ascontiguousarray(bar)
    for text, place, colour in (("0", 4, 255), (f"{FULL:g}+ CIEDE2000", width - 138, 0)):
        if width >= 320:
            cv2.putText(bar, text, (place, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (colour,) * 3, 1, cv2.LINE_AA)
    return bar
