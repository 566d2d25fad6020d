"""A photo is read again where anybody may have written to it, whatever its size and time of change say."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from authface.restore import outcome
from authface.restore.outcome import is_as_made, is_as_read, traits_of
from authface.store.restore_line import Line

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nothing is told from times there")


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file; those of this test count as old."""
    monkeypatch.setattr(outcome, "SETTLED", -60.0)
    path = tmp_path / "photo.png"
    path.write_bytes(b"pixels")
    return path


def line_of(path: Path) -> Line:
    return Line(
        target="a.png", source=str(path), content="ab", fingerprint="f", made="", status="restored",
        traits=traits_of(path),
    )  # fmt: skip


def rewrite(path: Path) -> None:
    """Other bytes of the same number, and the time of before: what `touch -r` and tools that keep times leave."""
    facts = path.stat()
    path.write_bytes(b"others")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def put_in_place(path: Path) -> None:
    """Another file of the same size and time under the same name."""
    facts = path.stat()
    path.with_name("new").write_bytes(b"others")
    os.utime(path.with_name("new"), ns=(facts.st_atime_ns, facts.st_mtime_ns))
    path.with_name("new").replace(path)


@pytest.mark.parametrize("change", [rewrite, put_in_place, Path.unlink, lambda path: path.write_bytes(b"longer ones")])
def test_a_photo_that_was_written_to_is_another(photo: Path, change: Callable[[Path], object]) -> None:
    line = line_of(photo)
    assert is_as_read(photo, line)
    time.sleep(0.02)  # the system's clock goes in steps of up to 10 ms: `SETTLED` is for that
    change(photo)
    assert not is_as_read(photo, line)


def test_a_copy_and_a_line_of_before_are_read(photo: Path, tmp_path: Path) -> None:
    line = line_of(photo)
    copy = Path(shutil.copy2(photo, tmp_path / "copy.png"))
    assert not is_as_read(copy, line) and not is_as_read(copy, replace(line, source=str(copy)))
    assert not is_as_read(photo, replace(line, traits=()))


def test_nothing_is_kept_of_a_file_that_was_written_just_now_or_in_the_future(
    photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    assert traits_of(photo) == ()
    monkeypatch.setattr(outcome, "_KEEPS_CTIME", False)
    monkeypatch.setattr(outcome, "SETTLED", -60.0)
    assert traits_of(photo) == () == traits_of(photo.with_name("none"))


def test_a_result_is_as_made_if_it_was_written_right_after_its_line(photo: Path) -> None:
    at = photo.stat().st_ctime

    def made(seconds: float) -> str:
        return datetime.fromtimestamp(at + seconds, UTC).isoformat()

    assert is_as_made(photo, made(-1), 6)
    assert not is_as_made(photo, made(-1), 7), "another size"
    assert not is_as_made(photo, made(-3600), 6), "written to an hour later"
    assert not is_as_made(photo, made(1), 6), "older than its line: a kill came before the new one"
    assert not is_as_made(photo, "no time", 6)
