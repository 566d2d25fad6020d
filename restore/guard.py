"""Whether a restored face still shows the same person: identity, eyes and mouth, landmarks and colours of the input.

Eyes and mouth are compared each by itself. An honest restoration, blurred as its photo is, is the photo again, but for
noise. So the two are laid on each other at one size; the blur and the contrast that take the restored face to the photo
are found; and what then still differs in a part counts beyond what differs in the rest of the face, which is the
photo's noise and what the blur does not explain. The worse the photo, the more of a broken part its noise hides.

The input is a weak witness where it is badly degraded: what blur took, no number brings back. A low identity says
that the face changed, not that it became wrong; the limits are the user's (`restore.min_identity`, `.min_parts`). A
recogniser sees the whole face and hardly notices a broken mouth, so eyes and mouth are looked at by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.errors import ImageError
from authface.faces.detector import Detection, RetinaFace
from authface.faces.geometry import crop_points, quad_side, warp
from authface.faces.identity import Embedder, SeenFace, five_points, make_embedder
from authface.faces.landmarks import Dlib68, disagreement
from authface.restore.model.crops import LUMA, ciede2000, lab_of_srgb, low_pass

SUSPECT = 0.9
"""A part less like its photo's than this is to be looked at. Of honest restorations (`benchmarks/parts.py`) at most
1 in 50 have one."""
UNIT = 40
"""Pixels between the eyes where faces are compared; lengths below are in parts of it."""
SIDE = 128
"""Of the square they are compared in, pixels."""
LEAST_UNIT = 2.0
"""Of the crop, pixels: with eyes less than this apart nothing is seen."""
BLURS = (0.0, 0.02, 0.04, 0.06, 0.09, 0.12, 0.16, 0.2, 0.25)
"""Sigmas that may take the restored face to its photo."""
FINEST, FIT_AT, COARSE = 0.02, 0.03, 0.3
"""Sigmas: of what is compared at best, of what the blur is found by, and of the light, which is not compared."""
GAIN = (0.5, 1.5)
"""Of the photo's contrast to the restored face's."""
ALLOWED = 1.5
"""A part may differ by so many times the mean square that the rest of the face does."""
FLOOR = 20.0
"""Levels squared: so little contrast is no pattern."""
EYE, FACE = (0.32, 0.22), (1.1, 1.2)
"""Half axes of the ovals."""
MOUTH = (0.75, 0.34)
"""Likewise; across in widths of the mouth, which is at least half a unit wide."""

Crop = NDArray[np.uint8]
Plane = NDArray[np.float32]


@dataclass(frozen=True)
class FaceParts:
    """How like its photo's each part of a restored face is, 0..1; 1: nothing speaks against it. Right is the person's
    own right."""

    right_eye: float
    left_eye: float
    mouth: float

    @property
    def least(self) -> float:
        """The likeness of the worst."""
        return min(self.right_eye, self.left_eye, self.mouth)

    def below(self, limit: float) -> dict[str, float]:
        """The parts that are less like their photo's, by name, the worst first."""
        values = asdict(self)
        return {name: value for name, value in sorted(values.items(), key=lambda one: one[1]) if value < limit}


SAME = FaceParts(1.0, 1.0, 1.0)
NAMES = tuple(field.name for field in fields(FaceParts))


class HasParts(Protocol):
    """What has the parts, such as `FaceParts` or a line of the log."""

    @property
    def right_eye(self) -> float | None: ...
    @property
    def left_eye(self) -> float | None: ...
    @property
    def mouth(self) -> float | None: ...


def suspect_below(least: float) -> float:
    """A part less like its photo's is to be looked at, also where less, `least`, is enough for it to be kept."""
    return max(least, SUSPECT)


def parts_text(measured: HasParts, names: Iterable[str] = NAMES) -> str:
    """Some of the parts in words: ``mouth 0.41, left eye 0.62``; empty where none was measured. Rounded down: what is
    below a limit reads so."""
    values = [(name.replace("_", " "), getattr(measured, name)) for name in names]
    down = [(name, math.floor(value * 100 + 1e-6) / 100) for name, value in values if value is not None]
    return ", ".join(f"{name} {value:.2f}" for name, value in down)


def compare_parts(before: Crop, after: Crop, points5: object) -> FaceParts | None:
    """Compare the parts of two (size, size, 3) uint8 crops of a face; None where the points show none.

    `points5` are the eyes, nose tip and mouth corners of `before`, as a detection has them, in pixels of the crop.
    """
    placed = _frame(np.asarray(points5, np.float64).reshape(5, 2))
    if placed is None:
        return None
    turn, (right, left, _, *corners) = placed
    photo, restored = _pattern(before, turn), _pattern(after, turn)
    wide = max(float(np.hypot(*(corners[1] - corners[0]))) / UNIT, 0.5)
    ovals = [_oval(right, *EYE), _oval(left, *EYE), _oval(np.mean(corners, axis=0), MOUTH[0] * wide, MOUTH[1])]
    face = _oval(np.full(2, (SIDE - 1) / 2), *FACE)
    blur, gain = _fit(photo, restored, face)
    finest = max(FINEST, blur / 2)
    seen, made = _blurred(photo, finest), gain * _blurred(restored, float(np.hypot(blur, finest)))
    error, signal = (seen - made) ** 2, seen**2 + made**2
    likeness = []
    for oval in ovals:
        rest = np.maximum(face - oval, 0)
        excess = _mean(error, oval) - ALLOWED * _mean(error, rest)
        likeness.append(max(0.0, 1 - (max(0.0, excess) / (_mean(signal, oval) + FLOOR)) ** 0.5))
    return FaceParts(*likeness)


def _frame(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """(2, 3) from the square in which faces are compared to the crop, and the five points in that square.

    Eyes lie level in it, `UNIT` px apart, or nearer where a face is turned: as in `ffhq_quad` its height then counts.
    """
    eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    across, down = points[1] - points[0], mouth - eyes
    distance = float(np.hypot(*across))
    unit = max(distance, 0.9 * float(np.hypot(*down)))
    if not np.isfinite(points).all() or distance < 1e-6 or unit < LEAST_UNIT:
        return None
    x = across / distance * unit / UNIT
    turn = np.array([[x[0], -x[1]], [x[1], x[0]]])
    shift = (eyes + mouth) / 2 - turn @ np.full(2, (SIDE - 1) / 2)
    return np.column_stack([turn, shift]), (points - shift) @ np.linalg.inv(turn).T


def _pattern(crop: Crop, turn: NDArray[np.float64]) -> Plane:
    """(SIDE, SIDE) lightness less that of the coarse light, which commutes with blurs."""
    grey = warp(crop, turn, SIDE, SIDE).astype(np.float32) @ np.array(LUMA, np.float32)
    few = cv2.resize(grey, (SIDE // 4, SIDE // 4), interpolation=cv2.INTER_AREA)
    light = cv2.resize(_blurred(few, COARSE / 4), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    return np.asarray(grey - light)


def _oval(centre: NDArray[np.float64], across: float, down: float) -> Plane:
    """(SIDE, SIDE) weights 0..1: 0.37 on the ellipse of these half axes."""
    y, x = np.mgrid[:SIDE, :SIDE]
    apart = ((x - centre[0]) / (across * UNIT)) ** 2 + ((y - centre[1]) / (down * UNIT)) ** 2
    return np.asarray(np.exp(-(apart**2)), np.float32)


def _blurred(grey: Plane, sigma: float) -> Plane:
    return np.asarray(cv2.GaussianBlur(grey, (0, 0), sigma * UNIT))


def _fit(photo: Plane, restored: Plane, face: Plane) -> tuple[float, float]:
    """The blur among `BLURS`, and the gain, by which the restored face comes nearest to its photo."""
    seen = _blurred(photo, FIT_AT)
    found = []
    for blur in BLURS:
        made = _blurred(restored, float(np.hypot(blur, FIT_AT)))
        gain = float(np.clip(np.vdot(face * seen, made) / max(float(np.vdot(face * made, made)), 1e-6), *GAIN))
        found.append((_mean((seen - gain * made) ** 2, face), blur, gain))
    return min(found)[1:]


def _mean(values: Plane, weights: Plane) -> float:
    return float(np.vdot(values, weights)) / max(float(weights.sum()), 1e-6)


FIND_SCORE = 0.5
"""Least score of the detector on a crop, which is known to be of a face."""
COARSE_SIDE = 64
"""Coarse tones are compared on so many pixels a side: they hold no finer detail."""

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
