"""The queue in front of the model, for the web page and the HTTP service: waiting, limits, cancellation.

A worker is a thread with its own model. Each photo holds a place from its first byte to its result.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self, TypeVar

import cv2

from authface.devices import cores, share_cores
from authface.errors import AuthfaceError
from authface.recipe import Recipe
from authface.records import Box
from authface.restore.api import Progress, Restorer
from authface.restore.picture import Picture, Restored, open_picture
from authface.restore.pipeline import checked
from authface.restore.settings import RestoreSettings

T = TypeVar("T")
Waits = Callable[[int], None]
"""Called with the number of photos ahead, running or waiting; 0: the photo is being worked on."""


@dataclass(frozen=True)
class Limits:
    """Limits on requests."""

    megabytes: float = 50
    """Largest file, 10^6 bytes."""
    megapixels: float = 100
    waiting: int = 16
    """Most photos that are uploading or waiting, besides the running ones."""
    seconds: float = 300
    """Seconds that a photo may wait and run."""

    @property
    def bytes(self) -> int:
        return round(self.megabytes * 1e6)

    @property
    def pixels(self) -> int:
        return round(self.megapixels * 1e6)


class QueueFull(AuthfaceError):
    """No place is free; retry in `retry_after` seconds."""

    def __init__(self, places: int, retry_after: int) -> None:
        super().__init__(f"{places} photos are here already, which is the limit: try again in {retry_after} s")
        self.retry_after = retry_after


class QueueStopped(AuthfaceError):
    """The work on a photo was cancelled."""


class QueueLate(QueueStopped):
    """A photo took longer than the limit."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"not done in {seconds:g} s, which is the limit: a smaller photo, or later")


class RestoreQueue:
    """Photos in the order in which their uploads finished, for one worker per restorer."""

    def __init__(self, restorers: Sequence[Restorer], limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.restorer = restorers[0]
        self.workers = len(restorers)
        self._idle: SimpleQueue[Restorer] = SimpleQueue()
        for restorer in restorers:
            self._idle.put(restorer)
        self._pool = ThreadPoolExecutor(self.workers, "restore")
        self._lock = threading.Lock()
        self._moved = threading.Condition(self._lock)
        """Notified when a work is done, so that those behind it move up."""
        self._places: set[Place] = set()
        self._line: list[Place] = []
        """Those whose work is not done, in the order in which it will be."""
        self._closed = False
        self._usual = 1.0

    @property
    def places(self) -> int:
        """The maximum number of photos in the queue."""
        return self.workers + self.limits.waiting

    @property
    def closed(self) -> bool:
        """Whether new photos are refused."""
        return self._closed

    def counts(self) -> tuple[int, int]:
        """Numbers of running photos, and of the others in the queue."""
        with self._lock:
            busy = sum(place.running for place in self._places)
            return busy, len(self._places) - busy

    def settings_of(self, changed: Mapping[str, Any]) -> RestoreSettings:
        """The settings of a photo that changes some. Raises UsageError for invalid ones."""
        own = self.restorer.settings.model_dump()
        return Recipe("this photo").section("restore", RestoreSettings, {**own, **changed})

    def enter(self) -> Place:
        """Take a place, which `with` gives back. Raises QueueFull, and QueueStopped once the queue is closed."""
        with self._lock:
            if self._closed:
                raise QueueStopped("this server is stopping: try again later")
            if len(self._places) >= self.places:
                rounds = self.places / self.workers
                raise QueueFull(self.places, max(1, min(60, math.ceil(self._usual * rounds / 2))))
            place = Place(self)
            self._places.add(place)
            return place

    def submit(self, place: Place, work: Callable[[Restorer], T]) -> Future[T]:
        """Run `work` for a place with the next free worker's restorer."""

        def run() -> T:
            restorer, start = self._idle.get(), time.monotonic()
            try:
                return work(restorer)
            finally:
                self._usual += (time.monotonic() - start - self._usual) / 8
                self._idle.put(restorer)

        def done(_: Future[T]) -> None:
            with self._moved:
                self._line.remove(place)
                self._moved.notify_all()

        with self._lock:  # the line is in the order of the pool
            future = self._pool.submit(copy_context().run, run)  # the page finds its progress bar by its context
            self._line.append(place)
        future.add_done_callback(done)
        return future

    def wait(self, place: Place, future: Future[Any], waits: Waits) -> None:
        """Wait until a place's work is done; `waits` is called with the number of photos ahead whenever it changes."""
        ahead = self._moved_to(place, future, -1)
        while ahead is not None:
            waits(ahead)
            ahead = self._moved_to(place, future, ahead)

    def _moved_to(self, place: Place, future: Future[Any], told: int) -> int | None:
        """The number of photos ahead, once it differs from `told`; None when the work is done."""
        with self._moved:
            self._moved.wait_for(lambda: future.done() or self._ahead(place) != told)
            return None if future.done() else self._ahead(place)

    def _ahead(self, place: Place) -> int:
        index = self._line.index(place) if place in self._line else 0
        return index if index >= self.workers else 0

    def leave(self, place: Place) -> None:
        """Give a place back."""
        with self._lock:
            self._places.discard(place)

    def close(self) -> None:
        """Refuse new photos and drop waiting ones; running ones continue."""
        with self._lock:
            self._closed = True
            waiting = [place for place in self._places if not place.running]
        for place in waiting:
            place.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        with self._lock:
            left = list(self._places)
        for place in left:  # nobody waits for them any more
            place.stop()
        self._pool.shutdown()


class Place:
    """One photo's place in the queue."""

    def __init__(self, queue: RestoreQueue) -> None:
        self.queue = queue
        self._stopped = threading.Event()
        self._late = False
        self._future: Future[Any] | None = None

    @property
    def running(self) -> bool:
        """Whether its work has begun and not ended."""
        return self._future is not None and self._future.running()

    def submit(self, work: Callable[[Restorer], T]) -> Future[T]:
        """Queue the work; a place has one at a time, which is stopped when its seconds are over."""

        def run(restorer: Restorer) -> T:
            self._check("before it began")
            with checked(lambda: self._check("midway")):
                return work(restorer)

        future = self._future = self.queue.submit(self, run)
        clock = threading.Timer(min(self.queue.limits.seconds, threading.TIMEOUT_MAX), self._be_late)
        clock.daemon = True
        clock.start()
        future.add_done_callback(lambda _: clock.cancel())
        return future

    def restore(
        self,
        image: bytes | Path,
        changed: Mapping[str, Any],
        then: Callable[[Restored], T],
        *,
        before: Callable[[Picture], None] = lambda _: None,
        only: Collection[int] | None = None,
        marked: Sequence[Box] = (),
        progress: Progress | None = None,
    ) -> Future[T]:
        """Restore a photo with `changed` settings, and call `then` with the result in the worker.

        `before` is called with the photo as read and may refuse it, before the work.
        Raises UsageError immediately for invalid settings; other errors are raised by the future.
        """
        self.queue.settings_of(changed)

        def step(done: int, total: int) -> None:
            self._check(f"after {done} of {total} steps")
            if progress is not None:
                progress(done, total)

        def work(restorer: Restorer) -> T:
            picture = open_picture(image, self.queue.limits.pixels)
            before(picture)
            made = restorer.with_settings(**changed).restore(picture, only=only, marked=marked, progress=step)
            self._check("at the end")  # nobody wants it: a photo that was deleted stays so
            return then(made)

        return self.submit(work)

    def result(self, future: Future[T], waits: Waits | None = None) -> T:
        """The result of its work, once it is done; `waits` is called while others are ahead.

        Raises the errors of the work, and QueueStopped, or its QueueLate, if it was stopped before it began.
        """
        self.queue.wait(self, future, waits or (lambda ahead: None))
        try:
            return future.result()
        except CancelledError as error:
            raise self.why("stopped before it began: nothing was changed") from error

    def why(self, stopped: str) -> QueueStopped:
        """The error of its work that was stopped: `stopped` says so, unless it was late."""
        return QueueLate(self.queue.limits.seconds) if self._late else QueueStopped(stopped)

    def stop(self) -> None:
        """Cancel the work: at once if it waits, else at the model's next step."""
        self._stopped.set()
        if self._future is not None:
            self._future.cancel()

    def _be_late(self) -> None:
        self._late = True
        self.stop()

    def _check(self, when: str) -> None:
        if self._stopped.is_set():
            raise self.why(f"stopped {when}: nothing was changed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._future is None:
            self.queue.leave(self)
        else:
            self._future.add_done_callback(lambda _: self.queue.leave(self))


def make_restorers(settings: RestoreSettings, device: str, seed: int, workers: int) -> list[Restorer]:
    """A loaded restorer for each worker; on a CPU they share its cores. Raises as `Restorer` does."""
    share_cores(workers)
    restorers = [Restorer(**settings.model_dump(), device=device, seed=seed) for _ in range(workers)]
    for restorer in restorers:
        restorer.load()
    if workers > 1:
        cv2.setNumThreads(cores())
        if torch := sys.modules.get("torch"):  # where it is what restores
            torch.set_num_threads(cores())
    return restorers
