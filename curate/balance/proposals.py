"""The gaps of a set, what past queries gave, and a query for each gap with what it may be expected to give.

A gap says how many faces of a value would be enough if faces are only added; it is read from nothing but shares that
may be shown (`marginal`), so that nothing derived from it tells more.

Photos are counted, not faces: several faces of one photo are no independent answers to a query, so a photo with three
kept faces counts once, and what is expected is a little less than what comes.
"""

from __future__ import annotations

import json
import math
import shlex
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

from authface.curate.balance.margins import FEWEST, MARGINS, MarginShare, MarginWords
from authface.errors import UsageError, one_line
from authface.metrics.stats import wilson
from authface.store.photoset import PhotoSet

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


LEAST_ASKED = 30
"""Photos that a query has to have found before what it gave is told apart from what all gave."""


@dataclass(frozen=True)
class Rate:
    """How many photos of those fetched give a kept face of one value."""

    hits: int
    asked: int
    basis: str
    """`this query`, `all queries`, or `all photos` where no photo remembers a query."""

    @property
    def expected(self) -> float | None:
        """0..1; None of fewer hits than may be shown, of which only the upper end is known."""
        return self.hits / self.asked if self.hits >= FEWEST else None

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, 0..1; of fewer hits than may be shown that of `FEWEST` - 1, from 0."""
        low, high = wilson(min(max(self.hits, FEWEST - 1), self.asked), self.asked)
        return (low, high) if self.hits >= FEWEST else (0.0, high)


@dataclass
class QueryYield:
    """The photos that one query found, and what they gave."""

    fetched: int = 0
    """Photos with a row, also those refused and failed; a photo that an earlier query found is not among them."""
    giving: Counter[str] = field(default_factory=Counter)
    """Photos with a kept face of a value, by ``pose=left``."""

    def add(self, values: Iterable[str]) -> None:
        """Count one photo."""
        self.fetched += 1
        self.giving.update(values)


@dataclass
class Yields:
    """What every past query gave, by source and query."""

    queries: dict[tuple[str, str], QueryYield] = field(default_factory=lambda: defaultdict(QueryYield))
    together: QueryYield = field(default_factory=QueryYield)
    """Photos that remember a query, each once."""
    all: QueryYield = field(default_factory=QueryYield)
    """All photos."""

    def rate(self, source: str, query: str, value: str) -> Rate:
        """The rate of a query for a value; of all queries where it found fewer than `LEAST_ASKED` photos."""
        own = self.queries.get((source, query))
        if own and own.fetched >= LEAST_ASKED:
            return Rate(own.giving[value], own.fetched, "this query")
        if self.together.fetched >= LEAST_ASKED:
            return Rate(self.together.giving[value], self.together.fetched, "all queries")
        return Rate(self.all.giving[value], self.all.fetched, "all photos")


def read_yields(photoset: PhotoSet, parts: Sequence[int], found: MarginWords) -> Yields:
    """Count the photos of the parts that were filtered and aligned; `found` holds the words of the faces kept.

    A photo that was stored and not looked at yet is left out.
    """
    yields = Yields()
    for part in parts:
        values = _values_by_photo(found, part)
        seen = {photo_id for (photo_id,) in photoset.faces.columns(part, ["photo_id"])}
        names = ["id", "source", "status", "queries", "extra"]
        for photo_id, source, status, queries, extra in photoset.photos.columns(part, names):
            stored = status == "kept"
            if stored and photo_id not in seen:
                continue
            asked = _queries(source, queries, extra)
            counted = [yields.all, *([yields.together] if asked else []), *(yields.queries[source, q] for q in asked)]
            for one in counted:
                one.add(values.get(photo_id, ()) if stored else ())
    return yields


def _queries(source: str, queries: Sequence[str] | None, extra: str | None) -> tuple[str, ...]:
    """What a photo was found by; earlier versions wrote Unsplash's query among what else it says."""
    if queries or source != "unsplash" or not extra:
        return tuple(queries or ())
    try:
        said = json.loads(extra)
    except ValueError:
        return ()
    query = said.get("query") if isinstance(said, Mapping) else None
    return (query,) if isinstance(query, str) and query else ()


def _values_by_photo(found: MarginWords, part: int) -> dict[str, set[str]]:
    """The values that the kept faces of each photo of a part have, as ``pose=left``."""
    at = [(column, name, found.words[name]) for column, name in enumerate(found.words) if name in UNIFORM]
    values: dict[str, set[str]] = defaultdict(set)
    for face_id, codes in found.of_part(part):
        values[face_id.rpartition("-")[0]].update(f"{name}={words[codes[column]]}" for column, name, words in at)
    return dict(values)


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
