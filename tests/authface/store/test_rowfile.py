"""Rows in a file are those that were put there, whichever way they are asked for."""

from __future__ import annotations

import io
import resource
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authface.errors import AuthfaceError
from authface.store.rowfile import DealtRows, IdFile, RowFile


def filed(rows: np.ndarray, cuts: list[int]) -> RowFile:
    made = RowFile(rows.shape[1], dtype=rows.dtype)
    for block in np.split(rows, sorted(cut % (len(rows) + 1) for cut in cuts)):
        made.append(block)
    return made


@settings(max_examples=30)
@given(
    st.sampled_from([np.float32, np.int32, np.uint8]),
    st.integers(0, 40),
    st.lists(st.integers(0, 100), max_size=4),
    st.integers(-50, 50),
    st.integers(-50, 50),
)
def test_a_file_is_read_as_an_array_is(kind: Any, count: int, cuts: list[int], start: int, stop: int) -> None:
    rows = (100 * np.random.default_rng(count).random((count, 8))).astype(kind)
    made = filed(rows, cuts)
    assert made.shape == rows.shape and len(made) == count and made[:].dtype == kind
    assert np.array_equal(made[:], rows) and np.array_equal(made[start:stop], rows[start:stop])
    numbers = np.arange(count)[::-2]
    assert np.array_equal(made[numbers], rows[numbers])
    for number in range(count):
        made[number] = 2 * made[number]
    assert np.array_equal(made[:], 2 * rows) and not RowFile(3, count, kind)[:].any()
    made[numbers] = rows[numbers]
    assert np.array_equal(made[numbers], rows[numbers])
    made[np.arange(count)] = 2 * rows
    made[count // 2] = rows[: count - count // 2]
    assert np.array_equal(made[:], np.concatenate([2 * rows[: count // 2], rows[: count - count // 2]]))


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 6), max_size=12), max_size=6), st.integers(1, 20))
def test_rows_dealt_to_groups_are_read_group_by_group_in_order(blocks: list[list[int]], at_once: int) -> None:
    groups = np.array([group for block in blocks for group in block], np.int64)
    rows = np.random.default_rng(0).random((len(groups), 3)).astype(np.float32)
    dealt, done = DealtRows(3, 7), 0
    for block in blocks:
        here = slice(done, done + len(block))
        dealt.append(rows[here][::-1], np.arange(len(block))[::-1], groups[here])
        done += len(block)
    for group in range(7):
        pieces = list(dealt.read(group, at_once))
        assert all(len(piece) >= at_once for piece in pieces[:-1]) and all(map(len, pieces))
        assert np.array_equal(dealt.all(group), rows[groups == group])
        assert np.array_equal(np.concatenate([np.zeros((0, 3)), *pieces]), rows[groups == group])


def test_a_full_disk_is_one_line() -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    made = RowFile(1024)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(AuthfaceError, match="cannot write .*; what was finished is kept"):
            made.append(np.ones((100, 1024), np.float32))
        with pytest.raises(AuthfaceError, match="cannot write"):
            RowFile(1024, 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_is_read_in_parts_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Linux reads more than 2 GB at a time; what lies beyond the end is an error, no endless wait."""

    class Slow(io.BytesIO):
        def readinto(self, buffer: Any) -> int:
            return super().readinto(memoryview(buffer)[:7])

    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    vectors = RowFile(3)
    vectors.append(rows)
    monkeypatch.setattr(vectors, "_file", Slow(rows.tobytes()))
    np.testing.assert_array_equal(vectors[1:4], rows[1:4])
    with pytest.raises(IndexError, match="rows 9 to 9 of 4"):
        vectors[9]


@given(st.lists(st.text("0123456789abcdef-xyz", min_size=1, max_size=IdFile.LONGEST), max_size=30), st.randoms())
def test_ids_are_those_that_were_put_there_and_sort_as_they_do(ids: list[str], random: Any) -> None:
    file = IdFile(ids[: len(ids) // 2])
    file.extend(ids[len(ids) // 2 :])
    numbers = np.array(random.sample(range(len(ids)), len(ids)), np.int64)
    assert list(file) == file[:] == ids and len(file) == len(ids)
    assert file[numbers] == [ids[number] for number in numbers] and all(file[n] == id for n, id in enumerate(ids))
    order = np.argsort(file.coded(slice(None)), kind="stable")
    assert [ids[at] for at in order] == sorted(ids)


@pytest.mark.parametrize("id", ["", "x" * (IdFile.LONGEST + 1), "é", "a\0b"])
def test_what_is_no_id_is_one_line(id: str) -> None:
    with pytest.raises(AuthfaceError, match="is no id"):
        IdFile(["right", id])
