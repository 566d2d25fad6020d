"""Numbers of 64 bits that stand for texts, such as ids of photos: millions of them in little memory."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable

import numpy as np

_MERGE = 1 << 14
"""New numbers gathered in a set, 100 bytes each, before they join the sorted array, 8 bytes each."""


def text_number(text: str) -> int:
    """A number of 64 bits for a text. Of a million texts two have the same once in 37 million sets."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=8).digest(), "little")


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


class NumberMap:
    """A small number, from 0, for each of some 64-bit numbers: 12 bytes each. Of equal ones the last counts."""

    def __init__(self, known: Iterable[tuple[int, int]]) -> None:
        numbers, values = array("Q"), array("i")
        for number, value in known:
            numbers.append(number)
            values.append(value)
        order = np.argsort(np.frombuffer(numbers, np.uint64), kind="stable")
        self._numbers = np.frombuffer(numbers, np.uint64)[order]
        self._values = np.frombuffer(values, np.int32)[order]

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, number: int) -> bool:
        return self.get([number])[0] >= 0

    def get(self, numbers: Iterable[int]) -> list[int]:
        """What each of these stands for; -1 where it is not known."""
        wanted = np.fromiter(numbers, dtype=np.uint64)
        if not len(self):
            return [-1] * len(wanted)
        at = np.maximum(self._numbers.searchsorted(wanted, "right") - 1, 0)
        found: list[int] = np.where(self._numbers[at] == wanted, self._values[at], -1).tolist()
        return found
