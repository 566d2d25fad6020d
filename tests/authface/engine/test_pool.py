"""Processes of one queue: the same rows, in order or as they are made; a death costs one row at most."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from authface.engine.pool import STARTS, TRIES, Pool, processes, seats
from authface.errors import AuthfaceError, UsageError
from tests.conftest import heed_ctrl_c

WORK = """
import os, signal, time
from dataclasses import dataclass
from pathlib import Path
from authface.errors import UsageError
from authface.engine.workers import Step
from authface.store.photoset import Provenance
from authface.records import Photo

@dataclass
class Work(Step):
    batch_size: int = 1
    broken: str = ""
    deadly: int = -1
    times: int = 1000
    diary: str = ""
    seconds: float = 0
    provenance = Provenance("work", 1, {}, {})

    def note(self, what):
        with open(self.diary, "a") as file:
            file.write(f"{what}\\n")

    def open(self):
        if self.broken == "weights":
            raise UsageError("the weights are missing: pull them")
        if self.broken == "dies":
            self.note("open")
            os.kill(os.getpid(), signal.SIGKILL)

    def step(self, batch):
        if batch == [self.deadly]:
            self.note("begun")
            if Path(self.diary).read_text().count("begun") <= self.times:
                os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds or 0.02 * (batch[0] % 3))
        return batch

    def save(self, row, result):
        return [Photo(id=str(result), source=str(os.getpid()), source_id=os.environ.get("SEAT", ""), file="")]

    def failed(self, row, reason, detail):
        return [Photo(id=str(row), source="", source_id="", file="", status="failed", reason=reason, detail=detail)]
"""
HELD = """
import sys
from authface.engine.pool import Pool, seats
from work_for_workers import Work

if __name__ == "__main__":
    for _, _, rows in Pool(Work(seconds=0.05), seats(2)).spread(iter([[n] for n in range(100000)])):
        print(rows[0].source, flush=True)
"""


@pytest.fixture
def work_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type:
    (tmp_path / "work_for_workers.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "work_for_workers", raising=False)
    return __import__("work_for_workers").Work


def test_processes_share_the_rows_and_keep_their_order(work_type: type) -> None:
    chunks = [[1, 2, 3], [4], [], [5, 6]] * 3 + [[]]
    results = list(processes(work_type(), iter(chunks), seats=seats(2)))
    assert [count for count, _ in results] == [len(chunk) for chunk in chunks]
    assert [[int(row.id) for row in rows] for _, rows in results] == chunks
    assert len({row.source for _, rows in results for row in rows}) == 2


def test_rows_come_as_they_are_made_and_each_process_has_its_seat(work_type: type, tmp_path: Path) -> None:
    """The first row kills its process and is last; the others do not wait for it, though they were with it."""
    work = work_type(deadly=0, times=1, diary=str(tmp_path / "diary"))
    with closing(Pool(work, [{"SEAT": "a"}, {"SEAT": "b"}])) as pool:
        made = list(pool.spread(iter([[0, 1], [2], [3], [4]])))
    assert sorted((chunk, place, int(rows[0].id)) for chunk, place, rows in made) == [
        (0, 0, 0), (0, 1, 1), (1, 0, 2), (2, 0, 3), (3, 0, 4),
    ]  # fmt: skip
    assert all(rows[0].status == "kept" for _, _, rows in made), "the second try did it"
    assert {rows[0].source_id for _, _, rows in made} == {"a", "b"}
    assert len({rows[0].source for _, _, rows in made}) >= 2


def test_an_input_that_kills_its_process_fails_alone_after_its_tries(work_type: type, tmp_path: Path) -> None:
    work = work_type(deadly=13, diary=str(tmp_path / "diary"))
    chunks = [[1, 2], [12, 13, 14], [15], [16]]
    rows = [row for _, rows in processes(work, iter(chunks), seats=seats(2)) for row in rows]
    assert [int(row.id) for row in rows] == [1, 2, 12, 13, 14, 15, 16]
    assert [(row.id, row.reason) for row in rows if row.status == "failed"] == [("13", "crashed")]
    assert (tmp_path / "diary").read_text() == "begun\n" * (1 + TRIES)


def test_missing_weights_reach_the_caller(work_type: type) -> None:
    with pytest.raises(UsageError, match="weights are missing"):
        list(processes(work_type(broken="weights"), iter([[1], [2]]), seats=seats(2)))


def test_processes_that_die_over_their_models_end_the_run(work_type: type, tmp_path: Path) -> None:
    work = work_type(broken="dies", diary=str(tmp_path / "diary"))
    with closing(Pool(work, seats(1))) as pool, pytest.raises(AuthfaceError, match="out of memory"):
        list(pool.spread(iter([[1]])))
    assert (tmp_path / "diary").read_text() == "open\n" * (1 + STARTS)


def test_processes_stay_for_the_next_rows(work_type: type) -> None:
    with closing(Pool(work_type(), seats(2))) as pool:
        first, second = ([rows for _, _, rows in pool.spread(iter([[n] for n in range(6)]))] for _ in range(2))
    assert {rows[0].source for rows in first} == {rows[0].source for rows in second}
    assert sorted(rows[0].id for rows in second) == list("012345")


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def held(work_type: type, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A run that takes long, in a group of processes of its own."""
    (tmp_path / "held.py").write_text(HELD)
    command = [sys.executable, str(tmp_path / "held.py")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    pipe: Any = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True, preexec_fn=heed_ctrl_c
    ) as run:
        yield run
        run.kill()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_run(held: subprocess.Popen[str], number: int) -> None:
    workers = set[int]()
    assert held.stdout is not None and held.stderr is not None
    while len(workers) < 2:
        workers.add(int(held.stdout.readline()))
    if number == signal.SIGINT:
        os.killpg(held.pid, number)  # as a terminal does
    else:
        held.send_signal(number)
    _, said = held.communicate(timeout=120)  # to its end: no process has it open
    for _ in range(600):
        if not any(map(is_there, workers)):
            break
        time.sleep(0.05)
    assert not any(map(is_there, workers))
    assert said.count("Traceback") == (number == signal.SIGINT), said
