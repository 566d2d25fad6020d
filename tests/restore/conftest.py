"""Models for tests: a stand-in, and a real family, untrained, with a ControlNet that is not zero."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from authface.console import Console
from authface.faces.geometry import Side
from authface.restore.model.crops import ColourFix
from authface.restore.run import jobs_of, restore_jobs
from authface.restore.session import Request, RestoreSummary, Session
from authface.restore.settings import RestoreSettings
from tests.faults import two_nodes

Command = Callable[..., tuple[int, str, str]]


@dataclass
class Brighter:
    """Stands for a model: it changes every face, in no time, and remembers how often and by what seeds."""

    side: Side = Side(64)
    colour: ColourFix = "none"

    def __post_init__(self) -> None:
        self.calls: list[list[int]] = []

    def restore(
        self, crops: Sequence[NDArray[np.uint8]], seeds: Sequence[int], fidelity: float | None = None
    ) -> Sequence[NDArray[np.uint8]]:
        self.calls.append(list(seeds))
        return [np.minimum(crop.astype(int) + 60, 255).astype(np.uint8) for crop in crops]


@dataclass(frozen=True)
class Painter:
    """Paints every face in one colour: a restoration that is seen wherever it goes."""

    side: Side = Side(64)
    colour: ColourFix = "none"

    def restore(
        self, crops: Sequence[NDArray[np.uint8]], seeds: Sequence[int], fidelity: float | None = None
    ) -> Sequence[NDArray[np.uint8]]:
        return [np.full_like(crop, (0, 255, 0)) for crop in crops]


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """``authface ...`` as typed: exit code, standard output, standard error."""

    def typed(*arguments: object) -> tuple[int, str, str]:
        from authface import cli

        monkeypatch.setattr(sys, "argv", ["authface", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return typed


@pytest.fixture
def authface(typed: Command) -> Command:
    """``authface restore ...`` as typed."""
    return partial(typed, "restore")


@pytest.fixture
def brighten(tmp_path: Path) -> Callable[..., tuple[Path, RestoreSummary]]:
    """Restore one file with `Brighter` into the folder ``out``."""

    def brighten(photo: Path, **settings: object) -> tuple[Path, RestoreSummary]:
        chosen = RestoreSettings(**({"model": "identity", "colour": "none"} | settings))  # type: ignore[arg-type]
        session = Session(Request(chosen), Console())
        session.__dict__["restorer"] = Brighter()  # in the place where the model is kept once it is loaded
        jobs = jobs_of([photo], tmp_path / "out", chosen.format)
        summary = restore_jobs(jobs, session)
        return jobs[0].target, summary

    return brighten


@pytest.fixture
def lines() -> Callable[[Path], list[dict[str, object]]]:
    """Reads the log of a folder."""
    return lambda folder: [json.loads(text) for text in (folder / "restore.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny family at 64 px. Fresh ControlNets end in zeros, so that the input would not matter."""
    import torch
    from diffusers import UNet2DConditionModel

    from authface.models.families import make_tiny
    from authface.models.sdxl import new_controlnet
    from authface.models.tiny import VAE

    folder = tmp_path_factory.mktemp("family")
    make_tiny(folder, seed=1, image_size=64)
    controlnet = new_controlnet(UNet2DConditionModel.from_pretrained(folder / "unet"), VAE.factor)
    generator = torch.Generator().manual_seed(2)
    # Without its biases, which outweigh what an untrained embedding says of the picture.
    for layer in controlnet.controlnet_cond_embedding.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, generator=generator)
            torch.nn.init.zeros_(layer.bias)
    torch.nn.init.normal_(controlnet.controlnet_cond_embedding.conv_out.weight, std=0.5, generator=generator)
    for end in [controlnet.controlnet_mid_block, *controlnet.controlnet_down_blocks]:
        torch.nn.init.normal_(end.weight, std=0.2, generator=generator)
    controlnet.save_pretrained(folder / "controlnet")
    _stretch(folder / "vae")
    return folder


def _stretch(folder: Path) -> None:
    """Let the untrained decoder fill the range of colours: as it comes, every picture is of one tone."""
    import torch
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(folder)
    last = vae.decoder.conv_out
    with torch.no_grad():
        noise = torch.randn(4, vae.config.latent_channels, 8, 8, generator=torch.Generator().manual_seed(3))
        pixels = vae.decode(noise / vae.config.scaling_factor).sample
        gain = 0.4 / pixels.std((0, 2, 3))
        last.weight.mul_(gain[:, None, None, None])
        last.bias.copy_((last.bias - pixels.mean((0, 2, 3))) * gain)
    vae.save_pretrained(folder)


def deep_astronaut(channels: int) -> NDArray[np.uint16]:
    """16 bits of which the lower 8 say something."""
    photo = data.astronaut()[:300, 60:400].astype(np.uint16) * 257
    noise = np.random.default_rng(2).integers(0, 200, photo.shape, dtype=np.uint16)
    photo = np.where(photo < 60000, photo + noise, photo)
    if channels < 3:
        photo = photo[..., 1:2]
    alpha = np.linspace(0, 65535, photo[..., 0].size).astype(np.uint16).reshape(photo.shape[:2])
    return np.dstack([photo, alpha]) if channels in {2, 4} else photo.squeeze()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """Two nodes of Ray on this machine, for the tests of one file."""
    with two_nodes() as nodes:
        yield nodes
