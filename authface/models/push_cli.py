"""The command `authface models push`, mounted by `authface.models.cli`."""

from __future__ import annotations

from typing import Annotated

import typer

from authface.options import Run, command_with_run

app = typer.Typer()


@app.command("push")
@command_with_run
def models_push(
    run: Run,
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="tiny, or a folder such as models/authface.")],
    repo_id: Annotated[str, typer.Argument(metavar="REPO_ID", help="OWNER/NAME of a model on the hub.")],
    public: Annotated[bool, typer.Option("--public", help="Everybody may read it; else it is private.")] = False,
    rights: Annotated[
        bool,
        typer.Option("--i-hold-the-rights", help="Weights whose card names no licence that is recognised are yours."),
    ] = False,
) -> None:
    """Publish a family on the hub: parts, graphs, index, presets and card; checkpoints and caches stay.

    The token is HF_TOKEN or that of `hf auth login`. Files of these parts that were there before are replaced.
    """
    from authface.errors import one_line
    from authface.models.hub import check_name, repository
    from authface.models.publish import plan

    check_name(repo_id)
    with run.console.progress("check", None, "files") as tick:
        planned = plan(family, rights=rights, tick=tick)
    listed = "\n".join(f"{count:>14,}  {one_line(name)}" for name, count in planned.files.items())
    told = f"{len(planned.files):,} files, {planned.bytes / 1e6:,.1f} MB"
    about = f"licence: {one_line(planned.licence) or 'none in its card; the rights are yours, you say'}"
    about += f"; from {one_line(planned.base)}, whose licence holds too" if planned.base else ""
    known = {"licence": planned.licence, "base": planned.base, "files": dict(planned.files), "bytes": planned.bytes}
    if run.dry_run:
        said = f"{listed}\n{about}\nwould send {told} to {one_line(repo_id)}; nothing was sent"
        return run.console.result(said, **known)
    there = repository(repo_id, public=public, kind="model")
    there.check()
    run.console.log(f"push: {told} to {one_line(repo_id)}")
    commit = there.upload(
        planned.folder, patterns=list(planned.files), stale=planned.stale, message="authface models push"
    )
    run.console.result(f"{listed}\n{about}\nsent {told}: {one_line(commit)}", **known, commit=commit)
