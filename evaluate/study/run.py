"""What `authface evaluate ab` does: serve a study's page until it is stopped, then say what people said.

Nothing that the page sends says which method is which. What it found: the paper's table 5 with intervals, a test and
agreement; as text, JSON, CSV, Parquet, HTML.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fastapi import APIRouter, FastAPI, HTTPException, Response
from pydantic import BaseModel, ConfigDict, Field

from authface import __version__
from authface.console import render_table
from authface.errors import ImageError, UsageError, one_line
from authface.evaluate.images import methods_of
from authface.evaluate.restoration import p_value, picture_of
from authface.evaluate.settings import AbSettings
from authface.evaluate.study import study as studies
from authface.evaluate.study.study import Study, StudyAnswer, StudyDesk, StudyPair, StudyPictures
from authface.files import replacing, write_csv, write_json
from authface.metrics.stats import fleiss_kappa, krippendorff_alpha, share_intervals, sign_test, wilson
from authface.options import Run
from authface.report.pages import Cell, PictureRow, ReportTable, quantity, write_page
from authface.store.lock import write_lock
from authface.web import local
from authface.web.local import PRIVATE_HOUR, local_app, static_files

PAGE = "ab.html"
_FILES = {PAGE: "text/html", "ab.css": "text/css", "ab.js": "text/javascript", "ab_view.js": "text/javascript"}


class JoinRequest(BaseModel):
    """Who wants to answer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(max_length=200)


class AnswerRequest(BaseModel):
    """An answer as the page sends it; `number` counts from 0 in the person's own order."""

    model_config = ConfigDict(extra="forbid", strict=True)

    person: str = Field(max_length=64)
    number: int = Field(ge=0)
    place: Literal["left", "same", "right"]
    seconds: float = Field(ge=0, le=1e6, strict=False)


def make_app(
    desk: StudyDesk, pictures: StudyPictures, token: str, host: str, answered: Callable[[], None] = lambda: None
) -> FastAPI:
    """The page and its routes; `answered` is called after each answer that is on the disk."""
    files = static_files("authface.evaluate.study", _FILES, PAGE)
    return local_app(token, host, (files, _routes(desk, pictures, answered)))


def _routes(desk: StudyDesk, pictures: StudyPictures, answered: Callable[[], None]) -> APIRouter:
    router = APIRouter()
    joined: dict[str, str] = {}
    total = len(desk.study.items)

    def known(person: str) -> str:
        if person not in joined:
            raise HTTPException(404, "join again: the study was started anew")
        return joined[person]

    def within(number: int) -> int:
        if number >= total:
            raise HTTPException(404, f"there are {total} pairs")
        return number

    @router.post("/api/join")
    def join(request: JoinRequest) -> dict[str, Any]:
        key = studies.person_key(request.name)
        person = studies.person_id(key, desk.study.seed)
        joined[person] = key
        made = desk.study
        return {"person": person, "question": made.question, "inputs": made.inputs, "said": desk.places(key)}

    @router.post("/api/answer")
    def answer(request: AnswerRequest) -> dict[str, Any]:
        key = known(request.person)
        desk.answer(key, within(request.number), request.place, request.seconds)
        left = desk.places(key).count(None)
        answered()
        return {"left": left}

    @router.get("/picture/{person}/{number}/{place}")
    def picture(person: str, number: int, place: Literal["left", "right", "input"]) -> Response:
        shown = desk.order(known(person))[within(max(number, 0))]
        if place == "input" and not desk.study.inputs:
            raise HTTPException(404, "this study shows no inputs")
        try:
            data = pictures.of(desk.study, shown, place)
        except ImageError as error:
            raise HTTPException(404, one_line(f"{error.reason}: the picture cannot be read any more")) from error
        return Response(data, media_type="image/png", headers=PRIVATE_HOUR)

    return router


_INSTEAD = "-O evaluate.ab.port=0 (any free one) or --host 127.0.0.1"


def serve_study(
    run: Run, outputs: Sequence[str], ours: str | None, inputs: Path | None, settings: AbSettings, folder: Path
) -> None:
    """Check the pictures, serve the page until Ctrl-C or until enough people have finished, report.

    Raises UsageError where the study cannot be made of these folders, AuthfaceError where another run serves it.
    """
    if run.seed < 0:
        raise UsageError(f"--seed {run.seed}: seeds are 0 and more")
    made, pictures = studies.open_study(methods_of(outputs), ours, inputs, run.seed, run.limit, settings.question)
    said = f"{len(made.items)} pairs: {one_line(made.ours)} beside {', '.join(map(one_line, made.others))}"
    if run.dry_run:
        return run.console.result(f"{said} -> {one_line(folder)}", pairs=len(made.items), ours=made.ours)
    with write_lock(folder):
        studies.write_study(made, folder)
        desk = StudyDesk(made, studies.answers_of(folder))
        _serve(run, desk, pictures, settings, said)
        if any(studies.latest_answers(made, desk.journal.read()[0]).values()):
            conclude(run, made, pictures, settings, folder)
        else:
            run.console.result(f"nobody answered; the study is in {one_line(folder)}", answers=0, out=str(folder))


def _serve(run: Run, desk: StudyDesk, pictures: StudyPictures, settings: AbSettings, said: str) -> None:
    token = local.new_token()

    def answered() -> None:
        if settings.people and desk.finished >= settings.people:
            server.should_exit = True

    server = local.make_server(make_app(desk, pictures, token, settings.host, answered))
    with local.listen(settings.host, settings.port, _INSTEAD) as waiting:
        url = local.address(settings.host, waiting.getsockname()[1], token)
        with suppress(KeyboardInterrupt):
            run.console.log(f"ab: {said}; {desk.finished} people have finished; open {url} and end with Ctrl-C")
            server.run(sockets=[waiting])


def report_study(run: Run, settings: AbSettings, folder: Path) -> None:
    """What people have said so far; the page may be up meanwhile. Raises UsageError where there is no study."""
    made = studies.read_study(folder)
    if run.dry_run:
        return run.console.result(f"would report {one_line(folder)}: {len(made.items)} pairs", pairs=len(made.items))
    conclude(run, made, studies.pictures_of(made), settings, folder)


def conclude(run: Run, made: Study, pictures: StudyPictures, settings: AbSettings, folder: Path) -> None:
    """Write the files and say the table. Raises AuthfaceError where there are no answers."""
    lines, torn = studies.answers_of(folder).read()
    held = studies.latest_answers(made, lines)
    if not held:
        raise studies.no_answers(folder)
    if torn:
        run.console.log(f"ab: {torn} lines of {studies.ANSWERS} are not whole and count for nothing")
    found = findings(made, held, run.seed, settings.resamples)
    page = write_files(found, held, pictures, folder)
    run.console.result(
        f"{as_text(found)}\n\nreport: {one_line(page)}",
        **found.as_json(),
        report=str(page),
        out=str(folder),
    )


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
    shares: dict[studies.Choice, ChoiceShare]
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
    answers = np.array([[studies.CHOICES.index(a.choice) if a else -1 for a in row] for row in rows.values()], np.int64)
    answers = answers[:, (answers >= 0).any(axis=0)]
    counts = [[int((column == choice).sum()) for choice in range(len(studies.CHOICES))] for column in answers.T]
    total = int((answers >= 0).sum())
    drawn = share_intervals(answers, len(studies.CHOICES), seed, resamples)
    shares = {
        choice: ChoiceShare(n := sum(row[at] for row in counts), n / total, wilson(n, total), drawn[at])
        for at, choice in enumerate(studies.CHOICES)
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
        cells = [one_line(tally.other, 40), *(_share(tally.shares[choice]) for choice in studies.CHOICES)]
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
    with replacing(folder / studies.ANSWERS.replace(".jsonl", ".parquet")) as temporary:
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
    votes: dict[str, Counter[studies.Choice]] = {name: Counter() for name in study.names}
    for answers in held.values():
        for item, answer in answers.items():
            if item.other == other:
                votes[item.name][answer.choice] += 1
    margins = {name: said["other"] - said["ours"] for name, said in votes.items()}
    worst = sorted((name for name in margins if margins[name] > 0), key=lambda name: (-margins[name], name))
    for name in worst[:_LOST]:
        shown = ((studies.INPUT, "input"), (study.ours, study.ours), (other, other))
        cells = [
            Cell(picture_of(pictures.files[method, name]), label)
            for method, label in shown
            if (method, name) in pictures.files
        ]
        yield PictureRow(name, cells, [(choice, str(votes[name][choice])) for choice in studies.CHOICES])
