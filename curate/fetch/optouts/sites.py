"""What hosts say in files of their own: each is asked for once a day, and kept in the set."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

import httpx

from authface.curate.fetch.hosts import WebError
from authface.curate.fetch.optouts.statements import OptOut, RobotRules, TdmLocations
from authface.curate.fetch.pace import Wait
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
