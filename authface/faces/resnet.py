"""RetinaFace with a ResNet-50 body, through facexlib: slower and surer than the one that is built in.

facexlib comes with pyiqa; its weights (109 MB, MIT) are downloaded where they are first asked for.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from authface.errors import AuthfaceError, one_line
from authface.faces.detector import RetinaFace

WEIGHTS_URL = "https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_Resnet50_Final.pth"


@functools.cache
def weights_file() -> Path:
    """The weights in facexlib's folder, downloaded if need be. Raises AuthfaceError where they cannot be had."""
    import facexlib
    from facexlib.utils import load_file_from_url

    folder = Path(facexlib.__file__).parent / "weights"
    file = folder / Path(WEIGHTS_URL).name
    try:
        if not file.is_file():
            load_file_from_url(WEIGHTS_URL, model_dir=str(folder), progress=False)
    except OSError as error:
        raise AuthfaceError(
            f"retinaface-resnet50 has no weights here and cannot download them ({one_line(error, 100)}): "
            f"put {WEIGHTS_URL} into {one_line(folder)}, or take curate.filter.detector=retinaface"
        ) from error
    return file


@functools.cache
def weights_sha256() -> str:
    """Hex sha256 of the weights, for fingerprints."""
    with weights_file().open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
