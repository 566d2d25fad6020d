"""The web page's server: on this machine, below a secret address, with temporary files that go when it ends."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from authface.errors import UsageError
from authface.restore.api import Restorer
from authface.restore.app.page import Page, theme
from authface.restore.app.workspace import Workspace
from authface.web import loopback

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI


_HEADERS = {
    # Gradio's page is built by scripts and styles inside it; from elsewhere it can load nothing.
    b"content-security-policy": b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    b"style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
    b"worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}
_QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""Nothing is counted or kept; read when Gradio is imported."""


class Guard:
    """Answers only who names this server and comes from its own page, and says what the page may load."""

    def __init__(self, app: Any, host: str) -> None:
        self.app, self.host = app, host

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        from starlette.datastructures import Headers
        from starlette.responses import PlainTextResponse

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = [(name, value) for name, value in message["headers"] if name.lower() not in _HEADERS]
                message = {**message, "headers": [*own, *_HEADERS.items()]}
            await send(message)

        known = loopback.allowed(Headers(scope=scope), self.host)
        await (self.app if known else PlainTextResponse("not from here", 403))(scope, receive, guarded)


@contextmanager
def page(restorer: Restorer, token: str, host: str, max_megabytes: float, max_megapixels: float) -> Iterator[FastAPI]:
    """The page below ``/<token>/``; what it stored is deleted in the end. Raises UsageError without the extra."""
    os.environ.update(_QUIET)
    with TemporaryDirectory(prefix="authface-app-") as folder, _environment("GRADIO_TEMP_DIR", folder):
        try:
            import gradio
        except ImportError as error:
            raise UsageError("authface app needs Gradio: pip install 'authface[app]'") from error
        from fastapi import FastAPI

        made = Page(Workspace(restorer, Path(folder), round(max_megapixels * 1e6)), max_megabytes)
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        gradio.mount_gradio_app(
            app,
            made.blocks,
            path=f"/{token}",
            max_file_size=round(max_megabytes * 2**20),
            footer_links=[],
            run_history=False,
            show_error=True,
            ssr_mode=False,
            enable_monitoring=False,
            pwa=False,
            mcp_server=False,
            theme=theme(),
            css=resources.files("authface.restore.app").joinpath("app.css").read_text("utf-8"),
        )
        app.add_middleware(Guard, host=host)
        yield app


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def server(app: FastAPI) -> uvicorn.Server:
    """What answers browsers: ``run(sockets=[...])`` until `should_exit` is set or Ctrl-C."""
    import uvicorn

    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=3
    )
    return uvicorn.Server(config)


def listen(host: str, port: int) -> socket.socket:
    """A socket that waits for browsers. Raises UsageError where the address cannot be had."""
    return loopback.listen(host, port, "--port 0 (any free one) or --host 127.0.0.1")
