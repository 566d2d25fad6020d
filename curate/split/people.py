"""Which faces show one person, as far as their embeddings tell.

People are found among the faces that each is most alike to, then joined to groups that do not chain.

Joining all that are alike one by one chains people together: A looks like B and B like C. Here two groups become one
only if their faces are alike on average (average linkage, Sokal and Michener 1958), the likeliest pairs first.

With dlib's network on 1,928 portraits, most of them of East Asians and few of one person: a limit of 0.93 for the dot
product makes groups of up to 586 faces. A `Likeness` of 4.5 makes 143 groups of two to five, half of which look like
one person: one face in 25 stands beside a stranger. Put among them, two people who pose eight times each and two with
two photos each come together and with nobody else, but for two poses with eyes shut that stand apart. For splits it
does no harm to keep two strangers together; to say who is who it would.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from authface.curate.split.groups import DisjointSets, SplitFaces, first_members
from authface.curate.split.likeness import Likeness, Vectors
from authface.curate.split.nearest import Faces, pairs_alike
from authface.store.rowfile import RowFile

_PAIRS = 1 << 12
"""Looked at at a time."""
NEIGHBOURS = 32
"""Neighbours looked at for each face; a person of more faces is found through several of them."""
SMALL_SET = 1.5
"""What a set that is too small for a cohort adds to `same_person`: with dlib a product of 0.938, not 0.92.

Of 20, 71 and 200 portraits of as many people (five draws each) 0.92 joins up to 10, 24 and 59 to one person, 0.938 up
to 4, 8 and 20, 0.95 up to 2, 5 and 6. Two people of eight photos each, put among them, are 1 to 2 groups at 0.92 and
0.938, 2 to 3 from 0.947 on: their photos would then be in different splits.
"""


def identities(vectors: Vectors, photos: ArrayLike, likeness: Likeness, least: float) -> NDArray[np.int32]:
    """(n,) group of each face, named by the number of one of its faces: one person a group, as far as they tell.

    `vectors` is (n, length), of unit length, and of each the photo it shows. Two groups become one where the mean
    likeness between their faces is `least` or more and no photo shows a face of both: two faces of one photo are two
    people.
    """
    sets, groups = DisjointSets(len(vectors)), _Groups(vectors, photos, likeness)
    for pairs, values in pairs_alike(Faces(vectors, likeness), least, NEIGHBOURS):
        for start in range(0, len(pairs), _PAIRS):
            some = slice(start, start + _PAIRS)
            _join(sets, groups, pairs[some], values[some].astype(np.float64), least)
    return sets.labels()


def _join(
    sets: DisjointSets, groups: _Groups, pairs: NDArray[np.int32], alike: NDArray[np.float64], least: float
) -> None:
    """Join the groups of (m, 2) faces as like as `alike` where they are alike on average, one pair after the other."""
    names = sets.names(pairs)
    unsaid = (names[:, 0] != names[:, 1]) & (groups.size[names] > 1).any(axis=1)
    alike[unsaid] = groups.likeness(names[unsaid])
    grown = set[int]()
    for (a, b), value in zip(names.tolist(), alike.tolist(), strict=True):
        if a in grown or b in grown:  # in this turn: what was said of them holds no longer
            a, b = sets.find(a), sets.find(b)
            value = least if a == b else float(groups.likeness(np.array([[a, b]]))[0])
        if a != b and value >= least and groups.may_join(a, b):
            a, b = (a, b) if groups.size[a] >= groups.size[b] else (b, a)
            sets.join(a, b)
            groups.join(a, b)
            grown |= {a, b}


class _Groups:
    """The groups of n faces by name, one of their faces: what it takes to say how alike two are on average.

    The mean over all pairs of a face of A and one of B needs no pairs: (a . b) / spread_a sums to (sum of a / spread_a)
    . (sum of b). These two sums of each group of two faces and more lie side by side in a file, as they were when one
    was last asked for.
    """

    def __init__(self, vectors: Vectors, photos: ArrayLike, likeness: Likeness) -> None:
        self._vectors, self._spread = vectors, likeness.spread
        self._sums = RowFile(2 * vectors.shape[1], len(vectors))
        self._filed = np.zeros(len(vectors), np.bool_)
        """(n,) groups whose sums are in the file."""
        self._joined: list[tuple[int, int]] = []
        """Joined since, in order: the name, and the group that is called so no longer."""
        self._offset = likeness.mean.astype(np.float64) / likeness.spread
        """(n,) sums of the means, each over its spread."""
        self.size = np.ones(len(vectors), np.int32)
        """(n,) faces of each."""
        _, photo, faces = np.unique(photos, return_inverse=True, return_counts=True)
        several = np.flatnonzero(faces[photo] > 1)
        self._shown = {face: {of} for face, of in zip(several.tolist(), photo[several].tolist(), strict=True)}
        """The photos of several faces that show a face of a group."""

    def likeness(self, names: NDArray[np.int64]) -> NDArray[np.float64]:
        """(m,) mean likeness of (m, 2) groups, over all pairs of a face of one and a face of the other."""
        self._file_sums()
        known, at = np.unique(names, return_inverse=True)
        sums = self._both_sums(known)
        one, other = np.moveaxis(sums[at.reshape(names.shape)], 1, 0)
        a, b = names.T
        products = np.vecdot(one[:, 1], other[:, 0]) + np.vecdot(one[:, 0], other[:, 1])
        offsets = self._offset[a] / self.size[a] + self._offset[b] / self.size[b]
        mean: NDArray[np.float64] = (products / (self.size[a] * self.size[b]) - offsets) / 2
        return mean

    def may_join(self, name: int, other: int) -> bool:
        """Whether no photo shows a face of both."""
        return self._shown.get(name, set()).isdisjoint(self._shown.get(other, ()))

    def join(self, name: int, gone: int) -> None:
        """Put two groups in the place of the one that is called `name`."""
        self._joined.append((name, gone))
        for of in (self._offset, self.size):
            of[name] += of[gone]
        if gone in self._shown:
            self._shown[name] = self._shown.get(name, set()) | self._shown.pop(gone)

    def _file_sums(self) -> None:
        """Write the sums of those that were joined."""
        if not self._joined:
            return
        into: dict[int, int] = {}  # the last first: where a name went later is known when it is come to
        for name, gone in reversed(self._joined):
            into[gone] = into.get(name, name)
        names = np.unique(np.fromiter(into.values(), np.int64))
        parts = np.concatenate([names, np.fromiter(into, np.int64)])
        whole = np.concatenate([names, np.fromiter(into.values(), np.int64)])
        order = np.argsort(whole, kind="stable")
        sums = np.add.reduceat(self._both_sums(parts[order]), np.searchsorted(whole[order], names), axis=0)
        self._sums[names] = sums.reshape(len(names), -1)
        self._filed[names] = True
        self._joined.clear()

    def _both_sums(self, names: NDArray[np.int64]) -> NDArray[np.float32]:
        """(k, 2, length) sums of the vectors, and of each over its spread."""
        made = np.empty((len(names), 2, self._vectors.shape[1]), np.float32)
        filed = self._filed[names]
        made[filed] = self._sums[names[filed]].reshape(-1, *made.shape[1:])
        faces = names[~filed]
        vectors = self._vectors[faces]
        made[~filed, 0] = vectors
        made[~filed, 1] = vectors / self._spread[faces, None]
        return made


def people_of(faces: SplitFaces, likeness: Likeness, same_person: float) -> NDArray[np.int32]:
    """(n,) who each face shows, named by the face of that person whose id comes first; -1 without embeddings."""
    if not faces.vectors.shape[1]:
        return np.full(len(faces.ids), -1, np.int32)
    return first_members(faces.ids, identities(faces.vectors, faces.photos, likeness, same_person))
