"""What of a restored face is put back: the square, or what a network takes for the face."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from authface.console import Console
from authface.faces import detector as face_weights
from authface.faces.geometry import Side, crop_points
from authface.restore.background import lanczos
from authface.restore.model.restorer import Identity
from authface.restore.photo import PhotoResult
from authface.restore.session import Request, Session
from authface.restore.settings import RestoreSettings
from tests.restore.conftest import Painter

Command = Callable[..., tuple[int, str, str]]


class Oval:
    """Stands for the network: the face is a disc in the crop's middle, of 0.3 sides, soft to 0.4."""

    def mask(self, crop: NDArray[np.uint8]) -> NDArray[np.float32]:
        v, u = (np.mgrid[: len(crop), : len(crop)] + 0.5) / len(crop) - 0.5
        return np.clip((0.4 - np.hypot(u, v)) * 10, 0, 1).astype(np.float32)


def turned(degrees: float) -> NDArray[np.uint8]:
    photo = np.ascontiguousarray(data.astronaut()[:300, 60:400])
    matrix = cv2.getRotationMatrix2D((164, 118), degrees, 1)
    return np.asarray(cv2.warpAffine(photo, matrix, (340, 300), borderMode=cv2.BORDER_REFLECT), np.uint8)


def restored(photo: NDArray[np.uint8], model: Any, upscale: int) -> PhotoResult:
    chosen: dict[str, Any] = {"mask": "parsing", "upscale": upscale, "guard": False, "colour": "none"}
    session = Session(Request(RestoreSettings(model="identity", **chosen)), Console())
    session.__dict__ |= {"restorer": model, "parser": Oval()}
    search = session.finder(photo, model.side, "ab", 0)
    assert len(search) == 1
    (result,) = session.restore([(photo, search)])
    return result


@pytest.mark.parametrize("upscale", [1, 2, 4])
@pytest.mark.parametrize("degrees", [0, 27, -40])
def test_the_identity_changes_no_pixel_and_a_model_none_beyond_the_mask(degrees: float, upscale: int) -> None:
    photo = turned(degrees)
    background = lanczos(photo, upscale)
    for size in (64, 512):
        np.testing.assert_array_equal(restored(photo, Identity(Side(size)), upscale).rgb, background)
    result = restored(photo, Painter(), upscale)
    quad = result.faces[0].quad
    assert quad is not None
    y, x = np.mgrid[: len(background), : background.shape[1]]
    at = np.stack([x.ravel(), y.ravel()], axis=1)
    place = crop_points((at + 0.5) / upscale - 0.5, quad, 64) / 64 + 0.5 / 64 - 0.5
    distance = np.hypot(*place.T).reshape(background.shape[:2])
    changed = (result.rgb != background).any(axis=2)
    assert not changed[distance > 0.4 + 1.5 / 64].any()
    assert (result.rgb[distance < 0.3 - 1.5 / 64] == (0, 255, 0)).all()


def test_the_command_takes_the_network_from_its_file(
    authface: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from facexlib.parsing.parsenet import ParseNet

    torch.manual_seed(0)
    network = ParseNet(in_size=512, out_size=512, parsing_ch=19)
    network.out_mask_conv.conv2d.bias.data[1] += 1e6  # all is skin
    (tmp_path / "weights").mkdir()
    torch.save(network.state_dict(), tmp_path / "weights" / "parsing_parsenet.pth")
    monkeypatch.setattr(face_weights, "facexlib_folder", lambda: tmp_path / "weights")
    Image.fromarray(turned(10)).save(tmp_path / "a.png")
    given = ("--model", "identity", "-O", "restore.mask=parsing", "--json")
    code, said, err = authface(tmp_path / "a.png", "-o", tmp_path / "out", *given)
    assert code == 0, err
    told = json.loads(said)
    assert told["faces"] == 1 and told["spent"]["mask"] > 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "a.png")), turned(10))
    again = json.loads(authface(tmp_path / "a.png", "-o", tmp_path / "out", *given)[1])
    assert again["done_before"] == 1
    plain = json.loads(authface(tmp_path / "a.png", "-o", tmp_path / "out", "--model", "identity", "--json")[1])
    assert plain["done_before"] == 0  # another mask gives another photo


def test_without_the_network_one_line_says_where_it_goes(
    authface: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import facexlib.utils

    def offline(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(facexlib.utils, "load_file_from_url", offline)
    monkeypatch.setattr(face_weights, "facexlib_folder", lambda: tmp_path / "weights")
    Image.fromarray(turned(0)).save(tmp_path / "a.png")
    code, _, err = authface(tmp_path / "a.png", "--model", "identity", "-O", "restore.mask=parsing")
    assert code == 1
    assert [line for line in err.splitlines() if "parsing_parsenet.pth into" in line] == err.splitlines()
