"""A real HTTP server on loopback that behaves as badly as a test asks, and photos for it to serve."""

from __future__ import annotations

import io
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Route = Callable[["Handler"], None]
SITE_FILES = {"/robots.txt", "/ai.txt", "/.well-known/tdmrep.json"}


class Handler(BaseHTTPRequestHandler):
    """One request; routes answer with `reply`, or write whatever they like."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.name, _, self.query = self.path.partition("?")
        self.server.note(self)
        route = self.server.routes.get(self.name)
        if route is None:
            return self.reply(404, b"nothing here")
        try:
            route(self)
        except ConnectionError:
            self.close_connection = True

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def tries(self) -> int:
        """How often this address was asked for, this time included."""
        return self.server.asked[self.path]

    def log_message(self, *_: object) -> None:
        """Silence."""


class Server(ThreadingHTTPServer):
    """`routes` by path; `asked` counts requests by path and query, `log` holds them in order.

    What is asked of a host before its photos, such as robots.txt, is counted in `site_asked` alone.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.routes: dict[str, Route] = {}
        self.log: list[tuple[str, dict[str, str]]] = []
        self.asked: Counter[str] = Counter()
        self.site_asked: Counter[str] = Counter()
        self._lock = threading.Lock()

    def note(self, request: Handler) -> None:
        with self._lock:
            if request.path in SITE_FILES:
                self.site_asked[request.path] += 1
                return
            self.log.append((request.path, {name.lower(): value for name, value in request.headers.items()}))
            self.asked[request.path] += 1

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def serve(self, path: str, body: bytes, **headers: str) -> str:
        """Let `path` answer with `body`; its address."""
        self.routes[path] = lambda request: request.reply(200, body, **headers)
        return self.url(path)

    def handle_error(self, *_: Any) -> None:
        """A client that went away is no trouble of the server's."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture(scope="session")
def photos() -> list[bytes]:
    """48 different JPEGs of 360 x 300, a third with a face: turned and shifted copies of the samples."""
    from PIL import Image

    from authface.curate.fetch.sources.folder import Samples

    rng = random.Random(7)
    found = []
    for _, item in zip(range(48), list(Samples().items()) * 8, strict=True):
        buffer = io.BytesIO()
        with Image.open(item.path) as image:
            turned = image.convert("RGB").rotate(rng.uniform(-20, 20), translate=(rng.randint(-9, 9), 0))
            turned.resize((360, 300)).save(buffer, "JPEG", quality=92)
        found.append(buffer.getvalue())
    return found
