"""`authface evaluate`: the paper's tables on any folder of outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from authface.options import Run, command_with_run, later

app = typer.Typer(help="The paper's tables, on any folder of outputs.", no_args_is_help=True)


@app.command()
@command_with_run
def synth(
    run: Run,
    faces: Annotated[Path, typer.Argument(metavar="FACES", help="A folder of square faces, or a dataset folder.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for clean/, degraded/ and manifest.json.")],
    degradation: Annotated[
        str | None, typer.Option(help="mild, medium, heavy, gfpgan, codeformer_large, ...; default medium.")
    ] = None,
) -> None:
    """A test set with truth: degraded copies of clean faces. Run again, it makes only what is missing."""
    from authface.degrade import preset
    from authface.errors import one_line
    from authface.evaluate.settings import SynthSettings
    from authface.evaluate.sources import open_sources
    from authface.evaluate.synth import conclude, synthesize

    settings = run.settings("evaluate.synth", SynthSettings, degradation=degradation)
    preset(settings.degradation)
    sources = open_sources(faces, settings.split)
    count = min(run.limit, len(sources)) if run.limit else len(sources)
    if run.dry_run:
        said = f"{count} faces of {one_line(faces)} -> {one_line(out)}, {settings.degradation}, seed {run.seed}"
        return run.console.result(said, count=count, settings=settings.model_dump(mode="json"))
    summary = synthesize(out, sources, settings, run.seed, run.console, limit=run.limit, workers=run.workers)
    for row in summary.failed[:20]:
        run.console.log(f"{one_line(row.id)}: failed ({row.reason}): {row.detail}")
    run.console.result(
        conclude(summary, out),
        made=summary.made,
        done_before=summary.kept,
        removed=summary.removed,
        count=summary.count,
        failed=[{"id": row.id, "reason": row.reason, "detail": row.detail} for row in summary.failed],
        out=str(out),
    )
    if summary.failed:
        run.console.log(f"{len(summary.failed)} faces failed: {one_line(out)}/manifest.json says why")
        raise typer.Exit(3)


@app.command()
def restoration() -> None:
    """Metrics of restored faces."""
    later("evaluate restoration")


@app.command()
def prior() -> None:
    """FID and human preference of a face prior."""
    later("evaluate prior")


@app.command()
def runtime() -> None:
    """Seconds a face and peak memory."""
    later("evaluate runtime")


@app.command()
def table(number: Annotated[int, typer.Argument(min=1, max=6)]) -> None:
    """One of the paper's tables, ours beside theirs."""
    later(f"evaluate table {number}")


@app.command()
def ab() -> None:
    """A blind A/B study as a local page."""
    later("evaluate ab")
