"""What `authface evaluate table` does: fill a table of the paper with our reports, or plan and run its grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from authface.errors import UsageError, one_line
from authface.evaluate.paper import grid
from authface.evaluate.paper import page as paper_page
from authface.evaluate.paper.paper import fill, paper_table, parse_reports
from authface.evaluate.paper.restorers import RowSetup, plan_rows, row_reports, sets_of
from authface.options import SECTIONS, Run
from authface.recipe import load


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
        return run.console.result(paper_page.as_text(filled), **paper_page.as_json(filled))
    page = paper_page.write(filled, request.out)
    text = f"{paper_page.as_text(filled)}\n\nreport: {one_line(page)}"
    beside = grid.compared(request.number, request.out / "grid") / "restoration.html"
    text += f"\nours face by face: {one_line(beside)}" if beside.is_file() else ""
    run.console.result(text, **paper_page.as_json(filled), report=str(page), out=str(request.out))
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
    test = Path(request.test[0]) if request.test else None
    if test is not None and not ((test / "clean").is_dir() and (test / "degraded").is_dir()):
        raise UsageError(f"--test {one_line(test)} holds no clean/ and degraded/: make it by evaluate synth")
    tables = load(run.recipe_name, list(run.overrides), SECTIONS).tables
    base = str(tables.get("train", {}).get("prior", {}).get("model", "tiny"))
    return grid.GridSetup(folder, request.dataset, test, base, _common(run), run.overrides)
