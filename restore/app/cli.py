"""`authface app`: restore and compare in a local web page."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import Annotated

import typer

from authface.extras import need
from authface.options import Run


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
    from authface.restore.queue import Limits, RestoreQueue
    from authface.web import local

    restorer = Restorer(**settings.model_dump(), device=run.device, seed=run.seed)
    token = local.new_token()
    with (
        local.listen(host, port, INSTEAD) as waiting,
        RestoreQueue([restorer], Limits(max_megabytes, max_megapixels)) as queue,
        page(queue, token, host) as app,
    ):
        url = local.address(host, waiting.getsockname()[1], token)
        run.console.log(f"app: open {url} and end with Ctrl-C")
        if not no_browser:
            _open(url)
        signal.signal(signal.SIGTERM, _interrupt)  # so that the temporary files go then, too
        with suppress(KeyboardInterrupt):
            local.make_server(app).run(sockets=[waiting])
    run.console.result("the page is closed and its temporary files are deleted", url=url)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _open(url: str) -> None:
    """Open the page, if this machine has a screen; it loads once the server answers."""
    import webbrowser

    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return  # a browser in the terminal would take it over
    with suppress(webbrowser.Error):
        webbrowser.open(url)
