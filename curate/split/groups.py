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

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from authface.curate.filter.duplicates import near_pairs
from authface.curate.settings import SplitSettings
from authface.curate.split.likeness import Likeness, Nearest
from authface.engine.runner import PartInput
from authface.engine.workers import Step
from authface.errors import ImageError
from authface.faces.geometry import crop_points
from authface.faces.identity import Embedder, SeenFace, make_embedder, weights_sha256
from authface.imaging import decode as images
from authface.records import Crop, Embedding
from authface.store.photoset import PhotoSet, Provenance, Table

VERSION = 1
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
        self._above = list(range(count))

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


def similar_pairs(
    vectors: NDArray[np.float32], likeness: Likeness, least: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(m, 2) numbers of unit vectors whose likeness is `least` or more, and (m,) that likeness; the highest first.

    Each vector has its `NEIGHBOURS` likest; a pair is listed once, its smaller number first.
    """
    count = len(vectors)
    codes, found = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for first, second, value in Nearest(vectors, likeness).search(vectors, likeness, least, NEIGHBOURS + 1):
        real = first != second
        codes.append((np.minimum(first, second) * count + np.maximum(first, second))[real])
        found.append(value[real])
    code, at = np.unique(np.concatenate(codes), return_index=True)
    value = np.concatenate(found)[at]
    order = np.argsort(-value, kind="stable")
    return np.stack(np.divmod(code[order], max(count, 1)), axis=1), value[order]


def identities(vectors: NDArray[np.float32], photos: Sequence[str], likeness: Likeness, least: float) -> list[int]:
    """The group of each of n faces, named by the number of one of its faces: one person a group, as far as they tell.

    `vectors` is (n, length), of unit length. Two groups become one where the mean likeness between their faces is
    `least` or more and no photo shows a face of both: two faces of one photo are two people. Memory: the vectors
    three times more (1.5 GB for a million of 128 numbers).
    """
    pairs, _ = similar_pairs(vectors, likeness, least)
    sets = DisjointSets(len(vectors))
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


def connected_groups(
    count: int, keys: Iterable[Sequence[Hashable | None]], pairs: Iterable[tuple[int, int]] = ()
) -> list[int]:
    """The group of each of 0..count-1, named by one of its members: all that share a key or are a pair are in one.

    Each of `keys` has one entry per member; None shares nothing.
    """
    sets = DisjointSets(count)
    for column in keys:
        first: dict[Hashable, int] = {}
        for member, key in enumerate(column):
            if key is not None:
                sets.join(first.setdefault(key, member), member)
    for one, other in pairs:
        sets.join(one, other)
    return sets.labels()


@dataclass(frozen=True)
class SplitFaces:
    """The faces of a set that have an embedding or need none, in the order of the table `crops`."""

    ids: list[str]
    photos: list[str]
    hashes: list[str]
    photographers: list[str]
    """With their source; empty where nobody is named."""
    vectors: NDArray[np.float32]
    """(n, length), unit length; (n, 0) where nobody asked for identities."""
    failed: Mapping[str, Embedding] = field(default_factory=dict)
    """Rows of faces that could not be embedded, by id; they are in no split."""


def read_faces(photoset: PhotoSet, parts: Sequence[PartInput[Crop]], *, embedded: bool) -> SplitFaces:
    """The kept crops with everything that can tie them to one split; `embedded`: with their embeddings."""
    blocks: list[NDArray[np.float32]] = []
    failed: dict[str, Embedding] = {}
    if embedded:
        ids, photos = [], []
        for part in parts:
            table = photoset.embeddings.arrow(part.number, ["id", "photo_id", "embedding"])
            known = table.filter(table.column("embedding").is_valid())
            ids += known.column("id").to_pylist()
            photos += known.column("photo_id").to_pylist()
            numbers = known.column("embedding").combine_chunks().flatten().to_numpy()
            if len(known):
                blocks.append(numbers.astype(np.float32).reshape(len(known), -1))
            if len(known) < len(table):
                failed |= {row.id: row for row in photoset.embeddings.rows(part.number) if row.embedding is None}
    else:
        rows = [(crop.id, crop.photo_id) for part in parts for crop in part.rows()]
        ids, photos = [id for id, _ in rows], [photo for _, photo in rows]
    hashes = {id: text for id, text in _columns(photoset.faces, ("id", "hash")) if text}
    named = {
        photo: f"{source}\n{name}"
        for photo, source, name in _columns(photoset.photos, ("id", "source", "photographer"))
        if name
    }
    return SplitFaces(
        ids,
        photos,
        [hashes.get(id, "") for id in ids],
        [named.get(photo, "") for photo in photos],
        np.concatenate(blocks) if blocks else np.zeros((len(ids), 0), np.float32),
        failed,
    )


def _columns(table: Table[Any], names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    for part in table.parts():
        yield from table.columns(part, names)


def people_of(faces: SplitFaces, likeness: Likeness, same_person: float) -> list[str]:
    """The identity of each face: the first id of the faces that show the same person; empty without embeddings."""
    if not faces.vectors.shape[1]:
        return [""] * len(faces.ids)
    return first_names(faces.ids, identities(faces.vectors, faces.photos, likeness, same_person))


def groups_of(faces: SplitFaces, people: Sequence[str], settings: SplitSettings) -> list[str]:
    """The group of each face, named by the first id among the faces that must share a split."""
    keys: dict[str, Sequence[str]] = {"identity": people, "photo": faces.photos, "photographer": faces.photographers}
    chosen = [[key or None for key in keys[name]] for name in settings.keep_together if name in keys]
    pairs: list[tuple[int, int]] = []
    if "duplicate" in settings.keep_together:
        hashed = [number for number, text in enumerate(faces.hashes) if text]
        near = near_pairs([faces.hashes[number] for number in hashed], settings.duplicate_radius)
        pairs = [(hashed[one], hashed[other]) for one, other in near]
    return first_names(faces.ids, connected_groups(len(faces.ids), chosen, pairs))


def first_names(ids: Sequence[str], labels: Sequence[int]) -> list[str]:
    """Each group named by its member whose id sorts first."""
    first: dict[int, str] = {}
    for id, label in zip(ids, labels, strict=True):
        first[label] = min(id, first.get(label, id))
    return [first[label] for label in labels]
