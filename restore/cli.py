"""`authface restore`: photos and videos in, the same out; `app`, the same in a web page; `serve`, over HTTP."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from authface.errors import AuthfaceError, UsageError, one_line
from authface.extras import need
from authface.options import Run

if TYPE_CHECKING:
    from authface.restore.inputs import RestoreJob
    from authface.restore.run import Hire
    from authface.restore.session import RestoreSummary, Session, Suspect
    from authface.store.restore_line import Line


def restore(
    run: Run,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Files, folders, globs; quoted globs too.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="A folder, or a file for one input; else NAME.restored.EXT beside each."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A name of authface models list, a folder, a network's file, or identity.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="quality, fast, fidelity, or official: the release's settings.")
    ] = None,
    fidelity: Annotated[
        float | None, typer.Option(help="0 trusts the face prior, 1 the input; 0.5 is the preset as it is.")
    ] = None,
    faces: Annotated[
        str | None, typer.Option(help="all, largest, a number N, or X,Y,W,H: those with their middle there.")
    ] = None,
    min_identity: Annotated[
        float | None, typer.Option(help="Try a face less like its input again, else keep the input; 0..1.")
    ] = None,
    min_parts: Annotated[
        float | None, typer.Option(help="Likewise one with an eye or a mouth less like its input's; 0..1.")
    ] = None,
    upscale: Annotated[int | None, typer.Option(help="1, 2 or 4: how many times larger the result is.")] = None,
    grain: Annotated[
        float | None, typer.Option(help="0..1: give restored faces that much of the photo's own grain.")
    ] = None,
    change_map: Annotated[
        bool, typer.Option("--change-map", help="Write NAME.change.png: where and how strongly faces were altered.")
    ] = False,
    aligned: Annotated[bool, typer.Option("--aligned", help="Each image is one aligned face: look for none.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are in the way, but no input.")
    ] = False,
) -> None:
    """Restore the faces in photos and videos: find, align, restore, paste back. Another run does what is missing."""
    from authface.models.families import check_restorer
    from authface.restore.run import forecast, jobs_of, restore_jobs
    from authface.restore.session import Request, Session
    from authface.restore.settings import RestoreSettings

    limits = {"min_identity": min_identity, "min_parts": min_parts}
    given = {"preset": preset, "faces": faces, "upscale": upscale, "grain": grain, "change_map": change_map or None}
    settings = run.settings("restore", RestoreSettings, model=model, fidelity=fidelity, **limits, **given)
    jobs = jobs_of(images, out, settings.format, run.limit, maps=settings.change_map, say=run.console.log)
    device, hire = _workers(run)
    session = Session(Request(settings, aligned, device, run.seed), run.console)
    if run.dry_run:
        check_restorer(session.settings.model)
        return _show(run, jobs, [forecast(job, session, overwrite) for job in jobs])
    with _watched(session, jobs):
        summary = restore_jobs(jobs, session, overwrite=overwrite, hire=hire)
    _conclude(run, session, summary, jobs, out)


def _watched(session: Session, jobs: Sequence[RestoreJob]) -> AbstractContextManager[None]:
    """Keeps the state of the run beside its log; of one photo alone there is none."""
    if len(jobs) < 2 and not any(job.is_video for job in jobs):
        return nullcontext()
    from authface.restore.watch import watched

    return watched(session, jobs)


def _workers(run: Run) -> tuple[str, Hire | None]:
    """The device of this process, and who restores where it is not this process alone."""
    devices, cluster = run.devices(), run.cluster(gpu=True)
    if devices is None and cluster is None:
        return run.device, None
    from authface.restore.spread import of_cluster, of_devices

    if cluster is not None:
        device = "cuda" if cluster.gpu else run.device
        return device, partial(of_cluster, cluster, device)
    assert devices is not None
    if len(devices.numbers) == 1:
        return devices.first, None
    return devices.first, partial(of_devices, devices)


def _show(run: Run, jobs: Sequence[RestoreJob], found: Sequence[str]) -> None:
    """Print what would be made, with what `restore.run.forecast` found of each."""
    lines = [
        f"{one_line(job.source)} -> {one_line(job.target)}{f' ({what})' if what else ''}"
        for job, what in zip(jobs, found, strict=True)
    ]
    values = [
        {"source": job.source_path, "target": job.target_path, "found": what}
        for job, what in zip(jobs, found, strict=True)
    ]
    run.console.result("\n".join(lines), jobs=values)


def _conclude(run: Run, session: Session, summary: RestoreSummary, jobs: list[RestoreJob], out: Path | None) -> None:
    """Print the summary; exit code 1 if nothing was restored, 3 if some inputs failed."""
    from authface.restore.model.restorer import IDENTITY
    from authface.restore.page import is_shown, write_page

    page = None
    if session.settings.report and summary.jobs and not is_shown(session, summary, summary.jobs[0].home):
        page = write_page(session, summary, summary.jobs[0].home)
    done = "found and left as they are" if session.settings.model == IDENTITY else "restored"
    lines = [*_counted(summary, done)]
    lines[-1] += f", {summary.seconds:.1f} s"
    if summary.done_before:
        what = "photo" if not summary.videos else "video" if not summary.photos else "input"
        were = "was" if summary.done_before == 1 else "were"
        lines[-1] += f"; {_of(summary.done_before, what)} {were} done before"
    lines += _measured(session, summary)
    copied = "enlarged" if session.settings.upscale > 1 else "copied"
    if summary.no_face:
        lines.append(f"no face restored in {summary.no_face}: {copied} as they are")
    failed = {str(path) for path, _ in summary.failed}
    if made := list(islice((job.target for job in jobs if job.source_path not in failed), 2)):
        lines.append(f"results: {one_line(out or made[0])}" + (" ..." if out is None and made[1:] else ""))
    if page is not None:
        lines.append(f"before and after: {one_line(page)}")
    # Of a large run the values are lists as long as it.
    run.console.result("\n".join(lines), **(_values(session, summary, page) if run.console.json_output else {}))
    if summary.failed:
        run.console.log(f"{len(summary.failed)} of {_of(summary.inputs, 'input')} failed")
    good = summary.restored + sum(line.status != "no_face" for line in summary.video_lines.values())
    if not good and (session.settings.upscale == 1 or len(summary.failed) == summary.inputs):
        raise AuthfaceError(f"nothing was restored: {_why_nothing(session, summary)}")
    if summary.failed:
        raise typer.Exit(3)


def _values(session: Session, summary: RestoreSummary, page: Path | None) -> dict[str, object]:
    """The summary for ``--json``."""
    return {
        "photos": summary.photos,
        "videos": [{"target": str(path), **_facts(line)} for path, line in summary.video_lines.items()],
        "restored": summary.restored,
        "faces": summary.faces,
        "no_face": summary.no_face,
        "identity": summary.identities,
        "suspect": [_suspect(one) for one in summary.suspects],
        "tried_again": summary.tried_again,
        "kept": summary.kept,
        "done_before": summary.done_before,
        "failed": [{"source": str(path), "reason": reason} for path, reason in summary.failed],
        "targets": [*(str(job.target) for job in summary.jobs if not job.is_video), *map(str, summary.video_lines)],
        "model": session.settings.model,
        "engine": session.engine,
        "seconds": round(summary.seconds, 3),
        "spent": {name: round(seconds, 3) for name, seconds in summary.seconds_by_part.items()},
        "report": str(page) if page else None,
    }


def _counted(summary: RestoreSummary, done: str) -> Iterator[str]:
    """Summaries of the photos and of the videos, a line each."""
    if summary.photos or not summary.videos:
        yield f"{_of(summary.faces, 'face')} {done} in {summary.restored} of {summary.photos} photos"
    if summary.videos:
        clips = [line for line in summary.video_lines.values() if line.faces]
        faces, followed = sum(line.faces for line in clips), sum(line.followed for line in clips)
        frames = sum(line.frames for line in summary.video_lines.values())
        people = f"{followed} followed through {_of(frames, 'frame')}"
        yield f"{_of(faces, 'face')} ({people}) {done} in {len(clips)} of {summary.videos} videos"


def _measured(session: Session, summary: RestoreSummary) -> Iterator[str]:
    """How like their input the restored faces are, and what was done, or can be, about those that are not."""
    from authface.restore.guard import SUSPECT
    from authface.restore.page import identity_summary

    if summary.identities:
        yield f"identity: {identity_summary(session.settings, summary)}"
    videos = sum(line.suspects for line in summary.video_lines.values())
    if count := len(summary.suspects) + videos:
        has = "has" if count == 1 else "have"
        again = "" if session.settings.min_parts >= SUSPECT else f"; --min-parts {SUSPECT:g} tries such faces again"
        yield f"{_of(count, 'face')} {has} an eye or a mouth unlike the input's: look before you keep it{again}"
    if summary.tried_again:
        stays = "1 stays as it was" if summary.kept == 1 else f"{summary.kept} stay as they were"
        kept = f"; {stays}" if summary.kept else ""
        yield f"{_of(summary.tried_again, 'face')} tried again at higher fidelity{kept}"


def _suspect(one: Suspect) -> dict[str, object]:
    """A face that is to be looked at: where, and which of its parts, the worst first."""
    return {"source": one.job.source_path, "target": one.job.target_path, "face": one.face, "parts": one.parts}


def _of(count: int, what: str) -> str:
    """A number with its noun: ``1 face``, ``2 faces``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _facts(line: Line) -> dict[str, object]:
    """The log's facts of a video."""
    names = ("frames", "faces", "suspects", "drifted", "followed", "identity", "seconds", "detail")
    return {name: getattr(line, name) for name in names}


def _why_nothing(session: Session, summary: RestoreSummary) -> str:
    if len(summary.failed) == summary.inputs:
        return "no input could be used"
    if kept := summary.kept + sum(line.drifted for line in summary.video_lines.values()):
        whose = "its" if kept == 1 else "their"
        given = session.settings.min_identity, session.settings.min_parts
        limits = " or ".join(
            f"--{name}" for name, limit in zip(("min-identity", "min-parts"), given, strict=True) if limit
        )
        return f"{_of(kept, 'face')} drifted from {whose} input at every fidelity: lower {limits}"
    if summary.left_alone:
        found = sum(count for count, _ in summary.left_alone.values())
        told = "; ".join(f"{count:,} {reason} ({said})" for reason, (count, said) in sorted(summary.left_alone.items()))
        return f"{_of(found, 'face')} found and left alone: {told}"
    return "no face was found to restore"


def web_app(
    run: Run,
    model: Annotated[
        str | None, typer.Option(help="A name of authface models list, a folder, a network's file, or identity.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other computers in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 7860,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address only.")] = False,
    max_megabytes: Annotated[float, typer.Option(min=0.1, help="Largest accepted file.")] = 100,
    max_megapixels: Annotated[float, typer.Option(min=0.1, max=178, help="Largest accepted photo.")] = 100,
) -> None:
    """A local web page: restore the faces in a photo and compare. Photos stay on this machine."""
    from authface.models.families import check_restorer
    from authface.restore.settings import RestoreSettings

    settings = run.settings("restore", RestoreSettings, model=model)
    if run.dry_run:
        check_restorer(settings.model)
        lines = "\n".join(f"{name} = {value!r}" for name, value in settings.model_dump().items())
        return run.console.result(f"[restore]\n{lines}", settings=settings.model_dump(mode="json"))
    need("authface app", "app")

    from authface.restore.api import Restorer
    from authface.restore.app.server import INSTEAD, page
    from authface.restore.app.workspace import KEPT_SECONDS
    from authface.restore.queue import Limits, RestoreQueue
    from authface.web import local

    restorer = Restorer(**settings.model_dump(), device=run.device, seed=run.seed)
    token = local.new_token()
    with (
        local.listen(host, port, INSTEAD) as waiting,
        RestoreQueue([restorer], Limits(max_megabytes, max_megapixels, seconds=KEPT_SECONDS)) as queue,
        page(queue, token, host) as app,
    ):
        url = local.address(host, waiting.getsockname()[1], token)
        run.console.log(f"app: open {url} and end with Ctrl-C")
        if not no_browser:
            _open(url)
        with suppress(KeyboardInterrupt):
            local.make_server(app).run(sockets=[waiting])
    run.console.result("the page is closed and its temporary files are deleted", url=url)


def _open(url: str) -> None:
    """Open the page, if this machine has a screen; it loads once the server answers."""
    import webbrowser

    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return  # a browser in the terminal would take it over
    with suppress(webbrowser.Error):
        webbrowser.open(url)


TOKEN = "AUTHFACE_SERVE_TOKEN"
"""Environment variable with the token; a command line would be visible to other users."""
MIN_TOKEN = 16


def serve(
    run: Run,
    model: Annotated[str | None, typer.Option(help="A model's name, a folder, or identity (no change).")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; any but 127.0.0.1 needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(help=f"A file with the token that clients send; else {TOKEN} holds it.")
    ] = None,
    queue: Annotated[int, typer.Option(min=0, help="Photos that may wait; more get status 429.")] = 16,
    seconds: Annotated[float, typer.Option(min=1, help="Limit of waiting and restoring a photo; then 503.")] = 300,
    max_megabytes: Annotated[float, typer.Option(min=0.001, help="Largest accepted file.")] = 50,
    max_megapixels: Annotated[float, typer.Option(min=0.01, max=178, help="Largest accepted photo.")] = 100,
) -> None:
    """An HTTP service: POST a photo to /restore, get it back restored. --workers N runs N models; 0 is one."""
    from authface.restore.settings import RestoreSettings

    settings = run.settings("restore", RestoreSettings, model=model)
    token = read_token(token_file, host)
    if run.dry_run:
        return run.show("restore", settings)

    from authface.restore.queue import Limits, RestoreQueue, make_restorers
    from authface.restore.service.app import ServiceServer, service_app
    from authface.web import local

    limits = Limits(max_megabytes, max_megapixels, queue, seconds)
    with local.listen(host, port, "--port 0 (any free one) or --host 127.0.0.1") as waiting:
        restorers = make_restorers(settings, run.device, run.seed, run.most_workers or 1)
        with RestoreQueue(restorers, limits) as photos:
            url = local.address(host, waiting.getsockname()[1], "restore").rstrip("/")
            first = restorers[0]
            run.console.log(
                f"serve: curl -F photo=@old.jpg {url} -o new.jpg; {first.model} on {first.device_name}; Ctrl-C ends it"
            )
            with suppress(KeyboardInterrupt):
                served = service_app(photos, token, host, run.console.log, debug=run.console.debug)
                ServiceServer(served, photos).run(sockets=[waiting])
    run.console.result("the service has ended; what was begun is finished", url=url)


def read_token(file: Path | None, host: str) -> str:
    """The token that clients must send; empty: none. Raises UsageError if a required one is missing."""
    from authface.web.local import is_loopback

    try:
        token = os.environ.get(TOKEN, "") if file is None else file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "not ASCII"
        raise UsageError(f"--token-file {one_line(file)}: {said}") from error
    if token and (len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token):
        raise UsageError(
            f"a token of {len(token)} characters: at least {MIN_TOKEN} of ASCII without spaces are needed, such as "
            "those of: openssl rand -hex 24"
        )
    if file is not None and not token:
        raise UsageError(f"--token-file {one_line(file)} is empty: openssl rand -hex 24 makes a token")
    if not token and not is_loopback(host):
        raise UsageError(
            f"--host {one_line(host)} lets other computers in, so clients need a token: put one of at least "
            f"{MIN_TOKEN} characters into {TOKEN} or --token-file (openssl rand -hex 24)"
        )
    return token
