"""A page that this machine serves for people: below a secret token, with nothing that is loaded from outside.

Who does not know the token gets 404, a request that `authface.web.loopback` does not allow 403.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib import resources

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse

from authface.errors import AuthfaceError, UsageError, one_line
from authface.web import loopback

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
        welcome = loopback.allowed(request.headers, host)
        response = await answer(request) if welcome else PlainTextResponse("not from here", 403)
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


def files(kinds: Mapping[str, str], index: str) -> APIRouter:
    """Files of this package by name and media type; `index` answers at the address itself."""
    router = APIRouter()
    folder = resources.files("authface.evaluate.study")

    def add(name: str, kind: str) -> None:
        content = folder.joinpath(name).read_bytes()

        @router.get("/" if name == index else f"/{name}")
        def file() -> Response:
            return Response(content, media_type=kind)

    for name, kind in kinds.items():
        add(name, kind)
    return router


def server(app: FastAPI) -> uvicorn.Server:
    """What answers browsers: ``run(sockets=[...])`` until it is stopped, or `should_exit` is set."""
    return uvicorn.Server(
        uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, lifespan="off", timeout_graceful_shutdown=3
        )
    )
