"""`authface evaluate`: the paper's tables on any folder of outputs."""

from typing import Annotated

import typer

from authface.options import later

app = typer.Typer(help="The paper's tables, on any folder of outputs.", no_args_is_help=True)


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
