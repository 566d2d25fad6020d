"""The web page's server: on this machine, below a secret address, or for everybody who reaches it.

Its temporary files go when it ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources

from fastapi import FastAPI

from authface.extras import need
from authface.restore.app.folder import temporary_folder
from authface.restore.app.workspace import Workspace
from authface.restore.queue import RestoreQueue
from authface.web.local import local_app

INSTEAD = "--port 0 (any free one) or --host 127.0.0.1"
"""How to choose another address."""
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
"""Gradio's page needs inline scripts and styles; nothing is loaded from other hosts."""
_QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""Disables Gradio's telemetry and storage; read when Gradio is imported."""


@contextmanager
def page(queue: RestoreQueue, token: str, host: str) -> Iterator[FastAPI]:
    """The page below ``/<token>/``; its files are deleted at the end. Raises UsageError without the extra."""
    app = local_app(token, host, policy=_POLICY)
    with _mounted(queue, app, f"/{token}"):
        yield app


@contextmanager
def hosted_page(queue: RestoreQueue, privacy: str) -> Iterator[FastAPI]:
    """The page at ``/`` for everybody, such as the visitors of a Space; other sites may frame it.

    `privacy` informs them about the use of their photos, which are deleted as with `page`. Raises as it does.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    with _mounted(queue, app, "/", privacy):
        yield app


@contextmanager
def _mounted(queue: RestoreQueue, app: FastAPI, path: str, privacy: str = "") -> Iterator[None]:
    """The page in an application; its files are in a folder that is deleted with the block."""
    os.environ.update(_QUIET)
    with temporary_folder() as folder, _environment("GRADIO_TEMP_DIR", str(folder)):
        need("authface app", "app")
        import gradio.routes

        from authface.restore.app.page import (  # only now: it imports Gradio, which reads what is set
            LOCAL_PRIVACY,
            Page,
            theme,
        )

        # Gradio keeps what was set when it was imported, which an earlier page may have done.
        gradio.routes.DEFAULT_TEMP_DIR = str(folder)
        made = Page(Workspace(queue, folder), privacy or LOCAL_PRIVACY)
        gradio.mount_gradio_app(
            app,
            made.blocks,
            path=path,
            max_file_size=round(queue.limits.megabytes * 2**20),
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
        # Only `launch` says so, and until then Gradio takes any file of this machine for one that was uploaded.
        made.blocks.has_launched = True
        yield


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
