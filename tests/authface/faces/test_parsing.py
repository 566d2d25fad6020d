"""Face parsing: the network as facexlib builds it, from a file of its real layout; masks of what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from authface.errors import AuthfaceError
from authface.faces import detector as face_weights
from authface.faces.paste import CLASSES, FaceParser, parser_sha256
from authface.files import sha256_of

CROP = np.ascontiguousarray(data.astronaut()[20:220, 130:330])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, in a folder and under the name of the real ones."""
    import torch
    from facexlib.parsing.parsenet import ParseNet

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "parsing_parsenet.pth"
    torch.save(ParseNet(in_size=512, out_size=512, parsing_ch=19).state_dict(), file)
    return file


@pytest.fixture
def placed(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(face_weights, "facexlib_folder", lambda: weights.parent)
    return weights


def test_classes_are_those_facexlib_gives(placed: Path) -> None:
    import torch
    from facexlib.parsing.parsenet import ParseNet

    network = ParseNet(in_size=512, out_size=512, parsing_ch=19).eval()
    network.load_state_dict(torch.load(placed, weights_only=True))
    seen = torch.from_numpy(CROP[:64, :64].transpose(2, 0, 1).copy()).float() / 255
    with torch.inference_mode():
        theirs = network((seen[None] - 0.5) / 0.5)[0].argmax(dim=1)[0].numpy()
    ours = FaceParser(side=64).classes(CROP[:64, :64])
    assert (ours == theirs).mean() > 0.99 and len(np.unique(ours)) > 1
    assert parser_sha256() == sha256_of(placed)


class Told(FaceParser):
    """Says of each pixel what it was told."""

    def __init__(
        self, shown: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.bool_]], name: str
    ) -> None:
        self.shown, self.name = shown, name

    def classes(self, crop: NDArray[np.uint8]) -> NDArray[np.intp]:
        v, u = np.mgrid[:512, :512] / 512
        return np.where(self.shown(u, v), CLASSES.index(self.name), 0)


@pytest.mark.parametrize("size", [64, 512, 600])
def test_a_mask_is_whole_within_the_face_and_soft_at_its_edge(placed: Path, size: int) -> None:
    parser = Told(lambda u, v: u < 0.5, "skin")
    FaceParser.__init__(parser)
    crop = np.zeros((size, size, 3), np.uint8)
    mask = parser.mask(crop)
    assert mask.shape == (size, size) and mask.dtype == np.float32
    assert mask[:, : size // 3].min() > 0.999 and mask[:, size * 2 // 3 :].max() < 0.001
    across = mask[size // 2]
    assert (np.diff(across) <= 1e-6).all() and across[size // 2] == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(
    ("name", "with_hair", "without"),
    [("nose", 1, 1), ("earring", 1, 1), ("hair", 1, 0), ("hat", 0, 0), ("neck", 0, 0), ("clothes", 0, 0)],
)
def test_what_belongs_to_a_face(placed: Path, name: str, with_hair: int, without: int) -> None:
    for hair, expected in ((True, with_hair), (False, without)):
        parser = Told(lambda u, v: u >= 0, name)
        FaceParser.__init__(parser, hair=hair)
        assert parser.mask(CROP) == pytest.approx(expected, abs=1e-6)


def test_weights_that_are_missing_or_broken_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import facexlib.utils

    def offline(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(facexlib.utils, "load_file_from_url", offline)
    monkeypatch.setattr(face_weights, "facexlib_folder", lambda: tmp_path)
    with pytest.raises(
        AuthfaceError, match=r"restore.mask=parsing .*no route.*parsing_parsenet.pth into .*mask=square"
    ):
        FaceParser()
    (tmp_path / "parsing_parsenet.pth").write_bytes(b"half a file")
    with pytest.raises(AuthfaceError, match=r"parsing_parsenet.pth is broken .*get https://github.com/") as caught:
        FaceParser()
    assert "\n" not in str(caught.value)
