"""The HTTP service: ``POST /restore``, ``GET /health``, ``GET /openapi.json``; and its server.

Slow clients are disconnected, and on a signal running photos finish.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import socket
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from authface import __version__
from authface.errors import AuthfaceError, one_line
from authface.restore.queue import Place, QueueLate, RestoreQueue
from authface.restore.service.answers import (
    PhotoFacts,
    Refused,
    answer_of,
    check_result,
    openapi_request,
    options_of,
    read_upload,
    refusal,
    response_of,
    result_of,
)
from authface.web.local import POLICY, LocalGuard

HEADER_SECONDS = 10.0
"""Seconds for a request's headers, from its first byte or the start of the connection."""
READ_SECONDS = 30.0
"""Seconds for which a client may stop reading its answer."""
MORE_CONNECTIONS = 256
"""Connections beyond the queue's places, for refused clients and other requests."""


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that disconnects clients which send no request or read no answer."""

    _header: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait for a request."""
        super().connection_made(transport)
        self._await_request()

    def data_received(self, data: bytes) -> None:
        """Bytes of a request: its headers must be complete in time."""
        super().data_received(data)
        if self._has_request():
            self._cancel_header()
        elif self._header is None:
            self._await_request()

    def _has_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_request(self) -> None:
        self._header = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self._header = None
        if not self._has_request():
            self.transport.abort()

    def _cancel_header(self) -> None:
        if self._header is not None:
            self._header.cancel()
            self._header = None

    def pause_writing(self) -> None:
        """The client reads slower than the answer is written."""
        super().pause_writing()
        self._stalled = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has caught up."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        super().connection_lost(exc)
        self._cancel_header()
        if self._stalled is not None:
            self._stalled.cancel()


class ServiceServer(uvicorn.Server):
    """Stops at Ctrl-C and SIGTERM: new and waiting photos are refused, running ones finish."""

    def __init__(self, app: FastAPI, queue: RestoreQueue) -> None:
        self._queue = queue
        super().__init__(
            uvicorn.Config(
                app,
                http=PatientProtocol,
                ws="none",
                lifespan="off",
                log_level="error",
                access_log=False,
                server_header=False,
                limit_concurrency=queue.places + MORE_CONNECTIONS,
                timeout_graceful_shutdown=round(queue.limits.seconds) + 5,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drop what waits, and end when what runs is done.

        The server's loop comes here, not a signal's handler: the thread that this interrupts may hold the queue's lock.
        """
        self._queue.close()
        await super().shutdown(sockets)


LINGER = 5.0
"""Seconds for which the rest of a refused client's request is discarded, so that it can read the reason."""
OPEN = frozenset({"/health"})
"""Paths without authentication."""
_ERRORS = {
    401: "Missing or wrong token.",
    408: "The client sends too slowly.",
    413: "More bytes or pixels than allowed; refused before they are in memory.",
    415: "Not a photo in a supported format.",
    422: "An unknown or invalid option, or a damaged photo.",
    429: "The queue is full; Retry-After says when to try again.",
    500: "A fault of the server, whose log says more.",
    503: "It took too long, or the server is stopping.",
}

T = TypeVar("T")
Log = Callable[[str], None]


def service_app(queue: RestoreQueue, token: str, host: str, log: Log, *, debug: bool = False) -> FastAPI:
    """The service on `host`; every request except for `/health` must send `token`, unless it is empty.

    With `debug` the trace of a bug is printed.
    """
    app = FastAPI(
        title="authface",
        version=__version__,
        description="Restores the faces in a photo. Photos are not stored.",
        docs_url=None,
        redoc_url=None,
    )
    photo = {"schema": {"type": "string", "format": "binary"}}
    answers: dict[int | str, dict[str, Any]] = {
        200: {"model": PhotoFacts, "content": {"image/*": photo}, "description": "The photo, or facts about it."},
        **{status: {"description": text} for status, text in _ERRORS.items()},
    }

    @app.post("/restore", responses=answers, openapi_extra=openapi_request())
    async def restore(request: Request) -> Response:
        """Restore the faces of a photo: the body, or a form's field `photo`."""
        try:
            response, line = await _restore(request, queue)
        except AuthfaceError as error:
            response, line = refusal(error), one_line(error)
        except Exception as error:  # noqa: BLE001  a bug is one line, too: the trace is for --debug
            name = type(error).__name__
            response = JSONResponse({"detail": f"unexpected {name}: the server's log says more"}, 500)
            line = f"unexpected {name}: {one_line(error)}; authface serve --debug shows the trace"
            if debug:
                traceback.print_exc()
        log(f"restore {response.status_code}: {line}")
        return response

    @app.get("/health")
    def health() -> Response:
        """Whether photos are accepted, and how many are in the queue."""
        busy, waiting = queue.counts()
        facts = {
            "status": "stopping" if queue.closed else "ok",
            "version": __version__,
            "workers": queue.workers,
            "busy": busy,
            "waiting": waiting,
            "places": queue.places,
        }
        return JSONResponse(facts, 503 if queue.closed else 200)

    if token:
        app.add_middleware(Bearer, token=token)
    app.add_middleware(Lingering)
    app.add_middleware(LocalGuard, host=host, policy=POLICY)
    return app


async def _restore(request: Request, queue: RestoreQueue) -> tuple[Response, str]:
    """The answer, and a line for the log."""
    asked, _ = options_of(request.query_params.multi_items())
    queue.settings_of(asked)  # before the photo is sent
    with queue.enter() as place:
        upload = await read_upload(request, queue.limits.bytes)
        asked, result = options_of([*request.query_params.multi_items(), *upload.fields])
        result = result or result_of(request.headers.get("accept", ""))
        settings = queue.settings_of(asked)
        format, scale = settings.format, settings.upscale
        before = partial(check_result, format=format, scale=scale)
        then = partial(answer_of, format=format, scale=scale, model=Path(settings.model).name, keep=result != "json")
        start = time.monotonic()
        answer = await _finished(
            request, place.restore(upload.data, asked, then, before=before), place, queue.limits.seconds
        )
    facts, seconds = answer.facts, time.monotonic() - start
    size = f"{len(upload.data) / 1e6:.2f} MB, {facts.width} x {facts.height}"
    return response_of(answer, result), f"{size}, {facts.restored} of {len(facts.faces)} faces, {seconds:.1f} s"


async def _finished(request: Request, future: Future[T], place: Place, seconds: float) -> T:
    """The worker's result. Raises its error, QueueLate even if a step goes on, QueueStopped if it was dropped."""
    work: asyncio.Future[T] = asyncio.wrap_future(future)
    gone: asyncio.Future[None] = asyncio.ensure_future(_gone(request))
    try:
        both: set[asyncio.Future[Any]] = {work, gone}
        done, _ = await asyncio.wait(both, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
    if work in done:
        if work.cancelled():
            raise place.why("this server is stopping: try again later")
        return work.result()
    place.stop()
    work.add_done_callback(lambda late: late.cancelled() or late.exception())  # nobody asks any more
    if gone in done:
        raise Refused(400, "the client went away")
    raise QueueLate(seconds)


async def _gone(request: Request) -> None:
    """Return when the client disconnects; its request is read already."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Bearer:
    """ASGI middleware: requires ``Authorization: Bearer TOKEN`` before a body is read."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, _digest(token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if scope["type"] == "http" and scope["path"] not in OPEN:
            kind, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not hmac.compare_digest(_digest(given.strip()), self._token):
                text = "a token is needed: the header Authorization: Bearer TOKEN"
                answer = JSONResponse({"detail": text}, 401, {"WWW-Authenticate": "Bearer"})
                return await answer(scope, receive, send)
        await self._app(scope, receive, send)


def _digest(text: str) -> bytes:
    """A digest of constant length, so that the time of a comparison reveals nothing."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


class Lingering:
    """ASGI middleware: if an answer is sent before its request is complete, discards the rest for a while.

    A connection closed while its client is still sending is reset, and the client never reads the answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and end its answer when the request has ended."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        whole = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers

        async def heard() -> Message:
            nonlocal whole
            message = await receive()
            whole = whole or not message.get("more_body", False)
            return message

        async def said(message: Message) -> None:
            if message["type"] == "http.response.start" and not whole:
                MutableHeaders(scope=message)["Connection"] = "close"
            if message["type"] == "http.response.body" and not message.get("more_body") and not whole:
                await send({**message, "more_body": True})
                message = {"type": "http.response.body", "body": b""}
                try:
                    async with asyncio.timeout(LINGER):
                        while not whole:
                            await heard()
                except TimeoutError:
                    pass
            await send(message)

        await self._app(scope, heard, said)
