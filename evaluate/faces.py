"""How far an output's face is from the truth's: who it shows, and where its features lie.

Test faces are aligned, so output and truth show the face at one place. It is found once, on the truth, and everything
is measured there on both: a restorer that moves the face is not helped by a detector that follows it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from authface.errors import ImageError
from authface.faces import detector, identity, landmarks
from authface.faces.detector import Detection, RetinaFace
from authface.faces.identity import Embedder, SeenFace, make_embedder
from authface.faces.landmarks import Dlib68

VERSION = "1"
"""Raised when a value changes; the networks' sha256 is kept beside it."""
LEFT_CORNER, RIGHT_CORNER = 36, 45
"""Outer corners of the eyes among the 68 points: 300-W's inter-ocular distance (Sagonas et al. 2013)."""
T = TypeVar("T")
_REMEMBERED = 8


@dataclass(frozen=True)
class Recogniser:
    """Who says how alike two faces are: a name of `make_embedder`, and its ONNX file where it is not `dlib`."""

    name: str = "dlib"
    weights: str = ""


DLIB = Recogniser()


@dataclass(frozen=True)
class ReferenceFace:
    """The face of a reference image: where it is, and its (68, 2) points in pixels."""

    detection: Detection
    points: NDArray[np.float64]


class FaceGauge:
    """Detector, landmarks and embedding, loaded once a process; what was found on the last references is remembered."""

    def __init__(self, min_score: float, recogniser: Recogniser = DLIB) -> None:
        self._recogniser = recogniser
        self._detector = RetinaFace(min_score)
        self._landmarks = Dlib68()
        self._embedder: Embedder | None = None
        self._found: OrderedDict[Hashable, ReferenceFace] = OrderedDict()
        self._embedded: OrderedDict[Hashable, NDArray[np.float32]] = OrderedDict()

    def find(self, key: str, rgb: NDArray[np.uint8]) -> ReferenceFace:
        """The largest face of (h, w, 3) `rgb`, whose content is `key`. Raises ImageError (`no_face`)."""
        if key not in self._found:
            faces = self._detector.detect(rgb)
            if not faces:
                raise ImageError("no_face", f"no face of a score over {self._detector.min_score} in it")
            _remember(self._found, key, ReferenceFace(faces[0], self._landmarks.landmarks(rgb, faces[0])))
        return self._found[key]

    def identity(
        self, output: NDArray[np.uint8], reference: NDArray[np.uint8], key: str, points: NDArray[np.float64]
    ) -> float:
        """Cosine of the embeddings of `output` and `reference` (content `key`), both cut by its (68, 2) `points`."""
        if key not in self._embedded:
            _remember(self._embedded, key, self._embed(reference, points))
        return float(self._embed(output, points) @ self._embedded[key])

    def landmarks(self, output: NDArray[np.uint8], found: ReferenceFace) -> tuple[float, float]:
        """`landmark_error` of the points of `output` in the truth's box."""
        return landmark_error(self._landmarks.landmarks(output, found.detection), found.points)

    def _embed(self, rgb: NDArray[np.uint8], points: NDArray[np.float64]) -> NDArray[np.float32]:
        if self._embedder is None:
            self._embedder = make_embedder(self._recogniser.name, self._recogniser.weights)
        vector: NDArray[np.float32] = self._embedder.embed([SeenFace(rgb, points)])[0]
        return vector


def landmark_error(points: NDArray[np.float64], truth: NDArray[np.float64]) -> tuple[float, float]:
    """Mean distance of two sets of (68, 2) points: percent of the truth's inter-ocular distance, and pixels.

    The normalised mean error of 300-W. Raises ImageError (`landmarks`) where the eye corners are one point.
    """
    pixels = float(np.hypot(*(points - truth).T).mean())
    eyes = float(np.hypot(*(truth[RIGHT_CORNER] - truth[LEFT_CORNER])))
    if eyes < 1:
        raise ImageError("landmarks", "the eyes' outer corners lie on one point: this is no face")
    return 100 * pixels / eyes, pixels


def weights(recogniser: Recogniser = DLIB) -> dict[str, str]:
    """Name and sha256 of the networks behind these figures. Raises AuthfaceError where one is missing."""
    return {
        "retinaface": detector.weights_sha256(),
        "dlib-68": landmarks.weights_sha256(),
        f"{recogniser.name}-recognition": identity.weights_sha256(recogniser.name, recogniser.weights),
    }


def _remember(held: OrderedDict[Hashable, T], key: Hashable, value: T) -> None:
    held[key] = value
    if len(held) > _REMEMBERED:
        held.popitem(last=False)
