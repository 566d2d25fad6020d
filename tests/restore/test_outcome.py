"""When outcomes are there; and what a second run reads: nothing that was not written to since the first.

A photo is read again where anybody may have written to it, whatever its size and time of change say.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from authface.console import Console
from authface.imaging import decode
from authface.restore import outcome
from authface.restore.inputs import RestoreJob
from authface.restore.outcome import is_as_made, is_as_read, traits_of
from authface.restore.run import jobs_of, make_outcomes
from authface.restore.session import Request, Session
from authface.restore.settings import RestoreSettings
from authface.store.restore_line import Line

Command = Callable[..., tuple[int, str, str]]

by_times = pytest.mark.skipif(sys.platform == "win32", reason="nothing is told from times there")


@by_times
def test_a_rerun_reads_no_photo_that_nobody_wrote_to(
    tmp_path: Path, authface: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor its result. One that was edited is made again, though its size and time are those of before."""
    monkeypatch.setattr(outcome, "SETTLED", -60.0)  # they were written just now
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.bmp")
    words = (
        folder,
        "-o",
        out,
        "--aligned",
        "--model",
        "identity",
        "-O",
        "restore.guard=false",
        "-O",
        "restore.report=false",
        "--json",
    )
    assert authface(*words)[0] == 0
    read: list[str] = []
    read_bytes, digest_of = decode.read_bytes, outcome.digest_of
    monkeypatch.setattr(
        decode, "read_bytes", lambda path, **limit: (read.append(path.name), read_bytes(path, **limit))[1]
    )
    monkeypatch.setattr(outcome, "digest_of", lambda path: (read.append(path.name), digest_of(path))[1])
    code, said, err = authface(*words)
    assert code == 0 and json.loads(said)["done_before"] == 3 and read == []
    edited, facts = folder / "1.bmp", (folder / "1.bmp").stat()
    edited.write_bytes(edited.read_bytes()[:-3] + b"abc")
    os.utime(edited, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    code, said, err = authface(*words)
    assert code == 0, err
    assert json.loads(said)["done_before"] == 2 and set(read) == {"1.bmp", "1.png"}
    assert np.array_equal(np.asarray(Image.open(out / "1.png")), np.asarray(Image.open(edited)))


def test_photos_without_a_face_wait_for_no_batch(tmp_path: Path) -> None:
    """Of a folder of them the time left could not be told before so many megapixels of them were read."""
    for number in range(6):
        Image.new("RGB", (64, 64), (number, 99, 180)).save(tmp_path / f"{number}.png")
    session = Session(Request(RestoreSettings(model="identity", guard=False, batch=16)), Console())
    done: list[str] = []
    before: list[int] = []

    def as_asked() -> Iterator[RestoreJob]:
        for job in jobs_of([tmp_path], tmp_path / "out", "same"):
            before.append(len(done))
            yield job

    make_outcomes(as_asked(), session, lambda job, content: False, lambda outcome: done.append(outcome.job.name))
    assert before[-1] > 0 and done == [f"{number}.png" for number in range(6)]


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


@by_times
@pytest.mark.parametrize("change", [rewrite, put_in_place, Path.unlink, lambda path: path.write_bytes(b"longer ones")])
def test_a_photo_that_was_written_to_is_another(photo: Path, change: Callable[[Path], object]) -> None:
    line = line_of(photo)
    assert is_as_read(photo, line)
    time.sleep(0.02)  # the system's clock goes in steps of up to 10 ms: `SETTLED` is for that
    change(photo)
    assert not is_as_read(photo, line)


@by_times
def test_a_copy_and_a_line_of_before_are_read(photo: Path, tmp_path: Path) -> None:
    line = line_of(photo)
    copy = Path(shutil.copy2(photo, tmp_path / "copy.png"))
    assert not is_as_read(copy, line) and not is_as_read(copy, replace(line, source=str(copy)))
    assert not is_as_read(photo, replace(line, traits=()))


@by_times
def test_nothing_is_kept_of_a_file_that_was_written_just_now_or_in_the_future(
    photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    assert traits_of(photo) == ()
    monkeypatch.setattr(outcome, "_KEEPS_CTIME", False)
    monkeypatch.setattr(outcome, "SETTLED", -60.0)
    assert traits_of(photo) == () == traits_of(photo.with_name("none"))


@by_times
def test_a_result_is_as_made_if_it_was_written_right_after_its_line(photo: Path) -> None:
    at = photo.stat().st_ctime

    def made(seconds: float) -> str:
        return datetime.fromtimestamp(at + seconds, UTC).isoformat()

    assert is_as_made(photo, made(-1), 6)
    assert not is_as_made(photo, made(-1), 7), "another size"
    assert not is_as_made(photo, made(-3600), 6), "written to an hour later"
    assert not is_as_made(photo, made(1), 6), "older than its line: a kill came before the new one"
    assert not is_as_made(photo, "no time", 6)
