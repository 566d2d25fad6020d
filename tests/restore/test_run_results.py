"""What is a result is known by log and bytes: after a kill at any point, after a move, beside photos of its name."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from authface.console import Console
from authface.errors import AuthfaceError
from authface.files import TEMPORARY, replacing
from authface.imaging import decode as images
from authface.restore.page import write_page
from authface.restore.run import jobs_of, restore_jobs
from authface.restore.session import Request, RestoreSummary, Session
from authface.restore.settings import RestoreSettings
from authface.store.restore_log import LOG, PAGE, PAGE_FILES, Log
from tests.authface.store.test_restore_log import targets
from tests.restore.conftest import Brighter

Command = Callable[..., tuple[int, str, str]]


class Killed(BaseException):
    """Like SIGKILL: nothing that happens after it reaches the disk."""


class Killer:
    """Counts what reaches the disk in a folder, and lets the run die before the `at`-th of it."""

    def __init__(self, folder: Path, at: int) -> None:
        self.folder, self.left = folder, at

    def see(self, path: Any) -> None:
        if isinstance(path, (str, os.PathLike)) and Path(path).is_relative_to(self.folder):
            self.left -= 1
            if self.left < 0:
                raise Killed

    @contextmanager
    def around(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("replace", "rename", "unlink", "mkdir"):
                patch.setattr(os, name, self._seeing(getattr(os, name), lambda given: True))
            patch.setattr(os, "open", self._seeing(os.open, lambda given: given[1] & (os.O_WRONLY | os.O_RDWR) != 0))
            patch.setattr(io, "open", self._seeing(io.open, lambda given: set(given[1]) & set("wax+") != set()))
            yield

    def _seeing(self, real: Callable[..., Any], writes: Callable[[tuple[Any, ...]], bool]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            if writes(given):
                self.see(given[0])
            return real(*given, **named)

        return call


def restore(folder: Path, out: Path | None = None, *, overwrite: bool = False, **chosen: Any) -> RestoreSummary:
    """Restore a folder of faces, and write the page."""
    made = RestoreSettings(**({"model": "identity", "colour": "none", "guard": False, "batch": 1} | chosen))
    session = Session(Request(made, aligned=True), Console())
    session.__dict__["restorer"] = Brighter()
    jobs = jobs_of([folder], out, made.format, maps=made.change_map, say=session.console.log)
    summary = restore_jobs(jobs, session, overwrite=overwrite)
    if summary.jobs:
        write_page(session, summary, summary.jobs[0].home)
    return summary


def seen(folder: Path) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """All files but the log and the page by name, and the log's lines but for when they were made."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    lines = [json.loads(text) for text in files.pop(LOG).read_text().splitlines()]
    bytes_of = {name: path.read_bytes() for name, path in files.items() if name != PAGE}
    told = [
        {name: value for name, value in line.items() if name not in {"made", "seconds", "source", "traits"}}
        for line in lines
    ]
    return {**bytes_of, **({PAGE: b""} if PAGE in files else {})}, sorted(told, key=json.dumps)


@pytest.fixture(autouse=True)
def files_count_as_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what a run can pass over without reading it, it does."""
    monkeypatch.setattr("authface.restore.outcome.SETTLED", -60.0)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    (folder / "deep").mkdir(parents=True)
    face = Image.fromarray(data.astronaut()[40:200, 150:310])
    face.save(folder / "a.jpg", quality=95)
    face.rotate(5).save(folder / "deep" / "b.png")
    return folder


def first(out: Path, album: Path) -> None:
    """A run into `out`, a folder."""
    restore(album, out, change_map=True)


def again(out: Path, album: Path) -> None:
    """A run with other settings, where one was before."""
    if not (out / PAGE).exists():
        restore(album, out, change_map=True)
        raise Prepared
    restore(album, out, change_map=True, quality=80)


class Prepared(Exception):
    """What has to be there is, and the run itself comes next."""


@pytest.mark.parametrize("run", [first, again])
def test_killed_at_any_point_a_rerun_ends_as_an_undisturbed_run(
    album: Path, tmp_path: Path, run: Callable[[Path, Path], None]
) -> None:
    def start(out: Path) -> None:
        try:
            run(out, album)
        except Prepared:
            run(out, album)
        except Killed:
            run(out, album)

    start(tmp_path / "whole")
    whole = seen(tmp_path / "whole")
    points = 0
    while True:
        out = tmp_path / "killed"
        if run is again:
            with pytest.raises(Prepared):
                run(out, album)
        killer = Killer(out, points)
        try:
            with killer.around():
                run(out, album)
        except Killed:
            run(out, album)
            assert seen(out) == whole, f"killed before change {points} of the disk"
            assert restore(album, out, change_map=True, quality=80 if run is again else 0).done_before == 2
            shutil.rmtree(out)
            points += 1
            continue
        break
    assert points > 20


def test_a_log_cut_at_any_byte_is_gone_on_with(album: Path, tmp_path: Path) -> None:
    """Lines come before their result: what the cut log does not name whole is not there yet."""
    first(tmp_path / "whole", album)
    whole, text = seen(tmp_path / "whole"), (tmp_path / "whole" / LOG).read_bytes()
    for cut in [*range(20), *range(20, len(text), 97), *range(len(text) - 3, len(text) + 1)]:
        out = tmp_path / "cut"
        shutil.copytree(tmp_path / "whole", out)
        (out / LOG).write_bytes(text[:cut])
        logged = targets(Log(out / LOG))
        for name in ("a", "deep/b"):
            if not {f"{name}.jpg", f"{name}.png"} & set(logged):
                for path in out.glob(f"{name}.*"):
                    path.unlink()
        first(out, album)
        assert seen(out) == whole, f"cut after {cut} bytes"
        shutil.rmtree(out)


def test_a_moved_album_is_done(album: Path, tmp_path: Path) -> None:
    restore(album, change_map=True)
    before = sorted(path.name for path in album.rglob("*") if path.name != PAGE)
    moved = album.rename(tmp_path / "elsewhere")
    for named in (moved, moved / "deep"):
        summary = restore(named, change_map=True)
        assert (summary.photos, summary.done_before) == ((2, 2) if named == moved else (1, 1))
    assert sorted(path.name for path in moved.rglob("*") if path.name != PAGE) == before


@pytest.mark.parametrize("setting", ["INLINE_PHOTOS", "MAX_ON_ONE_PAGE"])
def test_pictures_of_a_page_are_no_photos(
    album: Path, authface: Command, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"authface.restore.page.{setting}", 1)
    assert restore(album).done_before == 0
    pictures = [*(album / PAGE_FILES).rglob("*.jpg")]
    assert pictures
    again = restore(album)
    assert (again.photos, again.done_before) == (2, 2)
    with_identity = ["--model", "identity", "--aligned", "--json", "-o", album.parent / "out"]
    code, out, _ = authface(album / "a.jpg", *pictures, *with_identity)  # as a shell's glob names them
    assert code == 0 and [Path(path).name for path in json.loads(out)["targets"]] == ["a.jpg"]
    code, out, _ = authface(pictures[0], *with_identity)
    assert code == 0 and [Path(path).name for path in json.loads(out)["targets"]] == [pictures[0].name]


def test_results_that_were_moved_or_renamed_are_known(album: Path) -> None:
    restore(album)
    (album / "best").mkdir()
    (album / "a.restored.jpg").rename(album / "best" / "grandma.jpg")
    (album / "a.jpg").rename(album / "z.jpg")
    summary = restore(album)
    assert (summary.photos, summary.done_before) == (2, 1), "a source by another name is done again, no result is"


def test_a_photo_of_ones_own_is_no_result_whatever_its_name(album: Path, authface: Command, tmp_path: Path) -> None:
    mine = album / "a.restored.jpg"
    Image.fromarray(data.astronaut()[:300, 60:400]).save(mine, quality=95)
    before = mine.read_bytes()
    with_identity = ["--model", "identity", "--aligned"]
    code, _, err = authface(album / "a.jpg", *with_identity)  # stands in the way
    assert code == 1 and "target_exists" in err
    for done in (0, 3):
        summary = restore(album)
        assert (summary.photos, summary.done_before, summary.failed) == (3, done, [])
    assert mine.read_bytes() == before


def test_results_named_beside_their_photos_are_left_out_and_alone_are_taken(album: Path, authface: Command) -> None:
    restore(album)
    (album / "a.jpg").rename(album / "renamed.jpg")
    every = [*sorted(album.glob("*.jpg")), "--model", "identity", "--aligned", "--json", "-o", album / "out"]
    code, out, _ = authface(*every)
    assert code == 0 and [Path(path).name for path in json.loads(out)["targets"]] == ["renamed.jpg"]
    code, out, _ = authface(album / "a.restored.jpg", *every[2:])
    assert code == 0 and [Path(path).name for path in json.loads(out)["targets"]] == ["a.restored.jpg"]
    (album / "renamed.jpg").unlink()
    shutil.rmtree(album / "deep")
    shutil.rmtree(album / "out")
    code, _, err = authface(album, "--model", "identity")
    assert code == 1 and "made by earlier runs; name the files" in err


def test_a_copy_of_a_photo_without_a_face_hides_no_photo(album: Path, authface: Command) -> None:
    Image.fromarray(data.coffee()).save(album / "coffee.jpg")
    for done in (0, 3):
        code, out, _ = authface(album, "--model", "identity", "--json")
        told = json.loads(out)
        assert (code, told["photos"], told["done_before"]) == (0, 3, done)


def test_a_result_that_somebody_worked_on_is_kept_and_said(album: Path, capsys: pytest.CaptureFixture[str]) -> None:
    restore(album)
    result = album / "a.restored.jpg"
    Image.open(result).save(result, quality=50, comment="five stars")
    mine = result.read_bytes()
    capsys.readouterr()
    summary = restore(album)
    said = capsys.readouterr().err
    assert (summary.photos, summary.done_before) == (2, 2) and result.read_bytes() == mine
    assert f"{result} was changed since it was made: kept as it is" in said
    (failure,) = restore(album, quality=80).failed
    assert failure[1].startswith("target_exists") and "was changed since" in failure[1] and result.read_bytes() == mine
    assert restore(album, quality=80, overwrite=True).failed == [] and result.read_bytes() != mine


@pytest.mark.parametrize("quad", [[5.0] * 8, [1e300] * 8, [0.0, 0.0, 0.0, 900.0, 900.0, 900.0, 900.0, 0.0]])
def test_the_page_is_written_whatever_crops_the_log_names(quad: list[float], album: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    restore(album, out)
    lines = [json.loads(text) for text in (out / LOG).read_text().splitlines()]
    changed = {"quad": quad, "placed_by": "dlib68", "box": quad[2:6]}
    (out / LOG).write_text("".join(json.dumps(line | changed) + "\n" for line in lines))
    restore(album, out)
    assert (out / PAGE).is_file()


def test_a_page_that_a_killed_run_did_not_write_is_written_by_the_next(
    album: Path, tmp_path: Path, authface: Command
) -> None:
    out = tmp_path / "out"
    again = (album, "--model", "identity", "-o", out)
    assert "before and after" in authface(*again)[1] and "before and after" not in authface(*again)[1]
    (out / PAGE).unlink()  # killed after the last photo
    assert "before and after" in authface(*again)[1] and (out / PAGE).exists()
    os.utime(out / PAGE, (1e9, 1e9))  # the page is of the run before that one
    assert "before and after" in authface(*again)[1] and "before and after" not in authface(*again)[1]
    assert "before and after" not in authface(*again, "-O", "restore.report=false")[1]


def test_two_runs_in_one_folder_see_each_other(album: Path, tmp_path: Path) -> None:
    """The second begins while the first is under way, with other settings, and ends after it."""
    out = tmp_path / "out"
    restore(album, out)
    logs = [Log(out / LOG) for _ in range(2)]
    restore(album / "deep", out / "deep2")
    summary = restore(album, out, quality=80)
    for log in logs:
        log.refresh()
        assert results_of(log) == results_of(Log(out / LOG))
    assert summary.failed == [] and restore(album, out, quality=80).done_before == 2
    stale = Log(out / LOG)
    shutil.copy(album / "a.jpg", album / "c.jpg")
    restore(album, out, quality=80)
    assert stale.made_at("c.jpg") == []
    stale.refresh()
    assert len(stale.made_at("c.jpg")) == 1


def results_of(log: Log) -> dict[str, str]:
    """The digest of each result, by its target."""
    return {name: log.lines(name)[0].result for name in targets(log)}


def test_what_a_killed_run_began_goes_and_what_a_living_one_begins_stays(album: Path, tmp_path: Path) -> None:
    restore(album, tmp_path / "out")
    left, mine = tmp_path / "out" / f"{TEMPORARY}0123456789ab", tmp_path / "out" / f"{TEMPORARY}mine.jpg"
    left.write_bytes(b"half")
    mine.write_bytes(b"mine")
    with replacing(tmp_path / "out" / "living.bin") as living:
        restore(album, tmp_path / "out")
        assert living.exists() and mine.exists() and not left.exists()
        living.write_bytes(b"whole")
    assert (tmp_path / "out" / "living.bin").read_bytes() == b"whole"


def test_a_run_that_is_refused_leaves_nothing(album: Path, tmp_path: Path, authface: Command) -> None:
    out = tmp_path / "new" / "out"
    for words in (["--model", tmp_path / "gone"], ["-O", "restore.upscaler=x.pth"], ["--min-identity", "2"]):
        assert authface(album, "-o", out, *words)[0] in (1, 2)
        assert not (tmp_path / "new").exists(), words
    code, _, err = authface(tmp_path / "nosuch.jpg", "--model", "identity")
    assert code == 1 and "failed (unreadable): no such file" in err and not (tmp_path / LOG).exists()


@pytest.mark.parametrize("name", ["a.jpg", "deep/b.png"])
def test_an_input_that_breaks_a_reader_stands_alone(
    name: str, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, real = (album / name).read_bytes(), images.decode

    def decode(given: bytes, **how: Any) -> images.Decoded:
        return struct.unpack("<q", b"short") if given == bad else real(given, **how)  # type: ignore[return-value]

    monkeypatch.setattr(images, "decode", decode)
    for done in (0, 1):
        summary = restore(album, tmp_path / "out")
        assert (summary.restored, summary.done_before) == (1, done)
        assert summary.failed == [(album / name, "error: unexpected error: unpack requires a buffer of 8 bytes")]
    failed = [line for line in seen(tmp_path / "out")[1] if line["status"] == "failed"]
    assert [line["target"] for line in failed] == [name], "once, however often"


def test_a_name_that_the_disk_does_not_take_stands_alone(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace

    def replace(old: Any, new: Any, **how: Any) -> None:
        if Path(new).name == "a.jpg":
            raise OSError(errno.ENAMETOOLONG, "File name too long")
        real(old, new, **how)

    monkeypatch.setattr(os, "replace", replace)
    summary = restore(album, tmp_path / "out")
    assert summary.restored == 1 and [reason.partition(":")[0] for _, reason in summary.failed] == ["name"]
    monkeypatch.undo()
    assert restore(album, tmp_path / "out").done_before == 1 and (tmp_path / "out" / "a.jpg").exists()


def test_a_long_name_is_restored_with_its_map(tmp_path: Path) -> None:
    album = tmp_path / "album"
    album.mkdir()
    Image.fromarray(data.astronaut()[40:200, 150:310]).save(album / ("n" * 246 + ".jpg"))
    for done in (0, 1):
        summary = restore(album, change_map=True)
        assert (summary.restored, summary.done_before, summary.failed) == (1, done, [])
    assert len(list(album.glob("*.change.png"))) == 1


SINGLE = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(SINGLE, lambda some: st.lists(some, max_size=9), max_leaves=9)
WORD = st.sampled_from(["a.jpg", "", "..", "/etc/passwd", "deep/b.png", "\0", "\udcff"])


@st.composite
def foreign(draw: st.DrawFn, text: bytes) -> bytes:
    """A log that somebody, or a kill, did something to."""
    lines: list[bytes] = []
    for line in text.splitlines():
        what = draw(st.sampled_from(["keep", "cut", "values", "noise", "twice", "json"]))
        if what == "values":
            values = json.loads(line)
            for name in draw(st.lists(st.sampled_from(sorted(values)), max_size=3)):
                values[name] = draw(VALUES | WORD)
            lines.append(json.dumps(values).encode())
        else:
            cut = draw(st.integers(0, len(line)))
            noise = st.sampled_from([b"[" * 5000, b"{}", b"1e999", b"NaN", b'{"target": 1}', b"\xff\xfe"])
            lines += {
                "keep": [line],
                "cut": [line[:cut]],
                "noise": [draw(st.binary(max_size=60)), line],
                "twice": [line, line],
                "json": [draw(noise), line],
            }[what]
    return b"\n".join(lines) + draw(st.sampled_from([b"", b"\n"]))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(draws=st.data())
def test_whatever_the_log_holds_a_run_ends_well(draws: st.DataObject, album: Path, tmp_path: Path) -> None:
    """By the readers that a run has: nothing of a user's is lost, all is restored, the page is written."""
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)  # of the example before, which may have been given up midway
    first(out, album)
    own = out / "own.jpg"
    own.write_bytes(b"mine")
    (out / LOG).write_bytes(draws.draw(foreign((out / LOG).read_bytes())))
    try:
        summary = restore(album, out, change_map=True, quality=draws.draw(st.sampled_from([0, 80])))
        assert summary.restored + len(summary.failed) == 2
        assert all(reason.startswith("target_exists") for _, reason in summary.failed), summary.failed
        if not summary.failed:
            assert restore(album, out, change_map=True, quality=0).failed == []
    except AuthfaceError as error:
        assert "is no log of authface restore" in str(error)
    assert own.read_bytes() == b"mine" and not list(out.glob(f"{TEMPORARY}*"))
