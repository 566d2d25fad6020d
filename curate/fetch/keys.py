"""What a photo of a source is known by, and sets of such keys in little memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from authface.records import Photo
from authface.store.rowfile import text_number

_MERGE = 1 << 14
"""New numbers gathered in a set, 100 bytes each, before they join the sorted array, 8 bytes each."""
Key = tuple[str, str, str]
KEY_COLUMNS: Final = ("source", "source_id", "as_of", "bytes")
"""Columns of a photo that `source_key` takes."""


def photo_key(photo: Photo) -> Key:
    """What identifies a photo among those of all sources."""
    return source_key(photo.source, photo.source_id, photo.as_of, photo.bytes)


def source_key(source: str, source_id: str, as_of: str, size: int) -> Key:
    """The key of a photo; a listed one stays the same whenever it was listed.

    A file is another photo where its time of change or its size in bytes is another: archives that are unpacked side
    by side often share names and times.
    """
    return source, source_id, f"{as_of} {size}" if source == "folder" else ""


class NumberSet:
    """A growing set of 64-bit numbers: 8 bytes each, in a sorted array."""

    def __init__(self, known: Iterable[int] = ()) -> None:
        self._sorted = np.fromiter(known, dtype=np.uint64)
        self._sorted.sort()  # in place: a copy of millions is as much again
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
            self._sorted = np.concatenate([self._sorted, fresh])
            self._sorted.sort(kind="stable")  # merges two sorted runs
            self._fresh.clear()
        return True


def key_number(key: Key) -> int:
    """64 bits of a key: of seven million, one new key in a trillion seems known."""
    return text_number("\0".join(key))


def sizeless(key: Key) -> Key:
    """The key that a file's failed row of an earlier version has."""
    source, source_id, file = key
    return source, source_id, f"{file.rpartition(' ')[0]} 0" if file else ""
