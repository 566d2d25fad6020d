"""Rate limiting per host: a token bucket, `Retry-After`, and the host's hourly quota."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import httpx

from authface.curate.settings import WebSettings
from authface.web.http import retry_after, whole_number

LONGEST_WAIT = 6 * 3600.0
"""Seconds that `Retry-After` is obeyed for at most."""
_PATIENCE = 60.0
"""Seconds of a wait that is sat out even under ``--no-wait``."""
_TELL_SECONDS = 60.0
"""Seconds between two reports of a long wait."""
_LEAST_RATE = 0.1
_RECOVERY = 1.05


class Paused(Exception):
    """A host asks for a long wait, and the run must not wait."""

    def __init__(self, host: str, seconds: float) -> None:
        super().__init__(f"{host} takes no more requests for {clock(seconds)}, until {_at(seconds)}")


class Stopped(Exception):
    """The run ends: every wait is given up."""


class Pace:
    """When the next request to one host may go out; thread-safe."""

    def __init__(
        self, host: str, settings: WebSettings, *, wait: bool, say: Callable[[str], None], ended: threading.Event
    ) -> None:
        self._host, self._settings, self._wait, self._say, self._ended = host, settings, wait, say, ended
        self._lock = threading.Lock()
        self._rate = settings.host_rate
        self._tokens = 1.0
        self._filled = time.monotonic()
        self._not_before = 0.0
        self._left: int | None = None
        """Requests left of the quota; None until the host names one."""
        self._window = 0.0
        """When the first request under the present quota went out; 0 before that."""
        self._said = 0.0

    def take(self) -> None:
        """Wait until one request may go out. Raises Paused if that is long and must not be, Stopped at the end."""
        while True:
            seconds, quota = self._reserve()
            if seconds <= 0:
                return
            if not self._wait and (quota or seconds > _PATIENCE):
                raise Paused(self._host, seconds)
            if quota or seconds > _PATIENCE:
                self._tell(seconds)
            if self._ended.wait(min(seconds, _TELL_SECONDS)):
                raise Stopped

    def observe(self, status: int, headers: httpx.Headers) -> bool:
        """Adapt to a response. True if the same request has to be repeated once the quota is full again."""
        now = time.monotonic()
        remaining = whole_number(headers.get("x-ratelimit-remaining"))
        after = retry_after(headers.get("retry-after"))
        with self._lock:
            if remaining is not None:
                self._left = int(remaining) if self._left is None else min(self._left, int(remaining))
            if status in {429, 503} and after is not None:
                self._not_before = max(self._not_before, now + min(after, LONGEST_WAIT))
            elif status == 429 and remaining != 0:
                self._rate = max(self._rate / 2, min(_LEAST_RATE, self._settings.host_rate))
            elif status < 400:
                self._rate = min(self._rate * _RECOVERY, self._settings.host_rate)
            used_up = status in {403, 429} and remaining == 0
            if used_up:
                self._left = 0
            if self._left == 0 and (reset := _reset(headers)) is not None:
                self._window = now + reset - self._settings.window_seconds
            return used_up

    def _reserve(self) -> tuple[float, bool]:
        """Seconds until a request may go out, 0 if this one may; and whether the quota is the reason."""
        with self._lock:
            now = time.monotonic()
            if self._left is not None and self._left <= 0:
                if (full := self._window + self._settings.window_seconds) > now:
                    return full - now, True
                self._left, self._window = None, 0.0
            if self._not_before > now:
                return self._not_before - now, False
            self._tokens = min(1.0 + self._rate / 4, self._tokens + (now - self._filled) * self._rate)
            self._filled = now
            if self._tokens < 1:
                return (1 - self._tokens) / self._rate, False
            self._tokens -= 1
            self._window = self._window or now
            if self._left is not None:
                self._left -= 1
            return 0.0, False

    def _tell(self, seconds: float) -> None:
        """Report how long is left, from one of the waiting threads only."""
        with self._lock:
            now = time.monotonic()
            if now - self._said < min(_TELL_SECONDS, seconds):
                return
            self._said = now
        self._say(f"{self._host} takes no more requests for now: going on in {clock(seconds)}, at {_at(seconds)}")


def _reset(headers: httpx.Headers) -> float | None:
    """Seconds until the quota is full again: `Retry-After`, or `X-Ratelimit-Reset` in seconds or as Unix time."""
    if (after := retry_after(headers.get("retry-after"))) is not None:
        return after
    reset = whole_number(headers.get("x-ratelimit-reset"))
    if reset is None:
        return None
    return max(0.0, reset - time.time() if reset > 1e9 else reset)


def clock(seconds: float) -> str:
    """``59:30 min`` or ``1:59:30 h``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d} h" if hours else f"{minute}:{second:02d} min"


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(time.time() + seconds, UTC).strftime("%H:%M:%S UTC")
