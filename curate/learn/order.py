"""Which faces to judge next: those that would teach most, unlike each other; and how sure the model is by now.

The order is made anew in a thread while the reviewer goes on deciding (`Asking`).

What a face would teach is how undecided the trees are on it (uncertainty sampling: Lewis and Gale 1994). Faces that end
in the same leaves teach the same, so of these one is asked first. Every fifth face is drawn at random: it finds what
the model does not know that it does not know. Where 400 decisions at random lead to, 200 in this order lead as well
(`benchmarks/learn.py`, means of three draws of a made reviewer of 1,098 real faces). How far trees contradict one
another (BALD) was not compared in any benchmark that is kept.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from authface.curate.learn import fit as fitting
from authface.curate.learn.fit import HeldOutTable, Lesson, Passing, make_lesson, weigh
from authface.curate.learn.model import Forest, HeldOut, filled
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
SPLITS = 2
"""Times the decisions are dealt into quarters to see how far what is learned depends on which were made."""
DOUBTED = 2000
"""Faces on which that is seen."""
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
    """Share of the set's faces on which models learned from other decisions, as many, would differ for that reason."""
    then: float = 1.0
    """The same after as many decisions again, as far as its course shows."""
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
        return (
            f"{said}: {keeps}; in doubt on {100 * self.doubt:.1f} % of the faces, "
            f"{self.kept + self.rejected:,} more would make that about {100 * self.then:.1f} %"
        )

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
    doubt, then = doubt_of(lesson, values[:DOUBTED], middle, seed)
    return Certainty(
        *kinds, (0, 0), table.passing(table.limit_for(settings.recall)), doubt, then, doubt <= settings.enough
    )


def doubt_of(lesson: Lesson, values: Matrix, middle: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """The share of faces on which what is learned from as many other decisions differs, now and after as many again.

    Trees of two halves of the decisions differ on d(n / 2) of the faces, those of two quarters on d(n / 4). The course
    between is taken to go on: d(n) = d(n / 2)^2 / d(n / 4), and as much less again at d(2 n); but no faster than
    deviations fall with more observations, as the square root.
    """
    rng, groups = np.random.default_rng(seed), np.unique(lesson.groups)
    halves: list[float] = []
    quarters: list[float] = []
    for turn in range(SPLITS):
        dealt = rng.permutation(len(groups)) % 4
        part = dealt[np.searchsorted(groups, lesson.groups)]
        looked = [seen(lesson, values, middle, np.isin(part, sides), seed + turn) for sides in (*_QUARTERS, *_HALVES)]
        quarters += [differ(looked[one], looked[other]) for one, other in combinations(range(4), 2)]
        halves += [differ(looked[at], looked[at + 3]) for at in range(4, 7)]
    half, quarter = (max(float(np.mean(one)), 1e-4) for one in (halves, quarters))
    fall = float(np.clip(half / quarter, math.sqrt(0.5), 1.0))
    return half * fall, half * fall**2


_QUARTERS = ((0,), (1,), (2,), (3,))
_HALVES = ((0, 1), (0, 2), (0, 3), (2, 3), (1, 3), (1, 2))
"""Each of the first three, and the other half three places behind it."""


def seen(
    lesson: Lesson, values: Matrix, middle: NDArray[np.float64], taken: NDArray[np.bool_], seed: int
) -> NDArray[np.bool_]:
    """(3, n) whether trees of some decisions keep each face: all of them, and each half of them."""
    forest = fitting.grow(lesson.take(np.flatnonzero(taken)), middle, seed, trees=TREES)
    sides = [replace(forest, roots=forest.roots[at::2])(values)[:, 0] for at in range(2)]
    return np.array([np.mean(sides, axis=0), *sides]) >= 0.5


def differ(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Share of faces that trees of two sets of decisions judge otherwise, without what the trees' own chance does.

    Flips go with the deviation of what is compared. Two halves of the trees of one set of decisions differ by chance
    alone, with twice the variance of all of them.
    """
    apart = float((one[0] != other[0]).mean()) if one.size else 0.0
    chance = [float((trees[1] != trees[2]).mean()) if trees.size else 0.0 for trees in (one, other)]
    return float(np.sqrt(max(apart**2 - (chance[0] ** 2 + chance[1] ** 2) / 4, 0.0)))


Decisions = Mapping[str, Decision]


class Asking:
    """The latest order and how sure the model is; `learn` makes both of the decisions that hold."""

    def __init__(
        self, learn: Callable[[Decisions], NextFaces], decisions: Decisions, title: str = ORDERS["uncertain"]
    ) -> None:
        self._learn = learn
        self.title = title
        """What the order is called."""
        self._lock = threading.Lock()
        self._busy: threading.Thread | None = None
        self._turn = 0
        self._made_of = -1
        self.places: Mapping[str, int] = {}
        """Place of each face that is still to be asked, what teaches most first."""
        self.certainty: Certainty
        self._take(decisions)

    @property
    def state(self) -> dict[str, Any]:
        """For the page: how sure the model is, and the number of the order, which rises with each new one."""
        return {"turn": self._turn, "text": self.certainty.text, "enough": self.certainty.enough}

    def decided(self, decisions: Decisions) -> None:
        """Note that a decision was made; every `AGAIN` of them the order is made anew, while this returns at once."""
        with self._lock:
            if len(decisions) - self._made_of < AGAIN or (self._busy is not None and self._busy.is_alive()):
                return
            self._busy = threading.Thread(target=self._take, args=(dict(decisions),), daemon=True)
            self._busy.start()

    def wait(self) -> None:
        """Until an order that is being made is there."""
        busy = self._busy
        if busy is not None:
            busy.join()

    def _take(self, decisions: Decisions) -> None:
        found = self._learn(decisions)
        self.places = {face: place for place, face in enumerate(found.order)}
        self.certainty = found.certainty
        self._made_of = len(decisions)
        self._turn += 1
