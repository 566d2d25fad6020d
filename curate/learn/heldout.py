"""How good a reviewer's model is, from decisions that it had no part of: what a limit keeps and lets through.

Reviewed faces are seldom drawn at random: the page asks where it pays. So each decision is weighted by how many faces
of the set it stands for (post-stratification by the model's own probability), and an interval counts the effective
number of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from authface.curate.learn.model import HeldOut
from authface.curate.learn.table import Matrix
from authface.metrics.stats import ranking_auc, wilson

LIMITS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Probabilities whose effect reports tell."""
STRATA = 8
"""Most strata of probability, and ..."""
LEAST_STRATUM = 15
"""... fewest decisions in one."""
HEAVIEST = 10.0
"""Largest weight of one decision, over the mean: no single one decides a figure."""
BINS = 10
"""Bins of the calibration curve, of equal numbers of decisions."""
LEAST_BIN = 10
_RESAMPLES = 500
Marks = NDArray[np.bool_]


@dataclass(frozen=True)
class Estimate:
    """A share, 0..1, with its 95 % interval; of nothing it is 0 and its interval all of 0..1."""

    share: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """For a person: ``95 % (90 to 98)``."""
        return f"{100 * self.share:.0f} % ({100 * self.low:.0f} to {100 * self.high:.0f})"


@dataclass(frozen=True)
class Passing:
    """What one limit does."""

    limit: float
    recall: Estimate
    """Of what the reviewer keeps, the share that passes."""
    let_through: Estimate
    """Of what the reviewer rejects, the share that passes."""
    precision: Estimate
    """Of what passes, the share that the reviewer keeps."""

    @property
    def estimates(self) -> tuple[Estimate, Estimate, Estimate]:
        """All three, in this order."""
        return self.recall, self.let_through, self.precision

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


@dataclass(frozen=True)
class CalibrationBin:
    """Decisions of about one probability."""

    predicted: float
    """Mean probability that the face is kept."""
    kept: Estimate
    count: int


@dataclass(frozen=True)
class HeldOutTable:
    """All held-out decisions as columns."""

    probability: Matrix
    kept: Marks
    weight: Matrix

    @classmethod
    def of(cls, held_out: Sequence[HeldOut]) -> HeldOutTable:
        """The columns."""
        return cls(
            np.array([one.probability for one in held_out]),
            np.array([one.kept for one in held_out], np.bool_),
            np.array([one.weight for one in held_out]),
        )

    def passing(self, limit: float) -> Passing:
        """What a limit keeps and lets through."""
        passes = self.probability >= limit
        return Passing(
            limit,
            _estimate(passes[self.kept], self.weight[self.kept]),
            _estimate(passes[~self.kept], self.weight[~self.kept]),
            _estimate(self.kept[passes], self.weight[passes]),
        )

    def limit_for(self, recall: float) -> float:
        """The highest limit at which `recall` of what the reviewer keeps passes, to three digits below it."""
        order = np.argsort(self.probability[self.kept])
        weights = self.weight[self.kept][order]
        below = np.cumsum(weights) - weights
        first = int((below <= (1 - recall) * weights.sum()).nonzero()[0][-1])
        return float(np.floor(self.probability[self.kept][order][first] * 1000) / 1000)

    def auc(self, seed: int) -> Estimate:
        """Area under the ROC curve, with a percentile bootstrap interval."""
        rng, count = np.random.default_rng(seed), len(self.kept)
        drawn = (rng.integers(0, count, count) for _ in range(_RESAMPLES))
        areas = [ranking_auc(self.probability[rows], self.kept[rows], self.weight[rows]) for rows in drawn]
        low, high = np.quantile(areas, [0.025, 0.975])
        return Estimate(ranking_auc(self.probability, self.kept, self.weight), float(low), float(high))

    def calibration(self) -> list[CalibrationBin]:
        """The calibration curve, rising; unweighted: within a bin all faces are alike."""
        order = np.argsort(self.probability, kind="stable")
        bins = np.array_split(order, max(1, min(BINS, len(order) // LEAST_BIN)))
        ones = np.ones(len(order))
        return [
            CalibrationBin(float(self.probability[rows].mean()), _estimate(self.kept[rows], ones[rows]), len(rows))
            for rows in bins
        ]

    @property
    def calibration_error(self) -> float:
        """Mean distance of predicted and kept over the bins (ECE), 0..1."""
        bins = self.calibration()
        return sum(one.count * abs(one.predicted - one.kept.share) for one in bins) / sum(one.count for one in bins)


def weigh(probability: Matrix, pool: Matrix) -> Matrix:
    """(n,) weights of mean 1 by which decided faces stand for the `pool`, both by their probability to be kept."""
    strata = max(1, min(STRATA, len(probability) // LEAST_STRATUM))
    edges = np.unique(np.quantile(probability, np.linspace(0, 1, strata + 1)[1:-1]))
    decided, whole = np.digitize(probability, edges), np.digitize(pool, edges)
    share = np.bincount(whole, minlength=len(edges) + 1) / max(1, len(pool))
    own = np.bincount(decided, minlength=len(edges) + 1) / len(probability)
    weights = np.clip((share / np.maximum(own, 1e-9))[decided], 1 / HEAVIEST, HEAVIEST)
    return np.asarray(weights / weights.mean())


def _estimate(marks: Marks, weights: Matrix) -> Estimate:
    total = float(weights.sum())
    if not total:
        return Estimate(0.0, 0.0, 1.0)
    share = float(weights[marks].sum()) / total
    effective = total**2 / float((weights**2).sum())
    return Estimate(share, *wilson(share * effective, effective))
