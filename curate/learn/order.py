"""Which faces to judge next: those that would teach most, unlike each other; and how sure the model is by now.

What a face would teach is how undecided the trees are on it (uncertainty sampling: Lewis and Gale 1994). Faces that end
in the same leaves teach the same, so of these one is asked first. Every fifth face is drawn at random: it finds what
the model does not know that it does not know. Where 400 decisions at random lead to, 200 in this order lead as well
(`benchmarks/learn.py`, means of three draws of a made reviewer of 1,098 real faces). How far trees contradict one
another (BALD) was not compared in any benchmark that is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from authface.curate.learn import fit as fitting
from authface.curate.learn.forest import Forest
from authface.curate.learn.heldout import HeldOutTable, Passing, weigh
from authface.curate.learn.lesson import Lesson, make_lesson
from authface.curate.learn.model import HeldOut, filled
from authface.curate.learn.table import FaceTable, Matrix
from authface.curate.settings import LearnSettings
from authface.review.reviews import Decision

Order = Literal["uncertain", "random"]
ORDERS: Mapping[Order, str] = {"uncertain": "what teaches most", "random": "drawn at random"}
"""What can be asked next, and what it is called in the page."""
BATCH = 40
"""Faces that are chosen to be unlike each other: more than are judged until the next order is there."""
AGAIN = 20
"""Decisions after which the order is made anew."""
FIRST = 8
"""Decisions of each kind from which trees can say anything; before, faces are drawn at random."""
CANDIDATES = 12
"""Faces considered for each that is chosen."""
RANDOM = 5
"""Every so many faces one is drawn at random."""
TREES = 100
HALVINGS = 4
"""Times the decisions are halved to see how far what is learned depends on which were made."""
LEAST_FALL = 0.3
"""Power of the number of decisions with which doubt falls, under which it is not said when it will be half."""
POOL = 20_000
"""Faces ordered at a time: of a larger set as many are drawn."""


@dataclass(frozen=True)
class Certainty:
    """How sure a model is after some decisions."""

    kept: int
    rejected: int
    lacking: tuple[int, int]
    """Decisions to keep and to reject that lack before anything can be said."""
    passing: Passing | None = None
    """At the limit that lets pass as much of what is kept as was asked for."""
    doubt: float = 1.0
    """Share of the set's faces on which models learned from other decisions, as many, would differ."""
    more: int | None = None
    """Further decisions that would halve the doubt, as far as its course shows; None if it does not fall."""
    enough: bool = False
    """Whether more decisions would not matter."""

    @property
    def text(self) -> str:
        """For a person, one sentence or two."""
        said = f"{self.kept + self.rejected:,} reviewed"
        if self.passing is None:
            words = [f"{n} more to {kind}" for n, kind in zip(self.lacking, ("keep", "reject"), strict=True) if n]
            return f"{said}: nothing can be said before {' and '.join(words) or 'more people are among them'}"
        keeps = f"keeps {self.passing.recall.text} of what you keep, lets through {self.passing.let_through.text}"
        if self.enough:
            return (
                f"{said}: {keeps}; more would change its mind on {100 * self.doubt:.1f} % of the faces: that is enough"
            )
        halve = f"{self.more:,} more would halve the doubt" if self.more else "more do not lessen the doubt yet"
        return f"{said}: {keeps}; in doubt on {100 * self.doubt:.1f} % of the faces, {halve}"

    def as_json(self) -> dict[str, Any]:
        """For ``--json`` and for the page."""
        return asdict(self) | {"text": self.text}


@dataclass(frozen=True)
class NextFaces:
    """What to ask next."""

    order: tuple[str, ...]
    """Ids of faces that the reviewer has not judged, what teaches most first; none where more would not matter."""
    certainty: Certainty


def next_faces(
    pool: FaceTable,
    decisions: Mapping[str, Decision],
    people: Mapping[str, str],
    settings: LearnSettings,
    seed: int,
    kind: Order = "uncertain",
) -> NextFaces:
    """Order the faces of `pool` that one reviewer has not judged, the same for the same seed.

    `people` as for `make_lesson`. Takes seconds for thousands of faces.
    """
    lesson = make_lesson(pool, decisions, people)
    shuffled = np.random.default_rng(seed).permutation(len(pool.ids)).tolist()
    drawn = np.array([row for row in shuffled if pool.ids[row] not in decisions][:POOL], np.int64)
    at_random = tuple(pool.ids[row] for row in drawn)
    kinds = int(lesson.kept.sum()), lesson.rejected
    if min(kinds) < FIRST:
        return NextFaces(at_random, _unknown(kinds, settings))
    middle = fitting.median_of(pool.values)
    forest = fitting.grow(lesson, middle, seed, trees=TREES)
    values = filled(pool.values[drawn], middle)
    keeps = forest(values)[:, 0]
    certainty = _certainty(lesson, values, keeps, middle, settings, seed)
    if kind == "random":
        return NextFaces(at_random, certainty)
    order = mixed(diverse(forest, values, teaches(keeps)), len(drawn))
    return NextFaces(() if certainty.enough else tuple(pool.ids[drawn[row]] for row in order), certainty)


def teaches(keeps: Matrix) -> Matrix:
    """(n,) entropy in nats of the share of trees that keep a face: highest where they are split evenly."""
    cut = np.clip(keeps, 1e-6, 1 - 1e-6)
    return np.asarray(-(cut * np.log(cut) + (1 - cut) * np.log(1 - cut)))


def diverse(forest: Forest, values: Matrix, taught: Matrix) -> list[int]:
    """All rows, what teaches most first; the first `BATCH` are also unlike each other.

    A row is chosen by what it teaches times the share of trees in which it shares no leaf with its likest chosen one.
    """
    by_worth = np.argsort(-taught, kind="stable")
    candidates = by_worth[: BATCH * CANDIDATES]
    leaves = forest.leaves(values[candidates]) if len(candidates) else np.empty((0, 1), np.int32)
    apart = np.ones(len(candidates))
    worth = np.maximum(taught[candidates], 1e-9)
    chosen: list[int] = []
    for _ in range(min(BATCH, len(candidates))):
        best = int(np.argmax(worth * apart))
        chosen.append(best)
        apart = np.minimum(apart, 1 - (leaves == leaves[best]).mean(axis=1))
        worth[best] = -1.0
    first = candidates[chosen].tolist()
    taken = set(first)
    return [*first, *(row for row in by_worth.tolist() if row not in taken)]


def mixed(order: list[int], count: int) -> list[int]:
    """The order with every `RANDOM`th place given to the next of 0..count - 1, which were shuffled before."""
    taken: set[int] = set()
    found: list[int] = []
    sources = iter(order), iter(range(count))
    for place in range(count):
        source = sources[1] if place % RANDOM == RANDOM - 1 else sources[0]
        row = next(row for row in source if row not in taken)
        taken.add(row)
        found.append(row)
    return found


def _unknown(kinds: tuple[int, int], settings: LearnSettings) -> Certainty:
    lacking = max(settings.least - kinds[0], 0), max(settings.least - kinds[1], 0)
    return Certainty(*kinds, lacking)


def _certainty(
    lesson: Lesson, values: Matrix, pool: Matrix, middle: NDArray[np.float64], settings: LearnSettings, seed: int
) -> Certainty:
    """How sure trees of the lesson are; `values` and `pool` are the undecided faces and what the trees say of them."""
    kinds = int(lesson.kept.sum()), lesson.rejected
    if min(kinds) < settings.least or not fitting.splits(lesson, seed):
        return _unknown(kinds, settings)
    shares = fitting.cross_validated(lesson, middle, seed)
    probability = fitting.held_out_probability(shares, lesson, seed)
    weights = weigh(probability, np.concatenate([probability, fitting.platt(shares, lesson.kept)(pool)]))
    table = HeldOutTable.of([
        HeldOut(probability=p, kept=k, weight=w)
        for p, k, w in zip(probability.tolist(), lesson.kept.tolist(), weights.tolist(), strict=True)
    ])  # fmt: skip
    doubt, more = _doubt(lesson, values, middle, seed)
    return Certainty(
        *kinds, (0, 0), table.passing(table.limit_for(settings.recall)), doubt, more, doubt <= settings.enough
    )


def _doubt(lesson: Lesson, values: Matrix, middle: NDArray[np.float64], seed: int) -> tuple[float, int | None]:
    """The share of faces on which what is learned from as many other decisions differs, and how many more halve it.

    Trees of two halves of the decisions differ on d(n / 2) of the faces, those of two quarters on d(n / 4). The course
    between is taken to go on: d(n) = d(n / 2)^2 / d(n / 4).
    """
    rng, groups = np.random.default_rng(seed), np.unique(lesson.groups)
    halves, quarters = [], []
    for turn in range(HALVINGS):
        part_of = dict(zip(groups.tolist(), (rng.permutation(len(groups)) % 4).tolist(), strict=True))
        part = np.array([part_of[int(group)] for group in lesson.groups])
        halves.append(_differ(lesson, values, middle, (part < 2, part >= 2), seed + turn))
        quarters.append(_differ(lesson, values, middle, (part == 0, part == 3), seed + turn))
    half, quarter = max(float(np.mean(halves)), 1e-4), max(float(np.mean(quarters)), 1e-4)
    fall = float(np.clip(np.log2(quarter / half), 0.0, 1.0))
    doubt = half * 2**-fall
    return doubt, 10 * round(len(lesson.kept) * (2 ** (1 / fall) - 1) / 10) if fall > LEAST_FALL else None


def _differ(
    lesson: Lesson, values: Matrix, middle: NDArray[np.float64], sides: tuple[NDArray[np.bool_], ...], seed: int
) -> float:
    """Share of faces that trees of two sets of decisions judge otherwise."""
    verdicts = [
        fitting.grow(lesson.take(np.flatnonzero(side)), middle, seed, trees=TREES // 2)(values)[:, 0] >= 0.5
        for side in sides
    ]
    return float((verdicts[0] != verdicts[1]).mean()) if len(values) else 0.0
