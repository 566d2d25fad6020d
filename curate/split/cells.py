"""Cells where vectors that are near to each other meet, made for a set by k-means of two levels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from authface.curate.split.likeness import Vectors
from authface.store.rowfile import DealtRows, RowFile

CELL_ROWS = 24
"""Vectors for each cell."""
MEETINGS = 8
"""Cells that a vector is put into, its nearest."""
_WIDE = 32
"""Wide cells whose own cells are looked at, for each vector."""
_SAMPLE = 32
"""Vectors for each centre that it is fitted to."""
_ROUNDS = 4
_MIDDLE_SAMPLE = 1 << 13
AT_ONCE = 1 << 12
"""Vectors read at a time."""
_LOOKED_AT = 1 << 11
"""Vectors that cells are looked up of at a time."""
_ROWS = 1 << 8
"""Rows whose largest are looked for at a time."""


class Cells:
    """The cells of (n, length) unit vectors, one for 24: 2 sqrt(n / 24) wide ones, each of a few of its own.

    Spherical k-means (Dhillon and Modha 2001) around the mean of the vectors: all centres are as far from it. Centres
    that are means are nearer to it the more they stand for, so nearer to all: their cells were twice as many products.
    Up to `flat` vectors there is one cell. Memory: a few wide cells; centres lie in a file.
    """

    def __init__(self, vectors: Vectors, flat: int) -> None:
        count, length = vectors.shape
        cells = count / CELL_ROWS
        self.wide = round(2 * np.sqrt(cells)) if count > flat else 1
        """Wide cells."""
        self.own = max(round(cells / self.wide), 1) if count > flat else 1
        """Cells of each: those of wide cell w are numbered from ``w * own`` on."""
        self.meetings = min(MEETINGS, self.own)
        """Cells that a vector is put into."""
        self._middle = np.zeros(length, np.float32)
        self._centres, self._own_centres = np.zeros((1, length), np.float32), RowFile(length)
        if self.wide > 1:
            self._middle = vectors[_evenly(count, _MIDDLE_SAMPLE)].mean(axis=0)
            sample = self._centred(vectors[_evenly(count, self.wide * _SAMPLE)])
            self._centres = _fit(sample, self.wide)
            self._fit_own(vectors)

    def of(self, vectors: NDArray[np.float32]) -> NDArray[np.int32]:
        """(n, meetings) cells nearest to each of (n, length) vectors, in any order."""
        found = np.zeros((len(vectors), self.meetings), np.int32)
        if self.wide > 1:
            centres = self._own_centres
            for start in range(0, len(vectors), _LOOKED_AT):
                some = self._centred(vectors[start : start + _LOOKED_AT])
                wide = largest(some @ self._centres.T, min(_WIDE, self.wide))
                near = np.empty((wide.size, self.own), np.float32)
                order, ends = np.argsort(wide.ravel(), kind="stable"), np.cumsum(np.bincount(wide.ravel()))
                for number, asked in enumerate(np.split(order, ends[:-1])):
                    own = centres[number * self.own : (number + 1) * self.own]
                    near[asked] = some[asked // wide.shape[1]] @ own.T
                best = largest(near.reshape(len(some), -1), self.meetings)
                within = np.take_along_axis(wide, best // self.own, axis=1)
                found[start : start + len(some)] = within * self.own + best % self.own
        return found

    def _centred(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(vectors - self._middle, np.float32)

    def _fit_own(self, vectors: Vectors) -> None:
        """Fit the cells of each wide cell to those of a sample that are nearest to it."""
        dealt = DealtRows(vectors.shape[1], self.wide)
        numbers = _evenly(len(vectors), self.wide * self.own * _SAMPLE)
        for start in range(0, len(numbers), AT_ONCE):
            some = self._centred(vectors[numbers[start : start + AT_ONCE]])
            dealt.append(some, np.arange(len(some)), (some @ self._centres.T).argmax(axis=1))
        for wide, centre in enumerate(self._centres):
            sample = np.concatenate([dealt.all(wide), centre[None]])
            self._own_centres.append(_fit(sample, self.own))


def _evenly(count: int, most: int) -> NDArray[np.int64]:
    """Up to so many of the numbers below `count`, evenly taken."""
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64)


def _fit(sample: NDArray[np.float32], cells: int) -> NDArray[np.float32]:
    """(cells, length) unit centres by k-means (Lloyd 1982); one that nothing is near to is 0, which is near to nothing.

    Of many equal vectors it would be another's equal: which of the two is nearer to them, rounding would decide.
    """
    centres = _unit(sample[np.linspace(0, len(sample) - 1, cells).astype(np.int64)])
    for _ in range(_ROUNDS):
        batches = range(0, len(sample), _LOOKED_AT)
        cell = np.concatenate([(sample[at : at + _LOOKED_AT] @ centres.T).argmax(axis=1) for at in batches])
        order, sizes = np.argsort(cell, kind="stable"), np.bincount(cell, minlength=cells)
        used = np.flatnonzero(sizes)
        centres = np.zeros_like(centres)
        centres[used] = _unit(np.add.reduceat(sample[order], (np.cumsum(sizes) - sizes)[used], axis=0))
    return centres


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)


def largest(values: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """(n, count) columns of the largest of each row, in any order: what `np.argpartition` gives, in half the time."""
    columns = np.empty((len(values), count), np.int64)
    for start in range(0, len(values), _ROWS):
        some = values[start : start + _ROWS]
        limit = np.partition(some, -count, axis=1)[:, -count]
        at = np.flatnonzero(some >= limit[:, None])
        if len(at) != len(some) * count:  # some are equal, or no numbers
            at = np.argpartition(some, -count, axis=1)[:, -count:]
        columns[start : start + _ROWS] = (at % values.shape[1]).reshape(-1, count)
    return columns
