"""What is within a radius is found, all of it and nothing else, however it is cut into pieces."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authface.curate.filter import hamming, pieces
from authface.curate.filter.hamming import HammingIndex
from authface.curate.filter.pieces import distances


def near_codes(seed: int, count: int) -> np.ndarray:
    """Some copies of few codes, with some bits of each turned."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 256, (max(count // 4, 1), 18), dtype=np.uint8)[rng.integers(0, max(count // 4, 1), count)]
    return codes ^ np.packbits(rng.random((count, 144)) < rng.choice([0.01, 0.05, 0.2]), axis=1)


@pytest.mark.parametrize("plan", [None, [1] * 9, [2] * 6, [1] * 8 + [0, 0], []])
@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(0, 60), st.integers(1, 70))
def test_all_pairs_within_the_radius_and_no_others(plan: list[int] | None, seed: int, count: int, at_once: int) -> None:
    codes, radius = near_codes(seed, count), 17
    apart = distances(codes, codes)
    with patch.multiple(hamming, _AT_ONCE=at_once, _QUERIES=7):
        if plan is not None:
            with patch.object(pieces, "plan", lambda *_: plan):
                check(codes, radius, apart)
        else:
            check(codes, radius, apart)


def check(codes: np.ndarray, radius: int, apart: np.ndarray) -> None:
    expected = [(row, number, int(apart[row, number])) for row, number in np.argwhere(apart <= radius).tolist()]
    for brief in (False, True):
        found = HammingIndex(codes, radius, brief=brief).search(codes)
        assert list(zip(*(column.tolist() for column in found), strict=True)) == expected
