"""What a second run reads: nothing that was not written to since the first."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from authface.imaging import decode
from authface.restore import outcome
from authface.store import results

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is told from times there")
def test_a_rerun_reads_no_photo_that_nobody_wrote_to(
    tmp_path: Path, authface: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor its result. One that was edited is made again, though its size and time are those of before."""
    monkeypatch.setattr(results, "SETTLED", -60.0)  # they were written just now
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
