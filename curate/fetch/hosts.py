"""Which hosts may be contacted: every address a name resolves to is checked before one of them is connected to."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx

from authface.errors import ImageError, one_line

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
    private = ip.is_private or (isinstance(ip, ipaddress.IPv4Address) and ip in _SHARED)
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
