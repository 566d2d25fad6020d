"""Faces of one person, found by their embeddings: neighbours in an index, then groups that do not chain.

Joining all that are alike one by one chains people together: A looks like B and B like C. Here two groups become one
only if their faces are alike on average (average linkage, Sokal and Michener 1958), the likeliest pairs first.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NEIGHBOURS = 32
"""Neighbours looked at for each face; a person of more faces is found through several of them."""
FLAT_ROWS = 20_000
"""Up to so many faces all pairs are compared, in a second or two; beyond, an inverted file looks at a few percent."""
PROBES = 24
"""Cells of the inverted file that are looked into."""
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

    The file has about 4 sqrt(n) cells. Of true neighbours above a likeness of 0.9 it finds over 99 % (see
    benchmarks/neighbours.py). Memory: the vectors once more, 0.5 GB for a million of 128 numbers.
    """
    import faiss
    import numpy as np

    count, length = vectors.shape
    if count <= FLAT_ROWS:
        index = faiss.IndexFlatIP(length)
    else:
        cells = 2 ** round(np.log2(4 * np.sqrt(count)))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(length), length, cells, faiss.METRIC_INNER_PRODUCT)
        sample = np.linspace(0, count - 1, min(count, cells * _TRAINING)).astype(int)
        index.train(np.ascontiguousarray(vectors[sample]))
        index.nprobe = PROBES
    index.add(vectors)
    return index


def alike(vectors: NDArray[np.float32], least: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(m, 2) numbers of unit vectors whose dot product is `least` or more, and (m,) that product; the likeliest first.

    Each vector is asked for its `NEIGHBOURS` nearest; a pair is listed once, its smaller number first.
    """
    import numpy as np

    index, count = make_index(vectors), len(vectors)
    codes, products = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for start in range(0, count, _BATCH):
        near, numbers = index.search(vectors[start : start + _BATCH], min(NEIGHBOURS + 1, count))
        row, column = np.nonzero((near >= least) & (numbers >= 0))
        first, second = row + start, numbers[row, column]
        other = first != second
        codes.append((np.minimum(first, second) * count + np.maximum(first, second))[other])
        products.append(near[row, column][other])
    code, at = np.unique(np.concatenate(codes), return_index=True)
    product = np.concatenate(products)[at]
    order = np.argsort(-product, kind="stable")
    return np.stack(np.divmod(code[order], max(count, 1)), axis=1), product[order]


def identities(vectors: NDArray[np.float32], photos: Sequence[str], least: float) -> list[int]:
    """Number of one face of the group each of n faces belongs to: the faces of one person, as far as they tell.

    `vectors` is (n, length), of unit length. Two groups become one where the mean dot product between their faces is
    `least` or more and no photo shows a face of both: two faces of one photo are two people. Memory: the vectors
    twice more (1 GB for a million of 128 numbers).
    """
    pairs, _ = alike(vectors, least)
    sets = Sets(len(vectors))
    sums, sizes = vectors.copy(), [1] * len(vectors)
    shown: dict[int, set[str]] = {}
    for first, second in pairs.tolist():
        a, b = sets.find(first), sets.find(second)
        if a == b or float(sums[a] @ sums[b]) < least * sizes[a] * sizes[b]:
            continue
        if sizes[a] < sizes[b]:
            a, b = b, a
        in_a, in_b = shown.get(a, {photos[a]}), shown.get(b, {photos[b]})
        if in_a.isdisjoint(in_b):
            sets.join(a, b)
            sums[a] += sums[b]
            sizes[a] += sizes[b]
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
