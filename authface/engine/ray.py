"""`--engine ray`: a step on a cluster, by the actors of Ray Data, over the same parts and with the same rows.

An actor reads the rows of its piece of a part, the photos and the crops from the set itself, so the set lies on a file
system that all nodes share or on an object store. This process holds the set's lock and alone writes its tables. Ray
begins the pieces of a lost process or node again elsewhere. A piece that is begun a third time is given up and done row
by row; a row that is begun a third time alone is `failed: crashed`.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic

import pyarrow as pa

from authface.console import Tick
from authface.engine.pool import portable, thread_limit
from authface.engine.workers import Begun, I, R, Work, worked
from authface.errors import AuthfaceError, UsageError, one_line
from authface.extras import need

MAX_PIECES = 10_000
"""Most pieces into which a run of fewer parts is cut: this process keeps a reference to each."""
TRIES = 2
"""Times a piece may be started: the second since a lost node is not the fault of its rows."""
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # of what Ray's C++ says in this process; its files in /tmp/ray keep the rest
}


@dataclass(frozen=True)
class Cluster:
    """How much of a cluster a step uses."""

    workers: int = 0
    """Maximum number of actors; 0: one per core, or per GPU with `gpu`, that the cluster has at the beginning."""
    gpu: bool = False
    """Every actor reserves a GPU."""
    store_bytes: int = 200_000_000
    """Of the object store of a Ray started here: rows pass through it, and files if there are among what is made."""


@dataclass(frozen=True, order=True)
class Piece:
    """Rows `begin` to `end` of the part at place `part` of the run."""

    part: int
    begin: int
    end: int

    @property
    def rows(self) -> int:
        return self.end - self.begin


Result = tuple[Piece, list[Any] | None]
"""A piece and the rows made of it; None where it was given up."""
Pass = Callable[[Sequence[Piece]], Iterator[Result]]


def cut(counts: Sequence[int], rows: int) -> list[Piece]:
    """Split parts with these numbers of rows into pieces of at most `rows`; a piece never spans two parts."""
    return [
        Piece(part, begin, min(begin + rows, count))
        for part, count in enumerate(counts)
        for begin in range(0, count, rows)
    ]


def run_finer(run_pass: Pass, pieces: Sequence[Piece]) -> Iterator[Result]:
    """The results of `run_pass` for every piece, in any order; pieces that it abandons are retried row by row."""
    given_up: list[Piece] = []
    for piece, rows in run_pass(pieces):
        if rows is None and piece.rows > 1:
            given_up.append(piece)
        else:
            yield piece, rows
    if given_up:
        yield from run_pass([Piece(p.part, at, at + 1) for p in sorted(given_up) for at in range(p.begin, p.end)])


class Gathered(Generic[R]):
    """Collects the rows of pieces until their part is complete."""

    def __init__(self, counts: Sequence[int]) -> None:
        self._missing = {part: count for part, count in enumerate(counts) if count}
        self._rows: defaultdict[int, dict[int, list[R]]] = defaultdict(dict)

    @property
    def open(self) -> int:
        """Number of parts that are not complete yet."""
        return len(self._missing)

    def add(self, piece: Piece, rows: list[R]) -> list[R] | None:
        """Add a piece. Returns the rows of its part, in order, once the last missing piece has arrived; else None."""
        self._rows[piece.part][piece.begin] = rows
        self._missing[piece.part] -= piece.rows
        if self._missing[piece.part]:
            return None
        del self._missing[piece.part]
        return [row for _, some in sorted(self._rows.pop(piece.part).items()) for row in some]


def by_part(
    work: Work[I, R],
    counts: Sequence[int],
    readers: Sequence[Callable[[], list[I]]],
    tick: Tick,
    *,
    cluster: Cluster,
    chunk_rows: int,
) -> Iterator[tuple[int, list[R]]]:
    """Index and new rows of every part, as soon as it is complete. `readers` read the parts' rows, `counts` of them.

    Raises UsageError if Ray is missing, AuthfaceError if the cluster cannot be reached or the work cannot continue.
    """
    yield from ((part, []) for part, count in enumerate(counts) if count == 0)
    pieces = cut(counts, max(chunk_rows, -(-sum(counts) // MAX_PIECES)))
    if not pieces:
        return
    gathered = Gathered[R](counts)
    with connected(cluster) as actors:
        for piece, rows in run_finer(partial(_pass, work, readers, cluster, actors), pieces):
            if rows is None:
                row = readers[piece.part]()[piece.begin]
                rows = work.failed(row, "crashed", "every process that worked on it died, possibly out of memory")
            tick(piece.rows)
            if (whole := gathered.add(piece, rows)) is not None:
                yield piece.part, whole
    if gathered.open:
        raise AuthfaceError(f"Ray lost pieces of {gathered.open} parts: run the same command again")


def by_chunk(
    work: Work[I, R], chunks: Iterator[list[I]], *, cluster: Cluster
) -> Generator[tuple[int, list[R]], None, None]:
    """The rows of every chunk as it is done, in any order, with its number of inputs; else as `by_part`.

    More than `MAX_PIECES` chunks are joined; all inputs are in memory, here and in the cluster's object store.
    """
    given = list(chunks)
    joined = -(-len(given) // MAX_PIECES)
    pieces = [[row for chunk in given[at : at + joined] for row in chunk] for at in range(0, len(given), joined or 1)]
    counts = [len(piece) for piece in pieces]
    readers: list[Callable[[], list[I]]] = [partial(list, piece) for piece in pieces]
    most = max(counts, default=1)
    for place, rows in by_part(work, counts, readers, _no_tick, cluster=cluster, chunk_rows=most):
        yield counts[place], rows


def _no_tick(done: int = 1, note: str = "") -> None:
    pass


@contextmanager
def connected(cluster: Cluster) -> Iterator[int]:
    """Connect to the cluster at RAY_ADDRESS, or to a Ray started here for the block; gives the number of actors."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)  # read as Ray loads
    ray = _ray()
    address = os.environ.get("RAY_ADDRESS", "local")
    if address.startswith("ray://"):
        raise UsageError(
            f"RAY_ADDRESS={one_line(address)}: Ray Data does not run through Ray's client: run this on a node of the "
            f"cluster with RAY_ADDRESS=auto, or through ray job submit"
        )
    own = {"num_cpus": cluster.workers or os.cpu_count(), "object_store_memory": cluster.store_bytes}
    ours = not ray.is_initialized()
    try:
        if ours:
            with _stderr_shut(), _sigterm_kept():
                ray.init(
                    address=address,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.CRITICAL,
                    **(own if address == "local" else {}),
                )
    except Exception as error:  # a node that does not start in time is a bare one
        raise AuthfaceError(f"no Ray at {one_line(address)} (RAY_ADDRESS): {one_line(error)}") from error
    try:
        kind = "GPU" if cluster.gpu else "CPU"
        have = int(ray.cluster_resources().get(kind, 0))
        if have == 0:
            raise AuthfaceError(f"the Ray cluster at {one_line(address)} has no {kind}: add a node, or choose --device")
        yield have
    finally:
        if ours:
            ray.shutdown()


@contextmanager
def _stderr_shut() -> Iterator[None]:
    """Suppress the line that Ray's C++ code prints to standard error at start-up."""
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Let SIGTERM do what it did before: Ray takes it for itself as it starts, and ends with another exit code."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _ray() -> Any:
    """Ray with Ray Data, which log to files only."""
    need("--engine ray", "ray")
    try:
        import ray
        import ray.data
    except ImportError as error:  # Ray without its Data
        raise UsageError(f"--engine ray needs Ray: pip install 'authface[ray]' ({one_line(error)})") from error
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Ray prints what it retries on standard output, which is the command's own; it has no setting for it.
    ray._private.worker._worker_logs_enabled = False
    return ray


def _pass(
    work: Work[I, R],
    readers: Sequence[Callable[[], list[I]]],
    cluster: Cluster,
    actors: int,
    pieces: Sequence[Piece],
) -> Iterator[Result]:
    """Run every piece once through the actors of Ray Data, in any order."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext, from_items
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    DataContext.get_current().enable_progress_bars = False
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    lasting = {"max_restarts": -1, "max_task_retries": -1}
    begun = ray.remote(_Begun).options(num_cpus=0, scheduling_strategy=here, **lasting).remote()
    most = min(cluster.workers or actors, len(pieces))
    pool = ActorPoolStrategy(min_size=1, max_size=most, initial_size=min(most, actors), max_tasks_in_flight_per_actor=2)
    items = [
        {"number": number, **asdict(piece), "reader": pickle.dumps(readers[piece.part])}
        for number, piece in enumerate(pieces)
    ]
    made = from_items(items, override_num_blocks=len(items)).map_batches(
        _Actor,
        fn_constructor_args=(work, str(Path.cwd()), begun),
        batch_size=None,
        batch_format="pyarrow",
        compute=pool,
        num_cpus=None if cluster.gpu else 1,
        num_gpus=1 if cluster.gpu else None,
        runtime_env={"env_vars": thread_limit(1)},
    )
    try:
        for row in made.iter_rows():
            outcome = pickle.loads(row["outcome"])  # from our own actors
            if isinstance(outcome, AuthfaceError):
                raise outcome
            yield pieces[row["number"]], outcome
    except ray.exceptions.RayError as error:
        raise AuthfaceError(f"Ray gave up: {one_line(error)}; what was finished is kept, run again to go on") from error


class _Begun:
    """How often each piece was started; an actor on this node, so that it survives the loss of others.

    Where its process dies all the same, Ray begins it again and pieces get their tries anew.
    """

    def __init__(self) -> None:
        self._times = Counter[int]()

    def again(self, number: int) -> int:
        self._times[number] += 1
        return self._times[number]


class _Actor:
    """A worker process on a node: opens the models at the first piece, so that their errors become results."""

    def __init__(self, work: Work[Any, Any], folder: str, times: Any) -> None:
        with suppress(OSError):
            os.chdir(folder)  # a set may be named relative to where the command runs
        self._work, self._times = work, times
        self._begun: Begun[Any, Any] | None = None
        self._read: tuple[int, list[Any]] = (-1, [])

    def __call__(self, batch: pa.Table) -> pa.Table:
        (item,) = batch.to_pylist()
        number, reader = item.pop("number"), item.pop("reader")
        try:
            outcome: object = self._made(number, Piece(**item), reader)
        except Exception as error:  # noqa: BLE001  it goes to the process that waits for it
            outcome = portable(error, "on a node of the cluster")
        return pa.table({"number": [number], "outcome": pa.array([pickle.dumps(outcome)], pa.large_binary())})

    def _made(self, number: int, piece: Piece, reader: bytes) -> list[Any] | None:
        import ray

        if ray.get(self._times.again.remote(number)) > TRIES:
            return None
        if self._begun is None:
            self._begun = self._work.start()
        if self._read[0] != piece.part:
            self._read = piece.part, pickle.loads(reader)()  # from the process that began the run
        return worked(self._begun, self._read[1][piece.begin : piece.end])
