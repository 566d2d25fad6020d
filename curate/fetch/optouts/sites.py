"""What is said of a photo on the way to it, by its hosts' files and its pages; the way ends where that refuses it.

Each host's files are asked for once a day, and kept in the set.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

import httpx

from authface.curate.fetch.hosts import Wait, WebError
from authface.curate.fetch.optouts.judge import Level, OptedOut, judge
from authface.curate.fetch.optouts.statements import (
    OptOut,
    RobotRules,
    TdmLocations,
    content_usage,
    page_tags,
    robots_words,
    tdm_reservation,
)
from authface.curate.fetch.web import Web
from authface.errors import ImageError, one_line
from authface.records import Signal, now
from authface.store.photoset import PhotoSet

PATHS = {"robots.txt": "/robots.txt", "ai.txt": "/ai.txt", TdmLocations.KIND: "/.well-known/tdmrep.json"}
"""RFC 9309; Spawning's ai.txt, which is of no standard; TDMRep, final report of 10 May 2024."""
_OWED = {"robots.txt", TdmLocations.KIND}
"""Those of a standard or a report: one that a host has and cannot give just now may say something."""
_MOST_BYTES = 1 << 19
"""Of a file that are read: RFC 9309 (2.5) asks for 500 kiB at least."""
_DAY = timedelta(days=1)
"""Longest time that a file counts before it is asked for again (RFC 9309, 2.4)."""
_BUSY = {408, 425, 429}
"""Codes of a host that has no time; others of 400 to 499 say that there is no such file (RFC 9309, 2.3.1.3)."""
_DOWN = {"bad_address", "unreachable"}
"""Reasons why a host itself is not spoken to: its photos fail for them as well."""
_HELD = 256
"""Hosts whose rules are held in memory."""
_POLL = 0.1
"""Seconds until a photo whose host is being asked by another thread looks again."""


@dataclass(frozen=True)
class SiteFile:
    """One of the files: its text, empty where the host has none, or why it could not be read."""

    text: str = ""
    unread: str = ""
    reason: str = ""
    """Of the error that `unread` tells, as `WebError` has it."""


@dataclass(frozen=True)
class Site:
    """What a host said in its files at a time."""

    origin: str
    at: str
    files: dict[str, SiteFile]

    def statements(self, url: str) -> Iterator[Signal]:
        """What is said of one of its addresses, access first."""
        for name, file in self.files.items():
            if file.unread:
                yield OptOut(name, file.unread, "unread").at(self.address(name), self.at)
        for name, rules in self._rules.items():
            if rules.disallows(url):
                said = f"disallows {httpx.URL(url).raw_path.decode('ascii', 'replace')}"
                yield OptOut(name, said, "refused").at(self.address(name), self.at)
            for statement in rules.preferences(url):
                yield statement.at(self.address(name), self.at)
        for statement in self._locations.statements(url):
            yield statement.at(self.address(TdmLocations.KIND), self.at)

    def address(self, name: str) -> str:
        """Where one of the files is."""
        return self.origin + PATHS[name]

    @property
    def down(self) -> WebError | None:
        """Why the host itself could not be spoken to, if it was so."""
        file = self.files["robots.txt"]
        if file.reason not in _DOWN:
            return None
        return WebError(file.reason, file.unread, rejected=file.reason == "bad_address")

    @property
    def is_whole(self) -> bool:
        """Whether every file was read, or is known not to be there."""
        return not any(file.unread for file in self.files.values())

    @cached_property
    def _rules(self) -> dict[str, RobotRules]:
        return {name: RobotRules(self.files[name].text) for name in ("robots.txt", "ai.txt")}

    @cached_property
    def _locations(self) -> TdmLocations:
        return TdmLocations(self.files[TdmLocations.KIND].text)


class Sites:
    """The hosts of a run; thread-safe. One thread asks a host, the others of the host hand their photos back."""

    def __init__(self, photoset: PhotoSet, web: Web) -> None:
        self._photoset, self._web = photoset, web
        self._lock = threading.Lock()
        self._held: OrderedDict[str, Site] = OrderedDict()
        self._unread: dict[str, Site] = {}
        """Hosts that did not say all: they are asked again in the next run."""
        self._asking: set[str] = set()
        self._begun: dict[str, dict[str, SiteFile]] = {}
        self._not_before: dict[str, float] = {}

    def of(self, url: httpx.URL) -> Site:
        """What the host of an address says. Raises Wait while it is asked, Interrupted at the run's end."""
        origin = f"{url.scheme}://{url.netloc.decode('ascii')}"
        with self._lock:
            if (site := self._known(origin)) is not None:
                return site
            left = self._not_before.get(origin, 0.0) - time.monotonic()
            if origin in self._asking or left > 0:
                raise Wait(url.host, max(left, _POLL))
            self._asking.add(origin)
        try:
            site = self._stored(origin) or self._asked(origin, url.host)
            with self._lock:
                self._remember(site)
            return site
        finally:
            with self._lock:
                self._asking.discard(origin)

    def _known(self, origin: str) -> Site | None:
        site = self._held.get(origin)
        if site is not None and _is_of_today(site.at):
            self._held.move_to_end(origin)
            return site
        return self._unread.get(origin)

    def _remember(self, site: Site) -> None:
        if not site.is_whole:
            self._unread[site.origin] = site
            return
        self._held[site.origin] = site
        self._held.move_to_end(site.origin)
        while len(self._held) > _HELD:
            self._held.popitem(last=False)

    def _asked(self, origin: str, host: str) -> Site:
        files = self._begun.setdefault(origin, {})
        for name in PATHS:
            if name in files:
                continue
            try:
                files[name] = self._file(name, origin)
            except Wait as wait:  # for another try: the whole host waits, and goes on with this file
                with self._lock:
                    self._not_before[origin] = time.monotonic() + wait.seconds
                raise Wait(host, wait.seconds) from wait
            if files[name].reason in _DOWN:
                files = dict.fromkeys(PATHS, files["robots.txt"])
                break
        site = Site(origin, now(), files)
        del self._begun[origin]
        if site.is_whole:
            self._keep(site)
        return site

    def _file(self, name: str, origin: str) -> SiteFile:
        try:
            body = self._web.get_text(origin + PATHS[name], max_bytes=_MOST_BYTES).body
        except WebError as error:
            absent = 400 <= error.status < 500 and error.status not in _BUSY or name not in _OWED
            return SiteFile() if absent else SiteFile(unread=one_line(error), reason=error.reason)
        if len(body) == _MOST_BYTES:
            body = body[: body.rfind(b"\n") + 1] or body
        return SiteFile(body.decode("utf-8", "replace").removeprefix("\ufeff"))

    def _keep(self, site: Site) -> None:
        """Store what a host said; what it said before stays beside it, as the evidence of rows that name it."""
        before = self._read(site.origin)
        if before and before.files != site.files:
            self._photoset.save(_file(site.origin, before.at), _as_json(before))
        self._photoset.save(_file(site.origin), _as_json(site))

    def _stored(self, origin: str) -> Site | None:
        """What the set holds of a host, if it is of today."""
        site = self._read(origin)
        return site if site and _is_of_today(site.at) else None

    def _read(self, origin: str) -> Site | None:
        file = _file(origin)
        if not self._photoset.exists(file):
            return None
        try:
            held = json.loads(self._photoset.read(file))
            files = {name: SiteFile(str(held["files"][name])) for name in PATHS}
            return Site(origin, str(held["at"]), files) if held["origin"] == origin else None
        except (ImageError, ValueError, KeyError, TypeError):
            return None


def _is_of_today(at: str) -> bool:
    try:
        return timedelta(0) <= datetime.now(UTC) - datetime.fromisoformat(at) < _DAY
    except (ValueError, TypeError):
        return False


def _file(origin: str, until: str = "") -> str:
    """Where the set holds what a host says, or what it said at an earlier time."""
    older = "-" + "".join(letter for letter in until if letter.isdigit())[:14] if until else ""
    return f"sources/opt-outs/{hashlib.sha256(origin.encode()).hexdigest()[:24]}{older}.json"


def _as_json(site: Site) -> bytes:
    texts = {name: file.text for name, file in site.files.items()}
    return json.dumps({"origin": site.origin, "at": site.at, "files": texts}).encode()


_PAGE_BYTES = 1 << 20
"""Of a page that are read: what it says stands in its head."""
_PAGES = 4096
"""Pages whose words are held in memory: several photos of a list may be of one page."""
_NO_PAGE = {404, 410}


class OptOuts:
    """What a run knows of opt-outs: the hosts' files, and pages that were read."""

    def __init__(self, photoset: PhotoSet, web: Web, level: Level) -> None:
        self.web, self.level = web, level
        self.sites = Sites(photoset, web)
        self._pages: OrderedDict[str, tuple[Signal, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def page(self, url: str) -> tuple[Signal, ...]:
        """What the page of a photo says of its pictures, in its tags and to robots. Raises Interrupted."""
        with self._lock:
            if url in self._pages:
                return self._pages[url]
        found = self._page(url)
        with self._lock:
            self._pages[url] = found
            if len(self._pages) > _PAGES:
                self._pages.popitem(last=False)
        return found

    def _page(self, url: str) -> tuple[Signal, ...]:
        seen = _PageWatch(self.sites)
        found = seen.found
        try:
            answer = self.web.get_text(url, max_bytes=_PAGE_BYTES, watch=seen)
        except _Disallowed as error:
            found.append(OptOut("page", f"not to be asked for: {one_line(error)}", "unclear"))
        except WebError as error:
            if error.status not in _NO_PAGE:
                found.append(OptOut("page", f"not read: {one_line(error)}", "unread"))
        else:
            if "html" in answer.headers.get("content-type", "html").lower():
                html = answer.body.decode(_charset(answer.headers), "replace")
                found += page_tags(html)
        time = now()
        return tuple(one.at(url, time) for one in found)


class _Signals:
    """Signals by where they stand: what is read again takes the place of what was there."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], Signal] = {}

    @property
    def all(self) -> tuple[Signal, ...]:
        return tuple(self._found.values())

    def add(self, signals: Iterable[Signal]) -> None:
        for one in signals:
            self._found[one.kind, one.where, one.said] = one

    def answered(self, url: httpx.URL, headers: httpx.Headers, site: Site) -> None:
        """Add what an answer's headers say; `tdm-reservation` supersedes the host's list of locations (TDMRep, 5.4)."""
        at, where = now(), str(url)
        reserved = tdm_reservation(headers.get_list("tdm-reservation"), headers.get("tdm-policy", ""))
        if reserved:
            listed = site.address(TdmLocations.KIND)
            self._found = {key: one for key, one in self._found.items() if key[:2] != (TdmLocations.KIND, listed)}
        said = [*robots_words(headers.get_list("x-robots-tag")), *reserved]
        said += content_usage(headers.get("content-usage", ""))
        self.add(one.at(where, at) for one in said)


class PhotoWatch:
    """Watches the requests for one photo: `authface.curate.fetch.web.Watch`."""

    def __init__(self, opt_outs: OptOuts) -> None:
        self._opt_outs = opt_outs
        self._found = _Signals()
        self._site: Site | None = None
        """Of the address that is asked."""

    @property
    def signals(self) -> tuple[Signal, ...]:
        """What was found so far."""
        return self._found.all

    def page(self, url: str) -> None:
        """Read the page of the photo, if it has one. Raises OptedOut, Interrupted."""
        if url:
            self._found.add(self._opt_outs.page(url))
            self._stop(self.signals)

    def before(self, url: httpx.URL) -> None:
        """Ask what the host says of an address. Raises OptedOut, WebError where there is no such host, Interrupted."""
        site = self._opt_outs.sites.of(url)
        if site.down and self._opt_outs.level == "strict":
            raise site.down
        self._site = site
        self._found.add(site.statements(str(url)))
        self._stop(one for one in self.signals if one.kind != TdmLocations.KIND)  # an answer may supersede that one

    def after(self, url: httpx.URL, headers: httpx.Headers) -> None:
        """Read an answer's headers. Raises OptedOut."""
        assert self._site is not None
        self._found.answered(url, headers, self._site)
        self._stop(self.signals)

    def _stop(self, signals: Iterable[Signal]) -> None:
        if refusal := judge(signals, self._opt_outs.level):
            raise OptedOut(refusal)


class _Disallowed(WebError):
    """A page that no machine is to ask for."""


class _PageWatch:
    """Watches the requests for a photo's page. What its host and headers reserve is the page, not the photo."""

    def __init__(self, sites: Sites) -> None:
        self._sites = sites
        self.found: list[OptOut] = []

    def before(self, url: httpx.URL) -> None:
        """Raises WebError where nobody may ask for the page, or it cannot be told; Interrupted."""
        site = self._sites.of(url)
        if unread := site.files["robots.txt"].unread:
            raise WebError("http_error", unread)
        for one in site.statements(str(url)):
            if one.kind in {"robots.txt", "ai.txt"} and one.verdict == "refused":
                raise _Disallowed("page", f"{one.where} {one.said}", rejected=True)

    def after(self, url: httpx.URL, headers: httpx.Headers) -> None:
        """Read what robots are told of the page, its pictures among them."""
        self.found += robots_words(headers.get_list("x-robots-tag"))


def _charset(headers: httpx.Headers) -> str:
    """How a page's letters are written; its tags of interest are ASCII in nearly every encoding."""
    name = headers.get("content-type", "").lower().partition("charset=")[2].strip("\"' ;")
    return name if name in {"utf-16", "utf-16le", "utf-16be"} else "utf-8"
