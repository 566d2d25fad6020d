"""`curate filter`: find the faces of every photo, measure them, and say which are kept and why not.

Cheap measures come first and dear ones see only what survived, so a rejected face may lack the later ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from authface import images
from authface.curate import quality
from authface.curate.settings import FilterSettings
from authface.photoset import Provenance
from authface.records import Face, Photo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from authface.faces.detector import Detection, Detector

VERSION = 1
LEAST_SCORE = 0.6
"""Detections under this are background more often than faces; they get no row."""

Piqe = Callable[["NDArray[np.uint8]"], float]


class FaceFilter:
    """The step: photos in, judged faces out. Knows nothing of files."""

    def __init__(self, settings: FilterSettings, detector: Detector, piqe: Piqe) -> None:
        self.settings = settings
        self._detector = detector
        self._piqe = piqe

    def __call__(self, rgb: NDArray[np.uint8]) -> list[Face]:
        """Faces of an upright (h, w, 3) uint8 photo, largest first, with empty ids; one with index -1 if none."""
        found = self._detector.detect(rgb)
        if not found:
            return [
                Face(id="", photo_id="", photo_file="", index=-1, status="rejected", reason="no_face", value=0, limit=1)
            ]
        faces = [_detected(index, detection) for index, detection in enumerate(found)]
        return [self._judge(rgb, face, len(faces)) for face in faces]

    def _judge(self, rgb: NDArray[np.uint8], face: Face, count: int) -> Face:
        limits = self.settings
        assert face.points5 is not None and face.score is not None and face.size is not None
        if limits.faces == "one" and count > 1:
            return _rejected(face, "several_faces", count, 1)
        if limits.faces == "largest" and face.index > 0:
            return _rejected(face, "not_largest", face.index + 1, 1)
        if face.score < limits.min_score:
            return _rejected(face, "unsure", face.score, limits.min_score)
        if face.size < limits.min_size:
            return _rejected(face, "small_face", face.size, limits.min_size)
        region = quality.face_region(rgb, face.points5)
        face = replace(face, sharpness=quality.sharpness(region), noise=quality.noise(region))
        if face.sharpness is not None and face.sharpness < limits.min_sharpness:
            return _rejected(face, "blurred", face.sharpness, limits.min_sharpness)
        if face.noise is not None and face.noise > limits.max_noise:
            return _rejected(face, "noisy", face.noise, limits.max_noise)
        face = replace(face, piqe=self._piqe(region.rgb))
        if face.piqe is not None and face.piqe > limits.max_piqe:
            return _rejected(face, "low_quality", face.piqe, limits.max_piqe)
        return face


@dataclass
class Filter:
    """The step over a photo set's table `photos`."""

    root: Path
    settings: FilterSettings
    batch_size: int = 4
    _step: FaceFilter | None = None

    @property
    def provenance(self) -> Provenance:
        """Settings and the detector's weights."""
        from authface.faces.detector import weights_sha256

        return Provenance(
            "filter", VERSION, self.settings.model_dump(mode="json"), {self.settings.detector: weights_sha256()}
        )

    def open(self) -> None:
        """Load the detector and the metric."""
        from authface.faces.detector import RetinaFace

        self._step = FaceFilter(self.settings, RetinaFace(LEAST_SCORE), load_piqe())

    def load(self, photo: Photo) -> NDArray[np.uint8]:
        """The photo's pixels. Raises ImageError."""
        return images.read(self.root / photo.file).rgb

    def step(self, batch: Sequence[NDArray[np.uint8]]) -> Sequence[list[Face]]:
        """Faces of each photo: photos differ in size, so they are looked at one by one."""
        assert self._step is not None
        return [self._step(rgb) for rgb in batch]

    def save(self, photo: Photo, faces: list[Face]) -> list[Face]:
        """The rows."""
        return [
            replace(face, id=f"{photo.id}-{face.index}", photo_id=photo.id, photo_file=photo.file) for face in faces
        ]

    def failed(self, photo: Photo, reason: str, detail: str) -> list[Face]:
        """The row of a photo whose pixels could not be read again."""
        return [
            Face(
                id=f"{photo.id}--1",
                photo_id=photo.id,
                photo_file=photo.file,
                index=-1,
                status="failed",
                reason=reason,
                detail=detail,
            )
        ]


def load_piqe() -> Piqe:
    """pyiqa's PIQE (Venkatanath et al. 2015) of a (h, w, 3) uint8 image, 0..100, lower is better."""
    import pyiqa
    import torch

    metric = pyiqa.create_metric("piqe", device="cpu")

    def piqe(rgb: NDArray[np.uint8]) -> float:
        with torch.inference_mode():
            tensor = torch.from_numpy(rgb.transpose(2, 0, 1).copy())[None].float() / 255
            return float(metric(tensor))

    return piqe


def _detected(index: int, detection: Detection) -> Face:
    x0, y0, x1, y1 = detection.box
    return Face(
        id="",
        photo_id="",
        photo_file="",
        index=index,
        box=detection.box,
        score=detection.score,
        points5=detection.points5,
        size=max(x1 - x0, y1 - y0),
    )


def _rejected(face: Face, reason: str, value: float, limit: float) -> Face:
    return replace(face, status="rejected", reason=reason, value=value, limit=limit)
