"""Counts of a table's rows by outcome and an even sample of each, part by part in flat memory."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from authface.store.columns import row_reader
from authface.store.photoset import R, Table


@dataclass(frozen=True)
class Sample(Generic[R]):
    """How many rows a table has of each outcome, and some of them."""

    counts: dict[str, int]
    """Rows by outcome: ``kept``, ``rejected: no_face``."""
    rows: dict[str, list[R]]
    """At most the size asked for of each outcome: those whose ids come first by `rank`, in that order."""

    @property
    def total(self) -> int:
        """Rows of all outcomes."""
        return sum(self.counts.values())


@dataclass(frozen=True, order=True)
class _Pick:
    rank: int
    part: int
    row: int


def sample(table: Table[R], size: int) -> Sample[R]:
    """Counts by outcome over all parts and `size` rows of each; only the rows of the sample become records."""
    counts: Counter[str] = Counter()
    picks: dict[str, list[_Pick]] = {}
    for part in table.parts():
        columns = table.arrow(part, ["id", "source_id", "status", "reason"])
        if not columns.num_rows:
            continue
        names, codes = outcomes(columns)
        ranks = _ranks(columns)
        for code, name in enumerate(names):
            of = (codes == code).nonzero()[0]
            counts[name] += len(of)
            first = of[ranks[of].argsort(kind="stable")[:size]]
            of_part = [_Pick(int(ranks[row]), part, int(row)) for row in first]
            picks[name] = sorted([*picks.get(name, []), *of_part])[:size]
    records = dict(_records(table, (pick for chosen in picks.values() for pick in chosen)))
    return Sample(dict(counts), {name: [records[pick] for pick in chosen] for name, chosen in picks.items()})


def outcomes(rows: pa.Table) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the outcomes in `rows` (columns status and reason), and for each row the number of its own."""
    status, reason = (pc.fill_null(rows.column(name), "") for name in ("status", "reason"))
    joined = pc.if_else(pc.equal(reason, ""), status, pc.binary_join_element_wise(status, reason, ": "))
    coded = joined.combine_chunks().dictionary_encode()
    return coded.dictionary.to_pylist(), np.asarray(coded.indices.to_numpy(zero_copy_only=False), np.int64)


def rank(name: str) -> int:
    """A number of 60 bits for an even and lasting order: the first digits of a sha256, else of the hash of the name.

    Ids are sha256 in hex, so their first 15 digits are as good as any hash of them, and cost nothing.
    """
    digits = name[:15]
    if len(name) < 64 or digits.strip("0123456789abcdef"):
        digits = hashlib.sha256(name.encode("utf-8", "backslashreplace")).hexdigest()[:15]
    return int(digits, 16)


def _ranks(rows: pa.Table) -> NDArray[np.int64]:
    ids: list[str | None] = rows.column("id").to_pylist()
    others = rows.column("source_id").to_pylist() if "source_id" in rows.column_names else ids
    return np.array([rank(name or other or "") for name, other in zip(ids, others, strict=True)], np.int64)


def _records(table: Table[R], picks: Iterable[_Pick]) -> Iterator[tuple[_Pick, R]]:
    by_part: dict[int, list[_Pick]] = {}
    for pick in picks:
        by_part.setdefault(pick.part, []).append(pick)
    read = row_reader(table.row_type)
    for part, chosen in sorted(by_part.items()):
        rows: list[dict[str, Any]] = table.arrow(part).take([pick.row for pick in chosen]).to_pylist()
        yield from zip(chosen, map(read, rows), strict=True)
