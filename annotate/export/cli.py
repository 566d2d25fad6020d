"""The commands `annotate compare` and `annotate export`, mounted by `authface.annotate.cli`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from authface.errors import one_line
from authface.options import DEFAULT_SET, Run, SetArgument, command_with_run

if TYPE_CHECKING:
    from authface.annotate.export.run import Exported

app = typer.Typer()

NEXT = {
    "dataset": "open: datasets.load_dataset({folder!r})\nnext: authface train prior {folder}",
    "imagefolder": "open: datasets.load_dataset({folder!r})",
    "webdataset": "open: datasets.load_dataset({folder!r}), or webdataset with its .tar files",
    "kohya": "next: sd-scripts with --dataset_config {folder}/dataset.toml",
    "manifest": "next: authface annotate rebuild {folder} NEW-SET",
}


@app.command()
@command_with_run
def compare(
    run: Run,
    set: SetArgument = DEFAULT_SET,
    first: Annotated[str | None, typer.Argument(metavar="[A]", help="An annotator, such as measured.")] = None,
    second: Annotated[str | None, typer.Argument(metavar="[B]", help="Another, such as llava.")] = None,
) -> None:
    """Where annotators agree and where not, tag by tag; reports/compare.html shows the crops. No names: all pairs."""
    from authface.annotate import compare as comparing
    from authface.annotate.settings import ExportSettings
    from authface.store.photoset import PhotoSet

    settings = run.settings("annotate.export", ExportSettings)
    photoset = PhotoSet.open(set)
    pairs = comparing.pairs_of(photoset, [name for name in (first, second) if name is not None])
    if run.dry_run:
        told = "\n".join(" and ".join(pair) for pair in pairs)
        return run.console.result(f"would compare\n{told}", pairs=pairs)
    found = [comparing.compare(photoset, one, other, settings.least_confidence) for one, other in pairs]
    page = comparing.write_page(photoset, found)
    run.console.result(
        "\n\n".join(map(comparing.text, found)) + f"\nreport: {one_line(page)}\n"
        f"next: authface annotate export {one_line(set)} --resolve measured, or first, union, agreed",
        report=str(page),
        comparisons=[one.as_json() for one in found],
    )


@app.command()
@command_with_run
def export(
    run: Run,
    set: SetArgument = DEFAULT_SET,
    format: Annotated[
        str | None, typer.Option("--format", help="dataset, imagefolder, webdataset, kohya, manifest.")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="FOLDER", help="In place of SET/dataset or SET/exports/FORMAT.")
    ] = None,
    resolve: Annotated[
        str | None,
        typer.Option("--resolve", metavar="POLICY", help="Where annotators overlap: first, measured, union, agreed."),
    ] = None,
) -> None:
    """Write SET/dataset, Parquet with the images inside, its card and its splits; or another trainer's format."""
    from authface.annotate.export.run import export as run_export
    from authface.annotate.settings import ExportSettings
    from authface.review.reviews import ReviewSettings
    from authface.store.photoset import PhotoSet

    review = run.settings("curate.review", ReviewSettings)
    settings = run.settings("annotate.export", ExportSettings, format=format, to=to, resolve=resolve)
    photoset = PhotoSet.open(set)
    told = settings.model_dump(mode="json")
    if run.dry_run:
        lines = "\n".join(f"{name} = {value!r}" for name, value in told.items())
        return run.console.result(f"[annotate.export]\n{lines}", section="annotate.export", settings=told)
    with photoset.lock():
        photoset.remember("annotate.export", told)
        done = run_export(photoset, settings, run.console, review=review, limit=run.limit)
    run.console.result(
        _text(done) + "\n" + NEXT[settings.format].format(folder=one_line(done.folder)),
        dataset=str(done.folder),
        format=settings.format,
        written=done.written,
        rows=done.rows,
        splits=done.splits,
        left_out=done.left_out,
        files=done.files,
        bytes=done.bytes,
    )


def _text(done: Exported) -> str:
    what = "written" if done.written else "is up to date"
    splits = ", ".join(f"{count:,} {name}" for name, count in done.splits.items()) if len(done.splits) > 1 else ""
    lines = [
        f"{one_line(done.folder)} {what}: {done.rows:,} faces{f' ({splits})' if splits else ''}, "
        f"{done.files:,} files, {done.bytes / 1e6:,.1f} MB"
    ]
    if done.left_out:
        why = ", ".join(f"{count:,} {one_line(name.replace('_', ' '))}" for name, count in done.left_out.items())
        lines.append(f"left out: {why}")
    return "\n".join(lines)
