"""Vectors in a file are those that were put there, and whatever reads them does the same as with an array."""

from __future__ import annotations

import io
import resource
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authface.curate.split import likeness as likenesses
from authface.curate.split.groups import identities
from authface.curate.split.likeness import VectorFile, cohort_of, gathered, likeness_of
from authface.errors import AuthfaceError


def filed(vectors: np.ndarray, cuts: list[int]) -> VectorFile:
    made = VectorFile(vectors.shape[1])
    for block in np.split(vectors, sorted(cut % (len(vectors) + 1) for cut in cuts)):
        made.append(block)
    return made


@settings(max_examples=30)
@given(st.integers(0, 40), st.lists(st.integers(0, 100), max_size=4), st.integers(-50, 50), st.integers(-50, 50))
def test_a_file_is_read_as_an_array_is(count: int, cuts: list[int], start: int, stop: int) -> None:
    vectors = np.random.default_rng(count).standard_normal((count, 8)).astype(np.float32)
    made = filed(vectors, cuts)
    assert made.shape == vectors.shape and len(made) == count
    assert np.array_equal(made[:], vectors) and np.array_equal(made[start:stop], vectors[start:stop])
    numbers = np.arange(count)[::-2]
    assert np.array_equal(made[numbers], vectors[numbers])
    assert np.array_equal(gathered(made, numbers, 3)[:], vectors[numbers])
    for number in range(count):
        made[number] = 2 * made[number]
    assert np.array_equal(made[:], 2 * vectors) and not VectorFile(3, count)[:].any()


@pytest.mark.parametrize("flat", [100, 10_000])
def test_people_are_the_same_from_a_file(flat: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likenesses, "FLAT_ROWS", flat)
    rng = np.random.default_rng(4)
    vectors = rng.standard_normal((300, 32))[rng.integers(0, 300, 1200)] + 0.3 * rng.standard_normal((1200, 32))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    held, made = vectors.copy(), filed(vectors, [500])
    found = [
        identities(some, np.arange(1200) // 2, likeness_of(some, cohort_of(some), (0, 1)), 4.0)
        for some in (vectors, made)
    ]
    assert found[0] == found[1] and len(set(found[0])) < 1000
    assert np.array_equal(vectors, held) and np.array_equal(made[:], held), "they are read only"


def test_a_full_disk_is_one_line() -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    made = VectorFile(1024)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(AuthfaceError, match="cannot write .*; what was finished is kept"):
            made.append(np.ones((100, 1024), np.float32))
        with pytest.raises(AuthfaceError, match="cannot write"):
            VectorFile(1024, 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_is_read_in_parts_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Linux reads more than 2 GB at a time; what lies beyond the end is an error, no endless wait."""

    class Slow(io.BytesIO):
        def readinto(self, buffer: Any) -> int:
            return super().readinto(memoryview(buffer)[:7])

    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    vectors = VectorFile(3)
    vectors.append(rows)
    monkeypatch.setattr(vectors, "_file", Slow(rows.tobytes()))
    np.testing.assert_array_equal(vectors[1:4], rows[1:4])
    with pytest.raises(IndexError, match="vectors 9 to 9 of 4"):
        vectors[9]
