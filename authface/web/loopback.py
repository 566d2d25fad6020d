"""What the local web pages share: where they listen, their secret address, and whose requests they answer.

A page lies below a random token, so that other users of the machine do not find it. A request that names another host
(DNS rebinding) or comes from another page (its `Origin`) is not answered.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from authface.errors import UsageError, one_line

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_EVERYWHERE = {"0.0.0.0", "::"}
"""Addresses that stand for all of a machine's, whose names the server cannot know."""


def allowed(headers: Mapping[str, str], host: str) -> bool:
    """Whether a request names the server that listens on `host`, and comes from its own page or from no page.

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
    """A socket that waits for browsers; `instead` says how to choose another address. Raises UsageError."""
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


def new_token() -> str:
    """A secret for a page's address, 192 bits."""
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
