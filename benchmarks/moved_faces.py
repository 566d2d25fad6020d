"""Heads turned and tilted and crops widened by known amounts; where their landmarks lie is found anew."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from made_faces import Change, Image, relief
from numpy.typing import NDArray

from authface.annotate.measured.quantities import Regions
from authface.faces.detector import RetinaFace
from authface.faces.geometry import align, crop_points, ffhq_quad
from authface.faces.landmarks import Dlib68


@dataclass(frozen=True)
class Face:
    """A changed crop (256 px), its landmarks, and how far its x axis is turned in the photo, degrees clockwise."""

    rgb: Image
    points: NDArray[np.float64]
    tilt: float = 0.0


Move = Callable[[Regions, np.random.Generator], Face | None]
"""The same where the landmarks move: they are found anew, None where no face is found."""


def moved(change: Change) -> Move:
    """A change whose landmarks stay."""
    return lambda regions, rng: Face(change(regions, rng), regions.points)


@functools.lru_cache(maxsize=1)
def _finders() -> tuple[RetinaFace, Dlib68]:
    return RetinaFace(0.5), Dlib68()


def _found(photo: Image, middle: tuple[float, float]) -> NDArray[np.float64] | None:
    """Landmarks of the face nearest to a place."""
    detector, landmarker = _finders()
    faces = detector.detect(photo)
    if not faces:
        return None
    near = min(faces, key=lambda face: float(np.hypot(face.points5[4] - middle[0], face.points5[5] - middle[1])))
    return landmarker.landmarks(photo, near)


def turned_head(yaw: float) -> Move:
    """The modelled head turned by `yaw` degrees to the picture's right, its skin stretched with it."""

    def change(regions: Regions, rng: np.random.Generator) -> Face | None:
        height = cv2.GaussianBlur(relief(regions), (0, 0), 3)
        y, x = np.mgrid[:256, :256].astype(np.float32)
        cosine, sine = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
        centre = regions.pose.centre[0]
        source = x.copy()
        for _ in range(12):
            depth = cv2.remap(height, source, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            source = (0.5 * source + 0.5 * (centre + (x - centre - depth * sine) / cosine)).astype(np.float32)
        rgb = cv2.remap(regions.rgb, source, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        points = _found(rgb, (128, 140))
        return None if points is None else Face(rgb, points)

    return change


def leaning(degrees: float) -> Move:
    """The photo turned clockwise, the face found and aligned anew."""

    def change(regions: Regions, rng: np.random.Generator) -> Face | None:
        photo = cv2.copyMakeBorder(regions.rgb, 96, 96, 96, 96, cv2.BORDER_REFLECT)
        turn = cv2.getRotationMatrix2D((223.5, 223.5), -degrees, 1)
        photo = cv2.warpAffine(photo, turn, (448, 448), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        points = _found(photo, (224, 236))
        if points is None:
            return None
        quad = ffhq_quad(points)
        tilt = float(np.degrees(np.arctan2(quad[3, 1] - quad[0, 1], quad[3, 0] - quad[0, 0])))
        return Face(align(photo, quad, 256).rgb, crop_points(points, quad, 256), tilt)

    return change


def wider(factor: float) -> Move:
    """A crop that shows `factor` times as much."""

    def change(regions: Regions, rng: np.random.Generator) -> Face:
        matrix = np.array([[1 / factor, 0, 127.5 * (1 - 1 / factor)], [0, 1 / factor, 127.5 * (1 - 1 / factor)]])
        rgb = cv2.warpAffine(regions.rgb, matrix, (256, 256), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
        return Face(rgb, regions.points @ matrix[:, :2].T + matrix[:, 2])

    return change
