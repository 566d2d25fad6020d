"""The commands `annotate push` and `annotate rebuild`, mounted by `authface.annotate.cli`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from authface.errors import one_line
from authface.options import Run, SetArgument, command_with_run

if TYPE_CHECKING:
    from authface.annotate.export.publication import Plan
    from authface.annotate.rebuild.run import Rebuilt

app = typer.Typer()


@app.command()
@command_with_run
def push(
    run: Run,
    set: SetArgument,
    repo_id: Annotated[str, typer.Argument(metavar="REPO_ID", help="OWNER/NAME of a dataset on the hub.")],
    public: Annotated[bool, typer.Option("--public", help="Everybody may read it; else it is private.")] = False,
    pixels: Annotated[
        bool, typer.Option("--pixels/--no-pixels", help="Send images where terms allow it, or of no row.")
    ] = True,
    rights: Annotated[
        bool,
        typer.Option("--i-hold-the-rights", help="Photos of unknown licence, or with all rights reserved, are yours."),
    ] = False,
) -> None:
    """Publish SET/dataset on the hub; rows whose terms forbid it go without pixels, in a rebuildable manifest.

    The token is HF_TOKEN or that of `hf auth login`. What was in the repository's data/ and manifest/ is replaced.
    """
    from authface.annotate.export.publication import SENT, files_of, plan, prepare
    from authface.annotate.export.run import folder_of
    from authface.annotate.export.terms import Publisher
    from authface.annotate.settings import ExportSettings
    from authface.models.hub import check_name, repository
    from authface.store.photoset import PhotoSet

    settings = run.settings("annotate.export", ExportSettings, format="dataset")
    photoset = PhotoSet.open(set)
    check_name(repo_id)
    publisher = Publisher(rights=rights, pixels=pixels)
    planned = plan(photoset, folder_of(photoset, settings), publisher)
    told = _plan_text(planned)
    if run.dry_run:
        return run.console.result(f"would send to {repo_id}\n{told}\nnothing was sent", **_plan_json(planned))
    there = repository(repo_id, public=public)
    there.check()
    with photoset.lock():
        folder = prepare(photoset, planned, publisher, run.console)
        files = files_of(folder)
        size = sum(path.stat().st_size for path in files)
        run.console.log(f"push: {len(files):,} files, {size / 1e6:,.1f} MB to {one_line(repo_id)}")
        stale = ("data/*", "manifest/*")
        commit = there.upload(folder, patterns=SENT, stale=stale, message="authface annotate push")
    run.console.result(
        f"{told}\nsent {len(files):,} files, {size / 1e6:,.1f} MB: {one_line(commit)}",
        **(_plan_json(planned) | {"files": [path.relative_to(folder).as_posix() for path in files], "bytes": size}),
        commit=commit,
    )


def _plan_text(planned: Plan) -> str:
    about = "" if planned.as_it_is else "about "
    lines = [f"{planned.rows:,} rows, {planned.with_pixels:,} with pixels, {about}{planned.bytes / 1e6:,.1f} MB"]
    lines += [f"  {count:>9,}  without pixels: {why}" for why, count in planned.held.most_common()]
    lines += [f"  {name}" for name in _files(planned)]
    return "\n".join(lines)


def _files(planned: Plan) -> list[str]:
    """What is sent, as far as it is there; where it is still to be made, its folders."""
    from authface.annotate.export.publication import files_of

    if planned.as_it_is:
        return [path.relative_to(planned.folder).as_posix() for path in files_of(planned.folder)]
    return [*(["data/*.parquet"] if planned.with_pixels else []), "manifest/*.parquet", "README.md", "authface.json"]


def _plan_json(planned: Plan) -> dict[str, object]:
    return {
        "rows": planned.rows,
        "with_pixels": planned.with_pixels,
        "without_pixels": dict(planned.held),
        "files": _files(planned),
        "bytes": planned.bytes,
    }


@app.command()
@command_with_run
def rebuild(
    run: Run,
    manifest: Annotated[
        str, typer.Argument(metavar="MANIFEST", help="Its folder or .parquet file, or OWNER/NAME of the hub.")
    ],
    set: SetArgument,
) -> None:
    """Make a set again from a manifest: lists the photos to fetch; run again after, it cuts and tags their faces.

    Photos are known by their bytes: curate fetch --from folder brings those you have, whatever they are called. What is
    missing or has changed since is counted, and listed in SET/rebuild/drift.jsonl.
    """
    from authface.annotate.export.manifest import locate
    from authface.annotate.rebuild.run import rebuild as run_rebuild
    from authface.store.photoset import PhotoSet

    rows = locate(manifest)
    if run.dry_run:
        photos = {one.photo_id for one in rows.origins()}
        return run.console.result(f"{len(photos):,} photos in {one_line(manifest)}", photos=len(photos))
    photoset = PhotoSet(set)
    with photoset.lock():
        done = run_rebuild(photoset, rows, run.console, workers=run.workers)
    run.console.result(
        _rebuilt_text(done, set, manifest),
        rows=done.rows,
        crops=done.crops,
        to_fetch=done.to_fetch,
        drift=dict(done.drift),
    )
    if done.lost:
        run.console.log(f"{done.lost:,} rows are not as they were: {one_line(set)}/rebuild/drift.jsonl names them")
        raise typer.Exit(3)


def _rebuilt_text(done: Rebuilt, set: Path, manifest: str) -> str:
    from authface.annotate.rebuild.run import URLS, WORDS

    here = one_line(set)
    lines = [f"{done.crops:,} of {done.rows:,} crops of the manifest are in {here}"]
    lines += [f"  {count:>9,}  {WORDS[kind]}" for kind, count in done.drift.most_common()]
    again = f"authface annotate rebuild {one_line(manifest)} {here}"
    if done.to_fetch:
        lines.append(f"next: authface curate fetch {here} --from urls {here}/{URLS}, then {again}")
    elif done.drift["no_address"]:
        lines.append(f"next: authface curate fetch {here} --from folder PHOTOS, then {again}")
    else:
        lines.append(f"next: authface annotate export {here} --resolve union")
    return "\n".join(lines)
