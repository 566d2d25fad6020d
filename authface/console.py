"""What a command says: progress and log lines on standard error, results on standard output."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from authface.devices import rank
from authface.errors import one_line

PLAIN_SECONDS = 10.0
"""Without a terminal a line of progress is printed this often."""


Left = Callable[[], float | None]
"""The seconds that are left; None: it cannot be told."""


class Tick(Protocol):
    """Advance a progress bar by `done` items; `note` says the latest in a few words."""

    def __call__(self, done: int = 1, note: str = "") -> None: ...


class Console:
    """Bars with rate and time left on a terminal, plain lines elsewhere; `--json` puts one object on stdout.

    Of several processes of a training only the first one speaks.
    """

    def __init__(self, *, json_output: bool = False, debug: bool = False) -> None:
        self.silent = rank() > 0
        self.json_output = json_output
        self.debug = debug
        self._result: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.json_output and not self.silent and (self._result or error is None):
            sys.stdout.write(json.dumps(self._result, default=str, ensure_ascii=False) + "\n")
            sys.stdout.flush()

    def log(self, text: str) -> None:
        """One line for a person, on standard error."""
        if not self.silent:
            sys.stderr.write(one_line(text, 2000) + "\n")
            sys.stderr.flush()

    def result(self, text: str, **values: Any) -> None:
        """What the command found out: `text` on standard output, or `values` in the JSON object."""
        self._result.update(values)
        if not self.json_output and not self.silent:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    @contextmanager
    def progress(self, title: str, total: int | None, unit: str, left: Left | None = None) -> Iterator[Tick]:
        """A bar over `total` items (None: unknown) with rate and time left; `left` knows better than their number."""
        if sys.stderr.isatty() and not self.json_output and not self.silent:
            with self._bar(title, total, unit, left) as tick:
                yield tick
        else:
            with self._lines(title, total, unit, left) as tick:
                yield tick

    @contextmanager
    def _bar(self, title: str, total: int | None, unit: str, left: Left | None) -> Iterator[Tick]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[left]}") if left else TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=RichConsole(stderr=True)) as bars:
            task = bars.add_task(title, total=total, rate="", note="", left="")
            start = time.monotonic()
            count = 0

            def tick(done: int = 1, note: str = "") -> None:
                nonlocal count
                count += done
                more = duration(left()) if left else ""
                rate = pace(count, time.monotonic() - start, unit)
                bars.update(task, advance=done, note=one_line(note, 60), rate=rate, left=more)

            yield tick

    @contextmanager
    def _lines(self, title: str, total: int | None, unit: str, left: Left | None) -> Iterator[Tick]:
        start = last = time.monotonic()
        count = 0

        def tick(done: int = 1, note: str = "") -> None:
            nonlocal count, last
            count += done
            if (now := time.monotonic()) - last >= PLAIN_SECONDS:
                last = now
                self.log(_line(title, count, total, start, unit, note, left))

        yield tick
        if count:
            self.log(_line(title, count, total, start, unit, "done"))


class Notes(Console):
    """Keeps the lines that a worker logs, for the process that writes."""

    def __init__(self) -> None:
        super().__init__()
        self._texts: list[str] = []
        self._turn = Lock()

    def log(self, text: str) -> None:
        with self._turn:
            self._texts.append(text)

    def take(self) -> tuple[str, ...]:
        """All since the last time."""
        with self._turn:
            texts, self._texts = self._texts, []
        return tuple(texts)


def pace(count: int, seconds: float, unit: str) -> str:
    """How fast, for a person: ``111.7 photos/s``; of less than one a second two digits, ``0.033 photos/s``."""
    rate = count / max(seconds, 1e-9)
    return f"{rate:.1f} {unit}/s" if rate >= 1 else f"{rate:.2g} {unit}/s"


def duration(seconds: float | None) -> str:
    """A time for a person: ``45 s``, ``12 min``, ``3 h 20 min``, ``2 d 5 h``; empty where it is not known."""
    if seconds is None:
        return ""
    minutes, hours, days = (round(seconds / unit) for unit in (60, 3600, 86400))
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h" if days < 100 else f"{days} d"


def _line(
    title: str, count: int, total: int | None, start: float, unit: str, note: str, left: Left | None = None
) -> str:
    of = f"/{total}" if total is not None else ""
    line = f"{title}: {count}{of} {unit}, {pace(count, time.monotonic() - start, unit)}"
    if total and 0 < count < total:
        more = left() if left else (time.monotonic() - start) / count * (total - count)
        line += f", {duration(more)} left" if more is not None else ""
    return f"{line}, {note}" if note else line


def render_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Lines of a table whose columns are aligned by spaces, two between them; rows as long as `header`.

    The columns numbered in `right` are aligned on the right, all others on the left.
    """
    table = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    padded = (
        [
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in table
    )
    return "\n".join("  ".join(cells).rstrip() for cells in padded)
