"""Downloads in threads, a lane to each host: what has to wait leaves its thread to others."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from authface.curate.fetch.hosts import Wait
from authface.curate.fetch.sources import PhotoItem
from authface.records import Photo

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
        self._done: list[tuple[int, list[Photo]]] = []

    def __call__(self, chunks: Iterator[list[PhotoItem]]) -> Iterator[Done]:
        """Chunks of items in; for each item 1 and its rows, in the listing's order but for what had to wait."""
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
                heapq.heappush(self._done, (number, future.result()))
            except Wait as pause_asked:
                lane = self._put(pause_asked.lane, number, item)
                lane.opens = max(lane.opens, time.monotonic() + pause_asked.seconds)
            if not self._lanes[name].queue and not self._lanes[name].flying:
                del self._lanes[name]

    def _put(self, name: str, number: int, item: PhotoItem) -> _Lane:
        lane = self._lanes.setdefault(name, _Lane())
        heapq.heappush(lane.queue, (number, item))
        return lane

    def _settled(self) -> Iterator[Done]:
        """What is done, as long as nothing that was listed before it is still under way."""
        first = min((number for number, _, _ in self._flying.values()), default=None)
        while self._done and (first is None or self._done[0][0] < first):
            yield 1, heapq.heappop(self._done)[1]


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""  # asking for it will say what is wrong
