"""When outcomes are there; and what a second run reads: nothing that was not written to since the first."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from authface.console import Console
from authface.imaging import decode
from authface.restore import outcome
from authface.restore.inputs import RestoreJob
from authface.restore.run import jobs_of, make_outcomes
from authface.restore.session import Request, Session
from authface.restore.settings import RestoreSettings

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is told from times there")
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
