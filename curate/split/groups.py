"""What holds the faces of a set together: who they show, near duplicates, photos, photographers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from authface.curate.filter.duplicates import near_pairs
from authface.curate.settings import SplitSettings
from authface.curate.split.identities import Likeness, identities, together
from authface.engine.runner import PartInput
from authface.records import Crop, Embedding
from authface.store.photoset import PhotoSet, Table


@dataclass(frozen=True)
class Faces:
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


def read_faces(photoset: PhotoSet, parts: Sequence[PartInput[Crop]], *, embedded: bool) -> Faces:
    """The kept crops with all that may hold them together; `embedded`: with their embeddings."""
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
    return Faces(
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


def people_of(faces: Faces, likeness: Likeness, same_person: float) -> list[str]:
    """The identity of each face: the first id of the faces that show the same person; empty without embeddings."""
    if not faces.vectors.shape[1]:
        return [""] * len(faces.ids)
    return first_names(faces.ids, identities(faces.vectors, faces.photos, likeness, same_person))


def groups_of(faces: Faces, people: Sequence[str], settings: SplitSettings) -> list[str]:
    """The group of each face: the first id of the faces that have to be in one split."""
    keys: dict[str, Sequence[str]] = {"identity": people, "photo": faces.photos, "photographer": faces.photographers}
    chosen = [[key or None for key in keys[name]] for name in settings.keep_together if name in keys]
    pairs: list[tuple[int, int]] = []
    if "duplicate" in settings.keep_together:
        hashed = [number for number, text in enumerate(faces.hashes) if text]
        near = near_pairs([faces.hashes[number] for number in hashed], settings.duplicate_radius)
        pairs = [(hashed[one], hashed[other]) for one, other in near]
    return first_names(faces.ids, together(len(faces.ids), chosen, pairs))


def first_names(ids: Sequence[str], labels: Sequence[int]) -> list[str]:
    """Each group by its member whose id sorts first."""
    first: dict[int, str] = {}
    for id, label in zip(ids, labels, strict=True):
        first[label] = min(id, first.get(label, id))
    return [first[label] for label in labels]
