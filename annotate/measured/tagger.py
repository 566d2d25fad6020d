"""Tags computed from pixels and landmarks: no model, the same on every machine.

Two steps that know nothing of each other: `measure` turns a crop into physical quantities, `tags` turns
those into words, so thresholds can be set anew without reading a pixel.

`annotate tags --with measured`: every kept crop gets the tags its pixels and landmarks earn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.annotate.measured import quantities
from authface.annotate.measured.quantities import (
    SIDE,
    Eye,
    Regions,
    find_regions,
    quantile,
)
from authface.annotate.settings import MeasuredSettings
from authface.annotate.vocabulary import vocabulary
from authface.engine.workers import Step
from authface.errors import ImageError
from authface.faces.detector import RetinaFace
from authface.faces.geometry import crop_points
from authface.faces.landmarks import Dlib68
from authface.imaging import decode as images
from authface.records import Crop, Tag, Tags
from authface.store.photoset import Provenance

_SIGMAS = (0.6, 1.2, 2.4, 6.0)
"""Limits of the bands of detail, which are differences of Gaussians: pixels of the 256 px crop."""


TYPICAL, MOST, EDGES = 0.75, 0.85, 0.98
"""Quantiles: of even texture, of all but what reaches in from outside, and of edges that cover little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """What is measured of one crop; lengths are pixels of the crop brought to 256 px, L* a* b* are CIE's."""

    light: float
    """Light across the face in stops; > 0 where it comes from the picture's right."""
    lightness: float
    """Median L* of the crop, 0..100."""
    contrast: float
    """Distance of the 5th and the 95th percentile of L*, 0..100."""
    chroma: float
    """Mean chroma of the crop."""
    colour_spread: float
    """Chroma left when every tone is given one colour: 0 for grey and for toned pictures."""
    warmth: float
    """log2 of red over blue of the skin and of the whites of the eyes, against daylight portraits; > 0 is warm."""
    yaw: float
    """Degrees; > 0 turned to the picture's right."""
    tilt: float
    """Degrees; > 0 the head leans to the picture's right."""
    left_eye: Eye
    """The eye on the picture's left."""
    right_eye: Eye
    mouth_open: float
    """Gap of the inner lips over the eyes' outer distance."""
    smile: float
    """Breadth of the inner lips over the eyes' outer distance, plus how far the lower one hangs below the corners."""
    face_height: float
    """Brows to chin over the height of the crop."""
    skin_texture: float
    """Fine detail of the cheeks over that of eyes, brows and mouth."""
    sharpness: float
    """Fine detail of eyes, brows and mouth over their coarse appearance."""
    padding: float
    """Share of the crop that lay outside the photo and was made up, 0..1."""
    background_share: float
    """Share of the crop that is background, 0..1."""
    background_colour: tuple[float, float, float]
    """Median L*, a*, b* of the background."""
    background_spread: float
    """85th percentile of the background's distance from its median colour, L* a* b*."""
    background_detail: float
    """Coarse detail of the background in L*: of most of it (85th percentile)."""
    background_edges: float
    """Coarse detail of the background in L*: of its strongest edges."""
    background_sharpness: float
    """Fine detail of the background over its coarse detail, against the same of the face; 1 is as sharp as the face."""


def measure(
    rgb: NDArray[np.uint8], landmarks: NDArray[np.float64], tilt: float = 0.0, padding: float = 0.0
) -> Measures:
    """Measure a (s, s, 3) FFHQ-aligned sRGB crop with (68, 2) landmarks in its pixels.

    Alignment turns the head upright: `tilt` is how far the crop's own x axis was turned in the photo, degrees
    clockwise; `padding` is the share of the crop outside the photo, 0..1. Raises ValueError where the shapes are
    others.
    """
    regions = find_regions(rgb, landmarks)
    points = regions.points
    chroma, colour_spread = quantities.chroma(regions)
    bands = detail_bands(regions)
    features = [detail_amount(band, regions.features, EDGES) for band in (bands.fine, bands.middle, bands.coarse)]
    fine, middle, coarse = (max(value, 1e-3) for value in features)
    behind = detail_amount(bands.fine, regions.background, EDGES)
    edges = detail_amount(bands.coarse, regions.background, EDGES)
    colour, spread = _background(regions)
    left_eye, right_eye = quantities.measure_eyes(regions)
    return Measures(
        light=quantities.light_direction(regions),
        lightness=quantities.lightness(regions),
        contrast=quantities.contrast(regions),
        chroma=chroma,
        colour_spread=colour_spread,
        warmth=quantities.warmth(regions),
        yaw=regions.pose.yaw,
        tilt=regions.pose.roll + tilt,
        left_eye=left_eye,
        right_eye=right_eye,
        mouth_open=mouth_open(points),
        smile=smile(points),
        face_height=float(np.ptp(points[:27, 1])) / SIDE,
        skin_texture=detail_amount(bands.fine, regions.cheeks, TYPICAL) / fine,
        sharpness=middle / coarse,
        padding=padding,
        background_share=float(regions.background.mean()),
        background_colour=colour,
        background_spread=spread,
        background_detail=detail_amount(bands.coarse, regions.background, MOST),
        background_edges=edges,
        background_sharpness=behind / max(edges, 1e-3) / (fine / coarse),
    )


@dataclass(frozen=True)
class DetailBands:
    """Magnitude of the detail of L* between 0.6 and 1.2 px, and 2.4 px, each (256, 256), and 6 px, (128, 128)."""

    fine: NDArray[np.float32]
    middle: NDArray[np.float32]
    coarse: NDArray[np.float32]


def detail_bands(regions: Regions) -> DetailBands:
    """The three bands of a crop's L*."""
    low, middle, high, coarse = _SIGMAS
    lightness = cv2.extractChannel(regions.lab, 0)
    first, second, third = (cv2.GaussianBlur(lightness, (0, 0), sigma) for sigma in (low, middle, high))
    # What is left after 2.4 px needs every second pixel only; a blur after a blur adds the squares.
    half = cv2.resize(third, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    fourth = cv2.GaussianBlur(half, (0, 0), (coarse**2 - high**2) ** 0.5 / 2)
    return DetailBands(cv2.absdiff(first, second), cv2.absdiff(second, third), cv2.absdiff(half, fourth))


def detail_amount(band: NDArray[np.float32], part: NDArray[np.bool_], share: float) -> float:
    """Detail of one part (256, 256) in L*: a quantile of the band's magnitude, 0 where the part is empty."""
    step = len(part) // len(band)
    return quantile(band[part[::step, ::step]], share)


def mouth_open(points: NDArray[np.float64]) -> float:
    """Mean gap of the inner lips over the distance of the eyes' outer corners, 0 for a closed mouth."""
    gaps = np.hypot(*(points[[67, 66, 65]] - points[[61, 62, 63]]).T)
    return float(gaps.mean() / max(np.hypot(*(points[45] - points[36])), 1e-6))


def smile(points: NDArray[np.float64]) -> float:
    """Breadth of the inner lips over the eyes' outer distance, and how far the lower one hangs below the corners.

    The second over the mouth's width. About 0.5 for a mouth at rest and 0.75 for a smile: of fifteen such measures and
    their pairs, the pair that told 157 portraits of which a person was sure apart best (area under the curve 0.99).
    """
    across = points[54] - points[48]
    width = max(float(np.hypot(*across)), 1e-6)
    down = np.array([-across[1], across[0]]) / width
    hang = float((points[66] - points[[48, 54]].mean(0)) @ down) / width
    return float(np.hypot(*(points[64] - points[60])) / max(np.hypot(*(points[45] - points[36])), 1e-6)) + hang


def _background(regions: Regions) -> tuple[tuple[float, float, float], float]:
    """Median L*, a*, b* of the background and its spread."""
    lab = regions.lab[::2, ::2][regions.background[::2, ::2]]
    if len(lab) == 0:
        return (0.0, 0.0, 0.0), 0.0
    lightness, a, b = (quantile(lab[:, channel], 0.5) for channel in range(3))
    away = lab - np.array([lightness, a, b], np.float32)
    return (lightness, a, b), float(np.sqrt(quantile((away**2).sum(1), 0.85)))  # the rest may be hair, or a logo


def tags(measures: Measures, limits: MeasuredSettings) -> tuple[Tag, ...]:
    """The tags that `measures` earn, in the vocabulary's order.

    A tag's confidence is 0.5 at its limit and grows to 1 with the distance from it (logistic, in units of
    what the measure changes by when the crop is compressed and resized).
    """
    found = [*_of_face(measures, limits), *_of_light(measures, limits), *_of_background(measures, limits)]
    return vocabulary.in_order(vocabulary.make_tag(name, sure) for name, sure in found if sure >= 0.5)


ScoredTags = Iterator[tuple[str, float]]
"""Names with their confidence, 0..1."""


def _of_face(m: Measures, limits: MeasuredSettings) -> ScoredTags:
    yield "close-up portrait", _above(m.face_height, limits.close_up, 0.02)
    yield "facing the camera", _above(-abs(m.yaw), -limits.facing, 1.5)
    yield "head turned to the left", _above(-m.yaw, limits.turned, 1.5)
    yield "head turned to the right", _above(m.yaw, limits.turned, 1.5)
    yield "head tilted to the left", _above(-m.tilt, limits.tilted, 1.0)
    yield "head tilted to the right", _above(m.tilt, limits.tilted, 1.0)
    yield "smiling", _above(m.smile, limits.smile, 0.02)
    yield "mouth open", _above(m.mouth_open, limits.mouth_open, 0.008)
    yield "mouth closed", _above(-m.mouth_open, -limits.mouth_closed, 0.008)
    yield from _of_eyes(m.left_eye, m.right_eye, limits)
    if m.sharpness >= limits.sharp_face:
        yield "detailed skin texture", _above(m.skin_texture, limits.skin_texture, 0.01)
        yield "smooth skin", _above(-m.skin_texture, -limits.skin_smooth, 0.005)


def _of_eyes(left: Eye, right: Eye, limits: MeasuredSettings) -> ScoredTags:
    """Where both eyes are open and an iris is seen; what lies between the camera and a side has no word."""
    if min(left.opening, right.opening) < limits.eyes_open or max(left.iris, right.iris) < limits.iris:
        return
    weights = left.iris**2, right.iris**2  # the eye in shadow, behind a rim or far around the head counts less
    gaze = (weights[0] * left.gaze + weights[1] * right.gaze) / sum(weights)
    yield "looking at the camera", _above(-abs(gaze), -limits.gaze_camera, 0.03)
    yield "looking to the left", _above(-gaze, limits.gaze_aside, 0.05)
    yield "looking to the right", _above(gaze, limits.gaze_aside, 0.05)


def _of_light(m: Measures, limits: MeasuredSettings) -> ScoredTags:
    yield "light from the left", _above(-m.light, limits.side_light, 0.1)
    yield "light from the right", _above(m.light, limits.side_light, 0.1)
    yield "low key", _above(-m.lightness, -limits.low_key, 1.5)
    yield "high key", _above(m.lightness, limits.high_key, 1.5)
    yield "high contrast", _above(m.contrast, limits.high_contrast, 1.5)
    yield "low contrast", _above(-m.contrast, -limits.low_contrast, 1.5)
    if m.colour_spread < limits.monochrome:
        grey = m.chroma < limits.grey
        yield "black and white" if grey else "toned monochrome", _above(-m.colour_spread, -limits.monochrome, 0.3)
        return
    yield "warm tones", _above(m.warmth, limits.warm, 0.1)
    yield "cool tones", _above(-m.warmth, -limits.cool, 0.1)
    yield "vivid colours", _above(m.chroma, limits.vivid, 1.0)
    yield "muted colours", _above(-m.chroma, -limits.muted, 0.5)


def _of_background(m: Measures, limits: MeasuredSettings) -> ScoredTags:
    if m.background_share < limits.background_share or m.padding > limits.padding:
        return
    plain = min(
        _above(-m.background_spread, -limits.plain_spread, 0.7),
        _above(-m.background_detail, -limits.plain_detail, 0.3),
    )
    yield "plain background", plain
    if plain >= 0.5:
        if colour := _backdrop(*m.background_colour):
            yield colour, plain
    elif m.background_edges >= limits.background_edges and m.sharpness >= limits.sharp_face:
        yield "shallow depth of field", _above(-m.background_sharpness, -limits.shallow, 0.05)
        yield "background in focus", _above(m.background_sharpness, limits.in_focus, 0.05)


def _backdrop(lightness: float, a: float, b: float) -> str | None:
    """The name of a backdrop's colour, where it has one that nobody would dispute."""
    chroma, hue = math.hypot(a, b), math.degrees(math.atan2(b, a)) % 360
    if chroma < 8:
        if lightness > 90:
            return "white background"
        if lightness < 15:
            return "black background"
        return "grey background" if 25 < lightness < 80 else None
    if chroma > 30:
        # CIELAB hues of the sRGB primaries: red 40, green 136, blue 306; skies and blue backdrops reach down to 220.
        for name, low, high in (("red", 5, 50), ("green", 115, 180), ("blue", 220, 310)):
            if low <= hue <= high:
                return f"{name} background"
    return None


def _above(value: float, limit: float, spread: float) -> float:
    """Confidence that `value` lies above `limit`, 0..1."""
    return 1 / (1 + math.exp(-max(-50.0, min(50.0, (value - limit) / spread))))


class Tagger:
    """Finds the face of an image and measures its tags, by the thresholds of `annotate tags --with measured`.

    The networks are loaded at the first image. `min_score` 0..1 is the least confidence of the detector.
    """

    def __init__(self, limits: MeasuredSettings | None = None, min_score: float = 0.5) -> None:
        self.limits = limits or MeasuredSettings()
        self.min_score = min_score

    def __call__(self, rgb: NDArray[np.uint8]) -> tuple[Tag, ...]:
        """The tags of an aligned (s, s, 3) face, in the vocabulary's order. Raises ImageError (`no_face`)."""
        detector, landmarks = self._networks
        faces = detector.detect(rgb)
        if not faces:
            raise ImageError("no_face", f"no face of a score over {self.min_score} in it")
        return tags(measure(rgb, landmarks.landmarks(rgb, faces[0])), self.limits)

    @cached_property
    def _networks(self) -> tuple[RetinaFace, Dlib68]:
        return RetinaFace(self.min_score), Dlib68()


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
