"""A glance at a photo that lies ahead: its faces as one look of the detector at a small copy sees them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from authface.errors import ImageError
from authface.faces.detector import Detection, RetinaFace
from authface.faces.geometry import ffhq_quad, quad_side, spread_points
from authface.faces.looks import SINGLE_SIDE, merge
from authface.imaging.decode import preview
from authface.restore.settings import FaceChoice, RestoreSettings
from authface.restore.workload import PhotoFaces, PhotoSample

LARGEST_WHOLE = 12_000_000
"""Pixels of the largest photo that is decoded whole for a glance: the run beside it needs the memory. A JPEG is decoded
small."""
JPEG_ENDINGS = (".jpg", ".jpeg")


class Glancer:
    """Create one for many photos. It has one thread, for the run needs the others."""

    def __init__(self, settings: RestoreSettings) -> None:
        self._choice = FaceChoice(settings)
        self._detector = RetinaFace(settings.min_score)

    def __call__(self, path: Path, size: PhotoSample) -> PhotoFaces | None:
        """About the faces that would be restored; None where the photo cannot be read, or is too large for a glance.

        Those that stand upright and, in a photo longer than `SINGLE_SIDE`, have a twentieth of its longer side.
        """
        if size.width * size.height > LARGEST_WHOLE and path.suffix.lower() not in JPEG_ENDINGS:
            return None
        try:
            small = preview(path, SINGLE_SIDE)
        except ImageError:
            return None
        scale = max(size.width, size.height) / max(small.shape[:2])
        seen = merge([self._detector.look(small, 1.0)])
        crops: list[float] = []
        for box, score, points in zip(seen.boxes * scale, seen.scores, seen.points * scale, strict=True):
            face = Detection((box[0], box[1], box[2], box[3]), float(score), tuple(points.ravel().tolist()))
            with suppress(ImageError):  # eyes of one place
                side = quad_side(ffhq_quad(spread_points(face.points5)))
                crops += [] if self._choice.reason_to_skip(face, len(crops))[0] else [side]
        return PhotoFaces(size.width, size.height, bool(len(seen.scores)), tuple(crops))
