"""HPSv2: how well people would like an image for a prompt, by a CLIP ViT-H/14 that was trained on their choices.

The release's own package (1.2.0, of 2024) pins pytest 7.2 and protobuf below 4; its network is open_clip's, which is
kept up and reads the released weights.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from authface.errors import AuthfaceError
from authface.metrics.iqa import loading, to_batch

if TYPE_CHECKING:
    import torch

ARCHITECTURE = "ViT-H-14"


def need_extra() -> None:
    """Raise AuthfaceError where open_clip is not installed: before 4 GB of weights are fetched for nothing."""
    if find_spec("open_clip") is None:
        raise AuthfaceError("hpsv2 is not measured: pip install 'authface[hps]'")


class HPSv2:
    """The network with weights of `checkpoint`. Raises AuthfaceError where open_clip or good weights are missing."""

    def __init__(self, checkpoint: Path, device: torch.device, architecture: str = ARCHITECTURE) -> None:
        need_extra()
        import open_clip

        self._device = device
        with loading("hpsv2 is not measured: its weights cannot be loaded"):
            self._network: Any = open_clip.create_model(architecture, pretrained=str(checkpoint), device=device).eval()
            self._tokens: Any = open_clip.get_tokenizer(architecture)
        self._seen = open_clip.get_model_preprocess_cfg(self._network)

    def __call__(self, rgb: NDArray[np.uint8], prompt: str) -> float:
        """Cosine of a square (h, w, 3) image and a prompt, as the release computes it; good ones have about 0.3."""
        import torch
        from torchvision.transforms.functional import InterpolationMode, normalize, resize

        side = self._network.visual.image_size
        small = resize(to_batch([rgb], self._device), list(side), InterpolationMode.BICUBIC, antialias=True)
        with torch.inference_mode():
            image = self._network.encode_image(normalize(small, self._seen["mean"], self._seen["std"]), normalize=True)
            text = self._network.encode_text(self._tokens([prompt]).to(self._device), normalize=True)
            return float((image.double() * text.double()).sum())
