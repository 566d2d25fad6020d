"""`curate balance`: how the kept faces are spread over pose, light, skin tone ..., a subset that evens some of it, and
what to collect next.

Words of single faces stay in memory; what is written are sums, none of so few faces that it points at people, and which
crops are in the subset.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from authface.console import Console
from authface.curate.balance.collecting import HEADER, Collecting, check, collecting
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

UNIFORM = "uniform"
_ROUNDS = 300
_STILL = 1e-9
"""Change of the counts, as a share of all, at which the fitting stands still."""


@dataclass(frozen=True)
class Goal:
    """The wanted shares of one margin: one for each of its words, 0..1, adding up to 1."""

    margin: str
    shares: tuple[float, ...]
    """In the order of the margin's words."""


def parse(target: str) -> dict[str, dict[str, float] | None]:
    """Parse ``pose=uniform, skin: light .3 tan .3`` into shares by margin and word; None stands for uniform.

    Margins are separated by commas or semicolons. Raises UsageError that says what is wrong.
    """
    wanted: dict[str, dict[str, float] | None] = {}
    for piece in target.replace(";", ",").split(","):
        margin, sign, said = piece.replace("=", ":", 1).partition(":")
        name, words = margin.strip(), said.replace("=", " ").split()
        shown = one_line(piece.strip(), 80)
        if not sign or not name or not words:
            raise UsageError(f"target {shown!r}: write pose=uniform, or pose: frontal .5 left .25 right .25")
        if name in wanted:
            raise UsageError(f"target: {one_line(name, 40)} is given twice")
        wanted[name] = None if words == [UNIFORM] else _shares(words, shown)
    return wanted


def _shares(words: Sequence[str], shown: str) -> dict[str, float]:
    shares: dict[str, float] = {}
    for word, number in zip(words[::2], [*words[1::2], ""][: len(words[::2])], strict=True):
        try:
            share = float(number)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1 or word in shares:
            raise UsageError(f"target {shown!r}: after each word comes its share, 0 to 1, as in light .3 tan .2")
        shares[word] = share
    if sum(shares.values()) > 1 + 1e-6:
        raise UsageError(f"target {shown!r}: the shares add up to {sum(shares.values()):.3g}, at most 1")
    return shares


def goal(
    margin: str, words: Sequence[str], counts: Sequence[int], wanted: Mapping[str, float] | None, least: int
) -> Goal:
    """The wanted share of every word of a margin. `wanted` None means equal shares of all words with `least` faces or
    more; the others, and `unknown`, keep theirs. What given shares leave goes to the other words in proportion.

    Raises UsageError for a word that no face has.
    """
    total = sum(counts)
    now = dict(zip(words, (count / total for count in counts), strict=True))
    if wanted is None:
        even = [word for word, count in zip(words, counts, strict=True) if count >= least and word != "unknown"]
        if not even:
            raise UsageError(f"target {margin}=uniform: no word has {least} faces; lower curate.balance.least")
        left = sum(now[word] for word in even)
        return Goal(margin, tuple(left / len(even) if word in even else now[word] for word in words))
    for word, share in wanted.items():
        if share > 0 and not now.get(word):
            known = ", ".join(one_line(known, 40) for known in words)
            raise UsageError(f"target {margin}: no face is {one_line(word, 40)}; there are {known}")
    others = sum(share for word, share in now.items() if word not in wanted)
    rest = 1 - sum(wanted.values())
    if rest > 1e-6 and not others:
        raise UsageError(f"target {margin}: the shares add up to {1 - rest:.3g} and name every word: make them 1")
    return Goal(margin, tuple(wanted.get(word, now[word] * rest / (others or 1)) for word in words))


@dataclass(frozen=True)
class Fit:
    """How many faces to take of every cell, and how far the margins are from their goals."""

    take: NDArray[np.float64]
    off: float
    """Largest distance of a share from its goal, 0..1."""


def fit(cells: NDArray[np.int64], available: NDArray[np.int64], goals: Sequence[Goal], keep: int) -> Fit:
    """Distribute `keep` faces over the cells: close to the present proportions, with the goals' margins.

    `cells` is (k, m): the word of each of m margins; `available` (k,) how many faces a cell has, which no count
    exceeds. Deming and Stephan 1940, with counts capped at what there is after every step.
    """
    take = available * (keep / available.sum())
    for _ in range(_ROUNDS):
        before = take.copy()
        for column, wanted in enumerate(goals):
            sums = np.bincount(cells[:, column], take, len(wanted.shares))
            factors = np.divide(keep * np.array(wanted.shares), sums, out=np.zeros_like(sums), where=sums > 0)
            take = np.minimum(take * factors[cells[:, column]], available)
        if np.abs(take - before).max() < _STILL * keep:
            break
    off = 0.0
    for column, wanted in enumerate(goals):
        shares = np.bincount(cells[:, column], take, len(wanted.shares)) / keep
        off = max(off, float(np.abs(shares - wanted.shares).max()))
    return Fit(take, off)


def largest_subset(
    cells: NDArray[np.int64], available: NDArray[np.int64], goals: Sequence[Goal], tolerance: float
) -> tuple[int, Fit]:
    """The most faces that can be kept with every share within `tolerance` of its goal, and their fit."""
    low, high = 1, int(available.sum())
    while low < high:
        middle = (low + high + 1) // 2
        if fit(cells, available, goals, middle).off <= tolerance:
            low = middle
        else:
            high = middle - 1
    return low, fit(cells, available, goals, low)


def round_counts(take: NDArray[np.float64], available: NDArray[np.int64]) -> NDArray[np.int64]:
    """Round to whole counts of the same sum by largest remainder, never above what is available."""
    counts = np.minimum(np.floor(take + 1e-9), available).astype(np.int64)
    missing = min(round(float(take.sum())), int(available.sum())) - int(counts.sum())
    order = np.argsort(-(take - counts), kind="stable")
    room = order[counts[order] < available[order]]
    counts[room[: max(0, missing)]] += 1
    return counts


def pick(ids: Sequence[str], count: int, seed: int) -> set[str]:
    """`count` of some ids: the same on every machine, and nearly the same after ids were added."""
    ranked = sorted(ids, key=lambda name: hashlib.sha256(f"{seed}\n{name}".encode()).digest())
    return set(ranked[:count])


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
    chosen, off = choose(found, goals, settings, seed) if goals else (None, 0.0)
    if chosen is not None:
        _write_choice(photoset, parts, found, goals, chosen, settings, seed)
        photoset.remember("curate.balance", settings.model_dump(mode="json"))
    margins = [_margin(found, name, chosen, goals) for name in found.words]
    crosses = [_cross(found, *pair) for pair in combinations(_PEOPLE, 2)]
    crosses += [_cross(found, name, "skin") for name in ("source", "licence")]
    page = photoset.root / "reports" / "balance.html"
    lacks = collecting(photoset, settings, [part.number for part in parts], found)
    kept = len(chosen) if chosen is not None else None
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


def choose(found: MarginWords, goals: Sequence[Goal], settings: BalanceSettings, seed: int) -> tuple[set[str], float]:
    """Ids of a subset with the goals' margins, and how far its shares are from them.

    `settings.keep` faces, or as many as keep every share within `settings.tolerance`. Raises UsageError for more
    than there are.
    """
    columns = np.stack([found.of(goal.margin) for goal in goals], axis=1)
    cells, member, available = np.unique(columns, axis=0, return_inverse=True, return_counts=True)
    ids = found.ids
    if settings.keep is not None and settings.keep > len(ids):
        raise UsageError(f"keep {settings.keep}: there are {len(ids)} faces")
    if settings.keep is None:
        _, fitted = largest_subset(cells, available, goals, settings.tolerance)
    else:
        fitted = fit(cells, available, goals, settings.keep)
    counts = round_counts(fitted.take, available)
    chosen: set[str] = set()
    for cell, count in enumerate(counts):
        chosen |= pick([ids[face] for face in np.flatnonzero(member.ravel() == cell)], int(count), seed)
    total = max(1, len(chosen))
    shares = [np.bincount(cells[:, m], counts, len(goal.shares)) / total for m, goal in enumerate(goals)]
    off = max(float(np.abs(got - goal.shares).max()) for got, goal in zip(shares, goals, strict=True))
    return chosen, off


def clear(photoset: PhotoSet) -> None:
    """Delete a choice: every crop is used again."""
    table = choice_table(photoset)
    for part in table.parts():
        table.remove(part)


def _write_choice(
    photoset: PhotoSet,
    parts: Sequence[PartInput[Crop]],
    found: MarginWords,
    goals: Sequence[Goal],
    chosen: set[str],
    settings: BalanceSettings,
    seed: int,
) -> None:
    """The table `balance`: every kept crop with its verdict and the share of its kind before and after."""
    provenance = Provenance("balance", VERSION, {**settings.model_dump(mode="json"), "seed": seed}, {})
    columns = [list(found.words).index(goal.margin) for goal in goals]
    kinds = map(tuple, found.codes[:, columns].tolist())
    kind_of = dict(zip(found.ids, kinds, strict=True))
    before, after = _kind_shares(kind_of, kind_of.keys()), _kind_shares(kind_of, chosen)
    table = choice_table(photoset)

    def verdict(crop: Crop) -> Choice:
        kind = kind_of[crop.id]
        row = Choice(id=crop.id, photo_id=crop.photo_id, value=before[kind], limit=after.get(kind, 0.0))
        return row if crop.id in chosen else replace(row, status="rejected", reason="over_represented")

    for part in parts:
        rows = [verdict(crop) for crop in part.rows() if crop.status == "kept"]
        table.write(part.number, rows, provenance, part.digest)
    for number in set(table.parts()) - {part.number for part in parts}:
        table.remove(number)


def _kind_shares(kind_of: dict[str, tuple[int, ...]], faces: Any) -> dict[tuple[int, ...], float]:
    counts = Counter(kind_of[face] for face in faces)
    return {kind: count / counts.total() for kind, count in counts.items()}


def _margin(found: MarginWords, name: str, chosen: set[str] | None, goals: Sequence[Goal]) -> MarginReport:
    words, codes = found.words[name], found.of(name)
    after = []
    if chosen is not None:
        kept = np.array([face in chosen for face in found.ids], bool)
        after = marginal(words, [int(count) for count in np.bincount(codes[kept], minlength=len(words))])
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
