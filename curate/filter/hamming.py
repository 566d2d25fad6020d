"""Multi-index hashing (Norouzi et al. 2012): all binary codes within a radius of others, without comparing all pairs.

The bits are cut in pieces, each with a table from its value to the codes that have it. Of two codes within the radius
some piece differs by no more than its share of it, so looking every piece up that far around the query's misses none.
More and longer pieces make fewer strangers to compare and more places to look at; `_plan` weighs the two.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

_PIECES = range(4, 25)
_LONGEST = 24
"""Bits of a piece at most: it has a bit for each of its values."""
_UNEVEN = 0.42
"""How often two faces differ in a bit of their hashes; coins would in half of them."""
_QUERIES = 1024
_AT_ONCE = 1 << 21
"""Codes compared at a time; a query with more is compared alone."""


@dataclass(frozen=True)
class _Piece:
    """Some bits of every code, and where the codes of each of their values are."""

    bits: NDArray[np.intp]
    """Their numbers."""
    around: NDArray[np.int32]
    """What a value is turned by to get all values to look at; the first is 0."""
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

    Memory for 144 bits: 100 bytes a code, and 2 MB of bits for each piece of the longest.

    Exact at any radius; with a radius of more than an eighth of the bits it comes near to comparing all with all.
    """

    def __init__(self, codes: NDArray[np.uint8], radius: int) -> None:
        self.radius = radius
        self._words = _words(codes)
        bits = codes.shape[1] * 8
        shares = _plan(len(codes), bits, radius) if len(codes) else []
        # Neighbouring bits are alike among faces: each piece takes every so many-th.
        self._pieces = [
            _piece(codes, np.arange(number, bits, len(shares)), share)
            for number, share in enumerate(shares)
            if share >= 0
        ]

    def search(self, codes: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(m,) rows of the queries, (m,) numbers of codes and (m,) bits they differ in, by row, then by number."""
        found = [self._block(codes[at : at + _QUERIES], at) for at in range(0, len(codes), _QUERIES)]
        if not found:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64)
        rows, numbers, bits = (np.concatenate(column) for column in zip(*found, strict=True))
        return rows, numbers, bits

    def _block(self, codes: NDArray[np.uint8], at: int) -> tuple[NDArray[np.int64], ...]:
        words, keys = _words(codes), [np.zeros(0, np.int64)]
        for rows, numbers in self._candidates(codes):
            keep = np.bitwise_count(words[0][rows] ^ self._words[0][numbers]) <= self.radius
            rows, numbers = rows[keep], numbers[keep]
            keep = _apart(words, rows, self._words, numbers) <= self.radius
            keys.append(rows[keep].astype(np.int64) * len(self._words[0]) + numbers[keep])
        row, number = np.divmod(np.unique(np.concatenate(keys)), max(len(self._words[0]), 1))
        return row + at, number, _apart(words, row, self._words, number)

    def _candidates(self, codes: NDArray[np.uint8]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32]]]:
        """Rows of queries, and numbers of the codes to compare each with; some pairs more than once."""
        if not self._pieces:
            for number in range(len(codes) * bool(len(self._words[0]))):
                others = np.arange(len(self._words[0]), dtype=np.int32)
                yield np.full(len(others), number), others
            return
        for piece in self._pieces:
            values = (_values(codes, piece.bits)[:, None] ^ piece.around).ravel()
            looked = np.flatnonzero((piece.there[values >> 3] << (values & 7).astype(np.uint8)) & 0x80)
            at = np.searchsorted(piece.values, values[looked])
            begins, rows = piece.starts[at], looked // len(piece.around)
            counts = piece.starts[at + 1] - begins
            ends = np.cumsum(counts, dtype=np.int64)
            cut = 0
            while cut < len(ends):
                before = int(ends[cut - 1]) if cut else 0
                end = max(int(np.searchsorted(ends, before + _AT_ONCE, "right")), cut + 1)
                some = slice(cut, end)
                offset = begins[some] - (ends[some] - counts[some] - before)
                places = np.repeat(offset, counts[some]) + np.arange(int(ends[end - 1]) - before)
                yield np.repeat(rows[some], counts[some]), piece.order[places]
                cut = end


def distances(codes: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(n, m) bits in which (n, length) and (m, length) uint8 codes differ."""
    total = np.zeros((len(codes), len(others)), np.int64)
    for one, other in zip(_words(codes), _words(others), strict=True):
        total += np.bitwise_count(one[:, None] ^ other)
    return total


def _apart(
    words: tuple[NDArray[np.uint64], ...],
    rows: NDArray[np.int64],
    others: tuple[NDArray[np.uint64], ...],
    numbers: NDArray[np.int64] | NDArray[np.int32],
) -> NDArray[np.int64]:
    """(m,) bits in which the codes of `rows` differ from those of `numbers`."""
    total = np.zeros(len(rows), np.int64)
    for one, other in zip(words, others, strict=True):
        total += np.bitwise_count(one[rows] ^ other[numbers])
    return total


def _words(codes: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], ...]:
    """The codes as columns of 64 bits, the last of which say most: low frequencies, alike in faces, come first."""
    wide = np.zeros((len(codes), -codes.shape[1] % 8 + codes.shape[1]), np.uint8)
    wide[:, : codes.shape[1]] = codes[:, ::-1]
    return tuple(np.ascontiguousarray(column) for column in wide.view(np.uint64).T)


def _values(codes: NDArray[np.uint8], bits: NDArray[np.intp]) -> NDArray[np.int32]:
    """(n,) the number that some bits of each of (n, length) codes are."""
    value = np.zeros(len(codes), np.int32)
    for bit in bits.tolist():
        value <<= 1
        value |= (codes[:, bit // 8] >> (7 - bit % 8)) & 1
    return value


def _piece(codes: NDArray[np.uint8], bits: NDArray[np.intp], share: int) -> _Piece:
    values = _values(codes, bits)
    order = np.argsort(values, kind="stable").astype(np.int32)
    known, starts = np.unique(values[order], return_index=True)
    there = np.zeros(2 ** len(bits) + 7 >> 3, np.uint8)
    np.bitwise_or.at(there, known >> 3, (0x80 >> (known & 7)).astype(np.uint8))
    turned = [sum(1 << bit for bit in some) for k in range(share + 1) for some in combinations(range(len(bits)), k)]
    ends = np.append(starts, len(values)).astype(np.int32)
    return _Piece(bits, np.array(turned, np.int32), there, known, ends, order)


def _plan(count: int, bits: int, radius: int) -> list[int]:
    """How far around a query each piece is looked up, -1 where it need not be; empty where comparing all is less work.

    Of m pieces one differs by its share or less as soon as the shares sum to radius - m + 1: if each differed by
    more, all together would by radius + 1.
    """
    best, least = list[int](), float(count)
    for pieces in _PIECES:
        length = bits / pieces
        if length <= _LONGEST:
            each, more = divmod(radius - pieces + 1, pieces)
            shares = [each + (number < more) for number in range(pieces)]
            work = sum(_work(count, length, share) for share in shares)
            if work < least:
                best, least = shares, work
    return best


def _work(count: int, length: float, share: int) -> float:
    """What a query costs at a piece: codes to compare it with, places to look at, its part of making the table."""
    if share < 0:
        return 0
    choices = [math.comb(round(length), k) for k in range(min(share, round(length)) + 1)]
    hit: float = sum(n * _UNEVEN**k * (1 - _UNEVEN) ** (length - k) for k, n in enumerate(choices))
    return float(count) * hit + sum(choices) / 2 + 2**length / count / 4
