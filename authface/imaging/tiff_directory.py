"""The directories of a TIFF (TIFF 6.0, section 2) or BigTIFF: read from a file, written as those of a classic one."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from authface.errors import ImageError

Order = Literal["<", ">"]

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of a TIFF of either byte order, and of a BigTIFF."""
NEW_SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
FILL_ORDER, STRIPS, ORIENTATION, SAMPLES, ROWS, STRIP_SIZES = 266, 273, 274, 277, 278, 279
X_RESOLUTION, Y_RESOLUTION, PLANES, RESOLUTION_UNIT, PREDICTOR, PALETTE = 282, 283, 284, 296, 317, 320
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_SIZES, SUB_DIRECTORIES = 322, 323, 324, 325, 330
INK_SET, EXTRA, FORMAT, JPEG_TABLES = 332, 338, 339, 347
XMP, IPTC, PHOTOSHOP, EXIF, PROFILE, GPS, INTEROP = 700, 33723, 34377, 34665, 34675, 34853, 40965
LAYERS, JPEG_PLACE, C2PA = 37724, 513, 52545
_NESTED = {0: frozenset({EXIF, GPS}), EXIF: frozenset({INTEROP})}
"""Tags whose value is the offset of another directory, in a page (0) and in the directory of such a tag."""
_PIXELS = frozenset({BITS, STRIPS, STRIP_SIZES, PALETTE, TILES, TILE_SIZES, EXTRA, FORMAT, JPEG_TABLES})
"""Tags without which a page's pixels are not read, or not as they were stored."""
MAX_PAGES = 10_000

_SIZE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of each type."""
_CODE = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l", 13: "L", 16: "Q", 17: "q", 18: "Q"}
_LONG, _LONG8 = 4, {16, 18}


@dataclass(frozen=True)
class DirectoryEntry:
    """A tag's value as stored in the file."""

    type: int
    count: int
    body: bytes | memoryview


@dataclass(frozen=True)
class Directory:
    """The tags of a page, or of the EXIF block within it."""

    order: Order
    entries: Mapping[int, DirectoryEntry] = field(default_factory=dict)
    nested: Mapping[int, Directory] = field(default_factory=dict)

    def numbers(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """The whole numbers under a tag; `default` where it is absent or holds others."""
        entry = self.entries.get(tag)
        if entry is None or entry.type not in _CODE:
            return default
        return struct.unpack(f"{self.order}{entry.count}{_CODE[entry.type]}", entry.body)

    def number(self, tag: int, default: int = 0) -> int:
        """The first whole number under a tag."""
        return (self.numbers(tag) or (default,))[0]

    def ratio(self, tag: int) -> float:
        """The first fraction under a tag; 0 where there is none."""
        entry = self.entries.get(tag)
        if entry is None or entry.type != 5 or not entry.count:
            return float(self.number(tag))
        above, below = struct.unpack_from(f"{self.order}LL", entry.body)
        return above / below if below else 0.0

    def bytes_of(self, tag: int) -> bytes:
        """A tag's value as bytes."""
        entry = self.entries.get(tag)
        return b"" if entry is None else bytes(entry.body)


@dataclass(frozen=True)
class _TiffBytes:
    data: memoryview
    """Values are views of it, not copies: many directories of a hostile file may refer to the same bytes."""
    order: Order
    big: bool

    def unpack(self, code: str, at: int) -> tuple[int, ...]:
        try:
            return struct.unpack_from(self.order + code, self.data, at)
        except (struct.error, OverflowError) as error:
            raise ImageError("truncated", f"a TIFF directory at byte {at} of {len(self.data)}") from error

    def directory(self, at: int, of: int = 0) -> tuple[Directory, int]:
        """The directory at offset `at`, of a page or of the tag `of`, and the offset of the next one (0: none)."""
        (count,) = self.unpack("Q" if self.big else "H", at)
        head, size, word = (8, 20, "Q") if self.big else (2, 12, "L")
        (following,) = self.unpack(word, at + head + size * count)
        entries: dict[int, DirectoryEntry] = {}
        inner: dict[int, Directory] = {}
        for place in range(at + head, at + head + size * count, size):
            tag, kind = self.unpack("HH", place)
            (values,) = self.unpack(word, place + 4)
            length = _SIZE.get(kind, 0) * values
            field_at = place + (12 if self.big else 8)
            if length > (8 if self.big else 4):
                (field_at,) = self.unpack(word, field_at)
            body = self.data[field_at : field_at + length]
            if len(body) < length and not of and tag in _PIXELS:
                raise ImageError("truncated", f"a TIFF's tag {tag} at byte {field_at} of {len(self.data)}")
            if not length or len(body) < length:
                continue  # of a type that no one knows, or beyond the file's end: as if it were not there
            entries.setdefault(tag, DirectoryEntry(kind, values, body))
            if tag in _NESTED.get(of, ()) and kind in _CODE:
                (target, *_) = struct.unpack_from(self.order + _CODE[kind], body)
                try:
                    inner[tag] = self.directory(target, tag)[0]
                except ImageError:
                    del entries[tag]
        return Directory(self.order, entries, inner), following


def read_pages(data: bytes) -> list[Directory]:
    """The directories of a TIFF's pages; at most 10,000. Raises ImageError (`not_an_image`, `truncated`).

    A file cut short has pages, or the places of their pixels, beyond its end: the pages before are no whole photo.
    """
    if not data.startswith(SIGNATURES):
        raise ImageError("not_an_image", "no TIFF")
    file = _TiffBytes(memoryview(data), "<" if data[:1] == b"I" else ">", data[2:4] in (b"+\0", b"\0+"))
    if file.big and file.unpack("HH", 4) != (8, 0):
        raise ImageError("not_an_image", "a BigTIFF whose offsets have no 8 bytes")
    (at,) = file.unpack("Q" if file.big else "L", 8 if file.big else 4)
    pages: list[Directory] = []
    seen: set[int] = set()
    while at and at not in seen and len(pages) < MAX_PAGES:
        seen.add(at)
        page, at = file.directory(at)
        pages.append(page)
    if not pages:
        raise ImageError("truncated", "a TIFF without a picture")
    return pages


def write_directory(directory: Directory, at: int, following: int = 0) -> bytes:
    """A directory that stands at byte `at` of a classic TIFF, with its values and nested directories behind it.

    `following` is the offset of the next page's directory, 0: none. 64-bit numbers become 32-bit ones.
    """
    order = directory.order
    entries = {tag: narrow for tag, entry in directory.entries.items() if (narrow := _narrow(entry, order))}
    behind = at + 2 + 12 * len(entries) + 4
    table, values = struct.pack(order + "H", len(entries)), b""
    for tag, entry in sorted(entries.items()):
        body = entry.body
        if tag in directory.nested:
            values += b"\0" * (len(values) % 2)
            place = behind + len(values)
            values += write_directory(directory.nested[tag], place)
            entry, body = DirectoryEntry(_LONG, 1, b""), struct.pack(order + "L", place)
        if len(body) > 4:
            values += b"\0" * (len(values) % 2)
            place = behind + len(values)
            values += body
            body = struct.pack(order + "L", place)
        table += struct.pack(order + "HHL", tag, entry.type, entry.count) + bytes(body).ljust(4, b"\0")
    values += b"\0" * (len(values) % 2)
    return table + struct.pack(order + "L", following) + values


def classic_header(order: Order) -> bytes:
    """The first 8 bytes of a classic TIFF, whose first directory follows them."""
    return (b"II" if order == "<" else b"MM") + struct.pack(order + "HL", 42, 8)


def _narrow(entry: DirectoryEntry, order: Order) -> DirectoryEntry | None:
    """An entry of a BigTIFF as one of a TIFF; None if it does not fit into 32 bits."""
    if entry.type not in {*_LONG8, 17}:
        return entry
    numbers = struct.unpack(f"{order}{entry.count}{_CODE[entry.type]}", entry.body)
    if not all(0 <= number < 1 << 32 for number in numbers):
        return None
    return DirectoryEntry(_LONG, entry.count, struct.pack(f"{order}{entry.count}L", *numbers))


def longs(order: Order, *numbers: int) -> DirectoryEntry:
    """32-bit numbers as a tag's value."""
    return DirectoryEntry(_LONG, len(numbers), struct.pack(f"{order}{len(numbers)}L", *numbers))


def shorts(order: Order, *numbers: int) -> DirectoryEntry:
    """16-bit numbers as a tag's value."""
    return DirectoryEntry(3, len(numbers), struct.pack(f"{order}{len(numbers)}H", *numbers))
