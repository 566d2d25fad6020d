"""A run as a pipeline: its threads, what each part costs, and how much work went through it.

The next item is prepared and the last one written in other threads. A photo costs seconds for its pixels, for the looks
of the detector, which are more where it finds no face, for the model, by the pixels of its crops, and for its faces.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import astuple, dataclass, field, replace
from itertools import islice
from typing import Literal, TypeVar

from authface.faces.detector import MIN_FACE
from authface.faces.geometry import Side
from authface.faces.looks import pixels_looked_at

T = TypeVar("T")
Part = Literal["load", "read", "detect", "align", "model", "guard", "mask", "paste", "encode"]
Seconds = dict[Part, float]

_CHECK: ContextVar[Callable[[], None]] = ContextVar("check", default=lambda: None)
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
def checked(check: Callable[[], None]) -> Iterator[None]:
    """Call `check` before each `part` within the block, in its thread or in copies of its context.

    What it raises ends the work.
    """
    token = _CHECK.set(check)
    try:
        yield
    finally:
        _CHECK.reset(token)


@contextmanager
def part(name: Part) -> Iterator[None]:
    """Add the block's seconds to `counted`, if active. Parts do not nest."""
    _CHECK.get()()
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds = _SECONDS.get()
        if seconds is not None:
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class PhotoSample:
    """A planned photo whose header was read."""

    place: int
    """Among all inputs of the run, in the order in which they come."""
    width: int
    height: int


@dataclass(frozen=True)
class PhotoFaces:
    """What is known of the faces of a photo that was opened or glanced at."""

    width: int
    height: int
    found: bool = False
    """Whether it has a face, restored or not."""
    crops: Sequence[float] = ()
    """Sides of those that the model is given, pixels of the photo."""


@dataclass
class FaceCounts:
    """How many faces some photos have, and how large these are in them."""

    photos: float = 0
    found: float = 0
    """In so many a face was found, restored or not."""
    crops: float = 0
    """Of the model."""
    cropped: float = 0
    """Pixels of their photos that they cover."""
    around: float = 0
    """Pixels of their photos, of each crop anew."""

    def add(self, photo: PhotoFaces) -> None:
        """Count a photo."""
        self.photos += 1
        self.found += photo.found
        self.crops += len(photo.crops)
        self.cropped += sum(side**2 for side in photo.crops)
        self.around += photo.width * photo.height * len(photo.crops)

    def as_of(self, photos: int) -> FaceCounts:
        """The same shares, of so many photos at most."""
        share = min(1.0, photos / max(self.photos, 1))
        return FaceCounts(*(share * value for value in astuple(self)))

    @property
    def share_with_face(self) -> float:
        """Of the photos, 0..1."""
        return self.found / max(self.photos, 1)

    @property
    def crops_a_photo(self) -> float:
        """On average."""
        return self.crops / max(self.photos, 1)

    def side_in(self, width: int, height: int) -> float:
        """Side of a crop in a photo of that size, pixels."""
        return math.sqrt(self.cropped / max(self.around, 1) * width * height)


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
    glances: list[tuple[int, PhotoFaces]] = field(default_factory=list)
    """At planned photos, each with its place; at any time about evenly spaced."""
    known: int = 0
    videos: Videos = field(default_factory=Videos)
    failed_videos: Videos = field(default_factory=Videos)
    """They tell nothing of what the others take: a broken one is over at once."""
    least_face: float = MIN_FACE
    """Pixels of the smallest faces that are looked for."""
    side: Side | None = None
    """How large crops are; None: it is not known yet."""
    pixels: float = 0
    """Of photos that were opened, as the next one."""
    looked_at: float = 0
    """Pixels that the detector saw."""
    faces: FaceCounts = field(default_factory=FaceCounts)
    modelled: float = 0
    """What the crops took of the model, in pixels."""

    @property
    def tried(self) -> int:
        """Photos that are over."""
        return self.photos + self.failed

    def add_opened(self, photo: PhotoFaces) -> None:
        """Count a photo in which faces were looked for: some are opened before the ones that came first are done."""
        self.pixels += photo.width * photo.height
        self.looked_at += pixels_looked_at(photo.width, photo.height, self.least_face, found=photo.found)

    def add_done(self, photo: PhotoFaces) -> None:
        """Count a photo that was opened and is done."""
        self.photos += 1
        self.faces.add(photo)
        self.modelled += sum(self._crop(side) for side in photo.crops)

    def copy(self) -> Workload:
        """As it is now."""
        return replace(self, faces=replace(self.faces), videos=replace(self.videos))

    def after(self, first: Workload) -> Workload:
        """The photos that came after the first ones."""
        faces = FaceCounts(*(all - some for all, some in zip(astuple(self.faces), astuple(first.faces), strict=True)))
        return Workload(
            photos=self.photos - first.photos,
            failed=self.failed - first.failed,
            pixels=self.pixels - first.pixels,
            looked_at=self.looked_at - first.looked_at,
            modelled=self.modelled - first.modelled,
            faces=faces,
        )

    def looks(self, photo: PhotoSample, faces: FaceCounts) -> float:
        """Pixels that the detector sees of a photo, if such photos have such faces."""
        found, size = faces.share_with_face, (photo.width, photo.height, self.least_face)
        return found * pixels_looked_at(*size, found=True) + (1 - found) * pixels_looked_at(*size, found=False)

    def crops(self, photo: PhotoSample, faces: FaceCounts) -> float:
        """What its crops take of the model, likewise."""
        return faces.crops_a_photo * self._crop(faces.side_in(photo.width, photo.height))

    def _crop(self, side: float) -> float:
        """What a crop takes, in pixels: its own and, as measured, as many again as the smallest has."""
        return float(self.side.of(side) ** 2 + self.side.least**2) if self.side else 1.0
