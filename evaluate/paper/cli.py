"""What `authface evaluate table` does: fill a table of the paper with our reports, or plan and run its grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from authface.errors import UsageError, one_line
from authface.evaluate.paper import grid
from authface.evaluate.paper import page as paper_page
from authface.evaluate.paper.paper import fill, paper_table, parse_reports
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
    test: Path | None


def show_table(run: Run, request: TableRequest) -> None:
    """Print and write the table; with ``--grid`` the commands that make ours, with ``--run`` run them first.

    Raises UsageError for reports that are none, AuthfaceError where a command of the grid fails.
    """
    table = paper_table(request.number)
    ours = parse_reports(request.ours)
    folder = request.out / "grid"
    if request.grid or request.run:
        steps = grid.plan(request.number, _ground(run, request, folder))
        if run.dry_run or not request.run:
            done = grid.finished(steps, folder)
            listed = [{"step": step.name, "command": step.command, "done": step.name in done} for step in steps]
            return run.console.result(grid.to_text(steps, folder), steps=listed)
        ran = grid.run(steps, folder, run.console)
        run.console.log(f"grid: {ran} of {len(steps)} steps ran, {len(steps) - ran} were finished")
    ours += grid.reports(request.number, folder)
    filled = fill(table, ours)
    if run.dry_run:
        return run.console.result(paper_page.as_text(filled), **paper_page.as_json(filled))
    page = paper_page.write(filled, request.out)
    text = f"{paper_page.as_text(filled)}\n\nreport: {one_line(page)}"
    beside = grid.compared(request.number, folder) / "restoration.html"
    text += f"\nours face by face: {one_line(beside)}" if beside.is_file() else ""
    run.console.result(text, **paper_page.as_json(filled), report=str(page), out=str(request.out))


def _ground(run: Run, request: TableRequest, folder: Path) -> grid.GridSetup:
    """What the cells share; names and folders as the commands will read them."""
    grid.check(request.number)
    if request.dataset is None:
        raise UsageError("--grid needs captioned faces to train on: --dataset photoset/dataset")
    if request.test is not None and not ((request.test / "clean").is_dir() and (request.test / "degraded").is_dir()):
        raise UsageError(f"--test {one_line(request.test)} holds no clean/ and degraded/: make it by evaluate synth")
    tables = load(run.recipe_name, list(run.overrides), SECTIONS).tables
    base = str(tables.get("train", {}).get("prior", {}).get("model", "tiny"))
    common = ["--recipe", run.recipe_name, "--device", run.device, "--seed", str(run.seed)]
    common += ["--limit", str(run.limit)] if run.limit else []
    common += ["--workers", str(run.most_workers)] if run.most_workers else []
    return grid.GridSetup(folder, request.dataset, request.test, base, tuple(common), run.overrides)
