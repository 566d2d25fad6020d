"""`authface annotate`: tags for the crops, the Hugging Face dataset, and sets made of what others published."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from authface.annotate.export import cli as export_cli
from authface.errors import UsageError, one_line
from authface.options import DEFAULT_SET, Run, SetArgument, command_with_run, open_set

if TYPE_CHECKING:
    from authface.annotate.rebuild.run import Rebuilt
    from authface.store.photoset import PhotoSet

app = typer.Typer(help="Tags by a closed vocabulary, and the Hugging Face dataset.", no_args_is_help=True)
app.add_typer(export_cli.app)


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


@app.command("import")
@command_with_run
def import_set(
    run: Run,
    what: Annotated[Literal["authface-hq"], typer.Argument(help="The release: authface-hq.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where it is unpacked.")],
    set: SetArgument = DEFAULT_SET,
) -> None:
    """Bring a released dataset in: photos, crops as they are, captions as tags. Run again, it brings what is new."""
    from authface.annotate.captioners.released import ANNOTATOR
    from authface.annotate.rebuild.authface_hq import import_faces, release_pictures
    from authface.annotate.settings import TagsSettings
    from authface.annotate.tagging import tag, write_report
    from authface.review.reviews import ReviewSettings
    from authface.store.photoset import PhotoSet

    review = run.settings("curate.review", ReviewSettings)
    settings = run.settings("annotate.tags", TagsSettings, annotator=ANNOTATOR)
    if run.dry_run:
        found = sum(1 for _ in release_pictures(folder))
        return run.console.result(f"{found:,} pictures in {one_line(folder)}", pictures=found)
    photoset, where = PhotoSet(set), one_line(set)
    with photoset.lock():
        done = import_faces(photoset, folder, run.console, limit=run.limit)
        tags = tag(photoset, settings, review, replace(run, limit=0)).summary
        page, _ = write_report(photoset)
    steps = {"photos": done.photos, "faces": done.faces, "crops": done.crops, f"tags by {ANNOTATOR}": tags}
    lines = [
        f"  {name}: " + ", ".join(f"{count:,} {outcome}" for outcome, count in summary.counts.most_common())
        for name, summary in steps.items()
    ]
    run.console.result(
        f"{done.photos.rows:,} pictures imported, {done.before:,} were there before\n" + "\n".join(lines) + "\n"
        f"report: {one_line(page)}\nnext: authface annotate export {where}",
        imported=done.photos.rows,
        before=done.before,
        counts={name: dict(summary.counts) for name, summary in steps.items()},
        report=str(page),
    )
    _tell_failures(run, photoset)
    if sum(summary.failed for summary in steps.values()):
        raise typer.Exit(3)


def _tell_failures(run: Run, photoset: PhotoSet, most: int = 10) -> None:
    """The first failures, one line each; the tables hold them all."""
    from authface.annotate.captioners.released import ANNOTATOR
    from authface.annotate.rebuild.authface_hq import SOURCE

    names = {photo.id: photo.source_id for photo in photoset.photos if photo.source == SOURCE and photo.id}
    failed = [f"{photo.source_id}: {photo.detail}" for photo in photoset.photos if photo.status == "failed"]
    failed += [
        f"{names.get(row.id.partition('-')[0], row.id)}: {row.detail}"
        for row in photoset.tags(ANNOTATOR)
        if row.status == "failed"
    ]
    for line in failed[:most]:
        run.console.log(line)
    if len(failed) > most:
        run.console.log(f"and {len(failed) - most:,} more: authface why SET ID tells of each")


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
    from authface.annotate.rebuild.manifest import open_manifest
    from authface.annotate.rebuild.run import rebuild as run_rebuild
    from authface.store.photoset import PhotoSet

    rows = open_manifest(manifest)
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
