"""`authface train`."""

import typer

app = typer.Typer(no_args_is_help=True)


@app.command()
def placeholder() -> None:
    """Replaced by the stage."""
