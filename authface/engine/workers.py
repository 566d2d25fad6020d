"""Work on rows, and a worker that does it: models loaded once, then rows through load, step and save.

A `Step` says how one row is loaded, stepped and saved; it knows nothing of parts, resume or processes. Threads load
ahead of the step and save behind it, both bounded. `inline` has one worker in this process, `authface.engine.pool` one
in each of several, `authface.engine.crew` one in each actor of a cluster.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
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


Keep = Callable[[int, list[R]], None]
"""Is given the place of a row among those worked on, and the new rows made of it; any thread may call it."""
Begun = Callable[[Sequence[I], Keep[R]], None]
"""A worker whose models are loaded: makes rows of some rows, and hands over those of each, in any order."""


class Work(ABC, Generic[I, R]):
    """What a worker does to rows. It is pickled to every worker before `start`, so it holds settings, not models."""

    @abstractmethod
    def start(self) -> Begun[I, R]:
        """Load the models; called once per worker. Raises AuthfaceError, which ends the run."""

    @abstractmethod
    def failed(self, row: I, reason: str, detail: str) -> list[R]:
        """The rows of an input that could not be worked on; called in the worker, and where a worker died over it."""


class Step(Work[I, R], Generic[I, L, M, R]):
    """The work on one row: a subclass defines `provenance`, `save` and `failed`; the other methods have defaults."""

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

    def start(self) -> Begun[I, R]:
        """A `Worker`."""
        return Worker(self)


def inline(work: Work[I, R], chunks: Iterator[list[I]]) -> Iterator[tuple[int, list[R]]]:
    """Chunks one after the other in this process; of each its number of rows and the new rows, in order."""
    begun = work.start()
    for chunk in chunks:
        yield len(chunk), worked(begun, chunk)


def worked(begun: Begun[I, R], rows: Sequence[I]) -> list[R]:
    """The new rows of some rows, in their order."""
    made: dict[int, list[R]] = {}
    begun(rows, made.__setitem__)
    return [row for place in sorted(made) for row in made[place]]


class Worker(Generic[I, L, M, R]):
    """Runs chunks of rows through load, step and save; each stage is at most two batches ahead of the next."""

    def __init__(self, work: Step[I, L, M, R]) -> None:
        work.open()
        self._work = work
        self._loaders = ThreadPoolExecutor(IO_THREADS, "load")
        self._savers = ThreadPoolExecutor(IO_THREADS, "save")

    def __call__(self, rows: Sequence[I], keep: Keep[R]) -> None:
        """Rows in their order."""
        loads: deque[Future[L]] = deque()
        saves: deque[Future[list[R]]] = deque()
        try:
            self._run(rows, keep, loads, saves)
        except BaseException:
            futures: list[Future[Any]] = [*loads, *saves]
            wait([future for future in futures if not future.cancel()])  # what writes is not left to itself
            raise

    def _run(self, rows: Sequence[I], keep: Keep[R], loads: deque[Future[L]], saves: deque[Future[list[R]]]) -> None:
        size, places, waiting = self._work.batch_size, count(), iter(rows)
        for begin in range(0, len(rows), size):
            ahead = 2 * size - len(loads)
            loads.extend(self._loaders.submit(self._work.load, row) for row in islice(waiting, ahead))
            batch = rows[begin : begin + size]
            outcomes = [_outcome(loads.popleft().result) for _ in batch]
            saves.extend(
                self._savers.submit(self._finish, *pair) for pair in zip(batch, self._step(outcomes), strict=True)
            )
            while len(saves) > 2 * size:
                keep(next(places), saves.popleft().result())
        while saves:
            keep(next(places), saves.popleft().result())

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
