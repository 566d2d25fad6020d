"""What a run says of itself while it works: its state beside the log, and the time it still takes.

A thread looks at the summary every second; the run's loop knows nothing of it.
"""

from __future__ import annotations

import math
import threading
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from authface.errors import AuthfaceError, one_line, was_interrupted
from authface.imaging.decode import header_size
from authface.restore.glance import Glancer
from authface.restore.inputs import RestoreJob
from authface.restore.session import RestoreSummary, Session
from authface.restore.video.run import fingerprint as video_fingerprint
from authface.restore.workload import Clock, PhotoSample, Workload, seconds_left
from authface.store.restore_line import forget_ended, new_state, write_state
from authface.store.restore_log import LOG

LOOK_SECONDS = 1.0
SAMPLE = 1000
"""Photos of which the header is read."""
WRITE_SECONDS = 3.0
GLANCES = 48
"""Photos that are glanced at as the run begins, but no more than one in `GLANCED_AT_MOST`."""
GLANCED_AT_MOST = 8
GLANCING = 0.01
"""Share of the run's seconds for further glances."""
_EVEN = (math.sqrt(5) - 1) / 2
"""Multiples of it, without their whole part, lie about evenly in 0..1, however many there are (Weyl 1916)."""


@contextmanager
def watched(session: Session, jobs: Sequence[RestoreJob]) -> Iterator[None]:
    """Keep the state of the run in the block, from its first result on."""
    watch = _Watch(session, jobs)
    watch.start()
    ended = "finished"
    try:
        yield
    except BaseException as error:
        ended = "interrupted" if was_interrupted(error) else one_line(error, 500) or type(error).__name__
        raise
    finally:
        watch.end(ended)


class _Watch:
    def __init__(self, session: Session, jobs: Sequence[RestoreJob]) -> None:
        self._session, self._jobs, self._home = session, jobs, jobs[0].home
        self._clock = Clock()
        self._planned: Workload | None = None
        self._state = new_state(
            photos=sum(not job.is_video for job in jobs),
            videos=sum(job.is_video for job in jobs),
            model=session.settings.model,
        )
        self._written = 0.0
        self._last = time.monotonic()
        self._over = threading.Event()
        work = (self._run, self._plan_once)
        self._threads = [threading.Thread(target=one, name="watch", daemon=True) for one in work]
        session.left = lambda: self._state.left

    def start(self) -> None:
        """Begin to look."""
        for thread in self._threads:
            thread.start()

    def end(self, ended: str) -> None:
        """Write the last state."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._look()
        self._state = replace(self._state, ended=ended, left=0 if ended == "finished" else None)
        self._write()

    def _run(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self._look()
            if time.monotonic() - self._written >= WRITE_SECONDS:
                self._write()

    def _plan_once(self) -> None:
        """In a thread of its own: it takes a while, and the run's state is told meanwhile."""
        while "fingerprint" not in self._session.__dict__:  # the run itself makes it, and may fetch weights for that
            if self._over.wait(LOOK_SECONDS):
                return
        with suppress(AuthfaceError):  # the run meets the same log, and says what is wrong
            self._planned = self._plan()
            if self._planned is not None and not self._session.request.aligned:
                self._glance(self._planned)

    def _plan(self) -> Workload | None:
        """What there is to do: which photos are done already, the log says; of some of the others the header."""
        work, places = Workload(), array("L")
        for place, job in enumerate(self._jobs):
            if self._over.is_set():
                return None
            settings = video_fingerprint(self._session) if job.is_video else self._session.fingerprint
            if self._session.log(job.home).has(job.name, settings):
                work.known += 1
            elif job.is_video:
                work.videos.add(job.bytes)
            else:
                places.append(place)
        work.photos = len(places)
        work.samples = list(self._samples(places[:: -(-len(places) // SAMPLE) or 1]))
        return work

    def _samples(self, places: Iterable[int]) -> Iterator[PhotoSample]:
        """Some photos by their headers."""
        for place in places:
            if not self._over.is_set() and (size := header_size(self._jobs[place].source)):
                yield PhotoSample(place, *size)

    def _glance(self, planned: Workload) -> None:
        """Glance at photos that lie ahead: at some as the run begins, at more as it goes on."""
        first = min(GLANCES, planned.photos // GLANCED_AT_MOST)
        if not first:
            return
        glancer, spent = Glancer(self._session.settings), 0.0
        spread = sorted(enumerate(planned.samples), key=lambda one: one[0] * _EVEN % 1)
        for _, sample in spread:
            while len(planned.glances) >= first and spent > GLANCING * self._clock.all:
                if self._over.wait(LOOK_SECONDS):
                    return
            if self._over.is_set():
                return
            done = self._session.summary.work
            if sample.place >= done.tried + done.known:
                start = time.monotonic()
                if faces := glancer(self._jobs[sample.place].source, sample):
                    planned.glances.append((sample.place, faces))
                spent += time.monotonic() - start

    def _look(self) -> None:
        summary, now = self._session.summary, time.monotonic()
        with self._session.lock:
            work, parts, left = summary.work, _parts(summary), None
            if self._session.engine_of_workers:
                parts.pop("load", None)  # theirs, of any time
            photos_done = work.tried + work.known >= self._state.photos
            new = self._clock.tick(now - self._last, work, parts, in_videos=photos_done)
            self._last = now
            if self._planned is not None:
                left = seconds_left(self._planned, work, self._clock)
            self._state = replace(self._state, **_counts(summary), left=left, engine=self._session.engine)
            counted = work.tried - self._clock.first.tried
        rate = counted / self._clock.made if counted > 0 and self._clock.made else 0.0
        last_at = time.time() if new else self._state.last_at
        self._state = replace(self._state, seconds=round(self._clock.all, 1), rate=round(rate, 4), last_at=last_at)

    def _write(self) -> None:
        if not (self._home / LOG).is_file():
            return  # nothing is made yet, and what is refused leaves nothing
        with suppress(AuthfaceError):  # the disk's own words come with the next result
            if not self._written:
                forget_ended(self._home)
            write_state(self._home, self._state)
        self._written = time.monotonic()


def _counts(summary: RestoreSummary) -> dict[str, Any]:
    clips = summary.video_lines.values()
    return {
        "restored": summary.restored + sum(line.status == "restored" for line in clips),
        "no_face": summary.no_face + sum(line.status != "restored" for line in clips),
        "failed": len(summary.failed),
        "done_before": summary.done_before,
        "last": summary.last,
        "parts": {name: round(seconds, 1) for name, seconds in _parts(summary).items()},
    }


def _parts(summary: RestoreSummary) -> dict[str, float]:
    """A copy: other threads add to it."""
    return {str(name): seconds for name, seconds in summary.seconds_by_part.copy().items()}
