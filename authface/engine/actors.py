"""A crew of actors of a Ray cluster: asked row by row, by a program that goes on meanwhile."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, Generic

from authface.engine.crew import Answer, Crew
from authface.engine.pool import portable, thread_limit
from authface.engine.ray import TRIES, Cluster, connected
from authface.engine.workers import Begun, I, R, Work, worked
from authface.errors import AuthfaceError, one_line


@contextmanager
def actors_asked(work: Work[I, R], *, cluster: Cluster) -> Iterator[Crew[I, R]]:
    """Actors of the cluster for a program that goes on meanwhile; they end with the block, whatever they are at."""
    with ExitStack() as connection:
        crew = _Actors(work, cluster, connection)
        try:
            yield crew
        finally:
            crew.close()


class _Actors(Crew[I, R], Generic[I, R]):
    """A thread for each actor hands it one row after the other, so that a death is the fault of one row.

    Connects with the first question. Actors that find no free core or GPU begin as nodes come.
    """

    def __init__(self, work: Work[I, R], cluster: Cluster, connection: ExitStack) -> None:
        self._work, self._cluster, self._connection = work, cluster, connection
        self._given: SimpleQueue[tuple[I, Future[list[R]]] | None] = SimpleQueue()
        """None ends a thread."""
        self._actors: list[Any] = []
        self._threads: list[Thread] = []
        self._error: AuthfaceError | None = None
        self._turn = Lock()

    @property
    def size(self) -> int:
        with self._turn:
            self._begin()
        return len(self._actors)

    def ask(self, row: I) -> Answer[R]:
        future: Future[list[R]] = Future()
        with self._turn:
            if self._error is not None:
                raise self._error
            self._begin()
            self._given.put((row, future))
        return future.result

    def close(self) -> None:
        self._end(AuthfaceError("the workers have ended"))
        if self._actors:
            import ray

            for actor in self._actors:
                ray.kill(actor)
        for thread in self._threads:
            thread.join()

    def _begin(self) -> None:
        import ray

        if self._actors:
            return
        have = self._connection.enter_context(connected(self._cluster))
        made: Any = ray.remote(_Asked).options(
            max_restarts=-1,
            max_task_retries=TRIES,
            num_cpus=0 if self._cluster.gpu else 1,
            num_gpus=1 if self._cluster.gpu else 0,
            runtime_env={"env_vars": thread_limit(1)},
        )
        self._actors = [made.remote(self._work, str(Path.cwd())) for _ in range(self._cluster.workers or have)]
        self._threads = [Thread(target=self._serve, args=(actor,), daemon=True) for actor in self._actors]
        for thread in self._threads:
            thread.start()

    def _serve(self, actor: Any) -> None:
        import ray

        try:
            _told(ray.get(actor.begin.remote()))
            while item := self._given.get():
                row, future = item
                try:
                    future.set_result(self._made(actor, row))
                except AuthfaceError as error:
                    future.set_exception(error)
                    raise
        except AuthfaceError as error:
            self._end(error)
        except ray.exceptions.RayError as error:
            self._end(AuthfaceError(f"Ray gave up: {one_line(error)}; run again to go on"))

    def _made(self, actor: Any, row: I) -> list[R]:
        import ray

        try:
            rows: list[R] = _told(ray.get(actor.answer.remote(pickle.dumps(row))))  # Ray's own arrays are read-only
        except ray.exceptions.RayActorError:
            return self._work.failed(row, "crashed", "every process that worked on it died, possibly out of memory")
        except ray.exceptions.RayError as error:
            raise AuthfaceError(f"Ray gave up: {one_line(error)}; run again to go on") from error
        return rows

    def _end(self, error: AuthfaceError) -> None:
        """Tell all who wait, and the threads."""
        with self._turn:
            self._error = self._error or error
        with suppress(Empty):
            while True:
                if item := self._given.get_nowait():
                    item[1].set_exception(error)
        for _ in self._threads:
            self._given.put(None)


def _told(answer: bytes) -> Any:
    """What an actor of ours sent. Raises the AuthfaceError that it may be."""
    told = pickle.loads(answer)
    if isinstance(told, AuthfaceError):
        raise told
    return told


class _Asked:
    """A worker process on a node that answers one question after the other."""

    def __init__(self, work: Work[Any, Any], folder: str) -> None:
        with suppress(OSError):
            os.chdir(folder)
        self._work = work
        self._begun: Begun[Any, Any] | None = None

    def begin(self) -> bytes:
        return self._answer([])

    def answer(self, row: bytes) -> bytes:
        return self._answer([pickle.loads(row)])

    def _answer(self, rows: list[Any]) -> bytes:
        try:
            if self._begun is None:
                self._begun = self._work.start()
            return pickle.dumps(worked(self._begun, rows))
        except Exception as error:  # noqa: BLE001  it goes to the process that waits for it
            return pickle.dumps(portable(error, "on a node of the cluster"))
