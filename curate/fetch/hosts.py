"""Which hosts may be contacted, and how often.

Which hosts may be contacted: every address a name resolves to is checked before one of them is connected to. Rates are
kept per host: a token bucket, `Retry-After`, and the host's hourly quota.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

import httpcore
import httpx

from authface.curate.settings import WebSettings
from authface.errors import ImageError, one_line
from authface.web.http import retry_after, whole_number

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
_SHARED = ipaddress.IPv4Network("100.64.0.0/10")  # RFC 6598: addresses behind a carrier's NAT
_limit = threading.local()


class WebError(ImageError):
    """An address that gave no photo; `rejected` if a rule refused it, rather than something failed."""

    def __init__(self, reason: str, message: str, *, status: int = 0, rejected: bool = False) -> None:
        super().__init__(reason, message)
        self.status = status
        self.rejected = rejected


def check_url(url: str) -> httpx.URL:
    """The parsed address. Raises WebError (`bad_address`) unless it is a plain http or https address of a host."""
    try:
        if len(url) > 8192 or not url.isprintable():
            raise ValueError("longer than 8192 characters, or with characters that no address has")
        parsed = httpx.URL(url)
        if parsed.scheme not in {"http", "https"} or not parsed.host:
            raise ValueError("not an http or https address")
        if parsed.userinfo:
            raise ValueError("it holds a user name or password")
        _ = parsed.raw_host, parsed.port
    except (httpx.InvalidURL, ValueError, TypeError) as error:
        raise WebError("bad_address", f"{one_line(url, 80)}: {one_line(error)}") from error
    return parsed


def refusal(address: str, *, allow_private: bool) -> str:
    """Why an IP address must not be contacted, in a word or two; empty if it may be.

    `allow_private` lets loopback and private networks pass, never link-local, multicast or reserved addresses.
    """
    try:
        outer = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "not an address"
    words = [_refusal(inner, allow_private) for inner in (outer, *_embedded(outer))]
    return next((word for word in words if word), "")


def _refusal(ip: IPAddress, allow_private: bool) -> str:
    if ip.is_loopback:
        return "" if allow_private else "loopback"
    if isinstance(ip, ipaddress.IPv6Address) and _embedded(ip):
        return ""  # judged by the address inside
    for word, applies in (
        ("link-local", ip.is_link_local),
        ("multicast", ip.is_multicast),
        ("unspecified", ip.is_unspecified),
        ("reserved", ip.is_reserved),
    ):
        if applies:
            return word
    other = ip in _SHARED if isinstance(ip, ipaddress.IPv4Address) else ip.is_site_local
    private = ip.is_private or other
    return "private" if private and not allow_private else ""


def _embedded(ip: IPAddress) -> list[IPAddress]:
    """IPv4 addresses that an IPv6 address leads to."""
    if isinstance(ip, ipaddress.IPv4Address):
        return []
    teredo = ip.teredo or ()
    nat64 = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None
    return [inner for inner in (ip.ipv4_mapped, ip.sixtofour, *teredo, nat64) if inner is not None]


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Limit everything that this thread reads or writes in the block to `seconds` in all."""
    _limit.at = time.monotonic() + seconds
    try:
        yield
    finally:
        del _limit.at


def _left(timeout: float | None) -> float | None:
    """The smaller of `timeout` and what is left of the thread's deadline. Raises httpcore.ReadTimeout past it."""
    at = getattr(_limit, "at", None)
    if at is None:
        return timeout
    left = float(at - time.monotonic())
    if left <= 0:
        raise httpcore.ReadTimeout("the time for one try is over")
    return left if timeout is None else min(left, timeout)


class _Stream(httpcore.NetworkStream):
    """A connection that obeys the deadline of the thread using it."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _left(timeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Guard(httpcore.SyncBackend):
    """Resolves a name once, refuses it if any of its addresses is refused, and connects to the checked addresses."""

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = _resolve(host, port)
        for address in addresses:
            if word := refusal(address, allow_private=self._allow_private):
                raise WebError(
                    "bad_address",
                    f"{one_line(host, 80)} leads to the {word} address {one_line(address, 50)}",
                    rejected=True,
                )
        *others, last = addresses
        for address in others:
            try:
                return _Stream(super().connect_tcp(address, port, _left(timeout), local_address, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return _Stream(super().connect_tcp(last, port, _left(timeout), local_address, socket_options))


def _resolve(host: str, port: int) -> list[str]:
    """Addresses of a host, at least one. Raises WebError (`unreachable`, `bad_address`) or httpcore.ConnectError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}:
            raise WebError("unreachable", f"no host is called {one_line(host, 80)}") from error
        raise httpcore.ConnectError(one_line(error)) from error
    except (OSError, UnicodeError) as error:
        raise WebError("bad_address", f"{one_line(host, 80)}: {one_line(error)}") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class GuardedTransport(httpx.HTTPTransport):
    """httpx's transport over connections to checked addresses only."""

    def __init__(self, connections: int, *, allow_private: bool) -> None:
        context = httpx.create_ssl_context()
        super().__init__(verify=context)
        self._pool = httpcore.ConnectionPool(  # httpx takes no backend: its pool is replaced by one that has it
            ssl_context=context,
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=30,
            network_backend=_Guard(allow_private),
        )


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

    def take(self, *, hand_back: bool = False, begun: bool = False) -> None:
        """Wait until one request may go out, or raise Wait with `hand_back`.

        For its turn alone a photo of which a request went out, `begun`, is waited for here: from its beginning it would
        take the turn of the request that it still lacks for one that it had, again and again.
        Raises Deferred or Paused if the host asks for a longer wait than this run makes, Stopped at the end.
        """
        while True:
            seconds, why = self._reserve()
            if seconds <= 0:
                return
            quota = why == "quota"
            if quota and not self._wait:
                raise Paused(self._host, seconds)
            if why == "asked" and seconds > self.longest:
                raise Deferred(self._host, seconds)
            if quota or seconds > _PATIENCE:
                self._tell(seconds)
            if hand_back and not (begun and why == "turn"):
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

    def _reserve(self) -> tuple[float, Literal["quota", "asked", "turn"]]:
        """Seconds until a request may go out, 0 if this one may; and why: the quota, `Retry-After`, or its turn."""
        with self._lock:
            now = time.monotonic()
            if self._left is not None and self._left <= 0:
                if (full := self._window + self._settings.window_seconds) > now:
                    return full - now, "quota"
                self._left, self._window = None, 0.0
            if self._not_before > now:
                return self._not_before - now, "asked"
            self._tokens = min(1.0 + self._rate / 4, self._tokens + (now - self._filled) * self._rate)
            self._filled = now
            if self._tokens < 1:
                return (1 - self._tokens) / self._rate, "turn"
            self._tokens -= 1
            self._window = self._window or now
            if self._left is not None:
                self._left -= 1
            return 0.0, "turn"

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
