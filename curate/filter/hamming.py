"""Codes of bits that differ in few of them from one asked for, found without comparing all: one piece of them after
another is looked up in a table from its value to the codes that have it (`pieces`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from authface.curate.filter.pieces import Piece, Words, apart, cut, looked_at, met, words_of

_QUERIES = 1024
_AT_ONCE = 1 << 16
"""Codes compared at a time; a query with more is compared alone."""


@dataclass(frozen=True)
class _Lookup:
    """Where the codes of each value of a piece are."""

    piece: Piece
    around: NDArray[np.int32]
    """As `Piece.around`."""
    there: NDArray[np.uint8]
    """(2^bits / 8,) whether some code has a value, a bit each: most of those looked at have none."""
    values: NDArray[np.int32]
    """(m,) the values that codes have, ascending."""
    starts: NDArray[np.int32]
    """(m + 1,) where in `order` the codes of each begin."""
    order: NDArray[np.int32]
    """Numbers of the codes by value, then by number."""


class HammingIndex:
    """Finds every one of (n, length) uint8 codes within `radius` bits of a query.

    Memory for 144 bits: 100 bytes a code, and 2 MB for each piece of the longest; with `brief`, where each search makes
    the pieces one by one, 40 bytes and 2 MB. Exact at any radius; one of an eighth of the bits nears comparing all.
    """

    def __init__(self, codes: NDArray[np.uint8], radius: int, *, brief: bool = False) -> None:
        self.radius = radius
        self._codes, self._words = codes, words_of(codes)
        self._kept = None if brief else list(_lookups(codes, radius))

    def search(self, codes: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(m,) rows of the queries, (m,) numbers of codes and (m,) bits they differ in, by row, then by number."""
        keys, bits, count = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], max(len(self._codes), 1)
        for lookup in _lookups(self._codes, self.radius) if self._kept is None else self._kept:
            for at in range(0, len(codes), _QUERIES):
                some = codes[at : at + _QUERIES]
                words = words_of(some)
                for rows, numbers in _candidates(lookup, some):
                    rows, numbers, differ = _within(self.radius, words, rows, self._words, numbers)
                    keys.append((rows + at) * count + numbers)
                    bits.append(differ)
            del lookup  # before the next one takes memory
        found, first = np.unique(np.concatenate(keys), return_index=True)
        return *np.divmod(found, count), np.concatenate(bits)[first]


def _candidates(lookup: _Lookup, codes: NDArray[np.uint8]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32]]]:
    """Rows of (n, length) codes asked for, and numbers of the codes to compare each with for one piece's sake."""
    values = (lookup.piece.values(codes)[:, None] ^ lookup.around).ravel()
    looked = np.flatnonzero((lookup.there[values >> 3] << (values & 7).astype(np.uint8)) & 0x80)
    at = np.searchsorted(lookup.values, values[looked])
    begins, rows = lookup.starts[at], looked // len(lookup.around)
    counts = lookup.starts[at + 1] - begins
    ends = np.cumsum(counts, dtype=np.int64)
    done = 0
    while done < len(ends):
        before = int(ends[done - 1]) if done else 0
        end = max(int(np.searchsorted(ends, before + _AT_ONCE, "right")), done + 1)
        some = slice(done, end)
        offset = begins[some] - (ends[some] - counts[some] - before)
        places = np.repeat(offset, counts[some]) + np.arange(int(ends[end - 1]) - before)
        yield np.repeat(rows[some], counts[some]), lookup.order[places]
        done = end


def _within(
    radius: int, words: Words, rows: NDArray[np.int64], others: Words, numbers: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """The rows and numbers whose codes differ by the radius at most, and by how many bits; one word tells most."""
    keep = np.bitwise_count(words[0][rows] ^ others[0][numbers]) <= radius
    rows, numbers = rows[keep], numbers[keep]
    bits = apart(words, rows, others, numbers)
    keep = bits <= radius
    return rows[keep], numbers[keep], bits[keep]


def _lookups(codes: NDArray[np.uint8], radius: int) -> Iterator[_Lookup]:
    """Pieces of (n, length) codes, one of which has every code within the radius of a query where it looks."""
    for piece in cut(len(codes), codes.shape[1] * 8, radius, _work):
        values = piece.values(codes)
        order = np.argsort(values, kind="stable").astype(np.int32)
        values = values[order]
        starts = np.flatnonzero(np.diff(values, prepend=-1)).astype(np.int32)
        known = values[starts]
        there = np.zeros(2 ** len(piece.bits) + 7 >> 3, np.uint8)
        for at in range(0, len(known), _AT_ONCE):
            some = known[at : at + _AT_ONCE]
            np.bitwise_or.at(there, some >> 3, (0x80 >> (some & 7)).astype(np.uint8))
        yield _Lookup(piece, piece.around(), there, known, np.append(starts, np.int32(len(values))), order)
        del values, order, starts, known, there  # before those of the next piece take memory


def _work(count: int, length: float, share: int) -> float:
    """What a query costs at a piece: codes to compare it with, places to look at, its part of making the table."""
    if not length:
        return float(count)
    return count * met(length, share) + looked_at(length, share) / 2 + 2**length / count / 4
