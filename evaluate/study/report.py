"""What a study found: the paper's table 5 with intervals, a test and agreement; as text, JSON, CSV, Parquet, HTML."""

from __future__ import annotations

import csv
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
from numpy.typing import NDArray

from authface import __version__
from authface.errors import ImageError, one_line
from authface.evaluate.study.files import INPUT, Pictures
from authface.evaluate.study.study import ANSWERS, CHOICES, Answer, Choice, Item, Study
from authface.evaluate.tables import p_value
from authface.files import replacing, write_file
from authface.imaging.decode import read
from authface.metrics.stats import fleiss_kappa, krippendorff_alpha, share_intervals, sign_test, wilson
from authface.report.pages import Cell, Table, quantity, write_page
from authface.report.text import render

NAME = "ab"
_LOST = 12
"""Faces in the sheet of those on which the other method was preferred, for each."""
Held = Mapping[str, Mapping[Item, Answer]]
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
class Share:
    """One column of table 5, in 0..1."""

    count: int
    share: float
    wilson: tuple[float, float]
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Tally:
    """What people said of ours beside one other method."""

    other: str
    people: int
    faces: int
    answers: int
    shares: dict[Choice, Share]
    faces_won: int
    """Faces on which more people prefer ours than the other."""
    faces_lost: int
    p: float | None
    alpha: float | None
    kappa: float | None


def tallies(study: Study, held: Held, seed: int, resamples: int) -> list[Tally]:
    """One for each other method that has answers."""
    found = []
    for other in study.others:
        rows = {person: [answers.get(Item(other, name)) for name in study.names] for person, answers in held.items()}
        rows = {person: row for person, row in rows.items() if any(row)}
        if rows:
            found.append(_tally(other, rows, seed, resamples))
    return found


def _tally(other: str, rows: Mapping[str, Sequence[Answer | None]], seed: int, resamples: int) -> Tally:
    said = np.array([[CHOICES.index(a.choice) if a else -1 for a in row] for row in rows.values()], np.int64)
    said = said[:, (said >= 0).any(axis=0)]
    counts = [[int((column == choice).sum()) for choice in range(len(CHOICES))] for column in said.T]
    total = int((said >= 0).sum())
    drawn = share_intervals(said, len(CHOICES), seed, resamples)
    shares = {
        choice: Share(n := sum(row[at] for row in counts), n / total, wilson(n, total), drawn[at])
        for at, choice in enumerate(CHOICES)
    }
    won, lost = sum(row[2] > row[0] for row in counts), sum(row[2] < row[0] for row in counts)
    return Tally(
        other, len(rows), len(counts), total, shares, won, lost,
        sign_test(won, lost), krippendorff_alpha(counts), fleiss_kappa(counts),
    )  # fmt: skip


@dataclass(frozen=True)
class Findings:
    """All of a report."""

    study: Study
    tallies: list[Tally]
    people: dict[str, int]
    """Answers by person."""
    left: tuple[int, int, float | None]
    """Preferences for the left, for the right, and p of no bias."""
    seconds: float
    """Median time of an answer."""

    def as_json(self) -> dict[str, Any]:
        """For ``--json`` and the file."""
        return {
            "table": [asdict(tally) for tally in self.tallies],
            "ours": self.study.ours,
            "left": {"left": self.left[0], "right": self.left[1], "p": self.left[2]},
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


def findings(study: Study, held: Held, seed: int, resamples: int) -> Findings:
    """Of at least one answer; `seed` is the bootstrap's."""
    answers = [answer for of_person in held.values() for answer in of_person.values()]
    sides = Counter(a.left == a.choice for a in answers if a.choice != "same")
    return Findings(
        study,
        tallies(study, held, seed, resamples),
        {person: len(of_person) for person, of_person in sorted(held.items())},
        (sides[True], sides[False], sign_test(sides[True], sides[False])),
        round(statistics.median(answer.seconds for answer in answers), 2),
    )


def table(found: Findings) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a row for each other method."""
    ours = one_line(found.study.ours, 40)
    rows = []
    for tally in found.tallies:
        cells = [one_line(tally.other, 40), *(_share(tally.shares[choice]) for choice in CHOICES)]
        people = f"{tally.people} people, {tally.faces} faces"
        cells += [f"{tally.faces_won} : {tally.faces_lost}", p_value(tally.p)]
        rows.append([*cells, _agreement(tally.alpha), _agreement(tally.kappa), people])
    return ["", "other %", "same %", f"{ours} %", "faces won : lost", "p", "alpha", "kappa", ""], rows


def _share(share: Share) -> str:
    low, high = share.interval or share.wilson
    return f"{100 * share.share:.2f} [{100 * low:.1f}, {100 * high:.1f}]"


def _agreement(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def as_text(found: Findings) -> str:
    """For a terminal."""
    left, right, p = found.left
    lines = [
        render(*table(found)),
        f"the left was preferred {left} times, the right {right} (p {p_value(p)}); {found.seconds:.1f} s an answer",
    ]
    return "\n".join(lines)


def write_files(found: Findings, held: Held, pictures: Pictures, folder: Path) -> Path:
    """answers.parquet, ab.json, ab.csv and ab.html, whose path is returned. Raises AuthfaceError."""
    rows = [asdict(answer) for person in sorted(held) for answer in held[person].values()]
    with replacing(folder / ANSWERS.replace(".jsonl", ".parquet")) as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary)
    text = json.dumps(found.as_json(), indent=1, ensure_ascii=False, allow_nan=False)
    write_file(folder / f"{NAME}.json", (text + "\n").encode("utf-8", "backslashreplace"))
    with replacing(folder / f"{NAME}.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(_csv_rows(found))
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
        table=Table(*table(found)),
        wilson=Table(*_wilson_table(found)),
        people=Table(["person", "answers"], [[person, str(count)] for person, count in found.people.items()]),
        left=f"The left was preferred {found.left[0]} times, the right {found.left[1]}; p {p_value(found.left[2])}.",
        notes=list(NOTES.items()),
        lost=[(t.other, _lost(found.study, t.other, held, pictures)) for t in found.tallies],
        side=224,
        protocol=json.dumps(found.as_json()["protocol"], indent=1, ensure_ascii=False).splitlines(),
    )
    return path


def _csv_rows(found: Findings) -> Iterator[list[object]]:
    yield ["other", "choice", "count", "answers", "share", "wilson_low", "wilson_high", "low", "high"]
    for tally in found.tallies:
        for choice, share in tally.shares.items():
            ends = share.interval or ("", "")
            yield [one_line(tally.other), choice, share.count, tally.answers, share.share, *share.wilson, *ends]


def _wilson_table(found: Findings) -> tuple[list[str], list[list[str]]]:
    rows = [
        [one_line(tally.other, 40)]
        + [f"{s.count}: {100 * s.wilson[0]:.1f} to {100 * s.wilson[1]:.1f}" for s in tally.shares.values()]
        for tally in found.tallies
    ]
    return ["", "other", "same", "ours"], rows


@dataclass(frozen=True)
class Lost:
    """A face on which people preferred the other method."""

    name: str
    cells: Sequence[Cell]
    figures: Sequence[tuple[str, str]]


def _lost(study: Study, other: str, held: Held, pictures: Pictures) -> Iterator[Lost]:
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
            Cell(_picture(pictures.files[method, name]), label)
            for method, label in shown
            if (method, name) in pictures.files
        ]
        yield Lost(name, cells, [(choice, str(votes[name][choice])) for choice in CHOICES])


def _picture(path: Path) -> NDArray[np.uint8] | None:
    try:
        return read(path).rgb
    except ImageError:
        return None
