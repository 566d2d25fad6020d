"""A web application on this machine: behind a secret address, for its own page only, without external resources.

A page lies below a random token, so that other users of the machine cannot find it: without it the answer is 404. A
request that names another host (DNS rebinding) or comes from another page (its `Origin`) gets 403.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Iterable, Mapping
from importlib import resources
from urllib.parse import urlsplit

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from authface.errors import AuthfaceError, ImageError, UsageError, one_line

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of a page whose scripts and styles are files beside it."""
HEADERS = {
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of every answer; browsers cache nothing (``Cache-Control: no-store``) unless a route allows it."""
PRIVATE_HOUR = {"Cache-Control": "private, max-age=3600"}
"""``Cache-Control`` of pictures: browsers may keep them for an hour."""
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_EVERYWHERE = {"0.0.0.0", "::"}
"""Wildcard addresses: a machine's other names are unknown to a server that listens there."""


def local_app(token: str, host: str, routers: Iterable[APIRouter] = (), policy: str = POLICY) -> FastAPI:
    """An application of these routes below ``/<token>/``, guarded; `policy` is the Content-Security-Policy.

    Errors are JSON ``{"detail": one line}``: 422 for an invalid request, 404 for a picture that cannot be read,
    500 for a failure.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    for router in routers:
        app.include_router(router, prefix=f"/{token}")
    app.add_middleware(LocalGuard, host=host, policy=policy)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return JSONResponse({"detail": one_line(f"{first['loc'][-1]}: {first['msg']}")}, 422)

    @app.exception_handler(AuthfaceError)
    async def failed(request: Request, error: AuthfaceError) -> Response:
        status = 404 if isinstance(error, ImageError) else 422 if isinstance(error, UsageError) else 500
        return JSONResponse({"detail": one_line(error)}, status)

    return app


def static_files(package: str, kinds: Mapping[str, str], index: str) -> APIRouter:
    """Files of a package by name and media type; `index` answers at the address itself."""
    router = APIRouter()

    def add(name: str, kind: str) -> None:
        content = resources.files(package).joinpath(name).read_bytes()

        @router.get("/" if name == index else f"/{name}")
        def file() -> Response:
            return Response(content, media_type=kind)

    for name, kind in kinds.items():
        add(name, kind)
    return router


def make_server(app: FastAPI) -> uvicorn.Server:
    """An HTTP server for `app`: ``run(sockets=[...])`` serves until Ctrl-C, or until `should_exit` is set."""
    return uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=3)
    )


class LocalGuard:
    """ASGI middleware: answers only requests to this server from its own page, and adds `HEADERS`."""

    def __init__(self, app: ASGIApp, host: str, policy: str) -> None:
        self._app, self._host = app, host
        self._headers = {"Content-Security-Policy": policy, **HEADERS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403; the same check applies to web sockets."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self._headers)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        if allowed(Headers(scope=scope), self._host):
            await self._app(scope, receive, guarded)
        elif scope["type"] == "websocket":
            await WebSocketClose()(scope, receive, send)
        else:
            said = "a request of another page, or for another host, is not answered: open the address that was printed"
            await JSONResponse({"detail": said}, 403)(scope, receive, guarded)


def allowed(headers: Mapping[str, str], host: str) -> bool:
    """Whether a request is for the server that listens on `host`, and comes from its own page or from no page.

    `headers` have lower-case names.
    """
    named = headers.get("host", "")
    origin = headers.get("origin")
    if origin is not None and origin != f"http://{named}":
        return False
    try:
        name = urlsplit(f"//{named}").hostname
    except ValueError:  # brackets that hold no address
        return False
    return host in _EVERYWHERE or name in _LOOPBACK | {host.lower()}


def listen(host: str, port: int, instead: str) -> socket.socket:
    """A listening socket; `instead` tells the user how to choose another address. Raises UsageError."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        waiting = socket.create_server((host, port), family=family)
        waiting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # an answer of two packets else takes 40 ms
        return waiting
    except (OSError, OverflowError, UnicodeError) as error:
        said = getattr(error, "strerror", None) or one_line(error)
        raise UsageError(
            f"cannot listen on {one_line(host)} port {port}: {said}; choose another with {instead}"
        ) from error


def is_loopback(host: str) -> bool:
    """Whether a server on `host` can be reached from this machine only."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def new_token() -> str:
    """A secret for a page's address, 192 bits."""
    return secrets.token_urlsafe(24)


def address(host: str, port: int, token: str) -> str:
    """The URL to open in a browser on this machine."""
    name = "127.0.0.1" if host == "0.0.0.0" else "::1" if host == "::" else host
    return f"http://{f'[{name}]' if _is_ipv6(name) else name}:{port}/{token}/"


def _is_ipv6(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).version == 6
    except ValueError:
        return False
