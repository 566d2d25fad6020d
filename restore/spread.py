"""Photos and videos restored by several workers, one a device or one an actor of Ray: the files and lines of one alone.

A worker opens, restores and encodes photos; this process decides what is to be made, and alone writes the log and the
results. A face's noise hangs on the photo's bytes, not on who restores it. Of a video the same workers are given frames
and faces (`authface.restore.video.hands`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from threading import Lock
from typing import cast

from authface.console import Notes, Tick
from authface.devices import Devices
from authface.engine.crew import Crew, actors_asked, processes_asked
from authface.engine.ray import Cluster
from authface.engine.workers import Begun, Keep, Work
from authface.errors import ImageError
from authface.restore.inputs import RestoreJob, input_errors
from authface.restore.outcome import (
    Outcome,
    failed,
    is_done_before,
    keep_outcome,
    known_content,
    read_photo,
)
from authface.restore.pipeline import Seconds, add_seconds, counted
from authface.restore.run import RestoreWorkers, make_outcomes
from authface.restore.session import Request, RestoreSummary, Session
from authface.restore.video.hands import Hands, HandsReply, Hired, Question, reply_all

BATCHES = 4
"""Batches of faces, of photos with one face each, that a worker is given at most: it opens one while it restores."""
ROUNDS = 4
"""Chunks that each worker could have of what is left: they shrink towards the end, so that all end together."""
STORE_BYTES = 1_000_000_000
"""Of the object store of a Ray started here: results pass through it."""


Row = RestoreJob | Question
"""A photo, or what is asked of a video's frames."""
Made = Outcome | HandsReply


@dataclass(frozen=True)
class RestoreWork(Work[Row, Made]):
    """What a worker needs to restore photos, and frames of videos, as this process would. It reads no video."""

    request: Request
    fingerprint: str
    """Of this process: on another machine the same weights may have other times."""
    inputs: int
    """Photos and videos of the whole run, which decide whether it has an album."""

    def start(self) -> Begun[Row, Made]:
        """The model and the face finder, loaded."""
        notes = Notes()
        session = Session(self.request, notes)
        session.__dict__["fingerprint"] = self.fingerprint
        session.summary = RestoreSummary(photos=self.inputs)
        with counted() as spent:
            _ = session.restorer, session.finder, session.guard
        return partial(_work, session, notes, spent)

    def failed(self, row: Row, reason: str, detail: str) -> list[Made]:
        """A failure without what the worker knew."""
        if isinstance(row, RestoreJob):
            return [Outcome(row, "", reason=reason, detail=detail)]
        return [HandsReply(None, {}, reason=reason, detail=detail)]


def _work(session: Session, notes: Notes, loading: Seconds, rows: Sequence[Row], keep: Keep[Made]) -> None:
    jobs = [row for row in rows if isinstance(row, RestoreJob)]
    if jobs:  # a chunk of photos, or one question
        _restore(session, notes, loading, jobs, cast("Keep[Outcome]", keep))
    else:
        reply_all(session, notes, loading, cast("Sequence[Question]", rows), cast("Keep[HandsReply]", keep))


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


def of_devices(devices: Devices, session: Session, overwrite: bool) -> AbstractContextManager[RestoreWorkers]:
    """A process a device."""
    return _hired(partial(processes_asked, seats=devices.seats), devices.kind, session, overwrite)


def of_cluster(
    cluster: Cluster, device: str, session: Session, overwrite: bool
) -> AbstractContextManager[RestoreWorkers]:
    """The actors of a Ray cluster, each with that device; its nodes read the photos at the paths of this process."""
    roomy = replace(cluster, store_bytes=STORE_BYTES)
    return _hired(partial(actors_asked, cluster=roomy), device, session, overwrite)


@contextmanager
def _hired(
    crew_of: Callable[[RestoreWork], AbstractContextManager[Crew[Row, Made]]],
    device: str,
    session: Session,
    overwrite: bool,
) -> Iterator[RestoreWorkers]:
    """Workers that load the model once, for the photos and the videos of a run."""
    work = RestoreWork(replace(session.request, device=device), session.fingerprint, session.summary.inputs)
    with crew_of(work) as crew:
        yield _Workers(crew, session, overwrite)


class _Workers:
    """The workers, and what this process does itself."""

    def __init__(self, crew: Crew[Row, Made], session: Session, overwrite: bool) -> None:
        self._crew, self._session, self._overwrite = crew, session, overwrite
        self._said: set[str] = set()

    def photos(self, jobs: Sequence[RestoreJob]) -> None:
        """As `RestoreWorkers.photos`. Raises AuthfaceError as a worker does that cannot load its model."""
        with self._session.console.progress("restore", len(jobs), "photos", self._session.left) as tick:
            for _, _, made in self._crew.spread(self._chunks(jobs, tick)):
                for outcome in cast("list[Outcome]", made):
                    self._keep(outcome)
                    tick(note=outcome.job.source.name)
        places = {job.target_path: place for place, job in enumerate(jobs)}
        # As they were named, whoever came to its end first: so the pages are those of one process.
        self._session.summary.jobs.sort(key=lambda job: places[job.target_path])

    @cached_property
    def hands(self) -> Hands:
        """For the videos."""
        return Hired(cast("Crew[Question, HandsReply]", self._crew), self._session)

    def _chunks(self, jobs: Sequence[RestoreJob], tick: Tick) -> Iterator[list[Row]]:
        """The photos that are to be restored, as they are asked for; smaller chunks towards the end."""
        most, chunk = BATCHES * self._session.settings.batch, list[Row]()
        for at, job in enumerate(jobs):
            if self._is_to_do(job, tick):
                chunk.append(job)
            if chunk and len(chunk) >= min(most, (len(jobs) - at) // (ROUNDS * self._crew.size)):
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def _is_to_do(self, job: RestoreJob, tick: Tick) -> bool:
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

    def _keep(self, outcome: Outcome) -> None:
        """Write what a worker made; what several workers say alike is said once."""
        new = tuple(note for note in outcome.notes if note not in self._said)
        self._said.update(new)
        if outcome.engine:
            self._session.engine_of_workers, self._session.side_of_workers = outcome.engine, outcome.side
        keep_outcome(replace(outcome, notes=new), self._session, self._overwrite)
