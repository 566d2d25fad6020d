"""Workers: rows through load, step and save, in this process or in several.

A `Step` says how one row is loaded, stepped and saved; it knows nothing of parts, resume or processes.
Threads load ahead of the step and save behind it, both bounded.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Generic, TypeVar, cast

from authface.errors import AuthfaceError, ImageError, one_line
from authface.store.photoset import Provenance

IO_THREADS = 2
"""Threads per worker for loading and saving: they overlap the step, whose models use the cores."""

I = TypeVar("I")  # noqa: E741  input row
L = TypeVar("L")  # loaded input
M = TypeVar("M")  # what the models say of it
R = TypeVar("R")  # row made of it
T = TypeVar("T")


class Step(ABC, Generic[I, L, M, R]):
    """The work on one row: a subclass defines `provenance`, `save` and `failed`; the other methods have defaults.

    It is pickled to every worker before `open`, so it holds settings, not models.
    """

    batch_size: int = 1
    """Rows that `step` gets at a time; read after `open`."""
    overwrites_files: bool = False
    """Whether `save` overwrites files that rows of an earlier run name: those rows are then deleted first."""

    @property
    @abstractmethod
    def provenance(self) -> Provenance:
        """Everything the rows depend on; they are computed again when it changes."""

    def open(self) -> None:
        """Load the models; called once per worker, before anything else."""

    def load(self, row: I) -> L:
        """Read what the step needs, in a thread: by default the row itself. An ImageError becomes a `failed` row."""
        return cast(L, row)

    def step(self, batch: Sequence[L]) -> Sequence[M]:
        """Models over a batch: one result per input, in order, independent of the batch; by default the inputs."""
        return cast(Sequence[M], batch)

    @abstractmethod
    def save(self, row: I, result: M) -> list[R]:
        """Write the result's files and return its rows; runs in a thread."""

    @abstractmethod
    def failed(self, row: I, reason: str, detail: str) -> list[R]:
        """The row of an input that could not be read or measured."""


def inline(work: Step[I, L, M, R], chunks: Iterator[list[I]]) -> Iterator[tuple[int, list[R]]]:
    with Worker(work) as worker:
        for chunk in chunks:
            yield len(chunk), worker(chunk)


class Worker(Generic[I, L, M, R]):
    """Runs chunks of rows through load, step and save; each stage is at most two batches ahead of the next."""

    def __init__(self, work: Step[I, L, M, R]) -> None:
        work.open()
        self._work = work
        self._loaders = ThreadPoolExecutor(IO_THREADS, "load")
        self._savers = ThreadPoolExecutor(IO_THREADS, "save")

    def __enter__(self) -> Worker[I, L, M, R]:
        return self

    def __exit__(self, *_: object) -> None:
        self._loaders.shutdown(cancel_futures=True)
        self._savers.shutdown(cancel_futures=True)

    def __call__(self, rows: list[I]) -> list[R]:
        size = self._work.batch_size
        loads: deque[Future[L]] = deque()
        saves: deque[Future[list[R]]] = deque()
        done: list[R] = []
        waiting = iter(rows)
        for begin in range(0, len(rows), size):
            ahead = 2 * size - len(loads)
            loads.extend(self._loaders.submit(self._work.load, row) for row in islice(waiting, ahead))
            batch = rows[begin : begin + size]
            outcomes = [_outcome(loads.popleft().result) for _ in batch]
            saves.extend(
                self._savers.submit(self._finish, *pair) for pair in zip(batch, self._step(outcomes), strict=True)
            )
            while len(saves) > 2 * size:
                done.extend(saves.popleft().result())
        for save in saves:
            done.extend(save.result())
        return done

    def _step(self, loaded: list[L | _Failure]) -> list[M | _Failure]:
        """Run the step on loaded inputs; if a batch fails, each of its inputs is retried alone."""
        good = [value for value in loaded if not isinstance(value, _Failure)]
        together = _outcome(lambda: list(self._work.step(good))) if good else []
        if isinstance(together, _Failure):
            alone = [_outcome(partial(self._alone, value)) for value in good]
        else:
            alone = list(together)
        results = iter(alone)
        return [value if isinstance(value, _Failure) else next(results) for value in loaded]

    def _alone(self, value: L) -> M:
        return self._work.step([value])[0]

    def _finish(self, row: I, result: M | _Failure) -> list[R]:
        if not isinstance(result, _Failure):
            rows = _outcome(partial(self._work.save, row, result))
            if not isinstance(rows, _Failure):
                return rows
            result = rows
        return self._work.failed(row, result.reason, result.detail)


@dataclass(frozen=True)
class _Failure:
    reason: str
    detail: str


def _outcome(call: Callable[[], T]) -> T | _Failure:
    """The result of `call`, or why one input failed; errors that end the run are raised."""
    try:
        return call()
    except ImageError as error:
        return _Failure(error.reason, one_line(error))
    except AuthfaceError:
        raise
    except Exception as error:  # noqa: BLE001  whatever one input provokes in a library is that input's row
        return _Failure("error", one_line(f"{type(error).__name__}: {error}"))


def processes(work: Step[I, L, M, R], chunks: Iterator[list[I]], *, workers: int) -> Iterator[tuple[int, list[R]]]:
    """Chunks spread over worker processes, at most two in flight per worker, results in order.

    If a process dies, the rows of its chunks are retried one by one, and the row that
    kills its process again is `failed: crashed`.
    """
    pool = _Pool(work, workers)
    flying: deque[tuple[list[I], Future[list[R]]]] = deque()
    try:
        for chunk in chunks:
            flying.append((chunk, pool.submit(chunk)))
            if len(flying) >= 2 * workers:
                yield pool.result(flying)
        while flying:
            yield pool.result(flying)
    finally:
        pool.close(wait=not flying)


class _Pool(Generic[I, L, M, R]):
    def __init__(self, work: Step[I, L, M, R], workers: int) -> None:
        self._work = work
        self._workers = workers
        self._executor = self._start(workers)

    def _start(self, workers: int) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(workers, context, _begin, (self._work,))

    def submit(self, chunk: list[I]) -> Future[list[R]]:
        try:
            with _environment(thread_limit(max(1, (os.cpu_count() or 1) // self._workers))):
                return self._executor.submit(_work_on, chunk)  # starts the processes that are missing
        except BrokenProcessPool as error:
            broken: Future[list[R]] = Future()
            broken.set_exception(error)
            return broken

    def result(self, flying: deque[tuple[list[I], Future[list[R]]]]) -> tuple[int, list[R]]:
        """The rows of the oldest chunk. After a crash, every chunk in flight is done again row by row."""
        chunk, future = flying[0]
        try:
            rows = future.result()
        except BrokenProcessPool:
            self._executor.shutdown(wait=False, cancel_futures=True)
            rows = [row for one in chunk for row in self._apart(one)]
            self._executor = self._start(self._workers)
            for index in range(1, len(flying)):
                flying[index] = (flying[index][0], self.submit(flying[index][0]))
        flying.popleft()
        return len(chunk), rows

    def _apart(self, row: I) -> list[R]:
        with self._start(1) as executor, _environment(thread_limit(os.cpu_count() or 1)):
            try:
                return executor.submit(_work_on, [row]).result()
            except BrokenProcessPool:
                return self._work.failed(row, "crashed", "the process that worked on it died; see the system's log")

    def close(self, wait: bool) -> None:
        """End the processes; `wait` for idle ones: Python 3.11 prints a traceback if it exits meanwhile."""
        self._executor.shutdown(wait, cancel_futures=True)


_worker: Worker[Any, Any, Any, Any] | None = None
_waiting_work: Step[Any, Any, Any, Any] | None = None


def thread_limit(threads: int) -> dict[str, str]:
    """The environment of a process whose libraries use at most `threads` threads each; they read it as they load."""
    return dict.fromkeys(("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM", "MKL_NUM_THREADS"), str(threads))


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Add `values` to the environment of processes started within the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _begin(work: Step[Any, Any, Any, Any]) -> None:
    """Initialise a worker process: it ignores Ctrl-C, and ends when its parent does."""
    global _waiting_work
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _waiting_work = work
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work_on(rows: list[Any]) -> list[Any]:
    """Work in a worker process: models are opened here, not in `_begin`, so that their errors reach the parent."""
    global _worker
    if _worker is None:
        if _waiting_work is None:
            raise RuntimeError("a worker began without its work")
        _worker = Worker(_waiting_work)
    return _worker(rows)
