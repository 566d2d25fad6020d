"""`authface curate`: sources in, aligned and licensed faces out; `curate review` and `learn` are in `review.cli`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, get_args

import typer
from typer.core import TyperCommand

from authface.curate.review import cli as review
from authface.errors import AuthfaceError, UsageError, one_line, shell_word
from authface.options import DEFAULT_SET, Run, SetArgument, command_with_run, open_set

if TYPE_CHECKING:
    from authface.curate.settings import FilterSettings
    from authface.engine.runner import Summary
    from authface.store.photoset import PhotoSet

app = typer.Typer(help="Sources in, aligned and licensed faces out.", no_args_is_help=True)
app.add_typer(review.app)

_WITHOUT_PATH = {"unsplash", "samples"}


class FetchCommand(TyperCommand):
    """Reads ``--from folder PATH`` as one option of two words, so that SET may be left out or stand anywhere."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Give the word after ``--from folder`` to the hidden option ``--path``."""
        for index, word in enumerate(args):
            following = args[index + 1 : index + 3]
            if (
                word == "--from"
                and len(following) == 2
                and following[0] not in _WITHOUT_PATH
                and following[1][:1] != "-"
            ):
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
    retry: Annotated[
        str | None,
        typer.Option("--retry", metavar="transient|failed|none", help="Failed photos that are asked for again."),
    ] = None,
    accept_terms: Annotated[
        bool, typer.Option("--accept-terms", help="You may use the Unsplash API for this set; asked once.")
    ] = False,
) -> None:
    """Bring photos into the set, byte for byte, each with its row. Run again, it takes only what is new."""
    from authface.curate.fetch.run import fetch as run_fetch
    from authface.curate.fetch.sources import make_source
    from authface.curate.settings import FetchSettings
    from authface.store.photoset import PhotoSet

    settings = run.settings("curate.fetch", FetchSettings, source=source, path=path, retry=retry)
    photoset = PhotoSet(set)
    origin = make_source(settings, photoset, wait=not no_wait, say=run.console.log)
    if run.dry_run:
        if forecast := origin.forecast(run.limit, ask=False):
            run.console.log(forecast)
        return run.show("curate.fetch", settings)
    if run.engine == "ray":
        run.console.log("fetch runs on this machine: it waits for disks and servers, which a cluster does not speed up")
    origin.ready(accept_terms=accept_terms)
    with photoset.lock(), origin:
        photoset.remember("curate.fetch", settings.model_dump(mode="json"))
        if forecast := origin.forecast(run.limit, ask=True):
            run.console.log(forecast)
        summary = run_fetch(photoset, origin, settings, run.console, workers=run.workers, limit=run.limit)
        if origin.made_here:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in origin.made_here.most_common())
            run.console.log(f"fetch: {origin.made_here.total():,} pictures that authface made are no photos: {kinds}")
        if origin.ignored:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in origin.ignored.most_common(5))
            run.console.log(f"fetch: skipped {origin.ignored.total():,}: {kinds}")
        if origin.paused:
            run.console.result(f"paused: {origin.paused}; then run the same command again", paused=str(origin.paused))
            if not summary.counts:
                return
        if left := origin.left_for_later():
            run.console.log("\n".join(left))
            if not summary.counts:
                raise typer.Exit(3)
        if not summary.counts:
            raise AuthfaceError(f"no photos in {one_line(settings.path or settings.source)}: nothing to fetch")
        _conclude(run, photoset, summary)


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

    settings = run.settings("curate.filter", FilterSettings)
    photoset = open_set(set)
    if run.dry_run:
        return run.show("curate.filter", settings)
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
            raise AuthfaceError(
                f"{one_line(set)} has no kept photos: authface curate report {shell_word(set)} says why"
            )
        _conclude(run, photoset, summary)


def _sweep(run: Run, photoset: PhotoSet, settings: FilterSettings) -> None:
    from authface.curate.filter.sweep import sweep, sweep_reviewer, to_text

    if not photoset.measured.parts():
        here = one_line(photoset.root)
        raise UsageError(f"{here} has no measures yet: run authface curate filter {shell_word(here)}")
    found, learned = sweep(photoset, settings), sweep_reviewer(photoset, settings)
    more = {"reviewer": learned.as_json()} if learned else {}
    text = "\n\n".join([to_text(found), *([learned.as_text()] if learned else [])])
    run.console.result(text, sweep=[limit.as_json() for limit in found], **more)


@app.command()
@command_with_run
def align(run: Run, set: SetArgument = DEFAULT_SET) -> None:
    """Turn every kept face into a square crop, FFHQ style, and check dlib's landmarks against RetinaFace's."""
    from authface.curate.align import Align
    from authface.curate.settings import AlignSettings
    from authface.engine.runner import parts_of
    from authface.engine.runner import run as run_parts

    settings = run.settings("curate.align", AlignSettings)
    photoset = open_set(set)
    if not photoset.faces.parts():
        raise UsageError(f"{one_line(set)} has no faces yet: run authface curate filter {shell_word(set)}")
    if run.dry_run:
        return run.show("curate.align", settings)
    with photoset.lock():
        photoset.remember("curate.align", settings.model_dump(mode="json"))
        inputs = parts_of(photoset.faces, run.limit)
        step, cluster = Align(set, settings), run.cluster()
        summary = run_parts(
            step, inputs, photoset.crops, run.console, workers=run.workers, cluster=cluster, prune=not run.limit
        )
        if not any(part.count for part in inputs):
            raise AuthfaceError(f"{one_line(set)} has no kept faces: authface curate report {shell_word(set)} says why")
        _conclude(run, photoset, summary)


@app.command()
@command_with_run
def split(
    run: Run,
    set: SetArgument = DEFAULT_SET,
    against: Annotated[
        list[str] | None,
        typer.Option(metavar="FOLDER", help="Photos the set must not overlap with, such as a benchmark's; repeatable."),
    ] = None,
) -> None:
    """Deal the crops to training, validation and test sets that share no person, no near duplicate and no photo.

    Faces are compared by embeddings, which are biometric data: they lie in SET/tables/embeddings alone and are never
    exported; -O curate.split.keep_embeddings=false deletes them afterwards.
    """
    from authface.curate.settings import SplitSettings

    settings = run.settings("curate.split", SplitSettings, against=tuple(against) if against else None)
    photoset = open_set(set)
    if not photoset.crops.parts():
        raise UsageError(f"{one_line(set)} has no crops yet: run authface curate align {shell_word(set)}")
    if run.dry_run:
        return run.show("curate.split", settings)
    from authface.curate.split.run import split as run_split
    from authface.inspect.status import next_step

    with photoset.lock():
        photoset.remember("curate.split", settings.model_dump(mode="json"))
        result = run_split(
            photoset,
            settings,
            run.console,
            seed=run.seed,
            workers=run.workers,
            cluster=run.cluster(),
            limit=run.limit,
        )
    onward = next_step(photoset)
    run.console.result(f"{result.as_text()}\nnext: {onward}", **result.as_json(), next=onward)
    if lost := sum(count for name, count in result.counts.items() if name.startswith("failed")):
        run.console.log(f"{lost} crops could not be embedded and are in no split")
        raise typer.Exit(3)


@app.command()
@command_with_run
def report(run: Run, set: SetArgument = DEFAULT_SET) -> None:
    """Write the contact sheet again: outcomes of all steps, histograms of what was measured, samples."""
    from authface.curate.sheet import contact_sheet

    photoset = open_set(set)
    if run.dry_run:
        return run.console.result(f"would write {one_line(photoset.root)}/reports/curate.html")
    page = contact_sheet(photoset)
    run.console.result(f"contact sheet: {one_line(page)}", report=str(page))


@app.command("credits")
@command_with_run
def credits_(
    run: Run,
    set: SetArgument = DEFAULT_SET,
    format: Annotated[str, typer.Option("--format", help="html, md, csv or txt.")] = "html",
    every: Annotated[
        bool, typer.Option("--all", help="Every photo of the set, not only those with a kept crop.")
    ] = False,
) -> None:
    """Write SET/reports/credits: every photographer and photo, by licence, with their links."""
    from authface.curate.credits import Format, write_credits
    from authface.store.statements import count_disputed, disputed

    chosen: Format | None = next((known for known in get_args(Format) if known == format), None)
    if chosen is None:
        raise UsageError(f"--format {one_line(format, 40)}: there are {', '.join(get_args(Format))}")
    photoset = open_set(set)
    if run.dry_run:
        return run.console.result(f"would write {one_line(photoset.root)}/reports/credits.{chosen}")
    path, found = write_credits(photoset, chosen, every=every)
    said = count_disputed(disputed(photoset))
    if found["of unknown licence"]:
        run.console.log(f"credits: nobody stated a licence of {found['of unknown licence']:,} photos: they come first")
    if said["disputed"]:
        run.console.log(
            f"credits: sources disagree about the licence of {said['disputed']:,} photos: the strictest holds"
        )
    shown = (f"{count:,} {name}" for name, count in found.items() if count or not name.startswith("under"))
    run.console.result(
        f"credits: {one_line(path)}: {', '.join(shown)}",
        report=str(path),
        **{name.replace(" ", "_").lower(): count for name, count in found.items()},
        **{f"{name}_licences": count for name, count in said.items()},
    )


@app.command()
@command_with_run
def forget(
    run: Run,
    set: SetArgument,
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="Photo or face ids, six digits of them, or names in the source."),
    ] = None,
    photographer: Annotated[
        str | None, typer.Option(metavar="NAME|URL", help="All photos of a photographer, and those to come.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Kept with the tombstone; name nobody in it.")] = "asked for",
) -> None:
    """Delete photos and all that was made from them; only a hash is kept, so that they never come back.

    Without an ID it finishes what a stopped run left.
    """
    from authface.curate.forget.run import find_photos
    from authface.curate.forget.run import forget as run_forget
    from authface.curate.sheet import contact_sheet
    from authface.store.journal import tombstones

    photoset = open_set(set)
    if run.dry_run:
        done = run_forget(photoset, find_photos(photoset, ids or [], photographer), reason="", dry_run=True)
        return run.console.result(done.as_text(photoset, "would go"), **done.as_json(), dry_run=True)
    with photoset.lock():
        photos = find_photos(photoset, ids or [], photographer)
        if not photos and all(stone.done for stone in tombstones(photoset)):
            raise UsageError(f"nothing to forget in {one_line(set)}: name a photo, or a --photographer")
        page = photoset.root / "reports" / "curate.html"
        shown = page.exists()
        done = run_forget(photoset, photos, reason=one_line(reason, 200), photographer=photographer or "")
        if shown:
            contact_sheet(photoset)
    run.console.result(done.as_text(photoset, "deleted"), **done.as_json(), dry_run=False)


@app.command()
@command_with_run
def balance(
    run: Run,
    set: SetArgument = DEFAULT_SET,
    target: Annotated[
        str | None, typer.Option(help='Margins to flatten, such as "pose=uniform,skin=uniform"; see the recipe table.')
    ] = None,
    keep: Annotated[
        int | None, typer.Option(min=1, help="Faces to keep; as many as the target allows if not given.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Take an earlier choice back.")] = False,
) -> None:
    """How pose, light, expression, skin tone, size, source and licence are spread; choose a subset that evens them."""
    from authface.curate.balance import run as balancing
    from authface.curate.settings import BalanceSettings
    from authface.review.reviews import ReviewSettings

    settings = run.settings("curate.balance", BalanceSettings, target=target, keep=keep)
    review = run.settings("curate.review", ReviewSettings)
    photoset = open_set(set)
    if not photoset.crops.counts()["kept"]:
        raise AuthfaceError(f"{one_line(set)} has no kept crops: authface curate report {shell_word(set)} says why")
    if run.dry_run:
        balancing.targets_of(settings)
        return run.show("curate.balance", settings)
    with photoset.lock():
        if clear:
            balancing.clear(photoset)
        done = balancing.balance(photoset, settings, review, run.console, workers=run.workers, seed=run.seed)
    run.console.result(done.as_text(), report=str(done.page), **done.as_json())


def _conclude(run: Run, photoset: PhotoSet, summary: Summary) -> None:
    """Say what was counted and where the sheet is; exit code 3 where some inputs failed."""
    from authface.curate.sheet import contact_sheet
    from authface.inspect.status import next_step

    page = photoset.root / "reports" / "curate.html"
    if summary.made or summary.restated or not page.exists():
        page = contact_sheet(photoset)
    rate = f", {summary.rows / summary.seconds:.1f} images/s" if summary.made else ""
    counts = "\n".join(f"  {count:>9,}  {name}" for name, count in summary.counts.most_common())
    again = f"{summary.restated:,} photos stated anew" if summary.restated else "nothing to do"
    done = f"{summary.made} parts made in {summary.seconds:.1f} s{rate}" if summary.made else again
    onward = f"next: {next_step(photoset)}"
    if not summary.counts["kept"]:
        onward = "nothing is kept: the sheet says why"
    run.console.result(
        f"{done}, {summary.skipped} parts were done before\n{counts}\ncontact sheet: {one_line(page)}\n{onward}",
        report=str(page),
        **summary.as_json(),
    )
    if summary.failed:
        run.console.log(f"{summary.failed} inputs failed: the contact sheet names them")
        raise typer.Exit(3)
