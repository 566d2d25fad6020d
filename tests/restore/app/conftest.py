"""The page as it is served, and browsers that visit it."""

from __future__ import annotations

import os
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
from tests.pages import served, windows

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
        served(app, waiting, TOKEN) as url,
    ):
        yield url


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[[str], Any]]:
    """Opens the page in a window of its own; an error on it or a request to elsewhere fails the test."""
    with windows(browser, 1280, 900) as (opened, wrong):

        def visit(url: str) -> Any:
            page = opened()
            page.set_default_timeout(1000 * PATIENCE)
            own = (url.removesuffix(f"{TOKEN}/"), "data:", "blob:")
            page.on("request", lambda asked: wrong.append(asked.url) if not asked.url.startswith(own) else None)
            page.goto(url)
            page.wait_for_selector("#go")
            return page

        yield visit


def drop(page: Any, file: Path) -> None:
    page.locator("#file input[type=file]").set_input_files(file)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with RestoreQueue([Restorer("identity")]) as queue:
        yield Workspace(queue, tmp_path)
