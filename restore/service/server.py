"""The service's server: patience with slow clients is limited, and a signal lets what runs finish."""

from __future__ import annotations

import asyncio
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from authface.restore.queue import RestoreQueue

HEADER_SECONDS = 10.0
"""For a request's headers, from its first byte or the connection's begin."""
READ_SECONDS = 30.0
"""For which a client may read nothing of its answer."""
MORE_CONNECTIONS = 256
"""Beyond the queue's places, for clients that are refused or ask for something else."""


class PatientProtocol(H11Protocol):
    """HTTP/1.1 for which a client that sends no request, or reads no answer, is cut off."""

    _header: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait for a request."""
        super().connection_made(transport)
        self._await_request()

    def data_received(self, data: bytes) -> None:
        """Bytes of a request: its headers have to be whole in time."""
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
        """The client does not read as fast as it is written to."""
        super().pause_writing()
        self._stalled = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It has read."""
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
    """Stops at Ctrl-C and SIGTERM: no new photos, those that wait are refused, those that are worked on finish."""

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
        """A signal came, or somebody stops the server."""
        super().handle_exit(sig, frame)
        self._queue.close()
