"""Detectors by name; facexlib's network, with random weights, answers in our order and coordinates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from authface.errors import AuthfaceError, UsageError
from authface.faces import resnet
from authface.faces.detector import RetinaFace
from authface.faces.detectors import make_detector, weights_sha256
from authface.faces.resnet import ResNetRetinaFace


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random network, saved as facexlib's authors saved theirs."""
    import torch
    from facexlib.detection.retinaface import RetinaFace as Network

    torch.manual_seed(4)
    network = Network(network_name="resnet50", device="cpu")
    with torch.no_grad():
        for head in network.modules():
            if isinstance(head, torch.nn.Conv2d) and head.kernel_size == (1, 1) and head.out_channels in (4, 8, 20):
                head.weight *= 0.02  # boxes of the size of the picture, scores apart from 0 and 1
    path = tmp_path_factory.mktemp("weights") / "net.pth"
    torch.save({f"module.{name}": tensor for name, tensor in network.state_dict().items()}, path)
    return path


def test_boxes_and_points_are_those_facexlib_gives(weights: Path) -> None:
    import torch
    from facexlib.detection.retinaface import RetinaFace as Network

    rgb = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    network = Network(network_name="resnet50", device="cpu")
    state = torch.load(weights, weights_only=True)
    network.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    with torch.inference_mode():
        theirs = network.eval().detect_faces(rgb[..., ::-1].copy(), conf_threshold=-1.0, nms_threshold=2.0)
    ours = ResNetRetinaFace(-1.0, weights).look(rgb, 1.0)
    assert len(ours.scores) == len(theirs) == 2 * (16 * 12 + 8 * 6 + 4 * 3)
    by_place, theirs_by_place = np.lexsort(ours.boxes.T.round(2)), np.lexsort(theirs[:, :4].T.round(2))
    np.testing.assert_allclose(ours.boxes[by_place], theirs[theirs_by_place, :4], rtol=1e-3, atol=0.05)
    np.testing.assert_allclose(ours.scores[by_place], theirs[theirs_by_place, 4], atol=1e-4)
    np.testing.assert_allclose(ours.points[by_place], theirs[theirs_by_place, 5:], rtol=1e-3, atol=0.05)


def test_names(monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
    assert type(make_detector("retinaface", 0.9)) is RetinaFace
    with pytest.raises(UsageError, match="no detector yolo: there are retinaface, retinaface-resnet50"):
        make_detector("yolo", 0.9)
    monkeypatch.setattr(resnet, "weights_file", lambda: weights)
    assert isinstance(make_detector("retinaface-resnet50", 0.9), ResNetRetinaFace)
    assert weights_sha256("retinaface-resnet50") != weights_sha256("retinaface")


def test_weights_that_cannot_be_had_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import facexlib.utils

    def offline(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(facexlib.utils, "load_file_from_url", offline)
    monkeypatch.setattr(Path, "is_file", lambda _: False)
    with pytest.raises(AuthfaceError, match=r"retinaface-resnet50 .*no route.*detection_Resnet50_Final.pth") as caught:
        resnet.weights_file()
    assert "\n" not in str(caught.value)
