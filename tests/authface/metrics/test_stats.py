"""Means, shares, tests and agreement against published examples and numbers known by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wilcoxon

from authface.metrics.stats import (
    bootstrap_means,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    mean_of,
    paired_difference,
    share_intervals,
    sign_test,
    wilson,
)

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


@given(st.integers(0, 3000), st.integers(1, 3000))
def test_wilson_holds_the_share_and_narrows(count: int, more: int) -> None:
    total = count + more
    low, high = wilson(count, total)
    assert 0 <= low <= count / total <= high <= 1
    wide = high - low
    low, high = wilson(10 * count, 10 * total)
    assert high - low < wide


def test_wilson_is_the_published_interval() -> None:
    assert wilson(10, 100) == pytest.approx((0.0552, 0.1744), abs=1e-4)  # Newcombe 1998, table I's method 3
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_bootstrap_interval_covers_a_known_mean() -> None:
    """Of 300 samples of 40 from N(0, 1) the 95 % interval holds 0 in 93.5 % or so: percentile intervals are narrow."""
    random = np.random.default_rng(4)
    held = 0
    for seed in range(300):
        mean = mean_of(random.normal(size=40).tolist(), seed, 500)
        assert mean.low is not None and mean.high is not None and mean.low < mean.mean < mean.high
        held += mean.low <= 0 <= mean.high
    assert 0.89 <= held / 300 <= 0.98


def test_the_bootstrap_is_seeded_and_its_memory_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(5).normal(size=50)
    assert np.array_equal(bootstrap_means(values, 1, 300), bootstrap_means(values, 1, 300))
    assert not np.array_equal(bootstrap_means(values, 1, 300), bootstrap_means(values, 2, 300))
    monkeypatch.setattr("authface.metrics.stats._DRAWN", 120)
    assert len(bootstrap_means(values, 1, 301)) == 301
    one = mean_of([2.5], 0, 100)
    assert (one.count, one.mean, one.low, one.high) == (1, 2.5, None, None)


def test_a_difference_is_paired() -> None:
    random = np.random.default_rng(6)
    faces = random.normal(0, 10, 60)
    better = faces + 0.3 + random.normal(0, 0.1, 60)
    told = paired_difference(
        ("a", faces.tolist()), ("b", better.tolist()), "psnr", lower_better=False, seed=0, resamples=500
    )
    assert told.mean.low is not None and told.mean.low > 0.2, "30 times less than what the faces differ by"
    assert told.p == pytest.approx(wilcoxon(better - faces).pvalue) and told.p < 1e-9 and told.better > 0.98
    other = paired_difference(
        ("a", faces.tolist()), ("b", better.tolist()), "lpips", lower_better=True, seed=0, resamples=500
    )
    assert other.better == pytest.approx(1 - told.better) and other.mean == told.mean
    same = paired_difference(("a", [1.0] * 9), ("b", [1.0] * 9), "psnr", lower_better=False, seed=0, resamples=100)
    assert same.p is None and same.better == 0.5 and same.mean.mean == 0


def test_wilson_is_the_published_formula() -> None:
    """(p + z^2 / 2n +- z sqrt(p q / n + z^2 / 4n^2)) / (1 + z^2 / n), z = 1.96 (Wilson 1927)."""
    z = 1.959963984540054
    for count, total in ((0, 10), (3, 10), (10, 10), (183, 200)):
        share, one = count / total, 1 + z**2 / total
        half = z * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
        expected = [(share + z**2 / (2 * total) + sign * half) / one for sign in (-1, 1)]
        assert wilson(count, total) == pytest.approx(expected, abs=1e-12)


def test_cohens_kappa_of_three_categories_has_the_interval_of_the_delta_method() -> None:
    """Its derivatives are taken numerically here."""
    table = np.array([[106, 10, 4], [22, 28, 10], [2, 12, 6]])

    def kappa_of(counts: np.ndarray) -> float:
        shares = counts / counts.sum()
        chance = shares.sum(axis=1) @ shares.sum(axis=0)
        return float((np.trace(shares) - chance) / (1 - chance))

    steps = 1e-3 * np.eye(9).reshape(9, 3, 3)
    slopes = np.array([(kappa_of(table + step) - kappa_of(table - step)) / 2e-3 for step in steps]).reshape(3, 3)
    variance = (table * (slopes - (table * slopes).sum() / table.sum()) ** 2).sum()
    found = cohen_kappa(table.tolist())
    assert found is not None and found.value == pytest.approx(kappa_of(table))
    assert (found.low, found.high) == pytest.approx(found.value + 1.959964 * np.sqrt(variance) * np.array([-1, 1]))
    assert cohen_kappa([[0, 0], [0, 0]]) is None and cohen_kappa([[9, 0], [0, 0]]) is None
