"""The web page in a real browser: a real upload, faces chosen, a restored file with its metadata; nothing leaves."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from skimage import data

from authface import Restorer
from authface.errors import UsageError
from authface.faces.identity import usual_products
from authface.restore.app import server as app_server
from authface.restore.app.cards import face_cards
from authface.restore.app.workspace import Workspace, face_choices, faces_text
from authface.restore.queue import RestoreQueue
from authface.web import local
from tests.conftest import PATIENCE, authface, heed_hangups
from tests.pages import opened_by
from tests.restore.app.conftest import TOKEN, drop, serving

HOSTILE = "<img src=x onerror=alert(1)> & 'aunt'.jpg"


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Where this process connects to, besides itself."""
    made: list[Any] = []
    connect = socket.socket.connect

    def noted(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in {"127.0.0.1", "::1"}:
            made.append(address)
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", noted)
    return made


def click(picture: Any, x: float, y: float) -> None:
    """Click at this share of its width and height, once it is drawn and no longer moves: a busy page is laid out."""
    picture.evaluate("picture => picture.decode()")
    before = None
    while (box := picture.bounding_box()) != before:
        before = box
        picture.page.wait_for_timeout(200)
    picture.click(position={"x": x * box["width"], "y": y * box["height"]})


def test_a_photo_goes_in_and_a_restored_one_comes_out(
    restorer: Restorer, scan: Path, visit: Callable[[str], Any], connections: list[Any], tmp_path: Path
) -> None:
    with serving(restorer) as url:
        temporary = Path(os.environ["GRADIO_TEMP_DIR"])
        page = visit(url)
        assert page.locator("#go").is_disabled()
        drop(page, scan)
        page.get_by_text("2 faces found").wait_for()
        page.wait_for_function("document.querySelectorAll('#chosen input:checked').length === 2")
        click(page.locator("#photo img"), 0.29, 0.4)  # the left, larger face
        page.wait_for_function("document.querySelectorAll('#chosen input:checked').length === 1")
        page.get_by_label("Fast").check()
        page.locator("#go").click()
        page.get_by_text("1 face restored, 580 x 300 px").wait_for()
        page.wait_for_function("document.querySelectorAll('#cards figure').length === 1")
        card = page.locator("#cards figure").inner_text()
        assert "Face 2" in card and re.search(r"Likeness\s+-?\d\.\d{3}", card)
        assert "1 not chosen" in page.locator("#cards").inner_text()
        page.wait_for_function("document.querySelectorAll('#slider img').length === 2")
        with page.expect_download() as started:
            page.locator("#download").click()
        assert started.value.suggested_filename == "aunts.restored.jpg"
        started.value.save_as(tmp_path / "got.jpg")
        assert list(temporary.rglob("*.jpg"))
        page.locator("#file").get_by_label("Clear").click()
        page.locator("#empty").wait_for()
        assert list(temporary.rglob("*.jpg")) == [], "a photo's files go with it"
    assert not temporary.exists()
    expected = restorer.with_settings(preset="fast").restore(scan, only=[1])
    assert (tmp_path / "got.jpg").read_bytes() == expected.encoded(".jpg")
    assert Image.open(tmp_path / "got.jpg").getexif()[0x010F] == "Scanner"
    assert connections == []


def test_what_cannot_be_done_is_one_line_on_the_page(
    restorer: Restorer, visit: Callable[[str], Any], tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    Image.new("RGB", (2000, 1500)).save(tmp_path / "large.png")
    (tmp_path / "heavy.png").write_bytes(np.random.default_rng(0).bytes(2_000_000))
    Image.fromarray(data.coffee()).save(tmp_path / HOSTILE)
    with serving(restorer, megabytes=1, megapixels=2) as url:
        page = visit(url)
        for name, said in (
            ("broken.jpg", "This file cannot be used: not a photo in a supported format"),
            ("large.png", "2000 x 1500 is 3 megapixels, the limit is 2: make it smaller"),
            ("heavy.png", 'exceed the maximum allowed size of 1.0 Mb: "heavy.png"'),
        ):
            drop(page, tmp_path / name)
            page.get_by_text(said).first.wait_for()
            page.reload()
            page.wait_for_selector("#go")
        drop(page, tmp_path / HOSTILE)
        page.get_by_text("no face found").wait_for()
        assert page.locator("#go").is_disabled() and page.locator("img[src=x]").count() == 0


def test_work_stops_at_the_next_step(restorer: Restorer, scan: Path, visit: Callable[[str], Any]) -> None:
    with serving(restorer.with_settings(steps=1000)) as url:
        page = visit(url)
        drop(page, scan)
        page.get_by_text("2 faces found").wait_for()
        page.locator("#go").click()
        page.locator("#stop").wait_for()
        page.get_by_text("steps").first.wait_for()
        page.locator("#stop").click()
        page.get_by_text(re.compile(r"stopped after \d+ of 1000 steps: nothing was changed")).wait_for()
        page.locator("#go").wait_for()


def ask(url: str, path: str = "", **headers: str) -> tuple[int, dict[str, str]]:
    answer = httpx.get(url + path, headers=headers)
    return answer.status_code, dict(answer.headers)


def test_a_missed_face_is_marked_by_two_clicks(restorer: Restorer, scan: Path, visit: Callable[[str], Any]) -> None:
    with serving(restorer) as url:
        page = visit(url)
        drop(page, scan)
        page.get_by_text("2 faces found").wait_for()
        page.get_by_label("Mark a face that was missed").check()
        for x, y in ((0.42, 0.55), (0.56, 0.95)):
            click(page.locator("#photo img"), x, y)
            page.wait_for_timeout(500)
        page.get_by_text("3 faces found").wait_for()
        page.wait_for_function("document.querySelectorAll('#chosen input:checked').length === 3")
        page.locator("#go").click()
        page.get_by_text("3 faces restored, 580 x 300 px").wait_for()


def test_only_its_own_page_is_answered(restorer: Restorer) -> None:
    with serving(restorer) as url:
        code, headers = ask(url)
        assert code == 200 and "default-src 'self'" in headers["content-security-policy"]
        assert ask(url.removesuffix(f"{TOKEN}/"))[0] == 404
        assert ask(url, host="evil.test")[0] == 403
        assert ask(url, "config", origin="http://evil.test")[0] == 403
        assert ask(url, "gradio_api/file=/etc/passwd")[0] == 403


def test_files_that_nobody_uploaded_are_not_opened(restorer: Restorer, scan: Path) -> None:
    with serving(restorer) as url:
        temporary = Path(os.environ["GRADIO_TEMP_DIR"])
        for path in (scan, Path("/etc/passwd"), Path("/dev/zero")):
            assert "it was not uploaded by a user" in opened_by(url, str(path))
        assert [path for path in temporary.rglob("*") if path.is_file()] == []
        files = {"files": (scan.name, scan.read_bytes())}
        (sent,) = httpx.post(f"{url}gradio_api/upload", files=files, timeout=PATIENCE).json()
        assert "2 faces found" in opened_by(url, sent)


def test_a_second_page_leaves_nothing_either(workspace: Workspace, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for _ in range(2):
        with app_server.page(workspace.queue, TOKEN, "127.0.0.1"):
            assert list(tmp_path.glob("authface-page-*"))
        assert list(tmp_path.iterdir()) == []
        monkeypatch.setattr("gradio.routes.DEFAULT_TEMP_DIR", str(tmp_path / "first"))  # whose page imported Gradio


def test_a_photo_s_files_go_with_it(workspace: Workspace, scan: Path, tmp_path: Path) -> None:
    upload = workspace.open(scan)
    first, second = face_choices(upload)
    assert first[0].startswith("1 · ") and first[0].endswith(" px high") and (first[1], second[1]) == (0, 1)
    marks = [np.asarray(Image.open(workspace.with_boxes(upload, chosen))).astype(int) for chosen in ([0, 1], [1])]
    x0, y0, _, y1 = (round(value) for value in upload.faces[0].box)
    assert np.abs(marks[0] - marks[1])[y0:y1, x0 - 3 : x0 + 4].max() > 60
    assert np.abs(marks[0] - marks[1])[:, 400:].max() < 30
    workspace.forget(upload)
    assert list(tmp_path.iterdir()) == []


def test_a_place_is_the_smallest_face_around_it(workspace: Workspace, scan: Path) -> None:
    upload = workspace.open(scan)
    x0, y0, x1, y1 = upload.faces[1].box
    assert upload.face_at((x0 + x1) / 2, (y0 + y1) / 2) == 1
    assert upload.face_at(2, 2) is None
    assert "Click a face" in faces_text(upload, workspace.restorer.settings)


def test_cards_say_why_a_face_stays(restorer: Restorer, workspace: Workspace, scan: Path) -> None:
    made = restorer.with_settings(min_identity=1.0).restore(scan, only=[0])
    html = face_cards(made.faces, "dlib")
    assert "every attempt changed the person too much" in html and "<dt>Attempts</dt><dd>3</dd>" in html
    assert f"strangers have about {usual_products('dlib')[0]:.2f}" in html


def test_a_port_that_is_taken_is_one_line() -> None:
    with local.listen("127.0.0.1", 0, app_server.INSTEAD) as waiting, pytest.raises(UsageError, match="--port 0"):
        local.listen("127.0.0.1", waiting.getsockname()[1], app_server.INSTEAD)


def test_without_the_extra_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    done = authface("app", "--no-browser", "--model", "identity")
    assert done.returncode == 2
    assert done.stderr == "authface: authface app needs Gradio: pip install 'authface[app]'\n"


def test_a_fault_of_ours_is_no_missing_package(restorer: Restorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "authface.restore.app.page", None)
    with (
        RestoreQueue([restorer]) as queue,
        pytest.raises(ImportError),
        app_server.page(queue, "token", "127.0.0.1"),
    ):
        pass


def test_wrong_wishes_are_one_line(tmp_path: Path) -> None:
    for words, said in (
        (["--model", str(tmp_path)], "is no model folder"),
        (["--host", "192.0.2.1", "--model", "identity"], "cannot listen on 192.0.2.1 port 0"),
        (["-O", "restore.fidelity=2"], "-O restore.fidelity=2: "),
    ):
        done = authface("app", "--no-browser", "--port", "0", *words)
        assert done.returncode == 2 and said in done.stderr.splitlines()[-1], done.stderr


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_the_command_serves_and_cleans_up_when_it_is_ended(how: signal.Signals, tmp_path: Path) -> None:
    code = "from authface.cli import main; import sys; sys.argv[0] = 'authface'; main()"
    words = ["app", "--no-browser", "--port", "0", "--model", "identity", "--json"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed_hangups,
    ) as running:  # fmt: skip
        assert running.stderr is not None
        line = next(line for line in running.stderr if line.startswith("app: open http://127.0.0.1:"))
        assert httpx.get(line.split()[2], timeout=PATIENCE).status_code == 200
        assert list(tmp_path.glob("authface-page-*"))
        running.send_signal(how)
        out, _ = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0 and json.loads(out)["url"] == line.split()[2]
    assert list(tmp_path.glob("authface-page-*")) == []
