"""`authface serve`: restore photos over HTTP."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from authface.errors import UsageError, one_line
from authface.options import Run

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
    from authface.restore.service.app import service_app
    from authface.restore.service.server import ServiceServer
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
            signal.signal(signal.SIGTERM, _interrupt)
            with suppress(KeyboardInterrupt):
                ServiceServer(service_app(photos, token, host, run.console.log), photos).run(sockets=[waiting])
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


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
