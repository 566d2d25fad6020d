"""Several tabs at one page: photos, work and waiting of one do not touch the others'."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from authface import Restorer
from authface.errors import AuthfaceError, ImageError
from authface.restore.api import Progress
from authface.restore.app.workspace import Workspace, waiting_text
from authface.restore.guard import IdentityGuard
from authface.restore.queue import Limits, QueueLate, QueueStopped, RestoreQueue
from tests.conftest import PATIENCE
from tests.restore.app.conftest import drop, serving


class Endless:
    """Work that ends only when it is stopped."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.ended = threading.Event()

    def restore(self, progress: Progress) -> Any:
        self.begun.set()
        try:
            while True:
                progress(1, 1000)
                time.sleep(0.02)
        finally:
            self.ended.set()


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> Endless:
    work = Endless()
    monkeypatch.setattr(Restorer, "restore", lambda _, picture, *, progress, **named: work.restore(progress))
    return work


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def start(page: Any, photo: Path) -> None:
    drop(page, photo)
    page.get_by_text("2 faces found").wait_for()
    page.locator("#go").click()


def test_a_cleared_photo_stays_in_another_tab(restorer: Restorer, scan: Path, visit: Callable[[str], Any]) -> None:
    with serving(restorer) as url:
        temporary = Path(os.environ["GRADIO_TEMP_DIR"])
        one, other = visit(url), visit(url)
        for page in (one, other):
            drop(page, scan)
            page.get_by_text("2 faces found").wait_for()
        one.locator("#file").get_by_label("Clear").click()
        one.locator("#empty").wait_for()
        other.locator("#go").click()
        other.get_by_text("2 faces restored, 580 x 300 px").wait_for()
        other.locator("#file").get_by_label("Clear").click()
        other.locator("#empty").wait_for()
        assert list(temporary.rglob("*.jpg")) == [], "the last one takes the upload with it"


def test_work_ends_with_its_tab_and_others_see_who_is_before(
    restorer: Restorer, scan: Path, visit: Callable[[str], Any], endless: Endless
) -> None:
    with serving(restorer) as url:
        first, second, third = visit(url), visit(url), visit(url)
        start(first, scan)
        assert endless.begun.wait(PATIENCE)
        drop(second, scan)
        second.get_by_text("Waiting: 1 photo is before yours").first.wait_for()
        drop(third, scan)
        third.get_by_text("Waiting: 2 photos are before yours").first.wait_for()
        assert not endless.ended.is_set()
        first.close()
        assert endless.ended.wait(PATIENCE), "nobody waits for it any more"
        for page in (second, third):
            page.get_by_text("2 faces found").wait_for()
            # What shows the result is loaded now: a page whose server ends before that was done tells of an error.
            page.wait_for_function("[...document.querySelectorAll('link[rel=stylesheet]')].every(link => link.sheet)")


def test_a_tab_that_waits_gives_up_its_place(
    restorer: Restorer, scan: Path, visit: Callable[[str], Any], endless: Endless
) -> None:
    with serving(restorer) as url:
        temporary = Path(os.environ["GRADIO_TEMP_DIR"])
        first, second, third = visit(url), visit(url), visit(url)
        start(first, scan)
        assert endless.begun.wait(PATIENCE)
        drop(second, scan)
        second.get_by_text("Waiting: 1 photo is before yours").first.wait_for()
        drop(third, scan)
        third.get_by_text("Waiting: 2 photos are before yours").first.wait_for()
        second.close()
        third.get_by_text("Waiting: 1 photo is before yours").first.wait_for()
        until(lambda: len(list(temporary.glob("photo-*"))) == 2)  # its photo goes with it
        assert not endless.ended.is_set()


def in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[AuthfaceError]]:
    raised: list[AuthfaceError] = []

    def run() -> None:
        try:
            work()
        except AuthfaceError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, raised


@pytest.fixture
def held() -> Iterator[tuple[RestoreQueue, threading.Event]]:
    """A queue whose only worker is busy until the event is set."""
    free = threading.Event()
    with RestoreQueue([Restorer("identity")]) as queue:
        with queue.enter() as place:
            place.submit(lambda _: free.wait(PATIENCE))
        yield queue, free
        free.set()


def test_a_place_moves_up(held: tuple[RestoreQueue, threading.Event]) -> None:
    queue, free = held
    said: list[tuple[str, int]] = []
    with queue.enter() as second, queue.enter() as third:
        works = [place.submit(lambda _: None) for place in (second, third)]
        threads = [
            in_thread(lambda name=name, place=place, work=work: place.result(work, lambda n: said.append((name, n))))[0]
            for name, place, work in zip("bc", (second, third), works, strict=True)
        ]
        until(lambda: len(said) == 2)
        assert sorted(said) == [("b", 1), ("c", 2)]
        second.stop()
        threads[0].join(PATIENCE)
        until(lambda: ("c", 1) in said)
        free.set()
        threads[1].join(PATIENCE)
    assert [n for name, n in said if name == "c"][:2] == [2, 1]
    assert waiting_text(1) == "Waiting: 1 photo is before yours"


@pytest.mark.parametrize("step", ["open", "mark"])
def test_all_that_a_tab_waits_for_ends_with_it(
    held: tuple[RestoreQueue, threading.Event], scan: Path, tmp_path: Path, step: str
) -> None:
    queue, free = held
    workspace = Workspace(queue, tmp_path)
    if step == "mark":
        free.set()
        upload = workspace.open(scan, "a")
        free.clear()
        with queue.enter() as place:
            begun = threading.Event()
            place.submit(lambda _: (begun.set(), free.wait(PATIENCE)))
            assert begun.wait(PATIENCE)
    told = threading.Event()
    work = {
        "open": lambda: workspace.open(scan, "a", lambda _: told.set()),
        "mark": lambda: workspace.mark(upload, (10, 10), (200, 200), lambda _: told.set()),
    }[step]
    thread, raised = in_thread(work)
    assert told.wait(PATIENCE)
    workspace.leave("of another")
    assert queue.counts() == (1, 1)
    workspace.leave("a")
    thread.join(PATIENCE)
    assert isinstance(raised[0], QueueStopped) and queue.counts() == (1, 0)
    assert len(list(tmp_path.glob("photo-*"))) == (step == "mark")


def test_the_same_upload_twice_is_two_files(workspace: Workspace, scan: Path, tmp_path: Path) -> None:
    came = tmp_path / "by-hash" / scan.name
    came.parent.mkdir()

    def send() -> None:  # as Gradio stores an upload: a new file in the place of the same bytes'
        Path(shutil.copy(scan, tmp_path / "part")).replace(came)

    send()
    one = workspace.open(came, "a")
    send()
    workspace.forget(one)
    assert came.exists(), "it is another tab's, which has not asked for it yet"
    other = workspace.open(came, "b")
    assert other.file.read_bytes() == scan.read_bytes()
    workspace.forget(other)
    assert not came.exists() and not other.folder.exists()
    for gone in (lambda: other.file, other.small, lambda: workspace.open(came)):
        with pytest.raises(AuthfaceError, match="choose it again"):
            gone()
    assert list(tmp_path.glob("photo-*")) == []


def test_a_photo_that_cannot_be_used_leaves_nothing(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    with pytest.raises(ImageError):
        workspace.open(tmp_path / "bad.jpg")
    assert list(tmp_path.iterdir()) == []


def test_work_stops_between_its_faces(workspace: Workspace, scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the model tells of its steps: this one tells nothing."""
    upload, own, measured = workspace.open(scan), IdentityGuard.measure, list[Any]()

    def measure(*given: Any) -> Any:
        measured.append(given)
        workspace.stop(upload)
        return own(*given)

    monkeypatch.setattr(IdentityGuard, "measure", measure)
    with pytest.raises(QueueStopped, match="stopped midway: nothing was changed"):
        workspace.restore(upload, [0, 1], preset="quality", fidelity=0.5, upscale=1, min_identity=0)
    assert len(measured) == 1


def test_a_deleted_photo_is_not_worked_on(workspace: Workspace, scan: Path, endless: Endless) -> None:
    upload = workspace.open(scan)
    asked = {"preset": "quality", "fidelity": 0.5, "upscale": 1, "min_identity": 0}
    thread, raised = in_thread(lambda: workspace.restore(upload, [0], **asked))
    assert endless.begun.wait(PATIENCE)
    workspace.forget(upload)
    thread.join(PATIENCE)
    assert isinstance(raised[0], QueueStopped) and not upload.folder.exists()


def size_of(thing: object) -> int:
    """Bytes of the pixels that a page's state holds."""
    held = list(vars(thing).values())
    for face in getattr(thing, "faces", ()):
        held += vars(face).values()
    return sum(value.nbytes for value in held if isinstance(value, np.ndarray))


def test_a_photo_that_runs_or_waits_for_too_long_is_stopped(
    workspace: Workspace, scan: Path, tmp_path: Path, endless: Endless
) -> None:
    upload, wish = workspace.open(scan), {"preset": "quality", "fidelity": 0.5, "upscale": 1, "min_identity": 0}
    with RestoreQueue([Restorer("identity")], Limits(seconds=0.5)) as queue:
        hasty = Workspace(queue, tmp_path)
        for thread, raised in [in_thread(lambda: hasty.restore(upload, [0, 1], **wish)) for _ in range(2)]:
            thread.join(PATIENCE)
            assert isinstance(raised[0], QueueLate) and "not done in 0.5 s, which is the limit" in str(raised[0])
        assert endless.ended.is_set() and queue.counts() == (0, 0)


def test_a_photo_is_not_kept_in_memory(workspace: Workspace, scan: Path) -> None:
    upload = workspace.open(scan)
    marked = workspace.mark(upload, (243, 165), (325, 285))
    assert len(marked.fit) == 3
    assert (size_of(upload), size_of(marked)) == (0, 0)


def test_a_photo_that_waits_is_not_decoded(
    held: tuple[RestoreQueue, threading.Event], scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, free = held
    decoded = []
    opened = Image.open
    monkeypatch.setattr(Image, "open", lambda *given, **named: decoded.append(1) or opened(*given, **named))
    told = threading.Event()
    thread, raised = in_thread(lambda: Workspace(queue, tmp_path).open(scan, "a", lambda _: told.set()))
    assert told.wait(PATIENCE) and not decoded
    free.set()
    thread.join(PATIENCE)
    assert not raised and decoded
