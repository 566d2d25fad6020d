"""Shares, tests and agreement against published examples and numbers known by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from authface.evaluate.study.agreement import fleiss_kappa, krippendorff_alpha, share_intervals, sign_test, wilson

FLEISS = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip
"""Ten subjects, 14 raters, five categories: the worked example that goes with Fleiss 1971; kappa 0.210."""


def krippendorff_2011() -> list[list[int]]:
    """Part C of "Computing Krippendorff's alpha-reliability": four observers, twelve units, answers missing."""
    rows = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
    return [[sum(row[unit] == str(value) for row in rows) for value in range(1, 6)] for unit in range(12)]


def test_the_published_examples() -> None:
    assert fleiss_kappa(FLEISS) == pytest.approx(0.210, abs=5e-4)
    assert krippendorff_alpha(krippendorff_2011()) == pytest.approx(0.743, abs=5e-4)


def test_agreement_at_its_ends() -> None:
    whole, split = [[3, 0, 0], [0, 0, 3]], [[1, 0, 1]] * 6
    assert fleiss_kappa(whole) == krippendorff_alpha(whole) == 1
    kappa, alpha = fleiss_kappa(split), krippendorff_alpha(split)
    assert kappa == pytest.approx(-1) and alpha is not None and alpha < -0.8
    assert fleiss_kappa([[2, 0], [3, 0]]) is None, "rows of different numbers of people"
    for nothing in ([[1, 0, 0], [0, 0, 1]], [[3, 0, 0], [2, 0, 0]]):
        assert krippendorff_alpha(nothing) is None, "one answer a face, or one category for all"
        assert fleiss_kappa(nothing) is None


def test_alpha_comes_near_kappa_of_many_faces() -> None:
    counts = np.random.default_rng(1).multinomial(4, [0.2, 0.2, 0.6], size=3000).tolist()
    kappa, alpha = fleiss_kappa(counts), krippendorff_alpha(counts)
    assert kappa is not None and alpha == pytest.approx(kappa, abs=1e-3) and abs(kappa) < 0.03


@pytest.mark.parametrize(("count", "total"), [(0, 10), (3, 10), (10, 10), (183, 200)])
def test_wilson_is_scipys(count: int, total: int) -> None:
    theirs = binomtest(count, total).proportion_ci(method="wilson")
    assert wilson(count, total) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_the_sign_test_leaves_ties_out() -> None:
    assert sign_test(0, 0) is None
    assert sign_test(9, 1) == pytest.approx(22 / 1024) == sign_test(1, 9)


def test_intervals_are_seeded_and_know_that_people_are_alike() -> None:
    random = np.random.default_rng(2)
    independent = random.integers(0, 3, (6, 80))
    same = np.repeat(independent[:1], 6, axis=0)
    found = share_intervals(independent, 3, 5, 1000)
    assert found == share_intervals(independent, 3, 5, 1000) != share_intervals(independent, 3, 6, 1000)

    def width(said: np.ndarray) -> float:
        interval = share_intervals(said, 3, 5, 2000)[2]
        assert interval is not None
        return interval[1] - interval[0]

    assert width(same) > 1.5 * width(independent), "six people of one mind are one answer a face, not six"
    one = share_intervals(same[:1], 3, 5, 2000)[2]
    share = (same[0] == 2).mean()
    assert one is not None and one[0] < share < one[1]
    assert one[1] - one[0] == pytest.approx(2 * 1.96 * np.sqrt(share * (1 - share) / 80), rel=0.1)
    assert share_intervals(np.array([[1]]), 3, 0, 100) == [None] * 3
    missing = share_intervals(np.array([[2, -1, 2, -1], [-1, 2, -1, 2]]), 3, 0, 500)
    assert missing == [(0, 0), (0, 0), (1, 1)]
