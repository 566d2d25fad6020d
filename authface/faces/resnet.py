"""RetinaFace with a ResNet-50 body, through facexlib: slower and surer than the one that is built in.

facexlib comes with pyiqa; its weights (109 MB, MIT) are downloaded where they are first asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from authface.faces.detector import RetinaFace
from authface.faces.fetched import fetched
from authface.files import sha256_of_weights

WEIGHTS_URL = "https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_Resnet50_Final.pth"


def weights_file() -> Path:
    """The weights in facexlib's folder, downloaded if need be. Raises AuthfaceError where they cannot be had."""
    return fetched(WEIGHTS_URL, "retinaface-resnet50", "curate.filter.detector=retinaface")


def weights_sha256() -> str:
    """Hex sha256 of the weights, for fingerprints."""
    return sha256_of_weights(weights_file())


class ResNetRetinaFace(RetinaFace):
    """The detector at the same scales, with the same priors, and another network."""

    mean_bgr: ClassVar[tuple[float, float, float]] = (104.0, 117.0, 123.0)

    def __init__(self, min_score: float = 0.9, weights: Path | None = None, device: str = "cpu") -> None:
        import torch
        from facexlib.detection.retinaface import RetinaFace as Network

        network: Any = Network(network_name="resnet50", device=torch.device(device))
        state = torch.load(weights or weights_file(), map_location="cpu", weights_only=True)
        network.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()})
        self.min_score = min_score
        self._network = network.eval().to(device)
        self._device = device

    def answer(self, blob: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """(1, n, 4) boxes, (1, n, 2) scores, (1, n, 10) points of a (1, 3, h, w) picture less its mean."""
        import torch

        with torch.inference_mode():
            return [output.cpu().numpy() for output in self._network(torch.from_numpy(blob).to(self._device))]
