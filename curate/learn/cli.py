"""`authface curate learn`: what a reviewer keeps, learned from their decisions."""

from __future__ import annotations

from typing import Annotated

import typer

from authface.errors import UsageError, one_line
from authface.extras import need
from authface.options import DEFAULT_SET, Run, SetArgument, command_with_run, open_set

app = typer.Typer()


@app.command()
@command_with_run
def learn(
    run: Run,
    set: SetArgument = DEFAULT_SET,
    reviewer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose decisions; the only reviewer of the set, if there is one.")
    ] = None,
) -> None:
    """Learn from decisions of `curate review` what a reviewer keeps; `curate filter` can then ask it of all faces."""
    from authface.curate.settings import LearnSettings
    from authface.review.reviews import ReviewSettings, reviewed

    settings = run.settings("curate.learn", LearnSettings)
    photoset = open_set(set)
    if not photoset.faces.parts():
        raise UsageError(f"{one_line(set)} has no faces yet: run authface curate filter {one_line(set)}")
    if run.dry_run:
        return run.show("curate.learn", settings)
    need("authface curate learn", "learn")
    from authface.curate.learn.run import learn as run_learn
    from authface.curate.learn.run import write_page

    people = reviewed(photoset, run.settings("curate.review", ReviewSettings))
    who = reviewer or _only(list(people.decisions))
    with photoset.lock():
        photoset.remember("curate.learn", settings.model_dump(mode="json"))
        done = run_learn(
            photoset, people, who, settings, run.console, workers=run.workers, device=run.device, seed=run.seed
        )
        page = write_page(photoset, done, people)
    onward = f"authface curate filter {one_line(set)} -O curate.filter.reviewer={who}"
    run.console.result(
        f"{done.as_text()}\nreport: {one_line(page)}\nnext: {onward}", report=str(page), next=onward, **done.as_json()
    )


def _only(reviewers: list[str]) -> str:
    """The one reviewer of the set. Raises UsageError where there are several or none."""
    if len(reviewers) != 1:
        have = ", ".join(reviewers) or "nobody, so run authface curate review first"
        raise UsageError(f"--reviewer: whose decisions? There are decisions of {have}")
    return reviewers[0]
