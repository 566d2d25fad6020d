"""`authface annotate`: tags for the crops, and the Hugging Face dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from authface.errors import AuthfaceError, UsageError, one_line
from authface.options import DEFAULT_SET, Run, SetArgument, command_with_run, later

if TYPE_CHECKING:
    from authface.recipe import Settings

app = typer.Typer(help="Tags by a closed vocabulary, and the Hugging Face dataset.", no_args_is_help=True)


@app.command()
@command_with_run
def tags(
    run: Run,
    set: SetArgument = DEFAULT_SET,
    annotator: Annotated[
        str | None, typer.Option("--with", metavar="ANNOTATOR", help="measured; llava and openai come later.")
    ] = None,
) -> None:
    """Tag every kept crop. Run again, it tags only what is new or changed."""
    from authface.annotate.settings import TagsSettings
    from authface.annotate.tags import ANNOTATOR, MeasuredTags
    from authface.photoset import PhotoSet
    from authface.reviews import Honouring, ReviewSettings, reviewed_crops
    from authface.runner import run as run_parts

    review = run.settings("curate.review", ReviewSettings)
    settings = run.settings("annotate.tags", TagsSettings, annotator=annotator)
    photoset = PhotoSet.open(set)
    where = one_line(set)
    if settings.annotator != ANNOTATOR:
        raise UsageError(
            f"tags by {settings.annotator} come in a later version: "
            f"now run authface annotate tags {where} --with measured"
        )
    if not photoset.crops.parts():
        raise UsageError(f"{where} has no crops yet: run authface curate align {where}")
    if run.dry_run:
        return _show(run, "annotate.tags", settings)
    with photoset.lock():
        photoset.remember("annotate.tags", settings.model_dump(mode="json"))
        inputs = reviewed_crops(photoset, review, run.limit)
        if not any(part.count for part in inputs):
            raise AuthfaceError(f"{where} has no kept crops to tag: authface curate report {where} says why")
        work = Honouring(MeasuredTags(set, settings.measured))
        target = photoset.tags(ANNOTATOR)
        summary = run_parts(work, inputs, target, run.console, workers=run.workers, cluster=run.cluster())
    rate = f" in {summary.seconds:.1f} s, {summary.rows / summary.seconds:.1f} images/s" if summary.made else ""
    counts = "\n".join(f"  {count:>9,}  {name}" for name, count in summary.counts.most_common())
    run.console.result(
        f"{summary.made} parts made{rate}, {summary.skipped} were done before\n{counts}\n"
        f"next: authface annotate export {where}",
        made=summary.made,
        skipped=summary.skipped,
        seconds=round(summary.seconds, 3),
        images=summary.rows,
        counts=dict(summary.counts),
    )
    if summary.failed:
        run.console.log(f"{summary.failed} crops could not be tagged: authface curate align {where} makes them again")
        raise typer.Exit(3)


@app.command()
@command_with_run
def export(run: Run, set: SetArgument = DEFAULT_SET) -> None:
    """Write SET/dataset: Parquet with the images inside, and its card; datasets.load_dataset opens it."""
    from authface.annotate.export import export as run_export
    from authface.annotate.settings import ExportSettings
    from authface.photoset import PhotoSet
    from authface.reviews import ReviewSettings

    review = run.settings("curate.review", ReviewSettings)
    settings = run.settings("annotate.export", ExportSettings)
    photoset = PhotoSet.open(set)
    if run.dry_run:
        return _show(run, "annotate.export", settings)
    with photoset.lock():
        photoset.remember("annotate.export", settings.model_dump(mode="json"))
        done = run_export(photoset, settings, run.console, review=review, limit=run.limit)
    what = "written" if done.written else "is up to date"
    folder = one_line(done.folder)
    run.console.result(
        f"dataset {folder} {what}: {done.rows:,} faces, {done.shards} files, {done.bytes / 1e6:,.1f} MB\n"
        f"open: datasets.load_dataset({folder!r}, split='train')\n"
        f"next: authface train prior {folder}",
        dataset=str(done.folder),
        written=done.written,
        rows=done.rows,
        shards=done.shards,
        bytes=done.bytes,
    )


@app.command()
def compare(set: SetArgument = DEFAULT_SET) -> None:
    """Where annotators agree and where not."""
    later("annotate compare")


@app.command()
def push(set: SetArgument = DEFAULT_SET) -> None:
    """Publish the dataset on the Hugging Face hub."""
    later("annotate push")


def _show(run: Run, section: str, settings: Settings) -> None:
    lines = "\n".join(f"{name} = {value!r}" for name, value in settings.model_dump().items())
    run.console.result(f"[{section}]\n{lines}", section=section, settings=settings.model_dump(mode="json"))
