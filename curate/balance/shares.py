"""Shares of a set that may be shown: no count of so few faces that it points at people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from authface.metrics.stats import wilson

FEWEST = 5
"""Counts under this are merged with others or left out."""


@dataclass(frozen=True)
class MarginShare:
    """One word of a margin, or several that were merged, as a share of all faces."""

    words: tuple[str, ...]
    count: int
    total: int

    @property
    def name(self) -> str:
        """The word, or the merged words."""
        return self.words[0] if len(self.words) == 1 else f"{', '.join(self.words)} together"

    @property
    def share(self) -> float:
        """0..1."""
        return self.count / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, 0..1."""
        return wilson(self.count, self.total)

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        low, high = self.interval
        return {"words": list(self.words), "count": self.count, "share": self.share, "low": low, "high": high}


def marginal(words: Sequence[str], counts: Sequence[int]) -> list[MarginShare]:
    """Shares of the words that any face has; words of fewer than `FEWEST` faces are merged, so that none shows.

    If the merged ones together are still too few, the next smallest word joins them.
    """
    total = sum(counts)
    found = [(word, count) for word, count in zip(words, counts, strict=True) if count]
    few = [pair for pair in found if pair[1] < FEWEST]
    if few and sum(count for _, count in few) < FEWEST:
        rest = sorted((pair for pair in found if pair not in few), key=lambda pair: pair[1])
        few += rest[:1]
    alone = [MarginShare((word,), count, total) for word, count in found if (word, count) not in few]
    if not few:
        return alone
    return [*alone, MarginShare(tuple(word for word, _ in few), sum(count for _, count in few), total)]


def suppressed_cells(counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which cells of a cross table must not be shown, (rows, columns): those of 1 to `FEWEST` - 1 faces, and for each
    that is alone in its row or column the next smallest there, since a sum would give it away."""
    mask = (counts > 0) & (counts < FEWEST)
    while True:
        before = mask.sum()
        for table, chosen in ((counts, mask), (counts.T, mask.T)):
            for line, out in zip(table, chosen, strict=True):
                if out.sum() == 1 and (open_cells := np.flatnonzero(~out & (line > 0))).size:
                    out[open_cells[line[open_cells].argmin()]] = True
        if mask.sum() == before:
            return np.asarray(mask)
