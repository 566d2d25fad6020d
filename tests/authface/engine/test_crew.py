"""Workers asked row by row, in any order, from any thread: answers to whoever asked, and no wait in vain."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from authface.engine.crew import actors_asked, processes_asked
from authface.engine.pool import TRIES, seats
from authface.engine.ray import Cluster
from authface.errors import AuthfaceError, UsageError

WORK = """
import os, threading, time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from authface.engine.workers import Work
from authface.errors import UsageError

@dataclass(frozen=True)
class Doubled(Work):
    diary: Path
    deadly: int = -1
    times: int = 99
    broken: bool = False

    def start(self):
        if self.broken:
            raise UsageError("the weights are missing: pull them")
        return partial(_double, self)

    def failed(self, row: int, reason: str, detail: str) -> list[int]:
        return [-row]

    def deaths(self) -> int:
        return len(self.diary.read_text()) if self.diary.exists() else 0


def _double(work: Doubled, rows, keep) -> None:
    for place, row in enumerate(rows):
        if row == work.deadly and work.deaths() < work.times:
            with work.diary.open("a") as file:
                file.write("x")
            os._exit(9)
        if row == 1000:
            threading.Event().wait(600)
        while row == 2000 and not work.diary.exists():
            time.sleep(0.01)
        keep(place, [2 * row])
"""
"""Twice the number; `deadly` ends the process, each time a letter in `diary`, at most `times`; 1000 takes long, 2000
until there is a `diary`."""


@pytest.fixture
def doubled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type:
    (tmp_path / "work_of_a_crew.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delitem(sys.modules, "work_of_a_crew", raising=False)
    return __import__("work_of_a_crew").Doubled


def test_answers_reach_who_asked_from_any_thread(doubled: type, tmp_path: Path) -> None:
    with processes_asked(doubled(tmp_path / "diary"), seats(2)) as crew, ThreadPoolExecutor(4) as threads:
        assert not multiprocessing.active_children(), "none before the first question"
        assert [crew.ask(row)() for row in (3, 1)] == [[6], [2]], "also after a pause, with nothing under way"
        asked = [crew.ask(row) for row in range(20)]
        others = threads.map(lambda row: crew.ask(row)(), range(100, 140))
        assert [answer() for answer in reversed(asked)] == [[2 * row] for row in reversed(range(20))]
        assert list(others) == [[2 * row] for row in range(100, 140)]
        assert crew.size == len(multiprocessing.active_children()) == 2
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("times", "answer"), [(1, 14), (99, -7)])
def test_a_death_is_tried_again_and_costs_its_row_alone(doubled: type, tmp_path: Path, times: int, answer: int) -> None:
    work = doubled(tmp_path / "diary", deadly=7, times=times)
    with processes_asked(work, seats(2)) as crew:
        assert [answer() for answer in [crew.ask(row) for row in (6, 7, 8, 9)]] == [[12], [answer], [16], [18]]
    assert work.deaths() == min(times, 1 + TRIES)


def test_chunks_and_then_questions_are_done_by_the_same_processes(doubled: type, tmp_path: Path) -> None:
    """One of them dies over a row of a chunk; the others of the chunk are not lost."""
    with processes_asked(doubled(tmp_path / "diary", deadly=7, times=1), seats(2)) as crew:
        made = list(crew.spread(iter([[0, 1], [6, 7, 8], [2], [9]])))
        assert sorted(rows for _, _, rows in made) == [[2 * row] for row in (0, 1, 2, 6, 7, 8, 9)]
        before = {process.pid for process in multiprocessing.active_children()}
        assert [crew.ask(row)() for row in range(6)] == [[2 * row] for row in range(6)]
        assert {process.pid for process in multiprocessing.active_children()} == before and len(before) == 2


def test_what_ends_the_work_reaches_all_who_wait_and_all_who_ask_later(doubled: type, tmp_path: Path) -> None:
    with processes_asked(doubled(tmp_path / "diary", broken=True), seats(2)) as crew:
        asked = [crew.ask(row) for row in range(6)]
        for answer in asked:
            with pytest.raises(AuthfaceError, match="weights are missing"):
                answer()
        with pytest.raises(AuthfaceError, match="weights are missing"):
            crew.ask(7)
    assert not multiprocessing.active_children()


def test_the_end_comes_at_once_and_to_who_waits(doubled: type, tmp_path: Path) -> None:
    with processes_asked(doubled(tmp_path / "diary"), seats(1)) as crew, ThreadPoolExecutor(1) as threads:
        assert crew.ask(1)() == [2]
        waits = threads.submit(crew.ask(1000))
        queued = [crew.ask(row) for row in range(5)]
        crew.close()
        for answer in (waits.result, *queued):
            with pytest.raises(AuthfaceError, match="have ended"):
                answer()
    assert not multiprocessing.active_children()


def test_actors_of_ray_answer_and_die_likewise(doubled: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "CI" not in os.environ:
        pytest.importorskip("ray", reason="the extra ray is not installed")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    cluster: Any = Cluster(workers=2)
    for times, answer in ((1, 14), (99, -7)):
        work = doubled(tmp_path / str(times), deadly=7, times=times)
        with actors_asked(work, cluster=cluster) as crew:
            made = list(crew.spread(iter([[0, 1], [5, 7, 8], [2], [9]])))
            assert [rows for _, _, rows in sorted(made)] == [[0], [2], [10], [answer], [16], [4], [18]]
            assert [ask() for ask in [crew.ask(row) for row in (6, 5, 8, 9)]] == [[12], [10], [16], [18]]
        assert work.deaths() == min(times, 1 + TRIES)
    with (
        actors_asked(doubled(tmp_path / "diary", broken=True), cluster=cluster) as crew,
        pytest.raises(UsageError, match="weights are missing"),
    ):
        crew.ask(1)()


def test_an_actor_that_ray_ends_for_memory_and_a_lost_answer_are_begun_again(
    doubled: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "CI" not in os.environ:
        pytest.importorskip("ray", reason="the extra ray is not installed")
    import ray

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    errors = ray.exceptions
    get, losses = ray.get, [errors.OutOfMemoryError("95 %"), None, errors.ObjectLostError("0", None, "")]
    losses += [None, errors.NodeDiedError("its node is gone")]  # begun, lost; begun, lost with what it was given; begun

    def get_or_lose(answer: Any) -> Any:
        told = get(answer)
        if losses and (lost := losses.pop(0)):
            raise lost
        return told

    monkeypatch.setattr(ray, "get", get_or_lose)
    with actors_asked(doubled(tmp_path / "diary"), cluster=Cluster(workers=1)) as crew:
        made = list(crew.spread(iter([[0, 1], [2], [3]])))
        assert [rows for _, _, rows in sorted(made)] == [[0], [2], [4], [6]] and not losses


@pytest.mark.parametrize("on_ray", [False, True])
def test_no_chunk_is_begun_far_behind_an_unfinished_one(
    on_ray: bool, doubled: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if on_ray and "CI" not in os.environ:
        pytest.importorskip("ray", reason="the extra ray is not installed")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    work, open, behind = doubled(tmp_path / "diary"), set[int](), list[int]()

    def chunks() -> Iterator[list[int]]:
        for number in range(40):
            open.add(number)
            behind.append(number - min(open))
            yield [number or 2000]

    asked: Any = actors_asked(work, cluster=Cluster(workers=2)) if on_ray else processes_asked(work, seats(2))
    with asked as crew:
        for done, (number, _, _) in enumerate(crew.spread(chunks(), window=4), 1):
            open.remove(number)
            if done == 6:  # of the 7 that may be begun behind the first a process waits with one
                work.diary.touch()
    assert len(behind) == 40 and not open and max(behind) < 8


def test_chunks_end_without_a_wait_where_actors_have_ended_and_nothing_is_left(
    doubled: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "CI" not in os.environ:
        pytest.importorskip("ray", reason="the extra ray is not installed")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with actors_asked(doubled(tmp_path / "diary", broken=True), cluster=Cluster(workers=1)) as crew:
        with pytest.raises(UsageError, match="weights are missing"):
            crew.ask(1)()
        crew.close()
        assert list(crew.spread(iter([[]]))) == []
