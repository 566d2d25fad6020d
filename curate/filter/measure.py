"""The first pass of `curate filter`: find the faces of every photo and measure them. It rejects nothing.

Nothing here depends on a limit, so changing a limit needs no second pass over the photos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.curate.filter.duplicates import face_hash
from authface.curate.filter.measures import artefacts, processing, quality
from authface.curate.filter.measures.quality import piqe
from authface.curate.settings import FilterSettings
from authface.engine.workers import Step
from authface.errors import ImageError
from authface.faces.detector import Detection, Detector, make_detector, weights_sha256
from authface.imaging import decode as images
from authface.records import Face, Photo, Points5
from authface.store.photoset import PhotoSet, Provenance

SHAPE = (
    (-0.500, 0.000, 0.000),
    (0.500, 0.000, 0.000),
    (0.000, 0.590, 0.507),
    (-0.430, 1.024, -0.173),
    (0.430, 1.024, -0.173),
)
"""Eyes, nose tip and mouth corners of a mean face in eye distances: x to the picture's right, y down, z to the camera.

Rank-3 factorisation (Tomasi and Kanade 1992) of RetinaFace's points on 1,280 portraits and their mirror images, turned
so that the median pitch is that of 68 landmarks. On these portraits yaw, pitch and roll differ from those of the 68
landmarks by 2.9, 3.8 and 1.5 degrees on average."""
VERSION = 6
LEAST_SCORE = 0.6
"""Detections below this are background more often than faces; they get no row."""


def find_pose(points5: Points5) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees by scaled orthography (POS of DeMenthon and Davis 1995).

    `yaw` > 0 turned to the picture's right, `pitch` > 0 looking up, `roll` > 0 leaning clockwise.
    """
    shape, seen = np.array(SHAPE), np.reshape(points5, (5, 2)).astype(np.float64)
    rows = np.linalg.lstsq(shape - shape.mean(0), seen - seen.mean(0), rcond=None)[0].T
    u, _, v = np.linalg.svd(rows, full_matrices=False)
    turn = u @ v
    x, y = float(turn[0, 2]), float(turn[1, 2])  # where the face's z axis points, in the picture
    z = float(np.cross(turn[0], turn[1])[2])
    yaw = np.degrees(np.arctan2(x, z))
    pitch = np.degrees(np.arctan2(-y, np.hypot(x, z)))
    return float(yaw), float(pitch), float(np.degrees(np.arctan2(turn[1, 0], turn[0, 0])))


def measure_faces(rgb: NDArray[np.uint8], detector: Detector) -> list[Face]:
    """Faces of an upright (h, w, 3) uint8 photo with all their measures, largest first, ids empty.

    One rejected row with index -1 (`no_face`) if there is none.
    """
    found = detector.detect(rgb)
    if not found:
        return [
            Face(id="", photo_id="", photo_file="", index=-1, status="rejected", reason="no_face", value=0, limit=1)
        ]
    return [_measure(rgb, _detected(index, detection)) for index, detection in enumerate(found)]


def _detected(index: int, detection: Detection) -> Face:
    x0, y0, x1, y1 = detection.box
    yaw, pitch, roll = find_pose(detection.points5)
    return Face(
        id="",
        photo_id="",
        photo_file="",
        index=index,
        box=detection.box,
        score=detection.score,
        points5=detection.points5,
        size=max(x1 - x0, y1 - y0),
        yaw=yaw,
        pitch=pitch,
        roll=roll,
    )


def _measure(rgb: NDArray[np.uint8], face: Face) -> Face:
    assert face.points5 is not None
    try:
        region = quality.face_region(rgb, face.points5)
    except ImageError as error:
        return replace(face, status="failed", reason=error.reason, detail=str(error))
    light, clipped = artefacts.exposure(region)
    traces = processing.face_traces(region)
    return replace(
        face,
        sharpness=quality.sharpness(region),
        noise=quality.noise(region),
        pepper=artefacts.pepper(region),
        smoothing=artefacts.smoothing(region),
        hatching=artefacts.hatching(region),
        blockiness=artefacts.blockiness(region),
        pixelation=processing.pixelation(traces),
        sharpening=processing.sharpening(traces),
        exposure=light,
        clipped=clipped,
        resolution=artefacts.resolution(region),
        piqe=piqe(region.luma),
        hash=face_hash(np.asarray(cv2.cvtColor(region.luma, cv2.COLOR_GRAY2RGB))),
    )


@dataclass
class Measure(Step[Photo, NDArray[np.uint8], list[Face], Face]):
    """The step from a photo set's table `photos` to `measured`."""

    root: Path
    settings: FilterSettings
    batch_size: int = 4
    _detector: Detector | None = None

    @property
    def provenance(self) -> Provenance:
        """The detector and its weights; no limit."""
        name = self.settings.detector
        return Provenance("measure", VERSION, {"detector": name}, {name: weights_sha256(name)})

    def open(self) -> None:
        """Load the detector."""
        self._detector = make_detector(self.settings.detector, LEAST_SCORE)

    def load(self, photo: Photo) -> NDArray[np.uint8]:
        """The photo's pixels. Raises ImageError."""
        return images.decode(PhotoSet(self.root).read(photo.file)).rgb

    def step(self, batch: Sequence[NDArray[np.uint8]]) -> Sequence[list[Face]]:
        """Faces of each photo: photos differ in size, so they are looked at one by one."""
        assert self._detector is not None
        return [measure_faces(rgb, self._detector) for rgb in batch]

    def save(self, photo: Photo, faces: list[Face]) -> list[Face]:
        """The rows."""
        return [
            replace(face, id=f"{photo.id}-{face.index}", photo_id=photo.id, photo_file=photo.file) for face in faces
        ]

    def failed(self, photo: Photo, reason: str, detail: str) -> list[Face]:
        """The row of a photo whose pixels could not be read again."""
        face = Face(id=f"{photo.id}--1", photo_id=photo.id, photo_file=photo.file, index=-1)
        return [replace(face, status="failed", reason=reason, detail=detail)]
