"""HTTP that does not trust the other side: rate-limited, retried, resumed, capped, every redirect checked."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import httpx

from authface import __version__
from authface.curate.fetch.hosts import GuardedTransport, WebError, check_url, deadline
from authface.curate.fetch.pace import Pace, Paused, Stopped
from authface.curate.settings import WebSettings
from authface.errors import one_line

AGENT = f"authface/{__version__}"
_AGAIN = {408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524}
"""Status codes worth another attempt; 520 to 524 are Cloudflare's for a host that does not answer it."""
_GONE = {404, 410, 451}
_LONGEST_BACKOFF = 60.0


@dataclass(frozen=True)
class WebResponse:
    """The final response of a host, after redirects."""

    status: int
    headers: httpx.Headers
    body: bytes


class Web:
    """A thread-safe HTTP client. `paused` says why a run that must not wait for a quota ended early."""

    def __init__(
        self, settings: WebSettings, *, wait: bool = True, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self.settings = settings
        self.paused: Paused | None = None
        self._wait, self._say = wait, say
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
        self, url: str, *, max_bytes: int, headers: Mapping[str, str] | None = None, robots: bool = True
    ) -> WebResponse:
        """The response at `url` after redirects; `headers` are sent to its own host only.

        `robots`: a word of `X-Robots-Tag` that refuses photos is an error (`opted_out`).

        Raises WebError (`dead_link`, `bad_address`, `opted_out`, `too_large`, `timeout`, `unreachable`, `http_error`),
        and Paused where the host asks for a long wait and the run must not wait.
        """
        body = _Body(max_bytes)
        words = self.settings.opt_out if robots else ()
        problem = WebError("unreachable", "no attempt was made")
        attempt = 0
        while attempt < self.settings.attempts:
            try:
                answer = self._follow(url, headers or {}, body, words)
            except httpx.TimeoutException as error:
                problem = WebError("timeout", f"{one_line(error) or type(error).__name__}, {len(body.data)} bytes in")
            except (httpx.TransportError, httpx.DecodingError) as error:
                problem = WebError("unreachable", one_line(f"{type(error).__name__}: {error}"))
            else:
                if answer is None:  # the quota was used up, and is full again: no try is lost
                    continue
                if answer.status not in _AGAIN:
                    return self._good(answer)
                problem = WebError("http_error", f"HTTP {answer.status}", status=answer.status)
            attempt += 1
            if self._ended.is_set():
                raise Stopped
            if attempt < self.settings.attempts:
                longest = min(_LONGEST_BACKOFF, self.settings.backoff_seconds * 2 ** (attempt - 1))
                self._ended.wait(random.uniform(0, longest))
        tries = f"{self.settings.attempts} tries"
        raise WebError(problem.reason, f"{problem} after {tries}", status=problem.status)

    def _good(self, answer: WebResponse) -> WebResponse:
        if answer.status in {200, 206}:
            return answer
        reason = "dead_link" if answer.status in _GONE else "http_error"
        raise WebError(reason, f"HTTP {answer.status}", status=answer.status)

    def _follow(self, url: str, headers: Mapping[str, str], body: _Body, words: tuple[str, ...]) -> WebResponse | None:
        """One attempt with all its redirects; None where the quota turned out to be used up."""
        at = first = check_url(url)
        for _ in range(self.settings.max_redirects + 1):
            own = headers if (at.scheme, at.host, at.port) == (first.scheme, first.host, first.port) else {}
            pace = self._pace(at.host, keyed=bool(own))
            self._take(pace)
            with (
                deadline(self.settings.deadline_seconds),
                self._client.stream("GET", at, headers={**own, **body.range_headers()}) as response,
            ):
                if pace.observe(response.status_code, response.headers):
                    return None
                if word := opted_out(response.headers.get_list("x-robots-tag"), words):
                    raise WebError("opted_out", f"X-Robots-Tag: {word}", rejected=True)
                if not response.has_redirect_location:
                    if response.status_code == 416:  # the file changed under a resumed download
                        body.clear()
                        raise httpx.ReadError("the host no longer has the rest of the file")
                    if response.status_code in {200, 206}:
                        body.receive(response)
                    return WebResponse(response.status_code, response.headers, bytes(body.data))
                try:
                    at = check_url(str(at.join(response.headers["location"])))
                except (httpx.InvalidURL, ValueError) as error:
                    raise WebError("bad_address", f"a redirect to nowhere: {one_line(error)}") from error
        raise WebError("http_error", f"more than {self.settings.max_redirects} redirects")

    def _take(self, pace: Pace) -> None:
        try:
            pace.take()
        except Paused as pause:
            self.paused = self.paused or pause
            raise

    def _pace(self, host: str, *, keyed: bool) -> Pace:
        """The pace of a host; what is asked for with a key has a quota of its own."""
        with self._lock:
            if (host, keyed) not in self._paces:
                pace = Pace(host, self.settings, wait=self._wait, say=self._say, ended=self._ended)
                self._paces[host, keyed] = pace
            return self._paces[host, keyed]


class _Body:
    """The bytes of one file, gathered over several attempts."""

    def __init__(self, max_bytes: int) -> None:
        self.data = bytearray()
        self._max_bytes = max_bytes
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

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise WebError("too_large", f"{size} bytes or more, the limit is {self._max_bytes}")


def opted_out(lines: Iterable[str], words: Iterable[str]) -> str:
    """The first of `words` that lines of `X-Robots-Tag` address to everyone or to authface; empty if none."""
    refused = {word.lower() for word in words}
    for line in lines:
        agent, colon, rest = line.partition(":")
        named = colon and "," not in agent and agent.strip().lower() != "unavailable_after"
        if named and agent.strip().lower() not in {"authface", "*"}:
            continue
        for word in (rest if named else line).split(","):
            if word.strip().lower() in refused:
                return word.strip().lower()
    return ""
