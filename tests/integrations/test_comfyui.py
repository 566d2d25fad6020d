"""The node pack, loaded as ComfyUI loads one: from its folder, under a name made of its path, through its mappings."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from packaging.version import Version
from skimage import data

from authface import Restorer, __version__
from authface.restore.api import Comparer

PACK = Path(__file__).parents[2] / "integrations" / "comfyui"
ASTRONAUT = data.astronaut()
BLURRED = np.asarray(ASTRONAUT[::2, ::2].repeat(2, 0).repeat(2, 1))
OFF = {"min_identity": 0.0, "device": "cpu"}


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    folder = tmp_path_factory.mktemp("custom_nodes") / "authface.nodes"
    shutil.copytree(PACK, folder, ignore=shutil.ignore_patterns("__pycache__"))
    name = str(folder).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[name]


def images(*pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures).astype(np.float32) / 255)


def run(pack: ModuleType, name: str, **inputs: Any) -> tuple[Any, ...]:
    """As ComfyUI calls a node: a new object, inputs by name, those that are not linked with their defaults."""
    kind = pack.NODE_CLASS_MAPPINGS[name]
    node, asked = kind(), kind.INPUT_TYPES()
    given = {key: told[1]["default"] for key, told in asked["required"].items() if len(told) > 1} | inputs
    assert set(given) <= set(asked["required"]) | set(asked.get("optional", {}))
    if hasattr(kind, "VALIDATE_INPUTS"):
        typed = {key: value for key, value in given.items() if key in {"model", "faces"}}
        assert kind.VALIDATE_INPUTS(**typed) is True
    made: tuple[Any, ...] = getattr(node, kind.FUNCTION)(**given)
    kinds = {"IMAGE": (torch.Tensor, 4), "MASK": (torch.Tensor, 3), "INT": (int, 0), "FLOAT": (float, 0)}
    for value, told in zip(made, kind.RETURN_TYPES, strict=True):
        type_, sides = kinds.get(told, (str, 0))
        assert isinstance(value, type_)
        if isinstance(value, torch.Tensor):
            assert value.ndim == sides and value.dtype == torch.float32 and 0 <= value.min() <= value.max() <= 1
    return made


def test_comfyui_finds_three_nodes_with_all_it_asks_of_one(pack: ModuleType) -> None:
    assert set(pack.NODE_CLASS_MAPPINGS) == set(pack.NODE_DISPLAY_NAME_MAPPINGS)
    assert len(pack.NODE_CLASS_MAPPINGS) == 3
    for kind in pack.NODE_CLASS_MAPPINGS.values():
        assert callable(getattr(kind, kind.FUNCTION)) and kind.CATEGORY == "image/authface"
        assert len(kind.RETURN_TYPES) == len(kind.RETURN_NAMES) == len(kind.OUTPUT_TOOLTIPS)
        for told in kind.INPUT_TYPES()["required"].values():
            assert isinstance(told, tuple) and isinstance(told[0], str | list)


def test_what_is_restored_is_what_restorer_gives_and_all_else_stays(pack: ModuleType) -> None:
    batch = images(BLURRED, BLURRED[:, ::-1])
    made, changed, report = run(pack, "AuthFaceRestore", images=batch, **OFF)
    with Restorer("tiny", device="cpu") as restorer:
        alone = [restorer.restore(np.ascontiguousarray(picture)).image for picture in (BLURRED, BLURRED[:, ::-1])]
    assert torch.equal(made, images(*alone))
    assert torch.equal(made[changed == 0], batch[changed == 0]) and 0.01 < changed.mean() < 0.5
    lines = [json.loads(line) for line in report.splitlines()]
    assert [(line["image"], line["status"]) for line in lines] == [(0, "restored"), (1, "restored")]


def test_more_than_8_bits_and_further_channels_are_kept_out_of_the_way(pack: ModuleType) -> None:
    fine = images(BLURRED) * 0.9 + 0.0007
    made, changed, _ = run(pack, "AuthFaceRestore", images=torch.cat([fine, torch.ones(1, 512, 512, 1)], 3), **OFF)
    assert made.shape == (1, 512, 512, 3) and torch.equal(made[changed == 0], fine[changed == 0])
    larger, mask, _ = run(pack, "AuthFaceRestore", images=fine, upscale=2, **OFF)
    assert larger.shape == (1, 1024, 1024, 3) and mask.shape == (1, 1024, 1024)


def test_the_model_stays_and_another_seed_or_setting_does_not_load_it_again(
    pack: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(pack, "AuthFaceRestore", images=images(BLURRED), **OFF)
    held = pack._held._restorer._shared
    run(pack, "AuthFaceRestore", images=images(BLURRED), seed=9, fidelity=0.9, **OFF)
    assert pack._held._restorer._shared is held and pack._held._restorer.seed == 9
    run(pack, "AuthFaceRestore", images=images(BLURRED), model="identity", **OFF)
    assert pack._held._restorer._shared is not held and not held.loaded


def test_a_mask_chooses_faces(pack: ModuleType) -> None:
    batch = images(BLURRED)
    crops, mask, boxes, count, report = run(pack, "AuthFaceFind", images=batch)
    assert count == 1 and crops.shape == (1, 512, 512, 3) and boxes.shape == batch.shape
    (line,) = (json.loads(one) for one in report.splitlines())
    x0, y0, x1, y1 = line["box"]
    assert line["chosen"] and mask[0, int((y0 + y1) / 2), int((x0 + x1) / 2)] == 1 and 0.01 < mask.mean() < 0.2
    chosen, _, _ = run(pack, "AuthFaceRestore", images=batch, mask=mask, **OFF)
    every, _, _ = run(pack, "AuthFaceRestore", images=batch, **OFF)
    none, changed, told = run(pack, "AuthFaceRestore", images=batch, mask=torch.zeros(64, 64), **OFF)
    assert torch.equal(chosen, every) and torch.equal(none, batch) and not changed.any()
    assert json.loads(told)["reason"] == "not_chosen"


def test_of_the_faces_that_a_mask_covers_the_rule_chooses(pack: ModuleType) -> None:
    face = BLURRED[:256, 100:356]
    three = images(np.hstack([face, np.pad(face[::2, ::2], ((64, 64), (64, 64), (0, 0))), face]))
    mask = torch.ones(1, 256, 768)
    mask[..., :256] = 0  # the largest or as large as it

    def restored(rule: str) -> list[float]:
        _, _, report = run(pack, "AuthFaceRestore", images=three, faces=rule, mask=mask, **OFF)
        lines = [json.loads(line) for line in report.splitlines()]
        return sorted(line["box"][0] // 256 for line in lines if line["status"] == "restored")

    assert (restored("all"), restored("largest")) == ([1, 2], [2])
    assert (restored("256,0,256,256"), restored("0,0,256,256"), restored("1+256,0,256,256")) == ([1], [], [1, 2])


def test_a_region_in_the_mask_marks_a_missed_face(pack: ModuleType) -> None:
    noise = images(np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8))
    rule, mask = "64,64,96,96", torch.ones(1, 256, 256)
    _, _, marked = run(pack, "AuthFaceRestore", images=noise, faces=rule, mask=mask, **OFF)
    _, _, outside = run(pack, "AuthFaceRestore", images=noise, faces=rule, mask=1 - mask, **OFF)
    assert json.loads(marked)["status"] == "restored" and json.loads(outside)["reason"] == "not_chosen"


def test_no_face_is_no_error(pack: ModuleType) -> None:
    empty = torch.full((2, 80, 120, 3), 0.5)
    crops, mask, _, count, report = run(pack, "AuthFaceFind", images=empty)
    assert (count, report) == (0, "") and crops.shape == (1, 512, 512, 3) and not crops.any() and not mask.any()
    made, changed, _ = run(pack, "AuthFaceRestore", images=empty, **OFF)
    assert torch.equal(made, empty) and not changed.any()
    _, identity, report = run(pack, "AuthFaceCompare", before=empty, after=empty)
    assert (identity, report) == (0.0, "")


def test_comparing_says_who_changed(pack: ModuleType) -> None:
    same, identity, _ = run(pack, "AuthFaceCompare", before=images(BLURRED), after=images(BLURRED))
    assert identity == 1.0 and same.shape[1] > 512, "the scale is below the picture"
    other = BLURRED.copy()
    other[60:180, 170:270] = other[60:180, 170:270][:, ::-1]
    _, identity, report = run(pack, "AuthFaceCompare", before=images(BLURRED), after=images(other))
    (line,) = (json.loads(one) for one in report.splitlines())
    assert identity == line["identity"] < 0.995 and line["landmark_shift"] > 0
    _, larger, _ = run(pack, "AuthFaceCompare", before=images(BLURRED), after=images(BLURRED.repeat(2, 0).repeat(2, 1)))
    assert larger > 0.999
    wrong = ((images(BLURRED[:-5]), "not versions of one photo"), (images(BLURRED, BLURRED), "as many of both"))
    for after, said in wrong:
        with pytest.raises(Exception, match=said):
            run(pack, "AuthFaceCompare", before=images(BLURRED), after=after)


def test_the_comparer_measures_as_the_guard_does() -> None:
    with Restorer("tiny", device="cpu") as restorer:
        result = restorer.restore(BLURRED)
    told = Comparer().compare(BLURRED, result.image)
    (face,) = told.faces
    assert face.drift.identity == pytest.approx(result.faces[0].identity, abs=0.01) and told.identity is not None


def test_comfyuis_bar_moves_and_cancel_ends_the_work(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []

    class Bar:
        def __init__(self, total: int) -> None:
            self.total = total

        def update_absolute(self, value: int) -> None:
            assert value <= self.total
            told.append(value)

    class Interrupted(Exception):
        pass

    def check() -> None:
        if len(told) >= 2:
            raise Interrupted

    for name in ("comfy", "comfy.utils", "comfy.model_management"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules["comfy.utils"], "ProgressBar", Bar, raising=False)
    management = sys.modules["comfy.model_management"]
    monkeypatch.setattr(management, "throw_exception_if_processing_interrupted", check, raising=False)
    with pytest.raises(Interrupted):
        run(pack, "AuthFaceRestore", images=images(BLURRED, BLURRED, BLURRED), **OFF)
    assert told == [0, 100]


def test_what_is_typed_wrong_is_said_before_anything_runs(pack: ModuleType) -> None:
    kind = pack.NODE_CLASS_MAPPINGS["AuthFaceRestore"]
    assert "no model 'nobody'" in kind.VALIDATE_INPUTS(model="nobody", faces="all")
    assert "a region" in kind.VALIDATE_INPUTS(model="tiny", faces="the left one")


def test_the_registry_can_read_the_pack() -> None:
    told = tomllib.loads((PACK / "pyproject.toml").read_text("utf-8"))
    project, comfy = told["project"], told["tool"]["comfy"]
    assert project["name"] == "authface" and project["version"] == __version__ and set(project["license"]) == {"text"}
    assert {"PublisherId", "DisplayName", "Icon"} <= set(comfy) and "Repository" in project["urls"]
    lines = (PACK / "requirements.txt").read_text("utf-8").split("\n")
    (needed,) = [Requirement(line) for line in lines if line]
    assert [str(needed)] == project["dependencies"] and needed.specifier.contains(Version(__version__))
