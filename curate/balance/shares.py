"""Shares of a set that may be shown, no count pointing at people, and which values have too few faces.

A gap says how many would be enough if faces are only added. It is read from nothing but shares that may be shown
(`marginal`), so that nothing derived from it tells more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from authface.errors import UsageError, one_line
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


UNIFORM: dict[str, tuple[str, ...]] = {
    "skin": ("very-light", "light", "intermediate", "tan", "brown", "dark"),
    "age": ("young-adult", "middle-aged", "elderly"),
    "pose": ("far-left", "left", "frontal", "right", "far-right"),
    "light": ("from-left", "from-right", "backlit", "from-neither"),
    "glasses": ("glasses", "none"),
    "beard": ("beard", "moustache-or-stubble", "none"),
}
"""Margins that can be collected for, and the values of which equal shares are wanted unless other shares are set.

Not among them: children and teenagers, who cannot consent for themselves, and sunglasses, which hide the eyes.
"""


@dataclass(frozen=True)
class Gap:
    """A value of which a set has fewer faces than wanted, beyond what chance explains."""

    attribute: str
    value: str
    count: float
    """Faces of it now; of values that are shown together an equal part."""
    known: float
    """Faces of which the attribute is known and has one of the wanted values."""
    alone: bool
    """Whether its count may be shown by itself."""
    wanted: float
    """Share of `known`, 0..1."""
    needed: int
    """Faces of it to add until every value of the attribute has its share; at least 1."""

    @property
    def name(self) -> str:
        """As in ``pose=far-left``."""
        return f"{self.attribute}={self.value}"

    @property
    def share(self) -> float:
        """Now, 0..1."""
        return self.count / self.known

    @property
    def interval(self) -> tuple[float, float]:
        """95 % of the share now, 0..1."""
        return wilson(self.count, self.known)


def wanted_shares(
    attribute: str, given: Mapping[str, float], counts: Mapping[str, float], words: Sequence[str]
) -> dict[str, float]:
    """The share wanted of each value, adding up to 1: equal ones, or `given`; what those leave goes to the values that
    are not named, in their present proportion. Raises UsageError for a value that is none, or shares above 1.
    """
    if unknown := given.keys() - set(words) | given.keys() & {"unknown"}:
        there = ", ".join(word for word in words if word != "unknown")
        raise UsageError(f"curate.balance.wanted.{attribute}: no value {one_line(min(unknown), 40)}; there are {there}")
    if (total := sum(given.values())) > 1 + 1e-6:
        raise UsageError(f"curate.balance.wanted.{attribute}: the shares add up to {total:.3g}, at most 1")
    others = [value for value in UNIFORM[attribute] if value not in given]
    if not others and total < 1 - 1e-6:
        raise UsageError(f"curate.balance.wanted.{attribute}: the shares name every value: make {total:.3g} to 1")
    there_now = sum(counts.get(value, 0.0) for value in others)
    even = not given or not there_now
    rest = {
        value: max(0.0, 1 - total) * (1 / len(others) if even else counts.get(value, 0.0) / there_now)
        for value in others
    }
    return {**rest, **given}


def gaps_of(
    attribute: str, shares: Sequence[MarginShare], given: Mapping[str, float], words: Sequence[str]
) -> tuple[list[Gap], int]:
    """The gaps of one margin, and of how many faces it is known; none where it is known of no face.

    With faces only added, all values have their shares once the set is as large as the most frequent one asks for:
    T = max(count / wanted); a value then lacks wanted x T - count.
    """
    counts = {word: share.count / len(share.words) for share in shares for word in share.words}
    wanted = wanted_shares(attribute, given, counts, words)
    known = sum(counts.get(value, 0.0) for value in wanted)
    if not known:
        return [], 0
    alone = {word: len(share.words) == 1 for share in shares for word in share.words}
    size = max(counts.get(value, 0.0) / share for value, share in wanted.items() if share > 0)
    found = []
    for value, share in wanted.items():
        count = counts.get(value, 0.0)
        needed = math.ceil(share * size - count - 1e-6)
        if needed > 0 and wilson(count, known)[1] < share:
            found.append(Gap(attribute, value, count, known, alone.get(value, True), share, needed))
    return found, round(known)
