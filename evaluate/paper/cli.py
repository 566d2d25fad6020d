"""What `authface evaluate table` does: fill a table of the paper with our reports, or plan and run its grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from authface.errors import UsageError, one_line
from authface.evaluate.paper import grid
from authface.evaluate.paper import page as paper_page
from authface.evaluate.paper.paper import fill, ours_of, paper_table
from authface.options import SECTIONS, Run
from authface.recipe import load


@dataclass(frozen=True)
class Asked:
    """The command's own arguments."""

    number: int
    ours: Sequence[str]
    out: Path
    grid: bool
    run: bool
    dataset: Path | None
    test: Path | None


def tell_table(run: Run, asked: Asked) -> None:
    """Print and write the table; with ``--grid`` the commands that make ours, with ``--run`` run them first.

    Raises UsageError for reports that are none, AuthfaceError where a command of the grid fails.
    """
    table = paper_table(asked.number)
    ours = ours_of(asked.ours)
    folder = asked.out / "grid"
    if asked.grid or asked.run:
        steps = grid.plan(asked.number, _ground(run, asked, folder))
        if run.dry_run or not asked.run:
            done = grid.finished(steps, folder)
            listed = [{"step": step.name, "command": step.command, "done": step.name in done} for step in steps]
            return run.console.result(grid.told(steps, folder), steps=listed)
        ran = grid.run(steps, folder, run.console)
        run.console.log(f"grid: {ran} of {len(steps)} steps ran, {len(steps) - ran} were finished")
    ours += grid.reports(asked.number, folder)
    filled = fill(table, ours)
    if run.dry_run:
        return run.console.result(paper_page.as_text(filled), **paper_page.as_json(filled))
    page = paper_page.write(filled, asked.out)
    told = f"{paper_page.as_text(filled)}\n\nreport: {one_line(page)}"
    beside = grid.compared(asked.number, folder) / "restoration.html"
    told += f"\nours face by face: {one_line(beside)}" if beside.is_file() else ""
    run.console.result(told, **paper_page.as_json(filled), report=str(page), out=str(asked.out))


def _ground(run: Run, asked: Asked, folder: Path) -> grid.Ground:
    """What the cells share; names and folders as the commands will read them."""
    grid.check(asked.number)
    if asked.dataset is None:
        raise UsageError("--grid needs captioned faces to train on: --dataset photoset/dataset")
    if asked.test is not None and not ((asked.test / "clean").is_dir() and (asked.test / "degraded").is_dir()):
        raise UsageError(f"--test {one_line(asked.test)} holds no clean/ and degraded/: make it by evaluate synth")
    tables = load(run.recipe_name, list(run.overrides), SECTIONS).tables
    base = str(tables.get("train", {}).get("prior", {}).get("model", "tiny"))
    common = ["--recipe", run.recipe_name, "--device", run.device, "--seed", str(run.seed)]
    common += ["--limit", str(run.limit)] if run.limit else []
    common += ["--workers", str(run.most_workers)] if run.most_workers else []
    return grid.Ground(folder, asked.dataset, asked.test, base, tuple(common), run.overrides)
