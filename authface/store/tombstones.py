"""What a photo set must forget: tombstones hold only hashes, so that no later fetch brings a photo back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from authface.records import Photo, now
from authface.store.jsonl import Journal
from authface.store.photoset import PhotoSet

REASON = "forgotten"
"""Reason of the rows that replace forgotten ones in a table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """One line of ``forgotten.jsonl``: what is left of a forgotten photo, so that it is never fetched again."""

    photo: str
    """sha256 of the photo's bytes in hex; empty where only its item or its photographer is known."""
    item: str = ""
    """sha256 of the source and the photo's name in it; see `item_hash`."""
    photographer: str = ""
    """sha256 of a photographer whose photos must never be fetched again; see `photographer_hash`."""
    at: str = ""
    """ISO 8601, UTC."""
    reason: str = ""
    done: bool = False
    """Nothing of it is left in the set; until then `curate forget` resumes where it was stopped."""


@dataclass(frozen=True)
class Forgotten:
    """Hashes of all forgotten photos and photographers; small enough to send to every worker."""

    photos: frozenset[str] = frozenset()
    items: frozenset[str] = frozenset()
    photographers: frozenset[str] = frozenset()

    @classmethod
    def of(cls, photoset: PhotoSet) -> Forgotten:
        """The hashes in the set's tombstones; empty if there are none."""
        stones = tombstones(photoset)
        return cls(
            frozenset(stone.photo for stone in stones) - {""},
            frozenset(stone.item for stone in stones) - {""},
            frozenset(stone.photographer for stone in stones) - {""},
        )

    def holds(
        self, *, photo_id: str = "", source: str = "", source_id: str = "", photographers: Iterable[str] = ()
    ) -> bool:
        """Whether a photo is forgotten: by the sha256 of its bytes, its name in its source, or its photographer.

        `photographers` are the photographer's name and page, as far as they are known.
        """
        if photo_id in self.photos:
            return True
        if self.items and source and item_hash(source, source_id) in self.items:
            return True
        return bool(self.photographers) and any(
            photographer_hash(source, name) in self.photographers for name in photographers if name
        )


def item_hash(source: str, source_id: str) -> str:
    """sha256 in hex of a photo's name in its source."""
    return _hash("item", source, source_id)


def photographer_hash(source: str, name: str) -> str:
    """sha256 in hex of a photographer's name or page within a source, without its query and case."""
    return _hash("photographer", source, name.partition("?")[0].rstrip("/").casefold())


def tombstones(photoset: PhotoSet) -> list[Tombstone]:
    """All tombstones of the set, oldest first."""
    return _journal(photoset).read()[0]


def bury(photoset: PhotoSet, stones: Sequence[Tombstone]) -> None:
    """Add the tombstones that are new; the caller holds the set's lock."""
    before = tombstones(photoset)
    known = {(stone.photo, stone.item, stone.photographer) for stone in before}
    new = [stone for stone in stones if (stone.photo, stone.item, stone.photographer) not in known]
    if new:
        _journal(photoset).rewrite([*before, *new])


def close(photoset: PhotoSet) -> None:
    """Mark every tombstone as done: nothing that they name is left in the set."""
    _journal(photoset).rewrite([replace(stone, done=True) for stone in tombstones(photoset)])


def tombstone(photo: Photo, reason: str, *, done: bool = False) -> Tombstone:
    """The tombstone of a photo; `done` where nothing of it came into the set."""
    item = item_hash(photo.source, photo.source_id)
    return Tombstone(photo=photo.id, item=item, at=now(), reason=reason, done=done)


def blank(source: str) -> Photo:
    """The row that replaces a forgotten photo: it keeps only the source's name."""
    return Photo(id="", source=source, source_id="", file="", status="rejected", reason=REASON)


def _journal(photoset: PhotoSet) -> Journal[Tombstone]:
    return Journal(photoset.root / "forgotten.jsonl", Tombstone)


def _hash(*words: str) -> str:
    return hashlib.sha256("\n".join(words).encode("utf-8", "backslashreplace")).hexdigest()
