"""`authface curate review`: people look at crops and decide, in a local page; `learn`: what can be learned of it."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from authface.errors import UsageError, one_line, shell_word
from authface.extras import need
from authface.options import DEFAULT_SET, Run, SetArgument, command_with_run, open_set

if TYPE_CHECKING:
    from authface.curate.learn.order import Asking, Order
    from authface.curate.review.retouch import RetouchResult
    from authface.review.reviews import Reviewed, ReviewSettings
    from authface.store.photoset import PhotoSet


app = typer.Typer()


@app.command()
@command_with_run
def review(
    run: Run,
    set: SetArgument = DEFAULT_SET,
    reviewer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who decides, of a-z, 0-9 and dashes; the system's user name.")
    ] = None,
    next: Annotated[
        str | None,
        typer.Option(
            "--next",
            metavar="uncertain|random",
            help="Ask first what teaches `curate learn` most, or draw faces; extra learn.",
        ),
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="How far reviewers agree, and where they do not.")] = False,
    export_retouch: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the crops marked retouch to a folder.")
    ] = None,
    import_retouch: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Take the edited files of such a folder back.")
    ] = None,
) -> None:
    """Look at faces and decide, in a local page: keep, reject, retouch. Every decision is on disk at once."""
    from authface.review.reviews import ReviewSettings, reviewed

    settings = run.settings("curate.review", ReviewSettings)
    if next not in (None, "uncertain", "random"):
        raise UsageError(f"--next {one_line(next, 40)}: there are uncertain and random")
    photoset = open_set(set)
    if sum([compare, export_retouch is not None, import_retouch is not None, next is not None]) > 1:
        raise UsageError("--next, --compare, --export-retouch and --import-retouch: one at a time")
    if not photoset.crops.parts():
        raise UsageError(f"{one_line(set)} has no crops yet: run authface curate align {shell_word(set)}")
    if run.dry_run:
        return run.show("curate.review", settings)
    people = reviewed(photoset, settings)
    if people.damaged:
        run.console.log(f"review: {people.damaged} lines of the logs are damaged and ignored")
    if compare:
        _compare(run, photoset, people)
    elif export_retouch is not None:
        _export(run, photoset, people, export_retouch)
    elif import_retouch is not None:
        _import(run, photoset, settings, import_retouch)
    else:
        who = reviewer or _user()
        asking = _asking(run, photoset, people, who, next) if next else None
        _serve(run, photoset, people, settings, who, asking)


def _user() -> str:
    """The system's name of the user, in the letters a reviewer's name may have."""
    import getpass

    try:
        return re.sub(r"[^a-z0-9]+", "-", getpass.getuser().lower()).strip("-")[:40] or "reviewer"
    except (OSError, KeyError):  # a user without a name
        return "reviewer"


def _asking(run: Run, photoset: PhotoSet, people: Reviewed, reviewer: str, kind: str) -> Asking:
    """The order in which to ask, made of what was decided before. Raises UsageError without scikit-learn."""
    from authface.curate.settings import LearnSettings

    settings = run.settings("curate.learn", LearnSettings)
    need(f"authface curate review --next {kind}", "learn")
    from authface.curate.learn.fit import identities
    from authface.curate.learn.order import ORDERS, Asking, next_faces
    from authface.curate.learn.run import judged_parts
    from authface.curate.learn.table import take_features, together

    with photoset.lock():
        take_features(photoset, settings.network, run.console, workers=run.workers, device=run.device)
    pool, groups = together(list(judged_parts(photoset))), identities(photoset)
    order: Order = "random" if kind == "random" else "uncertain"
    return Asking(
        lambda decisions: next_faces(pool, decisions, groups, settings, run.seed, order),
        people.decisions.get(reviewer, {}),
        ORDERS[order],
    )


def _serve(
    run: Run, photoset: PhotoSet, people: Reviewed, settings: ReviewSettings, reviewer: str, asking: Asking | None
) -> None:
    from authface.review.reviews import decision_log

    log = decision_log(photoset, reviewer)

    from authface.curate.learn.run import disagreements
    from authface.curate.review import server
    from authface.curate.review.gallery import FacePictures, ReviewerDecisions, load_gallery
    from authface.inspect.status import next_step
    from authface.web import local

    faces = load_gallery(photoset, run.limit)
    page = server.Review(
        faces,
        FacePictures(photoset, people),
        ReviewerDecisions(log),
        reviewer,
        one_line(photoset.root.name, 80),
        settings.reasons,
        {who: said for who, said in people.decisions.items() if who != reviewer},
        asking,
    )
    if asking:
        run.console.log(f"review: {asking.certainty.text}")
    for other, (count, both) in disagreements(people, reviewer).items():
        if count:
            run.console.log(f"review: {other} decided otherwise on {count:,} of {both:,}: Decision, others disagree")
    token = local.new_token()
    with local.listen(settings.host, settings.port, server.INSTEAD) as waiting:
        app = server.make_app(page, token, settings.host)
        url = local.address(settings.host, waiting.getsockname()[1], token)
        run.console.log(f"review: {faces.crops:,} crops for {reviewer}; open {url} and end with Ctrl-C")
        with suppress(KeyboardInterrupt):
            local.make_server(app).run(sockets=[waiting])
    counts = page.counts()
    said = ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in ("keep", "reject", "retouch"))
    more = {"certainty": asking.certainty.as_json()} if asking else {}
    sure = f"{asking.certainty.text}\n" if asking else ""
    run.console.result(
        f"{reviewer} decided on {sum(counts.values()) - faces.crops:,} of {faces.crops:,} crops: {said}\n{sure}"
        f"next: {next_step(photoset)}",
        reviewer=reviewer,
        log=str(log.path),
        **counts,
        **more,
    )


def _compare(run: Run, photoset: PhotoSet, people: Reviewed) -> None:
    from authface.curate.review import compare

    found = compare.agreements(people)
    page = compare.write_page(photoset, people, found)
    run.console.result(
        f"{compare.as_text(found, people)}\nwhere they disagree: {one_line(page)}",
        report=str(page),
        **compare.as_json(found, people),
    )


def _export(run: Run, photoset: PhotoSet, people: Reviewed, folder: Path) -> None:
    from authface.curate.review.retouch import MANIFEST, export_retouch

    outcomes = list(export_retouch(photoset, people, folder))
    _report(run, outcomes, f"next: edit the pictures in place, keep their names and {MANIFEST}, then --import-retouch")


def _import(run: Run, photoset: PhotoSet, settings: ReviewSettings, folder: Path) -> None:
    from authface.curate.review.retouch import import_retouch
    from authface.inspect.status import next_step
    from authface.review.reviews import reviewed

    with photoset.lock():
        outcomes = list(import_retouch(photoset, reviewed(photoset, settings), folder))
    _report(run, outcomes, f"next: {next_step(photoset)}")


def _report(run: Run, outcomes: list[RetouchResult], following: str) -> None:
    """One line a file; exit code 3 if one is wrong."""
    counts = Counter(outcome.outcome for outcome in outcomes)
    total = ", ".join(f"{count:,} {name}" for name, count in counts.most_common())
    run.console.result(
        "\n".join([*(outcome.line for outcome in outcomes), total, following]),
        files=[[outcome.name, outcome.outcome, outcome.detail] for outcome in outcomes],
        counts=dict(counts),
    )
    if counts["wrong"]:
        run.console.log(f"{counts['wrong']} files need another look: the lines above say why")
        raise typer.Exit(3)


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
        raise UsageError(f"{one_line(set)} has no faces yet: run authface curate filter {shell_word(set)}")
    if run.dry_run:
        return run.show("curate.learn", settings)
    need("authface curate learn", "learn")
    from authface.curate.learn.run import learn as run_learn
    from authface.curate.learn.run import write_page

    people = reviewed(photoset, run.settings("curate.review", ReviewSettings))
    who = reviewer or _only(list(people.decisions), set)
    with photoset.lock():
        photoset.remember("curate.learn", settings.model_dump(mode="json"))
        done = run_learn(
            photoset, people, who, settings, run.console, workers=run.workers, device=run.device, seed=run.seed
        )
        page = write_page(photoset, done, people)
    onward = f"authface curate filter {shell_word(set)} -O curate.filter.reviewer={who}"
    run.console.result(
        f"{done.as_text()}\nreport: {one_line(page)}\nnext: {onward}", report=str(page), next=onward, **done.as_json()
    )


def _only(reviewers: list[str], set: Path) -> str:
    """The one reviewer of the set. Raises UsageError where there are several or none."""
    if len(reviewers) != 1:
        have = ", ".join(reviewers) or f"nobody, so run authface curate review {shell_word(set)} first"
        raise UsageError(f"--reviewer: whose decisions? There are decisions of {have}")
    return reviewers[0]
