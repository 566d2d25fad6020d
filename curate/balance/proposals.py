"""A query for each gap of a set, and what it may be expected to give."""

from __future__ import annotations

import json
import math
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from authface.curate.balance.gaps import UNIFORM, Gap
from authface.curate.balance.margins import MARGINS
from authface.curate.balance.yields import LEAST_ASKED, Rate, Yields
from authface.errors import UsageError, one_line

TRIAL = 100
"""Photos to fetch first of a query that was not asked yet: what it gives is known afterwards."""
SETTING = {"unsplash": "curate.fetch.unsplash.queries", "unsplash-lite": "curate.fetch.lite.keywords"}
"""The setting that holds the queries of each source that has some."""


@dataclass(frozen=True)
class Fill:
    """One gap that a query is expected to fill."""

    gap: Gap
    rate: Rate

    @property
    def photos(self) -> int | None:
        """Photos to fetch until the gap is closed, by expectation; None where too few gave one to expect any."""
        return math.ceil(self.gap.needed / self.rate.expected) if self.rate.expected else None

    @property
    def fewest(self) -> int:
        """Photos that are needed at least, by the upper end of the interval."""
        return math.ceil(self.gap.needed / self.rate.interval[1])


@dataclass(frozen=True)
class Proposal:
    """One query of a source and the gaps it is for, each by itself."""

    source: str
    query: str
    fills: tuple[Fill, ...]
    left: int | None
    """Photos of it that were not listed yet; None where that is not known."""

    @property
    def photos(self) -> int | None:
        """Photos to fetch until the last of its gaps is closed, by expectation; None where that is not known."""
        each = [fill.photos for fill in self.fills]
        return max(count for count in each if count is not None) if None not in each else None

    @property
    def fewest(self) -> int:
        """Photos that are needed at least."""
        return max(fill.fewest for fill in self.fills)

    @property
    def tried(self) -> bool:
        """Whether what it is expected to give is known from itself."""
        return all(fill.rate.basis == "this query" for fill in self.fills)

    def command(self, root: str, path: str) -> str:
        """The command line that fetches it; a trial where the query was not asked yet."""
        most = self.photos or self.fewest
        limit = most if self.tried else min(most, TRIAL)
        setting = f"{SETTING[self.source]}={json.dumps([self.query], ensure_ascii=False)}"
        source = ["unsplash-lite", path or "PATH"] if self.source == "unsplash-lite" else [self.source]
        return shlex.join(
            ["authface", "curate", "fetch", root, "--from", *source, "-O", setting, "--limit", str(limit)]
        )


def propose(
    gaps: Sequence[Gap],
    words: Mapping[str, Sequence[str]],
    yields: Yields,
    source: str,
    left: Mapping[str, int],
) -> tuple[list[Proposal], list[Gap]]:
    """The best query for each gap, those of one query together, largest need first; and the gaps without one.

    `words`: queries and what they stand for; `left`: photos of a query that were not listed yet, where that is known;
    one that has none left is not proposed again.
    """
    fills: dict[str, list[Fill]] = {}
    wordless = []
    for gap in sorted(gaps, key=lambda gap: -gap.needed):
        if query := _best(gap.name, words, yields, source, left):
            fills.setdefault(query, []).append(Fill(gap, yields.rate(source, query, gap.name)))
        else:
            wordless.append(gap)
    return [Proposal(source, query, tuple(found), left.get(query)) for query, found in fills.items()], wordless


def _best(
    value: str, words: Mapping[str, Sequence[str]], yields: Yields, source: str, left: Mapping[str, int]
) -> str | None:
    """The query that surely gives most of a value: one that stands for it, or any that gave it more often than all
    did; of equals one that was not asked yet."""

    def has_more(query: str) -> bool:
        return left.get(query, 1) > 0

    def is_asked(query: str) -> bool:
        own = yields.queries.get((source, query))
        return own is not None and own.fetched >= LEAST_ASKED

    named = [query for query, values in words.items() if value in values]
    asked = [query for at, query in yields.queries if at == source and query not in named and is_asked(query)]
    open_ = [query for query in [*named, *asked] if has_more(query)]
    better = [
        query
        for query in open_
        if query in named or yields.rate(source, query, value).interval[0] > yields.rate(source, "", value).interval[1]
    ]
    return max(
        better,
        key=lambda query: (yields.rate(source, query, value).interval[0], query in named, not is_asked(query)),
        default=None,
    )


def words_for(source: str, more: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """The queries of a source and the values they stand for: those of `words.toml`, replaced by the user's of the same
    words; one that stands for nothing is left out. Raises UsageError for a value that is none."""
    for query, values in more.items():
        for value in values:
            name, _, word = value.partition("=")
            if name not in UNIFORM or word not in MARGINS[name] or word == "unknown":
                raise UsageError(
                    f"curate.balance.queries, {one_line(query, 40)}: {one_line(value, 40)} is no value; write "
                    f"{'=, '.join(UNIFORM)}= and one of its words, as in pose=left"
                )
    if source == "unsplash-lite":
        more = {query.strip().lower(): values for query, values in more.items()}  # as rows of its photos name them
    return {query: tuple(values) for query, values in {**more, **_shipped()[source], **more}.items() if values}


@cache
def _shipped() -> dict[str, dict[str, list[str]]]:
    return tomllib.loads((resources.files("authface.curate.balance") / "words.toml").read_text("utf-8"))
