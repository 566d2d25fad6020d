"""`curate learn`: from one reviewer's decisions to a model of what they keep, and a page that says how good it is."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from authface.console import Console
from authface.curate.filter.measure import VERSION as MEASURED_VERSION
from authface.curate.learn import fit as fitting
from authface.curate.learn.fit import LIMITS, Estimate, HeldOutTable, Lesson, Passing, read_lesson, weigh
from authface.curate.learn.model import HeldOut, ModelFacts, Opinion, ReviewerModel, save_model
from authface.curate.learn.table import VERSION, FaceTable, Matrix, columns, face_part, take_features
from authface.curate.settings import LearnSettings
from authface.errors import ImageError, UsageError, one_line, shell_word
from authface.imaging import decode as images
from authface.records import Crop, now
from authface.report import pages as report
from authface.report.pages import HistogramCounter
from authface.review.reviews import Decision, Reviewed
from authface.store.photoset import PhotoSet

LEARNED = "unlikely_kept"
"""Reason of a face that a model rejects."""
SCORE = "keep_probability"
"""Name of the probability among the scores of a face."""


@dataclass(frozen=True)
class Learned:
    """The outcome of `learn`."""

    model: ReviewerModel
    file: Path
    auc: Estimate
    passing: Passing
    """At the model's own limit."""
    calibration_error: float
    disagreed: Mapping[str, tuple[int, int]]
    """By other reviewer: faces on which they decided otherwise, of those that both judged."""

    def as_text(self) -> str:
        """For a person."""
        facts, limit = self.model.facts, self.passing
        kept = sum(one.kept for one in facts.held_out)
        reasons = ", ".join(map(one_line, facts.classes[1:]))
        lines = [
            f"learned from {len(facts.held_out):,} decisions of {facts.reviewer}: {kept:,} kept, "
            f"{len(facts.held_out) - kept:,} rejected: {reasons}",
            f"keeps {limit.recall.text} of what {facts.reviewer} keeps, lets through {limit.let_through.text} of what "
            f"{facts.reviewer} rejects, at a probability of {limit.limit:.3g}",
            f"area under the curve {self.auc.share:.3f} ({self.auc.low:.3f} to {self.auc.high:.3f}), calibration error "
            f"{self.calibration_error:.3f}, from decisions it had no part of",
        ]
        lines += [
            f"{other} decided otherwise on {count:,} of {both:,} faces: each is learned on their own"
            for other, (count, both) in self.disagreed.items()
        ]
        return "\n".join([*lines, f"model: {one_line(self.file)}"])

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "reviewer": self.model.facts.reviewer,
            "decisions": len(self.model.facts.held_out),
            "kept": sum(one.kept for one in self.model.facts.held_out),
            "auc": [self.auc.share, self.auc.low, self.auc.high],
            "calibration_error": self.calibration_error,
            "at_limit": self.passing.as_json(),
            "reasons": list(self.model.facts.classes[1:]),
            "disagreed": {other: list(counts) for other, counts in self.disagreed.items()},
            "model": str(self.file),
        }


def decisions_of(people: Reviewed, reviewer: str, here: Path) -> Mapping[str, Decision]:
    """What a reviewer decided. Raises UsageError where that is nothing."""
    if not people.decisions.get(reviewer):
        have = ", ".join(who for who, said in people.decisions.items() if said) or "nobody"
        raise UsageError(
            f"{one_line(reviewer, 40)} has decided on no face; there are decisions of {have}: "
            f"authface curate review {shell_word(here)} first"
        )
    return people.decisions[reviewer]


def check_enough(kept: int, rejected: int, least: int, reviewer: str, here: Path) -> None:
    """Raise UsageError where there are too few decisions of a kind, saying how many more."""
    lacking = [
        f"{least - count} more to {kind}" for kind, count in (("keep", kept), ("reject", rejected)) if count < least
    ]
    if lacking:
        raise UsageError(
            f"{one_line(reviewer, 40)} kept {kept} and rejected {rejected} faces, and learning needs {least} of each: "
            f"{' and '.join(lacking)}: go on with authface curate review {shell_word(here)}"
        )


def learn(
    photoset: PhotoSet,
    people: Reviewed,
    reviewer: str,
    settings: LearnSettings,
    console: Console,
    *,
    workers: int = 1,
    device: str = "cpu",
    seed: int = 0,
) -> Learned:
    """Learn what a reviewer keeps, and save it; the caller holds the set's lock.

    Raises UsageError where they decided too little.
    """
    decisions = decisions_of(people, reviewer, photoset.root)
    said = [decision.verdict == "reject" for decision in decisions.values()]
    check_enough(said.count(False), said.count(True), settings.least, reviewer, photoset.root)
    take_features(photoset, settings.network, console, workers=workers, device=device)
    lesson = read_lesson(photoset, decisions)
    still = f"of the faces still in the set {reviewer}"
    check_enough(int(lesson.kept.sum()), lesson.rejected, settings.least, still, photoset.root)
    if not fitting.splits(lesson, seed):
        raise UsageError(
            f"{one_line(reviewer, 40)} judged too few people and photos to hold any out: {fitting.LEAST_FOLDS} groups "
            f"of faces to keep, and as many to reject, are the least: go on with authface curate review "
            f"{shell_word(photoset.root)}"
        )
    model = _model(photoset, lesson, reviewer, settings, seed, workers)
    held_out = HeldOutTable.of(model.facts.held_out)
    return Learned(
        model,
        save_model(photoset, model),
        held_out.auc(seed),
        held_out.passing(model.facts.limit),
        held_out.calibration_error,
        disagreements(people, reviewer),
    )


def disagreements(people: Reviewed, reviewer: str) -> dict[str, tuple[int, int]]:
    """By other reviewer: faces on which they decided otherwise than this one, of those that both judged."""
    mine = people.decisions.get(reviewer, {})
    found = {}
    for other, theirs in people.decisions.items():
        both = mine.keys() & theirs.keys() if other != reviewer else set()
        if both:
            found[other] = sum(mine[face].verdict != theirs[face].verdict for face in both), len(both)
    return found


def judged_parts(photoset: PhotoSet) -> Iterator[FaceTable]:
    """Part by part the faces that the step of the filter judges, or would: those that no limit rejected."""
    for part in photoset.features.parts():
        if part in photoset.faces.parts():
            rows = photoset.faces.columns(part, ["id", "status", "reason"])
            yield face_part(photoset, part, {face for face, status, why in rows if status == "kept" or why == LEARNED})


def _model(
    photoset: PhotoSet, lesson: Lesson, reviewer: str, settings: LearnSettings, seed: int, jobs: int
) -> ReviewerModel:
    middle, names = fitting.median_of(lesson.faces.values), columns(photoset)
    forest = fitting.grow(lesson, middle, seed, jobs=jobs)
    shares = fitting.cross_validated(lesson, middle, seed, jobs)
    facts = ModelFacts(
        reviewer=reviewer,
        at=now("microseconds"),
        seed=seed,
        measured=MEASURED_VERSION,
        features=VERSION,
        network=settings.network,
        columns=names,
        middle=tuple(middle.tolist()),
        classes=fitting.classes_of(lesson),
        calibration=fitting.platt(shares, lesson.kept),
        limit=0.0,
        signs=fitting.signs(lesson, names),
        held_out=(),
    )
    model = ReviewerModel(facts, forest)
    held_out = _held_out(photoset, model, lesson, fitting.held_out_probability(shares, lesson, seed))
    limit = HeldOutTable.of(held_out).limit_for(settings.recall)
    return ReviewerModel(facts.model_copy(update={"held_out": held_out, "limit": limit}), forest)


def _held_out(photoset: PhotoSet, model: ReviewerModel, lesson: Lesson, probability: Matrix) -> tuple[HeldOut, ...]:
    """The decisions with their cross-validated probabilities, each with the faces of the set it stands for."""
    decided = frozenset(lesson.faces.ids)
    others = [
        [opinion.keep for face, opinion in zip(part.ids, model.judge(part.values), strict=True) if face not in decided]
        for part in judged_parts(photoset)
        if part.ids
    ]
    weights = weigh(probability, np.concatenate([probability, *others]))
    rows = sorted(zip(probability.tolist(), lesson.kept.tolist(), weights.tolist(), strict=True))
    return tuple(HeldOut(probability=p, kept=k, weight=round(w, 4)) for p, k, w in rows)


SHOWN = 24
"""Faces of a shelf."""
THUMBNAIL = 224

_Picked = tuple[float, str, Opinion]


def write_page(photoset: PhotoSet, learned: Learned, people: Reviewed) -> Path:
    """Write the page and return its path. Raises AuthfaceError where the disk refuses."""
    facts, held_out = learned.model.facts, HeldOutTable.of(learned.model.facts.held_out)
    path = photoset.root / "reports" / f"reviewer-{facts.reviewer}.html"
    counter = HistogramCounter(0.0, 1.0, 24)
    counter.add(held_out.probability, held_out.kept)
    report.write_page(
        path,
        "reviewer.html.jinja",
        title=f"What {facts.reviewer} keeps of {one_line(photoset.root.resolve().name)}",
        summary=[
            ("decisions", f"{len(facts.held_out):,}"),
            ("kept", f"{int(held_out.kept.sum()):,}"),
            ("area under the curve", f"{learned.auc.share:.3f} ({learned.auc.low:.3f} to {learned.auc.high:.3f})"),
            ("calibration error", f"{learned.calibration_error:.3f}"),
        ],
        notes=learned.as_text().splitlines()[1:-1],
        limits=limit_table(held_out, facts.limit),
        bins=held_out.calibration(),
        chart=counter.histogram(
            "probability to be kept", "of decided faces, by what was decided", [("limit", facts.limit)]
        ),
        reasons=report.ReportTable(
            ("reason", "where its faces differ most from those that are kept"),
            [(reason, ", ".join(words).replace("_", " ")) for reason, words in facts.signs.items()],
        ),
        shelves=list(_shelves(photoset, learned.model, people)),
    )
    return path


def limit_table(held_out: HeldOutTable, own: float) -> report.ReportTable:
    """What each limit keeps and lets through; ``>`` marks the model's own."""
    rows = [held_out.passing(limit) for limit in sorted({*LIMITS, own})]
    return report.ReportTable(
        (
            "limit",
            "of what is kept passes (recall)",
            "of what is rejected passes",
            "of what passes is kept (precision)",
        ),
        [(f"{'> ' if x.limit == own else ''}{x.limit:.3g}", *(e.text for e in x.estimates)) for x in rows],
    )


def _shelves(photoset: PhotoSet, model: ReviewerModel, people: Reviewed) -> Iterator[tuple[str, int, str]]:
    """The surest faces of both kinds that nobody decided on, and those in between."""
    decided = {face for said in people.decisions.values() for face in said}
    found: list[_Picked] = []
    for part in judged_parts(photoset):
        opinions = model.judge(part.values) if part.ids else []
        found += [(one.keep, face, one) for face, one in zip(part.ids, opinions, strict=True) if face not in decided]
    rejected = [one for one in found if one[0] < model.facts.limit]
    kinds = {
        "rejected: surest": (len(rejected), heapq.nsmallest(SHOWN, rejected, key=lambda one: one[0])),
        "kept: next to the limit": (len(found) - len(rejected), heapq.nsmallest(
            SHOWN, (one for one in found if one[0] >= model.facts.limit), key=lambda one: one[0])),
        "kept: surest": (len(found) - len(rejected), heapq.nlargest(SHOWN, found, key=lambda one: one[0])),
    }  # fmt: skip
    shown = {face for _, picked in kinds.values() for _, face, _ in picked}
    crops = {crop.id: crop for crop in photoset.crops if crop.id in shown and crop.status == "kept"}
    for name, (total, picked) in kinds.items():
        cells = [_cell(photoset, crops.get(face), face, opinion) for _, face, opinion in picked]
        if cells:
            note = f"{len(cells)} of {total:,} faces that no limit rejects and nobody has decided on"
            group = report.SheetGroup(name, note, len(cells), cells)
            yield name, total, report.shelf(group)


def _cell(photoset: PhotoSet, crop: Crop | None, face: str, opinion: Opinion) -> report.Cell:
    try:
        image = images.preview(photoset.root / crop.file, THUMBNAIL) if crop else None
    except ImageError:
        image = None
    said = f"{opinion.keep:.3f}{f', {opinion.reason}' if opinion.reason else ''}"
    return report.Cell(image, f"{face[:10]}{face[64:]}", said, link=f"../{crop.file}" if crop else "")
