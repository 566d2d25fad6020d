"""Which faces belong together: those of one person by their embeddings, near duplicates, those of one photo.

People are found among the neighbours of each face in an index, then joined to groups that do not chain.

Joining all that are alike one by one chains people together: A looks like B and B like C. Here two groups become one
only if their faces are alike on average (average linkage, Sokal and Michener 1958), the likeliest pairs first.

With dlib's network on 1,928 portraits, most of them of East Asians and few of one person: a limit of 0.93 for the dot
product makes groups of up to 586 faces. A `Likeness` of 4.5 makes 143 groups of two to five, half of which look like
one person: one face in 25 stands beside a stranger. Put among them, two people who pose eight times each and two with
two photos each come together and with nobody else, but for two poses with eyes shut that stand apart. For splits it
does no harm to keep two strangers together; to say who is who it would.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from authface.curate.filter.duplicates import BITS, hash_codes, near_codes
from authface.curate.settings import SplitSettings
from authface.curate.split.likeness import Likeness, Nearest, VectorFile, Vectors
from authface.engine.runner import PartInput
from authface.engine.workers import Step
from authface.errors import ImageError
from authface.faces.geometry import crop_points
from authface.faces.identity import Embedder, SeenFace, make_embedder, weights_sha256
from authface.imaging import decode as images
from authface.records import Crop, Embedding
from authface.store.photoset import PhotoSet, Provenance

VERSION = 1
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


def embedder_provenance(step: str, version: int, settings: SplitSettings) -> Provenance:
    """Provenance of a step that makes embeddings: the network by name and weights, wherever its file lies."""
    weights: dict[str, str] = {settings.embedder: weights_sha256(settings.embedder, settings.arcface)}
    return Provenance(step, version, {"embedder": settings.embedder}, weights)


@dataclass
class Embed(Step[Crop, SeenFace, NDArray[np.float32], Embedding]):
    """The step from the table `crops` to `embeddings`. With dlib a batch is no faster per face than single faces."""

    root: Path
    settings: SplitSettings
    batch_size: int = 8
    _embedder: Embedder | None = field(default=None)

    @property
    def provenance(self) -> Provenance:
        """The network and its weights."""
        return embedder_provenance("embed", VERSION, self.settings)

    def open(self) -> None:
        """Load the network."""
        self._embedder = make_embedder(self.settings.embedder, self.settings.arcface)

    def load(self, crop: Crop) -> SeenFace:
        """The crop and its landmarks in it. Raises ImageError."""
        if crop.landmarks is None or crop.quad is None:
            raise ImageError("landmarks", "the crop has no landmarks: run authface curate align again")
        rgb = images.decode(PhotoSet(self.root).read(crop.file)).rgb
        return SeenFace(rgb, crop_points(crop.landmarks, crop.quad, crop.size))

    def step(self, batch: Sequence[SeenFace]) -> Sequence[NDArray[np.float32]]:
        """The embeddings."""
        assert self._embedder is not None
        return list(self._embedder.embed(batch))

    def save(self, crop: Crop, vector: NDArray[np.float32]) -> list[Embedding]:
        """The row."""
        return [Embedding(id=crop.id, photo_id=crop.photo_id, embedding=tuple(vector.tolist()))]

    def failed(self, crop: Crop, reason: str, detail: str) -> list[Embedding]:
        """The row of a crop that could not be read."""
        return [Embedding(id=crop.id, photo_id=crop.photo_id, status="failed", reason=reason, detail=detail)]


class DisjointSets:
    """Disjoint sets of 0..n-1, joined two at a time."""

    def __init__(self, count: int) -> None:
        self._above = array("q", range(count))

    def find(self, member: int) -> int:
        """The member that names its set."""
        above = self._above
        while above[member] != member:
            above[member] = above[above[member]]
            member = above[member]
        return member

    def join(self, first: int, second: int) -> None:
        """Unite two sets under the name of the first."""
        self._above[self.find(second)] = self.find(first)

    def labels(self) -> list[int]:
        """The name of the set of each member."""
        return [self.find(member) for member in range(len(self._above))]


def similar_pairs(vectors: Vectors, likeness: Likeness, least: float) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """(m, 2) numbers of unit vectors whose likeness is `least` or more, and (m,) that likeness; the highest first.

    Each vector has its `NEIGHBOURS` likest; a pair is listed once, its smaller number first.
    """
    codes, found = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for first, second, value in Nearest(vectors, likeness).search(vectors, likeness, least, NEIGHBOURS + 1):
        real = first != second
        codes.append((np.minimum(first, second) << 32 | np.maximum(first, second))[real])
        found.append(value[real])
    code, value = _joined(codes), _joined(found)
    order = np.argsort(code, kind="stable")
    code, value = code[order], value[order]
    once = np.diff(code, prepend=-1) != 0
    code, value = code[once], value[once]
    order = np.argsort(-value, kind="stable")
    pairs = np.stack([code >> 32, code & 0xFFFFFFFF], axis=1, dtype=np.int32, casting="unsafe")
    return pairs[order], value[order]


def _joined(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    """One array of all. The list is emptied: of a large set both would be half of all memory."""
    made = np.concatenate(arrays)
    arrays.clear()
    return made


def identities(vectors: Vectors, photos: ArrayLike, likeness: Likeness, least: float) -> list[int]:
    """The group of each of n faces, named by the number of one of its faces: one person a group, as far as they tell.

    `vectors` is (n, length), of unit length, and of each the photo it shows. Two groups become one where the mean
    likeness between their faces is `least` or more and no photo shows a face of both: two faces of one photo are two
    people.
    """
    pairs, _ = similar_pairs(vectors, likeness, least)
    sets, groups = DisjointSets(len(vectors)), _Groups(vectors, photos, likeness)
    for start in range(0, len(pairs), _PAIRS):
        faces = pairs[start : start + _PAIRS].ravel().tolist()
        names = np.array([sets.find(face) for face in faces], np.int64).reshape(-1, 2)
        alike: list[float] = groups.likeness(names).tolist()
        grown = set[int]()
        for at, (a, b) in enumerate(names.tolist()):
            if a in grown or b in grown:  # in this turn: what was said of them holds no longer
                a, b = sets.find(a), sets.find(b)
                alike[at] = float(groups.likeness(np.array([[a, b]]))[0])
            if a != b and alike[at] >= least and groups.may_join(a, b):
                a, b = (a, b) if groups.size[a] >= groups.size[b] else (b, a)
                sets.join(a, b)
                groups.join(a, b)
                grown |= {a, b}
    return sets.labels()


class _Groups:
    """The groups of n faces by name, one of their faces: what it takes to say how alike two are on average.

    The mean over all pairs of a face of A and one of B needs no pairs: (a . b) / spread_a sums to (sum of a / spread_a)
    . (sum of b). These two sums of each group of two faces and more lie side by side in a file.
    """

    def __init__(self, vectors: Vectors, photos: ArrayLike, likeness: Likeness) -> None:
        self._vectors, self._spread = vectors, likeness.spread
        self._sums = VectorFile(2 * vectors.shape[1], len(vectors))
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
        self._sums[name] = self._both_sums(np.array([name, gone])).sum(axis=0).reshape(-1)
        for of in (self._offset, self.size):
            of[name] += of[gone]
        if gone in self._shown:
            self._shown[name] = self._shown.get(name, set()) | self._shown.pop(gone)

    def _both_sums(self, names: NDArray[np.int64]) -> NDArray[np.float32]:
        """(k, 2, length) sums of the vectors, and of each over its spread."""
        made = np.empty((len(names), 2, self._vectors.shape[1]), np.float32)
        alone = self.size[names] == 1
        made[~alone] = self._sums[names[~alone]].reshape(-1, *made.shape[1:])
        faces = names[alone]
        vectors = self._vectors[faces]
        made[alone] = np.stack([vectors, vectors / self._spread[faces, None]], axis=1)
        return made


def connected_groups(count: int, keys: Iterable[NDArray[np.int32]], pairs: Iterable[tuple[int, int]] = ()) -> list[int]:
    """The group of each of 0..count-1, named by one of its members: all that share a key or are a pair are in one.

    Each of `keys` has one entry per member; -1 shares nothing.
    """
    sets = DisjointSets(count)
    for column in keys:
        _, first, of = np.unique(column, return_index=True, return_inverse=True)
        for member in np.flatnonzero((column >= 0) & (first[of] != np.arange(count))).tolist():
            sets.join(int(first[of[member]]), member)
    for one, other in pairs:
        sets.join(one, other)
    return sets.labels()


@dataclass(frozen=True)
class SplitFaces:
    """The n faces of a set that have an embedding or need none, in the order of the table `crops`."""

    ids: list[str]
    photos: NDArray[np.int32]
    """(n,) number of the photo."""
    hashes: NDArray[np.uint8]
    """(n, 18), as `hash_codes` has them."""
    hashed: NDArray[np.bool_]
    """(n,) whether there is one."""
    photographers: NDArray[np.int32]
    """(n,) number of the photographer within their source; -1 where nobody is named, or nobody asked."""
    vectors: Vectors
    """(n, length), unit length; (n, 0) where nobody asked for identities."""
    failed: Mapping[str, Embedding] = field(default_factory=dict)
    """Rows of faces that could not be embedded, by id; they are in no split."""


def read_faces(
    photoset: PhotoSet, parts: Sequence[PartInput[Crop]], *, embedded: bool, photographers: bool
) -> SplitFaces:
    """The kept crops with everything that can tie them to one split, part by part into arrays.

    `embedded`: with their embeddings; `photographers`: with whose photo each is.
    """
    count = sum(part.count for part in parts)
    ids: list[str] = []
    photos = np.zeros(count, np.int32)
    vectors: VectorFile | None = None
    hashes, hashed = np.zeros((count, BITS // 8), np.uint8), np.zeros(count, np.bool_)
    by = np.full(count, -1, np.int32)
    whose = _photographers(photoset) if photographers else {}
    failed: dict[str, Embedding] = {}
    for part in parts:
        known = _embedded(photoset, part, failed) if embedded else _kept(part)
        some = slice(len(ids), len(ids) + len(known))
        if embedded and len(known):
            numbers = known.column("embedding").combine_chunks().flatten().to_numpy().reshape(len(known), -1)
            if vectors is None:
                vectors = VectorFile(numbers.shape[1])
            vectors.append(numbers)
        of = known.column("photo_id").combine_chunks().dictionary_encode()
        photos[some] = of.indices.to_numpy() + photos[: len(ids)].max(initial=-1) + 1
        codes, there = _hashes(photoset, part.number, known.column("id"))
        hashes[some], hashed[some] = codes, there
        if whose:
            by[some] = [whose.get(photo, -1) for photo in known.column("photo_id").to_pylist()]
        ids += known.column("id").to_pylist()
    n = len(ids)
    held = np.zeros((n, 0), np.float32) if vectors is None else vectors
    return SplitFaces(ids, photos[:n], hashes[:n], hashed[:n], by[:n], held, failed)


def _embedded(photoset: PhotoSet, part: PartInput[Crop], failed: dict[str, Embedding]) -> pa.Table:
    """The rows of the table `embeddings` of a part's crops that have one; the others are put into `failed`.

    Its part may hold more, where a limit cuts the crops.
    """
    table = photoset.embeddings.arrow(part.number, ["id", "photo_id", "embedding"]).slice(0, part.count)
    known = table.filter(table.column("embedding").is_valid())
    if len(known) < len(table):
        rows = photoset.embeddings.rows(part.number)[: part.count]
        failed |= {row.id: row for row in rows if row.embedding is None}
    return known


def _kept(part: PartInput[Crop]) -> pa.Table:
    rows = part.rows()
    columns = [[crop.id for crop in rows], [crop.photo_id for crop in rows]]
    return pa.table([pa.array(column, pa.string()) for column in columns], ["id", "photo_id"])


def _hashes(photoset: PhotoSet, part: int, ids: pa.ChunkedArray) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """(k, 18) hashes of the faces of one part, and (k,) whether there is one."""
    faces = photoset.faces.arrow(part, ["id", "hash"])
    at = pc.index_in(ids, value_set=faces.column("id").combine_chunks())
    texts = [text or "" for text in faces.column("hash").take(at).to_pylist()]
    there = np.array([bool(text) for text in texts], np.bool_)
    codes = np.zeros((len(texts), BITS // 8), np.uint8)
    codes[there] = hash_codes([text for text in texts if text])
    return codes, there


def _photographers(photoset: PhotoSet) -> dict[str, int]:
    """The number of the photographer of each photo that names one."""
    numbers, found = dict[tuple[str, str], int](), dict[str, int]()
    for part in photoset.photos.parts():
        for photo, source, name in photoset.photos.columns(part, ("id", "source", "photographer")):
            if name:
                found[photo] = numbers.setdefault((source, name), len(numbers))
    return found


def people_of(faces: SplitFaces, likeness: Likeness, same_person: float) -> list[str]:
    """The identity of each face: the first id of the faces that show the same person; empty without embeddings."""
    if not faces.vectors.shape[1]:
        return [""] * len(faces.ids)
    return first_names(faces.ids, identities(faces.vectors, faces.photos, likeness, same_person))


def groups_of(faces: SplitFaces, people: Sequence[str], settings: SplitSettings) -> list[str]:
    """The group of each face, named by the first id among the faces that must share a split."""
    keys = {"photo": faces.photos, "photographer": faces.photographers}
    if "identity" in settings.keep_together:
        named = pa.array([person or None for person in people], pa.string()).dictionary_encode()
        keys["identity"] = named.indices.fill_null(-1).to_numpy()
    chosen = [keys[name] for name in settings.keep_together if name in keys]
    pairs: Iterable[tuple[int, int]] = ()
    if "duplicate" in settings.keep_together:
        hashed = np.flatnonzero(faces.hashed)
        near = near_codes(faces.hashes[hashed], settings.duplicate_radius)
        pairs = ((int(hashed[one]), int(hashed[other])) for one, other in near)
    return first_names(faces.ids, connected_groups(len(faces.ids), chosen, pairs))


def first_names(ids: Sequence[str], labels: Sequence[int]) -> list[str]:
    """Each group named by its member whose id sorts first; labels are numbers of members."""
    first = list(ids)
    for id, label in zip(ids, labels, strict=True):
        first[label] = min(id, first[label])
    return [first[label] for label in labels]
