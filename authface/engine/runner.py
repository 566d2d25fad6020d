"""Run a step over the missing and outdated parts of a table: resume, progress, engines.

Rows travel in chunks to workers (`authface.engine.workers`). Parts are finished in order, and a finished part
is never touched again unless its inputs or its provenance changed.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from typing import Any, Generic

from authface.console import Console, Tick
from authface.devices import Environment
from authface.engine.crew import by_chunk
from authface.engine.pool import processes
from authface.engine.pool import seats as plain_seats
from authface.engine.ray import Cluster
from authface.engine.workers import I, L, M, Step, inline
from authface.errors import AuthfaceError, one_line
from authface.store.photoset import Provenance, R, Table, digest

CHUNK_ROWS = 32
"""Rows sent to a worker at a time: enough to hide the transfer, few enough to spread a small part."""
INLINE_ROWS = 128
"""Below this many rows a worker process takes longer to start than it saves."""


@dataclass(frozen=True, slots=True)
class PartInput(Generic[I]):
    """The input rows of one part, read only if the part has to be computed."""

    number: int
    count: int
    digest: str
    rows: Callable[[], list[I]]
    whole: str = ""
    """Digest of all the rows that there are, where a limit lets only the first of them through."""

    def is_in(self, inputs: str) -> bool:
        """Whether a part that was made from rows of this digest holds what is asked for, and maybe more."""
        return inputs == self.digest or (self.whole != "" and inputs == self.whole)


@dataclass
class Summary:
    """Result of a run: parts made and skipped, and how many rows of the table have each outcome."""

    made: int = 0
    skipped: int = 0
    rows: int = 0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    restated: int = 0
    """Photos that were there and of which another licence or author is stated now."""

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "made": self.made,
            "skipped": self.skipped,
            "seconds": round(self.seconds, 3),
            "images": self.rows,
            "counts": dict(self.counts),
            **({"restated": self.restated} if self.restated else {}),
        }

    @property
    def failed(self) -> int:
        """Rows that could not be measured."""
        return sum(count for name, count in self.counts.items() if name.startswith("failed"))


def parts_of(table: Table[R], limit: int = 0) -> list[PartInput[R]]:
    """The kept rows of a table, part by part, as inputs of the next step; `limit` > 0 stops after that many rows."""
    inputs: list[PartInput[R]] = []
    left = limit or sys.maxsize
    for number, meta in table.each_meta():
        if meta is None:
            raise AuthfaceError(
                f"{one_line(table.folder)}/{number:05d}.parquet is not a part of a photo set: move it away, run again"
            )
        count = min(meta.counts.get("kept", 0), left)
        cut = count < meta.counts.get("kept", 0)
        rows = partial(_kept, table, number, count)
        inputs.append(
            PartInput(number, count, digest(rows()), rows, meta.digest)
            if cut
            else PartInput(number, count, meta.digest, rows)
        )
        left -= count
        if left <= 0:
            break
    return inputs


def _kept(table: Table[R], number: int, count: int) -> list[R]:
    return [row for row in table.rows(number) if row.status == "kept"][:count]


def run(
    work: Step[I, L, M, R],
    inputs: Sequence[PartInput[I]],
    target: Table[R],
    console: Console,
    *,
    workers: int = 1,
    seats: Sequence[Environment] = (),
    cluster: Cluster | None = None,
    prune: bool = True,
    redo: bool = False,
    finish: Callable[[list[R]], list[R]] = list,
    chunk_rows: int = CHUNK_ROWS,
) -> Summary:
    """Make the parts of `target` that are missing or outdated, or all with `redo`; the caller holds the set's lock.

    `workers` processes of this machine do it, one for each of `seats` if there are any, or the actors of `cluster`.
    `finish` sees the rows of each part in order before they are written; `prune` removes parts whose input is gone:
    not where a limit leaves inputs out.
    Raises AuthfaceError when the run cannot go on; finished parts stay.
    """
    start = time.monotonic()
    step = work.provenance.step
    todo = list(inputs) if redo else _outdated(work.provenance, inputs, target, console)
    summary = Summary(skipped=len(inputs) - len(todo), rows=sum(part.count for part in todo))
    if prune:
        for number in set(target.parts()) - {part.number for part in inputs}:
            target.remove(number)
    if todo:
        if not seats and summary.rows >= INLINE_ROWS:
            seats = plain_seats(workers)
        with console.progress(step, summary.rows, "images") as tick:
            empty = ((part, list[R]()) for part, _ in _opened(work, [p for p in todo if not p.count], target))
            opened = _opened(work, [part for part in todo if part.count], target)
            made = chain(empty, _by_part(_spread(work, seats, cluster), opened, tick, chunk_rows))
            for part, rows in made if finish is list else _in_order(made, todo):
                target.write(part.number, finish(rows), work.provenance, part.digest)
                summary.made += 1
    summary.counts = target.counts()
    summary.seconds = time.monotonic() - start
    return summary


def append(
    provenance: Provenance,
    engine: Engine[I],
    inputs: Iterator[I],
    *,
    target: Table[R],
    console: Console,
    part_rows: int,
    total: int | None,
    finish: Callable[[list[R]], list[R]] = list,
    written: Callable[[list[R]], None] = lambda rows: None,
    chunk_rows: int = CHUNK_ROWS,
) -> Summary:
    """Add parts made of inputs that come one by one, `total` of them as far as is known; else as `run`.

    `written` is called with the rows of each part, as `finish` saw them, once it is on the disk.
    """
    start = time.monotonic()
    summary = Summary()
    rows: list[R] = []
    count = 0

    def write() -> None:
        if rows:
            target.write(max(target.parts(), default=-1) + 1, finish(rows), provenance, "")
            written(rows)
            summary.made += 1
            rows.clear()

    with console.progress(provenance.step, total, "images") as tick:
        try:
            for done, made in engine(_pieces(inputs, part_rows, chunk_rows)):
                rows += made
                count += done
                tick(done)
                if count % part_rows == 0:
                    write()
        except KeyboardInterrupt:  # no input is asked for twice: what came is worth a part of its own
            write()
            raise
        write()
    summary.rows = count
    summary.counts = target.counts()
    summary.seconds = time.monotonic() - start
    return summary


def _pieces(inputs: Iterator[I], part_rows: int, chunk_rows: int) -> Iterator[list[I]]:
    """The inputs in chunks that end where a part ends."""
    left = part_rows
    while piece := list(islice(inputs, min(chunk_rows, left))):
        left = left - len(piece) or part_rows
        yield piece


def _outdated(
    provenance: Provenance, inputs: Sequence[PartInput[I]], target: Table[R], console: Console
) -> list[PartInput[I]]:
    current, why, asked = set[int](), Counter[str](), {part.number: part for part in inputs}
    for number, meta in target.each_meta():
        if (part := asked.get(number)) is None or meta is None:
            continue
        if change := meta.provenance.difference(provenance):
            why[change] += 1
        elif not part.is_in(meta.inputs):
            why["the rows they were made from changed"] += 1
        else:
            current.add(number)
    for change, count in why.items():
        console.log(f"{provenance.step}: making {count} of {len(inputs)} parts again: {change}")
    return [part for part in inputs if part.number not in current]


def _opened(
    work: Step[I, L, M, R], todo: Iterable[PartInput[I]], target: Table[R]
) -> Iterator[tuple[PartInput[I], list[I]]]:
    for part in todo:
        if work.overwrites_files:  # rows must not outlive their files; others stay until there are new ones
            target.remove(part.number)
        yield part, part.rows()


Engine = Callable[[Iterator[list[I]]], Iterator[tuple[int, list[Any]]]]
"""Takes chunks of input rows; yields for each, in order, its number of rows and the new rows."""
Spread = Callable[[Iterator[list[I]]], Iterator[tuple[int, list[Any]]]]
"""Likewise chunks with rows; yields for each its number and the new rows, in any order."""


def _spread(work: Step[I, L, M, R], seats: Sequence[Environment], cluster: Cluster | None) -> Spread[I]:
    if cluster is not None:
        return partial(by_chunk, work, cluster=cluster)
    engine = partial(processes, work, seats=seats) if len(seats) > 1 else partial(inline, work)
    return lambda chunks: enumerate(rows for _, rows in engine(chunks))


def _by_part(
    spread: Spread[I], parts: Iterator[tuple[PartInput[I], list[I]]], tick: Tick, chunk_rows: int
) -> Iterator[tuple[PartInput[I], list[Any]]]:
    """Results of parts as they are finished, while chunks of others are already being processed."""
    begun: dict[int, tuple[PartInput[I], dict[int, int]]] = {}
    """By number of a chunk, its part and the sizes of all that part's chunks by their numbers."""
    made: dict[int, list[Any]] = {}

    def chunks() -> Iterator[list[I]]:
        first = 0
        for part, rows in parts:
            pieces = [rows[at : at + chunk_rows] for at in range(0, len(rows), chunk_rows)]
            sizes = {number: len(piece) for number, piece in enumerate(pieces, first)}
            begun.update(dict.fromkeys(sizes, (part, sizes)))
            first += len(pieces)
            yield from pieces

    for number, rows in spread(chunks()):
        part, sizes = begun[number]
        made[number] = rows
        tick(sizes[number])
        if made.keys() >= sizes.keys():
            yield part, [row for one in sizes for row in made.pop(one)]
            for one in sizes:
                del begun[one]


def _in_order(
    made: Iterable[tuple[PartInput[I], list[R]]], parts: Sequence[PartInput[I]]
) -> Iterator[tuple[PartInput[I], list[R]]]:
    """The results of `parts` in their order; on a cluster a lost node delays later ones, as many as may be begun."""
    waiting: dict[int, list[R]] = {}
    left = iter(parts)
    following: PartInput[I] | None = next(left)
    for part, rows in made:
        waiting[part.number] = rows
        while following is not None and following.number in waiting:
            yield following, waiting.pop(following.number)
            following = next(left, None)
