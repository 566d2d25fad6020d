"""The community pipeline, loaded by diffusers from its folder, against `restore`: pixel by pixel."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from diffusers import DiffusionPipeline
from PIL import Image
from skimage import data

from authface import Restorer
from authface.models import graphs
from authface.models.cleaner import make_cleaner, with_noise
from authface.models.families import BUILTIN
from authface.models.layout import write_index
from authface.models.sampling import PRESETS, Preset
from tests.restore.conftest import family as untrained

FOLDER = Path(__file__).parents[2] / "integrations" / "diffusers"
FACE = np.ascontiguousarray(data.astronaut()[10:210, 120:320])
__all__ = ["untrained"]

Load = Callable[[Path], Any]


@pytest.fixture(scope="module")
def family(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family with a ControlNet that stock pipelines find, too."""
    folder = tmp_path_factory.mktemp("indexed") / "family"
    shutil.copytree(untrained, folder)
    write_index(folder)
    return folder


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Loads a family as a user does; diffusers keeps its copy of the file in a folder of the test."""
    from diffusers.utils import dynamic_modules_utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        made: dict[Path, Any] = {}

        def loaded(folder: Path) -> Any:
            if folder not in made:
                pipe = DiffusionPipeline.from_pretrained(
                    str(folder), custom_pipeline=str(FOLDER), trust_remote_code=True
                )
                made[folder] = pipe
            return made[folder]

        yield loaded


def same(load: Load, folder: Path, *faces: np.ndarray, fidelity: float = 0.5, preset: str = "quality") -> list[Any]:
    """The faces by both; they have to be equal in every pixel."""
    name = "tiny" if folder == BUILTIN else str(folder)
    with Restorer(name, preset, fidelity, device="cpu", engine="torch", guard=False) as restorer:
        results = restorer.restore_aligned(list(faces))
    seeds = [result.faces[0].seed for result in results]
    made = load(folder)(list(faces), preset=preset, fidelity=fidelity, seed=seeds, output_type="np").images
    for one, result, face in zip(made, results, faces, strict=True):
        assert one.shape == face.shape
        assert np.abs(one.astype(int) - result.image).max() == 0
    assert any((one != face).any() for one, face in zip(made, faces, strict=True))
    return made


def sized(side: int) -> np.ndarray:
    return np.asarray(cv2.resize(FACE, (side, side), interpolation=cv2.INTER_AREA))


@pytest.mark.parametrize("fidelity", [0.0, 0.5])
def test_the_built_in_family(load: Load, fidelity: float) -> None:
    grey = np.repeat(sized(150)[..., :1], 3, axis=2)
    same(load, BUILTIN, FACE, sized(90), grey, np.ascontiguousarray(FACE[:, ::-1]), sized(300), fidelity=fidelity)


def test_a_face_that_is_cleaned_in_tiles(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[type(load(BUILTIN)).__module__]
    for name, value in (("WHOLE", 256), ("TILE", 192), ("OVERLAP", 32)):  # a fifth of what they are: quicker
        assert getattr(module, name) == getattr(graphs, name)
        monkeypatch.setattr(module, name, value)
        monkeypatch.setattr(graphs, name, value)
    same(load, BUILTIN, sized(400))


def test_the_release_s_settings(load: Load, family: Path) -> None:
    """One stream of noise for all faces of a call, and a sampler that draws in each step."""
    few = {"steps": 3}
    faces = [sized(64), np.ascontiguousarray(sized(64)[:, ::-1])]
    with Restorer(str(family), "official", device="cpu", engine="torch", guard=False, **few) as restorer:
        results = restorer.restore_aligned(faces)
    made = load(family)(faces, preset="official", output_type="np", **few).images
    for one, result in zip(made, results, strict=True):
        assert np.array_equal(one, result.image)


@pytest.mark.parametrize("preset", ["fast", "fidelity"])
@pytest.mark.parametrize("fidelity", [0.2, 0.5, 0.9])
def test_a_family_without_a_cleaner(load: Load, family: Path, preset: str, fidelity: float) -> None:
    same(load, family, sized(64), sized(100), fidelity=fidelity, preset=preset)


def test_a_cleaner_and_the_prior_s_detail(load: Load, family: Path, tmp_path: Path) -> None:
    folder = tmp_path / "both"
    shutil.copytree(family, folder)
    net = with_noise(make_cleaner(0, (16, 16)))
    net.conv_in.weight.data[:, 12:].normal_(std=0.1)  # it hears the noise
    net.conv_out.weight.data.normal_(std=0.02)
    net.save_pretrained(folder / "cleaner")
    (folder / "presets.toml").write_text(
        '[quality]\nscheduler = "ddim"\nsteps = 2\nstrength = 0.3\ndetail = 2\nperception = 1\nmirrored = true\n'
        '[fast]\nscheduler = "euler"\nsteps = 2\nguidance = 2\nprompt = "smiling"\n'
    )
    write_index(folder)
    same(load, folder, sized(64), sized(120), fidelity=0.3)
    same(load, folder, sized(64), fidelity=0.3, preset="fast")


def test_presets_are_those_of_authface(load: Load) -> None:
    module = sys.modules[type(load(BUILTIN)).__module__]
    names = set(Preset.model_fields)
    assert {field.name for field in dataclasses.fields(module.Preset)} == names
    for name, preset in PRESETS.items():
        assert dataclasses.asdict(module.PRESETS[name]) == preset.model_dump()


def test_what_cannot_be_restored_is_said(load: Load) -> None:
    pipe = load(BUILTIN)
    image = pipe(Image.fromarray(FACE)).images[0]
    assert isinstance(image, Image.Image) and image.size == (200, 200)
    for given, said in (
        ({"image": FACE[:50]}, "aligned faces are"),
        ({"image": FACE, "preset": "best"}, "there are quality"),
        ({"image": FACE, "speed": 3}, "speed: there are"),
        ({"image": [FACE, FACE], "seed": [1]}, "1 seeds for 2 images"),
    ):
        with pytest.raises(ValueError, match=said):
            pipe(**given)
