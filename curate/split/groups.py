"""The faces of a set, and which belong together: those of one person, near duplicates, those of one photo."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from authface.curate.filter.duplicates import BITS, hash_codes, near_codes
from authface.curate.settings import SplitSettings
from authface.curate.split.likeness import Vectors
from authface.engine.runner import PartInput
from authface.engine.workers import Step
from authface.errors import ImageError
from authface.faces.geometry import crop_points
from authface.faces.identity import Embedder, SeenFace, make_embedder, weights_sha256
from authface.imaging import decode as images
from authface.records import Crop, Embedding
from authface.store.numbers import text_number
from authface.store.photoset import PhotoSet, Provenance
from authface.store.rowfile import IdFile, RowFile
from authface.store.statements import DUPLICATE

VERSION = 1
_AT_ONCE = 1 << 12
"""Ids compared at a time."""


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

    def names(self, members: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """What `find` gives for each of many."""
        above = np.frombuffer(self._above, np.int64)
        names: NDArray[np.int64] = above[members]
        while not np.array_equal(further := above[names], names):
            names = further
        above[members] = names
        return names

    def join(self, first: int, second: int) -> None:
        """Unite two sets under the name of the first."""
        self._above[self.find(second)] = self.find(first)

    def labels(self) -> NDArray[np.int32]:
        """(n,) the name of the set of each member."""
        return self.names(np.arange(len(self._above), dtype=np.int32)).astype(np.int32)


def connected_groups(
    count: int, keys: Iterable[NDArray[np.integer[Any]]], pairs: Iterable[tuple[int, int]] = ()
) -> NDArray[np.int32]:
    """(n,) group of each of 0..n-1, named by one of its members: all that share a key or are a pair are in one.

    Each of `keys` has one entry per member; -1 shares nothing.
    """
    sets = DisjointSets(count)
    for column in keys:
        order = np.argsort(column, kind="stable")
        alike = np.flatnonzero((np.diff(column[order]) == 0) & (column[order[1:]] != -1))
        for at in alike.tolist():
            sets.join(int(order[at]), int(order[at + 1]))
    for one, other in pairs:
        sets.join(one, other)
    return sets.labels()


@dataclass(frozen=True)
class SplitFaces:
    """The n faces of a set that have an embedding or need none, in the order of the table `crops`."""

    ids: IdFile
    photos: NDArray[np.int32]
    """(n,) number of the photo."""
    hashes: NDArray[np.uint8]
    """(n, 18), as `hash_codes` has them."""
    hashed: NDArray[np.bool_]
    """(n,) whether there is one."""
    photographers: NDArray[np.int64]
    """(n,) 63-bit hash of the photographer and their source; -1 where nobody is named, or nobody asked."""
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
    ids, photos_before = IdFile(), 0
    photos = np.zeros(count, np.int32)
    vectors: RowFile | None = None
    hashes, hashed = np.zeros((count, BITS // 8), np.uint8), np.zeros(count, np.bool_)
    by = np.full(count, -1, np.int64)
    again = _named_again(photoset) if photographers else {}
    failed: dict[str, Embedding] = {}
    for part in parts:
        known = _embedded(photoset, part, failed) if embedded else kept_crops(photoset, part)
        some = slice(len(ids), len(ids) + len(known))
        if embedded and len(known):
            numbers = known.column("embedding").combine_chunks().flatten().to_numpy().reshape(len(known), -1)
            if vectors is None:
                vectors = RowFile(numbers.shape[1])
            vectors.append(numbers)
        of = known.column("photo_id").combine_chunks().dictionary_encode()
        photos[some] = of.indices.to_numpy() + photos_before
        photos_before += len(of.dictionary)
        hashes[some], hashed[some] = _hashes(photoset, part.number, known.column("id"))
        if photographers:
            whose = _photographers(photoset, part.number)
            by[some] = [whose.get(photo, again.get(photo, -1)) for photo in known.column("photo_id").to_pylist()]
        ids.extend(known.column("id").to_pylist())
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


def kept_crops(photoset: PhotoSet, part: PartInput[Crop]) -> pa.Table:
    """Columns ``id`` and ``photo_id`` of the crops of a part."""
    table = photoset.crops.arrow(part.number, ["id", "photo_id", "status"])
    return table.filter(pc.equal(table.column("status"), "kept")).slice(0, part.count)


def _hashes(photoset: PhotoSet, part: int, ids: pa.ChunkedArray) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """(k, 18) hashes of the faces of one part, and (k,) whether there is one."""
    faces = photoset.faces.arrow(part, ["id", "hash"])
    at = pc.index_in(ids, value_set=faces.column("id").combine_chunks())
    texts = [text or "" for text in faces.column("hash").take(at).to_pylist()]
    there = np.array([bool(text) for text in texts], np.bool_)
    codes = np.zeros((len(texts), BITS // 8), np.uint8)
    codes[there] = hash_codes([text for text in texts if text])
    return codes, there


def _photographers(photoset: PhotoSet, part: int) -> dict[str, int]:
    """The number of the photographer of each photo of a part that names one."""
    rows = photoset.photos.columns(part, ("id", "source", "photographer", "reason"))
    return {photo: _number(source, name) for photo, source, name, reason in rows if name and reason != DUPLICATE}


def _named_again(photoset: PhotoSet) -> dict[str, int]:
    """The same by the rows of all parts whose photo another row keeps, which may name nobody."""
    columns = ("id", "source", "photographer", "reason")
    rows = (row for part in photoset.photos.parts() for row in photoset.photos.columns(part, columns))
    return {photo: _number(source, name) for photo, source, name, reason in rows if name and reason == DUPLICATE}


def _number(source: str, photographer: str) -> int:
    return text_number(f"{source}\0{photographer}") >> 1


def groups_of(faces: SplitFaces, people: NDArray[np.int32], settings: SplitSettings) -> NDArray[np.int32]:
    """(n,) the group of each face, named by the face whose id comes first among those that must share a split.

    `people` are (n,) numbers of the faces that name the person of each, -1 where nobody asked.
    """
    keys: dict[str, NDArray[np.integer[Any]]] = {
        "photo": faces.photos, "photographer": faces.photographers, "identity": people,
    }  # fmt: skip
    chosen = [keys[name] for name in settings.keep_together if name in keys]
    pairs: Iterable[tuple[int, int]] = ()
    if "duplicate" in settings.keep_together:
        hashed = np.flatnonzero(faces.hashed)
        near = near_codes(faces.hashes[hashed], settings.duplicate_radius)
        pairs = ((int(hashed[one]), int(hashed[other])) for one, other in near)
    return first_members(faces.ids, connected_groups(len(faces.ids), chosen, pairs))


def first_members(ids: IdFile, labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """(n,) of each group the member whose id comes first; labels are numbers of members."""
    first = labels.copy()
    """Of each label."""
    for start in range(0, len(ids), _AT_ONCE):
        coded, of = ids.coded(slice(start, start + _AT_ONCE)), labels[start : start + _AT_ONCE]
        order = np.lexsort((coded, of))
        order = order[np.diff(of[order], prepend=-1) != 0]
        of = of[order]
        earlier = coded[order] < ids.coded(first[of])
        first[of[earlier]] = start + order[earlier]
    return first[labels]
