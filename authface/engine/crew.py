"""Workers that keep their models: given chunks of rows (`Crew.spread`), then asked row by row from any thread (`ask`).

Processes of this machine, or actors of a Ray cluster (`--engine ray`), which make the same rows. They begin with their
first rows. Actors read photos and crops themselves: these lie on a file system that all nodes share, or on an object
store. A row over which a worker dies is begun again, as in `authface.engine.pool`.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pipe
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Generic

from authface.devices import Environment
from authface.engine.pool import STARTS, TRIES, Pool, portable, thread_limit
from authface.engine.ray import Cluster, connected
from authface.engine.workers import Begun, I, R, Work
from authface.errors import AuthfaceError, one_line

AHEAD = 32
"""Chunks an actor that are begun behind the oldest unfinished one: of 32 rows as much as it does while Ray finds out
that a node is lost, whose rows all others wait for."""
Answer = Callable[[], list[R]]
"""Waits for the rows made of a row. Raises AuthfaceError where the work cannot go on."""


class Crew(ABC, Generic[I, R]):
    """Workers with their models loaded."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many there are at most."""

    @abstractmethod
    def spread(self, chunks: Iterator[list[I]], *, window: int = sys.maxsize) -> Iterator[tuple[int, int, list[R]]]:
        """Number of the chunk, place of a row in it and the rows made of it, in any order; before anything is asked.

        A chunk is taken once a worker is nearly free for it, and while it is fewer than `window` chunks a worker behind
        the oldest unfinished one. A row over which workers die is `Work.failed`, as in the pool. Raises AuthfaceError
        where the work cannot go on.
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

    def spread(self, chunks: Iterator[list[I]], *, window: int = sys.maxsize) -> Iterator[tuple[int, int, list[R]]]:
        return self._pool.spread(chunks, window=window * self._size)

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


@contextmanager
def actors_asked(work: Work[I, R], *, cluster: Cluster) -> Iterator[Crew[I, R]]:
    """Actors of the cluster for a program that goes on meanwhile; they end with the block, whatever they are at."""
    with ExitStack() as connection:
        crew = _Actors(work, cluster, connection)
        try:
            yield crew
        finally:
            crew.close()


def by_chunk(work: Work[I, R], chunks: Iterator[list[I]], *, cluster: Cluster) -> Iterator[tuple[int, list[R]]]:
    """Number and new rows of each chunk that has any row, as soon as it is done, in any order.

    Raises UsageError where Ray is missing, AuthfaceError where there is no cluster or the work cannot go on.
    """
    sizes: dict[int, int] = {}
    made: defaultdict[int, dict[int, list[R]]] = defaultdict(dict)

    def measured() -> Iterator[list[I]]:
        for number, chunk in enumerate(chunks):
            sizes[number] = len(chunk)
            yield chunk

    with actors_asked(work, cluster=cluster) as crew:
        for number, place, rows in crew.spread(measured(), window=AHEAD):
            made[number][place] = rows
            if len(made[number]) == sizes[number]:
                del sizes[number]
                yield number, [row for _, some in sorted(made.pop(number).items()) for row in some]


class _Actors(Crew[I, R], Generic[I, R]):
    """A thread for each actor hands it one task after the other.

    Connects with the first task. Where an actor dies, alone or with its node, its rows go one by one to whoever is free
    next, and its thread begins another. Actors that find no free core or GPU begin as nodes come.
    """

    def __init__(self, work: Work[I, R], cluster: Cluster, connection: ExitStack) -> None:
        self._work, self._cluster, self._connection = work, cluster, connection
        self._given: SimpleQueue[_Call[I, R] | None] = SimpleQueue()
        """None ends a thread."""
        self._actors: dict[int, Any] = {}
        """By their thread's place."""
        self._threads: list[threading.Thread] = []
        self._error: AuthfaceError | None = None
        self._turn = threading.Lock()

    @property
    def size(self) -> int:
        with self._turn:
            self._begin()
        return len(self._threads)

    def spread(self, chunks: Iterator[list[I]], *, window: int = sys.maxsize) -> Iterator[tuple[int, int, list[R]]]:
        told: SimpleQueue[tuple[int, _Told[R]]] = SimpleQueue()
        left: dict[int, int] = {}
        """Rows left of each chunk that is begun, the oldest first."""

        def tell(number: int, said: _Told[R]) -> None:
            told.put((number, said))

        def made() -> Iterator[tuple[int, int, list[R]]]:
            number, said = told.get()
            rows = _made(said)
            left[number] -= len(rows)
            if not left[number]:
                del left[number]
            yield from ((number, place, some) for place, some in rows.items())

        for number, chunk in enumerate(chunks):
            if chunk:
                left[number] = len(chunk)
                self._put(_Call(dict(enumerate(chunk)), partial(tell, number)))
            while left and (self._given.qsize() >= self.size or number + 1 - next(iter(left)) >= window * self.size):
                yield from made()
        while left:
            yield from made()

    def ask(self, row: I) -> Answer[R]:
        told: Future[_Told[R]] = Future()
        self._put(_Call({0: row}, told.set_result))
        return lambda: _made(told.result())[0]

    def _put(self, task: _Call[I, R]) -> None:
        with self._turn:
            if self._error is not None:
                raise self._error
            self._begin()
            self._given.put(task)

    def close(self) -> None:
        self._end(AuthfaceError("the workers have ended"))
        if self._threads:
            import ray

            for actor in self._actors.values():  # no new one since there is an error
                ray.kill(actor)
        for thread in self._threads:
            thread.join()

    def _begin(self) -> None:
        if not self._threads:
            have = self._connection.enter_context(connected(self._cluster))
            count = self._cluster.workers or have
            self._threads = [threading.Thread(target=self._serve, args=(place,), daemon=True) for place in range(count)]
            for thread in self._threads:
                thread.start()

    def _new_actor(self, place: int) -> Any:
        """A new actor of a thread; None once the crew has ended."""
        import ray

        made: Any = ray.remote(_Asked).options(
            num_cpus=0 if self._cluster.gpu else 1,
            num_gpus=1 if self._cluster.gpu else 0,
            runtime_env={"env_vars": thread_limit(1)},
        )
        with self._turn:
            if self._error is not None:
                return None
            self._actors[place] = made.remote(self._work, str(Path.cwd()))
            return self._actors[place]

    def _serve(self, place: int) -> None:
        import ray

        starts = 0
        try:
            while actor := self._new_actor(place):
                try:
                    _told(ray.get(actor.begin.remote()))
                    starts = 0
                    return self._hand_over(actor)
                except _losses():
                    starts += 1
                    if starts > STARTS:
                        raise
        except AuthfaceError as error:
            self._end(error)
        except ray.exceptions.RayError as error:
            self._end(_gave_up(error))

    def _hand_over(self, actor: Any) -> None:
        """Give an actor tasks until there are no more. Raises `_losses` where it died, AuthfaceError as it does."""
        import ray

        while task := self._given.get():
            try:
                sent = pickle.dumps(list(task.rows.values()))  # Ray's own arrays are read-only
                made = _told(ray.get(actor.answer.remote(sent)))
                task.told(dict(zip(task.rows, made, strict=True)))
            except _losses():
                self._again(task)
                raise
            except (AuthfaceError, ray.exceptions.RayError) as error:
                task.told(error if isinstance(error, AuthfaceError) else _gave_up(error))
                raise

    def _again(self, task: _Call[I, R]) -> None:
        """Hand the rows over which an actor died to the next, each alone."""
        with self._turn:
            if self._error is not None:
                task.told(self._error)
            elif task.deaths < TRIES:
                for place, row in task.rows.items():
                    self._given.put(_Call({place: row}, task.told, task.deaths + 1))
            else:
                why = "every process that worked on it died, possibly out of memory"
                task.told({place: self._work.failed(row, "crashed", why) for place, row in task.rows.items()})

    def _end(self, error: AuthfaceError) -> None:
        """Tell all who wait, and the threads."""
        with self._turn:
            self._error = self._error or error
        with suppress(Empty):
            while True:
                if task := self._given.get_nowait():
                    task.told(error)
        for _ in self._threads:
            self._given.put(None)


_Told = dict[int, list[R]] | AuthfaceError
"""The rows made of each row of a task, by its place, or why the work cannot go on."""


@dataclass(frozen=True)
class _Call(Generic[I, R]):
    rows: dict[int, I]
    """By their places in the chunk."""
    told: Callable[[_Told[R]], None]
    """Is called once, or once for each row."""
    deaths: int = 0
    """Actors that died over it; then it is one row."""


def _made(told: _Told[R]) -> dict[int, list[R]]:
    if isinstance(told, AuthfaceError):
        raise told
    return told


def _losses() -> tuple[type[Exception], ...]:
    """What Ray raises where an actor, its node or its answer is lost: Ray ends actors itself where memory is short."""
    from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayActorError

    return RayActorError, OutOfMemoryError, NodeDiedError, ObjectLostError


def _gave_up(error: Exception) -> AuthfaceError:
    return AuthfaceError(f"Ray gave up: {one_line(error)}; run again to go on")


def _told(answer: bytes) -> Any:
    """What an actor of ours sent. Raises the AuthfaceError that it may be."""
    told = pickle.loads(answer)
    if isinstance(told, AuthfaceError):
        raise told
    return told


class _Asked:
    """A worker process on a node that answers one task after the other."""

    def __init__(self, work: Work[Any, Any], folder: str) -> None:
        with suppress(OSError):
            os.chdir(folder)
        self._work = work
        self._begun: Begun[Any, Any] | None = None

    def begin(self) -> bytes:
        return self.answer(pickle.dumps([]))

    def answer(self, sent: bytes) -> bytes:
        """What is made of each row."""
        made: dict[int, list[Any]] = {}
        try:
            if self._begun is None:
                self._begun = self._work.start()
            rows = pickle.loads(sent)
            self._begun(rows, made.__setitem__)
            return pickle.dumps([made[place] for place in range(len(rows))])
        except Exception as error:  # noqa: BLE001  it goes to the process that waits for it
            return pickle.dumps(portable(error, "on a node of the cluster"))
