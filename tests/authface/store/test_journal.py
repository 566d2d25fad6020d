"""A journal keeps what others append while somebody forgets some of its records."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import filelock
import pytest

from authface.errors import AuthfaceError
from authface.files import place
from authface.review.reviews import Decision
from authface.store import lock
from authface.store.journal import Journal


def decision(name: str) -> Decision:
    return Decision(id=name, verdict="keep")


def test_what_is_appended_while_others_are_dropped_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "review" / "anna.jsonl"
    for name in ("goes", "stays"):
        Journal(path, Decision).append(decision(name))
    late = threading.Thread(target=Journal(path, Decision).append, args=[decision("late")])

    def unwanted(line: Decision) -> bool:
        if line.id == "goes":
            late.start()
            late.join(0.5)  # time enough to append, were it not kept from it
        return line.id == "goes"

    journal = Journal(path, Decision)
    assert journal.drop(unwanted) == 1
    late.join()
    assert [line.id for line in journal.read()[0]] == ["stays", "late"]


def test_another_process_waits_too(tmp_path: Path) -> None:
    path = tmp_path / "anna.jsonl"
    code = (
        "import sys; from pathlib import Path; from authface.store.journal import Journal;"
        "from authface.review.reviews import Decision; journal = Journal(Path(sys.argv[1]), Decision);"
        "print('ready', flush=True); journal.append(Decision(id='late', verdict='keep'))"
    )
    with lock.file_lock(path):
        other = subprocess.Popen([sys.executable, "-P", "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None and other.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.5)
        assert not path.exists()
    assert other.wait(30) == 0 and [line.id for line in Journal(path, Decision).read()[0]] == ["late"]
    other.stdout.close()


def test_one_that_is_never_let_go_is_an_error_of_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "FILE_SECONDS", 0.1)
    with (
        filelock.FileLock(tmp_path / ".anna.jsonl.lock"),
        pytest.raises(AuthfaceError, match=r"anna\.jsonl has been in use") as caught,
    ):
        Journal(tmp_path / "anna.jsonl", Decision).append(decision("a"))
    assert "\n" not in str(caught.value)


def test_an_object_store_has_the_same_records() -> None:
    journal = Journal(place("memory://journal/anna.jsonl"), Decision)
    assert journal.drop(lambda _: True) == 0
    for name in ("goes", "stays"):
        journal.append(decision(name))
    assert journal.drop(lambda line: line.id == "goes") == 1
    assert journal.read() == ([decision("stays")], 0)
