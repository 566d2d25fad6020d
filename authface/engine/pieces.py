"""Parts in pieces that are done in any order, and whole parts again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from authface.store.photoset import R


@dataclass(frozen=True, order=True)
class Piece:
    """Rows `begin` to `end` of the part at place `part` of the run."""

    part: int
    begin: int
    end: int

    @property
    def rows(self) -> int:
        return self.end - self.begin


Result = tuple[Piece, list[Any] | None]
"""A piece and the rows made of it; None where it was given up."""
Pass = Callable[[Sequence[Piece]], Iterator[Result]]


def cut(counts: Sequence[int], rows: int) -> list[Piece]:
    """Parts of so many rows in pieces of at most `rows`; a piece lies in one part."""
    return [
        Piece(part, begin, min(begin + rows, count))
        for part, count in enumerate(counts)
        for begin in range(0, count, rows)
    ]


def finer(run_pass: Pass, pieces: Sequence[Piece]) -> Iterator[Result]:
    """What `run_pass` makes of every piece, in any order; what it gives up is done again row by row."""
    given_up: list[Piece] = []
    for piece, rows in run_pass(pieces):
        if rows is None and piece.rows > 1:
            given_up.append(piece)
        else:
            yield piece, rows
    if given_up:
        yield from run_pass([Piece(p.part, at, at + 1) for p in sorted(given_up) for at in range(p.begin, p.end)])


class Gathered(Generic[R]):
    """Rows of pieces, kept until their part is whole."""

    def __init__(self, counts: Sequence[int]) -> None:
        self._left = {part: count for part, count in enumerate(counts) if count}
        self._rows: defaultdict[int, dict[int, list[R]]] = defaultdict(dict)

    @property
    def open(self) -> int:
        """Parts that are not whole yet."""
        return len(self._left)

    def add(self, piece: Piece, rows: list[R]) -> list[R] | None:
        """The rows of the piece's part in order, if this was the last of it that was missing."""
        self._rows[piece.part][piece.begin] = rows
        self._left[piece.part] -= piece.rows
        if self._left[piece.part]:
            return None
        del self._left[piece.part]
        return [row for _, some in sorted(self._rows.pop(piece.part).items()) for row in some]
