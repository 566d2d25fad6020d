"""How alike faces are by their embeddings, relative to how alike each is to others, and the likest of many.

The embeddings of a large set lie in a temporary file: those that are looked at come to memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from authface.store.rowfile import RowFile

Vectors = NDArray[np.float32] | RowFile
"""(n, length), in memory or in a file."""


def gathered(vectors: Vectors, numbers: NDArray[np.integer[Any]], at_once: int = 1 << 12) -> RowFile:
    """The vectors of these numbers, in a file of their own."""
    made = RowFile(vectors.shape[1])
    for start in range(0, len(numbers), at_once):
        made.append(vectors[numbers[start : start + at_once]])
    return made


COHORT = 2000
"""Faces of the set that every face is compared with, to see how alike it is to people who are not itself."""
COHORT_LEAST = 500
"""Faces from which a set is its own cohort."""
_COHORT_NEAREST = 0.2
"""Share of the cohort a face is most alike to, whose products count."""
_COHORT_SELF = 5
"""Of those the nearest that do not count: they may be the face itself, and its person."""
FLAT_ROWS = 20_000
"""Up to so many faces all pairs are compared, in a second or two; beyond, an inverted file looks at a few percent."""
PROBES = 32
"""Cells of the inverted file that are looked into."""
_TRAINING, _ROUNDS = 32, 4
"""Faces a cell that its centres are fitted to, and how often."""
_ROUNDING = 1e-4
_QUERIES = 1 << 12
_AT_ONCE = 1 << 20
"""Products looked at at a time."""


@dataclass(frozen=True)
class Likeness:
    """How alike two faces are, relative to how alike each is to others.

    A network puts whole kinds of people close together, so one limit for the dot product joins strangers of one kind
    and parts photos of one person of another kind. As in speaker verification (adaptive symmetric score normalisation,
    Matejka et al. 2017), the product is counted in standard deviations above the mean of those each face has with
    the part of a cohort that it is most alike to: ``((p - mean_a) / spread_a + (p - mean_b) / spread_b) / 2``.
    """

    mean: NDArray[np.float32]
    """(n,)"""
    spread: NDArray[np.float32]
    """(n,)"""

    def of(
        self, products: NDArray[np.float32], first: NDArray[np.int64], others: Likeness, second: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """(m,) likeness of the faces numbered `first` to those of `others` numbered `second`, by their dot products."""
        one = (products - self.mean[first]) / self.spread[first]
        both = one + (products - others.mean[second]) / others.spread[second]
        return np.asarray(both / 2, dtype=np.float32)

    def near(
        self,
        products: NDArray[np.float32],
        first: NDArray[np.int64],
        others: Likeness,
        second: NDArray[np.int64],
        least: float,
    ) -> NDArray[np.bool_]:
        """(m, k) whether the m faces of `first` are as like the k of `second` as `least`, by (m, k) dot products.

        It is what `of` asks for, solved for the product; what rounding may have taken counts as there.
        """
        one, other = 1 / self.spread[first], 1 / others.spread[second]
        weighed = np.add.outer(one, other)
        weighed *= products
        means, others_means = self.mean[first] - _ROUNDING, others.mean[second] - _ROUNDING
        return np.asarray(weighed >= np.add.outer(2 * least + means * one, others_means * other))


def cohort_of(vectors: Vectors) -> NDArray[np.float32] | None:
    """Up to `COHORT` of the (n, length) vectors, evenly taken; None where they are too few to compare with."""
    count = len(vectors)
    return vectors[np.linspace(0, count - 1, min(count, COHORT)).astype(int)] if count >= COHORT_LEAST else None


def likeness_of(vectors: Vectors, cohort: NDArray[np.float32] | None, usual: tuple[float, float]) -> Likeness:
    """How alike each of (n, length) unit vectors is to a cohort; without one all get the `usual` mean and spread."""
    means, spreads = (np.full(len(vectors), value, np.float32) for value in usual)
    if cohort is not None:
        nearest = int(len(cohort) * _COHORT_NEAREST)
        for some in _batches(len(vectors), len(cohort)):
            further = vectors[some] @ cohort.T
            np.negative(further, out=further).partition(nearest, axis=1)
            near = np.sort(-further[:, :nearest], axis=1)[:, :-_COHORT_SELF]
            means[some] = near.mean(axis=1)
            spreads[some] = np.maximum(near.std(axis=1), 1e-4)
    return Likeness(means, spreads)


def _batches(rows: int, columns: int) -> Iterator[slice]:
    """The rows of a matrix, as many at a time as make `_AT_ONCE` numbers."""
    step = max(_AT_ONCE // max(columns, 1), 1)
    return (slice(start, start + step) for start in range(0, rows, step))


class Nearest:
    """Those of (n, length) unit vectors that are likest to others: exact for few, an inverted file for many.

    The file (Sivic and Zisserman 2003) has about 4 sqrt(n) cells, `PROBES` of which are looked into; what it finds is
    measured by benchmarks/neighbours.py. Memory: 8 bytes a vector; the vectors lie in a file, cell by cell.
    """

    def __init__(self, vectors: Vectors, likeness: Likeness) -> None:
        count = len(vectors)
        self._centres = np.zeros((1, vectors.shape[1]), np.float32)
        if count > FLAT_ROWS:
            self._centres = _fit(vectors, 2 ** round(np.log2(4 * np.sqrt(count))))
        cell = _nearest_cells(vectors, self._centres, 1)[:, 0]
        self._order = np.argsort(cell, kind="stable").astype(np.int32)
        self._ends = np.cumsum(np.bincount(cell, minlength=len(self._centres)))
        self._vectors, self._likeness = gathered(vectors, self._order), likeness

    def search(
        self, vectors: Vectors, likeness: Likeness, least: float, most: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
        """Numbers of the vectors asked for, of those that are like them by `least` or more, and that likeness.

        At most the `most` likest of each; in blocks of whole vectors, by number, the likest first.
        """
        for start in range(0, len(vectors), _QUERIES):
            block = vectors[start : start + _QUERIES]
            probed = _nearest_cells(block, self._centres, PROBES)
            order = np.argsort(probed.ravel(), kind="stable")
            asked = np.split(order // probed.shape[1], np.cumsum(np.bincount(probed.ravel()))[:-1])
            found = [
                self._cell(cell, block[rows[at : at + step]], start + rows[at : at + step], likeness, least, most)
                for cell, rows in enumerate(asked)
                for step in (max(_AT_ONCE // max(self._size(cell), 1), 1),)
                for at in range(0, len(rows), step)
            ]
            first, second, value = (np.concatenate(column) for column in zip(*found, strict=True))
            yield _likest(first, second, value, most)

    def _size(self, cell: int) -> int:
        return int(self._ends[cell] - (self._ends[cell - 1] if cell else 0))

    def _cell(
        self,
        cell: int,
        vectors: NDArray[np.float32],
        rows: NDArray[np.int64],
        likeness: Likeness,
        least: float,
        most: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """The same for some of the vectors, numbered `rows`, within one cell."""
        end = int(self._ends[cell])
        own = slice(end - self._size(cell), end)
        others = self._order[own].astype(np.int64)
        if not len(rows) or not len(others):
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
        products = vectors @ self._vectors[own].T
        near = np.flatnonzero(likeness.near(products, rows, self._likeness, others, least))
        row, column = np.divmod(near, len(others))  # np.nonzero of two dimensions is ten times as slow
        value = likeness.of(products[row, column], rows[row], self._likeness, others[column])
        enough = value >= least
        return _likest(rows[row[enough]], others[column[enough]], value[enough], most)


def _likest(
    first: NDArray[np.int64], second: NDArray[np.int64], value: NDArray[np.float32], most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The `most` pairs of each first of the highest value, by number, the likest first."""
    order = np.lexsort((second, -value, first))
    first, second, value = first[order], second[order], value[order]
    few = np.arange(len(first)) - np.searchsorted(first, first) < most
    return first[few], second[few], value[few]


def _fit(vectors: Vectors, cells: int) -> NDArray[np.float32]:
    """(cells, length) centres by k-means (Lloyd 1982) over an even sample of the vectors."""
    sample = gathered(vectors, np.linspace(0, len(vectors) - 1, min(len(vectors), cells * _TRAINING)).astype(int))
    centres: NDArray[np.float32] = sample[np.linspace(0, len(sample) - 1, cells).astype(int)]
    for _ in range(_ROUNDS):
        cell = _nearest_cells(sample, centres, 1)[:, 0]
        order, sizes = np.argsort(cell, kind="stable"), np.bincount(cell, minlength=cells)
        used = np.flatnonzero(sizes)  # a centre that nothing is near to stays where it is
        ends = np.cumsum(sizes)
        for some in (used[at : at + _TRAINING] for at in range(0, len(used), _TRAINING)):
            first = ends[some] - sizes[some]
            sums = np.add.reduceat(sample[order[first[0] : ends[some[-1]]]], first - first[0], axis=0)
            centres[some] = sums / sizes[some, None]
    return centres


def _nearest_cells(vectors: Vectors, centres: NDArray[np.float32], count: int) -> NDArray[np.int32]:
    """(n, count) the nearest centres of each of (n, length) vectors, in any order; all if there are fewer."""
    count = min(count, len(centres))
    cells = np.zeros((len(vectors), count), np.int32)
    if len(centres) > 1:
        half = (centres * centres).sum(axis=1) / 2
        for some in _batches(len(vectors), len(centres)):
            further = half - vectors[some] @ centres.T
            cells[some] = (
                further.argmin(axis=1)[:, None] if count == 1 else np.argpartition(further, count - 1)[:, :count]
            )
    return cells
