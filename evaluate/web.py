"""A page that this machine serves for people: a secret address, no foreign pages, nothing loaded from outside.

Who does not know the token gets 404. A request that names another host (DNS rebinding) or comes from another page
(its `Origin`) gets 403.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping
from importlib import resources
from urllib.parse import urlsplit

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse

from authface.errors import AuthfaceError, UsageError, one_line

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_EVERYWHERE = {"0.0.0.0", "::"}
"""Addresses that stand for all of a machine's, whose names the server cannot know."""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def make_app(routers: tuple[APIRouter, ...], token: str, host: str) -> FastAPI:
    """The routes below ``/<token>/``, guarded."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    for router in routers:
        app.include_router(router, prefix=f"/{token}")

    @app.middleware("http")
    async def guard(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await answer(request) if allowed(request, host) else PlainTextResponse("not from here", 403)
        response.headers.update(_HEADERS)
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    @app.exception_handler(RequestValidationError)
    async def not_understood(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return JSONResponse({"detail": one_line(f"{first['loc'][-1]}: {first['msg']}")}, 422)

    @app.exception_handler(AuthfaceError)
    async def not_done(request: Request, error: AuthfaceError) -> Response:
        return JSONResponse({"detail": one_line(error)}, 422 if isinstance(error, UsageError) else 500)

    return app


def allowed(request: Request, host: str) -> bool:
    """Whether the request names this server, and comes from its own page or from no page."""
    named = request.headers.get("host", "")
    origin = request.headers.get("origin")
    if origin is not None and origin != f"http://{named}":
        return False
    try:
        name = urlsplit(f"//{named}").hostname
    except ValueError:  # brackets that hold no address
        return False
    return host in _EVERYWHERE or name in _LOOPBACK | {host.lower()}


def files(kinds: Mapping[str, str], index: str) -> APIRouter:
    """Files of this package by name and media type; `index` answers at the address itself."""
    router = APIRouter()
    folder = resources.files("authface.evaluate")

    def add(name: str, kind: str) -> None:
        content = folder.joinpath(name).read_bytes()

        @router.get("/" if name == index else f"/{name}")
        def file() -> Response:
            return Response(content, media_type=kind)

    for name, kind in kinds.items():
        add(name, kind)
    return router


def listen(host: str, port: int, setting: str) -> socket.socket:
    """A socket that waits for browsers; `setting` is the table that holds host and port. Raises UsageError."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        waiting = socket.create_server((host, port), family=family)
        waiting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # an answer of two packets else takes 40 ms
        return waiting
    except OSError as error:
        raise UsageError(
            f"cannot listen on {one_line(host)} port {port}: {error.strerror or one_line(error)}; choose another with "
            f"--host 127.0.0.1 or -O {setting}.port=0 (any free one)"
        ) from error


def new_token() -> str:
    """A secret for the page's address, 192 bits."""
    return secrets.token_urlsafe(24)


def address(host: str, port: int, token: str) -> str:
    """What to open in a browser on this machine."""
    name = "127.0.0.1" if host == "0.0.0.0" else "::1" if host == "::" else host
    return f"http://{f'[{name}]' if _is_ipv6(name) else name}:{port}/{token}/"


def _is_ipv6(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).version == 6
    except ValueError:
        return False


def server(app: FastAPI) -> uvicorn.Server:
    """What answers browsers: ``run(sockets=[...])`` until it is stopped, or `should_exit` is set."""
    return uvicorn.Server(
        uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, lifespan="off", timeout_graceful_shutdown=3
        )
    )
