"""Which photos a set already has: those with rows in its tables, and those fetched whose part is not written yet."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from authface.records import Photo
from authface.store.jsonl import Journal
from authface.store.photoset import PhotoSet

_MERGE = 1 << 14
"""New numbers gathered in a set, 100 bytes each, before they join the sorted array, 8 bytes each."""


def photo_key(photo: Photo) -> tuple[str, str, str]:
    """What identifies a photo among those of all sources."""
    return source_key(photo.source, photo.source_id, photo.as_of)


def source_key(source: str, source_id: str, as_of: str) -> tuple[str, str, str]:
    """The key of a photo: a file that changed is another photo, a listed one stays the same whenever it was listed."""
    return source, source_id, as_of if source == "folder" else ""


class NumberSet:
    """A growing set of 64-bit numbers: 8 bytes each, in a sorted array."""

    def __init__(self, known: Iterable[int] = ()) -> None:
        self._sorted = np.sort(np.fromiter(known, dtype=np.uint64))
        self._fresh: set[int] = set()

    def __contains__(self, number: int) -> bool:
        if number in self._fresh:
            return True
        at = int(self._sorted.searchsorted(np.uint64(number)))
        return at < len(self._sorted) and int(self._sorted[at]) == number

    def add(self, number: int) -> bool:
        """Add a number; whether it was new."""
        if number in self:
            return False
        self._fresh.add(number)
        if len(self._fresh) >= _MERGE:
            fresh = np.sort(np.fromiter(self._fresh, dtype=np.uint64))
            self._sorted = np.sort(np.concatenate([self._sorted, fresh]), kind="stable")  # merges two sorted runs
            self._fresh.clear()
        return True


class KeySet:
    """A growing set of keys, as 64-bit hashes: of seven million, one new key in a trillion seems known."""

    def __init__(self, known: Iterable[tuple[str, str, str]] = ()) -> None:
        self._numbers = NumberSet(_hash(source_key(*names)) for names in known)

    def __contains__(self, names: tuple[str, str, str]) -> bool:
        return _hash(names) in self._numbers

    def add(self, names: tuple[str, str, str]) -> bool:
        """Add a key; whether it was new."""
        return self._numbers.add(_hash(names))


def _hash(names: tuple[str, str, str]) -> int:
    text = "\0".join(names).encode("utf-8", "backslashreplace")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedPhoto:
    """One line of ``sources/fetched.jsonl``; the last line of a photo counts."""

    photo: Photo
    owed: bool = False
    """Whether the source still has to be notified that the photo was taken."""


class UnwrittenRows:
    """Rows that cost requests and are in no part yet: each is on disk at once, so that a kill loses none."""

    def __init__(self, photoset: PhotoSet, seen: KeySet) -> None:
        self._journal = Journal(photoset.root / "sources" / "fetched.jsonl", FinishedPhoto)
        self._lock = threading.Lock()
        lines, _ = self._journal.read()
        found = {photo_key(line.photo): line for line in lines}
        self._rows = {
            names: line
            for names, line in found.items()
            if names not in seen and (line.photo.status != "kept" or photoset.exists(line.photo.file))
        }
        if len(self._rows) != len(lines):
            self._journal.rewrite(list(self._rows.values()))

    def get(self, photo: Photo) -> FinishedPhoto | None:
        """What an earlier run completed of this photo, if anything."""
        with self._lock:
            return self._rows.get(photo_key(photo))

    def add(self, photo: Photo, *, owed: bool = False) -> None:
        """Store a row; on return it is on disk."""
        line = FinishedPhoto(photo=photo, owed=owed)
        with self._lock:
            self._rows[photo_key(photo)] = line
            self._journal.append(line)

    def mark_written(self, rows: list[Photo]) -> None:
        """Drop rows that a part holds now."""
        with self._lock:
            before = len(self._rows)
            for row in rows:
                self._rows.pop(photo_key(row), None)
            if len(self._rows) != before:
                self._journal.rewrite(list(self._rows.values()))

    def rows(self) -> list[Photo]:
        """The rows that are in no part, without those whose source still has to be notified."""
        with self._lock:
            return [line.photo for line in self._rows.values() if not (line.owed and line.photo.download_location)]
