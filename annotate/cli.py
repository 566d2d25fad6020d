"""`authface annotate`: tags for the crops, and the Hugging Face dataset."""

from __future__ import annotations

from typing import Annotated

import typer

from authface.annotate.export import cli as export_cli
from authface.annotate.rebuild import cli as rebuild_cli
from authface.errors import UsageError, one_line
from authface.options import DEFAULT_SET, Run, SetArgument, command_with_run, open_set

app = typer.Typer(help="Tags by a closed vocabulary, and the Hugging Face dataset.", no_args_is_help=True)
app.add_typer(export_cli.app)
app.add_typer(rebuild_cli.app)


@app.command()
@command_with_run
def tags(
    run: Run,
    set: SetArgument = DEFAULT_SET,
    annotator: Annotated[
        str | None, typer.Option("--with", metavar="ANNOTATOR", help="llava, openai, measured, or qwen (imported).")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="Of llava: hub name or folder; of openai: name there."),
    ] = None,
    redo: Annotated[bool, typer.Option("--redo", help="Tag what is done again too.")] = False,
) -> None:
    """Tag every kept crop. Run again, it tags only what is new or changed; reports/tags.html shows the outcome."""
    from authface.annotate.captioners.captioner import load_prompt
    from authface.annotate.settings import TagsSettings
    from authface.annotate.tagging import WITH_MODEL, tag, with_model, write_report
    from authface.inspect.status import read_status
    from authface.review.reviews import ReviewSettings

    review = run.settings("curate.review", ReviewSettings)
    settings = with_model(run.settings("annotate.tags", TagsSettings, annotator=annotator), model)
    photoset = open_set(set)
    where = one_line(set)
    if not photoset.crops.parts():
        raise UsageError(f"{where} has no crops yet: run authface curate align {where}")
    if run.dry_run:
        if settings.annotator in WITH_MODEL:
            load_prompt(settings.prompt)
        return run.show("annotate.tags", settings)
    with photoset.lock():
        photoset.remember("annotate.tags", settings.model_dump(mode="json"))
        done = tag(photoset, settings, review, run, redo=redo)
        page, tallies = write_report(photoset)
    summary, unknown = done.summary, tallies[settings.annotator].unknown
    rate = f" in {summary.seconds:.1f} s, {summary.rows / summary.seconds:.1f} images/s" if summary.made else ""
    counts = "\n".join(f"  {count:>9,}  {name}" for name, count in summary.counts.most_common())
    words = ", ".join(f"{one_line(name)} ({count:,})" for name, count in unknown.most_common(5))
    run.console.result(
        f"{summary.made} parts made{rate}, {summary.skipped} were done before\n{counts}\n"
        + (f"{len(unknown):,} words not in the vocabulary: {words}\n" if unknown else "")
        + f"report: {one_line(page)}\nnext: {read_status(photoset).next}",
        made=summary.made,
        skipped=summary.skipped,
        reread=done.reread,
        seconds=round(summary.seconds, 3),
        images=summary.rows,
        counts=dict(summary.counts),
        unknown=dict(unknown.most_common(100)),
        report=str(page),
    )
    if summary.failed:
        run.console.log(f"{summary.failed} crops have no tags: {one_line(page)} says why")
        raise typer.Exit(3)
