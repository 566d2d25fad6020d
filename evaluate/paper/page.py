"""What `evaluate table` does: the paper's tables with our reports as text, CSV, JSON and HTML, or their grid.

Rows of table 1 that this toolkit makes itself are restorers over test sets, as commands that anyone could type.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer

from authface.console import render_table
from authface.errors import UsageError, one_line
from authface.evaluate.images import file_names, images_in
from authface.evaluate.paper import grid
from authface.evaluate.paper.grid import GridStep, words_of
from authface.evaluate.paper.paper import Column, FilledTable, OurReport, TableRow, fill, paper_table, parse_reports
from authface.files import local, write_csv, write_json
from authface.options import SECTIONS, Run
from authface.recipe import load
from authface.report.pages import ReportTable, quantity, write_page

PAIRS = (("clean", "degraded"), ("hq", "lq"))
"""Names of the folders of a test set that has its truth: those of `evaluate synth`, and of CelebA-Test."""


@dataclass(frozen=True)
class SetFolder:
    """A test set on disk; `truth` is None for one of real photos."""

    name: str
    inputs: Path
    truth: Path | None


@dataclass(frozen=True)
class RowSetup:
    """What all rows share."""

    folder: Path
    restorers: tuple[str, ...]
    sets: tuple[SetFolder, ...]
    common: tuple[str, ...]
    """Words of every command: recipe, device, seed."""
    overrides: tuple[str, ...] = ()

    def home(self, restorer: str, on: SetFolder) -> Path:
        """Folder of one restorer's outputs and report on one set."""
        restorers = file_names(self.restorers, self.restorers)
        sets = file_names([one.name for one in self.sets], [one.name for one in self.sets])
        return self.folder / restorers[self.restorers.index(restorer)] / sets[self.sets.index(on)]


def sets_of(given: Sequence[str]) -> tuple[SetFolder, ...]:
    """``SET=DIR`` or ``DIR``: a folder of clean/ and degraded/ (or hq/ and lq/), or of degraded faces alone.

    Raises UsageError for what is no such folder, or two of one name.
    """
    found = []
    for text in given:
        name, equals, folder = text.partition("=")
        path = local(folder if equals else text)
        pair = next(((path / t, path / i) for t, i in PAIRS if (path / t).is_dir() and (path / i).is_dir()), None)
        truth, inputs = pair or (None, path)
        if not inputs.is_dir() or not images_in(inputs):
            raise UsageError(
                f"--test {one_line(text)}: no faces there; name it SET=DIR, a folder of degraded faces, or of "
                "clean/ and degraded/ (authface evaluate synth makes one)"
            )
        found.append(SetFolder(name.strip() if equals else "", inputs, truth))
    if len({one.name for one in found}) < len(found):
        raise UsageError("--test: two sets have one name: name them apart, SET=DIR")
    return tuple(found)


def plan_rows(setup: RowSetup) -> list[GridStep]:
    """Two commands for each restorer and set: restore its faces, and measure them."""
    return [step for restorer in setup.restorers for on in setup.sets for step in _row(setup, restorer, on)]


def _row(setup: RowSetup, restorer: str, on: SetFolder) -> list[GridStep]:
    home = setup.home(restorer, on)
    restore = ("restore", str(on.inputs), "--aligned", "--model", restorer, "-o", str(home / "outputs"))
    measure = ["evaluate", "restoration", "--inputs", str(on.inputs), "--outputs", f"{restorer}={home / 'outputs'}"]
    measure += [] if on.truth is None else ["--truth", str(on.truth)]
    cache = f"evaluate.restoration.cache={setup.folder / 'values'}"
    made = words_of("restore", restore, setup.common, setup.overrides, ["restore.report=false"])
    measured = words_of(
        "evaluate.restoration", [*measure, "-o", str(home / "report")], setup.common, setup.overrides, [cache]
    )
    name = f"{home.parent.name} {home.name}"
    reads = _listing(on.inputs, on.truth, Path(restorer))
    return [
        GridStep(f"{name} restore", made, reads=reads),
        GridStep(f"{name} measure", measured, (f"{name} restore",), reads),
    ]


def row_reports(setup: RowSetup, lost: frozenset[str]) -> list[OurReport]:
    """The rows that were measured, under their restorers' names."""
    return [
        OurReport(restorer, on.name, setup.home(restorer, on) / "report")
        for restorer in setup.restorers
        for on in setup.sets
        if _row(setup, restorer, on)[1].name not in lost
        and (setup.home(restorer, on) / "report" / "restoration.json").is_file()
    ]


def _listing(*folders: Path | None) -> str:
    """sha256 of names, sizes and times of all files below some folders; what is no folder counts as nothing."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*")) if folder is not None and folder.is_dir() else []:
            if path.is_file():
                facts = path.stat()
                digest.update(f"{path} {facts.st_size} {facts.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


MISSING = "-"
INTERVALS = {
    "restoration": "ours with 95 % bootstrap intervals of the mean over faces, and how many",
    "ab": "ours with 95 % intervals over people and faces, and how many answers",
    "runtime": "ours with quartiles, and how many runs",
    "prior": "ours with 95 % bootstrap intervals over samples where there are any, and how many samples or seeds",
}


def as_table(filled: FilledTable) -> tuple[list[str], list[list[str]]]:
    """Header and rows; in brackets what ours has more than the paper's row of that name, or than its own method."""
    columns = filled.table.columns
    with_sets = any(row.set for row in filled.rows)
    names = [f"{column.name} {'↓' if column.lower_better else '↑'}" for column in columns]
    if filled.table.reads == "ab":
        names = [f"{column.name} %" for column in columns]
    rows = [
        [*([one_line(row.set, 40)] if with_sets else []), one_line(row.label, 60), row.origin]
        + [_cell(filled, row, column) for column in columns]
        for row in filled.rows
    ]
    return [*(["set"] if with_sets else []), "", "from", *names], rows


def newer_table(filled: FilledTable) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the methods that are newer than the paper, each with who prints it."""
    columns = filled.table.columns
    shown = [column for column in columns if any(column.name in row.values for row in filled.table.newer)]
    names = [f"{column.name} {'↓' if column.lower_better else '↑'}" for column in shown]
    rows = [
        [row.set, row.label, *(_cell(filled, row, column) for column in shown), row.source]
        for row in filled.table.newer
    ]
    return ["set", "", *names, "source"], rows


def _cell(filled: FilledTable, row: TableRow, column: Column) -> str:
    found = row.values.get(column.name)
    if found is None:
        return MISSING
    text = f"{found.value:,.{column.digits}f}"
    if found.low is not None and found.high is not None:
        text += f" [{found.low:.{column.digits}f}, {found.high:.{column.digits}f}]"
    if found.count is not None:
        text += f" of {found.count:,}"
    apart = filled.difference(row, column)
    return text if apart is None else f"{text} ({apart:+.{column.digits}f})"


def as_text(filled: FilledTable) -> str:
    """For a terminal."""
    table = filled.table
    lines = [f"Table {table.number}. {table.title}", render_table(*as_table(filled)), ""]
    if table.newer:
        lines += [table.newer_heading, render_table(*newer_table(filled)), ""]
    lines.append(f"{MISSING} missing; {INTERVALS[table.reads]}; in brackets ours less the paper's")
    lines += [*table.notes, f"paper: {table.source}"]
    for name, how in filled.protocols.items():
        lines.append(f"{one_line(name, 60)}: {_short(how)}")
    return "\n".join(lines)


def _short(how: dict[str, Any]) -> str:
    """The protocol in a line; the files hold all of it."""
    said = [f"{key} {how[key]}" for key in ("faces", "pairs", "model", "preset", "size", "runs", "seed") if key in how]
    sets = {"truth": how.get("truth"), "inputs": how.get("inputs"), **how.get("methods", {})}
    said += [f"{name} {held['set_sha256'][:12]}" for name, held in sets.items() if held]
    said += [f"{name or 'inputs'} {digest[:12]}" for name, digest in how.get("sets", {}).items()]
    said += [f"{name} {digest[:8]}" for name, digest in how.get("weights", {}).items()]
    versions = how.get("versions", {})
    said += [f"{name} {versions[name]}" for name in ("authface", "torch", "pyiqa", "diffusers") if name in versions]
    return one_line(", ".join([*said, *filter(None, [how.get("device")])]), 600)


def as_json(filled: FilledTable) -> dict[str, Any]:
    """For ``--json`` and the file; missing cells are null."""
    table = filled.table
    return {
        "table": table.number,
        "title": table.title,
        "columns": [asdict(column) for column in table.columns],
        "rows": [
            {
                "set": row.set,
                "label": row.label,
                "from": row.origin,
                "values": {c.name: asdict(v) if (v := row.values.get(c.name)) else None for c in table.columns},
                "differences": {c.name: filled.difference(row, c) for c in table.columns},
            }
            for row in filled.rows
        ],
        "newer": [
            {
                "set": row.set,
                "label": row.label,
                "source": row.source,
                "values": {n: v.value for n, v in row.values.items()},
            }
            for row in table.newer
        ],
        "notes": list(table.notes),
        "source": table.source,
        "protocols": filled.protocols,
    }


def write(filled: FilledTable, folder: Path) -> Path:
    """tableN.json, .csv and .html, whose path is returned. Raises AuthfaceError where the disk refuses."""
    table = filled.table
    stem = f"table{table.number}"
    write_json(folder / f"{stem}.json", as_json(filled))
    write_csv(folder / f"{stem}.csv", _csv_rows(filled))
    cells = [(row, column) for row in filled.rows for column in table.columns]
    path = folder / f"{stem}.html"
    write_page(
        path,
        "paper_table.html.jinja",
        title=f"Table {table.number}: {table.title}",
        summary=[
            ("rows of the paper", quantity(len(table.rows))),
            ("rows of ours", quantity(len(filled.rows) - len(table.rows))),
            ("cells missing", quantity(sum(column.name not in row.values for row, column in cells))),
        ],
        table=ReportTable(*as_table(filled)),
        newer=ReportTable(*newer_table(filled)) if table.newer else None,
        newer_heading=table.newer_heading,
        notes=[f"{MISSING} is missing; {INTERVALS[table.reads]}; in brackets ours less the paper's.", *table.notes],
        source=table.source,
        protocols=[
            (name, json.dumps(how, indent=1, ensure_ascii=False).splitlines()) for name, how in filled.protocols.items()
        ],
    )
    return path


def _csv_rows(filled: FilledTable) -> Iterator[list[object]]:
    yield ["table", "set", "label", "from", "column", "metric", "value", "low", "high", "count", "difference", "source"]
    for row in (*filled.rows, *filled.table.newer):
        for column in filled.table.columns:
            found = row.values.get(column.name)
            numbers = [found.value, found.low, found.high, found.count] if found else [None] * 4
            names = [filled.table.number, one_line(row.set), one_line(row.label), row.origin, column.name]
            yield [*names, column.metric, *numbers, filled.difference(row, column), row.source]


@dataclass(frozen=True)
class TableRequest:
    """The command's own arguments."""

    number: int
    ours: Sequence[str]
    out: Path
    grid: bool
    run: bool
    dataset: Path | None
    test: Sequence[str]
    restorers: Sequence[str]


def show_table(run: Run, request: TableRequest) -> None:
    """Print and write the table. ``--restorers`` makes rows of table 1 first; with ``--grid`` the commands are shown
    instead, and for tables 2 to 4 those that make ours, which ``--run`` runs first.

    Raises UsageError for reports that are none, AuthfaceError where a command of the grid fails; exit code 3 where a
    restorer's does.
    """
    table = paper_table(request.number)
    ours = parse_reports(request.ours)
    lost: frozenset[str] = frozenset()
    if request.restorers:
        setup = _rows(run, request)
        steps = plan_rows(setup)
        if run.dry_run or request.grid:
            return _show_steps(run, steps, setup.folder)
        lost = _run_steps(run, steps, setup.folder, patient=True)
        ours += row_reports(setup, lost)
    elif request.grid or request.run:
        folder = request.out / "grid"
        steps = grid.plan(request.number, _ground(run, request, folder))
        if run.dry_run or not request.run:
            return _show_steps(run, steps, folder)
        _run_steps(run, steps, folder, patient=False)
    ours += grid.reports(request.number, request.out / "grid")
    filled = fill(table, ours)
    if run.dry_run:
        return run.console.result(as_text(filled), **as_json(filled))
    page = write(filled, request.out)
    text = f"{as_text(filled)}\n\nreport: {one_line(page)}"
    beside = grid.compared(request.number, request.out / "grid") / "restoration.html"
    text += f"\nours face by face: {one_line(beside)}" if beside.is_file() else ""
    run.console.result(text, **as_json(filled), report=str(page), out=str(request.out))
    if lost:
        raise typer.Exit(grid.SOME_FAILED)


def _show_steps(run: Run, steps: Sequence[grid.GridStep], folder: Path) -> None:
    done = grid.finished(steps, folder)
    listed = [{"step": step.name, "command": step.command, "done": step.name in done} for step in steps]
    run.console.result(grid.to_text(steps, folder), steps=listed)


def _run_steps(run: Run, steps: Sequence[grid.GridStep], folder: Path, *, patient: bool) -> frozenset[str]:
    """Names of the steps that failed or build on one that did."""
    done = grid.run(steps, folder, run.console, patient=patient)
    kept = len(steps) - done.ran - len(done.lost)
    failed = f", {len(done.lost)} failed" if done.lost else ""
    run.console.log(f"grid: {done.ran} of {len(steps)} steps ran, {kept} were finished{failed}")
    return done.lost


def _common(run: Run) -> tuple[str, ...]:
    """Words of every command."""
    common = ["--recipe", run.recipe_name, "--device", run.device, "--seed", str(run.seed)]
    common += ["--limit", str(run.limit)] if run.limit else []
    return (*common, *(["--workers", str(run.most_workers)] if run.most_workers else []))


def _rows(run: Run, request: TableRequest) -> RowSetup:
    """The rows of table 1 that are asked for. Raises UsageError for another table, or without a set."""
    if request.number != 1:
        raise UsageError(f"--restorers makes rows of table 1, not of table {request.number}")
    if not request.test:
        raise UsageError("--restorers needs faces to restore: --test WIDER-Test=DIR, again for each set")
    names = tuple(dict.fromkeys(name.strip() for name in request.restorers if name.strip()))
    return RowSetup(request.out / "rows", names, sets_of(request.test), _common(run), run.overrides)


def _ground(run: Run, request: TableRequest, folder: Path) -> grid.GridSetup:
    """What the cells share; names and folders as the commands will read them."""
    grid.check(request.number)
    if request.dataset is None:
        raise UsageError("--grid needs captioned faces to train on: --dataset photoset/dataset")
    if len(request.test) > 1:
        raise UsageError(f"--test is there {len(request.test)} times: a grid has one")
    test = local(request.test[0]) if request.test else None
    if test is not None and not ((test / "clean").is_dir() and (test / "degraded").is_dir()):
        raise UsageError(f"--test {one_line(test)} holds no clean/ and degraded/: make it by evaluate synth")
    tables = load(run.recipe_name, list(run.overrides), SECTIONS).tables
    base = str(tables.get("train", {}).get("prior", {}).get("model", "tiny"))
    return grid.GridSetup(folder, request.dataset, test, base, _common(run), run.overrides)
