"""`authface annotate`: tags for the crops, the Hugging Face dataset, and sets made of what others published."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from authface.errors import UsageError, one_line, shell_word
from authface.options import DEFAULT_SET, Run, SetArgument, command_with_run, open_set

if TYPE_CHECKING:
    from authface.annotate.export.run import Exported
    from authface.annotate.rebuild.run import Rebuilt
    from authface.store.photoset import PhotoSet

app = typer.Typer(help="Tags by a closed vocabulary, and the Hugging Face dataset.", no_args_is_help=True)

NEXT = {
    "dataset": "open: datasets.load_dataset({folder!r})\nnext: authface train prior {word}",
    "imagefolder": "open: datasets.load_dataset({folder!r})",
    "webdataset": "open: datasets.load_dataset({folder!r}), or webdataset with its .tar files",
    "kohya": "next: sd-scripts with --dataset_config {word}/dataset.toml",
    "manifest": "next: authface annotate rebuild {word} NEW-SET",
    "croissant": "open: mlcroissant.Dataset({folder!r} + '/croissant.json').records('faces')",
    "fiftyone": "open: fiftyone.Dataset.from_dir({folder!r}, dataset_type=fiftyone.types.FiftyOneDataset)",
    "files": "open: {folder} with a photo library; exiftool -Subject -Keywords shows what was written",
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
    from authface.annotate import agreement
    from authface.annotate.settings import ExportSettings

    settings = run.settings("annotate.export", ExportSettings)
    photoset = open_set(set)
    pairs = agreement.pairs_of(photoset, [name for name in (first, second) if name is not None])
    if run.dry_run:
        lines = "\n".join(" and ".join(pair) for pair in pairs)
        return run.console.result(f"would compare\n{lines}", pairs=pairs)
    found = agreement.compare_pairs(photoset, pairs, settings.least_confidence, run.console.log)
    page = agreement.write_page(photoset, found)
    run.console.result(
        "\n\n".join(map(agreement.to_text, found)) + f"\nreport: {one_line(page)}\n"
        f"next: authface annotate export {shell_word(set)} --resolve measured, or first, union, agreed",
        report=str(page),
        comparisons=[pair.as_json() for pair in found],
    )


@app.command()
@command_with_run
def export(
    run: Run,
    set: SetArgument = DEFAULT_SET,
    format: Annotated[
        str | None,
        typer.Option("--format", help="dataset, imagefolder, webdataset, kohya, manifest, croissant, fiftyone, files."),
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
    from authface.annotate.export.run import annotators_of
    from authface.annotate.export.run import export as run_export
    from authface.annotate.settings import ExportSettings
    from authface.review.reviews import ReviewSettings

    review = run.settings("curate.review", ReviewSettings)
    settings = run.settings("annotate.export", ExportSettings, format=format, to=to, resolve=resolve)
    photoset = open_set(set)
    values = settings.model_dump(mode="json")
    if run.dry_run:
        annotators_of(photoset, settings)
        lines = "\n".join(f"{name} = {value!r}" for name, value in values.items())
        return run.console.result(f"[annotate.export]\n{lines}", section="annotate.export", settings=values)
    with photoset.lock():
        photoset.remember("annotate.export", values)
        done = run_export(photoset, settings, run.console, review=review, limit=run.limit)
    lacks = _lacking(photoset.root, done)
    onward = NEXT[settings.format].format(folder=one_line(done.folder), word=shell_word(done.folder))
    run.console.result(
        "\n".join([_export_text(done), *lacks, onward]),
        dataset=str(done.folder),
        format=settings.format,
        written=done.written,
        rows=done.rows,
        splits=done.splits,
        warnings=lacks,
        left_out=done.left_out,
        conditions=done.conditions,
        files=done.files,
        bytes=done.bytes,
    )


def _lacking(root: Path, done: Exported) -> list[str]:
    """A line where the dataset lacks faces to test on, and what to do."""
    if not done.rows or done.splits.get("test"):
        return []
    here = one_line(root)
    return [
        f"warning: no test faces, which evaluate needs: authface curate split {shell_word(here)}, then export it again"
    ]


def _export_text(done: Exported) -> str:
    what = "written" if done.written else "is up to date"
    splits = ", ".join(f"{count:,} {name}" for name, count in done.splits.items()) if len(done.splits) > 1 else ""
    lines = [
        f"{one_line(done.folder)} {what}: {done.rows:,} faces{f' ({splits})' if splits else ''}, "
        f"{done.files:,} files, {done.bytes / 1e6:,.1f} MB"
    ]
    if done.left_out:
        why = ", ".join(f"{count:,} {one_line(name.replace('_', ' '))}" for name, count in done.left_out.items())
        lines.append(f"left out: {why}")
    if done.conditions:
        lines.append("licences: " + ", ".join(f"{n:,} faces under {name}" for name, n in done.conditions.items()))
    return "\n".join(lines)


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
    names: Annotated[
        bool, typer.Option("--names", help="Send the names of local files too; else ids go instead.")
    ] = False,
    rights: Annotated[
        bool,
        typer.Option("--i-hold-the-rights", help="Photos of no licence that is recognised are yours."),
    ] = False,
) -> None:
    """Publish SET/dataset on the hub; rows whose terms forbid it go without pixels, in a rebuildable manifest.

    The token is HF_TOKEN or that of `hf auth login`. What was in the repository's data/ and manifest/ is replaced.
    """
    from authface.annotate.export.publication import SENT, Publisher, files_of, plan, prepare
    from authface.annotate.export.run import folder_of
    from authface.annotate.settings import ExportSettings
    from authface.models.hub import check_name, repository

    settings = run.settings("annotate.export", ExportSettings, format="dataset")
    photoset = open_set(set)
    check_name(repo_id)
    publisher = Publisher(rights=rights, pixels=pixels, names=names)
    dataset = folder_of(photoset, settings)
    if run.dry_run:
        planned = plan(photoset, dataset, publisher)
        text = f"would send to {repo_id}\n{planned.as_text()}\nnothing was sent"
        return run.console.result(text, **planned.as_json())
    with photoset.lock():  # what is judged is what is sent, whatever others correct, forget or export meanwhile
        planned = plan(photoset, dataset, publisher)
        about = planned.as_text()
        there = repository(repo_id, public=public)
        there.check()
        folder = prepare(photoset, planned, publisher, run.console)
        files = files_of(folder)
        size = sum(path.stat().st_size for path in files)
        run.console.log(f"push: {len(files):,} files, {size / 1e6:,.1f} MB to {one_line(repo_id)}")
        stale = ("data/*", "manifest/*")
        commit = there.upload(folder, patterns=SENT, stale=stale, message="authface annotate push")
    run.console.result(
        f"{about}\nsent {len(files):,} files, {size / 1e6:,.1f} MB: {one_line(commit)}",
        **(planned.as_json() | {"files": [path.relative_to(folder).as_posix() for path in files], "bytes": size}),
        commit=commit,
    )


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
    from authface.inspect.status import next_step
    from authface.review.reviews import ReviewSettings

    review = run.settings("curate.review", ReviewSettings)
    settings = with_model(run.settings("annotate.tags", TagsSettings, annotator=annotator), model)
    photoset = open_set(set)
    where = one_line(set)
    if not photoset.crops.parts():
        raise UsageError(f"{where} has no crops yet: run authface curate align {shell_word(where)}")
    if run.dry_run:
        if settings.annotator in WITH_MODEL:
            load_prompt(settings.prompt)
        return run.show("annotate.tags", settings)
    with photoset.lock():
        photoset.remember("annotate.tags", settings.model_dump(mode="json"))
        done = tag(photoset, settings, review, run, redo=redo)
        page, tallies = write_report(photoset)
    summary, said = done.summary, tallies[settings.annotator]
    rate = f" in {summary.seconds:.1f} s, {summary.rows / summary.seconds:.1f} images/s" if summary.made else ""
    counts = "\n".join(f"  {count:>9,}  {name}" for name, count in summary.counts.most_common())
    words = ", ".join(f"{one_line(name)} ({count:,})" for name, count in list(said.unknown.items())[:5])
    run.console.result(
        f"{summary.made} parts made{rate}, {summary.skipped} were done before\n{counts}\n"
        + (f"{said.unknown_words:,} words not in the vocabulary: {words}\n" if words else "")
        + f"report: {one_line(page)}\nnext: {next_step(photoset)}",
        made=summary.made,
        skipped=summary.skipped,
        reread=done.reread,
        seconds=round(summary.seconds, 3),
        images=summary.rows,
        counts=dict(summary.counts),
        unknown=said.unknown,
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
    """Bring a released dataset in: photos, crops as they are, captions as tags. Run again, it takes what is new."""
    from authface.annotate.captioners.released import ANNOTATOR
    from authface.annotate.rebuild.authface_hq import import_faces, release_pictures
    from authface.annotate.settings import TagsSettings
    from authface.annotate.tagging import tag, write_report
    from authface.review.reviews import ReviewSettings
    from authface.store.photoset import PhotoSet

    review = run.settings("curate.review", ReviewSettings)
    settings = run.settings("annotate.tags", TagsSettings, annotator=ANNOTATOR)
    if run.dry_run:
        found = sum(1 for _ in release_pictures(folder, run.console.log))
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
    anew = f", {done.recaptioned:,} captions read anew" if done.recaptioned else ""
    run.console.result(
        f"{done.photos.rows:,} pictures imported, {done.before:,} were there before{anew}\n" + "\n".join(lines) + "\n"
        f"report: {one_line(page)}\nnext: authface annotate export {shell_word(where)}",
        imported=done.photos.rows,
        before=done.before,
        recaptioned=done.recaptioned,
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

    kept = (photo for photo in photoset.photos if (photo.source, photo.status) == (SOURCE, "kept"))
    names = {photo.id: photo.source_id for photo in kept}
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
    from authface.annotate.rebuild.drift import WORDS
    from authface.store.photoset import TO_FETCH

    here = one_line(set)
    lines = [f"{done.crops:,} of {done.rows:,} crops of the manifest are in {here}"]
    lines += [f"  {count:>9,}  {WORDS[kind]}" for kind, count in done.drift.most_common()]
    again = f"authface annotate rebuild {shell_word(manifest)} {shell_word(here)}"
    if done.to_fetch:
        lines.append(
            f"next: "
            f"authface curate fetch {shell_word(here)} --from urls {shell_word(f'{here}/{TO_FETCH}')}, then {again}"
        )
    elif done.drift["no_address"]:
        lines.append(f"next: authface curate fetch {shell_word(here)} --from folder PHOTOS, then {again}")
    else:
        lines.append(f"next: authface annotate export {shell_word(here)} --resolve union")
    return "\n".join(lines)
