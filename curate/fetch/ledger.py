"""Which photos a set already has, those fetched whose part is not written yet, and those that are asked for, or again.

Again: failed ones as `curate.fetch.retry` says, and those that an opt-out refused and the present level would not. The
new row of one takes the place of the old. Downloads are asked for in threads, a lane to each host: what has to wait
leaves its thread to others.
"""

from __future__ import annotations

import bisect
import heapq
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Literal
from urllib.parse import urlsplit

import pyarrow as pa

from authface.curate.fetch.hosts import Wait
from authface.curate.fetch.keys import KEY_COLUMNS, Key, photo_key, sizeless, source_key
from authface.curate.fetch.optouts.judge import EARLIER, EVERY_REASON, UNREAD, Level, freed
from authface.curate.fetch.roll import Roll
from authface.curate.fetch.sources import PhotoItem
from authface.records import Photo, now
from authface.store.journal import Journal
from authface.store.photoset import PhotoSet


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedPhoto:
    """One line of ``sources/fetched.jsonl``; the last line of a photo counts."""

    photo: Photo
    owed: bool = False
    """Whether the source still has to be notified that the photo was taken."""


class UnwrittenRows:
    """Rows that cost requests and are in no part yet: each is on disk at once, so that a kill loses none."""

    def __init__(self, photoset: PhotoSet, roll: Roll) -> None:
        self._journal = Journal(photoset.root / "sources" / "fetched.jsonl", FinishedPhoto)
        self._lock = threading.Lock()
        lines, _ = self._journal.read()
        found = {photo_key(line.photo): line for line in lines}
        self._rows = {
            names: line
            for names, line in found.items()
            if names not in roll and (line.photo.status != "kept" or photoset.exists(line.photo.file))
        }
        if len(self._rows) != len(lines):
            self._journal.rewrite(list(self._rows.values()))

    def get(self, photo: Photo) -> FinishedPhoto | None:
        """What an earlier run completed of this photo, if anything."""
        with self._lock:
            return self._rows.get(photo_key(photo))

    def add(self, photo: Photo, *, owed: bool = False) -> None:
        """Store a row; on return it is on disk."""
        line = FinishedPhoto(photo=photo, owed=owed)
        with self._lock:
            self._rows[photo_key(photo)] = line
            self._journal.append(line)

    def mark_written(self, rows: list[Photo]) -> None:
        """Drop rows that a part holds now."""
        with self._lock:
            before = len(self._rows)
            for row in rows:
                self._rows.pop(photo_key(row), None)
            if len(self._rows) != before:
                self._journal.rewrite(list(self._rows.values()))

    def rows(self) -> list[Photo]:
        """The rows that are in no part, without those whose source still has to be notified."""
        with self._lock:
            return [line.photo for line in self._rows.values() if not (line.owed and line.photo.download_location)]


Retry = Literal["transient", "failed", "none"]

TRANSIENT = frozenset({"timeout", "unreachable", "http_error", "not_an_image", "truncated", "empty", "error", UNREAD})
"""Reasons of a photo of the web that may pass: the net, the server, a page or half a file in the photo's place."""
TRANSIENT_HERE = frozenset({"unreadable", "crashed"})
"""Reasons of a file of this machine that may pass; another file of the same name is another photo anyway."""
MOST_TRIES = 6
"""Runs that ask for a photo: the one that failed first, and five more."""
_PAUSES = (timedelta(0), timedelta(minutes=1), timedelta(minutes=10), timedelta(hours=1), timedelta(hours=6))
"""Least time between the first failure and the next try, the second and the next, and so on."""
_COLUMNS = (*KEY_COLUMNS, "status", "reason", "tries", "tried_at")


class Retries:
    """The failed and opted-out photos of a set: which of them a run asks for again, and how often that was done."""

    def __init__(self, photoset: PhotoSet, retry: Retry, level: Level, *, web: bool) -> None:
        self._photoset, self._level = photoset, level
        self._transient = TRANSIENT if web else TRANSIENT_HERE
        self._photos = photoset.photos
        self.retry = retry
        self.due: dict[Key, int] = {}
        """Tries so far of the photos that are asked for again."""
        self.later: Counter[str] = Counter()
        """Photos whose next try has to wait, by its time."""
        self._stale: set[Key] = set()
        """Photos with rows that later ones stand for: a run was killed before it took them away."""
        self._sizeless: set[Key] = set()
        """Failed files of which an earlier version did not note the size."""

    def known(self) -> Iterator[Key]:
        """Keys of the photos that the set has and this run does not ask for again."""
        failed: dict[Key, tuple[str, int, str]] = {}
        for part, meta in self._photos.each_meta():
            free = freed(self._photoset, part, meta.counts if meta else {}, self._level)
            rows = enumerate(self._photos.columns(part, _COLUMNS))
            for at, (*names, status, reason, tries, tried_at) in rows:
                key = source_key(*names)
                if key in failed or key in self.due:
                    self._stale.add(key)
                if key[0] == "folder" and key == sizeless(key):
                    self._sizeless.add(key)
                if at in free:
                    self.due[key] = tries
                elif status == "failed":
                    failed[key] = reason, tries, tried_at
                else:
                    failed.pop(key, None)
                    self.due.pop(key, None)
                    yield key
        for key, (reason, tries, tried_at) in failed.items():
            if self._is_due(reason, max(tries, 1), tried_at):
                self.due[key] = max(tries, 1)
            else:
                yield key

    def _is_due(self, reason: str, tries: int, tried_at: str) -> bool:
        if self.retry != "transient":
            return self.retry == "failed"
        if reason not in self._transient or tries >= MOST_TRIES:
            return False
        try:
            when = datetime.fromisoformat(tried_at) + _PAUSES[tries - 1]
        except (ValueError, OverflowError):  # a row of an earlier version
            return True
        if when <= datetime.now(UTC):
            return True
        self.later[when.strftime("%d %B %Y, %H:%M UTC")] += 1
        return False

    def as_noted(self, photo: Photo) -> Photo:
        """A listed photo, without its size where the set has a failed row of it that does not tell it."""
        if not self._sizeless or sizeless(photo_key(photo)) not in self._sizeless:
            return photo
        return replace(photo, bytes=0)

    def counted(self, photo: Photo) -> Photo:
        """The new row of a photo with its number of tries, where it failed."""
        if photo.status != "failed":
            return photo
        return replace(photo, tries=self.due.get(photo_key(photo), 0) + 1, tried_at=now())

    def settle(self) -> None:
        """Take the failed rows away that later ones of the same photos stand for.

        The digests of parts stay: what goes on from a part, its kept rows, is what it was.
        """
        later: set[Key] = set()
        again = self.due.keys() | self._stale
        for part in reversed(self._photos.parts()) if again else ():
            table = self._photos.arrow(part)
            stays = []
            for *names, status, reason, _, _ in self._photos.columns(part, _COLUMNS):
                key = source_key(*names)
                old = key in later and (status == "failed" or reason in EVERY_REASON | {EARLIER})
                later |= again & {key, sizeless(key)}
                stays.append(not old)
            if not all(stays) and (meta := self._photos.meta(part)) is not None:
                left = table.filter(pa.array(stays))
                counts = Counter(
                    f"{status}: {reason}" if reason else status
                    for status, reason in zip(
                        *(left.column(name).to_pylist() for name in ("status", "reason")), strict=True
                    )
                )
                self._photos.put(part, left, replace(meta, counts=dict(counts)))


MOST_WAITING = 10_000
"""Items of hosts that are waited for; with more, the listing is read no further until one of them may go on."""
_READ_AHEAD = 3
"""Items a thread that are ready in advance."""

Work = Callable[[PhotoItem], list[Photo]]
Done = tuple[int, list[Photo]]


@dataclass
class _Lane:
    """The items of one host, in the order of the listing."""

    queue: list[tuple[int, PhotoItem]] = field(default_factory=list)
    opens: float = 0.0
    """Monotonic time before which none is begun."""
    flying: int = 0


class Lanes:
    """Works on items in `threads` threads. One whose work raises `Wait` is begun again when its host may be asked.

    No host has more than half of the threads while another has something to do.
    """

    def __init__(self, work: Work, threads: int) -> None:
        self._work, self._threads = work, threads
        self._lanes: dict[str, _Lane] = {}
        self._flying: dict[Future[list[Photo]], tuple[int, str, PhotoItem]] = {}
        self._done: list[tuple[int, str, list[Photo]]] = []
        """By number: the photo's host, and its rows."""
        self._put_back: dict[str, list[int]] = {}
        """By a photo's host a heap of numbers that a host let wait; what is begun again is taken off later."""
        self._waiting = set[int]()
        """Those of them that still wait."""

    def __call__(self, chunks: Iterator[list[PhotoItem]]) -> Iterator[Done]:
        """Chunks of items in; for each item 1 and its rows, in the listing's order.

        But for what had to wait: photos of other hosts go before it, and of its own if it waits to be tried again.
        """
        pool = ThreadPoolExecutor(self._threads, "download")
        listing, listed = enumerate(item for chunk in chunks for item in chunk), False
        try:
            while not (listed and not self._lanes and not self._flying):
                reads = not listed and self._has_room()
                self._begin(pool, only_host=not reads and len(self._lanes) == 1)
                if reads:
                    found = next(listing, None)
                    listed = found is None
                    if found is not None:
                        self._put(_host(found[1].url), *found)
                    continue
                self._gather()
                yield from self._settled()
            yield from self._settled()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self, pool: ThreadPoolExecutor, *, only_host: bool) -> None:
        while len(self._flying) < self._threads and (name := self._next(only_host)) is not None:
            lane = self._lanes[name]
            number, item = heapq.heappop(lane.queue)
            lane.flying += 1
            self._waiting.discard(number)
            self._flying[pool.submit(self._work, item)] = number, name, item

    def _next(self, only_host: bool) -> str | None:
        """The open lane with the fewest items under way."""
        now, half = time.monotonic(), (self._threads + 1) // 2
        most = self._threads if only_host else half
        able = [
            (lane.flying, lane.queue[0][0], name)
            for name, lane in self._lanes.items()
            if lane.queue and lane.opens <= now and lane.flying < most
        ]
        return min(able)[2] if able else None

    def _has_room(self) -> bool:
        now = time.monotonic()
        ready = sum(len(lane.queue) for lane in self._lanes.values() if lane.opens <= now)
        waiting = sum(len(lane.queue) for lane in self._lanes.values()) - ready
        return ready < _READ_AHEAD * self._threads and waiting < MOST_WAITING

    def _gather(self) -> None:
        """Wait until an item is done or a lane opens."""
        now = time.monotonic()
        shut = [lane.opens - now for lane in self._lanes.values() if lane.queue and lane.opens > now]
        free = len(self._flying) < self._threads
        pause = min(shut, default=None) if free else None
        if not self._flying:
            time.sleep(pause or 0.0)
            return
        done, _ = wait(self._flying, timeout=pause, return_when=FIRST_COMPLETED)
        for future in done:
            number, name, item = self._flying.pop(future)
            self._lanes[name].flying -= 1
            try:
                bisect.insort(self._done, (number, _host(item.url), future.result()))
            except Wait as pause_asked:
                if not _host(pause_asked.lane):  # else a lane of its own, called after its address
                    self._waiting.add(number)
                    heapq.heappush(self._put_back.setdefault(_host(item.url), []), number)
                lane = self._put(pause_asked.lane, number, item)
                lane.opens = max(lane.opens, time.monotonic() + pause_asked.seconds)
            if not self._lanes[name].queue and not self._lanes[name].flying:
                del self._lanes[name]

    def _put(self, name: str, number: int, item: PhotoItem) -> _Lane:
        lane = self._lanes.setdefault(name, _Lane())
        heapq.heappush(lane.queue, (number, item))
        return lane

    def _settled(self) -> Iterator[Done]:
        """What is done, if nothing that was listed before it is under way, or of its host was begun and waits.

        What an earlier run had done is done at once: it would come before what is asked for.
        """
        first = min((number for number, _, _ in self._flying.values()), default=math.inf)
        cut = bisect.bisect(self._done, first, key=itemgetter(0))
        before, self._done = self._done[:cut], self._done[cut:]
        for number, host, rows in before:
            if self._first_waiting(host) < number:
                bisect.insort(self._done, (number, host, rows))
            else:
                yield 1, rows

    def _first_waiting(self, host: str) -> float:
        """The first number that was put back of a photo's host."""
        numbers = self._put_back.get(host, [])
        while numbers and numbers[0] not in self._waiting:
            heapq.heappop(numbers)
        return numbers[0] if numbers else math.inf


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""  # asking for it will say what is wrong
