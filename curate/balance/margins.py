"""A word for every kept face in each of a few margins (pose, light, skin tone ...), and their shares of the set.

Skin tone is a measure of a picture, not of a person: light, exposure and white balance move it by tens of degrees.
Shares over many photos say something; a single value does not, and nothing of it is stored. No count that is shown
points at people.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.console import Tick
from authface.engine.runner import PartInput
from authface.errors import ImageError
from authface.faces.geometry import crop_points
from authface.imaging import decode as images
from authface.metrics.stats import wilson
from authface.records import Crop, Tag
from authface.store.photoset import PhotoSet, Table
from authface.store.rowfile import IdFile, RowFile

SKIN_BANDS = (("very-light", 55.0), ("light", 41.0), ("intermediate", 28.0), ("tan", 10.0), ("brown", -30.0))
"""Names and least angles, degrees (Del Bino and Bernerd 2013); below the last is `dark`."""
MARGINS: dict[str, tuple[str, ...]] = {
    "pose": ("far-left", "left", "frontal", "right", "far-right", "unknown"),
    "light": ("from-left", "from-right", "backlit", "from-neither", "unknown"),
    "hardness": ("hard", "soft", "between", "unknown"),
    "expression": ("smiling", "mouth-open", "calm", "other", "unknown"),
    "age": ("child", "teenager", "young-adult", "middle-aged", "elderly", "unknown"),
    "glasses": ("glasses", "sunglasses", "none", "unknown"),
    "beard": ("beard", "moustache-or-stubble", "none", "unknown"),
    "skin": (*(name for name, _ in SKIN_BANDS), "dark", "unknown"),
    "size": ("under-128", "128-255", "256-511", "512-1023", "1024-up"),
    "source": (),
    "licence": (),
}
"""Margins and their words in order; the last two take the words of the set. Left and right are the picture's."""
NOTES = {
    "pose": "turn of the head: frontal within 10 degrees, far beyond 30",
    "light": "side the light falls from, by the tags",
    "hardness": "edges of shadows, by the tags",
    "expression": "by the tags",
    "age": "by the tags, where an annotator says it",
    "glasses": "by the tags of an annotator that says what is worn; none where it names none",
    "beard": "by the tags of an annotator that speaks of hair; none where it names none",
    "skin": "individual typology angle of the cheeks, measured; it moves with the light of the photo",
    "size": "longer side of the face's box in the photo, pixels",
    "source": "where the photos come from",
    "licence": "what their source or their collector stated",
}
_SIZES = ((1024.0, "1024-up"), (512.0, "512-1023"), (256.0, "256-511"), (128.0, "128-255"))
_LIGHT = {"light from the left": "from-left", "light from the right": "from-right", "backlit": "backlit"}
_SEEN = {"age", "hair", "accessories"}
"""Groups of tags that say who is seen and what is worn, which measured tags do not."""
_GLASSES = {"sunglasses": "sunglasses", "glasses": "glasses"}
_BEARD = {"beard": "beard", "goatee": "beard"} | dict.fromkeys(("moustache", "stubble"), "moustache-or-stubble")
_AT_ONCE = 1 << 14
"""Faces whose words are read at a time."""
_POSE = {"facing the camera": "frontal", "head turned to the left": "left", "head turned to the right": "right"}


class MarginWords:
    """The word of every face in every margin, in temporary files.

    Raises AuthfaceError where the disk refuses them.
    """

    def __init__(self) -> None:
        self.words = {name: list(words) for name, words in MARGINS.items()}
        """The words of each margin, in order."""
        self.ids = IdFile()
        """Of all faces."""
        self._codes = RowFile(len(self.words), dtype=np.uint32)
        self._rows: dict[int, slice] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, part: int, faces: Iterable[tuple[str, Mapping[str, str]]]) -> None:
        """Add the faces of a part, each with its word of every margin."""
        start, ids, codes = len(self), list[str](), array("I")
        for face_id, said in faces:
            ids.append(face_id)
            for margin, words in self.words.items():
                if said[margin] not in words:
                    words.append(said[margin])
                codes.append(words.index(said[margin]))
        self.ids.extend(ids)
        self._codes.append(np.array(codes, np.uint32).reshape(-1, len(self.words)))
        self._rows[part] = slice(start, len(self))

    def rows_of(self, part: int) -> slice:
        """Where the faces of a part are among all; nowhere those of one that was not added."""
        return self._rows.get(part, slice(0, 0))

    def of_part(self, part: int) -> Iterator[tuple[str, Sequence[int]]]:
        """Id and codes of each face of a part."""
        rows = self.rows_of(part)
        yield from zip(self.ids[rows], self._codes[rows].tolist(), strict=True)

    def kinds(self, margins: Sequence[str]) -> Iterator[tuple[slice, NDArray[np.int64]]]:
        """Places of some thousand faces, and of each the number of its words of some margins together."""
        columns = [list(self.words).index(margin) for margin in margins]
        for start in range(0, len(self), _AT_ONCE):
            rows = slice(start, min(start + _AT_ONCE, len(self)))
            codes = self._codes[rows][:, columns].astype(np.int64)
            yield rows, np.ravel_multi_index(tuple(codes.T), self._shape(margins)).astype(np.int64)

    def words_of_kinds(self, margins: Sequence[str], kinds: NDArray[np.int64]) -> NDArray[np.int64]:
        """(kinds, margins) the number of the word of each margin, of kinds as `kinds` gives them."""
        return np.stack(np.unravel_index(kinds, self._shape(margins)), axis=1)

    def counts(self, margin: str, among: NDArray[np.bool_] | None = None) -> list[int]:
        """How many faces each word of a margin has, of all or of those that `among` marks."""
        total = np.zeros(len(self.words[margin]), np.int64)
        for rows, codes in self.kinds([margin]):
            total += np.bincount(codes if among is None else codes[among[rows]], minlength=len(total))
        return [int(count) for count in total]

    def cross(self, one: str, other: str) -> NDArray[np.int64]:
        """How many faces each pair of words of two margins has, (words of one, words of the other)."""
        shape = self._shape((one, other))
        total = np.zeros(math.prod(shape), np.int64)
        for _, pairs in self.kinds([one, other]):
            total += np.bincount(pairs, minlength=len(total))
        return total.reshape(shape)

    def _shape(self, margins: Sequence[str]) -> tuple[int, ...]:
        return tuple(len(self.words[margin]) for margin in margins)


def read_margin_words(photoset: PhotoSet, parts: Sequence[PartInput[Crop]], tick: Tick, workers: int) -> MarginWords:
    """The words of every kept crop in `parts`; skin is measured in `workers` threads, since it is not stored."""
    found = MarginWords()
    tables = [
        photoset.tags(name) for name in sorted(photoset.annotators(), key=lambda name: (name != "measured", name))
    ]
    annotated = [(table, set(table.parts())) for table in tables]
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for part in parts:
            crops = [crop for crop in part.rows() if crop.status == "kept"]
            faces = _kept(photoset.faces, part.number, ("yaw", "size"))
            photos = _kept(photoset.photos, part.number, ("source", "licence"))
            tags = [_kept(table, part.number, ("tags",)) for table, there in annotated if part.number in there]
            angles = pool.map(partial(_angle, photoset), crops)
            said = list[tuple[str, dict[str, str]]]()
            for crop, angle in zip(crops, angles, strict=True):
                tagged = [[Tag(**tag) for tag in table[crop.id][0]] for table in tags if crop.id in table]
                (source, licence), (yaw, size) = photos[crop.photo_id], faces[crop.id]
                said.append((crop.id, words_of(MeasuredFace(source, licence, yaw, size, angle), tagged)))
                tick(1)
            found.add(part.number, said)
    return found


def _kept(table: Table[Any], part: int, names: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Some columns of the kept rows of a part, by id."""
    rows = table.columns(part, ("id", "status", *names))
    return {name: tuple(values) for name, status, *values in rows if status == "kept"}


@dataclass(frozen=True)
class MeasuredFace:
    """What is known of a face without its tags."""

    source: str
    licence: str
    yaw: float | None
    """Degrees."""
    size: float | None
    """Pixels."""
    angle: float | None
    """Of its skin, degrees."""


def words_of(face: MeasuredFace, said: Sequence[Sequence[Tag]]) -> dict[str, str]:
    """The word of one face in every margin; `said` are the tags by each annotator, most trusted first.

    Silence is a word only of an annotator that would have spoken: measured tags of light, a captioner's of glasses.
    """
    measured = any(tags and not any(tag.group in _SEEN for tag in tags) for tags in said)

    def of(group: str, choose: Callable[[set[str]], str]) -> str:
        names = next((found for tags in said if (found := {tag.name for tag in tags if tag.group == group})), set())
        return choose(names) if names or measured else "unknown"

    def seen(group: str, words: Mapping[str, str]) -> str:
        """By the first annotator that says what is seen: its silence then means that nothing is there."""
        names = next((tags for tags in said if any(tag.group in _SEEN for tag in tags)), None)
        found = {tag.name for tag in names or () if tag.group == group}
        return "unknown" if names is None else _first(words, "none", found)

    size = face.size or 0.0
    return {
        "pose": _pose(face.yaw) if face.yaw is not None else of("pose", partial(_first, _POSE, "unknown")),
        "light": of("lighting", partial(_first, _LIGHT, "from-neither")),
        "hardness": of("lighting", partial(_first, {"hard light": "hard", "soft light": "soft"}, "between")),
        "expression": of("expression", _expression),
        "age": of("age", lambda names: min(names).replace(" ", "-") if names else "unknown"),
        "glasses": seen("accessories", _GLASSES),
        "beard": seen("hair", _BEARD),
        "skin": skin_band(face.angle),
        "size": next((name for least, name in _SIZES if size >= least), "under-128"),
        "source": face.source,
        "licence": face.licence or "unknown",
    }


def _first(words: Mapping[str, str], otherwise: str, names: set[str]) -> str:
    return next((word for name, word in words.items() if name in names), otherwise)


def _pose(yaw: float) -> str:
    side = "right" if yaw > 0 else "left"
    return "frontal" if abs(yaw) <= 10 else side if abs(yaw) <= 30 else f"far-{side}"


def _expression(names: set[str]) -> str:
    if "smiling" in names:
        return "smiling"
    if "mouth open" in names:
        return "mouth-open"
    return "calm" if names & {"mouth closed", "neutral expression"} else "other"


def _angle(photoset: PhotoSet, crop: Crop) -> float | None:
    """The typology angle of a crop; None if its file cannot be read."""
    try:
        rgb = images.decode(photoset.read(crop.file)).rgb
    except ImageError:
        return None
    points = np.reshape(crop.landmarks or (), (68, 2)), np.reshape(crop.quad or (), (4, 2))
    return typology_angle(rgb, crop_points(*points, crop.size))


SKIN_SIDE = 128
"""Side a crop is brought to, pixels: skin's colour needs no more, and its noise averages out."""
LEAST_YELLOW = 3.0
"""Least b* of skin that has a tone to speak of: grey and blue pictures have less, and their angle means nothing."""
LEAST_PIXELS = 40
_CHEEKS = ((41, 40, 31, 48, 4, 2), (46, 47, 35, 54, 12, 14))
"""iBUG points around each cheek: lower lid, nostril, corner of the mouth, jaw."""
_SHRINK = 0.6
"""Size of the patch within that outline: away from hair, nose, lips and the shade of the jaw."""


def typology_angle(rgb: NDArray[np.uint8], points: NDArray[np.float64]) -> float | None:
    """ITA = atan2(L* - 50, b*) in degrees, of the medians of CIE L* and b* (D65) of both cheeks; 90 is palest.

    `rgb` is a (s, s, 3) sRGB crop, `points` its (68, 2) landmarks in crop pixels. None if too little skin is
    visible (burnt and black pixels do not count) or it has no colour.
    """
    size = rgb.shape[0]
    small = cv2.resize(rgb, (SKIN_SIDE, SKIN_SIDE), interpolation=cv2.INTER_AREA) if size != SKIN_SIDE else rgb
    mask = np.zeros((SKIN_SIDE, SKIN_SIDE), np.uint8)
    for cheek in _CHEEKS:
        outline = (np.asarray(points, np.float64)[list(cheek)] + 0.5) * (SKIN_SIDE / size) - 0.5
        middle = outline.mean(axis=0)
        cv2.fillPoly(mask, [np.rint(middle + _SHRINK * (outline - middle)).astype(np.int32)], 1)
    skin = small[mask.astype(bool)]
    skin = skin[(skin.max(axis=1) < 254) & (skin.max(axis=1) > 16)]
    if len(skin) < LEAST_PIXELS:
        return None
    lab = cv2.cvtColor(skin[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    lightness, yellow = np.median(lab[:, ::2], axis=0).tolist()
    return math.degrees(math.atan2(lightness - 50, yellow)) if yellow >= LEAST_YELLOW else None


def skin_band(angle: float | None) -> str:
    """The name of an angle's band; `unknown` for None."""
    if angle is None:
        return "unknown"
    return next((name for name, least in SKIN_BANDS if angle > least), "dark")


FEWEST = 5
"""Counts under this are merged with others or left out."""


@dataclass(frozen=True)
class MarginShare:
    """One word of a margin, or several that were merged, as a share of all faces."""

    words: tuple[str, ...]
    count: int
    total: int

    @property
    def name(self) -> str:
        """The word, or the merged words."""
        return self.words[0] if len(self.words) == 1 else f"{', '.join(self.words)} together"

    @property
    def share(self) -> float:
        """0..1."""
        return self.count / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, 0..1."""
        return wilson(self.count, self.total)

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        low, high = self.interval
        return {"words": list(self.words), "count": self.count, "share": self.share, "low": low, "high": high}


def marginal(words: Sequence[str], counts: Sequence[int]) -> list[MarginShare]:
    """Shares of the words that any face has; words of fewer than `FEWEST` faces are merged, so that none shows.

    If the merged ones together are still too few, the next smallest word joins them.
    """
    total = sum(counts)
    found = [(word, count) for word, count in zip(words, counts, strict=True) if count]
    few = [pair for pair in found if pair[1] < FEWEST]
    if few and sum(count for _, count in few) < FEWEST:
        rest = sorted((pair for pair in found if pair not in few), key=lambda pair: pair[1])
        few += rest[:1]
    alone = [MarginShare((word,), count, total) for word, count in found if (word, count) not in few]
    if not few:
        return alone
    return [*alone, MarginShare(tuple(word for word, _ in few), sum(count for _, count in few), total)]


def suppressed_cells(counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which cells of a cross table must not be shown, (rows, columns): those of 1 to `FEWEST` - 1 faces, and for each
    that is alone in its row or column the next smallest there, since a sum would give it away."""
    mask = (counts > 0) & (counts < FEWEST)
    while True:
        before = mask.sum()
        for table, chosen in ((counts, mask), (counts.T, mask.T)):
            for line, out in zip(table, chosen, strict=True):
                if out.sum() == 1 and (open_cells := np.flatnonzero(~out & (line > 0))).size:
                    out[open_cells[line[open_cells].argmin()]] = True
        if mask.sum() == before:
            return np.asarray(mask)
