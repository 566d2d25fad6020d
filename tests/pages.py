"""Pages of the product's own servers, in a browser."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socket import socket
from typing import Any

import httpx

from authface.web import local
from tests.conftest import PATIENCE


@contextmanager
def served(app: Any, waiting: socket, token: str) -> Iterator[str]:
    """The address of an app that a thread serves on a socket while the block runs."""
    running = local.make_server(app)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [waiting]}, daemon=True)
    thread.start()
    try:
        yield local.address("127.0.0.1", waiting.getsockname()[1], token)
    finally:
        running.should_exit = True
        thread.join(10)
    assert not thread.is_alive()


@contextmanager
def windows(browser: Any, width: int, height: int) -> Iterator[tuple[Callable[..., Any], list[str]]]:
    """A function that opens an empty page in a window of its own, and a list that has to be empty at the end.

    Errors on a page are put into it.
    """
    contexts, wrong = [], list[str]()

    def opened(**options: Any) -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        return page

    yield opened, wrong
    for context in contexts:
        context.close()
    assert wrong == [], wrong


def opened_by(url: str, path: str) -> str:
    """What a page of Gradio's says when a request, not its script, names `path` as the photo that was uploaded."""
    api = f"{url}gradio_api/queue/"
    with httpx.Client(timeout=PATIENCE) as client:
        events = client.get(f"{url}config").json()["dependencies"]
        upload = next(event["id"] for event in events if event["targets"][0][1] == "upload")
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        asked = {"fn_index": upload, "data": [file, None], "session_hash": "s"}
        client.post(f"{api}join", json=asked).raise_for_status()
        with client.stream("GET", f"{api}data", params={"session_hash": "s"}) as told:
            return next(line for line in told.iter_lines() if "process_completed" in line)
