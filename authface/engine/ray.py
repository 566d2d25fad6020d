"""A Ray cluster: how much of it a step uses, and the connection to it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from authface.errors import AuthfaceError, UsageError, one_line
from authface.extras import need

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


@contextmanager
def connected(cluster: Cluster) -> Iterator[int]:
    """Connect to the cluster at RAY_ADDRESS, or to a Ray started here for the block; gives the number of actors."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)  # read as Ray loads
    ray = _ray()
    address = os.environ.get("RAY_ADDRESS", "local")
    if address.startswith("ray://"):
        raise UsageError(
            f"RAY_ADDRESS={one_line(address)}: not through Ray's client: run this on a node of the cluster with "
            "RAY_ADDRESS=auto, or through ray job submit"
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
    """Ray, which logs to files only."""
    need("--engine ray", "ray")
    import ray

    logging.getLogger("ray").setLevel(logging.CRITICAL)
    # Ray prints what it retries on standard output, which is the command's own; it has no setting for it.
    ray._private.worker._worker_logs_enabled = False
    return ray
