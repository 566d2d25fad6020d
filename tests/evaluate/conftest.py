"""Faces to measure: crops of one photo that ships with a dependency, and the command as typed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from skimage import data

from authface import cli
from authface.evaluate.catalogue import FILES
from authface.imaging import decode as images
from authface.metrics.quality import loading

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def authface(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """``authface evaluate ...`` as typed: exit code, standard output, standard error."""

    def authface(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["authface", "evaluate", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        told = capsys.readouterr()
        return code, told.out, told.err

    return authface


@pytest.fixture(scope="session")
def portrait() -> NDArray[np.uint8]:
    """(128, 128, 3): the astronaut's face."""
    face = data.astronaut()[20:276, 90:346]
    return np.ascontiguousarray(cv2.resize(face, (128, 128), interpolation=cv2.INTER_AREA))


@pytest.fixture
def faces(tmp_path: Path, portrait: NDArray[np.uint8]) -> Path:
    """A folder of six square faces, each a little moved and brightened."""
    folder = tmp_path / "faces"
    folder.mkdir()
    for number in range(6):
        moved = np.roll(portrait, 2 * number, axis=1).astype(int) + 4 * number
        save(folder / f"face{number}.png", np.clip(moved, 0, 255).astype(np.uint8))
    return folder


def save(path: Path, rgb: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(images.encode_png(rgb))
    return path


@pytest.fixture
def ab_folders(tmp_path: Path, portrait: NDArray[np.uint8]) -> tuple[Path, Path, Path]:
    """Ours, theirs, inputs of six faces: ours are green, theirs red, the inputs grey; files say whose they are."""
    folders = tuple(tmp_path / name for name in ("ours", "theirs", "inputs"))
    for number in range(6):
        for folder, tint in zip(folders, ((0.6, 1, 0.6), (1, 0.6, 0.6), (0.5, 0.5, 0.5)), strict=True):
            rgb = (np.roll(portrait, 3 * number, axis=1) * np.array(tint)).astype(np.uint8)
            note = PngInfo()
            note.add_text("Software", f"secret method {folder.name}")
            folder.mkdir(exist_ok=True)
            Image.fromarray(rgb).save(folder / f"face{number}.png", pnginfo=note)
    return folders  # type: ignore[return-value]  # three of them


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A torch home with LPIPS and FID's Inception, untrained; AlexNet's unused layers are zeros that take no room."""
    import torch
    from pyiqa.archs import inception
    from pyiqa.archs.lpips_arch import LPIPS
    from torchvision.models import alexnet

    home = tmp_path_factory.mktemp("hub")
    (home / "pyiqa").mkdir()
    (home / "checkpoints").mkdir()
    torch.manual_seed(0)
    state = alexnet().state_dict()
    small = {k: v if k.startswith("features") else torch.zeros(1).expand(v.shape) for k, v in state.items()}
    alex, lins = FILES["lpips"]
    torch.save(small, home / alex)
    with pytest.MonkeyPatch.context() as patch, loading("lpips cannot be made"):
        patch.setattr(torch.hub, "_hub_dir", str(home))
        perceptual = LPIPS(pretrained=False)
    torch.save({k: v.abs() for k, v in perceptual.state_dict().items() if k.startswith("lin")}, home / lins)
    load, inception.load_pretrained_network = inception.load_pretrained_network, lambda *_: None
    network = inception.fid_inception_v3()
    inception.load_pretrained_network = load
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)  # as they come, features end at 1e-8
    torch.save(
        {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()},
        home / FILES["fid_ffhq_clean"][0],
    )
    return home


@pytest.fixture
def hub(random_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return point_to(random_weights, monkeypatch)


@pytest.fixture
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "hub").mkdir()
    return point_to(tmp_path / "hub", monkeypatch)


def point_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let torch and pyiqa look for weights in a folder, which is returned, and fetch none."""
    import pyiqa.utils.download_util
    import torch

    monkeypatch.setattr(pyiqa.utils.download_util, "DEFAULT_CACHE_DIR", str(folder / "pyiqa"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(folder))  # not set_dir, which cannot be taken back
    return folder


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny family at 64 px, with a ControlNet as stage II begins with."""
    from diffusers import UNet2DConditionModel

    from authface.models.families import make_tiny
    from authface.models.sdxl import new_controlnet
    from authface.models.tiny import VAE

    folder = tmp_path_factory.mktemp("family")
    make_tiny(folder, seed=1, image_size=64, channels=(16, 32, 48))
    new_controlnet(UNet2DConditionModel.from_pretrained(folder / "unet"), VAE.factor).save_pretrained(
        folder / "controlnet"
    )
    return folder
