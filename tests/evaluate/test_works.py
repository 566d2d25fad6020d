"""What is measured of a face: where it is moved, blurred or not there.

Metrics that are networks: the real classes with random weights, and what is said where weights are missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from authface.errors import AuthfaceError, ImageError
from authface.evaluate.catalogue import BY_NAME, FILES, MetricWeights
from authface.evaluate.images import Pair
from authface.evaluate.works import FaceGauge, LearnedWork, LoadedOutput, OutputJob, landmark_error
from authface.faces.degrade import PRESETS, degrade
from authface.metrics.quality import Inception, Moments, basicsr_input, clean_input, reference_statistics, to_batch

Rgb = NDArray[np.uint8]


def test_a_face_moved_and_a_face_blurred(portrait: Rgb) -> None:
    gauge = FaceGauge(0.5)
    found = gauge.find("truth", portrait)
    assert gauge.landmarks(portrait, found) == (0, 0)
    assert gauge.identity(portrait, portrait, "truth", found.points) == pytest.approx(1, abs=1e-6)
    percent, pixels = gauge.landmarks(np.roll(portrait, 4, axis=1), found)
    assert 1.5 < pixels < 6, "all features are 4 px away; the box of the truth stays where it was"
    eyes = np.linalg.norm(found.points[45] - found.points[36])
    assert percent == pytest.approx(100 * pixels / eyes)
    mild, heavy = (
        gauge.identity(degrade(portrait, 5, PRESETS[name]), portrait, "truth", found.points)
        for name in ("mild", "heavy")
    )
    assert 0.8 < heavy < mild < 1
    assert gauge.identity(degrade(portrait, 5, PRESETS["heavy"]), portrait, "not asked yet", found.points) == heavy
    assert gauge.landmarks(np.full_like(portrait, 127), found)[0] > 5, "no face is looked for in an output"


def test_no_face_is_said_and_the_last_references_are_remembered(portrait: Rgb) -> None:
    gauge = FaceGauge(0.5)
    with pytest.raises(ImageError, match="no face"):
        gauge.find("grey", np.full_like(portrait, 128))
    first = gauge.find("0", portrait)
    assert gauge.find("0", portrait) is first
    for number in range(1, 20):
        gauge.find(str(number), portrait)
    assert len(gauge._found) == 8 and gauge.find("0", portrait) is not first


def test_the_landmark_error_is_300ws() -> None:
    truth = np.zeros((68, 2))
    truth[45] = (40, 30)
    assert landmark_error(truth + [3, 4], truth) == (pytest.approx(10), pytest.approx(5))
    with pytest.raises(ImageError, match="one point"):
        landmark_error(truth, np.zeros((68, 2)))


Command = Callable[..., tuple[int, str, str]]


def value_of(name: str, output: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """What the step that measures this metric says of an output and its truth."""
    import torch

    work = LearnedWork(BY_NAME[name], torch.device("cpu"))
    work.open()
    job = OutputJob(Pair("method", "face", Path()), {}, (name,))
    (result,) = work.step([LoadedOutput(job, output, truth, None)])
    return result.values[name]


@pytest.mark.parametrize("name", ["lpips", "lpips_raw01", "piqe"])
def test_values_are_pyiqas_own(
    name: str, hub: Path, portrait: NDArray[np.uint8], capfd: pytest.CaptureFixture[str]
) -> None:
    import pyiqa
    import torch

    cpu, output = torch.device("cpu"), np.roll(portrait, 9, axis=1)
    value = value_of(name, output, portrait)
    assert capfd.readouterr() == ("", ""), "nothing of what the libraries print"
    theirs = pyiqa.create_metric(BY_NAME[name].pyiqa, device="cpu")
    images = [to_batch([output], cpu), to_batch([portrait], cpu)][: 1 if name == "piqe" else 2]
    raw = {"normalize": False} if name == "lpips_raw01" else {}
    assert value == pytest.approx(theirs(*images, **raw).item(), abs=1e-6) and value > 0
    if name == "lpips_raw01":
        assert value != pytest.approx(theirs(*images).item(), rel=1e-3)
    else:
        assert name == "piqe" or value_of(name, portrait, portrait) == 0


def test_niqe_reads_its_file_where_it_is_placed(empty_hub: Path, portrait: NDArray[np.uint8]) -> None:
    """The file that `weights` names is the one that pyiqa opens: other statistics, another value."""
    from scipy.io import savemat

    seen = []
    for mean in (0.0, 2.0):
        (file,) = (empty_hub / relative for relative in FILES["niqe"])
        file.parent.mkdir(exist_ok=True)
        savemat(file, {"mu_prisparam": np.full((1, 36), mean), "cov_prisparam": np.eye(36)})
        assert MetricWeights(lambda _: None).ensure("niqe") == {file.name: file}
        seen.append(value_of("niqe", np.tile(portrait, (3, 3, 1)), portrait))
    assert seen[1] > seen[0] > 0


def test_features_are_clean_fids_and_basicsrs(hub: Path, faces: Path) -> None:
    import torch
    from pyiqa.archs.fid_arch import ResizeDataset, get_folder_features
    from pyiqa.archs.inception import InceptionV3
    from torch.nn import functional

    from authface.imaging.decode import read

    paths, cpu = sorted(faces.iterdir())[:3], torch.device("cpu")
    images = [read(path).rgb for path in paths]
    dataset = ResizeDataset(paths, mode="clean", size=(299, 299))
    for n, image in enumerate(images):
        assert torch.equal(clean_input(image)[0], (dataset[n] - 128) / 128)
    for path in sorted(faces.iterdir())[3:]:
        path.unlink()
    network = InceptionV3(output_blocks=[3]).eval()
    theirs = get_folder_features(str(faces), network, num_workers=0, device=cpu, mode="clean", verbose=False)
    ours = Inception("fid_ffhq_clean", cpu)(images)
    assert ours.shape == (3, 2048) and np.allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    image = torch.from_numpy(images[0].transpose(2, 0, 1).copy())[None].float() / 255
    seen = functional.interpolate((image - 0.5) / 0.5, size=(299, 299), mode="bilinear", align_corners=False)
    assert torch.equal(basicsr_input(images[0]), seen)
    with torch.inference_mode():
        expected = network((image - 0.5) / 0.5, True, False)[0].reshape(1, -1).numpy()
    assert np.allclose(Inception("fid_ffhq_basicsr", cpu)(images[:1]), expected, rtol=1e-4, atol=1e-5)
    assert theirs.max() > 0.1 and not np.allclose(expected, theirs[:1], rtol=0.01)


def test_fid_of_a_set_and_what_is_missing(hub: Path, authface: Command, faces: Path, tmp_path: Path) -> None:
    """Against the statistics of the set itself, in BasicSR's file format, with one mean moved by 3, it is 9."""
    import torch

    from authface.imaging.decode import read

    moments = Moments(2048)
    moments.add(
        Inception("fid_ffhq_basicsr", torch.device("cpu"))([read(path).rgb for path in sorted(faces.iterdir())])
    )
    stats = tmp_path / "stats.pth"
    torch.save(
        {"name": "FFHQ", "size": 512, "mean": moments.mean + 3 * (np.arange(2048) == 5), "cov": moments.covariance},
        stats,
    )
    words = ["restoration", "--outputs", faces, "-o", tmp_path / "r", "--metrics", "fid_ffhq_basicsr,fid_ffhq_clean"]
    words += ["-O", f"evaluate.restoration.ffhq_stats={stats}", "--json"]
    code, said, log = authface(*words)
    found = json.loads(said)
    value = found["sets"]["faces"]["fid_ffhq_basicsr"]
    assert code == 0 and value["count"] == 6 and value["value"] == pytest.approx(9, rel=1e-4)
    assert "ffhq_clean_trainval70k_512.npz" in found["unmeasured"]["fid_ffhq_clean"]
    assert log.count("is not measured") == 1 and "stats.pth" in found["protocol"]["weights"]
    again = json.loads(authface(*words)[1])
    assert again["sets"] == found["sets"] and again["read_again"] == 1


def test_missing_weights_are_a_line_each_and_the_rest_is_measured(
    empty_hub: Path, authface: Command, faces: Path, tmp_path: Path
) -> None:
    code, said, log = authface("restoration", "--outputs", faces, "--truth", faces, "-o", tmp_path / "r", "--json")
    found = json.loads(said)
    assert code == 0 and set(found["means"]["faces"]) >= {"psnr", "ssim_y", "identity", "landmarks", "piqe"}
    missing = {"lpips", "lpips_raw01", "musiq", "clipiqa", "maniqa", "fid_ffhq_basicsr", "fid_ffhq_clean"}
    assert set(found["unmeasured"]) == missing
    lines = [line for line in log.splitlines() if "is not measured" in line]
    assert len(lines) == len(missing)
    (lpips,) = [line for line in lines if line.startswith("lpips is")]
    assert "alexnet-owt-7be5be79.pth in " + str(empty_hub / "checkpoints") in lpips
    assert "LPIPS_v0.1_alex-df73285e.pth in " + str(empty_hub / "pyiqa") in lpips
    assert all(line in (tmp_path / "r/restoration.html").read_text() for line in ["ckpt_koniq10k.pt", "RN50.pt"][1:])


def test_a_server_out_of_reach_is_tried_once(empty_hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []

    def unreachable(url: str, *_: Any, **__: Any) -> None:
        tried.append(url)
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    weights = MetricWeights(lambda _: None)
    for name in ("musiq", "lpips"):
        with pytest.raises(AuthfaceError, match="OSError: no route"):
            weights.ensure(name)
    assert len(tried) == 1


def test_a_broken_file_is_one_line(empty_hub: Path) -> None:
    import torch

    for relative in FILES["lpips"]:
        (empty_hub / relative).parent.mkdir(exist_ok=True)
        (empty_hub / relative).write_bytes(b"cut")
    with pytest.raises(AuthfaceError, match=r"^lpips is not measured: its weights cannot be loaded"):
        LearnedWork(BY_NAME["lpips"], torch.device("cpu")).open()
    (empty_hub / "stats.pth").write_bytes(b"cut")
    with pytest.raises(AuthfaceError, match=r"stats\.pth holds no statistics"):
        reference_statistics("fid_ffhq_basicsr", empty_hub / "stats.pth")
    torch.save({"mean": np.zeros(7), "cov": np.zeros((7, 7))}, empty_hub / "stats.pth")
    with pytest.raises(AuthfaceError, match="2048 features are needed"):
        reference_statistics("fid_ffhq_basicsr", empty_hub / "stats.pth")
