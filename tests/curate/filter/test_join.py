"""All pairs within a radius are found and nothing else, of codes as they are and turned, however they are cut."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authface.curate.filter import join, pieces
from authface.curate.filter.join import pairs_within
from authface.curate.filter.pieces import distances
from tests.curate.filter.test_hamming import near_codes

AS_IS = np.zeros(18, np.uint8)
EVERY_OTHER = np.full(18, 0x55, np.uint8)
PLANS = [None, [1] * 9, [2] * 9, [1] * 8 + [0, 0], [0] * 18, [0] * 18 + [-1], []]


def just_within(seed: int, count: int) -> np.ndarray:
    """Pairs of codes that differ in 14 to 17 bits."""
    rng = np.random.default_rng(seed)
    bits = np.repeat(rng.integers(0, 2, (count // 2 + 1, 144), dtype=np.uint8), 2, axis=0)[:count]
    for row in bits[::2]:
        row[rng.choice(144, rng.integers(14, 18), replace=False)] ^= 1
    return rng.permutation(np.packbits(bits, axis=1))


def near(codes: np.ndarray, turn: np.ndarray, radius: int) -> set[tuple[int, int]]:
    """By hand: all pairs, the later one first."""
    apart = distances(codes ^ turn, codes)
    return {(row, number) for row, number in np.argwhere(apart <= radius).tolist() if number < row}


def found(codes: np.ndarray, radius: int, *turns: np.ndarray, done: np.ndarray | None = None) -> set[tuple[int, int]]:
    return {
        (row, number)
        for rows, numbers in pairs_within(codes, radius, turns, done)
        for row, number in zip(rows.tolist(), numbers.tolist(), strict=True)
    }


def cut(plan: list[int] | None) -> AbstractContextManager[object]:
    """Shares of as many pieces, or what is chosen for so many codes."""
    return nullcontext() if plan is None else patch.object(pieces, "plan", lambda *_: plan)


@pytest.mark.parametrize("plan", PLANS)
@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(0, 60), st.integers(1, 70))
def test_all_pairs_within_the_radius_and_no_others(plan: list[int] | None, seed: int, count: int, at_once: int) -> None:
    codes, radius = near_codes(seed, count), 17
    codes[::3] ^= EVERY_OTHER
    for turn in (EVERY_OTHER, np.random.default_rng(seed).integers(0, 256, 18, dtype=np.uint8)):
        with patch.multiple(join, _AT_ONCE=at_once, _MEETINGS=at_once // 8 + 1, _TABLE=1 << at_once % 5 + 8), cut(plan):
            assert found(codes, radius, AS_IS, turn) == near(codes, AS_IS, radius) | near(codes, turn, radius)


@pytest.mark.parametrize("plan", PLANS)
@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(0, 60), st.floats(0, 1))
def test_only_pairs_of_two_that_are_done_may_lack(plan: list[int] | None, seed: int, count: int, share: float) -> None:
    codes, radius = just_within(seed, count), 17
    done = np.random.default_rng(seed).random(count) < share
    with cut(plan):
        pairs, every = found(codes, radius, AS_IS, EVERY_OTHER, done=done), found(codes, radius, AS_IS, EVERY_OTHER)
    assert pairs <= every
    assert all(done[one] and done[other] for one, other in every - pairs)
    assert done.all() <= (not pairs)


@pytest.mark.parametrize("length", [1, 3, 8, 18])
@pytest.mark.parametrize("radius", [0, 1, 3, 9])
def test_codes_of_any_length_at_any_radius(length: int, radius: int) -> None:
    rng = np.random.default_rng(length)
    codes = rng.integers(0, 256, (200, length), dtype=np.uint8)
    codes[100:] = codes[:100] ^ np.packbits(rng.random((100, 8 * length)) < 0.03, axis=1)
    turn = rng.integers(0, 256, length, dtype=np.uint8)
    assert found(codes, radius, turn) == near(codes, turn, radius)


def test_the_pieces_have_every_bit_once_and_shares_that_miss_no_pair() -> None:
    for count in (100, 10_000, 40_000, 400_000, 4_000_000):
        for radius in (0, 4, 17, 30):
            made = list(pieces.cut(count, 144, radius, join._work(2)))
            if len(made[0].bits):
                bits = np.concatenate([piece.bits for piece in made])
                assert len(set(bits.tolist())) == len(bits) and sum(piece.share + 1 for piece in made) > radius
                assert all(len(piece.bits) <= 24 for piece in made)
