"""HTTP against a server that misbehaves: every mishap is an error with its reason, no request is wasted."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface import __version__
from authface.curate.fetch.hosts import Pace, Paused, Wait, WebError, check_url, refusal
from authface.curate.fetch.web import Web
from authface.curate.settings import WebSettings
from tests.curate.conftest import Handler, Server

BODY = bytes(range(256)) * 500


@pytest.fixture
def web() -> Iterator[Web]:
    found = make()
    yield found
    found.close()


def make(*, wait: bool = True, **settings: object) -> Web:
    given = {"allow_private_hosts": True, "backoff_seconds": 0.02, "timeout_seconds": 0.5, "host_rate": 500}
    return Web(WebSettings(**given | settings), wait=wait)  # type: ignore[arg-type]


def reason(web: Web, url: str, max_bytes: int = 1 << 20) -> str:
    with pytest.raises(WebError) as caught:
        web.get(url, max_bytes=max_bytes)
    assert "\n" not in str(caught.value)
    return caught.value.reason


def test_a_body_comes_as_it_is_and_the_agent_names_itself(server: Server, web: Web) -> None:
    assert web.get(server.serve("/a", BODY), max_bytes=len(BODY)).body == BODY
    (_, headers), *more = server.log
    assert headers["user-agent"] == f"authface/{__version__}" and headers["accept-encoding"] == "identity"
    assert more == []


def test_500s_are_tried_again(server: Server, web: Web) -> None:
    server.routes["/a"] = lambda request: request.reply(500 if request.tries() < 4 else 200, b"good")
    assert web.get(server.url("/a"), max_bytes=99).body == b"good"
    server.routes["/b"] = lambda request: request.reply(500)
    assert reason(web, server.url("/b")) == "http_error"
    assert server.asked == {"/a": 4, "/b": 5}


@pytest.mark.parametrize("hops", [1, 4])
def test_a_redirect_within_a_host_comes_to_its_end_however_slow_the_pace(hops: int, server: Server) -> None:
    """What is handed back is begun again: its second request waits for its turn, or it would begin for ever."""
    web = make(host_rate=5)
    for hop in range(hops):
        server.routes[f"/{hop}"] = lambda request, to=f"/{hop + 1}": request.reply(301, Location=to)
    server.serve(f"/{hops}", b"good")
    handed_back = 0
    for _ in range(3):
        while True:
            try:
                with web.handing_back():
                    assert web.get(server.url("/0"), max_bytes=99).body == b"good"
                break
            except Wait as wait:
                handed_back += 1
                assert handed_back < 20
                time.sleep(wait.seconds)
    assert server.asked == {f"/{hop}": 3 for hop in range(hops + 1)} and handed_back > 0
    web.close()


def test_a_turn_is_waited_for_though_no_wait_is_that_a_host_asks_for(server: Server) -> None:
    web = make(longest_wait_seconds=0, host_rate=4)
    server.serve("/a", b"good")
    assert [web.get(server.url("/a"), max_bytes=99).body for _ in range(4)] == [b"good"] * 4
    web.close()


def test_a_dead_link_is_asked_for_once(server: Server, web: Web) -> None:
    server.routes["/gone"] = lambda request: request.reply(410)
    assert reason(web, server.url("/gone")) == reason(web, server.url("/never")) == "dead_link"
    assert reason(web, "http://no-such-host.invalid/a") in {"dead_link", "unreachable"}
    assert server.asked == {"/gone": 1, "/never": 1}


def test_429_waits_as_long_as_it_is_told(server: Server, web: Web) -> None:
    def busy(request: Handler) -> None:
        request.reply(429 if request.tries() == 1 else 200, b"good", Retry_After="1")

    server.routes["/a"] = busy
    start = time.monotonic()
    assert web.get(server.url("/a"), max_bytes=99).body == b"good"
    assert time.monotonic() - start >= 1


def cut(request: Handler, *, validator: str, honour: bool = True) -> None:
    """A third of what is left, then silence of the host: the connection ends."""
    first = 0
    asked = request.headers.get("Range")
    if asked and honour and request.headers.get("If-Range") == validator:
        first = int(asked.removeprefix("bytes=").removesuffix("-"))
    rest = BODY[first:]
    request.send_response(206 if first else 200)
    if first:
        request.send_header("Content-Range", f"bytes {first}-{len(BODY) - 1}/{len(BODY)}")
    request.send_header("ETag", validator)
    request.send_header("Content-Length", str(len(rest)))
    request.end_headers()
    request.wfile.write(rest if request.tries() >= 4 else rest[: len(rest) // 3])
    request.close_connection = True


def test_a_cut_body_is_resumed_where_it_broke(server: Server, web: Web) -> None:
    server.routes["/a"] = lambda request: cut(request, validator='"one"')
    assert web.get(server.url("/a"), max_bytes=len(BODY)).body == BODY
    starts = [int(headers.get("range", "bytes=0-")[6:-1]) for _, headers in server.log]
    assert len(starts) == 4 and starts == sorted(set(starts)), "each try goes on where the last one broke"


def test_a_cut_body_without_a_state_to_name_starts_over(server: Server, web: Web) -> None:
    server.routes["/a"] = lambda request: cut(request, validator='W/"weak"')
    server.routes["/b"] = lambda request: cut(request, validator='"one"', honour=False)
    for path in ("/a", "/b"):
        assert web.get(server.url(path), max_bytes=len(BODY)).body == BODY
    assert not any("range" in headers for path, headers in server.log if path == "/a")


def test_a_file_that_changed_while_it_was_resumed_comes_whole(server: Server, web: Web) -> None:
    def changing(request: Handler) -> None:
        if request.tries() == 1:
            return cut(request, validator='"old"')
        request.reply(200, b"new" * 9, ETag='"new"')

    server.routes["/a"] = changing
    assert web.get(server.url("/a"), max_bytes=len(BODY)).body == b"new" * 9


def endless(request: Handler) -> None:
    request.send_response(200)
    request.end_headers()
    while True:
        request.wfile.write(bytes(1 << 14))


def test_an_endless_body_ends_at_the_limit(server: Server, web: Web) -> None:
    server.routes["/endless"] = endless
    assert reason(web, server.url("/endless"), 1 << 20) == "too_large"
    server.serve("/announced", BODY)
    assert reason(web, server.url("/announced"), len(BODY) - 1) == "too_large"
    assert server.asked.total() == 2, "no second try for what is too large"


def test_a_host_that_drips_or_is_silent_ends(server: Server) -> None:
    ended = threading.Event()

    def drip(request: Handler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        while not ended.wait(0.05):
            request.wfile.write(b".")

    def drip_headers(request: Handler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not ended.wait(0.05):
            request.wfile.write(b"X-A: b\r\n")

    server.routes |= {"/drip": drip, "/headers": drip_headers, "/silent": lambda request: ended.wait() and None}
    web = make(attempts=2, timeout_seconds=0.3, deadline_seconds=0.6)
    start = time.monotonic()
    assert [reason(web, server.url(path)) for path in ("/drip", "/headers", "/silent")] == ["timeout"] * 3
    assert time.monotonic() - start < 20
    ended.set()
    web.close()


def test_redirects_are_followed_by_hand(server: Server, web: Web) -> None:
    server.serve("/end", b"here")
    for number in range(6):
        at = "/end" if number == 5 else f"/hop{number + 1}"
        server.routes[f"/hop{number}"] = lambda request, at=at: request.reply(302, Location=at)  # type: ignore[misc]
    assert web.get(server.url("/hop1"), max_bytes=99).body == b"here"
    assert reason(web, server.url("/hop0")) == "http_error"


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/", "http://[::ffff:169.254.169.254]/", "http://[fe80::1]/",
        "http://224.0.0.1/", "http://0.0.0.0/", "http://2852039166/", "file:///etc/passwd", "ftp://127.0.0.1/a",
        "http://user:pass@127.0.0.1/", "gopher://127.0.0.1/", "http://", "http://[::1", "//[", "\x00",
    ],
)  # fmt: skip
def test_a_redirect_to_where_none_may_go_is_refused(target: str, server: Server, web: Web) -> None:
    def away(request: Handler) -> None:
        request.wfile.write(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + target.encode() + b"\r\n\r\n")
        request.close_connection = True

    server.routes["/a"] = away
    server.serve("/", b"the server itself, by another name")
    said = reason(web, server.url("/a"))
    assert said in {"bad_address", "unreachable"} or target in {"http://", "//["}, "those two are paths of the server"
    assert server.asked["/"] == 0


def test_loopback_is_refused_unless_it_is_allowed(server: Server) -> None:
    web = make(allow_private_hosts=False)
    for host in ("127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]"):
        assert reason(web, f"http://{host}:{server.server_port}/a") in {"bad_address", "unreachable"}
    assert server.log == []
    web.close()


def test_every_address_of_a_name_is_checked(server: Server, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with a good and a bad address is refused; the checked address is connected to, not asked for again."""
    asked = []

    def resolve(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        asked.append(host)
        both = [("127.0.0.1", port), ("169.254.0.1", port)]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", to) for to in (both if host == "two.test" else both[:1])]

    monkeypatch.setattr("authface.curate.fetch.hosts.socket.getaddrinfo", resolve)
    server.serve("/a", b"here")
    assert reason(web, f"http://two.test:{server.server_port}/a") == "bad_address"
    assert server.log == []
    assert web.get(f"http://one.test:{server.server_port}/a", max_bytes=9).body == b"here"
    assert server.log[0][1]["host"] == f"one.test:{server.server_port}"


def test_headers_stay_with_their_host(server: Server, web: Web) -> None:
    other = f"http://localhost:{server.server_port}/b"
    server.routes["/a"] = lambda request: request.reply(302, Location=other)
    server.serve("/b", b"here")
    web.get(server.url("/a"), max_bytes=9, headers={"Authorization": "Client-ID secret"})
    sent = {path: headers.get("authorization") for path, headers in server.log}
    assert sent == {"/a": "Client-ID secret", "/b": None}


def quota(request: Handler, used: list[int], full: int) -> None:
    used[0] += 1
    left = max(0, full - used[0])
    request.reply(200 if used[0] <= full else 403, b"good", X_Ratelimit_Remaining=str(left), X_Ratelimit_Limit="3")


def test_a_used_up_quota_is_waited_for_and_no_request_bumps_into_it(server: Server) -> None:
    used = [0]
    server.routes["/a"] = lambda request: quota(request, used, 3)
    said: list[str] = []
    web = Web(WebSettings(allow_private_hosts=True, window_seconds=1.5, host_rate=500), say=said.append)
    for _ in range(3):
        web.get(server.url("/a"), max_bytes=99)
    used[0] = 0
    start = time.monotonic()
    assert web.get(server.url("/a"), max_bytes=99).body == b"good"
    assert time.monotonic() - start > 0.8
    assert used[0] == 1 and len(said) == 1 and "going on in" in said[0]
    web.close()


def test_a_403_of_the_quota_costs_no_try(server: Server) -> None:
    server.routes["/a"] = lambda request: request.reply(
        403 if request.tries() == 1 else 200, b"good", X_Ratelimit_Remaining="0" if request.tries() == 1 else "9"
    )
    web = make(attempts=1, window_seconds=0.5)
    assert web.get(server.url("/a"), max_bytes=99).body == b"good"
    web.close()


def test_who_does_not_wait_is_told_until_when(server: Server) -> None:
    server.routes["/a"] = lambda request: request.reply(403, X_Ratelimit_Remaining="0", X_Ratelimit_Reset="1800")
    web = make(wait=False)
    with pytest.raises(Paused, match="30:00"):
        web.get(server.url("/a"), max_bytes=99)
    assert web.paused is not None and server.asked.total() == 1
    web.close()


def test_a_host_is_asked_no_faster_than_its_rate() -> None:
    pace = Pace("h", WebSettings(host_rate=40), wait=True, say=lambda text: None, ended=threading.Event())
    start = time.monotonic()
    for _ in range(30):
        pace.take()
    assert time.monotonic() - start > 0.4, "30 at 40 a second, less a burst of 11"


def test_429_without_a_time_halves_the_rate() -> None:
    pace = Pace("h", WebSettings(host_rate=64), wait=True, say=lambda text: None, ended=threading.Event())
    for _ in range(3):
        pace.observe(429, httpx.Headers())
    assert pace._rate == 8
    for _ in range(100):
        pace.observe(200, httpx.Headers())
    assert pace._rate == 64


@given(st.text() | st.from_regex(r"https?://[^\s]{0,40}", fullmatch=True))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        parsed = check_url(text)
    except WebError as error:
        assert error.reason == "bad_address" and str(error).isprintable()
    else:
        assert parsed.scheme in {"http", "https"} and parsed.host and not parsed.userinfo


@given(st.ip_addresses(v=4))
def test_the_guard_sees_through_every_way_to_write_an_address(ip: ipaddress.IPv4Address) -> None:
    plain = [refusal(str(ip), allow_private=private) for private in (False, True)]
    number = int(ip)
    dressed = [
        f"::ffff:{ip}",
        str(ipaddress.IPv6Address((0x64FF9B << 96) | number)),
        f"2002:{number >> 16:x}:{number & 65535:x}::",
    ]
    for text in dressed:
        for private, word in zip((False, True), plain, strict=True):
            if word:
                assert refusal(text, allow_private=private), text
    if not ip.is_loopback and (ip.is_link_local or ip.is_multicast or ip.is_reserved or ip.is_unspecified):
        assert all(plain)
    if not ip.is_global:
        assert plain[0]


@given(st.ip_addresses(v=6))
def test_no_address_of_a_private_kind_passes(ip: ipaddress.IPv6Address) -> None:
    if ip.is_private or ip.is_link_local or ip.is_multicast or ip.is_loopback or ip.is_unspecified or ip.is_site_local:
        assert refusal(str(ip), allow_private=False)
    if ip.is_link_local or ip.is_multicast:
        assert refusal(str(ip), allow_private=True)
