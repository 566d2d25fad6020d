"""Work in other threads beside a loop: its next item is made before it asks, what it leaves is finished behind it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T], alone: Callable[[T], bool]) -> Generator[T, None, None]:
    """The items, each made in another thread while the one before is used; after one that is `alone` only then.

    An error of `items` is raised where its item is asked for. Whoever stops early waits for the item in the making.
    """
    with ThreadPoolExecutor(1) as pool:
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
def behind() -> Iterator[Callable[[Callable[[], None]], None]]:
    """A function that has its argument called in another thread, in order, at most one beside the caller's work.

    It returns when the call before has ended, whose error it raises; the last one's is raised at the block's end.
    """
    last: list[Future[None]] = []
    with ThreadPoolExecutor(1) as pool:
        context = copy_context()

        def hand(call: Callable[[], None]) -> None:
            settle()
            last.append(pool.submit(context.run, call))

        def settle() -> None:
            while last:
                last.pop().result()

        yield hand
        settle()
