"""How far two annotators agree, tag by tag: counts, Cohen's kappa with its interval, contradictions. Data only."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from authface.annotate.vocabulary.resolve import can_say, contradictions
from authface.annotate.vocabulary.vocabulary import GROUP_OF, VOCABULARY
from authface.records import Tag

EXAMPLES = 12
"""Crops that are kept to show for one kind of disagreement: the first ones in the order of the set."""
Z = 1.959964
"""Of a normal distribution 95 % lie within so many standard deviations."""


@dataclass(frozen=True, slots=True)
class Kappa:
    """Agreement beyond chance: 1 is full, 0 what chance gives, below 0 is worse than chance."""

    value: float
    low: float
    high: float
    """The 95 % interval."""


@dataclass(slots=True)
class Counts:
    """Crops by who says a tag of them."""

    both: int = 0
    only_first: int = 0
    only_second: int = 0
    neither: int = 0

    @property
    def total(self) -> int:
        """All crops."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def kappa(self) -> Kappa | None:
        """Cohen's kappa; None where it says nothing."""
        return kappa(self.both, self.only_first, self.only_second, self.neither)


def kappa(both: int, only_first: int, only_second: int, neither: int) -> Kappa | None:
    """Cohen's kappa of a 2 x 2 table with its large-sample interval, cut to -1..1.

    Variance as Fleiss, Cohen and Everitt (1969), for two categories. None where one of the two says the
    same of every crop: kappa is then 0, or not defined, whatever the other says.
    """
    total = both + only_first + only_second + neither
    if 0 in (both + only_first, both + only_second, neither + only_first, neither + only_second):
        return None
    cells = [[both / total, only_first / total], [only_second / total, neither / total]]
    rows = [sum(cells[i]) for i in (0, 1)]
    columns = [cells[0][i] + cells[1][i] for i in (0, 1)]
    seen, chance = cells[0][0] + cells[1][1], rows[0] * columns[0] + rows[1] * columns[1]
    value = (seen - chance) / (1 - chance)
    rest = 1 - value
    agreeing = sum(cells[i][i] * (1 - (rows[i] + columns[i]) * rest) ** 2 for i in (0, 1))
    differing = rest**2 * sum(cells[i][1 - i] * (columns[i] + rows[1 - i]) ** 2 for i in (0, 1))
    variance = (agreeing + differing - (value - chance * rest) ** 2) / (total * (1 - chance) ** 2)
    half = Z * math.sqrt(max(variance, 0.0))
    return Kappa(value, max(value - half, -1.0), min(value + half, 1.0))


@dataclass
class Agreement:
    """Two annotators over the crops that both tagged."""

    first: str
    second: str
    crops: int = 0
    tags: dict[str, Counts] = field(default_factory=dict)
    """By tag; only those that both know, of groups that both speak of."""
    contradictions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By what the first says and what the second says."""
    examples: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """Ids of some crops for each of `contradictions`, and for what one says alone: ``(tag, "")``, ``("", tag)``."""

    def by_group(self) -> Iterator[tuple[str, dict[str, Counts]]]:
        """Groups in the vocabulary's order, each with its tags."""
        for group, names in VOCABULARY.items():
            if found := {name: self.tags[name] for name in names if name in self.tags}:
                yield group, found

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "first": self.first,
            "second": self.second,
            "crops": self.crops,
            "tags": [
                {
                    "group": GROUP_OF[name],
                    "tag": name,
                    "both": counts.both,
                    "only_first": counts.only_first,
                    "only_second": counts.only_second,
                    "neither": counts.neither,
                    "kappa": found.value if found else None,
                    "low": found.low if found else None,
                    "high": found.high if found else None,
                }
                for name, counts in self.tags.items()
                for found in [counts.kappa]
            ],
            "contradictions": [
                {"first": ours, "second": theirs, "crops": count}
                for (ours, theirs), count in self.contradictions.most_common()
            ],
        }


class Tally:
    """Counts the tags of two annotators, crop by crop."""

    def __init__(self, first: str, second: str, least: float) -> None:
        self._least = least
        self._said = (Counter[str](), Counter[str]())
        self._both = Counter[str]()
        self._found = Agreement(first, second)
        self._examples: defaultdict[tuple[str, str], list[str]] = defaultdict(list)

    def add(self, crop_id: str, ours: tuple[Tag, ...], theirs: tuple[Tag, ...]) -> None:
        """Count what both say of one crop; tags less sure than the least count for nothing."""
        one, two = (
            {tag.name for tag in tags if tag.confidence >= self._least and tag.name in GROUP_OF}
            for tags in (ours, theirs)
        )
        self._found.crops += 1
        self._said[0].update(one)
        self._said[1].update(two)
        self._both.update(one & two)
        pairs = contradictions(one, two)
        self._found.contradictions.update(pairs)
        alone = [(name, "") for name in one - two] + [("", name) for name in two - one]
        for kind in (*pairs, *alone):
            if len(self._examples[kind]) < EXAMPLES:
                self._examples[kind].append(crop_id)

    def result(self) -> Agreement:
        """The agreement on the tags that both know, of groups that both speak of, and that one of them said."""
        found = self._found
        groups = [{GROUP_OF[name] for name in said} for said in self._said]
        for name, group in GROUP_OF.items():
            one, two, both = self._said[0][name], self._said[1][name], self._both[name]
            known = can_say(found.first, name) and can_say(found.second, name)
            if known and group in groups[0] & groups[1] and one + two:
                found.tags[name] = Counts(both, one - both, two - both, found.crops - one - two + both)
        shown = {*found.tags, ""}
        found.examples = {
            kind: ids
            for kind, ids in self._examples.items()
            if kind in found.contradictions or (kind[0] in shown and kind[1] in shown)
        }
        return found
