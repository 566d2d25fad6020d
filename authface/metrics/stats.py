"""How sure a figure is: intervals of means and shares, tests of differences, and agreement between raters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Z95 = NormalDist().inv_cdf(0.975)
"""Of the standard normal, two-sided 95 %."""
_DRAWN = 2_000_000
"""Numbers drawn at a time by the bootstrap: 16 MB, however many images there are."""


@dataclass(frozen=True)
class Mean:
    """A mean over images with its 95 % bootstrap interval; the interval is None of a single image."""

    count: int
    mean: float
    low: float | None
    high: float | None
    deviation: float
    """Of single images, n - 1 in its denominator; 0 for one image."""


@dataclass(frozen=True)
class Difference:
    """What `second` has more than `first` on the same images."""

    first: str
    second: str
    metric: str
    mean: Mean
    better: float
    """Share of images on which the second is better, ties as half."""
    p: float | None
    """Two-sided Wilcoxon signed-rank p of no difference; None where all differences are 0 or there are under 6."""


@dataclass(frozen=True, slots=True)
class Kappa:
    """Agreement beyond chance: 1 is full, 0 what chance gives, below 0 is worse than chance."""

    value: float
    low: float
    high: float
    """The 95 % interval."""


def mean_of(values: Sequence[float], seed: int, resamples: int) -> Mean:
    """Mean, deviation and percentile bootstrap interval (Efron 1979) of at least one finite value."""
    array = np.asarray(values, np.float64)
    mean = float(array.mean())
    if len(array) == 1:
        return Mean(1, mean, None, None, 0.0)
    low, high = np.quantile(bootstrap_means(array, seed, resamples), [0.025, 0.975])
    return Mean(len(array), mean, float(low), float(high), float(array.std(ddof=1)))


def bootstrap_means(values: NDArray[np.float64], seed: int, resamples: int) -> NDArray[np.float64]:
    """(resamples,) means of as many of the two values or more drawn with replacement; the same for the same seed."""
    from scipy.stats import bootstrap

    means: NDArray[np.float64] = bootstrap(
        (values,), np.mean, n_resamples=resamples, batch=max(1, _DRAWN // len(values)), method="percentile",
        rng=np.random.default_rng(seed),
    ).bootstrap_distribution  # fmt: skip
    return means


def paired_difference(
    first: tuple[str, Sequence[float]],
    second: tuple[str, Sequence[float]],
    metric: str,
    *,
    lower_better: bool,
    seed: int,
    resamples: int,
) -> Difference:
    """Compare two methods, each a name and its values, on the same images in one order; at least one image."""
    apart = np.asarray(second[1], np.float64) - np.asarray(first[1], np.float64)
    gain = -apart if lower_better else apart
    better = float((gain > 0).mean() + 0.5 * (gain == 0).mean())
    mean = mean_of(apart.tolist(), seed, resamples)
    return Difference(first[0], second[0], metric, mean, better, wilcoxon_p(apart))


def wilcoxon_p(differences: NDArray[np.float64]) -> float | None:
    """Two-sided p of Wilcoxon's signed-rank test, zeros left out (Wilcoxon 1945); None of fewer than 6 others."""
    from scipy.stats import wilcoxon

    others = differences[differences != 0]
    return float(wilcoxon(others).pvalue) if len(others) >= 6 else None


def sign_test(first: int, second: int) -> float | None:
    """Two-sided exact p that wins are fair coins, ties left out (Dixon and Mood 1946); None without any win."""
    wins, total = min(first, second), first + second
    tail = sum(math.comb(total, count) for count in range(wins + 1))
    return min(1.0, 2 * tail / 2**total) if total else None


def wilson(count: float, total: float) -> tuple[float, float]:
    """95 % score interval, 0..1, of a share of `total` independent answers (Wilson 1927); all of 0..1 for none.

    Of weighted answers `total` is their effective number, (sum of w)^2 / sum of w^2 (Kish 1965).
    """
    if total <= 0:
        return 0.0, 1.0
    share, square = count / total, Z95**2
    middle = (share + square / (2 * total)) / (1 + square / total)
    half = Z95 / (1 + square / total) * math.sqrt(share * (1 - share) / total + square / (4 * total**2))
    return max(middle - half, 0.0) if count else 0.0, min(middle + half, 1.0) if count < total else 1.0


def ranking_auc(scores: NDArray[np.float64], right: NDArray[np.bool_], weights: NDArray[np.float64]) -> float:
    """Area under the ROC curve: how likely a right one scores above a wrong one, ties as half; 0.5 without either."""
    order = np.argsort(scores, kind="stable")
    _, group = np.unique(scores[order], return_inverse=True)
    good = np.bincount(group, np.where(right, weights, 0)[order])
    bad = np.bincount(group, np.where(right, 0, weights)[order])
    pairs = float(good.sum() * bad.sum())
    return float((good * (np.cumsum(bad) - bad / 2)).sum()) / pairs if pairs else 0.5


def cohen_kappa(table: Sequence[Sequence[int]]) -> Kappa | None:
    """Cohen's kappa (1960) of a square table of counts, with its large-sample interval, cut to -1..1.

    A row is a category of the first rater, a column one of the second. Variance as Fleiss, Cohen and Everitt
    (1969). None where nothing was rated, or both raters named one and the same category only.
    """
    counts = np.asarray(table, np.int64)
    total, agreed = int(counts.sum()), int(np.trace(counts))
    rows, columns = counts.sum(axis=1), counts.sum(axis=0)
    by_chance = int(rows @ columns)  # in whole numbers: full agreement is exactly 1
    if by_chance == total**2:
        return None
    value = (agreed * total - by_chance) / (total**2 - by_chance)
    shares, rows, columns, chance = counts / total, rows / total, columns / total, by_chance / total**2
    weights = -np.add.outer(columns, rows) * (1 - value)
    np.fill_diagonal(weights, weights.diagonal() + 1)
    variance = float((shares * weights**2).sum()) - (value - chance * (1 - value)) ** 2
    half = Z95 * math.sqrt(max(variance / total, 0.0)) / (1 - chance)
    return Kappa(value, max(value - half, -1.0), min(value + half, 1.0))


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
    answers: NDArray[np.int64], choices: int, seed: int, resamples: int
) -> list[tuple[float, float] | None]:
    """95 % interval, 0..1, of the share of each of `choices` answers; the same for the same seed.

    `answers` is (people, faces) of 0..choices - 1, or -1 for no answer. People and faces are both drawn anew: answers
    of one person, and answers on one face, are alike (pigeonhole bootstrap, Owen 2007). A single person or a single
    face is kept as it is; None of one of each.
    """
    people, faces = answers.shape
    if people == 1 and faces == 1:
        return [None] * choices
    random = np.random.default_rng(seed)
    by_person, by_face = (
        random.multinomial(n, np.full(n, 1 / n), size=resamples).astype(float) for n in (people, faces)
    )
    answered = _weighted(by_person, answers >= 0, by_face)
    there = answered > 0
    shares = (_weighted(by_person, answers == choice, by_face)[there] / answered[there] for choice in range(choices))
    return [(float(low), float(high)) for low, high in (np.quantile(share, [0.025, 0.975]) for share in shares)]


def _weighted(
    by_person: NDArray[np.float64], marks: NDArray[np.bool_], by_face: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(resamples,) counts of the marks, each as often as its person and its face were drawn."""
    sums: NDArray[np.float64] = ((by_person @ marks.astype(float)) * by_face).sum(axis=1)
    return sums
