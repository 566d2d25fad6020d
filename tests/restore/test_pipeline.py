"""Work in other threads: order, how far ahead, and whose errors come where."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from authface.restore.pipeline import checked, counted, part, prefetch, write_behind


def test_the_next_item_is_made_while_one_is_used_and_no_more() -> None:
    made: list[int] = []
    asked = threading.Event()

    def items() -> Iterator[int]:
        for i in range(4):
            made.append(i)
            if i == 1:
                asked.set()
            yield i

    got = prefetch(items(), lambda item: item == 2)
    assert next(got) == 0 and asked.wait(10)
    assert next(got) == 1
    assert next(got) == 2
    time.sleep(0.05)
    assert made == [0, 1, 2]  # the third is alone
    assert list(got) == [3] and made == [0, 1, 2, 3]


def test_errors_come_where_their_item_would() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("two")

    got = prefetch(items(), lambda _: False)
    assert next(got) == 1
    with pytest.raises(ValueError, match="two"):
        next(got)


def test_what_is_left_behind_is_done_in_order_and_its_errors_are_not_lost() -> None:
    done: list[int] = []
    start = threading.Event()

    def slow() -> None:
        start.wait(10)
        done.append(1)

    with write_behind() as hand:
        hand(slow)
        assert done == []
        start.set()
        hand(lambda: done.append(2))
    assert done == [1, 2]

    def fail() -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"), write_behind() as hand:
        hand(fail)
    with pytest.raises(OSError, match="full"), write_behind() as hand:
        hand(fail)
        hand(lambda: done.append(3))
    assert done == [1, 2]


def test_a_check_comes_before_each_part() -> None:
    def enough() -> None:
        raise InterruptedError("enough")

    with checked(enough), pytest.raises(InterruptedError), part("guard"):
        pytest.fail("it was called too late")
    with part("guard"):  # nobody checks
        pass


def test_seconds_are_counted_in_every_thread() -> None:
    def items() -> Iterator[int]:
        for i in range(2):
            with part("read"):
                time.sleep(0.02)
            yield i

    with counted() as seconds, write_behind() as hand:
        for _ in prefetch(items(), lambda _: False):
            with part("model"):
                time.sleep(0.01)

            def write() -> None:
                with part("encode"):
                    time.sleep(0.03)

            hand(write)
    assert seconds["read"] >= 0.04 and seconds["model"] >= 0.02 and seconds["encode"] >= 0.06
    before = dict(seconds)
    with part("read"):  # nobody counts
        pass
    assert seconds == before
