"""Pages of the product's own servers, in a browser."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socket import socket
from typing import Any

from authface.web import local


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
