"""`authface curate split`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from authface.errors import UsageError, one_line
from authface.options import DEFAULT_SET, Run, SetArgument, command_with_run

if TYPE_CHECKING:
    from authface.curate.split.run import Outcome

app = typer.Typer()


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
    from authface.store.photoset import PhotoSet

    given = tuple(against) if against else None
    settings = run.settings("curate.split", SplitSettings, against=given)
    photoset = PhotoSet.open(set)
    if not photoset.crops.parts():
        raise UsageError(f"{one_line(set)} has no crops yet: run authface curate align {one_line(set)}")
    told = settings.model_dump(mode="json")
    if run.dry_run:
        lines = "\n".join(f"{name} = {value!r}" for name, value in told.items())
        return run.console.result(f"[curate.split]\n{lines}", section="curate.split", settings=told)
    from authface.curate.split.run import split as run_split

    with photoset.lock():
        photoset.remember("curate.split", told)
        outcome = run_split(
            photoset,
            settings,
            run.console,
            seed=run.seed,
            workers=run.workers,
            cluster=run.cluster(),
            limit=run.limit,
        )
    run.console.result(_text(outcome, one_line(set)), **_json(outcome))
    if lost := sum(count for name, count in outcome.counts.items() if name.startswith("failed")):
        run.console.log(f"{lost} crops could not be embedded and are in no split")
        raise typer.Exit(3)


def _text(outcome: Outcome, place: str) -> str:
    from authface.curate.split.leaks import WORDS

    lines = [f"  {outcome.counts[name]:>9,}  {name}" for name in sorted(outcome.counts, key=_order)]
    if outcome.identities:
        lines.append(f"{outcome.identities:,} people")
    lines.append(f"{outcome.groups:,} groups that stay together, the largest of {outcome.largest:,} faces")
    if outcome.moved:
        lines.append(f"{outcome.moved:,} faces moved: new ones join them to people of another split")
    if outcome.page:
        kinds = Counter(leak.kind for leak in outcome.leaks.values())
        found = ", ".join(f"{kinds[kind]:,} {WORDS[kind]}" for kind in WORDS)
        lines.append(f"faces shared with the folders: {found}\nleaks: {one_line(outcome.page)}")
    return "\n".join([*lines, f"next: authface annotate tags {place}"])


def _order(name: str) -> tuple[int, str]:
    from authface.curate.split.run import SPLITS

    return (SPLITS.index(name) if name in SPLITS else len(SPLITS), name)


def _json(outcome: Outcome) -> dict[str, object]:
    said: dict[str, object] = {
        "counts": dict(outcome.counts),
        "identities": outcome.identities,
        "groups": outcome.groups,
        "largest": outcome.largest,
        "moved": outcome.moved,
    }
    if outcome.page:
        kinds = Counter(leak.kind for leak in outcome.leaks.values())
        said["leaks"] = dict(kinds)
        said["leaking"] = {leak.face: f"{leak.folder}/{leak.file}" for leak in outcome.leaks.values()}
        said["report"] = str(outcome.page)
    return said
