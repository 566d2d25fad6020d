"""Put restored crops back into their photo, whole or by a mask of the face.

The crop's change is added, not the crop: a model that changes nothing leaves every pixel of the photo as it was,
whatever the crop's size and turn. Where the model did change the face, the photo's own noise is replaced as well.

What each pixel of an aligned face shows says ParseNet (Chen et al. 2021, `PSFRGAN`) as facexlib has it. Its code is
MIT; its weights (85 MB) learned from CelebAMask-HQ, whose photos are for research that is not commercial.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.errors import AuthfaceError, first_line, one_line
from authface.faces.detector import facexlib_file
from authface.faces.geometry import Aligned, Frame, blurred_share, crop_to_photo, quad_side, scale_quad, warp
from authface.files import sha256_of_weights
from authface.imaging.png import Pixels

FEATHER_INNER = 0.70
FEATHER_OUTER = 0.94
"""Half sides of the crop between which the mask falls from 1 to 0: outside of the face, inside of the crop."""
CHANGE_LOW = 1.0
CHANGE_HIGH = 6.0
"""Mean local change, levels of 255, from which the photo's fine detail starts to go and is all replaced."""
CHANGE_SIGMA = 1 / 64
"""Of the window over which the change is averaged, in sides of the crop."""
NEARNESS = 8.0
"""How fast a crop's claim on a pixel falls with the squared distance from its centre, in half sides."""
STRIP_ROWS = 128
"""Rows of the photo that are worked on at once: what keeps a face of thousands of pixels out of memory."""

Image = NDArray[np.uint8]
C = TypeVar("C", Image, NDArray[np.float32])
P = TypeVar("P", NDArray[np.uint8], NDArray[np.uint16], Pixels)
Plane = NDArray[np.float32]


def paste_all(
    photo: P,
    faces: Sequence[tuple[Aligned, Image]],
    *,
    upscale: int = 1,
    masks: Sequence[Plane | None] | None = None,
) -> P:
    """The (h, w, 3) photo with restored crops in place of the aligned ones they were made from; a new array.

    With W the warp from crop to photo, m the mask (the feathered square, times the face's own of `masks`, (size, size)
    of 0..1 in the crop) and g (0..1) how clearly the crop changed there:
    ``photo + m * ((1 - g) * (W(restored) - W(aligned)) + g * (W(restored) - photo))``.
    Where crops overlap, each pixel goes to the crop whose centre it is nearest to. `upscale` says how many times
    the photo is larger than the one the faces were aligned in. A uint16 photo is blended with 16 bits: a level of a
    crop is 257 of its own. Raises AuthfaceError if a restored crop or a mask has another shape than its aligned one.
    """
    places = _places(photo, faces, upscale, masks)
    most = int(np.iinfo(photo.dtype).max)
    level = np.float32(most / 255)
    out = photo.copy()
    for place, (aligned, restored) in zip(places, faces, strict=True):
        if restored.shape != aligned.rgb.shape or restored.dtype != np.uint8:
            raise AuthfaceError(
                f"a restored crop {restored.shape} {restored.dtype}: its face was aligned as {aligned.rgb.shape} uint8"
            )
        if place.mask is not None and place.mask.shape != restored.shape[:2]:
            raise AuthfaceError(f"a mask {place.mask.shape}: its face was aligned as {aligned.rgb.shape}")
        rivals = place.rivals(places)
        changed = _changed(aligned.rgb, restored)
        # With 16 bits a crop that is enlarged may fall between its own 256 levels.
        crops: list[Any] = [crop.astype(np.float32) if most > 255 else crop for crop in (aligned.rgb, restored)]
        for x, y in place.strips():
            weight = place.share(x, y, rivals) * level
            before, after = place.sampled(crops[0], x, y), place.sampled(crops[1], x, y)
            shares = cv2.warpAffine(changed, place.turn_at(x, y), (len(x), len(y)), flags=cv2.INTER_LINEAR)
            rows, columns = slice(y[0], y[-1] + 1), slice(x[0], x[-1] + 1)
            own = photo[rows, columns].astype(np.float32) / level
            base = before + shares[..., None] * (own - before)
            mixed = out[rows, columns] + weight[..., None] * (after - base)
            out[rows, columns] = np.clip(np.rint(mixed), 0, most).astype(photo.dtype)
    return out


def replaced_shares(
    photo: Pixels,
    faces: Sequence[tuple[Aligned, Image]],
    *,
    upscale: int = 1,
    masks: Sequence[Plane | None] | None = None,
) -> Iterator[tuple[tuple[int, int, int, int], Plane]]:
    """For each crop that `paste_all` puts into the photo: x0, y0, x1, y1 of the pixels under it, the last ones
    excluded, and (rows, columns; 0..1) how much of each is the crop's.
    """
    places = _places(photo, faces, upscale, masks)
    for place in places:
        strips = [place.share(x, y, place.rivals(places)) for x, y in place.strips()]
        yield place.box, np.concatenate(strips) if strips else np.zeros((0, 0), np.float32)


def _places(
    photo: Pixels,
    faces: Sequence[tuple[Aligned, Image]],
    upscale: int,
    masks: Sequence[Plane | None] | None,
) -> list[CropPlacement]:
    height, width = photo.shape[:2]
    own_masks = masks or [None] * len(faces)
    return [
        CropPlacement.of(aligned, upscale, width, height, mask)
        for (aligned, _), mask in zip(faces, own_masks, strict=True)
    ]


@dataclass(frozen=True)
class CropPlacement:
    """Where a crop lies in the photo."""

    size: int
    turn: NDArray[np.float64]
    """(2, 3) photo to crop coordinates."""
    ratio: float
    """Crop pixels in a photo pixel."""
    frame: Frame
    box: tuple[int, int, int, int]
    """x0, y0, x1, y1 of the photo's pixels under the mask, the last ones excluded."""
    mask: Plane | None = None
    """(size, size) 0..1 which of the crop's pixels are the face; None: all."""

    @classmethod
    def of(cls, aligned: Aligned, upscale: int, width: int, height: int, mask: Plane | None = None) -> CropPlacement:
        size = aligned.rgb.shape[0]
        quad = scale_quad(aligned.quad, upscale)
        masked = quad.mean(axis=0) + (quad - quad.mean(axis=0)) * FEATHER_OUTER
        low = np.clip(np.floor(masked.min(axis=0)), 0, [width, height]).astype(int)
        high = np.clip(np.ceil(masked.max(axis=0)) + 1, 0, [width, height]).astype(int)
        return cls(
            size,
            np.asarray(cv2.invertAffineTransform(crop_to_photo(quad, size)), dtype=np.float64),
            size / quad_side(quad),
            Frame.around(quad.min(axis=0), quad.max(axis=0), quad_side(quad), width, height),
            (int(low[0]), int(low[1]), int(high[0]), int(high[1])),
            mask,
        )

    def rivals(self, places: Sequence[CropPlacement]) -> list[CropPlacement]:
        """The other crops that meet this one."""
        return [other for other in places if other is not self and other.meets(self)]

    def meets(self, other: CropPlacement) -> bool:
        (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = self.box, other.box
        return ax0 < bx1 and bx0 < ax1 and ay0 < by1 and by0 < ay1

    def strips(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Columns and rows of the box, so many rows at a time."""
        x0, y0, x1, y1 = self.box
        if x0 < x1:
            for top in range(y0, y1, STRIP_ROWS):
                yield np.arange(x0, x1), np.arange(top, min(top + STRIP_ROWS, y1))

    def claim(self, x: NDArray[np.intp], y: NDArray[np.intp]) -> tuple[Plane, Plane]:
        """Mask (0..1) at the photo's columns `x` and rows `y`, and how strongly this crop claims each pixel."""
        turn = self.turn * 2 / self.size
        u = turn[0, 0] * x[None, :] + turn[0, 1] * y[:, None] + (turn[0, 2] + 1 / self.size - 1)
        v = turn[1, 0] * x[None, :] + turn[1, 1] * y[:, None] + (turn[1, 2] + 1 / self.size - 1)
        mask = _feather(u.astype(np.float32), v.astype(np.float32))
        if self.mask is not None:
            mask = mask * cv2.warpAffine(self.mask, self.turn_at(x, y), (len(x), len(y)), flags=cv2.INTER_LINEAR)
        if self.frame.padded:
            left, top = np.float64(self.frame.x0), np.float64(self.frame.y0)
            inside = np.float32(1.0) - blurred_share(self.frame.depth(x[None, :] - left, y[:, None] - top))
            mask = np.asarray(mask * inside, dtype=np.float32)
        return mask, mask * np.exp(-NEARNESS * (u * u + v * v)).astype(np.float32)

    def share(self, x: NDArray[np.intp], y: NDArray[np.intp], rivals: Sequence[CropPlacement]) -> Plane:
        """The mask, less what nearer crops claim."""
        mask, claim = self.claim(x, y)
        if not rivals:
            return mask
        every = claim + sum((rival.claim(x, y)[1] for rival in rivals), np.zeros_like(claim))
        return np.asarray(mask * claim / np.maximum(every, np.float32(1e-12)), dtype=np.float32)

    def turn_at(self, x: NDArray[np.intp], y: NDArray[np.intp]) -> NDArray[np.float64]:
        """(2, 3) crop to the patch that begins at the first of `x` and `y`."""
        turn = np.asarray(cv2.invertAffineTransform(self.turn), dtype=np.float64)
        turn[:, 2] -= [x[0], y[0]]
        return turn

    def sampled(self, crop: C, x: NDArray[np.intp], y: NDArray[np.intp]) -> Plane:
        """(rows, columns, 3) the crop sampled at the photo's pixels, filtered where they are the coarser ones."""
        if self.ratio >= 1.0:
            turn = self.turn.copy()
            turn[:, 2] += turn[:, :2] @ [x[0], y[0]]
            return warp(crop, turn, len(x), len(y)).astype(np.float32)
        flags, border = cv2.INTER_CUBIC, cv2.BORDER_REFLECT_101
        patch = cv2.warpAffine(crop, self.turn_at(x, y), (len(x), len(y)), flags=flags, borderMode=border)
        return np.asarray(patch, dtype=np.float32)


def _feather(u: Plane, v: Plane) -> Plane:
    """The mask, 0..1, at crop coordinates of -1..1 that broadcast: smooth, 1 over the face, 0 before the border."""
    span = np.float32(FEATHER_OUTER - FEATHER_INNER)
    across, down = (_smooth((np.float32(FEATHER_OUTER) - np.abs(t)) / span) for t in (u, v))
    return across * down


def _changed(before: Image, after: Image) -> Plane:
    """(size, size) how clearly the crop was changed around each pixel, 0..1; 0 where nothing was."""
    change = cv2.absdiff(before, after).mean(axis=2, dtype=np.float32)
    local = cv2.GaussianBlur(change, (0, 0), max(before.shape[0] * CHANGE_SIGMA, 0.5))
    return _smooth((local - np.float32(CHANGE_LOW)) / np.float32(CHANGE_HIGH - CHANGE_LOW))


def _smooth(x: Plane) -> Plane:
    """Smoothstep: 0 below 0, 1 above 1, flat at both."""
    t = np.clip(x, 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), dtype=np.float32)


PARSER_URL = "https://github.com/xinntao/facexlib/releases/download/v0.2.2/parsing_parsenet.pth"
PARSER_SIDE = 512
"""Of the crops it sees, pixels."""
CLASSES = ("background", "skin", "nose", "glasses", "left eye", "right eye", "left brow", "right brow", "left ear",
           "right ear", "mouth", "upper lip", "lower lip", "hair", "hat", "earring", "necklace", "neck",
           "clothes")  # fmt: skip
"""In the order of its output, which is CelebAMask-HQ's."""
FACE_CLASSES = frozenset(CLASSES[1:13]) | {"earring"}
"""What belongs to a face, besides its hair."""
SOFT_EDGE = 0.03
"""Standard deviation of the mask's edge, sides of the crop."""


def parser_file() -> Path:
    """The weights, downloaded if need be. Raises AuthfaceError where they cannot be had."""
    return facexlib_file(PARSER_URL, "restore.mask=parsing", "restore.mask=square")


def parser_sha256() -> str:
    """Hex sha256 of the weights, for fingerprints. Raises as `parser_file`."""
    return sha256_of_weights(parser_file())


class FaceParser:
    """Masks of faces; made once, for many. Raises AuthfaceError for weights that are missing or broken."""

    def __init__(self, *, hair: bool = True, device: str = "cpu", side: int = PARSER_SIDE) -> None:
        """`hair`: it belongs to the face. `side`: of what the network sees, pixels; it was trained on `PARSER_SIDE`."""
        file = parser_file()
        import torch
        from facexlib.parsing.parsenet import ParseNet

        names = FACE_CLASSES | ({"hair"} if hair else frozenset())
        self._wanted = np.array([name in names for name in CLASSES])
        self._device, self._side = torch.device(device), side
        network: Any = ParseNet(in_size=PARSER_SIDE, out_size=PARSER_SIDE, parsing_ch=len(CLASSES))
        try:
            network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        except Exception as error:  # torch has no common class for what it cannot read
            reason = first_line(error, 100)
            raise AuthfaceError(f"{one_line(file)} is broken ({reason}): get {PARSER_URL} again") from error
        self._network = network.eval().to(self._device)

    def classes(self, crop: NDArray[np.uint8]) -> NDArray[np.intp]:
        """(side, side) index into `CLASSES` of what the (n, n, 3) uint8 RGB crop shows."""
        import torch

        seen = _resized(crop, self._side)
        values = torch.from_numpy(seen.transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1)
        with torch.inference_mode():
            scores = self._network(values.to(self._device))[0]
        found: NDArray[np.intp] = scores[0].argmax(dim=0).cpu().numpy()
        return found

    def mask(self, crop: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, n) weight of the crop's pixels, 0..1: 1 well within the face, 0 well outside, soft between."""
        hard = self._wanted[self.classes(crop)].astype(np.float32)
        soft = cv2.GaussianBlur(hard, (0, 0), SOFT_EDGE * len(hard))
        return np.asarray(np.clip(_resized(soft, len(crop)), 0, 1), np.float32)


def _resized(square: Any, side: int) -> Any:
    method = cv2.INTER_AREA if len(square) > side else cv2.INTER_LINEAR
    return cv2.resize(square, (side, side), interpolation=method)
