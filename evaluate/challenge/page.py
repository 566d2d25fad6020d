"""What `authface evaluate challenge` does, and its result as text, CSV, JSON and HTML."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import typer

from authface.console import render_table
from authface.errors import one_line
from authface.evaluate.catalogue import BY_NAME
from authface.evaluate.challenge.rules import IDENTITY, TERMS, Gate, rules
from authface.evaluate.challenge.run import Challenge, ChallengeTask, MethodResult, run_challenge
from authface.evaluate.images import methods_of
from authface.evaluate.measure import workers_of
from authface.evaluate.restoration import SIDE, label, number, picture_of, row_of
from authface.evaluate.settings import ChallengeSettings
from authface.files import write_csv, write_json
from authface.options import Run
from authface.report.pages import Cell, PictureRow, ReportTable, quantity, write_page

NAME = "challenge"
SHOWN = 20
"""Faces that fail the gate, for each method, on the page."""
NAMED = 5
"""The same in the terminal."""


def scores_table(found: Challenge) -> ReportTable:
    """A row a term, a column a method: the figure and what it adds; the score below."""
    names = list(found.methods)
    rows = []
    for term in TERMS:
        cells = []
        for name in names:
            result = found.methods[name]
            figure = result.figures.get(term)
            cells += (
                ["n/a", "-"]
                if figure is None
                else [number(figure.value, BY_NAME[term].digits), f"{result.score.terms[term]:.4f}"]
            )
        rows.append([label(term), *cells])
    rows.append(["score", *(cell for name in names for cell in ("", score_text(found.methods[name])))])
    rows.append(["identity gate", *(cell for name in names for cell in ("", gate_text(found.methods[name].gate)))])
    return ReportTable(["", *(cell for name in names for cell in (one_line(name, 40), "adds"))], rows)


def score_text(result: MethodResult) -> str:
    """``4.0123``, or how much of it is there."""
    score = result.score
    if score.total is not None:
        return f"{score.total:.4f}"
    whole = len([name for name in score.terms if name not in score.missing])
    return f"partial: {score.sum:.4f} of {whole} of {len(TERMS)} terms" if score.terms else "not measured"


def gate_text(gate: Gate) -> str:
    """``passed, 3 of at most 10 fail``."""
    if gate.verdict == "unknown":
        return "not measured"
    own = " by other limits" if gate.script is None else ""
    return f"{gate.verdict}{own}: {gate.failures} fail, {gate.most} may"


def gates_table(found: Challenge) -> ReportTable | None:
    """A row a method and set; None where no gate was measured."""
    rows = [
        [
            one_line(name, 40),
            one.set,
            str(one.faces),
            number(one.mean, 3),
            number(one.least, 2),
            str(len(one.below)),
            str(len(one.unseen)),
            "-" if one.script is None else str(one.script),
        ]
        for name, result in found.methods.items()
        for one in result.gate.sets
    ]
    header = ["", "set", "faces", "mean likeness", "least", "below", "no face found", "fail by its script"]
    return ReportTable(header, rows) if rows else None


def notes(found: Challenge) -> list[str]:
    """What a reader must know of these figures, a line each."""
    lines = [f"{rules().title}: {rules().source}"]
    if found.short:
        lines.append(found.short)
    if any(one.gate.sets for one in found.methods.values()):
        own = any(value is None for value in found.protocol["script"].values())
        lines.append(found.protocol["identity"] + ("; limits that are not the challenge's" if own else ""))
    for name, result in found.methods.items():
        if fail := [face for one in result.gate.sets for face in (*one.below, *one.unseen)]:
            more = f" and {len(fail) - NAMED} more" if len(fail) > NAMED else ""
            lines.append(f"{one_line(name, 40)} fails the gate with {', '.join(map(one_line, fail[:NAMED]))}{more}")
        if result.score.missing:
            said = ", ".join(f"{term} ({why})" if why.startswith("of ") else term
                             for term, why in result.score.missing.items())  # fmt: skip
            lines.append(f"{one_line(name, 40)}: no score, for it lacks {said}")
    return lines


def as_text(found: Challenge) -> str:
    """For a terminal."""
    table = scores_table(found)
    parts = [render_table(table.header, table.rows)]
    if (gates := gates_table(found)) is not None:
        parts.append(render_table(gates.header, gates.rows, right=range(2, len(gates.header))))
    return "\n\n".join([*parts, "\n".join(notes(found))])


def write(found: Challenge, folder: Path) -> Path:
    """challenge.json, .csv (a row an output) and .html, whose path is returned. Raises AuthfaceError where the disk
    refuses."""
    write_json(folder / f"{NAME}.json", found.as_json())
    names = [IDENTITY, *(term for term in TERMS if BY_NAME[term].kind == "learned")]
    rows = [row_of(outcome, names) for outcome in found.measured.outcomes.values()]
    write_csv(folder / f"{NAME}.csv", [list(rows[0]), *(row.values() for row in rows)])
    path = folder / f"{NAME}.html"
    write_page(
        path,
        "challenge.html.jinja",
        title="Restored faces by the challenge's rules",
        summary=[
            ("faces", quantity(len(found.faces.sets))),
            ("methods", quantity(len(found.methods))),
            ("disqualified", quantity(sum(one.gate.verdict == "disqualified" for one in found.methods.values()))),
            ("outputs that failed", quantity(len(found.failed))),
        ],
        scores=scores_table(found),
        gates=gates_table(found),
        notes=notes(found),
        unmeasured=list(found.measured.unmeasured.values()),
        failed=ReportTable(
            ["output", "reason", ""],
            [[f"{o.pair.method}: {o.pair.name}", o.reason, o.detail] for o in found.failed[:100]],
        ),
        failed_count=len(found.failed),
        sheets=[(name, _failures(found, name)) for name, one in found.methods.items() if one.gate.failures],
        side=SIDE,
        protocol=json.dumps(found.protocol, indent=1, ensure_ascii=False).splitlines(),
    )
    return path


def _failures(found: Challenge, method: str) -> Iterator[PictureRow]:
    """Faces that fail the gate, one at a time: those without a value, then the least like."""
    gate = found.methods[method].gate
    names = [name for one in gate.sets for name in one.unseen] + [name for one in gate.sets for name in one.below]
    for name in names[:SHOWN]:
        outcome = found.measured.outcomes[method, name]
        shown = [("input", outcome.pair.input), ("output", outcome.pair.output)]
        cells = [Cell(picture_of(path), role) for role, path in shown if path is not None]
        value = outcome.values.get(IDENTITY)
        likeness = outcome.problems.get(IDENTITY, outcome.reason) if value is None else number(value, 3)
        yield PictureRow(name, cells, [("likeness", likeness)])


def score_challenge(
    run: Run, outputs: Sequence[str], inputs: Path | None, on: str, settings: ChallengeSettings, out: Path
) -> None:
    """Write the report and print score and gate; exit code 3 where some outputs failed.

    Raises UsageError for names and settings that do not fit, AuthfaceError where nothing can be measured.
    """
    device, workers = workers_of(run)
    task = ChallengeTask(methods_of(outputs), inputs, on, settings, device, run.limit, workers)
    if run.dry_run:
        said = f"{', '.join(settings.metrics)} and identity by {settings.identity} of "
        said += ", ".join(one_line(method.folder) for method in task.methods)
        return run.console.result(said, settings=settings.model_dump(mode="json"))
    found = run_challenge(task, out, run.console)
    path = write(found, out)
    text = f"{as_text(found)}\n\nreport: {one_line(path)}"
    run.console.result(text, **found.as_json(), read_again=found.measured.read_again, report=str(path), out=str(out))
    if found.failed:
        run.console.log(f"{len(found.failed)} outputs failed: {one_line(path)} says why")
        raise typer.Exit(3)
