"""Exported graphs restore what torch restores, within one level of 255, and without it."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from authface import Restorer
from authface.errors import AuthfaceError, UsageError
from authface.models import graphs
from authface.models.cleaner import high_pass, make_cleaner, with_noise
from authface.models.export import export
from authface.models.families import resolve
from authface.models.graphs import Export, FaceNoise, read_export
from authface.models.layout import ONNX, FileFacts, WeightsManifest, read_manifest
from authface.models.verify import verify
from authface.restore.model import onnx
from authface.restore.model.crops import CleanedRestorer
from authface.restore.model.onnx import LoadedGraphs, OnnxDiffusion, choose
from authface.restore.model.restorer import CropRestorer, find_weights, load_restorer
from authface.restore.settings import RestoreSettings

SEEDS = [11, 2**62 + 5]
PRESETS = """[quality]
scheduler = "dpm++"
steps = 3
strength = 0.5
guidance = 2
prompt = "a face"
negative_prompt = "blur"
samples = 2
levels = 3
share = 0.1
perception = 0.5
mirrored = true
"""


@pytest.fixture(scope="session")
def exported(family: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small family with a cleaner that changes every pixel, presets of its own, and their graphs."""
    folder = Path(shutil.copytree(family, tmp_path_factory.mktemp("exported") / "family"))
    net = with_noise(make_cleaner(3, (16, 16)))
    torch.nn.init.normal_(net.conv_in.weight[:, 12:], std=0.1, generator=torch.Generator().manual_seed(4))
    torch.nn.init.normal_(net.conv_out.weight, std=0.02, generator=torch.Generator().manual_seed(3))
    net.save_pretrained(folder / "cleaner")
    (folder / "presets.toml").write_text(PRESETS)
    (folder / "weights.json").write_text(WeightsManifest("float32").text())
    export(resolve(str(folder)), folder, "quality", lambda *_, **__: None)
    (folder / "weights.json").rename(folder.parent / "weights.json")  # as told of onnx/ alone
    return folder


def settings(folder: Path, **changed: Any) -> RestoreSettings:
    return RestoreSettings(**({"model": str(folder)} | changed))


def load(folder: Path, **changed: Any) -> CropRestorer:
    chosen = settings(folder, **changed)
    return load_restorer(find_weights(chosen.model), chosen, "cpu")


def face(side: int) -> np.ndarray:
    return np.asarray(cv2.resize(data.astronaut()[20:220, 130:330], (side, side), interpolation=cv2.INTER_AREA))


def apart(a: Any, b: Any) -> int:
    return max(int(np.abs(one.astype(int) - other).max()) for one, other in zip(a, b, strict=True))


def test_graphs_restore_what_torch_restores(exported: Path) -> None:
    """Faces of the model's size, odd ones, and such as are cleaned in tiles; the prior's detail, and none."""
    pair = [load(exported, engine=engine) for engine in ("onnxruntime", "torch")]
    assert [getattr(one, "engine", "") for one in pair] == ["onnxruntime", "torch"]
    crops, seeds = [face(64), face(151), face(1031)], [*SEEDS, 3]
    for fidelity in (0.0, 0.5, 1.0):
        made, expected = (one.restore(crops, seeds, fidelity) for one in pair)
        assert apart(made, expected) <= 1 and [one.shape for one in made] == [one.shape for one in crops]
    assert apart(pair[0].restore(crops[:1], [7], 0.0), pair[0].restore(crops[:1], [8], 0.0)) > 3


def test_a_family_without_a_cleaner_too(exported: Path, tmp_path: Path) -> None:
    """Means of several samples, tones and a share of the input included, at every fidelity from a half on."""
    plain = Path(shutil.copytree(exported, tmp_path / "plain", ignore=shutil.ignore_patterns("cleaner", ONNX)))
    told = read_export(exported)
    assert told is not None
    by_graphs = LoadedGraphs(exported, told.model_copy(update={"multiple": 0}), "cpu").restorer(settings(exported))
    assert isinstance(by_graphs, OnnxDiffusion)
    by_torch, crops = load(plain), [face(64), face(64)[::-1].copy()]
    for fidelity in (0.5, 0.8):
        made, expected = (one.restore(crops, SEEDS, fidelity) for one in (by_graphs, by_torch))
        assert apart(made, expected) <= 1 and apart(made, crops) > 3
    asked = onnx.unsupported(by_graphs._graphs.export, settings(exported, fidelity=0.3), exported)
    assert asked == "restore.fidelity=0.3 needs another first step than onnx/ was exported for"


def test_a_fidelity_of_1_opens_the_cleaner_alone(exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "family"))
    for name in ("encoder", "denoiser", "decoder"):
        file = folder / ONNX / f"{name}.onnx"
        file.write_bytes(bytes(file.stat().st_size))
    model = load(folder, engine="onnxruntime", fidelity=1.0)
    assert (
        apart(model.restore([face(64)], [1]), load(folder, engine="torch", fidelity=1.0).restore([face(64)], [1])) <= 1
    )
    with pytest.raises(AuthfaceError, match=r"not those of \w+ that came with it: authface models export") as error:
        model.restore([face(64)], [1], fidelity=0.0)
    assert "\n" not in str(error.value)


def test_high_passes_are_one() -> None:
    image = np.random.default_rng(0).normal(0, 1, (40, 33, 3)).astype(np.float32)
    by_torch = high_pass(torch.from_numpy(image.transpose(2, 0, 1)[None].copy()))[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(graphs.high_pass(image), by_torch, atol=1e-5)


def test_noise_is_standard_normal_and_its_seeds_own() -> None:
    first, again, other = (FaceNoise(seed) for seed in (5, 5, 6))
    drawn = first.normal((4, 101, 101))
    assert drawn.dtype == np.float32 and drawn.shape == (4, 101, 101)
    assert abs(drawn.mean()) < 0.02 and abs(drawn.std() - 1) < 0.02 and abs((drawn**4).mean() - 3) < 0.15
    np.testing.assert_array_equal(again.normal((4, 101, 101)), drawn)
    assert not np.array_equal(first.normal((4, 101, 101)), drawn)
    assert not np.array_equal(other.normal((4, 101, 101)), drawn)
    # A seed's noise must not change from release to release: results are done again where their settings do.
    np.testing.assert_allclose(FaceNoise(2**62 + 5).normal((3,)), NOISE, rtol=1e-6)


NOISE = [0.21979008615016937, -0.1758173257112503, 0.0861179307103157]


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"steps": 4}, "restore.steps=4: onnx/ was exported for 3"),
        ({"prompt": "an old face"}, "restore.prompt='an old face': onnx/ was exported for 'a face'"),
        ({"guidance": 3.0}, "restore.guidance=3.0"),
        ({"preset": "fast"}, "restore.scheduler='unipc'"),
        ({"preset": "official"}, "official needs torch"),
        ({"size": 128}, "restore.size=128: onnx/ was exported for 64"),
        ({"dtype": "bfloat16"}, "restore.dtype=bfloat16"),
        ({"tiling": 128}, "restore.tiling needs torch"),
        ({"compile": True}, "restore.compile needs torch"),
    ],
)
def test_what_graphs_do_not_do_torch_does(exported: Path, changed: dict[str, Any], problem: str) -> None:
    assert choose(exported, settings(exported, **changed), "cpu") is None
    with pytest.raises(UsageError) as error:
        choose(exported, settings(exported, engine="onnxruntime", **changed), "cpu")
    assert problem in str(error.value)


def test_which_engine_runs(exported: Path, family: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def runs(folder: Path, device: str, **changed: Any) -> bool:
        return choose(folder, settings(folder, **changed), device) is not None

    assert runs(exported, "cpu") and not runs(exported, "cpu", engine="torch") and not runs(family, "cpu")
    assert runs(exported, "cpu", size=64, fidelity=1.0) and runs(exported, "cpu", steps=9, fidelity=1.0)
    assert not runs(exported, "cuda") and not runs(exported, "mps")
    monkeypatch.setattr(onnx, "_may_have_gpu", lambda: True)
    assert not runs(exported, "auto") and runs(exported, "auto", engine="onnxruntime")
    monkeypatch.setattr(onnx, "_may_have_gpu", lambda: False)
    assert runs(exported, "auto")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert runs(exported, "auto") and runs(exported, "cuda")
    for folder, changed in ((family, {}), (exported, {"steps": 9})):
        with pytest.raises(UsageError, match="pip install"):
            runs(folder, "cpu", **changed)


def test_graphs_of_other_weights_are_left_alone(
    exported: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "family"))
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-4:] = b"\0\0\0\0"
    weights.write_bytes(changed)
    with caplog.at_level(logging.WARNING, "authface"):
        assert choose(folder, settings(folder), "cpu") is None
    assert "was exported from other weights: authface models export" in caplog.text
    with pytest.raises(UsageError, match="other weights"):
        choose(folder, settings(folder, engine="onnxruntime"), "cpu")
    assert "other weights" in verify(str(folder), lambda *_, **__: None).to_text()


def test_verify_sees_what_became_of_a_graph(exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "family"))
    assert verify(str(folder), lambda *_, **__: None).faults == {}
    file = folder / ONNX / "decoder.onnx"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert list(verify(str(folder), lambda *_, **__: None).faults) == ["onnx/decoder.onnx"]
    file.unlink()
    with pytest.raises(AuthfaceError, match=r"decoder\.onnx is no file, and export\.json names it: authface models"):
        read_export(folder)
    file.write_bytes(b"cut")
    with pytest.raises(AuthfaceError, match=r"has 3 bytes, [\d,]+ were exported: authface models export"):
        read_export(folder)
    (folder / ONNX / "export.json").write_text("{}")
    with pytest.raises(AuthfaceError, match="is broken"):
        read_export(folder)


def test_an_export_is_told_to_the_manifest_and_names_no_place_of_this_machine(exported: Path) -> None:
    manifest, told = read_manifest(exported.parent), read_export(exported)
    assert manifest is not None and isinstance(told, Export)
    assert set(manifest.files) == {f"onnx/{name}" for name in (*told.files, "export.json")}
    assert manifest.files["onnx/cleaner.onnx"] == told.files["cleaner.onnx"] != FileFacts("", 0)
    for path in (exported / ONNX).iterdir():
        assert b"site-packages" not in path.read_bytes() and str(exported).encode() not in path.read_bytes()


def test_the_command_restores_without_torch(
    exported: Path, tmp_path: Path, lines: Callable[[Path], list[dict[str, object]]]
) -> None:
    """In an installation without torch, diffusers and what else training needs."""
    Image.fromarray(data.astronaut()[:300, 60:400]).save(tmp_path / "photo.png")
    absent = ("torch", "torchvision", "diffusers", "transformers", "accelerate", "datasets", "pyiqa", "facexlib")
    code = f"import sys; sys.modules.update(dict.fromkeys({absent}))\nfrom authface.cli import main\nmain()"
    words = ["restore", "photo.png", "-o", "out", "--model", str(exported), "--json"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["restored"] == 1 and told["engine"] == "onnxruntime"
    assert lines(tmp_path / "out")[0]["engine"] == "onnxruntime"
    before, after = (np.asarray(Image.open(tmp_path / name)).astype(int) for name in ("photo.png", "out/photo.png"))
    assert np.abs(before - after).max() > 10
    words += ["-O", "restore.steps=9", "--overwrite"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "restore.steps=9: onnx/ was exported for 3" in done.stderr
    assert "pip install" in done.stderr and "Traceback" not in done.stderr


def steps_of(folder: Path, crops: list[np.ndarray], engine: str) -> list[tuple[int, int]]:
    """What `progress` is told."""
    told: list[tuple[int, int]] = []
    with Restorer(str(folder), device="cpu", guard=False, engine=engine) as restorer:
        restorer.restore_aligned(crops, progress=lambda done, total: told.append((done, total)))
        assert isinstance(restorer._session.restorer, CleanedRestorer) and restorer.device_name == "cpu"
    return told


def test_progress_counts_the_steps(exported: Path) -> None:
    """A face is cleaned twice, once mirrored, and denoised in three steps; another one likewise."""
    crops = [face(150), face(64)]
    assert steps_of(exported, crops, "onnxruntime") == [(i, 10) for i in range(1, 11)]


@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_each_pass_of_a_cleaner_alone_may_end_the_work(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """The larger face takes four tiles, which are cleaned twice, once mirrored."""
    for name, value in {"WHOLE": 100, "TILE": 96, "OVERLAP": 32, "GRID": 16}.items():
        monkeypatch.setattr(graphs, name, value)
    folder = Path(shutil.copytree(exported, tmp_path / "lean"))
    (folder / "presets.toml").write_text(PRESETS.replace("perception", "detail = 0\nperception"))
    assert steps_of(folder, [face(150), face(64)], engine) == [(i, 10) for i in range(1, 11)]
    told: list[int] = []

    def enough(done: int, total: int) -> None:
        told.append(done)
        raise InterruptedError("enough")

    with Restorer(str(folder), device="cpu", guard=False, engine=engine) as restorer:
        with pytest.raises(InterruptedError):
            restorer.restore_aligned([face(150)], progress=enough)
        assert told == [1]
        assert restorer.restore_aligned([face(64)])[0].restored == 1


def test_where_no_detail_is_added_the_cleaner_is_all_that_is_exported(exported: Path, tmp_path: Path) -> None:
    """It restores alone; a preset that adds detail is not for it."""
    folder = Path(shutil.copytree(exported, tmp_path / "lean", ignore=shutil.ignore_patterns(ONNX)))
    lean = PRESETS.replace("perception", "detail = 0\nperception")
    (folder / "presets.toml").write_text(lean + lean.replace("quality", "fast").replace("detail = 0", "detail = 1"))
    told = export(resolve(str(folder)), folder, "quality", lambda *_, **__: None)
    assert set(told.files) == {"cleaner.onnx"}
    pair = [load(folder, engine=engine) for engine in ("onnxruntime", "torch")]
    made, expected = (one.restore([face(150)], SEEDS[:1], 0.0) for one in pair)
    assert apart(made, expected) <= 1 and apart(made, [face(150)]) > 3
    with pytest.raises(UsageError, match="preset fast adds detail, and onnx/ has the cleaner alone"):
        load(folder, engine="onnxruntime", preset="fast")
    assert getattr(load(folder, preset="fast"), "engine", "") == "torch"
