"""Codes of bits that differ in few of them, found without comparing all pairs.

Codes within a radius are found by multi-index hashing (Norouzi et al. 2012). The bits are cut in pieces, each with a
table from its value to the codes that have it. Of two codes within the radius some piece differs by no more than its
share of it, so looking every piece up that far around the query's misses none. More and longer pieces make fewer
strangers to compare and more places to look at; `_plan` weighs the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
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
_AT_ONCE = 1 << 16
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

    Memory for 144 bits: 100 bytes a code, and 2 MB for each piece of the longest; with `brief`, where each search makes
    the pieces one by one, 40 bytes and 2 MB. Exact at any radius; one of an eighth of the bits nears comparing all.
    """

    def __init__(self, codes: NDArray[np.uint8], radius: int, *, brief: bool = False) -> None:
        self.radius = radius
        self._codes, self._words = codes, _words(codes)
        self._kept = None if brief else list(_pieces(codes, radius))

    def search(self, codes: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(m,) rows of the queries, (m,) numbers of codes and (m,) bits they differ in, by row, then by number."""
        keys, apart, count = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], max(len(self._codes), 1)
        for piece in _pieces(self._codes, self.radius) if self._kept is None else self._kept:
            for at in range(0, len(codes), _QUERIES):
                some = codes[at : at + _QUERIES]
                words = _words(some)
                for rows, numbers in _candidates(piece, some):
                    rows, numbers, bits = _within(self.radius, words, rows, self._words, numbers)
                    keys.append((rows + at) * count + numbers)
                    apart.append(bits)
            del piece  # before the next one takes memory
        found, first = np.unique(np.concatenate(keys), return_index=True)
        return *np.divmod(found, count), np.concatenate(apart)[first]


def pairs_within(
    codes: NDArray[np.uint8], radius: int, views: tuple[Callable[[NDArray[np.uint8]], NDArray[np.uint8]], ...]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32]]]:
    """Numbers of (n, length) codes and of earlier ones within the radius of what some view makes of them.

    Some pairs more than once. Of the index one piece is in memory at a time: its table is half of what a code takes.
    """
    words = _words(codes)
    for piece in _pieces(codes, radius):
        for start in range(0, len(codes), _QUERIES):
            for view in views:
                asked = view(codes[start : start + _QUERIES])
                for rows, others in _candidates(piece, asked):
                    before = others < rows + start
                    rows, others, _ = _within(radius, _words(asked), rows[before], words, others[before])
                    yield rows + start, others


def _candidates(piece: _Piece, codes: NDArray[np.uint8]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32]]]:
    """Rows of (n, length) codes asked for, and numbers of the codes to compare each with for one piece's sake."""
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


def _within(
    radius: int,
    words: tuple[NDArray[np.uint64], ...],
    rows: NDArray[np.int64],
    others: tuple[NDArray[np.uint64], ...],
    numbers: NDArray[np.int32],
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """The rows and numbers whose codes differ by the radius at most, and by how many bits; one word tells most."""
    keep = np.bitwise_count(words[0][rows] ^ others[0][numbers]) <= radius
    rows, numbers = rows[keep], numbers[keep]
    apart = _apart(words, rows, others, numbers)
    keep = apart <= radius
    return rows[keep], numbers[keep], apart[keep]


def _apart(
    words: tuple[NDArray[np.uint64], ...],
    rows: NDArray[np.int64],
    others: tuple[NDArray[np.uint64], ...],
    numbers: NDArray[np.int32],
) -> NDArray[np.int64]:
    """(m,) bits in which the codes of `rows` differ from those of `numbers`."""
    total = np.zeros(len(rows), np.int64)
    for one, other in zip(words, others, strict=True):
        total += np.bitwise_count(one[rows] ^ other[numbers])
    return total


def _words(codes: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], ...]:
    """The codes as columns of 64 bits, the last of which say most: low frequencies, alike in faces, come first."""
    columns = np.zeros((-(-codes.shape[1] // 8), len(codes), 8), np.uint8)
    for at, column in enumerate(columns):
        some = codes[:, ::-1][:, 8 * at : 8 * at + 8]
        column[:, : some.shape[1]] = some
    return tuple(columns.view(np.uint64)[:, :, 0])


def _values(codes: NDArray[np.uint8], bits: NDArray[np.intp]) -> NDArray[np.int32]:
    """(n,) the number that some bits of each of (n, length) codes are."""
    value = np.zeros(len(codes), np.int32)
    for bit in bits.tolist():
        value <<= 1
        value |= (codes[:, bit // 8] >> (7 - bit % 8)) & 1
    return value


def _pieces(codes: NDArray[np.uint8], radius: int) -> Iterator[_Piece]:
    """Pieces of (n, length) codes, one of which has every code within the radius of a query where it looks.

    A piece without bits has all codes there: where that is less work it is the only one.
    """
    bits = codes.shape[1] * 8
    shares = _plan(len(codes), bits, radius) if len(codes) else []
    if not shares:
        yield _piece(codes, np.arange(0), 0)
    for number, share in enumerate(shares):
        if share >= 0:  # neighbouring bits are alike among faces: each piece takes every so many-th
            yield _piece(codes, np.arange(number, bits, len(shares)), share)


def _piece(codes: NDArray[np.uint8], bits: NDArray[np.intp], share: int) -> _Piece:
    values = _values(codes, bits)
    order = np.argsort(values, kind="stable").astype(np.int32)
    values = values[order]
    starts = np.flatnonzero(np.diff(values, prepend=-1)).astype(np.int32)
    known = values[starts]
    there = np.zeros(2 ** len(bits) + 7 >> 3, np.uint8)
    for at in range(0, len(known), _AT_ONCE):
        some = known[at : at + _AT_ONCE]
        np.bitwise_or.at(there, some >> 3, (0x80 >> (some & 7)).astype(np.uint8))
    turned = [sum(1 << bit for bit in some) for k in range(share + 1) for some in combinations(range(len(bits)), k)]
    ends = np.append(starts, np.int32(len(values)))
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
