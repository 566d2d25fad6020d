"""The log on disk: what is done is known again, whatever happened to the file."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from authface.errors import AuthfaceError
from authface.restore.log import Line, Log

LINE = Line(
    target="sub/ä\n.jpg",
    source="in/\udcff.jpg",
    content="ab",
    fingerprint="cd",
    made="2026-01-01",
    status="restored",
    face=0,
)


def written(path: Path, *lines: Line) -> Log:
    log = Log.open(path)
    for line in lines:
        log.add([line])
    return log


def test_a_photo_is_done_while_content_settings_and_result_are_the_same(tmp_path: Path) -> None:
    written(tmp_path / "log.jsonl", LINE)
    log = Log.open(tmp_path / "log.jsonl")
    assert not log.is_done(LINE.target, "ab", "cd")  # the result was deleted
    (tmp_path / "sub").mkdir()
    (tmp_path / LINE.target).touch()
    assert log.is_done(LINE.target, "ab", "cd")
    assert not log.is_done(LINE.target, "other", "cd")
    assert not log.is_done(LINE.target, "ab", "other")
    assert not log.is_done("else.jpg", "ab", "cd")
    assert log.photos[LINE.target] == [LINE]


def test_a_failure_is_not_done_and_does_not_give_a_file_away(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    log = written(tmp_path / "log.jsonl", replace(LINE, target="a.jpg"))
    log.add([replace(LINE, target="a.jpg", status="failed", reason="truncated", made="2026-01-02")])
    assert not log.is_done("a.jpg", "ab", "cd")
    assert log.made_here("a.jpg")
    log.add([replace(LINE, target="b.jpg", status="failed", reason=NOT_OURS)])
    assert not log.made_here("b.jpg")


def test_a_photo_done_again_replaces_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    again = [replace(LINE, made="2026-01-02", face=face) for face in (0, 1)]
    log = written(path, LINE, replace(LINE, target="b.jpg"))
    log.add(again)
    assert len(path.read_text().splitlines()) == 4
    log.close()
    kept = [json.loads(text) for text in path.read_text().splitlines()]
    assert kept == [json.loads(json.dumps(asdict(line))) for line in (*again, replace(LINE, target="b.jpg"))]


def test_a_line_cut_short_is_dropped_and_the_next_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    written(path, LINE, replace(LINE, target="b.jpg"))
    path.write_text(path.read_text()[:-30])
    log = written(path, replace(LINE, target="c.jpg"))
    assert set(log.photos) == {LINE.target, "c.jpg"}
    assert set(Log.open(path).photos) == {LINE.target, "c.jpg"}


def test_another_file_of_that_name_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("my diary\n")
    with pytest.raises(AuthfaceError, match="no log of authface restore"):
        Log.open(path)
    assert path.read_text() == "my diary\n"


def test_a_log_of_nothing_leaves_nothing(tmp_path: Path) -> None:
    Log.open(tmp_path / "log.jsonl").close()
    assert list(tmp_path.iterdir()) == []


def test_where_no_log_can_be_written_it_is_said_before_work_begins(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AuthfaceError, match="cannot write .*file"):
        Log.open(tmp_path / "file" / "log.jsonl")
