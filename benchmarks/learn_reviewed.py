"""What `curate learn` learns of a set that somebody reviewed at random: `benchmarks/learn.py --decisions SET`.

The decisions are dealt into those to learn from and those to test on, whole groups (a person, a photo, near pictures)
on one side. The limits are the default ones, whatever the set was filtered with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from authface.curate.filter.measure import judge_alone
from authface.curate.learn import fit
from authface.curate.learn.fit import HeldOutTable, Lesson, identities, make_lesson
from authface.curate.learn.model import filled
from authface.curate.learn.order import AGAIN, DOUBTED, differ, diverse, doubt_of, mixed, seen, teaches
from authface.curate.learn.table import MEASURES, FaceTable, face_parts, together
from authface.curate.settings import FilterSettings
from authface.metrics.stats import ranking_auc
from authface.review.reviews import ReviewSettings, reviewed
from authface.store.photoset import PhotoSet

COUNTS = (60, 100, 140, 200, 300, 400)
DOUBTS = (80, 150)
"""Numbers of decisions after which what is said of the doubt is held against what it is."""
PIQE = 1 + MEASURES.index("piqe")
RECALL = 0.95

Rows = NDArray[np.int64]
Column = NDArray[np.float64]


def print_reviewed(root: Path, reviewer: str, test: int, draws: int) -> None:
    """All figures of one reviewer's decisions on a set."""
    photoset = PhotoSet.open(root)
    people = reviewed(photoset, ReviewSettings()).decisions
    pool = together(list(face_parts(photoset)))
    lesson = make_lesson(pool, people[reviewer or min(people)], identities(photoset))
    passes = default_verdicts(photoset, lesson.faces)
    learn, held = deal(lesson, test, np.random.default_rng(0))
    kept = int(lesson.kept.sum())
    print(f"{len(lesson.kept)} decisions, {kept} to keep; learned from {len(learn)}, tested on {len(held)}")
    print_test(lesson, learn, held, passes)
    print_orders(lesson, learn, held, draws)
    print_doubt(lesson, pool, draws)


def default_verdicts(photoset: PhotoSet, faces: FaceTable) -> NDArray[np.bool_]:
    """Which faces break no default limit."""
    wanted, limits = set(faces.ids), FilterSettings()
    found = {
        face.id: judge_alone(face, 1, limits).status == "kept"
        for part in photoset.measured.parts()
        for face in photoset.measured.rows(part)
        if face.id in wanted
    }
    return np.array([found[face] for face in faces.ids])


def deal(lesson: Lesson, test: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Rows to learn from and rows to test on, as many of each, without those whose group is in both."""
    shuffled = np.argsort(lesson.faces.ids)[rng.permutation(len(lesson.faces.ids))]
    learn, held = shuffled[:test], shuffled[test : 2 * test]
    return learn[~np.isin(lesson.groups[learn], lesson.groups[held])], held


def print_test(lesson: Lesson, learn: Rows, held: Rows, passes: NDArray[np.bool_]) -> None:
    """On the held-out half: area, precision and what passes at 95 % recall, calibration; against limits and PIQE."""
    kept, ones = lesson.kept[held], np.ones(len(held))
    print(f"{'':24}{'area':>7}  {'precision at 95 % recall':28}lets through")
    for name, columns in (("all columns", slice(None)), ("measures alone", slice(0, 1 + len(MEASURES)))):
        table = replace(lesson.faces, values=lesson.faces.values[:, columns])
        taught = replace(lesson, faces=table).take(learn)
        middle = fit.median_of(taught.faces.values)
        shares = fit.cross_validated(taught, middle, 0)
        own = HeldOutTable(fit.held_out_probability(shares, taught, 0), taught.kept, np.ones(len(learn)))
        forest = fit.grow(taught, middle, 0)
        probability = fit.platt(shares, taught.kept)(forest(filled(table.values[held], middle))[:, 0])
        tested = HeldOutTable(probability, kept, ones)
        print_row(name, tested)
        if name == "all columns":
            print_own(own, tested, passes[held])
    piqe = np.nan_to_num(lesson.faces.values[held, PIQE], nan=100)
    print_row("PIQE", HeldOutTable(1 - piqe / 100, kept, ones))
    limits = HeldOutTable(passes[held].astype(float), kept, ones)
    at, area = limits.passing(0.5), limits.auc(0)
    sure = f"({area.low:.3f} to {area.high:.3f})"
    shown = f"{area.share:7.3f}  {at.precision.text:28}{at.let_through.text:26} {sure} at recall {at.recall.text}"
    print(f"{'the limits':24}{shown}")


def print_own(own: HeldOutTable, tested: HeldOutTable, passes: NDArray[np.bool_]) -> None:
    """What was said before the test, and what came of it; and the curve."""
    limit = own.limit_for(RECALL)
    said, came = own.passing(limit), tested.passing(limit)
    print(f"  by cross-validation   {own.auc(0).share:7.3f}  calibration error {own.calibration_error:.3f}")
    for name, at in (("said of its limit", said), ("came of its limit", came)):
        recall, through, precision = (one.text for one in at.estimates)
        print(f"  {name:22}{limit:7.3f}  recall {recall}, precision {precision}, lets through {through}")
    curve = (f"{one.predicted:.2f} is {one.kept.share:.2f}" for one in tested.calibration())
    print(f"  calibration error     {tested.calibration_error:7.3f}: " + ", ".join(curve))
    limits = HeldOutTable(passes.astype(float), tested.kept, tested.weight).passing(0.5)
    as_strict = tested.passing(tested.limit_for(max(limits.recall.share, 0.01)))
    recall, through, precision = (one.text for one in as_strict.estimates)
    print(f"  at the limits' recall {'':9}recall {recall}, precision {precision}, lets through {through}")
    inside = HeldOutTable(tested.probability[passes], tested.kept[passes], tested.weight[passes])
    print_row(f"  where limits pass ({int(passes.sum())})", inside)


def print_row(name: str, held: HeldOutTable) -> None:
    """One line."""
    at, area = held.passing(held.limit_for(RECALL)), held.auc(0)
    sure = f"({area.low:.3f} to {area.high:.3f})"
    print(f"{name:24}{area.share:7.3f}  {at.precision.text:28}{at.let_through.text:26} {sure}")


def print_orders(lesson: Lesson, learn: Rows, held: Rows, draws: int) -> None:
    """The area on the held-out half after so many reviews in either order, over several draws."""
    counts = [count for count in COUNTS if count <= len(learn)]
    print(f"{'reviews':24}" + "".join(f"{count:>16}" for count in counts))
    for name in ("random", "uncertain"):
        curves = np.array([areas(lesson, learn, held, name, counts, seed) for seed in range(draws)])
        cells = zip(curves.mean(axis=0), curves.std(axis=0), strict=True)
        print(f"{name:24}" + "".join(f"{f'{mean:.3f} +- {spread:.3f}':>16}" for mean, spread in cells), flush=True)


def areas(lesson: Lesson, learn: Rows, held: Rows, order: str, counts: list[int], seed: int) -> list[float]:
    """The area under the curve on `held` after each of `counts` reviews of the `learn`ed."""
    pool = np.random.default_rng(seed).permutation(learn)
    middle = fit.median_of(lesson.faces.values[learn])
    values = filled(lesson.faces.values, middle)
    asked, left, found = pool[:40], pool[40:], []
    for count in counts:
        while len(asked) < count:
            many = min(AGAIN, count - len(asked))
            if order == "uncertain":
                forest = fit.grow(lesson.take(asked), middle, seed, trees=100)
                keeps = forest(values[left])[:, 0]
                left = left[mixed(diverse(forest, values[left], teaches(keeps)), len(left))]
            asked, left = np.concatenate([asked, left[:many]]), left[many:]
        forest = fit.grow(lesson.take(asked), middle, seed, trees=100)
        found.append(ranking_auc(forest(values[held])[:, 0], lesson.kept[held], np.ones(len(held))))
    return found


def print_doubt(lesson: Lesson, pool: FaceTable, draws: int) -> None:
    """What `--next` says of its doubt, now and after as many decisions again, against models of other decisions."""
    middle = fit.median_of(pool.values)
    values = filled(pool.values[np.random.default_rng(1).permutation(len(pool.ids))[:DOUBTED]], middle)
    for count in DOUBTS:
        if 4 * count > len(lesson.kept):
            continue
        rows = list(_doubts(lesson, values, middle, count, draws))
        said, then, came, later = (f"{100 * np.mean(one):.1f} % ({100 * min(one):.1f} to {100 * max(one):.1f})"
                                   for one in zip(*rows, strict=True))  # fmt: skip
        print(f"doubt after {count}: said {said}, is {came}; after {2 * count}: said {then}, is {later}", flush=True)


def _doubts(lesson: Lesson, values: Column, middle: Column, count: int, draws: int) -> Iterator[tuple[float, ...]]:
    faces = len(lesson.kept)
    for seed in range(draws):
        drawn = np.random.default_rng(seed).permutation(faces)
        really = []
        for many in (count, 2 * count):
            sides = (np.isin(np.arange(faces), rows) for rows in (drawn[:many], drawn[many : 2 * many]))
            really.append(differ(*(seen(lesson, values, middle, side, seed) for side in sides)))
        yield *doubt_of(lesson.take(np.sort(drawn[:count])), values, middle, seed), *really
