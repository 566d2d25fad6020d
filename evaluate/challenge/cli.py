"""What `authface evaluate challenge` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from authface.errors import one_line
from authface.evaluate.challenge import page
from authface.evaluate.challenge.run import ChallengeTask, run_challenge
from authface.evaluate.pairs import methods_of
from authface.evaluate.settings import ChallengeSettings
from authface.options import Run, later


def score_challenge(
    run: Run, outputs: Sequence[str], inputs: Path | None, on: str, settings: ChallengeSettings, out: Path
) -> None:
    """Write the report and print score and gate; exit code 3 where some outputs failed.

    Raises UsageError for names and settings that do not fit, AuthfaceError where nothing can be measured.
    """
    if run.engine != "local":
        later(f"evaluate challenge --engine {run.engine}")
    task = ChallengeTask(methods_of(outputs), inputs, on, settings, run.device, run.limit, run.workers)
    if run.dry_run:
        said = f"{', '.join(settings.metrics)} and identity by {settings.identity} of "
        said += ", ".join(one_line(method.folder) for method in task.methods)
        return run.console.result(said, settings=settings.model_dump(mode="json"))
    found = run_challenge(task, out, run.console)
    path = page.write(found, out)
    text = f"{page.as_text(found)}\n\nreport: {one_line(path)}"
    run.console.result(text, **found.as_json(), read_again=found.measured.read_again, report=str(path), out=str(out))
    if found.failed:
        run.console.log(f"{len(found.failed)} outputs failed: {one_line(path)} says why")
        raise typer.Exit(3)
