"""Near duplicates: faces whose hashes nearly repeat another's, found without comparing all pairs.

The hash (`measure.face_hash`) is the sign of the low frequencies of the face (pHash, Zauner 2010) at a place that
dlib's eyes fix: RetinaFace's eyes move by several percent when a photo is resized, and with them every bit. A mirrored
copy needs no hash of its own: cosines of odd frequencies across change their sign, all others stay (`mirrored`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from authface.curate.filter.hamming import HammingIndex
from authface.curate.filter.join import pairs_within
from authface.curate.filter.pieces import distances, last_word
from authface.errors import AuthfaceError, UsageError, one_line
from authface.records import Face
from authface.store.rows import SortedRows

_AT_ONCE = 1 << 16
"""Hashes compared with the next ones at a time."""
FREQUENCIES = 12
"""Lowest frequencies of the hash, each way."""
BITS = FREQUENCIES * FREQUENCIES
RADIUS = 17
"""Bits in which near duplicates differ at most.

Of copies of 170 portraits (JPEG 20 and 50, half and 1.7 times the size, 5 and 10 % cropped, brighter, warmer, blurred,
turned by 2 degrees, several at once) 99.5 % lie within 17 bits where the photo has a megapixel or more and 97 % where
it has 300 px; two people who pose eight times each under one light differ by 27 bits and more from pose to pose. Among
10,235 portraits 357 pairs lie within, 174 of them equal; of the 45 from 8 to 17 one looked like two people. From 24
bits on strangers come, half as many again with each bit, which leaves two or three pairs within 17. A set of a million
has ten thousand times as many pairs: there 2 % of the faces would be lost to strangers at 17, 0.7 % at 14.

Of mirrored copies of 300 portraits of 300 px 99 % lie within 17 bits of the mirrored hash (JPEG 50 and 20, half and 1.7
times the size alike), as of copies that are not mirrored. Of 286,146 pairs among 757 portraits none is within 22 bits
where one is mirrored, and 2, of one photo, where none is.
"""

_HASH = re.compile(f"[0-9a-f]{{{BITS // 4}}}")
_CHUNK, _CHUNKS = 1 << 14, 32
"""Rows with an index of their own at least, and how many such chunks at most: what is kept of one is searched for in
all later ones at once, so that each makes tables of all later ones."""
_BLOCK = 512
"""Rows of a chunk searched at a time; among themselves they are compared pair by pair."""
_ODD_ACROSS = np.packbits(np.arange(BITS) % FREQUENCIES % 2)
"""The bits of frequencies that are odd across the face."""
_TURNS = (np.zeros_like(_ODD_ACROSS), _ODD_ACROSS)
"""What makes a hash that of the face as it is, and of its mirror image."""
_PLACE = "photo, left, top, right, bottom"
_SAME_PLACE = 0.1
"""Shared area over joint area from which two boxes of one photo may hold the same face."""


def find_duplicates(faces: Iterable[Face], radius: int = RADIUS) -> dict[str, tuple[str, int]]:
    """Id of each face that nearly repeats a better one -> that one's id, and the bits they differ in, 0..radius.

    A mirrored copy repeats it too (`bits_apart`). The largest face is the best, then the sharpest, then the one whose
    id sorts first. Each is compared with kept faces only, so nothing is thrown away for the likeness of something
    thrown away; of several the nearest, then the best counts. Two faces of one photo are no duplicates unless their
    boxes overlap. Faces without a hash are passed over. The order of `faces` does not matter. Raises UsageError for a
    radius outside 0..144, AuthfaceError for a hash that `face_hash` does not make.
    """
    if not 0 <= radius <= BITS:
        raise UsageError(f"a radius of {radius} bits: the hash of a face has {BITS}")
    with _Ranked(faces) as ranked:
        some = np.flatnonzero(_not_alone(ranked.codes, radius))

        def may_repeat(row: int, better: int) -> bool:
            return ranked.may_repeat(int(some[row]), int(some[better]))

        return {
            ranked.id(int(some[row])): (ranked.id(int(some[better])), bits)
            for row, (bits, better) in sorted(_nearest(ranked.codes[some], radius, may_repeat).items())
        }


def _not_alone(codes: NDArray[np.uint8], radius: int) -> NDArray[np.bool_]:
    """(n,) whether another of (n, 18) hashes is within the radius.

    Where thousands of faces are near one another, most are told by the next one in order, not by all pairs of them.
    """
    found = np.zeros(len(codes), np.bool_)
    order = np.argsort(last_word(codes))
    for start in range(0, len(codes), _AT_ONCE):
        some = order[start : start + _AT_ONCE + 1]
        near = np.bitwise_count(codes[some[1:]] ^ codes[some[:-1]]).sum(axis=1, dtype=np.int64) <= radius
        found[some[1:][near]] = found[some[:-1][near]] = True
    del order
    for numbers, others in pairs_within(codes, radius, _TURNS, found):
        found[numbers] = found[others] = True
    return found


def _nearest(
    codes: NDArray[np.uint8], radius: int, may_repeat: Callable[[int, int], bool]
) -> dict[int, tuple[int, int]]:
    """Row of each of (n, 18) hashes, the best first, that repeats a kept one -> bits apart and that one's row."""
    nearest: dict[int, tuple[int, int]] = {}
    free = np.ones(len(codes), np.bool_)

    def repeats(row: int, better: int, bits: int) -> None:
        if may_repeat(row, better):
            nearest[row] = min(nearest.get(row, (bits, better)), (bits, better))
            free[row] = False

    chunk = max(_CHUNK, -(-len(codes) // _CHUNKS))
    for start in range(0, len(codes), chunk):
        stop = min(start + chunk, len(codes))
        index = NearIndex(codes[start:stop], radius)
        for at in range(start, stop, _BLOCK):
            block = (at + np.flatnonzero(free[at : min(at + _BLOCK, stop)])).tolist()
            apart = bits_apart(codes[block], codes[block])
            for first, second in np.argwhere(np.triu(apart <= radius, 1)).tolist():
                if free[block[first]]:
                    repeats(block[second], block[first], int(apart[first, second]))
            kept = np.array([row for row in block if free[row]], np.int64)
            for row, number, bits in zip(*index.search(codes[kept]), strict=True):
                if start + number > kept[row]:
                    repeats(start + int(number), int(kept[row]), int(bits))
        kept = start + np.flatnonzero(free[start:stop])
        for row, number, bits in zip(*NearIndex(codes[stop:], radius, brief=True).search(codes[kept]), strict=True):
            repeats(stop + int(number), int(kept[row]), int(bits))
    return nearest


def near_pairs(hashes: Sequence[str], radius: int = RADIUS) -> Iterator[tuple[int, int]]:
    """Numbers of hashes at most `radius` bits apart (`bits_apart`), enough of them to join all near one another.

    Equal hashes are paired with the one before only. Raises AuthfaceError as `hash_codes` does.
    """
    yield from near_codes(hash_codes(hashes), radius)


def near_codes(codes: NDArray[np.uint8], radius: int = RADIUS) -> Iterator[tuple[int, int]]:
    """`near_pairs` of (n, 18) uint8 hashes."""
    whole = np.ascontiguousarray(codes).view(f"S{codes.shape[1]}")[:, 0]
    order = np.argsort(whole, kind="stable").astype(np.int32)
    again = np.zeros(len(codes), np.bool_)
    for start in range(0, len(codes), _AT_ONCE):
        some = whole[order[start : start + _AT_ONCE + 1]]
        again[start + 1 : start + len(some)] = some[1:] == some[:-1]
    yield from ((int(order[at - 1]), int(order[at])) for at in np.flatnonzero(again).tolist())
    first = np.sort(order[~again])
    del order, again, whole
    codes = codes[first]
    for numbers, others in pairs_within(codes, radius, _TURNS):
        yield from zip(first[numbers].tolist(), first[others].tolist(), strict=True)


def mirrored(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(n, 18) uint8 hashes of the faces' mirror images, from those of the faces."""
    return codes ^ _ODD_ACROSS


def bits_apart(codes: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(n, m) bits in which (n, 18) and (m, 18) uint8 hashes differ, or one's mirror image if that is nearer."""
    return np.minimum(distances(codes, others), distances(mirrored(codes), others))


class NearIndex:
    """Finds every hash within a radius of others, by `bits_apart`: each is looked up as it is and mirrored."""

    def __init__(self, codes: NDArray[np.uint8], radius: int, *, brief: bool = False) -> None:
        self._index = HammingIndex(codes, radius, brief=brief)

    def search(self, codes: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(m,) rows of the (n, 18) uint8 asked for, (m,) numbers of hashes within the radius and (m,) bits apart.

        By row, then by number, each pair once.
        """
        rows, numbers, bits = self._index.search(np.concatenate([codes, mirrored(codes)]))
        rows %= max(len(codes), 1)
        order = np.lexsort((bits, numbers, rows))
        rows, numbers, bits = rows[order], numbers[order], bits[order]
        first = (np.diff(rows, prepend=-1) != 0) | (np.diff(numbers, prepend=-1) != 0)
        return rows[first], numbers[first], bits[first]


def hash_codes(hashes: Sequence[str]) -> NDArray[np.uint8]:
    """(n, 18) uint8 of hashes in hex. Raises AuthfaceError for one that `face_hash` does not make."""
    for text in hashes:
        if not _HASH.fullmatch(text):
            raise AuthfaceError(
                f"{one_line(text, 40)!r} is no hash of a face, which has {BITS // 4} hex digits: "
                "run authface curate filter again"
            )
    return np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(-1, BITS // 8)


class _Ranked(SortedRows):
    """The n faces that have a hash, by size, then sharpness, then id, in a temporary file: 18 bytes of memory each."""

    def __init__(self, faces: Iterable[Face]) -> None:
        names = ("id", "photo", "left", "top", "right", "bottom", "code", "size", "sharpness")
        super().__init__(names, (_row(face) for face in faces if face.hash), "size desc, sharpness desc, id")
        codes = bytearray()
        for (code,) in self.select("code from sorted order by rowid"):
            codes += code
        self.codes: NDArray[np.uint8] = np.frombuffer(codes, np.uint8).reshape(-1, BITS // 8)
        """(n, 18)"""

    def id(self, row: int) -> str:
        """The face's id."""
        return str(self._of(row, "id")[0])

    def may_repeat(self, row: int, other: int) -> bool:
        """Whether two faces may be the same picture: of two photos, or at one place of one photo."""
        (photo, *box), (other_photo, *other_box) = (self._of(at, _PLACE) for at in (row, other))
        if photo != other_photo:
            return True
        if None in {*box, *other_box}:
            return False
        (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = box, other_box
        shared = max(0.0, min(ax1, bx1) - max(ax0, bx0)) * max(0.0, min(ay1, by1) - max(ay0, by0))
        joint = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - shared
        return bool(shared > _SAME_PLACE * joint)

    def _of(self, row: int, names: str) -> tuple[Any, ...]:
        """Columns of one face."""
        return next(self.select(f"{names} from sorted where rowid = ?", (row + 1,)))


def _row(face: Face) -> tuple[Any, ...]:
    """A face in a file of `_Ranked`. Raises AuthfaceError as `hash_codes`."""
    code = hash_codes([face.hash]).tobytes()
    return face.id, face.photo_id, *(face.box or (None,) * 4), code, face.size or 0.0, face.sharpness or 0.0
