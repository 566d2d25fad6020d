"""Pairs of a large set by a value, the highest first, in temporary files: what is sorted at a time fits in memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from authface.store.rowfile import DealtRows, RowFile

AT_ONCE = 1 << 17
"""Pairs sorted at a time, 12 bytes each."""
_FINE = 14
"""Bits of a value that do not tell what it is sorted with: nine of the fraction and all else do."""
_LOWEST = 1 << 31
_MOST = 4 * AT_ONCE
"""Pairs of one range that are sorted together."""


class SortedPairs:
    """Pairs of numbers with a finite value each, to be read by falling value, then by number.

    They are dealt to ranges of about `AT_ONCE` each by the bits of their values, then sorted range by range.
    """

    def __init__(self) -> None:
        self._found = RowFile(3, dtype=np.int32)
        self._counts = np.zeros(2**32 >> _FINE, np.int64)

    def add(self, first: NDArray[np.int64], second: NDArray[np.int64], value: NDArray[np.float32]) -> None:
        """Put pairs there, the smaller number first."""
        bits = np.ascontiguousarray(value, np.float32).view(np.int32)
        key = bits ^ (bits >> 31 & 0x7FFFFFFF)  # in the order of the values
        self._found.append(np.stack([np.minimum(first, second), np.maximum(first, second), key], axis=1))
        self._counts += np.bincount(_place(key), minlength=len(self._counts))

    def read(self) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float32]]]:
        """(k, 2) pairs and (k,) their values, in several turns; a pair of two values by the higher of each turn."""
        ended = np.cumsum(self._counts[::-1])[::-1]  # pairs of a place and of those above it
        of = ((ended - self._counts) // AT_ONCE).astype(np.int32)
        dealt = DealtRows(3, int(of[0]) + 1, np.int32)
        for start in range(0, len(self._found), AT_ONCE):
            rows = self._found[start : start + AT_ONCE]
            dealt.append(rows, np.arange(len(rows)), of[_place(rows[:, 2])])
        for turn in range(int(of[0]) + 1):
            yield from _turns(dealt.all(turn))


def _place(key: NDArray[np.int32]) -> NDArray[np.int64]:
    return key.astype(np.int64) + _LOWEST >> _FINE


def _turns(rows: NDArray[np.int32]) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float32]]]:
    """The pairs of a range in order; many of nearly one value some at a time, for to sort takes 150 bytes each."""
    for column, turn in ((2, -1), (0, 1)):  # falling values, then rising numbers
        told = rows[:, column]
        if len(rows) > _MOST and (told != told[0]).any():
            middle = np.partition(told, len(rows) // 2)[len(rows) // 2]
            for some in (told < middle, told == middle, told > middle)[::turn]:
                yield from _turns(rows[some])
            return
    if len(rows):
        yield _sorted(rows)


def _sorted(rows: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    first, second, key = rows.T
    order = np.lexsort((second, first, -key.astype(np.int64)))
    rows = rows[order]
    code = rows[:, 0].astype(np.int64) << 32 | rows[:, 1]
    rows = rows[np.sort(np.unique(code, return_index=True)[1])]
    key = rows[:, 2]
    return rows[:, :2], (key ^ (key >> 31 & 0x7FFFFFFF)).view(np.float32)
