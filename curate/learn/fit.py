"""What a reviewer's decisions teach, learned by scikit-learn (extra `learn`): trees, calibrated by cross-validation.

Faces of one person, one photo or nearly one picture are always on one side (`Lesson.groups`). Of 200 and 800 decisions
of a reviewer with a hidden rule on real faces (`benchmarks/learn.py` makes them), tested on 298 others, such trees
reach an area under the curve of 0.92 and 0.95, a random forest 0.90 and 0.93, boosted trees 0.87 and 0.93 (means of two
draws), a logistic regression with squares 0.79 and 0.89 (one draw).

How good a model is, is told by decisions that it had no part of: what a limit keeps and lets through. Reviewed faces
are seldom drawn at random: the page asks where it pays. So each decision is weighted by how many faces of the set it
stands for (post-stratification by the model's own probability), and an interval counts the effective number of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from authface.curate.filter.duplicates import near_pairs
from authface.curate.learn.model import KEEP, Forest, HeldOut, Platt, filled, logit
from authface.curate.learn.table import FaceTable, Matrix, face_parts, together
from authface.curate.split.groups import DisjointSets
from authface.metrics.stats import ranking_auc, wilson
from authface.review.reviews import Decision
from authface.store.photoset import PhotoSet


@dataclass(frozen=True)
class Lesson:
    """Decided faces, row by row."""

    faces: FaceTable
    kept: NDArray[np.bool_]
    """A face that is to be retouched is kept: it is good but for its flaws."""
    reasons: tuple[str, ...]
    """In the reviewer's words; empty where they gave none, or kept the face."""
    groups: NDArray[np.int64]
    """Faces of one person, one photo or nearly one picture have one number: they are never on both sides of a test."""

    @property
    def rejected(self) -> int:
        """Faces that were rejected."""
        return int((~self.kept).sum())

    def take(self, rows: NDArray[np.int64]) -> Lesson:
        """Some of the faces, by their place."""
        reasons = tuple(self.reasons[int(row)] for row in rows)
        return Lesson(self.faces.take(rows), self.kept[rows], reasons, self.groups[rows])


def read_lesson(photoset: PhotoSet, decisions: Mapping[str, Decision]) -> Lesson:
    """The lesson of a set whose table `features` is there, by the decisions of one reviewer."""
    return make_lesson(together(list(face_parts(photoset, decisions.keys()))), decisions, identities(photoset))


def make_lesson(pool: FaceTable, decisions: Mapping[str, Decision], people: Mapping[str, str]) -> Lesson:
    """The decided of the faces of `pool`; `people` are the groups of `curate split`, by face, as far as known."""
    faces = pool.take([row for row, face in enumerate(pool.ids) if face in decisions])
    said = [decisions[face] for face in faces.ids]
    reasons = tuple(one.reason if one.verdict == "reject" else "" for one in said)
    kept = np.array([one.verdict != "reject" for one in said], np.bool_)
    return Lesson(faces, kept, reasons, grouped(faces, people))


def identities(photoset: PhotoSet) -> dict[str, str]:
    """The group of every face that `curate split` has put into one."""
    parts = photoset.people.parts()
    return {face: group for part in parts for face, group in photoset.people.columns(part, ["id", "group"]) if group}


def grouped(faces: FaceTable, people: Mapping[str, str]) -> NDArray[np.int64]:
    """A number for each face, the same for those of one person, one photo or nearly one picture."""
    sets = DisjointSets(len(faces.ids))
    for names in (faces.photo_ids, [people.get(face, face) for face in faces.ids]):
        _join_alike(sets, names)
    hashed = [row for row, code in enumerate(faces.hashes) if code]
    for first, second in near_pairs([faces.hashes[row] for row in hashed]):
        sets.join(hashed[first], hashed[second])
    return np.array(sets.labels(), np.int64)


def _join_alike(sets: DisjointSets, names: Sequence[str]) -> None:
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        sets.join(first.setdefault(name, row), row)


TREES = 200
FOLDS = 5
LEAST_REASON = 10
"""Rejects of one reason from which it is a class of its own; the rest are `OTHER`."""
OTHER = "other"
LEAST_FOLDS = 3
"""Groups of each kind without which nothing can be held out."""
SIGNS = 6
"""Columns named of a reason."""

Rows = NDArray[np.int64]


def median_of(values: Matrix) -> NDArray[np.float64]:
    """(columns,) the median of what was measured in each; 0 where nothing was."""
    there = np.where(np.isfinite(values).any(axis=0), values, 0.0)
    return np.asarray(np.nanmedian(np.where(np.isfinite(there), there, np.nan), axis=0))


def classes_of(lesson: Lesson) -> tuple[str, ...]:
    """`KEEP`, the reasons that were given often enough, and `OTHER` if any reject is left."""
    counts = Counter(reason for reason, kept in zip(lesson.reasons, lesson.kept, strict=True) if not kept)
    own = sorted(reason for reason, count in counts.items() if reason not in (KEEP, OTHER) and count >= LEAST_REASON)
    return (KEEP, *own, *([OTHER] if sum(counts[one] for one in own) < counts.total() else []))


def grow(lesson: Lesson, middle: NDArray[np.float64], seed: int, *, trees: int = TREES, jobs: int = 1) -> Forest:
    """A forest of the lesson's decisions, over the classes of `classes_of`; the same for the same seed."""
    from sklearn.ensemble import ExtraTreesClassifier

    classes = classes_of(lesson)
    known = {name: at for at, name in enumerate(classes)}
    said = [
        0 if kept else known.get(reason, len(classes) - 1)
        for kept, reason in zip(lesson.kept, [one or OTHER for one in lesson.reasons], strict=True)
    ]
    grown = ExtraTreesClassifier(
        trees, min_samples_leaf=2, max_features=0.5, max_leaf_nodes=512, random_state=seed, n_jobs=jobs
    ).fit(filled(lesson.faces.values, middle), said)
    return _as_arrays(grown, len(classes))


def cross_validated(lesson: Lesson, middle: NDArray[np.float64], seed: int, jobs: int = 1) -> Matrix:
    """(n,) share of the trees that keep each face, of trees that saw no face of its group; NaN if it cannot be had."""
    found = np.full(len(lesson.kept), np.nan)
    for train, test in splits(lesson, seed):
        forest = grow(lesson.take(train), middle, seed, jobs=jobs)
        found[test] = forest(filled(lesson.faces.values[test], middle))[:, 0]
    return found


def splits(lesson: Lesson, seed: int) -> list[tuple[Rows, Rows]]:
    """Training and test rows of up to five folds, whole groups in each; none if there are too few of a kind."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(FOLDS, *(len(np.unique(lesson.groups[lesson.kept == kind])) for kind in (True, False)))
    if folds < LEAST_FOLDS:
        return []
    dealt = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    pairs = dealt.split(lesson.groups[:, None], lesson.kept, lesson.groups)
    return [(train, test) for train, test in pairs if 0 < lesson.kept[train].sum() < len(train)]


def platt(shares: Matrix, kept: NDArray[np.bool_]) -> Platt:
    """The calibration of held-out shares, with Platt's softened answers.

    An answer counts as (n + 1) / (n + 2) of its kind and the rest of the other: no kind is ever certain.
    """
    from sklearn.linear_model import LogisticRegression

    many = {kind: float((kept == kind).sum()) for kind in (True, False)}
    own = np.where(kept, (many[True] + 1) / (many[True] + 2), (many[False] + 1) / (many[False] + 2))
    twice = np.concatenate([logit(shares)] * 2)[:, None]
    made = LogisticRegression(C=1e4).fit(twice, np.concatenate([kept, ~kept]), np.concatenate([own, 1 - own]))
    return Platt(slope=max(float(made.coef_[0, 0]), 0.05), shift=float(made.intercept_[0]))


def held_out_probability(shares: Matrix, lesson: Lesson, seed: int) -> Matrix:
    """(n,) calibrated probabilities of held-out shares, each by a calibration that did not see its group."""
    found = np.full(len(shares), np.nan)
    for train, test in splits(lesson, seed + 1):
        found[test] = platt(shares[train], lesson.kept[train])(shares[test])
    return found


def signs(lesson: Lesson, columns: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """By reason: in which columns its faces differ most from the kept, in standard deviations of the kept."""
    values, found = lesson.faces.values, {}
    middle = median_of(values[lesson.kept])
    spread = np.maximum(np.nan_to_num(np.nanstd(values[lesson.kept], axis=0)), 1e-9)
    for reason in classes_of(lesson)[1:]:
        mine = np.array([one == reason for one in lesson.reasons])
        if mine.any():
            apart = (median_of(values[mine]) - middle) / spread
            most = np.argsort(-np.abs(apart))[:SIGNS]
            found[reason] = tuple(f"{'more' if apart[at] > 0 else 'less'} {columns[at]}" for at in most)
    return found


def _as_arrays(grown: Any, classes: int) -> Forest:
    """The trees of scikit-learn's forest, by what it publishes of each."""
    trees = [one.tree_ for one in grown.estimators_]
    starts = np.cumsum([0, *(tree.node_count for tree in trees)])
    pieces = []
    for start, tree in zip(starts[:-1], trees, strict=True):
        leaf, own = tree.children_left < 0, np.arange(tree.node_count)
        shares = np.zeros((tree.node_count, classes), np.float32)
        shares[:, grown.classes_] = tree.value[:, 0, :] / tree.value[:, 0, :].sum(axis=1, keepdims=True)
        left, right = (np.where(leaf, own, below) + start for below in (tree.children_left, tree.children_right))
        pieces.append((np.where(leaf, -1, tree.feature), np.where(leaf, 0.0, tree.threshold), left, right, shares))
    column, threshold, left, right, shares = (np.concatenate(one) for one in zip(*pieces, strict=True))
    whole = (array.astype(np.int32) for array in (starts[:-1], column))
    roots, column = whole
    return Forest(roots, column, threshold, left.astype(np.int32), right.astype(np.int32), shares)


LIMITS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Probabilities whose effect reports tell."""
STRATA = 8
"""Most strata of probability, and ..."""
LEAST_STRATUM = 15
"""... fewest decisions in one."""
HEAVIEST = 10.0
"""Largest weight of one decision, over the mean: no single one decides a figure."""
BINS = 10
"""Bins of the calibration curve, of equal numbers of decisions."""
LEAST_BIN = 10
_RESAMPLES = 500
Marks = NDArray[np.bool_]


@dataclass(frozen=True)
class Estimate:
    """A share, 0..1, with its 95 % interval; of nothing it is 0 and its interval all of 0..1."""

    share: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """For a person: ``95 % (90 to 98)``."""
        return f"{100 * self.share:.0f} % ({100 * self.low:.0f} to {100 * self.high:.0f})"


@dataclass(frozen=True)
class Passing:
    """What one limit does."""

    limit: float
    recall: Estimate
    """Of what the reviewer keeps, the share that passes."""
    let_through: Estimate
    """Of what the reviewer rejects, the share that passes."""
    precision: Estimate
    """Of what passes, the share that the reviewer keeps."""

    @property
    def estimates(self) -> tuple[Estimate, Estimate, Estimate]:
        """All three, in this order."""
        return self.recall, self.let_through, self.precision

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


@dataclass(frozen=True)
class CalibrationBin:
    """Decisions of about one probability."""

    predicted: float
    """Mean probability that the face is kept."""
    kept: Estimate
    count: int


@dataclass(frozen=True)
class HeldOutTable:
    """All held-out decisions as columns."""

    probability: Matrix
    kept: Marks
    weight: Matrix

    @classmethod
    def of(cls, held_out: Sequence[HeldOut]) -> HeldOutTable:
        """The columns."""
        return cls(
            np.array([one.probability for one in held_out]),
            np.array([one.kept for one in held_out], np.bool_),
            np.array([one.weight for one in held_out]),
        )

    def passing(self, limit: float) -> Passing:
        """What a limit keeps and lets through."""
        passes = self.probability >= limit
        return Passing(
            limit,
            _estimate(passes[self.kept], self.weight[self.kept]),
            _estimate(passes[~self.kept], self.weight[~self.kept]),
            _estimate(self.kept[passes], self.weight[passes]),
        )

    def limit_for(self, recall: float) -> float:
        """The highest limit at which `recall` of what the reviewer keeps passes, to three digits below it."""
        order = np.argsort(self.probability[self.kept])
        weights = self.weight[self.kept][order]
        below = np.cumsum(weights) - weights
        first = int((below <= (1 - recall) * weights.sum()).nonzero()[0][-1])
        return float(np.floor(self.probability[self.kept][order][first] * 1000) / 1000)

    def auc(self, seed: int) -> Estimate:
        """Area under the ROC curve, with a percentile bootstrap interval."""
        rng, count = np.random.default_rng(seed), len(self.kept)
        drawn = (rng.integers(0, count, count) for _ in range(_RESAMPLES))
        areas = [ranking_auc(self.probability[rows], self.kept[rows], self.weight[rows]) for rows in drawn]
        low, high = np.quantile(areas, [0.025, 0.975])
        return Estimate(ranking_auc(self.probability, self.kept, self.weight), float(low), float(high))

    def calibration(self) -> list[CalibrationBin]:
        """The calibration curve, rising; unweighted: within a bin all faces are alike."""
        order = np.argsort(self.probability, kind="stable")
        bins = np.array_split(order, max(1, min(BINS, len(order) // LEAST_BIN)))
        ones = np.ones(len(order))
        return [
            CalibrationBin(float(self.probability[rows].mean()), _estimate(self.kept[rows], ones[rows]), len(rows))
            for rows in bins
        ]

    @property
    def calibration_error(self) -> float:
        """Mean distance of predicted and kept over the bins (ECE), 0..1."""
        bins = self.calibration()
        return sum(one.count * abs(one.predicted - one.kept.share) for one in bins) / sum(one.count for one in bins)


def weigh(probability: Matrix, pool: Matrix) -> Matrix:
    """(n,) weights of mean 1 by which decided faces stand for the `pool`, both by their probability to be kept."""
    strata = max(1, min(STRATA, len(probability) // LEAST_STRATUM))
    edges = np.unique(np.quantile(probability, np.linspace(0, 1, strata + 1)[1:-1]))
    decided, whole = np.digitize(probability, edges), np.digitize(pool, edges)
    share = np.bincount(whole, minlength=len(edges) + 1) / max(1, len(pool))
    own = np.bincount(decided, minlength=len(edges) + 1) / len(probability)
    weights = np.clip((share / np.maximum(own, 1e-9))[decided], 1 / HEAVIEST, HEAVIEST)
    return np.asarray(weights / weights.mean())


def _estimate(marks: Marks, weights: Matrix) -> Estimate:
    total = float(weights.sum())
    if not total:
        return Estimate(0.0, 0.0, 1.0)
    share = float(weights[marks].sum()) / total
    effective = total**2 / float((weights**2).sum())
    return Estimate(share, *wilson(share * effective, effective))
