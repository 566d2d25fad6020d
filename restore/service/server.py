"""The service's server: slow clients are disconnected, and on a signal running photos finish."""

from __future__ import annotations

import asyncio
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from authface.restore.queue import RestoreQueue

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

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal or a stop request."""
        super().handle_exit(sig, frame)
        self._queue.close()
