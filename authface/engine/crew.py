"""Workers that keep their models: given chunks of rows (`Crew.spread`), then asked row by row from any thread (`ask`).

Processes of this machine, or actors of a Ray cluster (`authface.engine.actors`). They begin with their first rows.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from queue import Empty, SimpleQueue
from typing import Generic

from authface.engine.pool import Pool
from authface.engine.workers import I, R, Work
from authface.errors import AuthfaceError
from authface.processes import Environment

Answer = Callable[[], list[R]]
"""Waits for the rows made of a row. Raises AuthfaceError where the work cannot go on."""


class Crew(ABC, Generic[I, R]):
    """Workers with their models loaded."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many there are at most."""

    @abstractmethod
    def spread(self, chunks: Iterator[list[I]]) -> Iterator[tuple[int, int, list[R]]]:
        """Number of the chunk, place of a row in it and the rows made of it, in any order; before anything is asked.

        A chunk is taken once a worker is nearly free for it. A row over which workers die is `Work.failed`, as in the
        pool. Raises AuthfaceError where the work cannot go on.
        """

    @abstractmethod
    def ask(self, row: I) -> Answer[R]:
        """Hand a row to the next free worker; else as `spread`."""

    @abstractmethod
    def close(self) -> None:
        """End the workers, whatever they are at; who waits for an answer gets an error or a failure."""


@contextmanager
def processes_asked(work: Work[I, R], seats: Sequence[Environment]) -> Iterator[Crew[I, R]]:
    """A process for each of `seats`; they end with the block, whatever they are at."""
    crew = _Processes(work, seats)
    try:
        yield crew
    finally:
        crew.close()


class _Processes(Crew[I, R], Generic[I, R]):
    """Feeds the pool from a thread of its own, which the pool needs to hear of dead processes."""

    def __init__(self, work: Work[I, R], seats: Sequence[Environment]) -> None:
        self._size, self._pool = len(seats), Pool(work, seats)
        self._given: SimpleQueue[tuple[I, Future[list[R]]]] = SimpleQueue()
        self._open: dict[int, Future[list[R]]] = {}
        """What is not answered yet, by the number of its chunk."""
        self._error: AuthfaceError | None = None
        self._turn = threading.Lock()
        self._heard, self._bell = Pipe(duplex=False)
        self._thread: threading.Thread | None = None

    @property
    def size(self) -> int:
        return self._size

    def spread(self, chunks: Iterator[list[I]]) -> Iterator[tuple[int, int, list[R]]]:
        return self._pool.spread(chunks)

    def ask(self, row: I) -> Answer[R]:
        future: Future[list[R]] = Future()
        with self._turn:
            if self._error is not None:
                raise self._error
            self._given.put((row, future))
            if self._thread is None:
                self._thread = threading.Thread(target=self._feed, name="crew", daemon=True)
                self._thread.start()
            with suppress(OSError):  # closed: `_feed` says so to who waits
                self._bell.send_bytes(b".")
        return future.result

    def close(self) -> None:
        with self._turn:
            self._bell.close()
            if self._error is None:
                self._error = AuthfaceError("the workers have ended")
        if self._thread is not None:
            self._thread.join()
        self._pool.close()
        self._heard.close()

    def _feed(self) -> None:
        error = AuthfaceError("the workers have ended")
        try:
            for number, _, rows in self._pool.spread(self._chunks(), bell=self._heard):
                self._open.pop(number).set_result(rows)
        except AuthfaceError as raised:
            error = raised
        finally:
            with self._turn:
                self._error = error
            waiting = [*self._open.values(), *(self._given.get()[1] for _ in range(self._given.qsize()))]
            for future in waiting:
                future.set_exception(error)

    def _chunks(self) -> Iterator[list[I]]:
        number = 0
        while True:
            try:
                row, self._open[number] = self._given.get_nowait()
            except Empty:
                yield []
            else:
                yield [row]
            number += 1
