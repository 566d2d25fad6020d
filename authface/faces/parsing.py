"""What each pixel of an aligned face shows: ParseNet (Chen et al. 2021, `PSFRGAN`) as facexlib has it.

Its code is MIT; its weights (85 MB) learned from CelebAMask-HQ, whose photos are for research that is not commercial.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.errors import AuthfaceError, first_line, one_line
from authface.faces.weights import facexlib_file
from authface.files import sha256_of_weights

WEIGHTS_URL = "https://github.com/xinntao/facexlib/releases/download/v0.2.2/parsing_parsenet.pth"
SIDE = 512
"""Of the crops it sees, pixels."""
CLASSES = ("background", "skin", "nose", "glasses", "left eye", "right eye", "left brow", "right brow", "left ear",
           "right ear", "mouth", "upper lip", "lower lip", "hair", "hat", "earring", "necklace", "neck",
           "clothes")  # fmt: skip
"""In the order of its output, which is CelebAMask-HQ's."""
FACE = frozenset(CLASSES[1:13]) | {"earring"}
"""What belongs to a face, besides its hair."""
SOFT = 0.03
"""Standard deviation of the mask's edge, sides of the crop."""


def weights_file() -> Path:
    """The weights, downloaded if need be. Raises AuthfaceError where they cannot be had."""
    return facexlib_file(WEIGHTS_URL, "restore.mask=parsing", "restore.mask=square")


def weights_sha256() -> str:
    """Hex sha256 of the weights, for fingerprints. Raises as `weights_file`."""
    return sha256_of_weights(weights_file())


class FaceParser:
    """Masks of faces; made once, for many. Raises AuthfaceError for weights that are missing or broken."""

    def __init__(self, *, hair: bool = True, device: str = "cpu", side: int = SIDE) -> None:
        """`hair`: it belongs to the face. `side`: of what the network sees, pixels; it was trained on `SIDE`."""
        file = weights_file()
        import torch
        from facexlib.parsing.parsenet import ParseNet

        names = FACE | ({"hair"} if hair else frozenset())
        self._wanted = np.array([name in names for name in CLASSES])
        self._device, self._side = torch.device(device), side
        network: Any = ParseNet(in_size=SIDE, out_size=SIDE, parsing_ch=len(CLASSES))
        try:
            network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        except Exception as error:  # torch has no common class for what it cannot read
            reason = first_line(error, 100)
            raise AuthfaceError(f"{one_line(file)} is broken ({reason}): get {WEIGHTS_URL} again") from error
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
        soft = cv2.GaussianBlur(hard, (0, 0), SOFT * len(hard))
        return np.asarray(np.clip(_resized(soft, len(crop)), 0, 1), np.float32)


def _resized(square: Any, side: int) -> Any:
    method = cv2.INTER_AREA if len(square) > side else cv2.INTER_LINEAR
    return cv2.resize(square, (side, side), interpolation=method)
