"""A run as a pipeline: its threads, what each part costs, and how long what is left of many photos still takes.

The next item is prepared and the last one written in other threads. A photo costs seconds for its faces, which nobody
knows before it is opened, and seconds for its pixels, which its bytes tell, by the headers of some photos of its kind
from what is left of the folder. The parts say how the time divides between the two. A photo that is done already costs
next to nothing, and a resumed run begins with all of those.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, TypeVar

T = TypeVar("T")
Part = Literal["load", "read", "detect", "align", "model", "guard", "mask", "paste", "encode"]
Seconds = dict[Part, float]

_SECONDS: ContextVar[Seconds | None] = ContextVar("seconds", default=None)


def prefetch(items: Iterator[T], alone: Callable[[T], bool]) -> Generator[T, None, None]:
    """Prepare each item in another thread while the previous one is used; after an `alone` item only when it is due.

    An error of `items` is raised when its item is due. A caller that stops early waits for the item in preparation.
    """
    with _thread() as pool:
        context = copy_context()

        def some() -> list[T]:
            return list(islice(items, 1))

        coming = pool.submit(context.run, some)
        while made := coming.result():
            is_alone = alone(made[0])
            if not is_alone:
                coming = pool.submit(context.run, some)
            yield made.pop()
            if is_alone:
                coming = pool.submit(context.run, some)


@contextmanager
def write_behind() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Give a function that runs its argument in another thread: in order, one at a time.

    It first waits for the previous call and raises its error; the last call's error is raised at the end of the block.
    """
    last: list[Future[None]] = []
    with _thread() as pool:
        context = copy_context()

        def hand(call: Callable[[], None]) -> None:
            settle()
            last.append(pool.submit(context.run, call))

        def settle() -> None:
            while last:
                last.pop().result()

        yield hand
        settle()


@contextmanager
def _thread() -> Iterator[ThreadPoolExecutor]:
    """A pool of one thread that ends with the block, even if Ctrl-C arrives as it starts.

    The pool then does not know its thread yet, which would read on from files that are being closed.
    """
    own: list[threading.Thread] = []
    pool = ThreadPoolExecutor(1, initializer=lambda: own.append(threading.current_thread()))
    try:
        yield pool
        pool.shutdown()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # what has not begun never will: what has is in `own`
        for thread in own:
            thread.join()


@contextmanager
def counted() -> Iterator[Seconds]:
    """Measure the seconds of each `part` within the block, in its thread or in copies of its context."""
    seconds: Seconds = {}
    token = _SECONDS.set(seconds)
    try:
        yield seconds
    finally:
        _SECONDS.reset(token)


def add_seconds(spent: Seconds) -> None:
    """Add what another process measured to `counted`, if active."""
    seconds = _SECONDS.get()
    if seconds is not None:
        for name, value in spent.items():
            seconds[name] = seconds.get(name, 0.0) + value


@contextmanager
def part(name: Part) -> Iterator[None]:
    """Add the block's seconds to `counted`, if active. Parts do not nest."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds = _SECONDS.get()
        if seconds is not None:
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start


LEAST = 3
"""Photos by which a time is told."""
_OF_PIXELS = frozenset({"read", "detect", "encode"})
"""Parts whose time grows with the photo's pixels; that of the others with its faces."""
_LEAST_PIXELS = 10_000
"""What any photo takes in those parts, however small, is the time of so many pixels."""


@dataclass(frozen=True)
class PhotoSample:
    """A planned photo whose header was read."""

    place: int
    """Among all inputs of the run, in the order in which they come."""
    bytes: int
    pixels: int


@dataclass
class Amount:
    """Some photos of one file ending, or videos."""

    files: int = 0
    bytes: int = 0
    pixels: int = 0
    """Of photos that were opened."""
    samples: list[PhotoSample] = field(default_factory=list)
    """Of planned photos, in their order."""

    def add(self, bytes: int, pixels: int = 0) -> None:
        """Count a file."""
        self.files += 1
        self.bytes += bytes
        self.pixels += pixels


@dataclass
class Workload:
    """Files by their ending, and those that need nothing but a look: results of before that are still right."""

    photos: dict[str, Amount] = field(default_factory=dict)
    known: int = 0
    videos: Amount = field(default_factory=Amount)

    @property
    def files(self) -> int:
        """Photos that are or were to be made."""
        return sum(one.files for one in self.photos.values())


@dataclass
class Clock:
    """Where the seconds of a run went: to photos that were made, to looks at those that were there, to videos."""

    made: float = 0
    """From the first ones on: before them models are loaded."""
    known: float = 0
    videos: float = 0
    first: int = 0
    """How many photos came first, whose seconds are not counted."""
    _waiting: float = 0
    _before: float = 0

    def tick(self, seconds: float, made: int, known: int, videos: int, *, in_videos: bool) -> None:
        """Count `seconds` in which so many files came to their end; in which none did, with the next."""
        seconds += self._waiting
        self._waiting = 0
        if in_videos and not made and not known:
            self.videos += seconds
        elif made and not self.first:
            self.first, self._before = made, seconds
        elif made:
            self.made += seconds
        elif known:
            self.known += seconds
        else:
            self._waiting = seconds

    @property
    def all(self) -> float:
        """Of all kinds."""
        return self.made + self.known + self.videos + self._waiting + self._before


def seconds_left(
    planned: Workload, done: Workload, clock: Clock, parts: Mapping[str, float], failed: int = 0
) -> float | None:
    """The seconds that the rest of `planned` takes; None where too little is done to tell.

    `done` is what was made, with its pixels, and looked at; `failed` photos are made too. `parts` are the pipeline's.
    """
    left_known = max(planned.known - done.known, 0)
    left = max(planned.files - done.files - failed, 0)
    total = 0.0
    if left:
        every = done.files + failed
        if (made := every - clock.first) < LEAST:
            return None
        total += clock.made * _times_more(planned, done, pixel_share(parts, clock.made), failed) * every / made
    if left_known:
        if not done.known:
            return None
        total += clock.known / done.known * left_known
    if more_bytes := max(planned.videos.bytes - done.videos.bytes, 0):
        if not done.videos.bytes:
            return None
        total += clock.videos / done.videos.bytes * more_bytes
    return total


def _times_more(planned: Workload, done: Workload, by_pixels: float, failed: int) -> float:
    """What is left, in times what was made."""
    made, left = done.files + failed, max(planned.files - done.files - failed, 0)
    pixels = sum(one.pixels for one in done.photos.values()) + made * _LEAST_PIXELS
    more = _pixels_left(planned, done, made + done.known) + left * _LEAST_PIXELS
    return by_pixels * more / pixels + (1 - by_pixels) * left / made


def _pixels_left(planned: Workload, done: Workload, place: int) -> float:
    """Of the photos from that place on: from their bytes, by those of them that were looked at."""
    made = done.photos.values()
    usual = PhotoSample(0, max(sum(one.bytes for one in made), 1), sum(one.pixels for one in made))
    total = 0.0
    for ending, every in planned.photos.items():
        left = max(every.bytes - done.photos.get(ending, Amount()).bytes, 0)
        some = [one for one in every.samples if one.place >= place] or every.samples or [usual]
        total += left * sum(one.pixels for one in some) / sum(one.bytes for one in some)
    return total


def pixel_share(parts: Mapping[str, float], seconds: float) -> float:
    """The share of the time that grows with pixels, 0..1; what no part of the pipeline has goes by photos."""
    tracked = sum(spent for name, spent in parts.items() if name != "load")
    of_pixels = sum(spent for name, spent in parts.items() if name in _OF_PIXELS)
    whole = max(tracked, seconds)  # threads and workers work at a time, so that their parts may take longer together
    return of_pixels / whole if whole else 0.0
