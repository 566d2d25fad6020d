"""How alike faces are by their embeddings, relative to how alike each is to others.

The embeddings of a large set lie in a temporary file: those that are looked at come to memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from authface.store.rowfile import RowFile

Vectors = NDArray[np.float32] | RowFile
"""(n, length), in memory or in a file."""


COHORT = 2000
"""Faces of the set that every face is compared with, to see how alike it is to people who are not itself."""
COHORT_LEAST = 500
"""Faces from which a set is its own cohort."""
_COHORT_NEAREST = 0.2
"""Share of the cohort a face is most alike to, whose products count."""
_COHORT_SELF = 5
"""Of those the nearest that do not count: they may be the face itself, and its person."""
_ROUNDING = 1e-4
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
