"""`curate balance`: how the kept faces are spread over pose, light, skin tone ..., a subset that evens some of it, and
what to collect next.

Words of single faces go to temporary files alone; what is written are sums, none of so few faces that it points at
people, and which crops are in the subset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from authface.console import Console
from authface.curate.balance.collecting import HEADER, Collecting, check, collecting
from authface.curate.balance.goals import Goal, fit, goal, largest_subset, parse, round_counts
from authface.curate.balance.margins import (
    MARGINS,
    NOTES,
    MarginShare,
    MarginWords,
    marginal,
    read_margin_words,
    suppressed_cells,
)
from authface.curate.settings import BalanceSettings
from authface.engine.runner import PartInput
from authface.errors import AuthfaceError, UsageError, one_line, shell_word
from authface.records import Choice, Crop
from authface.report import pages as report
from authface.review.reviews import ReviewSettings, choice_table, reviewed_crops
from authface.store.photoset import PhotoSet, Provenance


def pick(
    ids: Iterable[str], kinds: NDArray[np.integer[Any]], counts: NDArray[np.int64], seed: int
) -> NDArray[np.bool_]:
    """(n,) which of n ids to take for so many of each kind: the same on every machine, and nearly the same after ids
    were added. `kinds` is (n,) the number of each one's kind, `counts` (kinds,)."""
    ranks = np.fromiter((_rank(name, seed) for name in ids), np.uint64, len(kinds))
    order = np.lexsort((ranks, kinds))
    starts = np.searchsorted(kinds[order], np.arange(len(counts)))
    chosen = np.zeros(len(kinds), np.bool_)
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        chosen[order[start : start + count]] = True
    return chosen


def _rank(name: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\n{name}".encode()).digest()[:8])


@dataclass(frozen=True)
class Subset:
    """Which of the n faces were chosen, and of which kind each is; a kind is a word of every margin with a goal."""

    chosen: NDArray[np.bool_]
    """(n,)"""
    kinds: NDArray[np.int32]
    """(n,)"""
    before: NDArray[np.float64]
    """(kinds,) the share of each kind among all faces, 0..1."""
    after: NDArray[np.float64]
    """(kinds,) and among those chosen."""
    off: float
    """Largest distance of a margin's share from its goal, 0..1."""


VERSION = 1
_PEOPLE = ("pose", "light", "expression", "age", "skin", "size")
"""Margins that are crossed with each other; source and licence are crossed with skin tone only."""


@dataclass(frozen=True)
class Cross:
    """Two margins against each other; None where a count must not be shown."""

    rows: str
    columns: str
    header: list[str]
    cells: list[tuple[str, list[int | None]]]


@dataclass(frozen=True)
class MarginReport:
    """The shares of one margin, before and after choosing."""

    name: str
    note: str
    shares: list[MarginShare]
    after: list[MarginShare]
    goals: list[tuple[str, float]]
    """Word and share asked for; empty where nothing was."""


@dataclass(frozen=True)
class BalanceReport:
    """How the faces are spread, and what was chosen of them."""

    page: Path
    faces: int
    kept: int | None
    """Faces in the subset; None where none was asked for."""
    off: float
    """Largest distance of a share of the subset from its goal, 0..1."""
    margins: list[MarginReport]
    crosses: list[Cross]
    collecting: Collecting

    def as_json(self) -> dict[str, Any]:
        """For ``--json``: sums only."""
        return {
            "faces": self.faces,
            "kept": self.kept,
            "off": self.off,
            "margins": {
                margin.name: {
                    "shares": [share.as_json() for share in margin.shares],
                    "after": [share.as_json() for share in margin.after],
                    "goals": dict(margin.goals),
                }
                for margin in self.margins
            },
            "cross": [
                {"rows": cross.rows, "columns": cross.columns, "header": cross.header, "cells": dict(cross.cells)}
                for cross in self.crosses
            ],
            "collect": self.collecting.as_json(),
        }

    def as_text(self) -> str:
        """For a person."""
        lines = [f"{self.faces:,} faces"]
        for margin in self.margins:
            lines.append(f"{margin.name}")
            after, goals = {share.words: share for share in margin.after}, dict(margin.goals)
            for share in margin.shares:
                low, high = share.interval
                line = (
                    f"  {share.count:>8,}  {share.share:6.1%}  ({low:.1%} to {high:.1%})  {one_line(share.name, 100)}"
                )
                if margin.goals:
                    asked = sum(goals.get(word, 0.0) for word in share.words)
                    got = f"{after[share.words].share:.1%}" if share.words in after else "too few to show"
                    line += f": asked {asked:.1%}, now {got}"
                lines.append(line)
        if self.kept is not None:
            lines.append(f"chosen: {self.kept:,} of {self.faces:,} faces; shares are within {self.off:.1%} of the goal")
            lines.append("taken back by: --clear")
        lines.append(self.collecting.as_text())
        lines.append(f"report: {one_line(self.page)}")
        return "\n".join(lines)


def balance(
    photoset: PhotoSet, settings: BalanceSettings, review: ReviewSettings, console: Console, *, workers: int, seed: int
) -> BalanceReport:
    """Measure, choose a subset if there is a target, write ``reports/balance.html``; the caller holds the set's lock.

    Raises UsageError for a target that names no margin or word, AuthfaceError where no crop is left or the disk
    refuses.
    """
    wanted = targets_of(settings)
    parts = reviewed_crops(photoset, review)
    with console.progress("balance", sum(part.count for part in parts), "faces") as tick:
        found = read_margin_words(photoset, parts, tick, workers)
    if not len(found):
        here = one_line(photoset.root)
        raise AuthfaceError(
            f"{here} has no kept crops after review: authface curate review {shell_word(here)} shows them"
        )
    goals = [goal(m, found.words[m], found.counts(m), words, settings.least) for m, words in wanted.items()]
    subset = choose(found, goals, settings, seed) if goals else None
    if subset is not None:
        told = settings.model_dump(mode="json")
        _write_choice(photoset, parts, found, subset, Provenance("balance", VERSION, told | {"seed": seed}, {}))
        photoset.remember("curate.balance", told)
    margins = [_margin(found, name, subset, goals) for name in found.words]
    crosses = [_cross(found, *pair) for pair in combinations(_PEOPLE, 2)]
    crosses += [_cross(found, name, "skin") for name in ("source", "licence")]
    page = photoset.root / "reports" / "balance.html"
    lacks = collecting(photoset, settings, [part.number for part in parts], found)
    kept, off = (int(subset.chosen.sum()), subset.off) if subset is not None else (None, 0.0)
    done = BalanceReport(page, len(found), kept, off, margins, crosses, lacks)
    facts = [("faces", f"{done.faces:,}"), *([("chosen", f"{done.kept:,}")] if done.kept is not None else [])]
    title = f"Balance of {one_line(photoset.root.resolve().name)}"
    report.write_page(page, "balance.html.jinja", title=title, summary=facts, balance=done, header=HEADER)
    return done


def targets_of(settings: BalanceSettings) -> dict[str, dict[str, float] | None]:
    """What is wanted of each margin that the target names. Raises UsageError for settings that name what is not."""
    check(settings)
    if settings.keep is not None and not settings.target:
        raise UsageError(f"keep {settings.keep}: no target says which faces: add one, such as --target pose=uniform")
    wanted = parse(settings.target) if settings.target else {}
    if unknown := wanted.keys() - MARGINS.keys():
        raise UsageError(f"target: no margin {one_line(min(unknown), 40)}; there are {', '.join(MARGINS)}")
    return wanted


def choose(found: MarginWords, goals: Sequence[Goal], settings: BalanceSettings, seed: int) -> Subset:
    """A subset with the goals' margins.

    `settings.keep` faces, or as many as keep every share within `settings.tolerance`. Raises UsageError for more
    than there are.
    """
    margins = [goal.margin for goal in goals]
    seen = np.unique(np.concatenate([np.unique(some) for _, some in found.kinds(margins)]))
    kinds = np.empty(len(found), np.int32)
    for rows, some in found.kinds(margins):
        kinds[rows] = np.searchsorted(seen, some)
    cells, available = found.words_of_kinds(margins, seen), np.bincount(kinds)
    if settings.keep is not None and settings.keep > len(found):
        raise UsageError(f"keep {settings.keep}: there are {len(found)} faces")
    if settings.keep is None:
        _, fitted = largest_subset(cells, available, goals, settings.tolerance)
    else:
        fitted = fit(cells, available, goals, settings.keep)
    counts = round_counts(fitted.take, available)
    total = max(1, int(counts.sum()))
    shares = [np.bincount(cells[:, m], counts, len(goal.shares)) / total for m, goal in enumerate(goals)]
    off = max(float(np.abs(got - goal.shares).max()) for got, goal in zip(shares, goals, strict=True))
    return Subset(pick(found.ids, kinds, counts, seed), kinds, available / len(found), counts / total, off)


def clear(photoset: PhotoSet) -> None:
    """Delete a choice: every crop is used again."""
    table = choice_table(photoset)
    for part in table.parts():
        table.remove(part)


def _write_choice(
    photoset: PhotoSet, parts: Sequence[PartInput[Crop]], found: MarginWords, subset: Subset, made: Provenance
) -> None:
    """The table `balance`: every kept crop with its verdict and the share of its kind before and after.

    Parts of an earlier choice go first: wherever it stops, there are too few parts, which is no choice, and never parts
    of two. One stays until it is replaced, since without any part all crops would be used.
    """
    table = choice_table(photoset)
    for number in table.parts():
        if number != parts[0].number:
            table.remove(number)
    before, after = subset.before.tolist(), subset.after.tolist()
    for part in parts:
        of = found.rows_of(part.number)
        crops = (crop for crop in part.rows() if crop.status == "kept")
        judged = zip(crops, subset.kinds[of].tolist(), subset.chosen[of].tolist(), strict=True)
        rows = [_verdict(crop, before[kind], after[kind], chosen) for crop, kind, chosen in judged]
        table.write(part.number, rows, made, part.digest)


def _verdict(crop: Crop, before: float, after: float, chosen: bool) -> Choice:
    row = Choice(id=crop.id, photo_id=crop.photo_id, value=before, limit=after)
    return row if chosen else replace(row, status="rejected", reason="over_represented")


def _margin(found: MarginWords, name: str, subset: Subset | None, goals: Sequence[Goal]) -> MarginReport:
    words = found.words[name]
    after = marginal(words, found.counts(name, subset.chosen)) if subset is not None else []
    asked = [(w, s) for goal in goals if goal.margin == name for w, s in zip(words, goal.shares, strict=True) if s]
    return MarginReport(name, NOTES[name], marginal(words, found.counts(name)), after, asked)


def _cross(found: MarginWords, rows: str, columns: str) -> Cross:
    counts = found.cross(rows, columns)
    out = suppressed_cells(counts)
    seen_rows, seen_columns = np.flatnonzero(counts.sum(axis=1)), np.flatnonzero(counts.sum(axis=0))
    cells = [
        (found.words[rows][row], [None if out[row, column] else int(counts[row, column]) for column in seen_columns])
        for row in seen_rows
    ]
    return Cross(rows, columns, [found.words[columns][column] for column in seen_columns], cells)
