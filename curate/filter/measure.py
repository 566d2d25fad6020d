"""The measures of a face and the limits on them: what `curate filter` reads of the pixels, and what it decides by.

The first pass finds the faces of every photo and measures them. It rejects nothing and depends on no limit, so changing
one needs no second pass over the photos. Limits are pure functions that read no pixels, cheap ones first. Metrics by
name, pyiqa's and those of other packages, are the dear ones, each over what is left; pyiqa and torch are loaded only
where a metric of pyiqa is asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.backends import backend_names, backend_version, load_backend
from authface.curate.filter.duplicates import FREQUENCIES
from authface.curate.filter.measures import processing, quality
from authface.curate.filter.measures.quality import piqe
from authface.curate.settings import FilterSettings, lower_better
from authface.devices import pick_device
from authface.engine.workers import Step
from authface.errors import ImageError, one_line
from authface.extras import need
from authface.faces.detector import Detection, Detector, make_detector, weights_sha256
from authface.faces.geometry import warp
from authface.faces.landmarks import Dlib68
from authface.imaging import decode as images
from authface.metrics.quality import QualityMetric, loading, pyiqa_version
from authface.records import Crop, Face, Photo, Points5
from authface.store.photoset import PhotoSet, Provenance

Row = TypeVar("Row", Face, Crop)


@dataclass(frozen=True)
class Limit:
    """One threshold on one measure of `records.Face`."""

    setting: str
    """Its name in `FilterSettings`: ``min_...`` rejects lower values, ``max_...`` higher ones."""
    measure: str
    reason: str

    @property
    def least(self) -> bool:
        """Whether values below the limit are rejected, rather than those above."""
        return self.setting.startswith("min_")

    def value(self, face: Face) -> float | None:
        """The value that is compared with the limit: the measure, of an angle its size; None if it was not measured."""
        value: float | None = getattr(face, self.measure)
        return abs(value) if value is not None and self.measure in ANGLES else value

    def refuses(self, value: float, limit: float) -> bool:
        """Whether `value` lies beyond `limit`."""
        return value < limit if self.least else value > limit


ANGLES = frozenset({"yaw", "pitch", "roll"})

LIMITS = (
    Limit("min_score", "score", "unsure"),
    Limit("min_size", "size", "small_face"),
    Limit("max_yaw", "yaw", "turned_aside"),
    Limit("max_pitch", "pitch", "turned_up_or_down"),
    Limit("max_roll", "roll", "leaning"),
    Limit("min_exposure", "exposure", "too_dark"),
    Limit("max_exposure", "exposure", "too_bright"),
    Limit("max_clipped", "clipped", "clipped"),
    Limit("min_sharpness", "sharpness", "blurred"),
    Limit("max_noise", "noise", "noisy"),
    Limit("max_pepper", "pepper", "pepper_noise"),
    Limit("max_blockiness", "blockiness", "blocky"),
    Limit("max_pixelation", "pixelation", "pixelated"),
    Limit("min_resolution", "resolution", "enlarged"),
    Limit("max_sharpening", "sharpening", "over_sharpened"),
    Limit("max_smoothing", "smoothing", "over_smoothed"),
    Limit("max_hatching", "hatching", "hatched"),
    Limit("max_piqe", "piqe", "low_quality"),
)
"""In the order they are checked: the first broken one is the reason."""


@dataclass(frozen=True)
class Neighbours:
    """What a face's verdict depends on beside the face itself."""

    in_photo: int = 1
    """Faces found in its photo."""
    repeats: str = ""
    """Id of the better face it nearly repeats, if any."""
    distance: int = 0
    """To that face, bits."""


def judge(face: Face, near: Neighbours, limits: FilterSettings) -> Face:
    """A measured face with its verdict before any metric of pyiqa; a face that is not `kept` stays as it is."""
    face = judge_alone(face, near.in_photo, limits)
    if face.status == "kept" and near.repeats:
        return replace(
            rejected(face, "near_duplicate", near.distance, limits.duplicate_radius), duplicate_of=near.repeats
        )
    return face


def judge_alone(face: Face, in_photo: int, limits: FilterSettings) -> Face:
    """The verdict without near duplicates."""
    if face.status != "kept":
        return face
    if limits.faces == "one" and in_photo > 1:
        return rejected(face, "several_faces", in_photo, 1)
    if limits.faces == "largest" and face.index > 0:
        return rejected(face, "not_largest", face.index + 1, 1)
    for limit, value, bound in broken(face, limits):
        return rejected(face, limit.reason, value, bound)
    return face


def broken(face: Face, limits: FilterSettings) -> Iterator[tuple[Limit, float, float]]:
    """Every limit that the face breaks, in order, with its value and bound."""
    for limit in LIMITS:
        value, bound = limit.value(face), getattr(limits, limit.setting)
        if value is not None and limit.refuses(value, bound):
            yield limit, value, bound


def judge_score(face: Face, metric: str, limits: Mapping[str, float], *, lower_better: bool) -> Face:
    """The verdict once the face has a score of `metric`, the last in `face.scores`."""
    value, limit = face.scores[-1].value, limits[metric]
    if value > limit if lower_better else value < limit:
        return rejected(face, f"{'high' if lower_better else 'low'}_{metric}", value, limit)
    return face


def rejected(row: Row, reason: str, value: float, limit: float) -> Row:
    """The row of a face or a crop, rejected."""
    return replace(row, status="rejected", reason=reason, value=value, limit=limit)


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
HASH_SIDE = 32
"""Pixels the face is seen at for its hash."""
SIDE_IN_EYES, EYES_DOWN = 2.8, 0.286
"""Side of what is seen of the face in distances of the eyes, and where the eyes lie in it, of its height."""
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
    light, clipped = quality.exposure(region)
    traces = processing.face_traces(region)
    return replace(
        face,
        sharpness=quality.sharpness(region),
        noise=quality.noise(region),
        pepper=quality.pepper(region),
        smoothing=quality.smoothing(region),
        hatching=quality.hatching(region),
        blockiness=quality.blockiness(region),
        pixelation=processing.pixelation(traces),
        sharpening=processing.sharpening(traces),
        exposure=light,
        clipped=clipped,
        resolution=quality.resolution(region),
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


_CHEAP = ("musiq", "topiq_nr", "topiq_nr-face", "clipiqa", "clipiqa+")
"""Seconds a megapixel on a CPU by pyiqa's own table: 0.6 to 1.1; ..."""
_DEAR = ("maniqa", "qalign", "qrealign")
"""... 13 and more. Every other metric is taken between them."""
_OPTIONS = {name: {"align_crop_face": False} for name in ("topiq_nr-face", "topiq_nr_swin-face")}
"""They would look for the face again: the region is aligned as they do it, to within a few percent of its side."""
DIGITS = 4
"""Decimals that are kept of a score: in the ones beyond, the other faces of a batch can show."""


class FaceMetric(Protocol):
    """Scores faces; made with the name of a device. Packages register theirs in `authface.metrics`."""

    lower_better: bool

    def __call__(self, regions: Sequence[NDArray[np.uint8]]) -> Sequence[float]:
        """Scores of (h, w, 3) uint8 RGB pictures of one size, each independent of the others."""
        ...


def make_metric(name: str, device: str) -> FaceMetric:
    """The metric called `name`, loaded. Raises UsageError for an unknown one, AuthfaceError without its weights."""
    if name not in backend_names("metrics"):
        return RegionMetric(name, device)
    metric: FaceMetric = load_backend("metrics", name)(device)
    return metric


def versions(names: Collection[str]) -> dict[str, str]:
    """What the scores of metrics depend on: pyiqa's release, and the package of each that is not pyiqa's."""
    registered = backend_names("metrics")
    for name in names:
        if name not in registered:
            _need_pyiqa(name)
    return dict(
        (name, backend_version("metrics", name)) if name in registered else ("pyiqa", pyiqa_version()) for name in names
    )


def _need_pyiqa(name: str) -> None:
    need(f"curate.filter.metrics {one_line(name)}", "evaluate", "pyiqa")


def in_order(names: Iterable[str]) -> list[str]:
    """Metrics from the cheapest to the dearest."""
    return sorted(names, key=lambda name: (_rank(name), name))


def _rank(name: str) -> float:
    if name in _CHEAP:
        return _CHEAP.index(name) - len(_CHEAP)
    return 1.0 if name.startswith(_DEAR) else 0.0


class RegionMetric:
    """One metric with its weights on a device, for the regions of faces."""

    def __init__(self, name: str, device: str) -> None:
        import torch

        self.name = name
        self.lower_better = lower_better(name)
        place = one_line(torch.hub.get_dir())
        advice = f"run once with a network, or copy its weights into {place}/pyiqa from a machine that has them"
        with loading(f"the metric {name} cannot be loaded", advice):
            self._metric = QualityMetric(name, pick_device(device), **_OPTIONS.get(name, {}))

    def __call__(self, regions: Sequence[NDArray[np.uint8]]) -> list[float]:
        """Scores of (h, w, 3) uint8 pictures of one size."""
        return self._metric(regions)


def face_hash(rgb: NDArray[np.uint8]) -> str:
    """The hash of a (256, 256, 3) uint8 face region (`quality.face_region`) as 36 hex digits, 144 bits.

    Bit k is the sign of frequency (k // 12, k % 12) of the discrete cosine transform of the face, grey, from the
    brows to the chin, at 32 x 32 pixels; the first, the mean's, is always 1.
    """
    # dlib errs to one side; the mean of both ways errs to neither, so that a mirrored face is cut as its mirror image.
    left, right = (_eyes(rgb) + _eyes_of_mirrored(rgb)) / 2
    x = (right - left) * SIDE_IN_EYES / HASH_SIDE
    y = np.array([-x[1], x[0]])
    first = (left + right) / 2 - x * (HASH_SIDE - 1) / 2 - y * (HASH_SIDE * EYES_DOWN - 0.5)
    face = warp(rgb, np.stack([x, y, first], axis=1), HASH_SIDE, HASH_SIDE)
    waves = cv2.dct(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float32))
    return np.packbits(waves[:FREQUENCIES, :FREQUENCIES] > 0).tobytes().hex()


def _eyes(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(2, 2) the middles of the eyes on the left and on the right of a face region."""
    points = _landmarker().landmarks(rgb, _usual_face())
    return np.stack([points[36:42].mean(axis=0), points[42:48].mean(axis=0)])


def _eyes_of_mirrored(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The same by the region's mirror image, in which dlib sees them a little elsewhere."""
    right, left = _eyes(np.ascontiguousarray(rgb[:, ::-1]))
    last = rgb.shape[1] - 1
    return np.array([[last - left[0], left[1]], [last - right[0], right[1]]])


@functools.cache
def _landmarker() -> Dlib68:
    return Dlib68()


@functools.cache
def _usual_face() -> Detection:
    """What RetinaFace says of a face in its region: medians over 10,235 portraits."""
    points = (95.5, 107.0, 159.5, 107.0, 127.0, 145.2, 100.7, 173.1, 155.0, 173.1)
    return Detection((47.8, 45.7, 209.4, 207.3), 1.0, points)
