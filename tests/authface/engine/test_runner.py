"""Steps over parts: what is redone and why, order, failures as rows, bounded queues."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authface.console import Console
from authface.engine import runner
from authface.engine.ray import Cluster
from authface.engine.runner import PartInput, Summary, parts_of, run
from authface.engine.workers import Step, worked
from authface.errors import AuthfaceError, ImageError
from authface.records import Photo
from authface.store.photoset import Provenance, Table


@dataclass
class Double(Step[int, int, int, Photo]):
    """Turns number n into a photo of width 2n; some numbers misbehave."""

    version: int = 1
    batch_size: int = 3
    overwrites_files: bool = False
    opened: int = 0
    stepped: list[int] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def provenance(self) -> Provenance:
        return Provenance("double", self.version, {"batch": self.batch_size}, {})

    def open(self) -> None:
        self.opened += 1

    def load(self, row: int) -> int:
        with self._lock:
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        if row == 13:
            raise ImageError("unlucky", "13 cannot be read")
        if row == 14:
            raise ValueError("a library's\nown trouble")
        return row

    def step(self, batch: Sequence[int]) -> list[int]:
        self.stepped.extend(batch)
        if 17 in batch:
            raise RuntimeError("17 breaks its batch")
        if 666 in batch:
            raise AuthfaceError("nothing works any more")
        return [2 * value for value in batch]

    def save(self, row: int, result: int) -> list[Photo]:
        with self._lock:
            self.in_flight -= 1
        return [Photo(id=str(row), source="", source_id="", file="", width=result)] * (row % 3)

    def failed(self, row: int, reason: str, detail: str) -> list[Photo]:
        with self._lock:
            self.in_flight -= 1
        return [Photo(id=str(row), source="", source_id="", file="", status="failed", reason=reason, detail=detail)]


def part(number: int, rows: list[int], digest: str = "") -> PartInput[int]:
    return PartInput(number, len(rows), digest or str(rows), lambda: rows)


def go(work: Double, parts: list[PartInput[int]], folder: Path, **options: object) -> Summary:
    return run(work, parts, Table(folder, Photo), Console(), **options)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 40), max_size=12), max_size=4), st.integers(1, 5), st.integers(1, 7))
def test_rows_are_what_a_plain_loop_makes(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[int]], batch: int, chunk: int
) -> None:
    folder = tmp_path_factory.mktemp("out")
    go(Double(batch_size=batch), [part(n, rows) for n, rows in enumerate(parts)], folder, chunk_rows=chunk)
    table = Table(folder, Photo)
    assert table.parts() == list(range(len(parts)))
    for number, rows in enumerate(parts):
        expected = []
        for row in rows:
            bad = {13: "unlucky", 14: "error", 17: "error"}.get(row)
            expected += [(str(row), "failed", bad, 0)] if bad else [(str(row), "kept", "", 2 * row)] * (row % 3)
        assert [(p.id, p.status, p.reason, p.width) for p in table.rows(number)] == expected


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(20, 60), max_size=12), max_size=5), st.integers(1, 7), st.randoms(), st.booleans())
def test_chunks_that_come_in_any_order_make_whole_parts(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[int]], chunk: int, random: Random, ordered: bool
) -> None:
    """As they do from a cluster; `finish` sees the parts in their order."""

    def by_chunk(work: Double, chunks: Iterator[list[int]], *, cluster: Cluster) -> list[tuple[int, list[Photo]]]:
        begun = work.start()
        made = [(number, worked(begun, rows)) for number, rows in enumerate(chunks)]
        return random.sample(made, len(made))

    def finish(rows: list[Photo]) -> list[Photo]:
        seen.append([row.id for row in rows])
        return rows

    seen: list[list[str]] = []
    folder, expected = tmp_path_factory.mktemp("out"), [[str(n) for n in rows for _ in range(n % 3)] for rows in parts]
    options: dict[str, object] = {"finish": finish} if ordered else {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "by_chunk", by_chunk)
        inputs = [part(number, rows) for number, rows in enumerate(parts)]
        go(Double(), inputs, folder, chunk_rows=chunk, cluster=Cluster(), **options)
    table = Table(folder, Photo)
    assert [[row.id for row in table.rows(number)] for number in table.parts()] == expected
    assert seen == (expected if ordered else [])


def test_a_second_run_does_nothing_and_a_change_redoes_what_it_touches(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    parts = [part(0, [1, 2]), part(1, [4])]
    assert go(Double(), parts, tmp_path).made == 2
    again = Double()
    assert (go(again, parts, tmp_path).made, again.opened) == (0, 0)
    capfd.readouterr()
    assert go(Double(), [parts[0], part(1, [5])], tmp_path).made == 1
    assert "rows they were made from changed" in capfd.readouterr().err
    assert go(Double(version=2), [parts[0], part(1, [5])], tmp_path).made == 2
    assert "version 1 -> 2" in capfd.readouterr().err
    assert go(Double(version=2), [parts[0]], tmp_path).counts == {"kept": 3}
    assert Table(tmp_path, Photo).parts() == [0]


def test_what_ends_the_run_keeps_the_parts_before(tmp_path: Path) -> None:
    with pytest.raises(AuthfaceError, match="nothing works"):
        go(Double(), [part(0, [1, 2]), part(1, [666])], tmp_path, chunk_rows=1)
    assert Table(tmp_path, Photo).parts() == [0]


@pytest.mark.parametrize("overwrites_files", [False, True])
def test_rows_of_before_stay_until_there_are_new_ones_unless_their_files_go(
    overwrites_files: bool, tmp_path: Path
) -> None:
    go(Double(), [part(0, [1, 2]), part(1, [4])], tmp_path)
    work = Double(version=2, overwrites_files=overwrites_files)
    with pytest.raises(AuthfaceError, match="nothing works"):
        go(work, [part(0, [666]), part(1, [4])], tmp_path, chunk_rows=1)
    table = Table(tmp_path, Photo)
    assert table.parts() == ([1] if overwrites_files else [0, 1])
    assert go(Double(version=2), [part(0, [1, 2]), part(1, [4])], tmp_path).made == 2


def test_a_bad_input_fails_alone_and_its_line_is_printable(tmp_path: Path) -> None:
    go(Double(batch_size=4), [part(0, [16, 17, 19, 14])], tmp_path)
    rows = Table(tmp_path, Photo).rows(0)
    assert [(row.id, row.status) for row in rows] == [
        ("16", "kept"),
        ("17", "failed"),
        ("19", "kept"),
        ("14", "failed"),
    ]
    assert rows[-1].detail == "ValueError: a library's\\nown trouble"


def test_queues_are_bounded(tmp_path: Path) -> None:
    work = Double(batch_size=2)
    go(work, [part(0, list(range(20, 320)))], tmp_path, chunk_rows=300)
    assert work.most_in_flight <= 5 * work.batch_size


def test_a_limit_cuts_the_last_part_and_its_digest(tmp_path: Path) -> None:
    table = Table(tmp_path, Photo)
    go(Double(), [part(0, [1, 13, 2]), part(1, [4, 5])], tmp_path)
    assert [(p.number, p.count, len(p.rows())) for p in parts_of(table)] == [(0, 3, 3), (1, 3, 3)]
    cut = parts_of(table, limit=4)
    assert [(p.number, len(p.rows())) for p in cut] == [(0, 3), (1, 1)]
    assert cut[0].digest == parts_of(table)[0].digest
    assert cut[1].digest != parts_of(table)[1].digest


def test_a_limit_leaves_a_longer_part_that_is_current(tmp_path: Path) -> None:
    above, target = Table(tmp_path / "above", Photo), Table(tmp_path / "made", Photo)
    rows = [Photo(id=str(n), source="", source_id=str(n), file="") for n in range(6)]
    for number in range(2):
        above.write(number, rows[3 * number : 3 * number + 3], Provenance("above", 1, {}, {}), "")
    work = Passed()
    assert run(work, parts_of(above), target, Console()).made == 2
    again = run(work, parts_of(above, limit=1), target, Console(), prune=False)
    assert (again.made, [len(target.rows(number)) for number in target.parts()]) == (0, [3, 3])
    above.write(0, rows[1:3], Provenance("above", 1, {}, {}), "")
    assert run(work, parts_of(above, limit=1), target, Console(), prune=False).made == 1
    assert [row.id for row in target.rows(0)] == ["1"], "what is outdated is made again, as far as the limit goes"
    assert run(work, parts_of(above), target, Console()).made == 1, "and the rest follows"
    assert [row.id for row in target] == ["1", "2", "3", "4", "5"]


class Passed(Step[Photo, Photo, Photo, Photo]):
    """Hands its rows on."""

    provenance = Provenance("passed", 1, {}, {})

    def load(self, row: Photo) -> Photo:
        return row

    def save(self, row: Photo, result: Photo) -> list[Photo]:
        return [result]

    def failed(self, row: Photo, reason: str, detail: str) -> list[Photo]:
        return [row]
