"""Histograms as data: counts by bin with limits drawn in, streamed over values; the templates turn them into SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 48
"""Bars of a histogram: one is about 10 px wide on a page."""
NOTHING = 1e-300
"""A span below this is none: parts of it would leave the range of floats."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of one measure over equal bins, kept and rejected apart.

    The first and the last bin also hold what lies below and above them (`beyond` says how many), so that a few
    outliers do not press all others into one bar.
    """

    name: str
    note: str
    """What the measure says and its unit, in a few words."""
    edges: Sequence[float]
    """n + 1 ascending edges of the n bins."""
    kept: Sequence[int]
    rejected: Sequence[int]
    limits: Sequence[tuple[str, float]] = ()
    """Name and place of each threshold, such as ``("min_sharpness", 0.15)``."""
    beyond: tuple[int, int] = (0, 0)
    """Values below the first and above the last edge."""

    @property
    def total(self) -> int:
        """Values of both kinds."""
        return sum(self.kept) + sum(self.rejected)

    @property
    def highest(self) -> int:
        """Count of the fullest bin, both kinds together."""
        return max((a + b for a, b in zip(self.kept, self.rejected, strict=True)), default=0)

    @property
    def summary(self) -> str:
        """The chart in words, for those who do not see it."""
        limits = "; ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in self.limits)
        beyond = sum(self.beyond)
        said = [f"{sum(self.kept):,} kept, {sum(self.rejected):,} rejected", limits]
        said += [f"{beyond:,} beyond the axis, in its last bars" if beyond else ""]
        return "; ".join(part for part in said if part)

    def place(self, value: float) -> float:
        """Where `value` lies between the first edge (0) and the last (1), cut to these."""
        low, high = self.edges[0], self.edges[-1]
        return min(1.0, max(0.0, (value - low) / (high - low)))

    def bars(self) -> list[tuple[float, float, float, float]]:
        """Left end, width, height of the kept and of the rejected part of every bar that is not empty, as shares.

        A bar that holds anything is at least 0.008 high: one face in a million is still seen.
        """
        width, top = 1 / len(self.kept), max(1, self.highest)
        return [
            (index * width, width, max(kept / top, 0.008) if kept else 0.0, max(cut / top, 0.008) if cut else 0.0)
            for index, (kept, cut) in enumerate(zip(self.kept, self.rejected, strict=True))
            if kept or cut
        ]


def round_span(low: float, high: float, bins: int = BINS) -> tuple[float, float]:
    """Smallest range covering `low`..`high` whose ends are multiples of 1, 2 or 5 of a power of ten."""
    if not (math.isfinite(low) and math.isfinite(high)) or high - low < NOTHING:
        middle = low if math.isfinite(low) else 0.0
        reach = max(abs(middle) * 0.1, 0.5)
        return middle - reach, middle + reach
    power = 10.0 ** math.floor(math.log10((high - low) / bins))
    step = next(power * factor for factor in (1, 2, 5, 10, 20, 50) if power * factor * bins >= (high - low))
    # What is next to nothing beside a step may be rounded away from its side.
    return min(low, math.floor(low / step) * step), max(high, math.ceil(high / step) * step)


class HistogramCounter:
    """Counts values into `bins` equal bins between `low` and `high`, batch by batch."""

    def __init__(self, low: float, high: float, bins: int = BINS) -> None:
        self.edges: NDArray[np.float64] = np.linspace(low, high, bins + 1)
        self.counts: NDArray[np.int64] = np.zeros((2, bins), np.int64)
        self.beyond = [0, 0]

    def add(self, values: NDArray[np.float64], kept: NDArray[np.bool_]) -> None:
        """Count `values`; those that are no numbers are left out."""
        low, high = self.edges[0], self.edges[-1]
        real = np.isfinite(values)
        values, kept = values[real], kept[real]
        self.beyond[0] += int((values < low).sum())
        self.beyond[1] += int((values > high).sum())
        bins = self.counts.shape[1]
        place = np.clip(((values - low) * (bins / (high - low))).astype(np.int64), 0, bins - 1)
        for row, chosen in enumerate((kept, ~kept)):
            self.counts[row] += np.bincount(place[chosen], minlength=bins)

    def histogram(self, name: str, note: str, limits: Sequence[tuple[str, float]] = ()) -> Histogram:
        """What was counted."""
        kept, rejected = self.counts.tolist()
        return Histogram(name, note, self.edges.tolist(), kept, rejected, limits, (self.beyond[0], self.beyond[1]))
