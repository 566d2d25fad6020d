"""Rows are sorted as asked for, whatever is in them, and a disk without room is one line."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.errors import AuthfaceError
from authface.store.sorting import SortedRows


@given(st.lists(st.tuples(st.text(), st.floats(allow_nan=False), st.binary())))
def test_text_sorts_by_its_bytes_and_equal_rows_stay_in_order(rows: list[tuple[str, float, bytes]]) -> None:
    numbered = [(at, *row) for at, row in enumerate(rows)]
    with SortedRows(["at", "text", "number", "code"], numbered, "number desc, text") as made:
        found = list(made.select("* from sorted order by rowid"))
        assert found == sorted(numbered, key=lambda row: (-row[2], row[1].encode()))
        assert [row[0] for row in made.select("rowid from sorted order by rowid")] == list(range(1, len(rows) + 1))


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def small(path: str, timeout: float) -> sqlite3.Connection:
        base = connect(path)
        base.execute("pragma max_page_count = 2")
        return base

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", small)
    with pytest.raises(AuthfaceError, match=r"database or disk is full; free space .* SQLITE_TMPDIR"):
        SortedRows(["text"], (["x" * 1000] for _ in range(100)), "text")
