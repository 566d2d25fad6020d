"""`authface curate`: sources in, aligned and licensed faces out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from authface.curate import care
from authface.curate.review import cli as review
from authface.curate.split import cli as split_cli
from authface.errors import AuthfaceError, UsageError, one_line
from authface.options import DEFAULT_SET, Run, SetArgument, command_with_run

if TYPE_CHECKING:
    from authface.curate.settings import FilterSettings
    from authface.engine.runner import Summary
    from authface.engine.workers import Work
    from authface.recipe import Settings
    from authface.store.photoset import PhotoSet, Table

app = typer.Typer(help="Sources in, aligned and licensed faces out.", no_args_is_help=True)
app.add_typer(review.app)
app.add_typer(care.app)
app.add_typer(split_cli.app)

_WITH_PATH = {"folder", "urls", "unsplash-lite"}


class FetchCommand(TyperCommand):
    """Reads ``--from folder PATH`` as one option of two words, so that SET may be left out or stand anywhere."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Give the word after ``--from folder`` to the hidden option ``--path``."""
        for index, word in enumerate(args):
            following = args[index + 1 : index + 3]
            if word == "--from" and len(following) == 2 and following[0] in _WITH_PATH and following[1][:1] != "-":
                args = [*args[: index + 2], "--path", *args[index + 2 :]]
                break
        return super().parse_args(ctx, args)


@app.command(cls=FetchCommand)
@command_with_run
def fetch(
    run: Run,
    set: SetArgument = DEFAULT_SET,
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="SOURCE [PATH]", help="folder PATH, urls FILE, unsplash-lite PATH, unsplash, samples."
        ),
    ] = None,
    path: Annotated[str | None, typer.Option("--path", hidden=True)] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Stop where a quota is used up; run again later.")] = False,
    accept_terms: Annotated[
        bool, typer.Option("--accept-terms", help="You may use the Unsplash API for this set; asked once.")
    ] = False,
) -> None:
    """Bring photos into the set, byte for byte, each with its row. Run again, it takes only what is new."""
    from authface.curate.fetch.run import fetch as run_fetch
    from authface.curate.fetch.sources import make_source
    from authface.curate.settings import FetchSettings
    from authface.store.photoset import PhotoSet

    settings = run.settings("curate.fetch", FetchSettings, source=source, path=path)
    photoset = PhotoSet(set)
    origin = make_source(settings, photoset, wait=not no_wait, say=run.console.log)
    if run.dry_run:
        if forecast := origin.forecast(run.limit, ask=False):
            run.console.log(forecast)
        return _show(run, "curate.fetch", settings)
    if run.engine == "ray":
        run.console.log("fetch runs on this machine: it waits for disks and servers, which a cluster has no more of")
    origin.ready(accept_terms=accept_terms)
    with photoset.lock(), origin:
        photoset.remember("curate.fetch", settings.model_dump(mode="json"))
        if forecast := origin.forecast(run.limit, ask=True):
            run.console.log(forecast)
        summary = run_fetch(photoset, origin, settings, run.console, workers=run.workers, limit=run.limit)
        if origin.ignored:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in origin.ignored.most_common(5))
            run.console.log(f"fetch: passed over {origin.ignored.total():,} that are not asked for: {kinds}")
        if origin.paused:
            run.console.result(f"paused: {origin.paused}; then run the same command again", paused=str(origin.paused))
            if not summary.counts:
                return
        if not summary.counts:
            raise AuthfaceError(f"no photos in {one_line(settings.path or settings.source)}: nothing to fetch")
        _conclude(run, photoset, summary, "curate filter")


@app.command("filter")
@command_with_run
def filter_(
    run: Run,
    set: SetArgument = DEFAULT_SET,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Show how many faces each limit would leave; judge nothing.")
    ] = False,
) -> None:
    """Find the faces, measure them, keep the good ones; every other keeps its reason, value and limit."""
    from authface.curate.settings import FilterSettings
    from authface.store.photoset import PhotoSet

    settings = run.settings("curate.filter", FilterSettings)
    photoset = PhotoSet.open(set)
    if run.dry_run:
        return _show(run, "curate.filter", settings)
    if sweep:
        return _sweep(run, photoset, settings)
    from authface.curate.filter.run import filter_photos

    with photoset.lock():
        photoset.remember("curate.filter", settings.model_dump(mode="json"))
        summary = filter_photos(
            photoset,
            settings,
            run.console,
            workers=run.workers,
            cluster=run.cluster(),
            limit=run.limit,
            device=run.device,
        )
        if not summary.counts:
            raise AuthfaceError("curate.filter: no kept photos to work on; the report says why: authface curate report")
        _conclude(run, photoset, summary, _NEXT["curate.filter"])


def _sweep(run: Run, photoset: PhotoSet, settings: FilterSettings) -> None:
    from authface.curate.filter.sweep import sweep, to_text

    if not photoset.measured.parts():
        raise UsageError(f"{one_line(photoset.root)} has no measures yet: authface curate filter takes them")
    found = sweep(photoset, settings)
    run.console.result(to_text(found), sweep=[limit.as_json() for limit in found])


@app.command()
@command_with_run
def align(run: Run, set: SetArgument = DEFAULT_SET) -> None:
    """Turn every kept face into a square crop, FFHQ style, and check dlib's landmarks against RetinaFace's."""
    from authface.curate.align import Align
    from authface.curate.settings import AlignSettings
    from authface.store.photoset import PhotoSet

    settings = run.settings("curate.align", AlignSettings)
    photoset = PhotoSet.open(set)
    if not photoset.faces.parts():
        raise UsageError(f"{one_line(set)} has no faces yet: run authface curate filter {one_line(set)}")
    _run_step(run, photoset, "curate.align", settings, Align(set, settings), photoset.faces, photoset.crops)


def _run_step(
    run: Run,
    photoset: PhotoSet,
    section: str,
    settings: Settings,
    work: Work[Any, Any, Any, Any],
    source: Table[Any],
    target: Table[Any],
) -> None:
    """Run one step over a table, show its contact sheet and what it counted."""
    from authface.engine.runner import parts_of
    from authface.engine.runner import run as run_parts

    if run.dry_run:
        return _show(run, section, settings)
    with photoset.lock():
        photoset.remember(section, settings.model_dump(mode="json"))
        inputs = parts_of(source, run.limit)
        summary = run_parts(work, inputs, target, run.console, workers=run.workers, cluster=run.cluster())
        if not any(part.count for part in inputs):
            raise AuthfaceError(f"{section}: no kept rows to work on; the report says why: authface curate report")
        _conclude(run, photoset, summary, _NEXT[section])


_NEXT = {"curate.filter": "curate align", "curate.align": "annotate tags"}


def _conclude(run: Run, photoset: PhotoSet, summary: Summary, following: str) -> None:
    """Say what was counted and where the sheet is; exit code 3 where some inputs failed."""
    from authface.curate.sheet import contact_sheet

    page = photoset.root / "reports" / "curate.html"
    if summary.made or not page.exists():
        page = contact_sheet(photoset)
    rate = f", {summary.rows / summary.seconds:.1f} images/s" if summary.made else ""
    counts = "\n".join(f"  {count:>9,}  {name}" for name, count in summary.counts.most_common())
    done = f"{summary.made} parts made in {summary.seconds:.1f} s{rate}" if summary.made else "nothing to do"
    onward = f"next: authface {following} {one_line(photoset.root)}"
    run.console.result(
        f"{done}, {summary.skipped} parts were done before\n{counts}\n"
        f"contact sheet: {one_line(page)}\n{onward if summary.counts['kept'] else 'nothing is kept: it says why'}",
        report=str(page),
        **summary.as_json(),
    )
    if summary.failed:
        run.console.log(f"{summary.failed} inputs failed: the contact sheet names them")
        raise typer.Exit(3)


def _show(run: Run, section: str, settings: Settings) -> None:
    lines = "\n".join(f"{name} = {value!r}" for name, value in settings.model_dump().items())
    run.console.result(f"[{section}]\n{lines}", section=section, settings=settings.model_dump(mode="json"))
