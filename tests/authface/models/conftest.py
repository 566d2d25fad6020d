"""What tests of the models share: a family that has all parts."""

from pathlib import Path

import pytest
import torch

from authface.models import families
from authface.models.cleaner import make_cleaner
from authface.models.layout import write_family
from authface.models.sdxl import new_controlnet
from authface.models.tiny import VAE


@pytest.fixture(scope="module")
def whole_family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny family with random weights, a ControlNet and a cleaner."""
    root = tmp_path_factory.mktemp("family")
    families.make_tiny(root / "base", seed=0, image_size=64, channels=(16, 32, 48))
    unet = families.load(families.resolve(str(root / "base")), ["unet"], "cpu", torch.float32).unet
    further = {"controlnet": new_controlnet(unet, VAE.factor), "cleaner": make_cleaner(0, (16, 16))}
    write_family(root / "out", root / "base", further)
    return root / "out"
