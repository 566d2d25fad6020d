"""The commands `annotate compare`, `export` and `push`, mounted by `authface.annotate.cli`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from authface.errors import one_line
from authface.options import DEFAULT_SET, Run, SetArgument, command_with_run, open_set

if TYPE_CHECKING:
    from authface.annotate.export.publication import PushPlan
    from authface.annotate.export.run import Exported

app = typer.Typer()

NEXT = {
    "dataset": "open: datasets.load_dataset({folder!r})\nnext: authface train prior {folder}",
    "imagefolder": "open: datasets.load_dataset({folder!r})",
    "webdataset": "open: datasets.load_dataset({folder!r}), or webdataset with its .tar files",
    "kohya": "next: sd-scripts with --dataset_config {folder}/dataset.toml",
    "manifest": "next: authface annotate rebuild {folder} NEW-SET",
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
    found = [agreement.compare(photoset, one, other, settings.least_confidence) for one, other in pairs]
    page = agreement.write_page(photoset, found)
    run.console.result(
        "\n\n".join(map(agreement.to_text, found)) + f"\nreport: {one_line(page)}\n"
        f"next: authface annotate export {one_line(set)} --resolve measured, or first, union, agreed",
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
    run.console.result(
        "\n".join([_export_text(done), *lacks]) + "\n" + NEXT[settings.format].format(folder=one_line(done.folder)),
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
    return [f"warning: no test faces, which evaluate needs: authface curate split {here}, then export it again"]


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
    planned = plan(photoset, folder_of(photoset, settings), publisher)
    about = _push_text(planned)
    if run.dry_run:
        return run.console.result(f"would send to {repo_id}\n{about}\nnothing was sent", **_push_json(planned))
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
        f"{about}\nsent {len(files):,} files, {size / 1e6:,.1f} MB: {one_line(commit)}",
        **(_push_json(planned) | {"files": [path.relative_to(folder).as_posix() for path in files], "bytes": size}),
        commit=commit,
    )


def _push_text(planned: PushPlan) -> str:
    about = "" if planned.unchanged else "about "
    lines = [f"{planned.rows:,} rows, {planned.with_pixels:,} with pixels, {about}{planned.bytes / 1e6:,.1f} MB"]
    lines += [f"  {count:>9,}  without pixels: {why}" for why, count in planned.withheld.most_common()]
    unknown = planned.unrecognised.most_common(20)
    lines += [f"  {count:>9,}  of licence {one_line(said, 80)!r}" for said, count in unknown]
    if planned.unrecognised:
        more = len(planned.unrecognised) - 20
        lines += [f"             and {more:,} more licences (--json lists all)"] if more > 0 else []
        lines.append(
            "  state them by an SPDX identifier or Creative Commons' address (docs/licences.md lists what is "
            "recognised), or add --i-hold-the-rights if the photos are yours"
        )
    if planned.local_names:
        done = "go out as they are" if planned.names else "stay here, ids go instead (--names sends them)"
        lines.append(f"  {planned.local_names:>9,}  rows with names or paths of local files: they {done}")
    lines += [f"  {name}" for name in _files_to_send(planned)]
    return "\n".join(lines)


def _files_to_send(planned: PushPlan) -> list[str]:
    """What is sent, as far as it is there; where it is still to be made, its folders."""
    from authface.annotate.export.publication import files_of

    if planned.unchanged:
        return [path.relative_to(planned.folder).as_posix() for path in files_of(planned.folder)]
    return [*(["data/*.parquet"] if planned.with_pixels else []), "manifest/*.parquet", "README.md", "authface.json"]


def _push_json(planned: PushPlan) -> dict[str, object]:
    return {
        "rows": planned.rows,
        "with_pixels": planned.with_pixels,
        "without_pixels": dict(planned.withheld),
        "local_names": planned.local_names,
        "sends_local_names": planned.names,
        "unrecognised_licences": dict(planned.unrecognised),
        "files": _files_to_send(planned),
        "bytes": planned.bytes,
    }
