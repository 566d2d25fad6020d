"""Where the seconds of a run go, part by part."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

Part = Literal["load", "read", "detect", "align", "model", "guard", "mask", "paste", "encode"]
Seconds = dict[Part, float]

_SECONDS: ContextVar[Seconds | None] = ContextVar("seconds", default=None)


@contextmanager
def counted() -> Iterator[Seconds]:
    """The seconds of each part that runs within the block, in its thread or in copies of its context."""
    seconds: Seconds = {}
    token = _SECONDS.set(seconds)
    try:
        yield seconds
    finally:
        _SECONDS.reset(token)


@contextmanager
def part(name: Part) -> Iterator[None]:
    """Count the block's seconds, where somebody counts. Parts do not lie within each other."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds = _SECONDS.get()
        if seconds is not None:
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
