"""Rate limiting per host: a token bucket, `Retry-After`, and the host's hourly quota."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import httpx

from authface.curate.settings import WebSettings
from authface.web.http import retry_after, whole_number

_PATIENCE = 60.0
"""Seconds of a wait that is sat out even under ``--no-wait``."""
_TELL_SECONDS = 60.0
"""Seconds between two reports of a long wait."""
_DAY = 24 * 3600.0
_LAST = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
_LEAST_RATE = 0.1
_RECOVERY = 1.05


class Interrupted(Exception):
    """A request was not made, or not to its end, for a reason that says nothing of what it asked for: no row."""


class Paused(Interrupted):
    """A host asks for a long wait, and the run must not wait."""

    def __init__(self, host: str, seconds: float) -> None:
        super().__init__(f"{host} takes no more requests for {clock(seconds)}, until {_at(seconds)}")
        self.host = host


class Deferred(Paused):
    """A host asks for a longer wait than this run makes for any: the next run asks it again."""


class Stopped(Interrupted):
    """The run ends: every wait is given up."""


class Wait(Interrupted):
    """Something has to wait for `seconds` before it is begun again, in the `lane` of its host or in one of its own."""

    def __init__(self, lane: str, seconds: float) -> None:
        super().__init__(lane, seconds)
        self.lane, self.seconds = lane, seconds


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

    def take(self, *, hand_back: bool = False) -> None:
        """Wait until one request may go out, or raise Wait with `hand_back`.

        Raises Deferred or Paused if the wait is longer than this run makes, Stopped at the end.
        """
        while True:
            seconds, quota = self._reserve()
            if seconds <= 0:
                return
            if quota and not self._wait:
                raise Paused(self._host, seconds)
            if not quota and seconds > self.longest:
                raise Deferred(self._host, seconds)
            if quota or seconds > _PATIENCE:
                self._tell(seconds)
            if hand_back:
                raise Wait(self._host, seconds)
            if self._ended.wait(min(seconds, _TELL_SECONDS)):
                raise Stopped

    @property
    def longest(self) -> float:
        """Seconds of a `Retry-After` that are waited for."""
        return (
            self._settings.longest_wait_seconds if self._wait else min(_PATIENCE, self._settings.longest_wait_seconds)
        )

    def observe(self, status: int, headers: httpx.Headers) -> float | None:
        """Adapt to a response. Seconds that a host asks for before the same request; 0 where it is a quota's."""
        now = time.monotonic()
        remaining = whole_number(headers.get("x-ratelimit-remaining"))
        after = retry_after(headers.get("retry-after"))
        with self._lock:
            if remaining is not None:
                self._left = int(remaining) if self._left is None else min(self._left, int(remaining))
            used_up = status in {403, 429} and remaining == 0
            waits = bool(after) and status in {403, 429, 503} and not used_up
            if waits and after:
                self._not_before = max(self._not_before, now + after)
            elif status == 429 and remaining != 0:
                self._rate = max(self._rate / 2, min(_LEAST_RATE, self._settings.host_rate))
            elif status < 400:
                self._rate = min(self._rate * _RECOVERY, self._settings.host_rate)
            if used_up:
                self._left = 0
            if self._left == 0 and (reset := _reset(headers)) is not None:
                self._window = now + reset - self._settings.window_seconds
            return 0.0 if used_up else after if waits else None

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
    when = datetime.fromtimestamp(min(time.time() + seconds, _LAST), UTC)
    return when.strftime("%H:%M:%S UTC" if seconds < _DAY else "%d %B %Y, %H:%M UTC")
