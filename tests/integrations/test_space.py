"""The Space, run as a Space is run, in a real browser: a photo goes in and a restored one comes out."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from packaging.requirements import Requirement
from PIL import Image
from skimage import data

from authface import __version__
from tests.pages import opened_by

SPACE = Path(__file__).parents[2] / "integrations" / "space"
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


@pytest.fixture
def space(tmp_path: Path) -> Iterator[str]:
    """Its address; temporary files lie below `tmp_path`, and have to be gone once the Space was stopped."""
    pytest.importorskip("gradio")
    folder, temporary = tmp_path / "space", tmp_path / "temporary"
    shutil.copytree(SPACE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    temporary.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    told = {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port), "TMPDIR": str(temporary)}
    log = tmp_path / "log.txt"
    with log.open("w") as file:
        running = subprocess.Popen(
            [sys.executable, "app.py"], cwd=folder, env=os.environ | told, stdout=file, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(600):
            assert running.poll() is None, log.read_text()
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield url
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(30)
    assert not list(temporary.glob("authface-page-*")), "photos of visitors were left"
    logged = log.read_text()
    assert logged.count("Traceback") == logged.count("InvalidPathError: "), logged  # Gradio's, of what it refuses


def test_a_visitor_restores_a_photo(space: str, browser: Any, tmp_path: Path) -> None:
    photo = tmp_path / "aunt.jpg"
    picture = data.astronaut()[::2, ::2].repeat(2, 0).repeat(2, 1)
    Image.fromarray(picture).save(photo, quality=95)
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page, elsewhere = context.new_page(), list[str]()
    page.set_default_timeout(60_000)
    page.on(
        "request",
        lambda asked: elsewhere.append(asked.url) if not asked.url.startswith(("data:", "blob:", space)) else None,
    )
    page.goto(space)
    page.get_by_text("Your photo is sent to this Space's computer").wait_for()
    page.locator("#file input[type=file]").set_input_files(photo)
    page.get_by_text("1 face found").wait_for()
    page.locator("#go:not([disabled])").click()
    page.get_by_text("1 face restored, 512 x 512 px").wait_for()
    if shown := os.environ.get("AUTHFACE_SCREENSHOTS"):
        page.wait_for_timeout(1500)
        page.screenshot(path=Path(shown) / "space.png")
    with page.expect_download() as waiting:
        page.locator("#download").click()
    made = np.asarray(Image.open(waiting.value.path()))
    before = np.asarray(Image.open(photo))
    assert made.shape == before.shape and (made != before).any()
    context.close()
    assert elsewhere == [], "the page loads something from elsewhere"


def test_the_hub_may_frame_it_and_its_proxy_names_the_address(space: str) -> None:
    proxied = {"Host": "me-authface.hf.space", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "me-authface.hf.space"}
    answer = httpx.get(space, headers=proxied)
    assert answer.status_code == 200
    assert not {"x-frame-options", "content-security-policy"} & set(answer.headers)
    assert httpx.get(f"{space}config", headers=proxied).json()["root"] == "https://me-authface.hf.space"


def test_visitors_open_no_files_of_the_space(space: str) -> None:
    assert "it was not uploaded by a user" in opened_by(space, str(SPACE / "README.md"))


def test_its_metadata_are_those_that_the_hub_takes() -> None:
    import gradio

    _, front, text = (SPACE / "README.md").read_text("utf-8").split("---\n", 2)
    told = yaml.safe_load(front)
    assert told["sdk"] == "gradio" and told["app_file"] == "app.py" and (SPACE / told["app_file"]).is_file()
    assert {told["colorFrom"], told["colorTo"]} <= COLOURS and len(told["short_description"]) <= 60
    assert "research, not for commercial use" in text.replace("\n", " ")
    (needed,) = [Requirement(line) for line in (SPACE / "requirements.txt").read_text("utf-8").splitlines()]
    assert needed.name == "authface" and needed.extras == {"app"} and needed.specifier.contains(__version__)
    extra = next(Requirement(line) for line in _requires() if "extra" in line and "gradio" in line and "app" in line)
    assert extra.specifier.contains(told["sdk_version"]) and gradio.__version__ == told["sdk_version"]


def _requires() -> list[str]:
    from importlib.metadata import requires

    return requires("authface") or []
