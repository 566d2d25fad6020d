"""Whether a restored face still shows the same person: identity, eyes and mouth, landmarks and colours of the input.

The input is a weak witness where it is badly degraded: what blur took, no number brings back. A low identity says
that the face changed, not that it became wrong; the limits are the user's (`restore.min_identity`, `.min_parts`). A
recogniser sees the whole face and hardly notices a broken mouth, so eyes and mouth are looked at by themselves
(`authface.restore.parts`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from authface.errors import ImageError
from authface.faces.detector import Detection, RetinaFace
from authface.faces.geometry import crop_points, quad_side
from authface.faces.identity import Embedder, SeenFace, five_points, make_embedder
from authface.faces.landmarks import Dlib68, disagreement
from authface.imaging.lab import ciede2000, lab_of_srgb
from authface.restore.model.colour import low_pass
from authface.restore.parts import SAME, FaceParts, compare_parts

FIND_SCORE = 0.5
"""Least score of the detector on a crop, which is known to be of a face."""
COARSE_SIDE = 64
"""Coarse tones are compared on so many pixels a side: they hold no finer detail."""

Crop = NDArray[np.uint8]
Points = NDArray[np.float64]


@dataclass(frozen=True)
class FaceDrift:
    """How far a restored face is from its input; None where it could not be measured."""

    identity: float | None
    """Dot product of the two unit embeddings, -1..1; 1: nothing changed."""
    landmark_shift: float | None
    """Mean distance of the 68 points, or of five where dlib is lost, in percent of the eyes' distance."""
    colour_shift: float
    """Mean CIEDE2000 of the coarse tones: 1 is just visible side by side."""
    parts: FaceParts | None
    """Likeness of each eye and of the mouth."""


UNCHANGED = FaceDrift(1.0, 0.0, 0.0, SAME)
Broken = Literal["", "identity", "parts"]
"""Which limit a face breaks; empty: none."""


DRIFTED: tuple[Broken, ...] = ("identity", "parts")
"""Why a face stays as it was though it was restored."""


@dataclass(frozen=True)
class DriftLimits:
    """What a restored face must keep of its input, 0..1; 0 asks for nothing. What was not measured is not kept."""

    identity: float = 0
    parts: float = 0

    def of(self, measure: Broken) -> float:
        """The limit of a measure."""
        return {"": 0.0, "identity": self.identity, "parts": self.parts}[measure]

    def room(self, drift: FaceDrift | None) -> float:
        """How far a face is above the limit that it is nearest to, in parts of what lies between limit and 1."""
        asked = [(limit, _value(drift, name)) for name, limit in self._asked()]
        return min(((value - limit) / max(1 - limit, 1e-6) for limit, value in asked), default=0.0)

    def broken(self, drift: FaceDrift | None) -> Broken:
        """The first limit that a face breaks."""
        return next((name for name, limit in self._asked() if _value(drift, name) < limit), "")

    def _asked(self) -> list[tuple[Broken, float]]:
        return [(name, self.of(name)) for name in DRIFTED if self.of(name) > 0]


def _value(drift: FaceDrift | None, measure: Broken) -> float:
    """What was measured; less than any limit where nothing was."""
    if measure == "identity":
        return -2.0 if drift is None or drift.identity is None else drift.identity
    return -2.0 if drift is None or drift.parts is None else drift.parts.least


def told(drift: FaceDrift | None, measure: Broken) -> str:
    """What was measured in words: ``identity 0.912``, ``left eye 0.41``."""
    value, name = _value(drift, measure), str(measure)
    if measure == "parts" and drift is not None and drift.parts is not None:
        name = next(iter(drift.parts.below(2))).replace("_", " ")
    return f"{name} {value:.3f}" if value > -2 else f"{name} not measurable"


class IdentityGuard:
    """Measures restored crops against their inputs; made once, for many faces. 0.13 s a face on one core, of which the
    parts take 6 ms.

    `embedder` and `weights` are those of `make_embedder`; beyond `max_disagreement` dlib's points of the input count
    as lost. Raises UsageError and AuthfaceError as `make_embedder` does.
    """

    def __init__(self, embedder: str = "dlib", weights: str = "", max_disagreement: float = 0.2) -> None:
        self.max_disagreement = max_disagreement
        self._embedder: Embedder = make_embedder(embedder, weights)
        self._landmarker = Dlib68()
        self._detector = RetinaFace(FIND_SCORE)

    def measure(self, before: Crop, after: Crop, face: Detection | None) -> FaceDrift:
        """How far the (size, size, 3) uint8 crop `after` is from `before`.

        `face` is the detection in the crop's coordinates (`in_crop`); None looks for it. Where dlib is lost on the
        input, which is rarer in a crop than in its photo since faces stand upright in it, both are compared through
        the detector's five points; landmarks then roughly, since it finds them anew in each.
        """
        if np.array_equal(before, after):
            return UNCHANGED
        colour = colour_shift(before, after)
        face = face or self._find(before)
        if face is None:
            return FaceDrift(None, None, colour, None)
        points = self._points(before, face)
        parts = compare_parts(before, after, face.points5 if points is None else five_points(points))
        try:
            if points is None:
                mean = fit_points(self._landmarker.landmarks(np.full_like(before, 128), face), face.points5)
                identity, shift = self._identity(before, mean, after, mean), self._five_shift(before, after)
            else:
                moved = self._landmarker.landmarks(after, face)
                identity, shift = self._identity(before, points, after, moved), landmark_shift(points, moved)
        except ImageError:
            return FaceDrift(None, None, colour, parts)  # the points lie on one spot
        return FaceDrift(identity, shift, colour, parts)

    def five_points(self, crop: Crop) -> Points | None:
        """(5, 2) eyes, nose tip and mouth corners by which parts are compared; None where no face is seen."""
        face = self._find(crop)
        if face is None:
            return None
        points = self._points(crop, face)
        return np.reshape(face.points5, (5, 2)) if points is None else five_points(points)

    def _points(self, crop: Crop, face: Detection) -> Points | None:
        """dlib's points; None where dlib is lost."""
        points = self._landmarker.landmarks(crop, face)
        return None if disagreement(points, face.points5) > self.max_disagreement else points

    def _identity(self, before: Crop, points: Points, after: Crop, moved: Points) -> float:
        one, other = self._embedder.embed([SeenFace(before, points), SeenFace(after, moved)])
        return float(np.clip(one @ other, -1.0, 1.0))

    def _five_shift(self, before: Crop, after: Crop) -> float | None:
        one, other = self._find(before), self._find(after)
        if one is None or other is None:
            return None
        few, moved = (np.reshape(face.points5, (5, 2)) for face in (one, other))
        return 100 * float(np.hypot(*(moved - few).T).mean()) / max(float(np.hypot(*(few[1] - few[0]))), 1e-6)

    def _find(self, crop: Crop) -> Detection | None:
        return next(iter(self._detector.detect(crop)), None)


def in_crop(detection: Detection, quad: Points, size: int) -> Detection:
    """A face of the photo as it lies in the crop of `size` px that `quad` cuts; its box keeps its proportions.

    The box of a face that lies on its side stands on end in the crop.
    """
    points = crop_points(detection.points5, quad, size)
    box = np.reshape(detection.box, (2, 2))
    centre = crop_points(box.mean(axis=0), quad, size)[0]
    half = (box[1] - box[0]) / 2 * size / quad_side(quad)
    across = np.abs(np.asarray(quad)[3] - np.asarray(quad)[0])
    half = half[::-1] if across[1] > across[0] else half
    x0, y0, x1, y1 = (float(v) for v in (*(centre - half), *(centre + half)))
    return Detection((x0, y0, x1, y1), detection.score, tuple(float(v) for v in points.ravel()))


def fit_points(points68: Points, points5: object) -> Points:
    """(68, 2) points moved, turned and scaled so that their eyes, nose tip and mouth corners fit five given ones best.

    The least squares similarity in the complex plane. Of dlib's points of a flat picture, which are the mean face of
    its training, it makes what recognition needs to see a face that dlib cannot follow: its embedding then has 0.995
    with that of dlib's own points. Raises ImageError (`landmarks`) if the points lie on one spot.
    """
    many, few = points68 @ [1, 1j], np.asarray(points5, np.float64).reshape(5, 2) @ [1, 1j]
    five = five_points(points68) @ [1, 1j]
    spread = five - five.mean()
    size = float((spread.conj() @ spread).real)
    if size < 1e-12:
        raise ImageError("landmarks", "the landmarks lie on one point: this is no face")
    turn = (spread.conj() @ (few - few.mean())) / size
    moved = few.mean() + turn * (many - five.mean())
    return np.stack([moved.real, moved.imag], axis=1)


def landmark_shift(points: Points, moved: Points) -> float:
    """Mean distance of two (68, 2) sets of points in percent of the distance of the first one's eyes."""
    eyes = float(np.hypot(*(points[42:48].mean(axis=0) - points[36:42].mean(axis=0))))
    return 100 * float(np.hypot(*(moved - points).T).mean()) / max(eyes, 1e-6)


def colour_shift(before: Crop, after: Crop) -> float:
    """Mean CIEDE2000 (Sharma et al. 2005) between the coarse tones of two (h, w, 3) uint8 crops, taken as sRGB.

    Coarse is what five dilated blurs leave (`low_pass`): drift of tone and light counts, new detail does not.
    """
    step = max(1, len(before) // COARSE_SIDE)
    tones = [
        lab_of_srgb(np.clip(low_pass(crop.astype(np.float32))[::step, ::step] / 255, 0, 1)) for crop in (before, after)
    ]
    return float(ciede2000(*tones).mean())
