"""Pairs come by falling value, each once, however many are sorted at a time."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authface.curate.split import pairs as pairs_module
from authface.curate.split.pairs import SortedPairs

VALUES = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.floats(4.5, 9, width=32),
    st.sampled_from([0.0, -1.0, 5.0]),
)


@settings(max_examples=60)
@given(
    st.dictionaries(st.tuples(st.integers(0, 50), st.integers(51, 2**31 - 1)), VALUES, max_size=60), st.integers(1, 70)
)
def test_pairs_come_by_falling_value_then_by_number(found: dict[tuple[int, int], float], at_once: int) -> None:
    pairs = np.array(list(found), np.int64).reshape(-1, 2)
    values = np.array(list(found.values()), np.float32) + np.float32(0)  # no -0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs_module, "AT_ONCE", at_once)
        patch.setattr(pairs_module, "_MOST", at_once)
        sorted_pairs = SortedPairs()
        half = len(pairs) // 2
        sorted_pairs.add(pairs[:half, 1], pairs[:half, 0], values[:half])
        sorted_pairs.add(pairs[:, 0], pairs[:, 1], values)  # the first half again, from the other side
        turns = list(sorted_pairs.read())
    read = [(value, *pair) for some, told in turns for pair, value in zip(some.tolist(), told.tolist(), strict=True)]
    every = [(value, *pair) for pair, value in zip(found, values.tolist(), strict=True)]
    assert read == sorted(every, key=lambda row: (-row[0], row[1:]))


@pytest.mark.parametrize("spread", [0, 1e-6])
def test_many_pairs_of_one_value_are_sorted_some_at_a_time(spread: float) -> None:
    rng, count = np.random.default_rng(0), 1_500_000
    first, value = rng.permutation(count), (5 + spread * rng.random(count)).astype(np.float32)
    pairs = SortedPairs()
    pairs.add(first, first + count, value)
    tracemalloc.start()
    before = (np.inf, -1)
    for some, told in pairs.read():
        assert ((np.diff(told) < 0) | ((np.diff(told) == 0) & (np.diff(some[:, 0]) > 0))).all()
        assert (-before[0], before[1]) < (-told[0], some[0, 0])
        before, count = (told[-1], some[-1, 0]), count - len(some)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 0 and peak < 100_000_000
