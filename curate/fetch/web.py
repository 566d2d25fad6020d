"""HTTP that does not trust the other side: rate-limited, retried, resumed, capped, every redirect checked."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import httpx

from authface import __version__
from authface.curate.fetch.hosts import (
    Deferred,
    GuardedTransport,
    Pace,
    Paused,
    Stopped,
    Wait,
    WebError,
    check_url,
    deadline,
)
from authface.curate.settings import WebSettings
from authface.errors import one_line

AGENT = f"authface/{__version__}"
_AGAIN = {408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524}
"""Status codes worth another attempt; 520 to 524 are Cloudflare's for a host that does not answer it."""
_GONE = {404, 410, 451}
_LONGEST_BACKOFF = 60.0
_TEXT_ATTEMPTS, _TEXT_SECONDS = 2, 20.0
"""Of a text that is asked for on the way to photos: none of them waits long for it."""


class Watch(Protocol):
    """Sees every step on the way to a photo, redirects too; what it raises ends the way."""

    def before(self, url: httpx.URL) -> None:
        """An address is about to be asked for."""

    def after(self, url: httpx.URL, headers: httpx.Headers) -> None:
        """It answered with a redirect, or with what was asked for, whose body is not read yet."""


@dataclass(frozen=True)
class WebResponse:
    """The final response of a host, after redirects."""

    status: int
    headers: httpx.Headers
    body: bytes


@dataclass(frozen=True)
class _Request:
    """What is asked for, and how patiently."""

    url: str
    headers: Mapping[str, str]
    watch: Watch | None
    attempts: int
    seconds: float
    """Longest time of one attempt."""


@dataclass
class _Tries:
    """How far an address is, while its waits are spent elsewhere."""

    failed: int = 0
    waited: float = 0.0
    """Seconds that hosts asked for with ``Retry-After``."""


class Web:
    """A thread-safe HTTP client. `paused` says why a run that must not wait for a quota ended early.

    `deferred` has the hosts that asked for too long a wait, with what they said last.
    """

    def __init__(
        self, settings: WebSettings, *, wait: bool = True, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self.settings = settings
        self.paused: Paused | None = None
        self.deferred: dict[str, Deferred] = {}
        self.left: Counter[str] = Counter()
        """Photos that wait for the next run, by host."""
        self._wait, self._say = wait, say
        self._hand_back = threading.local()
        self._tries: dict[str, _Tries] = {}
        self._ended = threading.Event()
        self._paces: dict[tuple[str, bool], Pace] = {}
        self._lock = threading.Lock()
        self._client = httpx.Client(
            transport=GuardedTransport(settings.connections, allow_private=settings.allow_private_hosts),
            timeout=httpx.Timeout(settings.timeout_seconds, pool=None),
            headers={"User-Agent": AGENT, "Accept-Encoding": "identity"},  # byte for byte, and ranges that mean bytes
            trust_env=False,  # a proxy would be asked in our place, past the check of addresses
        )

    def close(self) -> None:
        """Abort waits and requests under way."""
        self._ended.set()
        self._client.close()

    def get(
        self, url: str, *, max_bytes: int, headers: Mapping[str, str] | None = None, watch: Watch | None = None
    ) -> WebResponse:
        """The response at `url` after redirects; `headers` are sent to its own host only.

        Raises WebError (`dead_link`, `bad_address`, `too_large`, `timeout`, `unreachable`, `http_error`), what `watch`
        raises, and Paused where the host asks for a long wait and the run must not wait.
        """
        wants = _Request(url, headers or {}, watch, self.settings.attempts, self.settings.deadline_seconds)
        return self._asked(wants, _Body(max_bytes))

    def get_text(self, url: str, *, max_bytes: int, watch: Watch | None = None) -> WebResponse:
        """As `get`, of a text that may lack: cut at `max_bytes`, and given up soon."""
        attempts = min(_TEXT_ATTEMPTS, self.settings.attempts)
        wants = _Request(url, {}, watch, attempts, min(_TEXT_SECONDS, self.settings.deadline_seconds))
        return self._asked(wants, _Body(max_bytes, cut=True))

    def _asked(self, wants: _Request, body: _Body) -> WebResponse:
        tries = self._tries.pop(wants.url, None) or _Tries()
        try:
            return self._tried(wants, tries, body)
        except Wait:
            self._tries[wants.url] = tries
            raise
        except Exception:
            if self._ended.is_set():  # what breaks as the run ends says nothing of the photo
                raise Stopped from None
            raise

    @contextmanager
    def handing_back(self) -> Iterator[None]:
        """Within the block this thread does not wait: `get` raises Wait, and all of the block is to be begun again.

        So for their turn alone the requests that follow its first are waited for.
        """
        self._hand_back.on, self._hand_back.begun = True, False
        try:
            yield
        finally:
            self._hand_back.on = False

    def defer(self, deferred: Deferred) -> None:
        """Note that a photo is left to the next run."""
        with self._lock:
            self.deferred[deferred.host] = deferred
            self.left[deferred.host] += 1

    def _tried(self, wants: _Request, tries: _Tries, body: _Body) -> WebResponse:
        while True:
            try:
                answer = self._follow(wants, body)
            except httpx.TimeoutException as error:
                problem = WebError("timeout", f"{one_line(error) or type(error).__name__}, {len(body.data)} bytes in")
            except (httpx.TransportError, httpx.DecodingError) as error:
                problem = WebError("unreachable", one_line(f"{type(error).__name__}: {error}"))
            else:
                if isinstance(answer, float):  # the host said when: no try is lost
                    tries.waited += answer
                    longest = self.settings.longest_wait_seconds
                    if answer > longest or tries.waited <= longest:
                        continue  # too long a wait is the host's pace to refuse, for all its photos
                    raise WebError("http_error", f"it asked for {tries.waited:.0f} s of waits in all, and for more")
                if answer.status not in _AGAIN and not _too_many(answer):
                    return self._good(answer)
                problem = WebError("http_error", f"HTTP {answer.status}", status=answer.status)
            tries.failed += 1
            if self._ended.is_set():
                raise Stopped
            if tries.failed >= wants.attempts:
                told = f"{problem} after {wants.attempts} tries"
                raise WebError(problem.reason, told, status=problem.status)
            longest = min(_LONGEST_BACKOFF, self.settings.backoff_seconds * 2 ** (tries.failed - 1))
            self._back_off(wants.url, random.uniform(0, longest), beginning=not body.data)

    def _back_off(self, url: str, seconds: float, *, beginning: bool) -> None:
        """Wait before another try; in this thread where it holds the beginning of a file."""
        if beginning and self._handing_back:
            raise Wait(url, seconds)
        self._ended.wait(seconds)

    @property
    def _handing_back(self) -> bool:
        return getattr(self._hand_back, "on", False)

    def _good(self, answer: WebResponse) -> WebResponse:
        if answer.status in {200, 206}:
            return answer
        reason = "dead_link" if answer.status in _GONE else "http_error"
        raise WebError(reason, f"HTTP {answer.status}", status=answer.status)

    def _follow(self, wants: _Request, body: _Body) -> WebResponse | float:
        """One attempt with all its redirects; or the seconds that a host asks for, 0 where its quota is used up."""
        at = first = check_url(wants.url)
        for _ in range(self.settings.max_redirects + 1):
            own = wants.headers if (at.scheme, at.host, at.port) == (first.scheme, first.host, first.port) else {}
            if wants.watch:
                wants.watch.before(at)
            pace = self._pace(at.host, keyed=bool(own))
            self._take(pace, hand_back=self._handing_back and not body.data)
            with (
                deadline(wants.seconds),
                self._client.stream("GET", at, headers={**own, **body.range_headers()}) as response,
            ):
                if (asked := pace.observe(response.status_code, response.headers)) is not None:
                    return asked
                if wants.watch and response.status_code < 400:
                    wants.watch.after(at, response.headers)
                if not response.has_redirect_location:
                    if response.status_code == 416:  # the file changed under a resumed download
                        body.clear()
                        raise httpx.ReadError("the host no longer has the rest of the file")
                    if response.status_code in {200, 206}:
                        body.receive(response)
                        return WebResponse(response.status_code, response.headers, bytes(body.data))
                    return WebResponse(response.status_code, response.headers, _beginning(response))
                try:
                    at = check_url(str(at.join(response.headers["location"])))
                except (httpx.InvalidURL, ValueError) as error:
                    raise WebError("bad_address", f"a redirect to nowhere: {one_line(error)}") from error
        raise WebError("http_error", f"more than {self.settings.max_redirects} redirects")

    def _take(self, pace: Pace, *, hand_back: bool) -> None:
        try:
            pace.take(hand_back=hand_back, begun=getattr(self._hand_back, "begun", False))
        except Paused as pause:
            if not (isinstance(pause, Deferred) and self._handing_back):
                self.paused = self.paused or pause
            raise
        self._hand_back.begun = True

    def _pace(self, host: str, *, keyed: bool) -> Pace:
        """The pace of a host; what is asked for with a key has a quota of its own."""
        with self._lock:
            if (host, keyed) not in self._paces:
                pace = Pace(host, self.settings, wait=self._wait, say=self._say, ended=self._ended)
                self._paces[host, keyed] = pace
            return self._paces[host, keyed]


def _beginning(response: httpx.Response) -> bytes:
    """At most the first piece of what a host says with an error."""
    return next(response.iter_bytes(1000), b"")


def _too_many(answer: WebResponse) -> bool:
    """Whether a 403 is about the number of requests: hosts say so in words where they have no headers for it."""
    return answer.status == 403 and b"rate limit" in answer.body.lower()


class _Body:
    """The bytes of one file, gathered over several attempts; with `cut` only its beginning."""

    def __init__(self, max_bytes: int, *, cut: bool = False) -> None:
        self.data = bytearray()
        self._max_bytes, self._cut = max_bytes, cut
        self._validator = ""

    def clear(self) -> None:
        self.data.clear()
        self._validator = ""

    def range_headers(self) -> dict[str, str]:
        """Requests the rest of the file, if the host gave a validator that ties the rest to what came."""
        if not self.data or not self._validator:
            return {}
        return {"Range": f"bytes={len(self.data)}-", "If-Range": self._validator}

    def receive(self, response: httpx.Response) -> None:
        """Add what comes; a break leaves what came. Raises WebError (`too_large`), httpx.TransportError."""
        headers = response.headers
        if response.status_code == 206:
            if not headers.get("content-range", "").startswith(f"bytes {len(self.data)}-"):
                self.clear()
                raise httpx.ReadError("a part that was not asked for")
        else:
            self.clear()
            etag = headers.get("etag", "")
            strong = etag if etag and not etag.startswith("W/") else headers.get("last-modified", "")
            self._validator = "" if "content-encoding" in headers else strong
        announced = headers.get("content-length", "")
        if announced.isdigit() and len(announced) < 19:
            self._check(len(self.data) + int(announced))
        for piece in response.iter_bytes():  # a size would hold back what came before a break
            self._check(len(self.data) + len(piece))
            self.data += piece
            if self._cut and len(self.data) >= self._max_bytes:
                del self.data[self._max_bytes :]
                return

    def _check(self, size: int) -> None:
        if size > self._max_bytes and not self._cut:
            raise WebError("too_large", f"{size} bytes or more, the limit is {self._max_bytes}")
