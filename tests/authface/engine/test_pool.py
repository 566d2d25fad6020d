"""Worker processes: the same rows in the same order, and an input that kills its process costs itself only."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from authface.engine.pool import processes, seats
from authface.errors import AuthfaceError

WORK = """
import os, signal, time
from dataclasses import dataclass
from authface.errors import AuthfaceError
from authface.engine.workers import Step
from authface.store.photoset import Provenance
from authface.records import Photo

@dataclass
class Work(Step):
    batch_size: int = 2
    broken: bool = False
    provenance = Provenance("work", 1, {}, {})

    def open(self):
        if self.broken:
            raise AuthfaceError("the weights are missing: pull them")

    def load(self, row):
        if row == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.02 * (row % 3))
        return row

    def step(self, batch):
        return batch

    def save(self, row, result):
        return [Photo(id=str(result), source=str(os.getpid()), source_id="", file="")]

    def failed(self, row, reason, detail):
        return [Photo(id=str(row), source="", source_id="", file="", status="failed", reason=reason, detail=detail)]
"""


@pytest.fixture
def work_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type:
    (tmp_path / "work_for_workers.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "work_for_workers", raising=False)
    return __import__("work_for_workers").Work


def test_processes_share_the_rows_and_keep_their_order(work_type: type) -> None:
    chunks = [[1, 2, 3], [4], [], [5, 6]] * 3
    results = list(processes(work_type(), iter(chunks), seats=seats(2)))
    assert [count for count, _ in results] == [len(chunk) for chunk in chunks]
    assert [[int(row.id) for row in rows] for _, rows in results] == chunks
    assert len({row.source for _, rows in results for row in rows}) == 2


def test_an_input_that_kills_its_process_fails_alone(work_type: type) -> None:
    chunks = [[1, 2], [12, 13, 14], [15], [16]]
    rows = [row for _, rows in processes(work_type(), iter(chunks), seats=seats(2)) for row in rows]
    assert [int(row.id) for row in rows] == [1, 2, 12, 13, 14, 15, 16]
    assert [row.reason for row in rows if row.status == "failed"] == ["crashed"]


def test_missing_weights_reach_the_caller(work_type: type) -> None:
    with pytest.raises(AuthfaceError, match="weights are missing"):
        list(processes(work_type(broken=True), iter([[1], [2]]), seats=seats(2)))
