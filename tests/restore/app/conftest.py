"""The page as it is served, and browsers that visit it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

from authface import Restorer
from authface.restore.app import server as app_server
from authface.restore.app.workspace import Workspace
from authface.restore.queue import Limits, RestoreQueue
from authface.web import local
from tests.conftest import PATIENCE

TOKEN = "secret-of-this-test"
ASTRONAUT = np.ascontiguousarray(data.astronaut()[:300, 60:400])


@pytest.fixture(scope="module", autouse=True)
def with_gradio() -> None:
    if find_spec("gradio") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no Gradio: the page's tests need the extra app")
        pytest.skip("no Gradio: pip install 'authface[app]' to test the page")


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A photo of two faces, the left one larger, with EXIF."""
    small = np.asarray(Image.fromarray(ASTRONAUT).resize((240, 212)))
    photo = np.zeros((300, 580, 3), np.uint8)
    photo[:, :340], photo[40:252, 340:] = ASTRONAUT, small
    exif = Image.Exif()
    exif[0x010F] = "Scanner"
    Image.fromarray(photo).save(tmp_path / "aunts.jpg", quality=95, exif=exif)
    return tmp_path / "aunts.jpg"


@pytest.fixture(scope="module")
def restorer(family: Path) -> Iterator[Restorer]:
    with Restorer(str(family), device="cpu", steps=2) as made:
        yield made


@contextmanager
def serving(restorer: Restorer, megabytes: float = 20, megapixels: float = 40) -> Iterator[str]:
    with (
        local.listen("127.0.0.1", 0, app_server.INSTEAD) as waiting,
        RestoreQueue([restorer], Limits(megabytes, megapixels)) as queue,
        app_server.page(queue, TOKEN, "127.0.0.1") as app,
    ):
        running = local.make_server(app)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [waiting]}, daemon=True)
        thread.start()
        try:
            yield local.address("127.0.0.1", waiting.getsockname()[1], TOKEN)
        finally:
            running.should_exit = True
            thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[[str], Any]]:
    """Opens the page in a window of its own; an error on it or a request to elsewhere fails the test."""
    contexts, wrong = [], list[str]()

    def visit(url: str) -> Any:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        own = (url.removesuffix(f"{TOKEN}/"), "data:", "blob:")
        page.on("request", lambda asked: wrong.append(asked.url) if not asked.url.startswith(own) else None)
        page.goto(url)
        page.wait_for_selector("#go")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert wrong == []


def drop(page: Any, file: Path) -> None:
    page.locator("#file input[type=file]").set_input_files(file)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with RestoreQueue([Restorer("identity")]) as queue:
        yield Workspace(queue, tmp_path)
