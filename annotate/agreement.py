"""How far two annotators agree, tag by tag: counts, Cohen's kappa with its interval, contradictions. Data only."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from authface.annotate.vocabulary.resolve import can_say, contradictions
from authface.annotate.vocabulary.vocabulary import GROUP_OF, VOCABULARY
from authface.metrics.stats import Kappa, cohen_kappa
from authface.records import Tag

EXAMPLES = 12
"""Crops that are kept to show for one kind of disagreement: the first ones in the order of the set."""


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
    """Cohen's kappa of a tag; None where one of the two says the same of every crop, whatever the other says."""
    if 0 in (both + only_first, both + only_second, neither + only_first, neither + only_second):
        return None
    return cohen_kappa([[both, only_first], [only_second, neither]])


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
