"""A run as a pipeline: its threads, what each part costs, and how long what is left of many photos still takes.

The next item is prepared and the last one written in other threads.

A photo costs seconds for its pixels, for the looks of the detector, which are more where it finds no face, and for the
model, by the pixels of its crops: so much the headers of some photos tell, of those that still lie ahead. And it costs
seconds for its faces, which nobody knows before it is opened: they are taken to be as many, and as large in it, as in
those that are done. The parts of the pipeline say how the time divides among the four. A photo that is done already
costs next to nothing, and a resumed run begins with all of those.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, TypeVar

from authface.faces.detector import MIN_FACE
from authface.faces.geometry import Side
from authface.faces.looks import pixels_looked_at

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
_OF_PIXELS = frozenset({"read", "encode"})
"""Parts whose time grows with the photo's pixels; that of `detect` with its looks, of `model` with the crops."""
_LEAST_PIXELS = 10_000
"""What any photo takes in those parts, however small, is the time of so many pixels."""


@dataclass(frozen=True)
class PhotoSample:
    """A planned photo whose header was read."""

    place: int
    """Among all inputs of the run, in the order in which they come."""
    width: int
    height: int


@dataclass
class Videos:
    """Some videos."""

    files: int = 0
    bytes: int = 0

    def add(self, bytes: int) -> None:
        """Count one."""
        self.files += 1
        self.bytes += bytes


@dataclass
class Workload:
    """Photos, videos, and those that need nothing but a look: results of before that are still right."""

    photos: int = 0
    """That are or were to be made."""
    failed: int = 0
    """Photos that were tried and cannot be made."""
    samples: list[PhotoSample] = field(default_factory=list)
    """Of planned photos, evenly spaced among them, in their order."""
    known: int = 0
    videos: Videos = field(default_factory=Videos)
    failed_videos: Videos = field(default_factory=Videos)
    """They tell nothing of what the others take: a broken one is over at once."""
    least_face: float = MIN_FACE
    """Pixels of the smallest faces that are looked for."""
    side: Side | None = None
    """How large crops are; None: it is not known yet."""
    pixels: float = 0
    """Of photos that were opened, as the next ones."""
    looked_at: float = 0
    """Pixels that the detector saw."""
    with_face: int = 0
    """In so many a face was found, restored or not."""
    faces: int = 0
    """Crops of the model."""
    cropped: float = 0
    """Pixels of their photos that they cover."""
    around: float = 0
    """Pixels of their photos, of each crop anew."""
    modelled: float = 0
    """What the crops took of the model, in pixels."""

    @property
    def tried(self) -> int:
        """Photos that are over."""
        return self.photos + self.failed

    def add_opened(self, photo: OpenedSize) -> None:
        """Count a photo that was opened."""
        self.photos += 1
        pixels = photo.width * photo.height
        self.pixels += pixels
        self.looked_at += pixels_looked_at(photo.width, photo.height, self.least_face, found=photo.found)
        self.with_face += photo.found
        self.faces += len(photo.crops)
        self.around += pixels * len(photo.crops)
        self.cropped += sum(side**2 for side in photo.crops)
        self.modelled += sum(self._crop(side) for side in photo.crops)

    def looks(self, photo: PhotoSample) -> float:
        """Pixels that the detector sees of a photo, as far as what is done tells."""
        found, size = self.with_face / max(self.photos, 1), (photo.width, photo.height, self.least_face)
        return found * pixels_looked_at(*size, found=True) + (1 - found) * pixels_looked_at(*size, found=False)

    def crops(self, photo: PhotoSample) -> float:
        """What its crops take of the model, likewise."""
        share = self.cropped / max(self.around, 1)
        return self.faces / max(self.photos, 1) * self._crop(math.sqrt(share * photo.width * photo.height))

    def _crop(self, side: float) -> float:
        """What a crop takes, in pixels: its own and, as measured, as many again as the smallest has."""
        return float(self.side.of(side) ** 2 + self.side.least**2) if self.side else 1.0


@dataclass(frozen=True)
class OpenedSize:
    """What is known of a photo that was opened."""

    width: int
    height: int
    found: bool = False
    """Whether it has a face, restored or not."""
    crops: Sequence[float] = ()
    """Sides of those that the model was given, pixels of the photo."""


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


def seconds_left(planned: Workload, done: Workload, clock: Clock, parts: Mapping[str, float]) -> float | None:
    """The seconds that the rest of `planned` takes; None where too little is done to tell.

    `done` is what was made, with its pixels, looked at, or failed. `parts` are the pipeline's.
    """
    left_known = max(planned.known - done.known, 0)
    left = max(planned.photos - done.tried, 0)
    total = 0.0
    if left:
        every = done.tried
        if (made := every - clock.first) < LEAST:
            return None
        total += clock.made * _times_more(planned, done, shares(parts, clock.made)) * every / made
    if left_known:
        if not done.known:
            return None
        total += clock.known / done.known * left_known
    if more_bytes := max(planned.videos.bytes - done.videos.bytes - done.failed_videos.bytes, 0):
        if not done.videos.bytes:
            return None
        total += clock.videos / done.videos.bytes * more_bytes
    return total


def _times_more(planned: Workload, done: Workload, shares: Shares) -> float:
    """What is left, in times what was made."""
    made, left = done.tried, max(planned.photos - done.tried, 0)
    ahead = [one for one in planned.samples if one.place >= made + done.known] or planned.samples

    def more(of: Callable[[PhotoSample], float], so_far: float, floor: float = 0) -> float:
        if not (ahead and so_far):
            return left / made
        return left * (sum(map(of, ahead)) / len(ahead) + floor) / (so_far + made * floor)

    return (
        shares.pixels * more(lambda photo: photo.width * photo.height, done.pixels, _LEAST_PIXELS)
        + shares.looks * more(done.looks, done.looked_at, _LEAST_PIXELS)
        + shares.crops * more(done.crops, done.modelled)
        + shares.photos * left / made
    )


@dataclass(frozen=True)
class Shares:
    """How the time of a run divides among what it grows with, 0..1; together 1."""

    pixels: float = 0
    looks: float = 0
    crops: float = 0

    @property
    def photos(self) -> float:
        """What goes by the number of photos: their faces, and what no part of the pipeline has."""
        return 1 - self.pixels - self.looks - self.crops


def shares(parts: Mapping[str, float], seconds: float) -> Shares:
    """The shares by the seconds of each part; threads and workers work at a time, so that these may be more in all."""
    tracked = sum(spent for name, spent in parts.items() if name != "load")
    if not (whole := max(tracked, seconds)):
        return Shares()
    of_pixels = sum(parts.get(name, 0.0) for name in _OF_PIXELS)
    return Shares(of_pixels / whole, parts.get("detect", 0.0) / whole, parts.get("model", 0.0) / whole)
