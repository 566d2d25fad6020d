"""What a photo of a source is known by, and its number."""

from __future__ import annotations

from typing import Final

from authface.records import Photo
from authface.store.numbers import text_number

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


def key_number(key: Key) -> int:
    """64 bits of a key: of seven million, one new key in a trillion seems known."""
    return text_number("\0".join(key))


def sizeless(key: Key) -> Key:
    """The key that a file's failed row of an earlier version has."""
    source, source_id, file = key
    return source, source_id, f"{file.rpartition(' ')[0]} 0" if file else ""
