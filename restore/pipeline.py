"""A run as a pipeline: its threads, and what each part costs.

The next item is prepared and the last one written in other threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from itertools import islice
from typing import Literal, TypeVar

T = TypeVar("T")
Part = Literal["load", "read", "detect", "align", "model", "guard", "mask", "paste", "encode"]
Seconds = dict[Part, float]

_SECONDS: ContextVar[Seconds | None] = ContextVar("seconds", default=None)


def prefetch(items: Iterator[T], alone: Callable[[T], bool]) -> Generator[T, None, None]:
    """Prepare each item in another thread while the previous one is used; after an `alone` item only when it is due.

    An error of `items` is raised when its item is due. A caller that stops early waits for the item in preparation.
    """
    with _thread() as pool:
        context = copy_context()

        def some() -> list[T]:
            return list(islice(items, 1))

        coming = pool.submit(context.run, some)
        while made := coming.result():
            is_alone = alone(made[0])
            if not is_alone:
                coming = pool.submit(context.run, some)
            yield made.pop()
            if is_alone:
                coming = pool.submit(context.run, some)


@contextmanager
def write_behind() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Give a function that runs its argument in another thread: in order, one at a time.

    It first waits for the previous call and raises its error; the last call's error is raised at the end of the block.
    """
    last: list[Future[None]] = []
    with _thread() as pool:
        context = copy_context()

        def hand(call: Callable[[], None]) -> None:
            settle()
            last.append(pool.submit(context.run, call))

        def settle() -> None:
            while last:
                last.pop().result()

        yield hand
        settle()


@contextmanager
def _thread() -> Iterator[ThreadPoolExecutor]:
    """A pool of one thread that ends with the block, even if Ctrl-C arrives as it starts.

    The pool then does not know its thread yet, which would read on from files that are being closed.
    """
    own: list[threading.Thread] = []
    pool = ThreadPoolExecutor(1, initializer=lambda: own.append(threading.current_thread()))
    try:
        yield pool
        pool.shutdown()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # what has not begun never will: what has is in `own`
        for thread in own:
            thread.join()


@contextmanager
def counted() -> Iterator[Seconds]:
    """Measure the seconds of each `part` within the block, in its thread or in copies of its context."""
    seconds: Seconds = {}
    token = _SECONDS.set(seconds)
    try:
        yield seconds
    finally:
        _SECONDS.reset(token)


def add_seconds(spent: Seconds) -> None:
    """Add what another process measured to `counted`, if active."""
    seconds = _SECONDS.get()
    if seconds is not None:
        for name, value in spent.items():
            seconds[name] = seconds.get(name, 0.0) + value


@contextmanager
def part(name: Part) -> Iterator[None]:
    """Add the block's seconds to `counted`, if active. Parts do not nest."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds = _SECONDS.get()
        if seconds is not None:
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
