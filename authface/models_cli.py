"""`authface models`: list, pull, verify, pack."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from authface.options import Run, command_with_run, later

app = typer.Typer(help="Models: what there is, fetch it, check it, make one ready to ship.", no_args_is_help=True)


class Precision(StrEnum):
    """What `--dtype` takes."""

    float16 = "float16"
    bfloat16 = "bfloat16"
    float32 = "float32"


@app.command("pack")
@command_with_run
def pack(
    run: Run,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A trained family, such as models/authface.")],
    out: Annotated[Path, typer.Option("-o", metavar="OUT", help="The folder it is written to.")],
    dtype: Annotated[Precision, typer.Option(help="Precision of its weights.")] = Precision.float16,
) -> None:
    """Copy a family for shipping: one precision, no checkpoints, the sha256 of every file in weights.json.

    The same family always gives the same bytes. An earlier pack in OUT is replaced; anything else there is refused.
    """
    from authface import pack as packing
    from authface.errors import one_line
    from authface.layout import MANIFEST

    folder, out = folder.expanduser(), out.expanduser()
    files = packing.family_files(folder)
    names = [path.relative_to(folder).as_posix() for path in files]
    if run.dry_run:
        size = packing.planned_bytes(files, dtype)
        said = "\n".join([*map(one_line, names), f"would write {len(names):,} files, about {size / 1e6:,.1f} MB"])
        return run.console.result(said, files=names, bytes=size, dtype=str(dtype))
    with run.console.progress("pack", len(files), "files") as tick:
        done = packing.pack(folder, out, dtype, tick)
    listed = "\n".join(f"{facts.bytes:>14,}  {one_line(name)}" for name, facts in sorted(done.files.items()))
    total = f"{done.parameters / 1e6:,.1f} M parameters in {done.dtype}, {done.bytes / 1e6:,.1f} MB"
    run.console.result(
        f"{listed}\npacked {total}: {one_line(out)} ({len(done.files):,} files and {MANIFEST})",
        out=str(out),
        dtype=done.dtype,
        parameters=done.parameters,
        bytes=done.bytes,
        files={name: facts.sha256 for name, facts in done.files.items()},
    )


@app.command("list")
def models_list() -> None:
    """Every model by name, with licence and size."""
    later("models list")


@app.command("pull")
def models_pull(name: Annotated[str, typer.Argument()]) -> None:
    """Download a model."""
    later("models pull")


@app.command("verify")
def models_verify(name: Annotated[str, typer.Argument()] = "") -> None:
    """Check a model's files against their sha256."""
    later("models verify")
