"""Restorers of one network: ONNX graphs and state dicts, by name and by file, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image
from skimage import data

from authface import Restorer
from authface.errors import AuthfaceError, UsageError
from authface.files import sha256_of
from authface.models import networks
from authface.models.networks import NETWORKS, Network, Window
from authface.restore.model.network import feather, from_network, to_network
from authface.restore.model.restorer import CropRestorer, find_weights, load_restorer
from authface.restore.settings import RestoreSettings
from tests.restore.model import graphs

Command = Callable[..., tuple[int, str, str]]
Lines = Callable[[Path], list[dict[str, Any]]]
Crop = NDArray[np.uint8]
FACE = np.ascontiguousarray(data.astronaut()[0:256, 96:352])


def face(side: int) -> Crop:
    import cv2

    return np.asarray(cv2.resize(FACE, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def make(file: Path | str, **settings: object) -> CropRestorer:
    chosen = RestoreSettings(model=str(file), **settings)  # type: ignore[arg-type]
    return load_restorer(find_weights(chosen.model), chosen, "cpu")


def sharp(crop: Crop) -> Crop:
    """What `graphs.sharpening` makes of a crop, by torch."""
    seen = torch.from_numpy(to_network(crop))
    return from_network(
        torch.nn.functional.conv2d(seen, torch.from_numpy(graphs.sharpener()), padding=1, groups=3).numpy()
    )


# Values


def test_every_level_comes_back() -> None:
    crop = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    seen = to_network(crop)
    assert seen.min() == -1 and seen.max() == 1 and seen.shape == (1, 3, 16, 16)
    np.testing.assert_array_equal(from_network(seen), crop)
    np.testing.assert_array_equal(from_network(seen * 3)[seen[0].transpose(1, 2, 0) > 0.4], 255)


# Graphs


@pytest.mark.parametrize(("side", "count"), [(64, 1), (128, "n"), ("height", "n"), ("height", 1)])
def test_a_graph_restores_at_its_side(tmp_path: Path, side: int | str, count: int | str) -> None:
    restorer = make(graphs.sharpening(tmp_path / "a.onnx", side, count), fidelity=0)
    real = side if isinstance(side, int) else 512
    assert (restorer.side.least, restorer.side.own, restorer.colour) == (real, False, "wavelet")
    (made,) = restorer.restore([face(real)], [1])
    assert np.abs(made.astype(int) - sharp(face(real))).max() <= 1 and np.abs(made.astype(int) - face(real)).mean() > 3


def test_half_precision_goes_in_and_comes_out(tmp_path: Path) -> None:
    restorer = make(graphs.sharpening(tmp_path / "a.onnx", kind=TensorProto.FLOAT16), fidelity=0)
    (made,) = restorer.restore([face(64)], [1])
    assert np.abs(made.astype(int) - sharp(face(64))).max() <= 1


def test_by_default_the_result_is_the_networks_own(tmp_path: Path) -> None:
    """Above a fidelity of 0.5 the input has a share, up to all of it; below there is none to take away."""
    restorer = make(graphs.sharpening(tmp_path / "a.onnx"))
    crop, only = face(64), sharp(face(64)).astype(float)
    for fidelity, share in ((None, 0), (0.5, 0), (0.0, 0), (0.75, 0.5), (0.9, 0.8), (1.0, 1)):
        (made,) = restorer.restore([crop], [1], fidelity)
        assert np.abs(made - (share * crop + (1 - share) * only)).max() <= 1
    np.testing.assert_array_equal(made, crop)


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.FLOAT])
@pytest.mark.parametrize("shape", [(), (1,), ("n",)])
def test_a_weight_is_the_fidelity(tmp_path: Path, kind: int, shape: graphs.Shape) -> None:
    """It goes to the graph as it is, and nothing is mixed in besides."""
    restorer = make(graphs.weighted(tmp_path / "a.onnx", kind, shape), fidelity=0)
    crop, only = face(64), sharp(face(64)).astype(float)
    assert np.abs(restorer.restore([crop], [1])[0] - only).max() <= 1
    unclipped = crop[8:56, 8:56]
    np.testing.assert_allclose(restorer.restore([crop], [1], 1.0)[0][8:56, 8:56], unclipped, atol=1)


def test_what_a_graph_draws_depends_on_the_face_alone(tmp_path: Path) -> None:
    """Not on the order, the batch, or what was restored before; another seed gives other noise."""
    restorer = make(graphs.drawing(tmp_path / "a.onnx"), fidelity=0)
    one, other = restorer.restore([face(64), face(64)], [11, 2**62 + 7])
    again = restorer.restore([face(64), face(64)], [2**62 + 7, 11])
    np.testing.assert_array_equal(one, again[1])
    np.testing.assert_array_equal(other, again[0])
    np.testing.assert_array_equal(make(tmp_path / "a.onnx", fidelity=0).restore([face(64)], [11])[0], one)
    assert np.abs(one.astype(int) - other).mean() > 5


WRONG: dict[str, Callable[[Path], Path]] = {
    "two images": lambda file: graphs.save(
        file, [helper.make_node("Add", ["input", "mask"], ["output"])],
        [graphs.value("input", [1, 3, 64, 64]), graphs.value("mask", [1, 3, 64, 64])],
        [graphs.value("output", [1, 3, 64, 64])],
    ),
    "a mask": lambda file: graphs.save(
        file, [helper.make_node("Mul", ["input", "strength"], ["output"])],
        [graphs.value("input", [1, 3, 64, 64]), graphs.value("strength", [])], [graphs.value("output", [1, 3, 64, 64])],
    ),
    "grey": lambda file: _same(file, [1, 1, 64, 64]),
    "a batch": lambda file: _same(file, [4, 3, 64, 64]),
    "oblong": lambda file: _same(file, [1, 3, 64, 96]),
    "channels last": lambda file: _same(file, [1, 64, 64, 3]),
    "bytes": lambda file: _same(file, [1, 3, 64, 64], TensorProto.UINT8),
    "a vector": lambda file: graphs.save(
        file, [helper.make_node("GlobalAveragePool", ["input"], ["output"])],
        [graphs.value("input", [1, 3, 112, 112])], [graphs.value("output", [1, 3, 1, 1])],
    ),
    "nothing of a face": lambda file: _same(file, [1, 77]),
}  # fmt: skip


def _same(file: Path, shape: graphs.Shape, kind: int = TensorProto.FLOAT) -> Path:
    node = helper.make_node("Identity", ["input"], ["output"])
    return graphs.save(file, [node], [graphs.value("input", shape, kind)], [graphs.value("output", shape, kind)])


@pytest.mark.parametrize("name", WRONG)
def test_graphs_of_other_interfaces_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"takes one float image \(1, 3, side, side\)") as caught:
        make(WRONG[name](tmp_path / "a.onnx"))
    assert "\n" not in str(caught.value)


def test_a_graph_whose_result_is_of_another_size_after_all(tmp_path: Path) -> None:
    node = helper.make_node("MaxPool", ["input"], ["output"], kernel_shape=[2, 2], strides=[2, 2])
    names = [graphs.value("input", [1, 3, "h", "w"]), graphs.value("output", [1, 3, "a", "b"])]
    restorer = make(graphs.save(tmp_path / "a.onnx", [node], names[:1], names[1:]), fidelity=0)
    with pytest.raises(AuthfaceError, match=r"a.onnx made \(1, 3, 256, 256\) of a face of \(1, 3, 512, 512\)"):
        restorer.restore([face(512)], [1])


def test_a_network_that_makes_no_numbers(tmp_path: Path) -> None:
    node = helper.make_node("Sqrt", ["input"], ["output"])
    names = [graphs.value(name, [1, 3, 64, 64]) for name in ("input", "output")]
    restorer = make(graphs.save(tmp_path / "a.onnx", [node], names[:1], names[1:]), fidelity=0)
    with pytest.raises(AuthfaceError, match="gave NaN or infinite values"):
        restorer.restore([face(64)], [1])


@pytest.mark.parametrize("content", [b"", b"no graph at all", b"PK\x03\x04" + bytes(100)])
def test_a_file_that_is_no_graph(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(UsageError, match=r"a.onnx \(\d+ bytes\) is no ONNX network") as caught:
        make(tmp_path / "a.onnx")
    assert "\n" not in str(caught.value)


# Known files


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Network]:
    """Make a file a known network's."""
    monkeypatch.setenv(networks.FOLDER, str(tmp_path))

    def known(file: Path, **facts: Any) -> Network:
        size, digest = file.stat().st_size, sha256_of(file)
        network = Network("small", file.name, size, "MIT", "yes", (), digest, "us", **facts)
        monkeypatch.setitem(NETWORKS, "small", network)
        return network

    return known


def test_a_window_sees_its_square_of_the_crop(tmp_path: Path, known: Callable[..., Network]) -> None:
    """As gpen-256: by its name and by its file, wherever that lies; around the square the face stays as it was."""
    file = graphs.sharpening(tmp_path / "small.onnx")
    known(file, side=64, window=Window(80, 6, 11))
    crop = face(80)
    for name in ("small", str(file.rename(tmp_path / "moved.onnx"))):
        if name == "small":
            os.link(tmp_path / "moved.onnx", file)
        restorer = make(name, fidelity=0)
        assert restorer.side.least == 80
        (made,) = restorer.restore([crop], [1])
        inside = np.zeros((80, 80), bool)
        inside[11:75, 6:70] = True
        np.testing.assert_array_equal(made[~inside], crop[~inside])
        middle = np.s_[17:69, 12:64]
        assert np.abs(made[middle].astype(int) - sharp(crop[11:75, 6:70])[6:58, 6:58]).max() <= 1


def test_a_window_fades_at_its_edge() -> None:
    share = feather(256)
    assert share.max() == 1 and share[0].max() < 0.04 and (share[16:-16, 16:-16] == 1).all()
    np.testing.assert_array_equal(share, share.T)


def test_a_known_file_that_is_another_network(tmp_path: Path, known: Callable[..., Network]) -> None:
    """Its table says 512 px and a weight of its own."""
    known(graphs.sharpening(tmp_path / "small.onnx"), fidelity="weight")
    with pytest.raises(AuthfaceError, match="takes faces of 64 px: this is not small"):
        make("small")


def test_gpens_window_is_the_square_of_its_five_points() -> None:
    """The similarity that takes FFHQ's mean points to GPEN-256's, both over their crop's side (facefusion's)."""
    ffhq = np.array([[0.3769, 0.4686], [0.6229, 0.4691], [0.5012, 0.6133], [0.3931, 0.7254], [0.6115, 0.7249]])
    gpen = np.array([[0.3617, 0.4039], [0.6370, 0.4024], [0.5002, 0.5604], [0.3871, 0.7216], [0.6151, 0.7203]])
    one, other = ffhq @ [1, 1j], gpen @ [1, 1j]
    spread = one - one.mean()
    scale = spread.conj() @ (other - other.mean()) / (spread.conj() @ spread)
    shift = other.mean() - scale * one.mean()
    window = NETWORKS["gpen-256"].window
    assert window is not None
    expected = 256 * np.array([scale.real, -shift.real, -shift.imag])
    np.testing.assert_allclose([window.crop, window.left, window.top], expected, atol=0.5)
    assert abs(np.degrees(np.angle(scale))) < 0.1


# The command and Python


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(data.astronaut()[:300, 60:400].copy()).save(tmp_path / "a face.png")
    return tmp_path / "a face.png"


@pytest.mark.parametrize(
    "words",
    [
        ("-O", "restore.steps=8"), ("--preset", "official"), ("-O", "restore.prompt=sharp"), ("-O", "restore.size=256"),
        ("-O", "restore.dtype=float16"), ("-O", "restore.offload=model"), ("-O", "restore.compile=true"),
    ],
    ids=lambda words: words[-1],
)  # fmt: skip
def test_what_it_has_no_use_for_is_refused(authface: Command, photo: Path, words: tuple[str, str]) -> None:
    """Before anything is downloaded, with the setting's name."""
    code, _, err = authface(photo, "--model", "gfpgan", *words)
    name = words[1].partition("=")[0].removeprefix("restore.") if words[0] == "-O" else "preset"
    assert code == 2 and err.count("\n") == 1
    assert f"restore.{name}=" in err and "gfpgan has no use for it" in err


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("gfpgan", "gfpgan is not on this machine and HF_HUB_OFFLINE is set"),
        ("gfpgn", "one of tiny, sdxl, authface, identity, gfpgan, "),
        ("absent.onnx", "--model absent.onnx: no such file"),
    ],
)
def test_a_model_that_is_not_there(
    authface: Command, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, said: str
) -> None:
    monkeypatch.setenv(networks.FOLDER, str(tmp_path / "empty"))
    code, _, err = authface(photo, "--model", model)
    assert code and said in err and err.count("\n") == 1


def test_a_photo_by_a_file_of_ones_own(authface: Command, lines: Lines, photo: Path, tmp_path: Path) -> None:
    """The same line, page and guard as any model's; done again where the file's content is another."""
    file = graphs.sharpening(tmp_path / "mine.onnx", 256)
    code, out, err = authface(photo, "--model", file, "--fidelity", 0.2, "-o", tmp_path / "out")
    assert code == 0, err
    assert "1 face restored in 1 of 1 photos" in out and "identity: mean" in out
    (line,) = lines(tmp_path / "out")
    assert line["engine"] == "onnxruntime", "as of a family that runs there"
    assert line["model"] == str(file) and 0.5 < line["identity"] < 1 and line["landmark_shift"] is not None
    assert "mine.onnx" in (tmp_path / "out" / "restore.html").read_text()
    before, after = (np.asarray(Image.open(path)) for path in (photo, tmp_path / "out" / "a face.png"))
    assert (before != after).any()
    assert "1 photo was done before" in authface(photo, "--model", file, "--fidelity", 0.2, "-o", tmp_path / "out")[1]
    graphs.weighted(tmp_path / "other.onnx", side=256).replace(file)
    again = authface(photo, "--model", file, "--fidelity", 0.2, "-o", tmp_path / "out")[1]
    assert "done before" not in again


def test_the_guard_goes_towards_the_input(authface: Command, lines: Lines, photo: Path, tmp_path: Path) -> None:
    """A limit that only the input itself reaches."""
    file = graphs.drawing(tmp_path / "mine.onnx", 256)
    code, out, _ = authface(photo, "--model", file, "--fidelity", 0, "--min-identity", 1, "-o", tmp_path / "out")
    (line,) = lines(tmp_path / "out")
    assert (line["tries"], line["fidelity"], line["status"]) == (3, 1.0, "restored") and "tried again" in out
    assert code == 0


def test_python_shares_a_network_and_tells_of_each_face(photo: Path, tmp_path: Path) -> None:
    file = graphs.sharpening(tmp_path / "mine.onnx", 64)
    told: list[tuple[int, int]] = []
    with Restorer(str(file), fidelity=0.2, device="cpu") as restorer:
        assert restorer.size == 64
        done = restorer.restore(photo, progress=lambda count, total: told.append((count, total)))
        softer = restorer.with_settings(fidelity=0.9)
        assert softer._session.restorer.network is restorer._session.restorer.network  # type: ignore[attr-defined]
    assert told == [(1, 1)] and done.faces[0].after is not None
    with pytest.raises(UsageError, match="restore.steps=3 is of diffusion models"):
        Restorer(str(file), steps=3)
