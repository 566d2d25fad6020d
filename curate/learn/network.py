"""A network by name over eyes, skin and hair: DINOv2, CLIP and whatever else timm has, its weights the user's choice.

Nothing of it runs unless it is named. A square is never resized: the network sees the photo's own pixels, reflected to
the size it takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.errors import AuthfaceError, UsageError, one_line
from authface.extras import need
from authface.files import sha256_of_weights
from authface.models.families import pick_device

PLACES = ("eyes", "skin", "hair")
SIDE = 224
"""Side that networks see where they may be told one, pixels: a multiple of 14, 16 and 32."""
_LOCAL = "local-dir:"


def weights_of(network: str) -> dict[str, str]:
    """What the numbers of a network depend on: the sha256 of a local folder's weights, else timm's release."""
    if not network:
        return {}
    need(f"curate.learn.network {one_line(network, 60)}", "train", "timm", "torch")
    if network.startswith(_LOCAL):
        file = Path(network.removeprefix(_LOCAL)) / "model.safetensors"
        if not file.is_file():
            raise UsageError(f"curate.learn.network {one_line(network)}: there is no {one_line(file)}")
        return {network: sha256_of_weights(file)}
    import timm

    return {network: f"timm {timm.__version__}"}


class PatchNetwork:
    """A network of timm's with its weights on a device. Raises UsageError for an unknown name, else AuthfaceError."""

    def __init__(self, name: str, device: str) -> None:
        import timm

        self._device = pick_device(device)
        if not name.startswith(_LOCAL) and not timm.list_models(name.partition(".")[0]):
            raise UsageError(f"curate.learn.network {one_line(name, 60)}: timm has no such network")
        try:
            self._model, self._side = _made(name)
        except (OSError, RuntimeError, ValueError) as error:
            raise AuthfaceError(
                f"curate.learn.network {one_line(name, 60)} cannot be loaded: {one_line(error, 200)}; run once with a "
                f"network, or name a folder with config.json and model.safetensors: {_LOCAL}FOLDER"
            ) from error
        self._model.eval().to(self._device)
        config = timm.data.resolve_model_data_config(self._model)
        self._mean, self._deviation = (np.array(config[key], np.float32) * 255 for key in ("mean", "std"))

    def __call__(self, faces: Sequence[Sequence[NDArray[np.uint8]]]) -> list[NDArray[np.float64]]:
        """Of each face's squares (`features.patches`) the network's numbers, one square's after the other's."""
        import torch

        squares = np.stack([self._seen(square) for face in faces for square in face])
        with torch.inference_mode():
            out = self._model(torch.from_numpy(squares).to(self._device)).float().cpu().numpy()
        return [row.astype(np.float64).ravel() for row in out.reshape(len(faces), len(PLACES), -1)]

    def _seen(self, square: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(3, side, side): the middle of the square, reflected beyond its borders."""
        height, width = square.shape[:2]
        if min(height, width) == 0:
            return np.zeros((3, self._side, self._side), np.float32)
        y, x = max(height - self._side, 0) // 2, max(width - self._side, 0) // 2
        square = square[y : y + self._side, x : x + self._side]
        down, across = self._side - square.shape[0], self._side - square.shape[1]
        around = (down // 2, down - down // 2, across // 2, across - across // 2)
        whole = cv2.copyMakeBorder(square, *around, cv2.BORDER_REFLECT)
        normal = (whole.astype(np.float32) - self._mean) / self._deviation
        return np.ascontiguousarray(normal.transpose(2, 0, 1))


def _made(name: str) -> tuple[Any, int]:
    """The network without its head, and the side it sees: a transformer has to be told, others take any."""
    import timm

    try:
        return timm.create_model(name, pretrained=True, num_classes=0, img_size=SIDE), SIDE
    except TypeError:
        return timm.create_model(name, pretrained=True, num_classes=0), SIDE
