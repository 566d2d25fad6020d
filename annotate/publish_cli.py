"""The commands `annotate push` and `annotate rebuild`, mounted by `authface.annotate.cli`."""

from __future__ import annotations

import typer

app = typer.Typer()
