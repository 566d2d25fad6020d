"""What a study found: the paper's table 5 with intervals, a test and agreement; as text, JSON, CSV, Parquet, HTML."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from authface import __version__
from authface.console import render_table
from authface.errors import one_line
from authface.evaluate.restoration import p_value, picture_of
from authface.evaluate.study.study import ANSWERS, CHOICES, INPUT, Choice, Study, StudyAnswer, StudyPair, StudyPictures
from authface.files import replacing, write_csv, write_json
from authface.metrics.stats import fleiss_kappa, krippendorff_alpha, share_intervals, sign_test, wilson
from authface.report.pages import Cell, PictureRow, ReportTable, quantity, write_page

NAME = "ab"
_LOST = 12
"""Faces in the sheet of those on which the other method was preferred, for each."""
AnswersByPerson = Mapping[str, Mapping[StudyPair, StudyAnswer]]
NOTES = {
    "shares": "others / same / ours in % of the answers, the form of the paper's table 5",
    "wilson": "95 % score interval as if all answers were independent (Wilson 1927)",
    "interval": "95 %, people and faces both drawn anew (pigeonhole bootstrap, Owen 2007)",
    "p": "two-sided exact sign test on faces, each won by whom more people prefer, ties left out (Dixon, Mood 1946)",
    "alpha": "Krippendorff's alpha of nominal data, with answers missing (Krippendorff 2011)",
    "kappa": "Fleiss' kappa (1971); n/a where not all people answered the same pairs",
    "left": "sides are drawn: preferences should fall on the left in half of the cases; p is that of the sign test",
}


@dataclass(frozen=True)
class ChoiceShare:
    """One column of table 5, in 0..1."""

    count: int
    share: float
    wilson: tuple[float, float]
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class MethodComparison:
    """What people said of ours beside one other method."""

    other: str
    people: int
    faces: int
    answers: int
    shares: dict[Choice, ChoiceShare]
    faces_won: int
    """Faces on which more people prefer ours than the other."""
    faces_lost: int
    p: float | None
    alpha: float | None
    kappa: float | None


def comparisons(study: Study, held: AnswersByPerson, seed: int, resamples: int) -> list[MethodComparison]:
    """One for each other method that has answers."""
    found = []
    for other in study.others:
        rows = {
            person: [answers.get(StudyPair(other, name)) for name in study.names] for person, answers in held.items()
        }
        rows = {person: row for person, row in rows.items() if any(row)}
        if rows:
            found.append(_comparison(other, rows, seed, resamples))
    return found


def _comparison(
    other: str, rows: Mapping[str, Sequence[StudyAnswer | None]], seed: int, resamples: int
) -> MethodComparison:
    answers = np.array([[CHOICES.index(a.choice) if a else -1 for a in row] for row in rows.values()], np.int64)
    answers = answers[:, (answers >= 0).any(axis=0)]
    counts = [[int((column == choice).sum()) for choice in range(len(CHOICES))] for column in answers.T]
    total = int((answers >= 0).sum())
    drawn = share_intervals(answers, len(CHOICES), seed, resamples)
    shares = {
        choice: ChoiceShare(n := sum(row[at] for row in counts), n / total, wilson(n, total), drawn[at])
        for at, choice in enumerate(CHOICES)
    }
    won, lost = sum(row[2] > row[0] for row in counts), sum(row[2] < row[0] for row in counts)
    return MethodComparison(
        other, len(rows), len(counts), total, shares, won, lost,
        sign_test(won, lost), krippendorff_alpha(counts), fleiss_kappa(counts),
    )  # fmt: skip


@dataclass(frozen=True)
class StudyFindings:
    """All of a report."""

    study: Study
    comparisons: list[MethodComparison]
    people: dict[str, int]
    """Answers by person."""
    sides: tuple[int, int, float | None]
    """Preferences for the left, for the right, and p of no bias."""
    seconds: float
    """Median time of an answer."""

    def as_json(self) -> dict[str, Any]:
        """For ``--json`` and the file."""
        return {
            "table": [asdict(tally) for tally in self.comparisons],
            "ours": self.study.ours,
            "left": {"left": self.sides[0], "right": self.sides[1], "p": self.sides[2]},
            "seconds": self.seconds,
            "notes": NOTES,
            "protocol": {
                "question": self.study.question,
                "pairs": len(self.study.items),
                "faces": len(self.study.names),
                "people": self.people,
                "finished": sum(n == len(self.study.items) for n in self.people.values()),
                "sets": dict(self.study.sets),
                "seed": self.study.seed,
                "order": "of each person drawn from seed and name; ours left in half of the pairs with each method",
                "versions": {"authface": __version__},
            },
        }


def findings(study: Study, held: AnswersByPerson, seed: int, resamples: int) -> StudyFindings:
    """Of at least one answer; `seed` is the bootstrap's."""
    answers = [answer for of_person in held.values() for answer in of_person.values()]
    sides = Counter(a.left == a.choice for a in answers if a.choice != "same")
    return StudyFindings(
        study,
        comparisons(study, held, seed, resamples),
        {person: len(of_person) for person, of_person in sorted(held.items())},
        (sides[True], sides[False], sign_test(sides[True], sides[False])),
        round(statistics.median(answer.seconds for answer in answers), 2),
    )


def table(found: StudyFindings) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a row for each other method."""
    ours = one_line(found.study.ours, 40)
    rows = []
    for tally in found.comparisons:
        cells = [one_line(tally.other, 40), *(_share(tally.shares[choice]) for choice in CHOICES)]
        people = f"{tally.people} people, {tally.faces} faces"
        cells += [f"{tally.faces_won} : {tally.faces_lost}", p_value(tally.p)]
        rows.append([*cells, _agreement(tally.alpha), _agreement(tally.kappa), people])
    return ["", "other %", "same %", f"{ours} %", "faces won : lost", "p", "alpha", "kappa", ""], rows


def _share(share: ChoiceShare) -> str:
    low, high = share.interval or share.wilson
    return f"{100 * share.share:.2f} [{100 * low:.1f}, {100 * high:.1f}]"


def _agreement(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def as_text(found: StudyFindings) -> str:
    """For a terminal."""
    left, right, p = found.sides
    lines = [
        render_table(*table(found)),
        f"the left was preferred {left} times, the right {right} (p {p_value(p)}); {found.seconds:.1f} s an answer",
    ]
    return "\n".join(lines)


def write_files(found: StudyFindings, held: AnswersByPerson, pictures: StudyPictures, folder: Path) -> Path:
    """answers.parquet, ab.json, ab.csv and ab.html, whose path is returned. Raises AuthfaceError."""
    rows = [asdict(answer) for person in sorted(held) for answer in held[person].values()]
    with replacing(folder / ANSWERS.replace(".jsonl", ".parquet")) as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary)
    write_json(folder / f"{NAME}.json", found.as_json())
    write_csv(folder / f"{NAME}.csv", _csv_rows(found))
    path = folder / f"{NAME}.html"
    write_page(
        path,
        "study.html.jinja",
        title="Which is better? What people said",
        summary=[
            ("people", quantity(len(found.people))),
            ("pairs", quantity(len(found.study.items))),
            ("answers", quantity(sum(found.people.values()))),
            ("median seconds an answer", quantity(found.seconds)),
        ],
        question=found.study.question,
        table=ReportTable(*table(found)),
        wilson=ReportTable(*_wilson_table(found)),
        people=ReportTable(["person", "answers"], [[person, str(count)] for person, count in found.people.items()]),
        left=f"The left was preferred {found.sides[0]} times, the right {found.sides[1]}; p {p_value(found.sides[2])}.",
        notes=list(NOTES.items()),
        lost=[(t.other, _lost(found.study, t.other, held, pictures)) for t in found.comparisons],
        side=224,
        protocol=json.dumps(found.as_json()["protocol"], indent=1, ensure_ascii=False).splitlines(),
    )
    return path


def _csv_rows(found: StudyFindings) -> Iterator[list[object]]:
    yield ["other", "choice", "count", "answers", "share", "wilson_low", "wilson_high", "low", "high"]
    for tally in found.comparisons:
        for choice, share in tally.shares.items():
            ends = share.interval or ("", "")
            yield [one_line(tally.other), choice, share.count, tally.answers, share.share, *share.wilson, *ends]


def _wilson_table(found: StudyFindings) -> tuple[list[str], list[list[str]]]:
    rows = [
        [one_line(tally.other, 40)]
        + [f"{s.count}: {100 * s.wilson[0]:.1f} to {100 * s.wilson[1]:.1f}" for s in tally.shares.values()]
        for tally in found.comparisons
    ]
    return ["", "other", "same", "ours"], rows


def _lost(study: Study, other: str, held: AnswersByPerson, pictures: StudyPictures) -> Iterator[PictureRow]:
    """The clearest first, one at a time, so that a sheet costs no memory of pixels."""
    votes: dict[str, Counter[Choice]] = {name: Counter() for name in study.names}
    for answers in held.values():
        for item, answer in answers.items():
            if item.other == other:
                votes[item.name][answer.choice] += 1
    margins = {name: said["other"] - said["ours"] for name, said in votes.items()}
    worst = sorted((name for name in margins if margins[name] > 0), key=lambda name: (-margins[name], name))
    for name in worst[:_LOST]:
        shown = ((INPUT, "input"), (study.ours, study.ours), (other, other))
        cells = [
            Cell(picture_of(pictures.files[method, name]), label)
            for method, label in shown
            if (method, name) in pictures.files
        ]
        yield PictureRow(name, cells, [(choice, str(votes[name][choice])) for choice in CHOICES])
