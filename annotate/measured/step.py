"""`annotate tags --with measured`: every kept crop gets the tags its pixels and landmarks earn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.annotate.measured.tagger import measure, tags
from authface.annotate.settings import MeasuredSettings
from authface.engine.workers import Step
from authface.errors import ImageError
from authface.faces.geometry import crop_points
from authface.imaging import decode as images
from authface.records import Crop, Tags
from authface.store.photoset import Provenance

ANNOTATOR = "measured"
"""Name of the annotator, and of its table."""
VERSION = 3


@dataclass(frozen=True)
class AlignedFace:
    """A crop with its landmarks in crop pixels, (68, 2).

    `tilt` is how far it was turned in the photo, degrees clockwise, `padding` its share outside the photo, 0..1.
    """

    rgb: NDArray[np.uint8]
    landmarks: NDArray[np.float64]
    tilt: float
    padding: float


@dataclass
class MeasuredTags(Step[Crop, AlignedFace, Tags, Tags]):
    """The step over a photo set's table `crops`."""

    root: Path
    settings: MeasuredSettings
    batch_size: int = 8

    @property
    def provenance(self) -> Provenance:
        """The thresholds; there is no model."""
        return Provenance("measured tags", VERSION, self.settings.model_dump(mode="json"), {})

    def open(self) -> None:
        """Nothing to load; OpenCV's own threads would only get in the way of the workers'."""
        cv2.setNumThreads(1)

    def load(self, crop: Crop) -> AlignedFace:
        """The crop's pixels and landmarks. Raises ImageError."""
        if crop.quad is None or crop.landmarks is None:
            raise ImageError("no_landmarks", "the crop has no landmarks: run authface curate align again")
        rgb = images.read(self.root / crop.file).rgb
        tilt = math.degrees(math.atan2(crop.quad[7] - crop.quad[1], crop.quad[6] - crop.quad[0]))
        return AlignedFace(rgb, crop_points(crop.landmarks, crop.quad, rgb.shape[0]), tilt, crop.pad_fraction or 0.0)

    def step(self, batch: Sequence[AlignedFace]) -> Sequence[Tags]:
        """The tags of each crop, without an id."""
        found = (measure(face.rgb, face.landmarks, face.tilt, face.padding) for face in batch)
        return [Tags(id="", annotator=ANNOTATOR, tags=tags(one, self.settings)) for one in found]

    def save(self, crop: Crop, found: Tags) -> list[Tags]:
        """The row."""
        return [Tags(id=crop.id, annotator=found.annotator, tags=found.tags)]

    def failed(self, crop: Crop, reason: str, detail: str) -> list[Tags]:
        """The row of a crop that could not be measured."""
        return [Tags(id=crop.id, annotator=ANNOTATOR, status="failed", reason=reason, detail=detail)]
