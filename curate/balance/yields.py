"""What past queries gave: of the photos that each found, how many led to a kept face, and to one of a value.

Photos are counted, not faces: several faces of one photo are no independent answers to a query, so a photo with three
kept faces counts once, and what is expected is a little less than what comes.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from authface.curate.balance.gaps import UNIFORM
from authface.curate.balance.margins import MarginWords
from authface.curate.balance.shares import FEWEST
from authface.metrics.stats import wilson
from authface.store.photoset import PhotoSet

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
    """The photos that one query found, from fetched to kept."""

    fetched: int = 0
    """Photos with a row, also those refused and failed; a photo that an earlier query found is not among them."""
    stored: int = 0
    with_face: int = 0
    kept: int = 0
    """Photos with a face that is in the set now."""
    giving: Counter[str] = field(default_factory=Counter)
    """Photos with a kept face of a value, by ``pose=left``."""

    def add(self, *, stored: bool, with_face: bool, values: Iterable[str], kept: bool) -> None:
        """Count one photo."""
        self.fetched += 1
        self.stored += stored
        self.with_face += with_face
        self.kept += kept
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
    values = _values_by_photo(found)
    yields = Yields()
    for part in parts:
        seen: dict[str, bool] = {}
        for photo_id, index in photoset.faces.columns(part, ["photo_id", "index"]):
            seen[photo_id] = seen.get(photo_id, False) or index >= 0
        names = ["id", "source", "status", "queries", "extra"]
        for photo_id, source, status, queries, extra in photoset.photos.columns(part, names):
            stored = status == "kept"
            if stored and photo_id not in seen:
                continue
            asked = _queries(source, queries, extra)
            counted = [yields.all, *([yields.together] if asked else []), *(yields.queries[source, q] for q in asked)]
            for one in counted:
                one.add(
                    stored=stored,
                    with_face=stored and seen[photo_id],
                    kept=stored and photo_id in values,
                    values=values.get(photo_id, ()) if stored else (),
                )
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


def _values_by_photo(found: MarginWords) -> dict[str, set[str]]:
    """The values that the kept faces of each photo have, as ``pose=left``."""
    at = [(column, name, found.words[name]) for column, name in enumerate(found.words) if name in UNIFORM]
    values: dict[str, set[str]] = defaultdict(set)
    for face_id, codes in zip(found.ids, found.codes, strict=True):
        values[face_id.rpartition("-")[0]].update(f"{name}={words[codes[column]]}" for column, name, words in at)
    return dict(values)
