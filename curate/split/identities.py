"""Faces of one person, found by their embeddings: neighbours in an index, then groups that do not chain.

Joining all that are alike one by one chains people together: A looks like B and B like C. Here two groups become one
only if their faces are alike on average (average linkage, Sokal and Michener 1958), the likeliest pairs first.

With dlib's network on 1,928 portraits, most of them of East Asians and few of one person: a limit of 0.93 for the dot
product makes groups of up to 586 faces. A `Likeness` of 4.5 makes 143 groups of two to five, half of which look like
one person: one face in 25 stands beside a stranger. Put among them, two people who pose eight times each and two with
two photos each come together and with nobody else, but for two poses with eyes shut that stand apart. For splits it
does no harm to keep two strangers together; to say who is who it would.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEIGHBOURS = 32
"""Neighbours looked at for each face; a person of more faces is found through several of them."""
FLAT_ROWS = 20_000
"""Up to so many faces all pairs are compared, in a second or two; beyond, an inverted file looks at a few percent."""
PROBES = 24
"""Cells of the inverted file that are looked into."""
COHORT = 2000
"""Faces of the set that every face is compared with, to see how alike it is to people who are not itself."""
COHORT_LEAST = 500
"""Faces from which a set is its own cohort."""
_COHORT_NEAREST = 0.2
"""Share of the cohort a face is most alike to, whose products count."""
_COHORT_SELF = 5
"""Of those the nearest that do not count: they may be the face itself, and its person."""
_TRAINING = 64
"""Faces a cell that its centres are fitted to."""
_BATCH = 4096


class Sets:
    """Disjoint sets of 0..n-1, joined two at a time."""

    def __init__(self, count: int) -> None:
        self._above = list(range(count))

    def find(self, member: int) -> int:
        """The member that names its set."""
        above = self._above
        while above[member] != member:
            above[member] = above[above[member]]
            member = above[member]
        return member

    def join(self, first: int, second: int) -> None:
        """Make two sets one, named by the name of the first."""
        self._above[self.find(second)] = self.find(first)

    def labels(self) -> list[int]:
        """The name of each member's set."""
        return [self.find(member) for member in range(len(self._above))]


def make_index(vectors: NDArray[np.float32]) -> Any:
    """A FAISS index by dot product of (n, length) unit vectors: exact for few, an inverted file for many.

    The file has about 4 sqrt(n) cells, `PROBES` of which are looked into; what it finds is measured by
    benchmarks/neighbours.py. Memory: the vectors once more, 0.5 GB for a million of 128 numbers.
    """
    import faiss

    count, length = vectors.shape
    if count <= FLAT_ROWS:
        index: Any = faiss.IndexFlatIP(length)
    else:
        cells = 2 ** round(np.log2(4 * np.sqrt(count)))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(length), length, cells, faiss.METRIC_INNER_PRODUCT)
        sample = np.linspace(0, count - 1, min(count, cells * _TRAINING)).astype(int)
        index.train(np.ascontiguousarray(vectors[sample]))
        index.nprobe = PROBES
    index.add(vectors)
    return index


@dataclass(frozen=True)
class Likeness:
    """How alike two faces are, seen against how alike each is to others.

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


def cohort_of(vectors: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Up to `COHORT` of the (n, length) vectors, evenly taken; None where they are too few to compare with."""
    count = len(vectors)
    return vectors[np.linspace(0, count - 1, min(count, COHORT)).astype(int)] if count >= COHORT_LEAST else None


def likeness_of(
    vectors: NDArray[np.float32], cohort: NDArray[np.float32] | None, usual: tuple[float, float]
) -> Likeness:
    """How alike each of (n, length) unit vectors is to a cohort; without one all get the `usual` mean and spread."""
    means, spreads = (np.full(len(vectors), value, np.float32) for value in usual)
    if cohort is not None:
        nearest = int(len(cohort) * _COHORT_NEAREST)
        for start in range(0, len(vectors), _BATCH):
            products = vectors[start : start + _BATCH] @ cohort.T
            near = -np.partition(-products, nearest, axis=1)[:, :nearest]
            near = np.sort(near, axis=1)[:, :-_COHORT_SELF]
            means[start : start + _BATCH] = near.mean(axis=1)
            spreads[start : start + _BATCH] = np.maximum(near.std(axis=1), 1e-4)
    return Likeness(means, spreads)


def alike(
    vectors: NDArray[np.float32], likeness: Likeness, least: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(m, 2) numbers of unit vectors whose likeness is `least` or more, and (m,) that likeness; the highest first.

    Each vector is asked for its `NEIGHBOURS` nearest; a pair is listed once, its smaller number first.
    """
    index, count = make_index(vectors), len(vectors)
    codes, found = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for start in range(0, count, _BATCH):
        products, numbers = index.search(vectors[start : start + _BATCH], min(NEIGHBOURS + 1, count))
        first = np.repeat(np.arange(start, start + len(numbers)), numbers.shape[1])
        second, product = numbers.ravel(), products.ravel()
        real = (second >= 0) & (first != second)
        first, second = first[real], second[real]
        value = likeness.of(product[real], first, likeness, second)
        enough = value >= least
        codes.append((np.minimum(first, second) * count + np.maximum(first, second))[enough])
        found.append(value[enough])
    code, at = np.unique(np.concatenate(codes), return_index=True)
    value = np.concatenate(found)[at]
    order = np.argsort(-value, kind="stable")
    return np.stack(np.divmod(code[order], max(count, 1)), axis=1), value[order]


def identities(vectors: NDArray[np.float32], photos: Sequence[str], likeness: Likeness, least: float) -> list[int]:
    """Number of one face of the group each of n faces belongs to: the faces of one person, as far as they tell.

    `vectors` is (n, length), of unit length. Two groups become one where the mean likeness between their faces is
    `least` or more and no photo shows a face of both: two faces of one photo are two people. Memory: the vectors
    three times more (1.5 GB for a million of 128 numbers).
    """
    pairs, _ = alike(vectors, likeness, least)
    sets = Sets(len(vectors))
    # The mean over pairs needs no pairs: over a of A and b of B, (a . b) / spread_a sums to
    # (sum of a / spread_a) . (sum of b).
    sums, scaled = vectors.copy(), vectors / likeness.spread[:, None]
    offsets, sizes = (likeness.mean / likeness.spread).tolist(), [1] * len(vectors)
    shown: dict[int, set[str]] = {}
    for first, second in pairs.tolist():
        a, b = sets.find(first), sets.find(second)
        if a == b:
            continue
        products = float(scaled[a] @ sums[b] + sums[a] @ scaled[b]) / (sizes[a] * sizes[b])
        if products - offsets[a] / sizes[a] - offsets[b] / sizes[b] < 2 * least:
            continue
        if sizes[a] < sizes[b]:
            a, b = b, a
        in_a, in_b = shown.get(a, {photos[a]}), shown.get(b, {photos[b]})
        if in_a.isdisjoint(in_b):
            sets.join(a, b)
            for total in (sums, scaled, offsets, sizes):
                total[a] += total[b]
            shown[a] = in_a | in_b
            shown.pop(b, None)
    return sets.labels()


def together(count: int, keys: Iterable[Sequence[Hashable | None]], pairs: Iterable[tuple[int, int]] = ()) -> list[int]:
    """Number of one member of the group each of 0..count-1 belongs to: all that share a key, or are a pair, are in one.

    Each of `keys` has an entry a member; None shares nothing.
    """
    sets = Sets(count)
    for column in keys:
        first: dict[Hashable, int] = {}
        for member, key in enumerate(column):
            if key is not None:
                sets.join(first.setdefault(key, member), member)
    for one, other in pairs:
        sets.join(one, other)
    return sets.labels()
