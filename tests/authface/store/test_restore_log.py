"""The log on disk: what was made is known again, whatever happened to the file."""

from __future__ import annotations

import errno
import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from authface.errors import AuthfaceError
from authface.store.restore_line import Line, parse_line
from authface.store.restore_log import LOG, Log, part_numbers, part_path, prove_writable

LINE = Line(
    target="sub/ä\n.jpg",
    source="in/\udcff.jpg",
    content="ab",
    fingerprint="cd",
    made="2026-01-01",
    status="restored",
    face=0,
)


def parse(data: bytes) -> list[Line]:
    """The lines of a log; what is no line is skipped."""
    return [line for one in data.split(b"\n") if (line := parse_line(one))]


def targets(log: Log) -> list[str]:
    """All that was made, failures aside, in the order in which each was made first."""
    return list(log._photos)


def written(path: Path, *lines: Line) -> Log:
    log = Log(path)
    for line in lines:
        log.add([line])
    return log


def test_a_photo_has_lines_while_content_and_settings_are_the_same(tmp_path: Path) -> None:
    written(tmp_path / "log.jsonl", LINE)
    log = Log(tmp_path / "log.jsonl")
    assert log.lines_of(LINE.target, "ab", "cd") == [LINE]
    assert not log.lines_of(LINE.target, "other", "cd")
    assert not log.lines_of(LINE.target, "ab", "other")
    assert not log.lines_of("else.jpg", "ab", "cd")


def test_a_photo_of_whom_lines_are_missing_has_none(tmp_path: Path) -> None:
    both = [replace(LINE, face=face, lines=2) for face in (0, 1)]
    log = Log(tmp_path / "log.jsonl")
    log.add(both[:1])
    assert log.lines_of(LINE.target, "ab", "cd") == [] and log.made_at(LINE.target)
    log.add([replace(line, made="2026-01-02", seconds=3) for line in both])  # what is missing alone is added
    assert log.lines_of(LINE.target, "ab", "cd") == [both[0], replace(both[1], seconds=3)]
    size = log.path.stat().st_size
    log.add([replace(line, made="2026-01-03") for line in both])
    assert log.path.stat().st_size == size


def test_a_failure_makes_nothing_and_unmakes_nothing(tmp_path: Path) -> None:
    log = written(tmp_path / "log.jsonl", replace(LINE, target="a.jpg"))
    failed = replace(LINE, target="a.jpg", status="failed", reason="truncated", made="2026-01-02")
    for _ in range(3):
        log.add([failed])
    assert [line.made for line in log.lines_of("a.jpg", "ab", "cd")] == [LINE.made]
    log.add([replace(failed, target="b.jpg")])
    assert not log.made_at("b.jpg") and len(log.path.read_text().splitlines()) == 3
    log.add([replace(LINE, target="a.jpg", made="2026-01-03")])
    assert [line.status for line in parse(log.path.read_bytes())][-1] == "restored", "the last line is how it stands"


def test_a_log_only_grows_and_its_last_lines_count(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    again = [replace(LINE, made="2026-01-02", face=face, result="ef") for face in (0, 1)]
    log = written(path, LINE, replace(LINE, target="b.jpg"))
    before = path.read_text()
    log.add(again)
    assert path.read_text().startswith(before) and len(path.read_text().splitlines()) == 4
    assert Log(path).lines_of(LINE.target, "ab", "cd") == again
    assert [made.digest for made in Log(path).made_at(LINE.target)] == ["", "ef"]


def test_two_logs_of_one_file_see_each_other(tmp_path: Path) -> None:
    one, other = Log(tmp_path / "log.jsonl"), Log(tmp_path / "log.jsonl")
    for i in range(20):
        (one, other)[i % 2].add([replace(LINE, target=f"{i}.jpg")])
    for log in (one, other):
        log.refresh()
    assert set(targets(one)) == set(targets(other)) == set(targets(Log(one.path))) == {f"{i}.jpg" for i in range(20)}


def test_a_log_that_was_cut_or_deleted_meanwhile_is_read_anew(tmp_path: Path) -> None:
    log = written(tmp_path / "log.jsonl", *(replace(LINE, target=f"{i}.jpg") for i in range(3)))
    log.path.write_text(log.path.read_text().splitlines()[1] + "\n")
    log.refresh()
    assert set(targets(log)) == {"1.jpg"}
    log.path.unlink()
    log.refresh()
    assert targets(log) == []
    log.add([LINE])
    assert Log(log.path).lines_of(LINE.target, "ab", "cd") == [LINE]


def test_a_line_cut_short_is_dropped_and_the_next_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    written(path, LINE, replace(LINE, target="b.jpg"))
    text = path.read_text()
    for cut in range(0, len(text), 7):
        path.write_text(text[:cut])
        whole = text[:cut].count("\n") + (text[cut : cut + 1] == "\n")
        log = written(path, replace(LINE, target="c.jpg"))
        assert set(targets(log)) == {*[LINE.target, "b.jpg"][:whole], "c.jpg"}
        kept = [json.loads(line)["target"] for line in path.read_text().splitlines()]
        assert kept == [*[LINE.target, "b.jpg"][:whole], "c.jpg"]


def test_where_the_disk_is_full_the_log_is_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = written(tmp_path / "log.jsonl", LINE)
    before = log.path.read_bytes()
    real = Path.open

    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            if len(data) < 200:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data[: len(data) // 2])

    def full(path: Path, mode: str = "r", **how: Any) -> Any:
        return Full(str(path), "a+") if mode == "a+b" else real(path, mode, **how)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(AuthfaceError, match="the disk is full"):
        log.add([replace(LINE, target="b.jpg")])
    assert log.path.read_bytes() == before


@pytest.mark.parametrize("text", ["my diary\n", "my diary", '{"a": 1}\n', "[]"])
def test_another_file_of_that_name_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(text)
    with pytest.raises(AuthfaceError, match="no log of authface restore"):
        Log(path)
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target", 1), ("target", ""), ("status", "done"), ("width", 1.5), ("width", -1), ("width", True), ("scale", 0),
        ("quad", [1.0] * 7), ("quad", [1e300] * 8), ("box", [-1e308, -1e308, 1e308, 1e308]), ("box", [0, 0, "1", 1]),
        ("identity", "0.9"), ("identity", float("nan")), ("seed", 1.0),
        ("moments", [[]]), ("moments", [[0.0, 1.0]]), ("seconds", 10**400), ("source", None), ("tries", 0),
    ],
)  # fmt: skip
def test_a_line_with_a_value_that_is_none_of_ours_is_no_line(name: str, value: Any) -> None:
    values = asdict(LINE)
    assert parse(json.dumps(values).encode()) == [LINE]
    assert parse(json.dumps(values | {name: value}).encode()) == []


def test_lines_of_before_and_after_are_read(tmp_path: Path) -> None:
    values = {name: value for name, value in asdict(LINE).items() if name not in ("lines", "result", "map", "scale")}
    assert parse(json.dumps(values | {"of_later": 1}).encode()) == [LINE]


def test_a_log_of_nothing_leaves_nothing(tmp_path: Path) -> None:
    Log(tmp_path / "new" / "log.jsonl")
    prove_writable(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_where_no_log_can_be_written_it_is_said_before_work_begins(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AuthfaceError, match="cannot write .*file"):
        prove_writable(tmp_path / "file")


PART = 2_000
"""Bytes of a part: of a few lines."""


def in_parts(path: Path, count: int, faces: int = 1) -> tuple[Log, list[Line]]:
    """A log of `count` photos with `faces` lines each, in parts of `PART` bytes."""
    lines = [
        replace(
            LINE,
            target=f"{i}.jpg",
            content=f"{i:02x}" * 32,
            result=f"{i:02x}" * 32,
            made=f"at {i}",
            face=face,
            lines=faces,
        )
        for i in range(count)
        for face in range(faces)
    ]
    log = Log(path, PART)
    for start in range(0, len(lines), faces):
        log.add(lines[start : start + faces])
    return log, lines


def test_a_log_lies_in_parts_of_which_the_last_alone_grows(tmp_path: Path) -> None:
    path = tmp_path / LOG
    log, lines = in_parts(path, 12, faces=2)
    numbers = part_numbers(path)
    assert numbers == list(range(len(numbers))) and len(numbers) > 3
    assert [name.name for name in sorted(tmp_path.iterdir())][:2] == ["restore.00001.jsonl", "restore.00002.jsonl"]
    parts = [part_path(path, number).read_bytes() for number in numbers]
    assert all(PART <= len(part) < 2 * PART for part in parts[:-1])
    assert parse(b"".join(parts)) == lines, "a photo's lines lie in one part, and parts in order"
    for known in (log, Log(path), Log(path, PART)):
        assert [line for target in targets(known) for line in known.lines(target)] == lines
    log.add([replace(LINE, target="0.jpg", made="again")])
    assert [part_path(path, number).read_bytes() for number in numbers[:-1]] == parts[:-1]
    assert [line.made for line in Log(path).lines("0.jpg")] == ["again"] and len(Log(path).made_at("0.jpg")) == 2


def test_a_log_of_before_in_one_long_file_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / LOG
    _, lines = in_parts(path, 8)
    whole = b"".join(part_path(path, number).read_bytes() for number in part_numbers(path))
    for number in part_numbers(path):
        part_path(path, number).unlink()
    path.write_bytes(whole)
    log = Log(path, PART)
    log.add([replace(LINE, target="new.jpg")])
    assert path.read_bytes() == whole and part_numbers(path) == [0, 1]
    assert targets(log) == targets(Log(path)) == [*(line.target for line in lines), "new.jpg"]


def test_two_writers_go_on_in_the_same_parts(tmp_path: Path) -> None:
    one, other = Log(tmp_path / LOG, PART), Log(tmp_path / LOG, PART)
    for i in range(30):
        (one, other)[i % 3 == 0].add([replace(LINE, target=f"{i}.jpg")])
    for log in (one, other):
        log.refresh()
    assert set(targets(one)) == set(targets(other)) == set(targets(Log(one.path))) == {f"{i}.jpg" for i in range(30)}
    sizes = [part_path(one.path, number).stat().st_size for number in part_numbers(one.path)]
    assert len(sizes) > 3 and all(PART <= size < 2 * PART for size in sizes[:-1])


@pytest.mark.parametrize("torn", [0, 1])
def test_cut_at_any_byte_near_the_end_of_a_part_nothing_else_is_lost(tmp_path: Path, torn: int) -> None:
    """A kill while the last part is written, right after it was made, and before its first line is whole."""
    path = tmp_path / LOG
    _, lines = in_parts(path, 5)
    last = part_numbers(path)[-1 - torn]
    for number in part_numbers(path)[len(part_numbers(path)) - torn :]:
        part_path(path, number).unlink()
    data = part_path(path, last).read_bytes()
    before = [line for number in range(last) for line in parse(part_path(path, number).read_bytes())]
    for cut in (*range(0, len(data), 41), len(data) - 1):
        part_path(path, last).write_bytes(data[:cut])
        log = Log(path, PART)
        log.add([replace(LINE, target="new.jpg")])
        kept = [*before, *parse(data[:cut])]
        assert targets(log) == targets(Log(path)) == [*(line.target for line in kept), "new.jpg"]
        assert all(log.lines(line.target) == [line] for line in kept)
        for number in range(last, part_numbers(path)[-1] + 1):
            part_path(path, number).unlink()


def test_a_part_that_somebody_deleted_takes_its_own_lines_alone(tmp_path: Path) -> None:
    log, lines = in_parts(tmp_path / LOG, 12)
    gone = {line.target for line in parse(part_path(log.path, 1).read_bytes())}
    part_path(log.path, 1).unlink()
    log.refresh()
    assert 0 < len(gone) < 12
    for known in (log, Log(log.path)):
        assert set(targets(known)) == {line.target for line in lines} - gone
    log.add([replace(LINE, target="new.jpg")])
    assert "new.jpg" in targets(Log(log.path)) and not part_path(log.path, 1).exists()


def test_a_copy_of_a_log_by_the_name_of_a_day_is_no_part_of_it(tmp_path: Path) -> None:
    log = written(tmp_path / LOG, LINE)
    copies = [tmp_path / f"restore.{digits}.jsonl" for digits in ("20261129", "202611", "٠٠٠٠١")]
    for copy in copies:
        copy.write_bytes(log.path.read_bytes())
    again = Log(log.path)
    again.add([replace(LINE, target="new.jpg")])
    assert part_numbers(log.path) == [0] and targets(Log(log.path)) == [LINE.target, "new.jpg"]
    assert all(copy.read_bytes().count(b"\n") == 1 for copy in copies), "nothing is added to it"


def test_what_lies_in_memory_of_a_photo_is_where_its_lines_are(tmp_path: Path) -> None:
    log, lines = in_parts(tmp_path / LOG, 3)
    assert log.has("1.jpg", LINE.fingerprint) and not log.has("1.jpg", "other") and not log.has("none", "")
    log.path.write_bytes(log.path.read_bytes().replace(b'"0.jpg"', b'"9.jpg"'))
    assert log.lines("0.jpg") == [], "somebody changed the file meanwhile"
    assert [line.digest for line in log.made_at("1.jpg")] == [lines[1].result]
