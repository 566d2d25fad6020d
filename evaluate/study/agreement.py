"""What answers of several people come to: shares with intervals, a sign test, and how far people agree."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054
"""Of the standard normal, two-sided 95 %."""


def wilson(count: int, total: int) -> tuple[float, float]:
    """95 % score interval, 0..1, of a share of `total` (more than 0) independent answers (Wilson 1927)."""
    share, spread = count / total, Z95**2 / total
    middle = share + spread / 2
    half = Z95 * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    low, high = (middle - half) / (1 + spread), (middle + half) / (1 + spread)
    return (0.0 if count == 0 else low), (1.0 if count == total else high)


def sign_test(first: int, second: int) -> float | None:
    """Two-sided exact p that wins are fair coins, ties left out (Dixon and Mood 1946); None without any win."""
    from scipy.stats import binomtest

    return float(binomtest(first, first + second).pvalue) if first + second else None


def fleiss_kappa(counts: Sequence[Sequence[int]]) -> float | None:
    """Agreement beyond chance, at most 1, of rows of answers by category, each of the same number of people.

    (P - P_e) / (1 - P_e): P is the mean share of agreeing pairs of people, P_e that of chance (Fleiss 1971, equations
    3 to 7). None where rows differ in number, have fewer than two answers, or all answers are of one category.
    """
    people = {sum(row) for row in counts}
    if len(people) != 1 or (each := people.pop()) < 2:
        return None
    pairs = [sum(n * (n - 1) for n in row) / (each * (each - 1)) for row in counts]
    observed = sum(pairs) / len(pairs)
    expected = sum((sum(column) / (each * len(counts))) ** 2 for column in zip(*counts, strict=True))
    return None if expected == 1 else (observed - expected) / (1 - expected)


def krippendorff_alpha(counts: Sequence[Sequence[int]]) -> float | None:
    """Agreement beyond chance, at most 1, of rows of answers by category; people may have left rows out.

    1 - D_o / D_e of nominal data: D_o is the disagreement within rows of two answers and more, D_e that of all their
    answers put together (Krippendorff 2011, "Computing Krippendorff's alpha-reliability", part C). None where nothing
    can be compared, or all answers are of one category.
    """
    rows = [row for row in counts if sum(row) >= 2]
    total = sum(map(sum, rows))
    observed = sum(sum(n * (sum(row) - n) for n in row) / (sum(row) - 1) for row in rows)
    columns = [sum(column) for column in zip(*rows, strict=True)]
    expected = sum(n * (total - n) for n in columns)
    return 1 - (total - 1) * observed / expected if expected else None


def share_intervals(
    said: NDArray[np.int64], choices: int, seed: int, resamples: int
) -> list[tuple[float, float] | None]:
    """95 % interval, 0..1, of the share of each of `choices` answers; the same for the same seed.

    `said` is (people, faces) of 0..choices - 1, or -1 for no answer. People and faces are both drawn anew: answers of
    one person, and answers on one face, are alike (pigeonhole bootstrap, Owen 2007). A single person or a single
    face is kept as it is; None of one of each.
    """
    people, faces = said.shape
    if people == 1 and faces == 1:
        return [None] * choices
    random = np.random.default_rng(seed)
    by_person, by_face = (
        random.multinomial(n, np.full(n, 1 / n), size=resamples).astype(float) for n in (people, faces)
    )
    answered = _weighted(by_person, (said >= 0).astype(float), by_face)
    there = answered > 0
    return [
        (float(low), float(high))
        for choice in range(choices)
        for low, high in [
            np.quantile(
                _weighted(by_person, (said == choice).astype(float), by_face)[there] / answered[there], [0.025, 0.975]
            )
        ]
    ]


def _weighted(
    by_person: NDArray[np.float64], marks: NDArray[np.float64], by_face: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(resamples,) sums of the marks, each as often as its person and its face were drawn."""
    sums: NDArray[np.float64] = ((by_person @ marks) * by_face).sum(axis=1)
    return sums
