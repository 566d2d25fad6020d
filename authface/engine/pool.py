"""Processes of this machine: each loads the models once, takes chunks of rows from one queue, sends back what it made.

What is made comes back in any order (`Pool.spread`), or chunk by chunk in order (`processes`), or to who asked for it
(`authface.engine.crew`); this process alone writes it down. A row over which a process dies is begun again, alone in
another, `TRIES` times; then it is ``failed: crashed``. A worker ends with this process, however that ends; Ctrl-C is
this process's business alone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from typing import Any, Generic

from authface.devices import Environment
from authface.engine.workers import I, R, Work
from authface.errors import AuthfaceError, UsageError, one_line

TRIES = 2
"""Times that a row is begun again, alone, after a process died over it."""
STARTS = 2
"""Times that a process is started again that died before its models were loaded."""
AHEAD = 2
"""Chunks that a process has: the one it works on, and the next."""


def processes(
    work: Work[I, R], chunks: Iterator[list[I]], *, seats: Sequence[Environment]
) -> Iterator[tuple[int, list[R]]]:
    """As `Pool.spread`, but chunk by chunk in order: of each its number of rows and the new rows."""
    sizes: deque[int] = deque()
    made: dict[int, dict[int, list[R]]] = {}
    oldest = 0

    def measured() -> Iterator[list[I]]:
        for chunk in chunks:
            sizes.append(len(chunk))
            yield chunk

    def complete() -> Iterator[tuple[int, list[R]]]:
        nonlocal oldest
        while sizes and len(made.get(oldest, ())) == sizes[0]:
            rows = sorted(made.pop(oldest, {}).items())
            yield sizes.popleft(), [row for _, some in rows for row in some]
            oldest += 1

    with closing(Pool(work, seats)) as pool:
        for number, place, rows in pool.spread(measured(), window=AHEAD * len(seats)):
            made.setdefault(number, {})[place] = rows
            yield from complete()
        yield from complete()


def seats(workers: int) -> list[Environment]:
    """Of processes that need nothing of their own."""
    return [{}] * workers


def thread_limit(threads: int) -> dict[str, str]:
    """The environment of a process whose libraries use at most `threads` threads each; they read it as they load."""
    return dict.fromkeys(("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM", "MKL_NUM_THREADS"), str(threads))


@dataclass
class _Task(Generic[I]):
    """Rows of a chunk, by their places in it, that are not made yet."""

    chunk: int
    rows: dict[int, I]
    begun: int = 0
    """Processes that died over them; then it is one row, which its process works on alone."""


class _Member(Generic[I, R]):
    """A seat, and the process on it once there is work for it."""

    def __init__(self, work: Work[I, R], environment: Environment) -> None:
        self._work, self._environment = work, environment
        self._process: multiprocessing.process.BaseProcess | None = None
        self.pipe: Connection | None = None
        self.tasks: deque[_Task[I]] = deque()
        """The first is worked on."""
        self.ready = False
        self.starts = 0
        """Processes that were started and did not get ready."""

    def give(self, task: _Task[I]) -> None:
        self.tasks.append(task)
        if self.pipe is None:
            self._start()
        assert self.pipe is not None
        with suppress(OSError):  # it died: its end of the pipe says so to who waits
            self.pipe.send((list(task.rows), list(task.rows.values())))

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._work), daemon=True)
        self.starts += 1
        with _environment(self._environment), _no_interrupt():
            self._process.start()
        theirs.close()

    def end(self) -> int:
        """End the process, if there is one; its exit code."""
        if self._process is None or self.pipe is None:
            return 0
        self.pipe.close()
        self._process.terminate()
        self._process.join()
        code = self._process.exitcode or 0
        self._process = self.pipe = None
        self.ready = False
        return code


class Pool(Generic[I, R]):
    """A process for each of `seats`: it begins with its first rows and stays, its models loaded, until `close`."""

    def __init__(self, work: Work[I, R], seats: Sequence[Environment]) -> None:
        self._work = work
        threads = thread_limit(max(1, (os.cpu_count() or 1) // len(seats)))
        self._members = [_Member(work, threads | dict(seat)) for seat in seats]

    def close(self) -> None:
        """End the processes, whatever they are at."""
        for member in self._members:
            member.end()

    def spread(
        self, chunks: Iterator[list[I]], *, window: int = sys.maxsize, bell: Connection | None = None
    ) -> Generator[tuple[int, int, list[R]], None, None]:
        """Rows made of chunks: number of the chunk, place of the row in it, the rows made of it. One call at a time.

        A chunk is taken once a process is free for it, and while it is fewer than `window` behind the oldest
        unfinished one. With a `bell` an empty chunk says that there is none for now: they are asked for again when it
        rings, or a process is free; closing its other end ends the call. Raises AuthfaceError where the work cannot go
        on. A pool whose call was not read to its end has to be closed.
        """
        self._chunks = enumerate(chunks)
        self._window, self._bell = window, bell
        self._open: dict[int, int] = {}
        """Rows left of each chunk that is begun."""
        self._taken = 0
        self._again: deque[_Task[I]] = deque()
        """Given to a process that died, which had not begun them."""
        self._suspects: deque[_Task[I]] = deque()
        """Rows over which a process died."""
        while True:
            for depth in range(AHEAD):  # none gets a second chunk while another has no first
                for member in self._members:
                    if len(member.tasks) == depth and (task := self._next(member)):
                        member.give(task)
            pipes = {member.pipe: member for member in self._members if member.tasks and member.pipe}
            if not pipes and self._bell is None:
                return
            for pipe in wait([*pipes, *([] if self._bell is None else [self._bell])]):
                if pipe is not self._bell:
                    yield from self._receive(pipes[pipe])  # type: ignore[index]  # what was waited for
                elif not self._rings():
                    return

    def _next(self, member: _Member[I, R]) -> _Task[I] | None:
        if member.tasks and (self._suspects or member.tasks[0].begun):
            return None
        if self._suspects:
            return self._suspects.popleft()
        if self._again:
            return self._again.popleft()
        for number, rows in self._chunks if self._has_room() else ():
            self._taken = number + 1
            if rows:
                self._open[number] = len(rows)
                return _Task(number, dict(enumerate(rows)))
            if self._bell is not None:
                break
        return None

    def _rings(self) -> bool:
        """Take one ring of the bell; False where its other end is closed."""
        assert self._bell is not None
        try:
            self._bell.recv_bytes()
        except (EOFError, OSError):
            return False
        return True

    def _has_room(self) -> bool:
        return not self._open or self._taken - min(self._open) < self._window

    def _receive(self, member: _Member[I, R]) -> Iterator[tuple[int, int, list[R]]]:
        assert member.pipe is not None
        try:
            said = member.pipe.recv()
        except (EOFError, OSError):
            yield from self._died(member)
            return
        if isinstance(said, AuthfaceError):
            raise said
        if said is None:
            member.ready, member.starts = True, 0
        elif said == ():
            member.tasks.popleft()
        else:
            place, rows = said
            task = member.tasks[0]
            del task.rows[place]
            yield self._counted(task, place, rows)

    def _counted(self, task: _Task[I], place: int, rows: list[R]) -> tuple[int, int, list[R]]:
        self._open[task.chunk] -= 1
        if not self._open[task.chunk]:
            del self._open[task.chunk]
        return task.chunk, place, rows

    def _died(self, member: _Member[I, R]) -> Iterator[tuple[int, int, list[R]]]:
        was_ready = member.ready
        code = member.end()
        if not was_ready and member.starts > STARTS:
            raise AuthfaceError(
                f"{member.starts} processes in turn ended with {code} while they loaded their models, possibly out of "
                "memory: use fewer at a time, see the system's log"
            )
        if was_ready:
            task = member.tasks.popleft()
            for place, row in list(task.rows.items()):
                if task.begun < TRIES:
                    self._suspects.append(_Task(task.chunk, {place: row}, task.begun + 1))
                else:
                    detail = "the process that worked on it died, each time; see the system's log"
                    yield self._counted(task, place, self._work.failed(row, "crashed", detail))
        self._again.extend(member.tasks)
        member.tasks.clear()


@contextmanager
def _environment(values: Environment) -> Iterator[None]:
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


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Processes started within the block never get Ctrl-C, from their first instruction on; this one gets it after."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Connection, work: Work[Any, Any]) -> None:
    """A process of the pool: says None once it is ready, (place, rows) for each row, () for a chunk, or an error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    given: SimpleQueue[tuple[list[int], list[Any]]] = SimpleQueue()
    # A thread reads whatever comes: else each side could wait for the other to read.
    threading.Thread(target=_listen, args=(pipe, given), daemon=True).start()
    turn = threading.Lock()

    def say(what: object) -> None:
        with turn:
            pipe.send(what)

    try:
        begun = work.start()
        say(None)
        while True:
            places, rows = given.get()
            begun(rows, partial(_say_made, say, places))
            say(())
    except BaseException as error:  # noqa: BLE001  it goes to the process that waits for it
        with suppress(OSError):
            say(portable(error, "in a process of several"))


def _say_made(say: Callable[[object], None], places: Sequence[int], at: int, made: list[Any]) -> None:
    say((places[at], made))


def _listen(pipe: Connection, given: SimpleQueue[Any]) -> None:
    """Take what the parent sends; where it has ended there is nobody to work for."""
    while True:
        try:
            given.put(pipe.recv())
        except (EOFError, OSError):
            os._exit(1)


def portable(error: BaseException, where: str) -> AuthfaceError:
    """An error of a worker as one that any process can read, its trace as a note for ``--debug``."""
    kind = UsageError if getattr(error, "exit_code", 0) == UsageError.exit_code else AuthfaceError
    known = isinstance(error, AuthfaceError)
    told = kind(str(error) if known else f"{where}: {type(error).__name__}: {one_line(error)}")
    told.add_note("".join(traceback.format_exception(error)))
    return told
