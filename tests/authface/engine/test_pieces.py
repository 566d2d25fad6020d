"""Parts in pieces, in any order, given up or not: whole parts again."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from authface.engine.pieces import Gathered, Piece, Result, cut, finer

COUNTS = st.lists(st.integers(0, 40), max_size=6)


@given(COUNTS, st.integers(1, 50))
def test_pieces_cover_every_row_once(counts: list[int], rows: int) -> None:
    pieces = cut(counts, rows)
    assert all(0 < piece.rows <= rows for piece in pieces)
    covered = [(piece.part, row) for piece in pieces for row in range(piece.begin, piece.end)]
    assert covered == [(part, row) for part, count in enumerate(counts) for row in range(count)]


@example([3], 2, 0, {(0, 1)})
@given(COUNTS, st.integers(1, 50), st.integers(), st.sets(st.tuples(st.integers(0, 5), st.integers(0, 39))))
def test_whole_parts_come_back_in_order_of_their_rows(
    counts: list[int], size: int, seed: int, deadly: set[tuple[int, int]]
) -> None:
    """`deadly` rows kill every process that works on their piece."""

    def run_pass(pieces: Sequence[Piece]) -> Iterator[Result]:
        for piece in random.Random(seed).sample(pieces, len(pieces)):
            rows = [(piece.part, row) for row in range(piece.begin, piece.end)]
            yield piece, None if deadly & set(rows) else [row for row in rows for _ in range(row[1] % 3)]

    gathered = Gathered[tuple[int, int]](counts)  # type: ignore[type-var]  # any rows will do
    parts = {}
    for piece, rows in finer(run_pass, cut(counts, size)):
        if rows is None:
            assert piece.rows == 1 and (piece.part, piece.begin) in deadly
            rows = [(piece.part, -1 - piece.begin)]
        if (whole := gathered.add(piece, rows)) is not None:
            parts[piece.part] = whole
    assert gathered.open == 0
    for part, count in enumerate(counts):
        if count:
            assert parts[part] == [
                (part, -1 - row) if (part, row) in deadly else (part, row)
                for row in range(count)
                for _ in range(1 if (part, row) in deadly else row % 3)
            ]
