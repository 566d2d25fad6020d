"""The photos that a run of `curate fetch` meets, each by a number, and what is noted of them in few bytes each.

The photos that the set had before are numbered from 0: what is noted of them lies in arrays. Any other photo has a
number below 0, made of its key's hash: what is noted of those grows sets of hashes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from authface.curate.fetch.keys import Key, key_number
from authface.store.numbers import NumberSet, text_number

Mark = Literal[1, 2, 4, 8]
LISTED: Final = 1
"""The source named it in this run."""
MET: Final = 2
"""It was asked for in this run, or what the source says of it was heard."""
UNNAMED: Final = 4
"""It has a row of an earlier version, which does not name its list."""
CLAIMED: Final = 8
"""Such a row, of which this list says the same."""


class Roll:
    """The photos that a set has and a run does not ask for again, and marks of any photo: 9 bytes for one of these."""

    def __init__(self, known: Iterable[Key]) -> None:
        """`known`: their keys, in any order, repeated or not."""
        self._known = _distinct(np.fromiter(map(key_number, known), dtype=np.uint64))
        self._marks = bytearray(len(self._known))
        self._marked_beyond: defaultdict[Mark, NumberSet] = defaultdict(NumberSet)

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, key: Key) -> bool:
        return self.number(key) >= 0

    def number(self, key: Key) -> int:
        """The number of a photo: from 0 for one that the set has, below 0 for any other."""
        wanted = key_number(key)
        at = int(self._known.searchsorted(np.uint64(wanted)))
        return at if at < len(self._known) and int(self._known[at]) == wanted else ~wanted

    def numbers(self, keys: Sequence[Key]) -> list[int]:
        """The numbers of many photos."""
        wanted = np.fromiter(map(key_number, keys), dtype=np.uint64, count=len(keys))
        first, end = (self._known.searchsorted(wanted, side).tolist() for side in ("left", "right"))
        return [at if at < stop else ~other for at, stop, other in zip(first, end, wanted.tolist(), strict=True)]

    def mark(self, number: int, mark: Mark) -> bool:
        """Mark a photo; whether it was not marked so."""
        if number < 0:
            return self._marked_beyond[mark].add(~number)
        marks = self._marks[number]
        self._marks[number] = marks | mark
        return not marks & mark

    def marked(self, number: int, mark: Mark) -> bool:
        """Whether a photo is marked so."""
        return bool(self._marks[number] & mark) if number >= 0 else ~number in self._marked_beyond[mark]


class Said:
    """Texts that were said of photos, a few kinds of them, by number of the photo; as hashes.

    The first of a kind takes 4 bytes of a photo that the set had: of four billion other texts one seems to be said
    already. Further ones, and those of other photos, take 8.
    """

    def __init__(self, known: int, kinds: Iterable[str]) -> None:
        """`known`: photos that are numbered from 0."""
        self._first = {kind: np.zeros(known, dtype=np.uint32) for kind in kinds}
        self._further = NumberSet()

    def add(self, number: int, kind: str, text: str) -> None:
        """Note what was said of a photo."""
        if number >= 0:
            first, said = self._first[kind], _short(text)
            if not first[number]:
                first[number] = said
            if first[number] == said:
                return
        self._further.add(_long(number, kind, text))

    def holds(self, number: int, kind: str, text: str) -> bool:
        """Whether that was said of a photo."""
        if number >= 0 and self._first[kind][number] == _short(text):
            return True
        return _long(number, kind, text) in self._further


def _distinct(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The numbers in order, each once; sorted in place, for a copy of millions is as much again."""
    numbers.sort()
    first = np.ones(len(numbers), dtype=bool)
    np.not_equal(numbers[1:], numbers[:-1], out=first[1:])
    return numbers if first.all() else numbers[first]


@lru_cache(1 << 10)  # most photos have one of a few licences, and many nothing but that
def _short(text: str) -> int:
    """32 bits of a text, not 0."""
    return text_number(text) % 0xFFFFFFFF + 1


def _long(number: int, kind: str, text: str) -> int:
    return text_number(f"{number}\0{kind}\0{text}")
