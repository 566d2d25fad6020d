"""`authface curate report`, `credits`, `forget`, `balance`: what looks after a set and the people in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from authface.errors import AuthfaceError, UsageError, one_line
from authface.options import DEFAULT_SET, Run, SetArgument, command_with_run

if TYPE_CHECKING:
    from authface.curate.balance.run import Balance
    from authface.curate.forget.run import Forgot
    from authface.records import Photo
    from authface.store.photoset import PhotoSet

app = typer.Typer()


@app.command()
@command_with_run
def report(run: Run, set: SetArgument = DEFAULT_SET) -> None:
    """Write the contact sheet again: outcomes of all steps, histograms of what was measured, samples."""
    from authface.curate.sheet import contact_sheet
    from authface.store.photoset import PhotoSet

    page = contact_sheet(PhotoSet.open(set))
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
    from typing import get_args

    from authface.curate.credits import Format, counts, write_credits
    from authface.store.photoset import PhotoSet

    chosen: Format | None = next((known for known in get_args(Format) if known == format), None)
    if chosen is None:
        raise UsageError(f"--format {one_line(format, 40)}: there are {', '.join(get_args(Format))}")
    path, table = write_credits(PhotoSet.open(set), chosen, every=every)
    found = counts(table)
    if found["of unknown licence"]:
        run.console.log(f"credits: nobody stated a licence of {found['of unknown licence']:,} photos: they come first")
    run.console.result(
        f"credits: {one_line(path)}: {', '.join(f'{count:,} {name}' for name, count in found.items())}",
        report=str(path),
        **{name.replace(" ", "_"): count for name, count in found.items()},
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
    from authface.curate.forget.run import forget as run_forget
    from authface.curate.sheet import contact_sheet
    from authface.store.photoset import PhotoSet
    from authface.store.tombstones import tombstones

    photoset = PhotoSet.open(set)
    if run.dry_run:
        photos = _named(photoset, ids or [], photographer)
        return _tell(run, photoset, run_forget(photoset, photos, reason="", dry_run=True), "would go")
    with photoset.lock():
        photos = _named(photoset, ids or [], photographer)
        if not photos and all(stone.done for stone in tombstones(photoset)):
            raise UsageError(f"nothing to forget in {one_line(set)}: name a photo, or a --photographer")
        page = photoset.root / "reports" / "curate.html"
        shown = page.exists()
        done = run_forget(photoset, photos, reason=one_line(reason, 200), photographer=photographer or "")
        if shown:
            contact_sheet(photoset)
    _tell(run, photoset, done, "deleted")


def _named(photoset: PhotoSet, ids: list[str], photographer: str | None) -> list[Photo]:
    """The photos that are named; an id that was forgotten already names none. Raises UsageError."""
    from authface.inspect.why import forgotten_at
    from authface.store.query import find_photo, photos_of

    found = []
    for text in ids:
        try:
            found += [each.photo for each in find_photo(photoset, text)]
        except UsageError:
            if not forgotten_at(photoset, text):
                raise
    if photographer is not None:
        theirs = [each.photo for each in photos_of(photoset, photographer)]
        if not theirs:
            raise UsageError(f"{one_line(photoset.root)} has no photo by {one_line(photographer, 100)}")
        found += theirs
    return found


def _tell(run: Run, photoset: PhotoSet, done: Forgot, what: str) -> None:
    """What went, and where copies may still be."""
    here = one_line(photoset.root)
    lines = [
        f"{what}: {len(done.photos):,} photos, {done.files:,} files, {done.rows:,} rows, {done.entries:,} log entries"
    ]
    if done.dataset:
        lines.append(f"{here}/dataset held some of them: {what}; authface annotate export {here} makes it again")
    for use, count in done.used_by:
        where = one_line(use.path)
        if use.kind == "training":
            lines.append(f"trained on {count:,} of them: {where}: its weights and its training/cache stay as they are")
        elif use.path.startswith(str((photoset.root / "exports").resolve())):
            lines.append(f"{where} held {count:,} of them: {what}")
        elif not done.dataset or Path(use.path) != (photoset.root / "dataset").resolve():
            lines.append(f"dataset {where} holds {count:,} of them: delete it and export it again")
    if done.dataset or done.used_by:
        lines.append("copies elsewhere are yours to find: the cache of datasets (HF_DATASETS_CACHE), uploads, backups")
    if done.near:
        names = ", ".join(one_line(name, 80) for name in done.near[:5])
        lines.append(f"near duplicates that stay: {names}{' ...' if len(done.near) > 5 else ''}")
    lines += [f"{here}/{one_line(name)} mentions them and is no JSON: look at it yourself" for name in done.unread]
    run.console.result(
        "\n".join(lines),
        photos=done.photos,
        files=done.files,
        rows=done.rows,
        entries=done.entries,
        dataset=done.dataset,
        used_by=[{"kind": use.kind, "path": use.path, "key": use.key, "photos": n} for use, n in done.used_by],
        near_duplicates=done.near,
        unread=done.unread,
        dry_run=run.dry_run,
    )


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
    from authface.store.photoset import PhotoSet

    settings = run.settings("curate.balance", BalanceSettings, target=target, keep=keep)
    review = run.settings("curate.review", ReviewSettings)
    photoset = PhotoSet.open(set)
    if not photoset.crops.counts()["kept"]:
        raise AuthfaceError(f"{one_line(set)} has no kept crops: authface curate report {one_line(set)} says why")
    if run.dry_run:
        lines = "\n".join(f"{name} = {value!r}" for name, value in settings.model_dump().items())
        return run.console.result(f"[curate.balance]\n{lines}", settings=settings.model_dump(mode="json"))
    with photoset.lock():
        if clear:
            balancing.clear(photoset)
        done = balancing.balance(photoset, settings, review, run.console, workers=run.workers, seed=run.seed)
        _tell_balance(run, done)


def _tell_balance(run: Run, done: Balance) -> None:
    run.console.result(done.text(), report=str(done.page), **done.as_json())
