"""What goes wrong in long runs, made on purpose: a store is away, a process dies, a job is taken back."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENCE


class Store:
    """A moto server behind a proxy that answers 503 for a while, once it was asked a number of times."""

    address = "s3://outage"

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._moto = DomainDispatcherApplication(create_backend_app)
        self.server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.refused = 0
        self._lock = threading.Lock()
        self._more, self._seconds, self._until = sys.maxsize, 0.0, 0.0

    def refuse(self, *, after: int, seconds: float) -> None:
        """Answer `after` more requests, then none for so long."""
        with self._lock:
            self.refused, self._more, self._seconds = 0, after, seconds

    def answer(self) -> None:
        """Answer all from now on."""
        with self._lock:
            self._more, self._until = sys.maxsize, 0.0

    def _refuses(self) -> bool:
        with self._lock:
            self._more -= 1
            if self._more == -1:
                self._until = time.monotonic() + self._seconds
            refuses = time.monotonic() < self._until
            self.refused += refuses
            return refuses

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        if not self._refuses():
            return self._moto(environ, start)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        body = b"" if environ["REQUEST_METHOD"] == "HEAD" else b"<Error><Code>ServiceUnavailable</Code></Error>"
        start("503 Service Unavailable", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]


@contextmanager
def store() -> Iterator[Store]:
    """A new, empty store; the environment tells s3fs where it is."""
    import boto3
    from s3fs import S3FileSystem

    made = Store()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", made.url)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "testing")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        bucket = boto3.resource("s3").Bucket(made.address.removeprefix("s3://"))
        bucket.create()
        S3FileSystem.clear_instance_cache()  # of a store of before
        yield made
        made.answer()
        bucket.objects.all().delete()
    S3FileSystem.clear_instance_cache()
    made.server.shutdown()
    thread.join()


@contextmanager
def once(happens: Callable[[], bool], then: Callable[[], object]) -> Iterator[None]:
    """Do something in a thread once something happens within the block; fails where it never did."""
    done, over = threading.Event(), threading.Event()

    def wait() -> None:
        while not over.is_set():
            if happens():
                then()
                return done.set()
            time.sleep(0.01)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert done.is_set(), "the run was over before"


def kill_a_worker() -> None:
    """SIGKILL for one of this process's workers."""
    process = multiprocessing.active_children()[0]
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)


def take_back(words: list[object], once: Callable[[], bool], number: int) -> tuple[int, str]:
    """Run ``authface WORDS`` until something happens, then send it a signal; its exit code and standard error."""
    command = [sys.executable, "-P", "-m", "authface.cli", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        deadline = time.monotonic() + PATIENCE
        while run.poll() is None and not once():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert run.poll() is None, "the run was over before"
        run.send_signal(number)
        assert run.stderr is not None
        said = run.stderr.read()
    return run.returncode, said


def grown(path: Path) -> Callable[[], bool]:
    """Whether a file is larger than it was when this was called, or is there at last."""
    before = path.stat().st_size if path.exists() else 0
    return lambda: path.exists() and path.stat().st_size > before


@contextmanager
def two_nodes(folder: Path | None = None) -> Iterator[Any]:
    """A Ray of two nodes of one core each, at RAY_ADDRESS; their processes can import what lies in `folder`.

    Skips without Ray, which CI must have.
    """
    if "CI" not in os.environ:
        pytest.importorskip("ray", reason="the extra ray is not installed")
    import ray
    from ray.cluster_utils import Cluster

    size = {"num_cpus": 1, "object_store_memory": 100_000_000}
    with pytest.MonkeyPatch.context() as patch:
        if folder is not None:
            patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        nodes = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
        try:
            nodes.add_node(**size)
            nodes.wait_for_nodes()
            patch.setenv("RAY_ADDRESS", nodes.address)
            yield nodes
        finally:
            ray.shutdown()  # a test of this process that was connected would keep its node
            nodes.shutdown()


def lose_a_node(nodes: Any) -> None:
    """End the node that is not the head, with all its processes, as a machine does that is gone."""
    (second,) = nodes.worker_nodes
    nodes.remove_node(second, allow_graceful=False)
