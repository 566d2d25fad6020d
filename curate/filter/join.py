"""All pairs of codes within a radius of one another, found piece by piece (`pieces`), from one side only.

The values of a piece that codes have are bits of a table. That of all values turned by some bits is the same table in
another order, so where two codes differ by those bits the two tables meet: 64 values at a time, with no code looked at.
Only half of the values need be asked: those that lack one of the bits turned. So the places to look at cost the same
however many codes there are, and what grows faster than these is comparing those that meet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from authface.curate.filter.pieces import Piece, cut, last_word, looked_at, met

Numbers = NDArray[np.integer[Any]]
Bits = NDArray[np.uint64]

_WORD = 6
"""Of a value, the bits that say where in a word of 64 its bit is; the higher ones are the word's number."""
_SWAPS = (
    0x5555555555555555,
    0x3333333333333333,
    0x0F0F0F0F0F0F0F0F,
    0x00FF00FF00FF00FF,
    0x0000FFFF0000FFFF,
    0xFFFFFFFF,
)
"""Places in a word whose number lacks bit 0, 1, ... 5."""
_BELOW = (np.uint64(1) << np.arange(64, dtype=np.uint64)) - np.uint64(1)
"""By place in a word, the places below it."""
_MEETINGS = 1 << 12
"""Words with values that meet, looked into at a time: what is made of them stays in the processor's cache."""
_TABLE = 1 << 15
"""Words of the table looked at at a time."""
_AT_ONCE = 1 << 15
"""Codes compared at a time; one with more is compared alone."""
_BUCKET, _LOOK, _LOOK_WORD, _MEET, _COMPARE = 250.0, 20_000.0, 1.3, 30.0, 6.0
"""Nanoseconds, as measured: to sort a code by its value; to look one bit's turn further, and for each word of the table
or code; to find two values that meet; to compare two codes."""


@dataclass(frozen=True)
class _Buckets:
    """Where the n codes of each of the k values of a piece are, those that are not done first."""

    order: NDArray[np.int32]
    """(n,) numbers of the codes by value."""
    starts: NDArray[np.int32]
    """(k + 1,) where in `order` the codes of each value begin."""
    middles: NDArray[np.int32]
    """(k,) where those begin that are done."""
    there: Bits
    """(2^bits / 64,) whether some code has a value, a bit each."""
    before: NDArray[np.int32]
    """Of each word of them, how many values are in earlier ones."""


def pairs_within(
    codes: NDArray[np.uint8], radius: int, turns: Sequence[NDArray[np.uint8]], done: NDArray[np.bool_] | None = None
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """Numbers of (n, length) codes and of earlier ones within the radius of them, of one turned by one of `turns`.

    A turn is (length,) uint8, bits of the code that are the other way round. Some pairs come more than once; a pair of
    two that are `done`, (n,), need not come: the caller may say so of more and more of them. Memory for 144 bits: 30
    bytes a code and 5 MB.
    """
    for piece in cut(len(codes), codes.shape[1] * 8, radius, _work(len(turns))):
        buckets = _buckets(piece, codes, done)
        first = last_word(codes)[buckets.order]
        for turn in turns:
            turned = last_word(turn[None])
            value = int(piece.values(turn[None])[0])
            for rows, others in _candidates(buckets, value, piece.around()):
                differ = first[rows]
                differ ^= first[others]
                differ ^= turned
                near = np.flatnonzero(np.bitwise_count(differ) <= radius)
                one, other = buckets.order[rows[near]], buckets.order[others[near]]
                bits = np.bitwise_count(codes[one] ^ codes[other] ^ turn)
                near = np.flatnonzero(bits.sum(axis=1, dtype=np.int64) <= radius)
                one, other = one[near], other[near]
                yield np.maximum(one, other), np.minimum(one, other)
        del buckets, first  # before the next ones take memory


def _work(turns: int) -> Callable[[int, float, int], float]:
    """What `pairs_within` takes for a piece, in nanoseconds."""

    def work(count: int, length: float, share: int) -> float:
        values: float = 2.0**length
        look = looked_at(length, share) * (_LOOK + _LOOK_WORD * min(count, values / 64))
        meet = count * count / 2 * met(length, share) * (_COMPARE + _MEET * min(1.0, values / count))
        return count * _BUCKET + values / 4 + turns * (look + meet)

    return work


def _buckets(piece: Piece, codes: NDArray[np.uint8], done: NDArray[np.bool_] | None) -> _Buckets:
    """The codes by value, then by whether they are done, then by number: all in one sorted number."""
    count, shift = len(codes), np.int64(32 if done is None else 33)
    key = piece.values(codes).astype(np.int64)
    if done is not None:
        key <<= 1
        key |= done
    key <<= 32
    key |= np.arange(count, dtype=np.int32)
    key.sort()
    order, values = np.empty(count, np.int32), np.empty(count, np.int32)
    np.bitwise_and(key, 0xFFFFFFFF, out=order, casting="unsafe")
    np.right_shift(key, shift, out=values, casting="unsafe")
    del key
    first = np.ones(count, np.bool_)
    np.not_equal(values[1:], values[:-1], out=first[1:])
    values = values[first]
    starts = np.append(np.flatnonzero(first).astype(np.int32), np.int32(count))
    middles = starts[1:]
    if done is not None:
        middles = np.add.reduceat(~done[order], starts[:-1], dtype=np.int32)
        middles += starts[:-1]
    there = _bits_of(values, len(piece.bits))
    before = np.cumsum(np.bitwise_count(there), dtype=np.int32)
    before -= np.bitwise_count(there)
    return _Buckets(order, starts, middles, there, before)


def _bits_of(values: NDArray[np.int32], bits: int) -> Bits:
    """(2^bits / 64,) whether each value is among those given, ascending, of so many bits."""
    there = np.zeros(max(2**bits >> _WORD, 1), np.uint64)
    for start in range(0, len(values), _AT_ONCE):
        some = values[start : start + _AT_ONCE]
        word = some >> _WORD
        each = np.flatnonzero(np.diff(word, prepend=-1))
        there[word[each]] |= np.bitwise_or.reduceat(np.uint64(1) << (some & 63).astype(np.uint64), each)
    return there


def _candidates(buckets: _Buckets, turn: int, around: NDArray[np.int32]) -> Iterator[tuple[Numbers, Numbers]]:
    """Places in `order` of two codes to compare, whose values differ by `turn` and one of `around`; each pair once."""
    starts, middles, ends = buckets.starts[:-1], buckets.middles, buckets.starts[1:]
    if turn in around:
        many = np.flatnonzero((middles > starts) & (ends - starts > 1))
        for some in _spans(middles[many] - starts[many]):
            rows, which = _each(starts[many[some]], middles[many[some]])
            yield from _products(rows, rows + 1, ends[many[some]][which])
    for words, bits, turned in _batches(_meetings(buckets.there, turn, around)):
        one, other = _values(buckets, words, bits, turned)
        yield from _all_with_all(starts[one], middles[one], starts[other], ends[other])
        left = np.flatnonzero((middles[one] < ends[one]) & (starts[other] < middles[other]))
        one, other = one[left], other[left]
        yield from _all_with_all(middles[one], ends[one], starts[other], middles[other])


def _meetings(there: Bits, turn: int, around: NDArray[np.int32]) -> Iterator[tuple[Numbers, Bits, NDArray[np.int32]]]:
    """Words of the table, bits of them whose values v are there and have a v ^ turned that is there, and `turned`.

    `turned` is `turn` and one of `around`, not 0; v lacks the highest bit of it.
    """
    other = np.empty_like(there) if turn else there
    for start in range(0, len(there) if turn else 0, _TABLE):
        some = np.arange(start, min(start + _TABLE, len(there)))
        other[some] = _flipped(there[some ^ (turn >> _WORD)], turn)
    highest = np.frexp(turn ^ around)[1] - 1
    tops = [(top, around[highest == top].tolist()) for top in np.unique(highest[highest >= 0]).tolist()]
    for start in range(0, len(there), _TABLE):
        words = start + np.flatnonzero(there[start : start + _TABLE])
        for top, flips in tops:
            half = words if top < _WORD else words[(words >> (top - _WORD)) & 1 == 0]
            mine = there[half] & np.uint64(_SWAPS[top]) if top < _WORD else there[half]
            for flip in flips:
                both = _flipped(other[half ^ (flip >> _WORD)], flip)
                both &= mine
                hit = np.flatnonzero(both)
                for at in range(0, len(hit), _MEETINGS):
                    some = hit[at : at + _MEETINGS]
                    yield half[some], both[some], np.full(len(some), turn ^ flip, np.int32)


def _flipped(words: Bits, turn: int) -> Bits:
    """Words whose bit k is bit k ^ turn of those given, by the lowest bits of `turn`."""
    for bit, places in enumerate(_SWAPS):
        if turn >> bit & 1:
            low, by = np.uint64(places), np.uint64(1 << bit)
            words = (words & low) << by | words >> by & low
    return words


def _batches(
    found: Iterator[tuple[Numbers, Bits, NDArray[np.int32]]],
) -> Iterator[tuple[Numbers, Bits, NDArray[np.int32]]]:
    """The same, some `_MEETINGS` at a time."""
    held, count = list[tuple[Numbers, Bits, NDArray[np.int32]]](), 0
    for columns in found:
        held.append(columns)
        count += len(columns[0])
        if count >= _MEETINGS:
            yield _joined(held)
            held, count = [], 0
    if held:
        yield _joined(held)


def _joined(
    held: Sequence[tuple[Numbers, Bits, NDArray[np.int32]]],
) -> tuple[Numbers, Bits, NDArray[np.int32]]:
    words, bits, turned = zip(*held, strict=True)
    return np.concatenate(words), np.concatenate(bits), np.concatenate(turned)


def _values(buckets: _Buckets, words: Numbers, bits: Bits, turned: NDArray[np.int32]) -> tuple[Numbers, Numbers]:
    """Which of the k values those in `bits` of `words` are, and which those that differ from them by `turned`."""
    left, found, places = np.arange(len(words)), list[Numbers](), list[NDArray[np.uint8]]()
    while len(left):
        lowest = bits & -bits
        found.append(left)
        places.append(np.bitwise_count(lowest - np.uint64(1)))
        bits = bits ^ lowest
        more = np.flatnonzero(bits)
        left, bits = left[more], bits[more]
    which = np.concatenate(found)
    value = words[which] << _WORD
    value |= np.concatenate(places)
    return _rank(buckets, value), _rank(buckets, value ^ turned[which])


def _rank(buckets: _Buckets, values: Numbers) -> Numbers:
    """How many smaller values there are."""
    word = values >> _WORD
    return np.asarray(buckets.before[word] + np.bitwise_count(buckets.there[word] & _BELOW[values & 63]))


def _all_with_all(
    starts: Numbers, ends: Numbers, other_starts: Numbers, other_ends: Numbers
) -> Iterator[tuple[Numbers, Numbers]]:
    """All numbers from each start to before its end, each with all from the other start to before the other end."""
    for some in _spans(ends - starts):
        rows, which = _each(starts[some], ends[some])
        yield from _products(rows, other_starts[some][which], other_ends[some][which])


def _products(rows: Numbers, starts: Numbers, ends: Numbers) -> Iterator[tuple[Numbers, Numbers]]:
    """Each row with all numbers from its start to before its end, so many at a time."""
    for some in _spans(ends - starts):
        numbers, which = _each(starts[some], ends[some])
        yield rows[some][which], numbers


def _each(starts: Numbers, ends: Numbers) -> tuple[Numbers, Numbers]:
    """All numbers from each start to before its end, and which start each is from."""
    counts = ends - starts
    which = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    numbers = (starts - (np.cumsum(counts, dtype=np.int32) - counts))[which]
    numbers += np.arange(len(which), dtype=np.int32)
    return numbers, which


def _spans(counts: Numbers) -> Iterator[slice]:
    """Stretches of counts that sum to `_AT_ONCE` at most, or one that is more alone."""
    total = np.cumsum(counts, dtype=np.int64)
    begin = 0
    while begin < len(counts):
        before = int(total[begin - 1]) if begin else 0
        end = max(int(np.searchsorted(total, before + _AT_ONCE, "right")), begin + 1)
        yield slice(begin, end)
        begin = end
