"""Which shares of each margin are wanted, and how many faces of every kind to take for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from authface.errors import UsageError, one_line

UNIFORM = "uniform"
_ROUNDS = 300
_STILL = 1e-9
"""Change of the counts, as a share of all, at which the fitting stands still."""


@dataclass(frozen=True)
class Goal:
    """The wanted shares of one margin: one for each of its words, 0..1, adding up to 1."""

    margin: str
    shares: tuple[float, ...]
    """In the order of the margin's words."""


def parse(target: str) -> dict[str, dict[str, float] | None]:
    """Parse ``pose=uniform, skin: light .3 tan .3`` into shares by margin and word; None stands for uniform.

    Margins are separated by commas or semicolons. Raises UsageError that says what is wrong.
    """
    wanted: dict[str, dict[str, float] | None] = {}
    for piece in target.replace(";", ",").split(","):
        margin, sign, said = piece.replace("=", ":", 1).partition(":")
        name, words = margin.strip(), said.replace("=", " ").split()
        shown = one_line(piece.strip(), 80)
        if not sign or not name or not words:
            raise UsageError(f"target {shown!r}: write pose=uniform, or pose: frontal .5 left .25 right .25")
        if name in wanted:
            raise UsageError(f"target: {one_line(name, 40)} is given twice")
        wanted[name] = None if words == [UNIFORM] else _shares(words, shown)
    return wanted


def _shares(words: Sequence[str], shown: str) -> dict[str, float]:
    shares: dict[str, float] = {}
    for word, number in zip(words[::2], [*words[1::2], ""][: len(words[::2])], strict=True):
        try:
            share = float(number)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1 or word in shares:
            raise UsageError(f"target {shown!r}: after each word comes its share, 0 to 1, as in light .3 tan .2")
        shares[word] = share
    if sum(shares.values()) > 1 + 1e-6:
        raise UsageError(f"target {shown!r}: the shares add up to {sum(shares.values()):.3g}, at most 1")
    return shares


def goal(
    margin: str, words: Sequence[str], counts: Sequence[int], wanted: Mapping[str, float] | None, least: int
) -> Goal:
    """The wanted share of every word of a margin. `wanted` None means equal shares of all words with `least` faces or
    more; the others, and `unknown`, keep theirs. What given shares leave goes to the other words in proportion.

    Raises UsageError for a word that no face has.
    """
    total = sum(counts)
    now = dict(zip(words, (count / total for count in counts), strict=True))
    if wanted is None:
        even = [word for word, count in zip(words, counts, strict=True) if count >= least and word != "unknown"]
        if not even:
            raise UsageError(f"target {margin}=uniform: no word has {least} faces; lower curate.balance.least")
        left = sum(now[word] for word in even)
        return Goal(margin, tuple(left / len(even) if word in even else now[word] for word in words))
    for word, share in wanted.items():
        if share > 0 and not now.get(word):
            known = ", ".join(one_line(known, 40) for known in words)
            raise UsageError(f"target {margin}: no face is {one_line(word, 40)}; there are {known}")
    others = sum(share for word, share in now.items() if word not in wanted)
    rest = 1 - sum(wanted.values())
    if rest > 1e-6 and not others:
        raise UsageError(f"target {margin}: the shares add up to {1 - rest:.3g} and name every word: make them 1")
    return Goal(margin, tuple(wanted.get(word, now[word] * rest / (others or 1)) for word in words))


@dataclass(frozen=True)
class Fit:
    """How many faces to take of every cell, and how far the margins are from their goals."""

    take: NDArray[np.float64]
    off: float
    """Largest distance of a share from its goal, 0..1."""


def fit(cells: NDArray[np.int64], available: NDArray[np.int64], goals: Sequence[Goal], keep: int) -> Fit:
    """Distribute `keep` faces over the cells: close to the present proportions, with the goals' margins.

    `cells` is (k, m): the word of each of m margins; `available` (k,) how many faces a cell has, which no count
    exceeds. Deming and Stephan 1940, with counts capped at what there is after every step.
    """
    take = available * (keep / available.sum())
    for _ in range(_ROUNDS):
        before = take.copy()
        for column, wanted in enumerate(goals):
            sums = np.bincount(cells[:, column], take, len(wanted.shares))
            factors = np.divide(keep * np.array(wanted.shares), sums, out=np.zeros_like(sums), where=sums > 0)
            take = np.minimum(take * factors[cells[:, column]], available)
        if np.abs(take - before).max() < _STILL * keep:
            break
    off = 0.0
    for column, wanted in enumerate(goals):
        shares = np.bincount(cells[:, column], take, len(wanted.shares)) / keep
        off = max(off, float(np.abs(shares - wanted.shares).max()))
    return Fit(take, off)


def largest_subset(
    cells: NDArray[np.int64], available: NDArray[np.int64], goals: Sequence[Goal], tolerance: float
) -> tuple[int, Fit]:
    """The most faces that can be kept with every share within `tolerance` of its goal, and their fit."""
    low, high = 1, int(available.sum())
    while low < high:
        middle = (low + high + 1) // 2
        if fit(cells, available, goals, middle).off <= tolerance:
            low = middle
        else:
            high = middle - 1
    return low, fit(cells, available, goals, low)


def round_counts(take: NDArray[np.float64], available: NDArray[np.int64]) -> NDArray[np.int64]:
    """Round to whole counts of the same sum by largest remainder, never above what is available."""
    counts = np.minimum(np.floor(take + 1e-9), available).astype(np.int64)
    missing = min(round(float(take.sum())), int(available.sum())) - int(counts.sum())
    order = np.argsort(-(take - counts), kind="stable")
    room = order[counts[order] < available[order]]
    counts[room[: max(0, missing)]] += 1
    return counts
