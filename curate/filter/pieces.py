"""Codes cut in pieces, so that codes within a radius are found by what a piece of them says.

Multi-index hashing (Norouzi et al. 2012): of two codes within the radius some piece differs by no more than its share
of it. So looking every piece up that far around its value misses none. More and longer pieces make fewer strangers to
compare and more places to look at; `plan` weighs the two by what a search says that they cost it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = tuple[NDArray[np.uint64], ...]
"""Codes as columns of up to 64 bits."""

_PIECES = range(4, 25)
_LONGEST = 24
"""Bits of a piece at most: there is a bit for each of its values."""
_UNEVEN = 0.45
"""How often two faces differ in a bit of their hashes; coins would in half of them.

Of 11,668 portraits in 0.46, and somewhat less often in all bits of a piece at once. On 24 bits dealt as here 1.6 of
10,000 pairs then meet in a piece, of coins 0.2.
"""
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Piece:
    """Some bits of every code, and how many of them may differ."""

    bits: NDArray[np.intp]
    """Their numbers."""
    share: int

    def around(self) -> NDArray[np.int32]:
        """What a value is turned by to get all values to look at; the first is 0."""
        at = range(len(self.bits))
        turned = (sum(1 << bit for bit in some) for k in range(self.share + 1) for some in combinations(at, k))
        return np.fromiter(turned, np.int32)

    def values(self, codes: NDArray[np.uint8]) -> NDArray[np.int32]:
        """(n,) the number that its bits are in each of (n, length) codes, the first the highest."""
        value = np.zeros(len(codes), np.int32)
        for bit in self.bits.tolist():
            value <<= 1
            value |= (codes[:, bit // 8] >> (7 - bit % 8)) & 1
        return value


def cut(count: int, bits: int, radius: int, work: Callable[[int, float, int], float]) -> Iterator[Piece]:
    """Pieces of `count` codes of so many bits; two within the radius differ in some piece by its share at most.

    A piece without bits is the same in all codes: where that is less work it is the only one. Hashes of faces are
    alike along rows and columns of frequencies, so each piece takes bits far apart: n golden sections, sorted.
    """
    shares = plan(count, bits, radius, work) if count else []
    if not shares:
        yield Piece(np.arange(0), 0)
        return
    apart = np.argsort(np.arange(bits) * _GOLDEN % 1, kind="stable")
    for some, share in zip(np.array_split(apart, len(shares)), shares, strict=True):
        if share >= 0:
            yield Piece(some, share)


def plan(count: int, bits: int, radius: int, work: Callable[[int, float, int], float]) -> list[int]:
    """How far around a value each piece is looked up, -1 where it need not be; empty where comparing all is less work.

    Of m pieces one differs by its share or less as soon as the shares sum to radius - m + 1: if each differed by
    more, all together would by radius + 1. `work` is what a piece of a length and a share costs.
    """
    best, least = list[int](), work(count, 0, 0)
    for pieces in _PIECES:
        length = bits / pieces
        if length <= _LONGEST:
            each, more = divmod(radius - pieces + 1, pieces)
            shares = [each + (number < more) for number in range(pieces)]
            cost = sum(work(count, length, share) for share in shares if share >= 0)
            if cost < least:
                best, least = shares, cost
    return best


def looked_at(length: float, share: int) -> int:
    """Values within the share of one, itself among them."""
    return sum(math.comb(round(length), k) for k in range(min(share, round(length)) + 1))


def met(length: float, share: int) -> float:
    """How likely two codes differ by the share at most, in so many bits."""
    choices = (math.comb(round(length), k) for k in range(min(share, round(length)) + 1))
    return math.fsum(n * _UNEVEN**k * (1 - _UNEVEN) ** (length - k) for k, n in enumerate(choices))


def words_of(codes: NDArray[np.uint8]) -> Words:
    """The codes as columns of 64 bits, the last of which, which say most, come first (`last_word`)."""
    return tuple(last_word(codes[:, :end]) for end in range(codes.shape[1], 0, -8))


def last_word(codes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """(n,) the last 64 bits of (n, length) codes, which say most: low frequencies, alike in faces, come first."""
    some = codes[:, -8:]
    word = np.zeros((len(codes), 8), np.uint8)
    word[:, : some.shape[1]] = some
    return word.view(np.uint64)[:, 0]


def apart(
    words: Words, rows: NDArray[np.integer[Any]], others: Words, numbers: NDArray[np.integer[Any]]
) -> NDArray[np.int64]:
    """(m,) bits in which the codes of `rows` differ from those of `numbers`."""
    total = np.zeros(len(rows), np.int64)
    for one, other in zip(words, others, strict=True):
        total += np.bitwise_count(one[rows] ^ other[numbers])
    return total


def distances(codes: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(n, m) bits in which (n, length) and (m, length) uint8 codes differ."""
    total = np.zeros((len(codes), len(others)), np.int64)
    for one, other in zip(words_of(codes), words_of(others), strict=True):
        total += np.bitwise_count(one[:, None] ^ other)
    return total
