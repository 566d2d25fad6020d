"""The command line: mounts the stages and turns errors into one line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from authface import __version__
from authface.annotate.cli import app as annotate
from authface.curate.cli import app as curate
from authface.errors import AuthfaceError, UsageError, one_line, was_interrupted
from authface.evaluate.cli import app as evaluate
from authface.extras import of_import
from authface.models.cli import app as models
from authface.options import DEFAULT_SET, SetArgument, command_with_run, open_set
from authface.options import Run as Run
from authface.restore.cli import restore, serve, web_app
from authface.train.cli import app as train
from authface.train.cli import estimate as estimate_train

app = typer.Typer(
    name="authface",
    help="Build face datasets, train a face prior, restore faces: curate -> annotate -> train -> restore.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: typer's rich one imports Markdown and syntax colouring, 0.3 s of every call
)
app.add_typer(curate, name="curate")
app.add_typer(annotate, name="annotate")
app.add_typer(train, name="train")
app.command()(command_with_run(restore))
app.command("app")(command_with_run(web_app))
app.command()(command_with_run(serve))
app.add_typer(evaluate, name="evaluate")
app.add_typer(models, name="models")
estimate = typer.Typer(help="What a command will take, before it starts.", no_args_is_help=True)
estimate.add_typer(estimate_train, name="train")
app.add_typer(estimate, name="estimate")


INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it, after SIGTERM and after SIGHUP."""
STOPPED = "stopped; what was finished is kept, run the same command again to go on"


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"authface {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Build face datasets, train a face prior, restore faces: curate -> annotate -> train -> restore."""


@app.command()
@command_with_run
def demo(
    run: Run, out: Annotated[Path, typer.Argument(help="Folder for the demo's files.")] = Path("authface-demo")
) -> None:
    """The whole arrow on photos that ship with the dependencies: CPU, no network; ends in one HTML report."""
    from authface.demo import demo as run_demo

    run_demo(out, run)


@app.command()
@command_with_run
def doctor(
    run: Run, online: Annotated[bool, typer.Option("--online", help="Ask the hub whether it answers.")] = False
) -> None:
    """Check this machine: packages, devices, weights and their licences, disk; each line with what mends it.

    Exit code 1 if something is broken that `authface restore` needs here. Nothing is asked of the network by default.
    """
    from authface.evaluate.catalogue import FILES
    from authface.inspect.doctor import as_json, examine, to_text

    findings = examine(FILES, online=online)
    run.console.result(to_text(findings), **as_json(findings))
    if any(finding.stops for finding in findings):
        raise typer.Exit(1)


@app.command()
@command_with_run
def status(run: Run, set: SetArgument = DEFAULT_SET) -> None:
    """What is done in a photo set, and what comes next; of a folder that restore writes, its results and its runs."""
    from authface.files import is_local
    from authface.inspect.status import read_status, restored_in, restored_text, to_text

    try:
        photoset = open_set(set)
    except UsageError:
        restored = restored_in(set) if is_local(set) else None
        if restored is None or not (restored.runs or restored.folders):
            raise
        return run.console.result(restored_text(restored), **restored.as_json())
    found = read_status(photoset)
    run.console.result(to_text(found), **found.as_json())


@app.command()
@command_with_run
def why(
    run: Run,
    set: SetArgument,
    id: Annotated[
        str, typer.Argument(metavar="ID", help="In a set: photo or face id, six digits of it, or a file's name.")
    ] = "",
) -> None:
    """All that happened to one photo of a set; with a restored photo or video in the place of SET, how it was made."""
    from authface.inspect.why import forgotten_at, photo_history, to_text

    if set.is_file() and not id:
        from authface.restore import outcome

        made = outcome.provenance_of(set)
        return run.console.result(outcome.to_text(made), **made.as_json())
    if not id:
        raise UsageError(f"{one_line(set)} is no file: name a restored photo, or a set and an ID")
    photoset = open_set(set)
    try:
        found = photo_history(photoset, id)
    except UsageError:
        if not (at := forgotten_at(photoset, id)):
            raise
        return run.console.result(f"forgotten {at}: nothing of it is left", forgotten=at)
    run.console.result(to_text(found), **found.as_json())


def main() -> None:
    """Run the command line: an AuthfaceError is one red line; no trace without ``--debug``."""
    debug = "--debug" in sys.argv
    _heed_signals()
    # Threads that spin while they wait stop each other where cores are shared: on two cores beside one other busy
    # process a training step of the tiny VAE took 7.5 s spinning and 0.25 s asleep. NumPy's products are
    # small, and threads that share one wait for each other: the search of `curate split` took three times as long with
    # two, by the clock too, eigenvalues for FID five times (1.5 s with one). Read when torch and NumPy load.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        app()
    except AuthfaceError as error:
        if debug:
            raise
        _fail(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        found = of_import(error)
        if debug or found is None:
            raise
        _fail(str(found), found.exit_code)
    except (KeyboardInterrupt, SystemExit) as end:  # typer turns Ctrl-C into a silent exit code 130
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:
            raise
        _fail(STOPPED, INTERRUPTED)
    except Exception as error:  # the last stop before the user: a bug is one line too
        if was_interrupted(error):
            _fail(STOPPED, INTERRUPTED)
        if debug:
            raise
        _fail(f"unexpected {type(error).__name__}: {one_line(error)}; run again with --debug for the trace", 1)


def _heed_signals() -> None:
    """Let SIGTERM, by which a scheduler takes a machine back, be as Ctrl-C: what is held, such as a lease, is freed.

    SIGHUP, of a terminal that is closed, is as SIGTERM, unless it is ignored, as by nohup.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))


def _fail(message: str, code: int) -> None:
    typer.secho(f"authface: {one_line(message, 2000)}", fg=typer.colors.RED, err=True)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
