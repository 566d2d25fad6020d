"""Photos restored by several workers, one a device or one an actor of a Ray cluster: the files and lines of one alone.

A worker opens, restores and encodes photos; this process decides what is to be made, and alone writes the log and the
results. A face's noise hangs on the photo's bytes, not on who restores it. Of a video they are given frames and faces
(`authface.restore.video.hands`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock

from authface.console import Notes, Tick
from authface.engine.actors import actors_asked
from authface.engine.crew import processes_asked
from authface.engine.devices import Devices
from authface.engine.pool import spread
from authface.engine.ray import Cluster, by_chunk
from authface.engine.workers import Begun, Keep, Work
from authface.errors import ImageError
from authface.restore.inputs import RestoreJob
from authface.restore.outcome import (
    Outcome,
    failed,
    input_errors,
    is_done_before,
    keep_outcome,
    known_content,
    read_photo,
)
from authface.restore.pipeline import Seconds, add_seconds, counted
from authface.restore.run import make_outcomes
from authface.restore.session import Request, RestoreSummary, Session
from authface.restore.video.hands import FrameWork, Hands, Hired

BATCHES = 4
"""Batches of faces, of photos with one face each, that a worker is given at most: it opens one while it restores."""
ROUNDS = 4
"""Chunks that each worker could have of what is left: they shrink towards the end, so that all end together."""
STORE_BYTES = 1_000_000_000
"""Of the object store of a Ray started here: results pass through it."""


@dataclass(frozen=True)
class RestoreWork(Work[RestoreJob, Outcome]):
    """What a worker needs to restore photos as this process would."""

    request: Request
    fingerprint: str
    """Of this process: on another machine the same weights may have other times."""
    inputs: int
    """Photos and videos of the whole run, which decide whether it has an album."""

    def start(self) -> Begun[RestoreJob, Outcome]:
        """The model and the face finder, loaded."""
        notes = Notes()
        session = Session(self.request, notes)
        session.__dict__["fingerprint"] = self.fingerprint
        session.summary = RestoreSummary(photos=self.inputs)
        with counted() as spent:
            _ = session.restorer, session.finder, session.guard
        return partial(_restore, session, notes, spent)

    def failed(self, job: RestoreJob, reason: str, detail: str) -> list[Outcome]:
        """A failure without what the worker knew."""
        return [Outcome(job, "", reason=reason, detail=detail)]


def _restore(session: Session, notes: Notes, loading: Seconds, jobs: Sequence[RestoreJob], keep: Keep[Outcome]) -> None:
    places = {job: place for place, job in enumerate(jobs)}
    turn, told = Lock(), Seconds()

    def since() -> Seconds:
        """What was spent since the last time."""
        with turn:
            total = dict(spent)
            new = {name: seconds - told.get(name, 0.0) for name, seconds in total.items()}
            told.update(total)
        return new

    def kept(outcome: Outcome) -> None:
        keep(places[outcome.job], [replace(outcome, notes=(*notes.take(), *outcome.notes), spent=since())])

    with counted() as spent:
        add_seconds(loading)
        loading.clear()
        make_outcomes(jobs, session, lambda job, content: False, kept)


@dataclass(frozen=True)
class OfDevices:
    """A process a device."""

    devices: Devices

    def photos(self, jobs: Sequence[RestoreJob], session: Session, overwrite: bool) -> None:
        """As `RestoreWorkers.photos`. Raises AuthfaceError as a worker does that cannot load its model."""
        run = _Run(session, overwrite)
        work = run.work(self.devices.kind)
        with session.console.progress("restore", len(jobs), "photos", session.left) as tick:
            chunks = run.chunks(jobs, len(self.devices.numbers), tick)
            with closing(spread(work, chunks, self.devices.seats)) as made:
                for _, _, outcomes in made:
                    run.keep(outcomes)
                    tick(note=outcomes[0].job.source.name)
        run.put_in_order(jobs)

    @contextmanager
    def hands(self, session: Session) -> Iterator[Hands]:
        """For the videos."""
        work = FrameWork(replace(session.request, device=self.devices.kind))
        with processes_asked(work, self.devices.seats) as crew:
            yield Hired(crew, session)


@dataclass(frozen=True)
class OfCluster:
    """The actors of a Ray cluster, each with that device; its nodes read the photos at the paths of this process."""

    cluster: Cluster
    device: str

    def photos(self, jobs: Sequence[RestoreJob], session: Session, overwrite: bool) -> None:
        """As `RestoreWorkers.photos`."""
        run = _Run(session, overwrite)
        with session.console.progress("restore", len(jobs), "photos", session.left) as tick:
            chunks = run.chunks(jobs, self.cluster.workers or os.cpu_count() or 1, tick)
            with closing(by_chunk(run.work(self.device), chunks, cluster=self._roomy)) as made:
                for count, outcomes in made:
                    run.keep(outcomes)
                    tick(count)
        run.put_in_order(jobs)

    @contextmanager
    def hands(self, session: Session) -> Iterator[Hands]:
        """For the videos."""
        work = FrameWork(replace(session.request, device=self.device))
        with actors_asked(work, cluster=self._roomy) as crew:
            yield Hired(crew, session)

    @property
    def _roomy(self) -> Cluster:
        return replace(self.cluster, store_bytes=STORE_BYTES)


class _Run:
    """What this process does itself."""

    def __init__(self, session: Session, overwrite: bool) -> None:
        self._session, self._overwrite = session, overwrite
        self._said: set[str] = set()

    def work(self, device: str) -> RestoreWork:
        """For workers that each have that device."""
        session = self._session
        return RestoreWork(replace(session.request, device=device), session.fingerprint, session.summary.inputs)

    def chunks(self, jobs: Sequence[RestoreJob], workers: int, tick: Tick) -> Iterator[list[RestoreJob]]:
        """The photos that are to be restored, as they are asked for; smaller chunks towards the end."""
        most, chunk = BATCHES * self._session.settings.batch, list[RestoreJob]()
        for at, job in enumerate(jobs):
            if self.is_to_do(job, tick):
                chunk.append(job)
            if len(chunk) >= min(most, (len(jobs) - at) // (ROUNDS * workers)) and chunk:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def is_to_do(self, job: RestoreJob, tick: Tick) -> bool:
        """Whether a photo is to be restored; what the log or a file in the way decides is counted here."""
        content = ""
        log = self._session.log(job.home)
        log.refresh()
        places = {job.target: job.name} | ({} if job.change_map is None else {job.change_map: job.map_name})
        if not (log.lines(job.name) or any(os.path.lexists(path) for path in places)):
            return True  # nor is it read here
        try:
            with input_errors():
                content = known_content(job, self._session) or read_photo(job)[1]
                if not is_done_before(job, content, self._session, self._overwrite):
                    return True
        except ImageError as error:
            keep_outcome(failed(job, content, error, self._session), self._session, self._overwrite)
        tick(note=job.source.name)
        return False

    def keep(self, outcomes: Sequence[Outcome]) -> None:
        """Write what a worker made; what several workers say alike is said once."""
        for outcome in outcomes:
            new = tuple(note for note in outcome.notes if note not in self._said)
            self._said.update(new)
            if outcome.engine:
                self._session.engine_of_workers = outcome.engine
            keep_outcome(replace(outcome, notes=new), self._session, self._overwrite)

    def put_in_order(self, jobs: Sequence[RestoreJob]) -> None:
        """List what was restored as it was named, whoever came to its end first: so the pages are those of one."""
        places = {job.target_path: place for place, job in enumerate(jobs)}
        self._session.summary.jobs.sort(key=lambda job: places[job.target_path])
