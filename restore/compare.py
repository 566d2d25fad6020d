"""Compare two versions of a photo by any restorer, face by face: likeness, eyes, mouth, landmarks, colours, a map."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.errors import UsageError
from authface.faces.geometry import Side, align
from authface.models.sampling import PAPER_SIZE
from authface.records import Box
from authface.restore.guard import FaceDrift, IdentityGuard
from authface.restore.photo import FaceFinder
from authface.restore.picture import Image, change_map, open_picture
from authface.restore.settings import RestoreSettings


@dataclass(frozen=True)
class ComparedFace:
    """A face of the first version, and its distance from that of the second."""

    index: int
    """0 is the photo's largest."""
    box: Box
    drift: FaceDrift


@dataclass(frozen=True)
class PhotoComparison:
    """The comparison of two versions of a photo."""

    faces: tuple[ComparedFace, ...]
    """Faces found in the first version, the largest first."""
    change_map: NDArray[np.uint8]
    """(h, w, 3) as `authface.restore.picture.change_map` draws it."""

    @property
    def identity(self) -> float | None:
        """The lowest likeness of a face, -1..1; None if none could be measured."""
        return min((face.drift.identity for face in self.faces if face.drift.identity is not None), default=None)


class Comparer:
    """Finds the faces of one version and measures those at the same places of another; create one for many photos.

    `identity` and `weights` are those of `IdentityGuard`, and raise as it does.
    """

    def __init__(self, identity: str = "dlib", weights: str = "") -> None:
        self._finder = FaceFinder(RestoreSettings.model_validate({"guard": False}))
        self._guard = IdentityGuard(identity, weights)

    def compare(self, before: Image, after: Image) -> PhotoComparison:
        """Compare two images of `authface.restore.picture.Image`; the second may be larger by a whole number.

        Raises ImageError for what is no photo, UsageError for sides that do not fit.
        """
        one, other = open_picture(before), open_picture(after)
        old, new = one.photo.rgb, _as_large(other.photo.rgb, one.photo.rgb.shape)
        faces = []
        for face in self._finder(old, Side(PAPER_SIZE), one.content, 0):
            if face.aligned is not None:
                crop = align(new, face.aligned.quad, len(face.aligned.rgb)).rgb
                drift = self._guard.measure(face.aligned.rgb, crop, face.in_crop)
                faces.append(ComparedFace(face.index, face.box, drift))
        return PhotoComparison(tuple(faces), change_map(old, new))


def _as_large(rgb: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The picture at another's size, which it has already or exceeds by a whole factor."""
    (height, width), (high, wide) = shape[:2], rgb.shape[:2]
    times = wide // width
    if (high, wide) != (height * times, width * times) or not times:
        raise UsageError(f"{width} x {height} and {wide} x {high} px are not versions of one photo: give equal sizes")
    return rgb if times == 1 else np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
