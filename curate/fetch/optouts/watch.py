"""Reads what is said of a photo on the way to it, and ends the way where that refuses it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

import httpx

from authface.curate.fetch.hosts import WebError
from authface.curate.fetch.optouts.judge import Level, OptedOut, judge
from authface.curate.fetch.optouts.sites import Site, Sites
from authface.curate.fetch.optouts.statements import (
    OptOut,
    TdmLocations,
    content_usage,
    page_tags,
    robots_words,
    tdm_reservation,
)
from authface.curate.fetch.web import Web
from authface.errors import one_line
from authface.records import Signal, now
from authface.store.photoset import PhotoSet

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
