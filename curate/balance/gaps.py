"""Which values a set has too few faces of, and how many would be enough if faces are only added.

It reads nothing but shares that may be shown (`marginal`), so that nothing derived from it tells more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from authface.curate.balance.shares import MarginShare
from authface.errors import UsageError, one_line
from authface.metrics.stats import wilson

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
