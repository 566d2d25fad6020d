"""How sure a mean is, and whether two methods differ on the same faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_DRAWN = 2_000_000
"""Numbers drawn at a time: 16 MB, however many images there are."""


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


def mean_of(values: Sequence[float], seed: int, resamples: int) -> Mean:
    """Mean, deviation and percentile bootstrap interval (Efron 1979) of at least one finite value."""
    array = np.asarray(values, np.float64)
    mean = float(array.mean())
    if len(array) == 1:
        return Mean(1, mean, None, None, 0.0)
    low, high = np.quantile(bootstrap_means(array, seed, resamples), [0.025, 0.975])
    return Mean(len(array), mean, float(low), float(high), float(array.std(ddof=1)))


def bootstrap_means(values: NDArray[np.float64], seed: int, resamples: int) -> NDArray[np.float64]:
    """(resamples,) means of as many values drawn with replacement; the same for the same seed."""
    random = np.random.default_rng(seed)
    rows = max(1, _DRAWN // len(values))
    parts = [
        values[random.integers(0, len(values), (min(rows, resamples - at), len(values)))].mean(axis=1)
        for at in range(0, resamples, rows)
    ]
    return np.concatenate(parts)


def difference(
    first: tuple[str, Sequence[float]],
    second: tuple[str, Sequence[float]],
    metric: str,
    *,
    lower_better: bool,
    seed: int,
    resamples: int,
) -> Difference:
    """Names and values of two methods on the same images, in one order, at least one."""
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
