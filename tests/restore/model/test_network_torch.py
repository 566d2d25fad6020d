"""Restorers from state dicts that spandrel knows: compared with their own code; what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from authface.errors import UsageError
from authface.restore.model.network import from_network, to_network
from tests.restore.model.test_network import face, make

Command = Callable[..., tuple[int, str, str]]
Lines = Callable[[Path], list[dict[str, Any]]]
Crop = NDArray[np.uint8]


@pytest.fixture(scope="module")
def restoreformer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """RestoreFormer as narrow as it may be, its file, and what its own code makes of a face."""
    from spandrel.architectures.RestoreFormer import RestoreFormer

    torch.manual_seed(0)
    network = RestoreFormer(
        ch=32, ch_mult=(1, 1, 1, 1, 1, 1), embed_dim=32, z_channels=32, n_embed=16, num_res_blocks=1
    ).eval()
    file = tmp_path_factory.mktemp("restoreformer") / "RestoreFormer.pth"
    torch.save({"params": network.state_dict()}, file)
    return network, file, own(network, face(512))


def own(network: Any, crop: Crop, **given: Any) -> Crop:
    with torch.inference_mode():
        return from_network(network(torch.from_numpy(to_network(crop)), **given)[0].numpy())


def test_restoreformer_is_what_its_own_code_makes(restoreformer: Any) -> None:
    _, file, expected = restoreformer
    restorer = make(file, fidelity=0)
    assert restorer.side.least == 512 and expected.std() > 10
    np.testing.assert_array_equal(restorer.restore([face(512)], [1])[0], expected)


def test_safetensors_are_read_as_well(restoreformer: Any, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    network, _, expected = restoreformer
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    made = make(tmp_path / "a.safetensors", fidelity=0).restore([face(512)], [1])[0]
    np.testing.assert_array_equal(made, expected)


def test_gfpgan_draws_the_noise_of_its_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its own code makes after torch.manual_seed; an eighth as wide as the released one, which spandrel knows."""
    from spandrel.architectures import GFPGAN as module

    released = module.GFPGAN
    monkeypatch.setattr(module, "GFPGAN", lambda **given: released(**given | {"narrow": 0.125}))
    torch.manual_seed(0)
    network = module.GFPGAN().eval()
    for name, weight in network.stylegan_decoder.named_parameters():
        if name.endswith(".weight") and weight.shape == (1,):
            torch.nn.init.constant_(weight, 0.3)  # as it comes, noise counts for nothing
    torch.save({"params_ema": network.state_dict()}, tmp_path / "GFPGAN.pth")
    torch.manual_seed(7)
    expected = own(network, face(512), return_rgb=False)
    del network
    restorer = make(tmp_path / "GFPGAN.pth", fidelity=0)
    restorer.network._draw(8)  # type: ignore[attr-defined]  # of the face before
    (made,) = restorer.restore([face(512)], [7])
    np.testing.assert_array_equal(made, expected)
    assert made.std() > 10


def test_codeformers_weight_is_the_fidelity(tmp_path: Path) -> None:
    """At its real size, but for the transformer, the codes and the widest fusions; 16 s."""
    from spandrel_extra_arches.architectures.CodeFormer import CodeFormer

    torch.manual_seed(0)
    network = CodeFormer(dim_embd=64, n_layers=1, codebook_size=32, connect_list=["32", "64"]).eval()
    torch.save({"params_ema": network.state_dict()}, tmp_path / "codeformer.pth")
    restorer = make(tmp_path / "codeformer.pth", fidelity=0.75)
    expected = own(network, face(512), weight=0.75)
    np.testing.assert_array_equal(restorer.restore([face(512)], [1])[0], expected)
    assert expected.std() > 10


class Evil:
    """Runs a command where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("ending", [".pth", ".ckpt", ".pt"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, ending: str) -> None:
    mark = tmp_path / "it ran"
    file = tmp_path / f"a{ending}"
    torch.save({"state_dict": {"encoder.conv_in.weight": torch.zeros(1)}, "hparams": Evil(mark)}, file)
    with pytest.raises(
        UsageError, match=r"asks for the code \w+\.system, which is not run: a file of tensors"
    ) as caught:
        make(file)
    assert not mark.exists() and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "bytes", "said"),
    [
        ("a.pth", b"", "it is no file that torch saved, or was cut"),
        ("a.pth", b"not a pickle at all", "it is no file that torch saved, or was cut"),
        ("a.ckpt", b"PK\x03\x04" + bytes(900), "it is no file that torch saved, or was cut"),
        ("a.safetensors", b"x", "it is no safetensors file, or was cut"),
    ],
)
def test_what_no_library_reads_is_said_in_our_words(tmp_path: Path, name: str, bytes: bytes, said: str) -> None:
    """torch's own text is of many lines and advises to run the pickle."""
    (tmp_path / name).write_bytes(bytes)
    with pytest.raises(UsageError, match=f"cannot be read: {said}") as caught:
        make(tmp_path / name)
    assert "weights_only" not in str(caught.value) and "\\n" not in str(caught.value)


def test_a_lightning_checkpoint_of_restoreformer_plus(restoreformer: Any, tmp_path: Path) -> None:
    """The names that Lightning gives a network's tensors within its module, which spandrel does not know."""
    network, *_ = restoreformer
    weights = {f"vqvae.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"epoch": 1, "pytorch-lightning_version": "1.0.8", "state_dict": weights}, tmp_path / "a.ckpt")
    with pytest.raises(UsageError, match="is no network that spandrel knows"):
        make(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    "held", [{}, {"a": torch.zeros(3)}, [torch.zeros(3)], torch.zeros(3), {"params": {"conv.weight": torch.zeros(3)}}]
)
def test_a_file_of_other_tensors(tmp_path: Path, held: Any) -> None:
    torch.save(held, tmp_path / "a.pth")
    with pytest.raises(
        UsageError, match=r"--model .*a.pth (is no network that spandrel|cannot be read: it holds a)"
    ) as caught:
        make(tmp_path / "a.pth")
    assert "\n" not in str(caught.value)


def test_a_network_for_something_else(tmp_path: Path) -> None:
    from spandrel.architectures.Compact import Compact

    torch.save({"params": Compact(num_feat=8, num_conv=1, upscale=4).state_dict()}, tmp_path / "a.pth")
    with pytest.raises(UsageError, match="is Compact: of those GFPGAN, RestoreFormer and CodeFormer restore faces"):
        make(tmp_path / "a.pth")


def test_without_the_extra(tmp_path: Path, restoreformer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "spandrel_extra_arches", None)
    assert make(restoreformer[1]).side.least == 512
    torch.save({"a": torch.zeros(3)}, tmp_path / "a.pth")
    with pytest.raises(
        UsageError, match=r"CodeFormer needs spandrel-extra-arches: pip install 'authface\[restorers\]'"
    ):
        make(tmp_path / "a.pth")
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(UsageError, match=r"needs spandrel: pip install 'authface\[restorers\]'"):
        make(restoreformer[1])
