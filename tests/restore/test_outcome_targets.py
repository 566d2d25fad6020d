"""What is replaced where a result goes: one of the same source, unchanged; all else by ``--overwrite`` alone."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from authface.store.restore_log import LOG
from tests.restore.video.films import film, scene

Command = Callable[..., tuple[int, str, str]]
OPTIONS = ("--model", "identity", "--aligned", "-O", "restore.guard=false", "-O", "restore.report=false")
LARGER = ("--upscale", "2")


@pytest.fixture
def run(authface: Command) -> Command:
    """``authface restore ...`` by the identity, of aligned faces."""
    return partial(authface, *OPTIONS)


def photo(path: Path, place: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(data.astronaut()[40 + place : 200 + place, 150:310]).save(path)
    return path


@pytest.mark.parametrize("how", ["file", "slash", "link", "dangling link"])
def test_a_named_file_of_another_program_is_kept(how: str, run: Command, tmp_path: Path) -> None:
    source, mine = photo(tmp_path / "a.png"), tmp_path / "mine.png"
    named = mine if how in ("file", "slash") else tmp_path / "link.png"
    if named != mine:
        named.symlink_to(mine)
    if how != "dangling link":
        photo(mine, 20)
    before = mine.read_bytes() if mine.exists() else b""
    for _ in range(2):
        code, _, err = run(source, "-o", f"{named}/" if how == "slash" else named)
        assert code == 1 and "failed (target_exists)" in err and "--overwrite replaces it" in err
        assert named.is_symlink() == (named != mine)
        assert (mine.read_bytes() if mine.exists() else b"") == before
    assert run(source, "-o", named, "--overwrite")[0] == 0
    assert not named.is_symlink() and named.read_bytes() == source.read_bytes()
    assert (mine.read_bytes() if mine.exists() else b"") == (before if named != mine else source.read_bytes())


def test_a_named_result_is_replaced_and_one_that_was_changed_is_kept(run: Command, tmp_path: Path) -> None:
    source, named = photo(tmp_path / "a.png"), tmp_path / "b.png"
    for _ in range(2):
        assert run(source, "-o", named)[0] == 0
    code, _, err = run(source, "-o", named, *LARGER)
    assert code == 0 and Image.open(named).size == (320, 320), err
    photo(named, 20)
    mine = named.read_bytes()
    code, _, err = run(source, "-o", named, *LARGER)
    assert code == 0 and f"{named} was changed since it was made: kept as it is" in err
    code, _, err = run(source, "-o", named)
    assert code == 1 and "was changed since it was made: choose another -o, or --overwrite" in err
    assert named.read_bytes() == mine
    assert run(source, "-o", named, "--overwrite")[0] == 0 and named.read_bytes() != mine


def test_a_refused_original_is_no_result(run: Command, tmp_path: Path) -> None:
    """A folder with it is restored whole, into itself too."""
    folder = tmp_path / "in"
    source, mine = photo(folder / "a.png"), photo(folder / "b.png", 20)
    before = mine.read_bytes()
    assert run(source, "-o", mine)[0] == 1
    code, out, err = run(folder, "-o", folder, "--json")
    told = json.loads(out)
    assert code == 0 and (told["photos"], told["failed"]) == (2, []), err
    assert sorted(Path(path).name for path in told["targets"]) == ["a.restored.png", "b.restored.png"]
    assert mine.read_bytes() == before


@pytest.mark.parametrize(
    ("first", "second"), [("d1/a.png", "d2/a.png"), ("d1", "d2"), ("d1/a.bmp", "d1/a.png"), ("d1/a.png", "d2")]
)
def test_the_result_of_another_source_is_kept(first: str, second: str, run: Command, tmp_path: Path) -> None:
    sources = [tmp_path / name if Path(name).suffix else tmp_path / name / "a.png" for name in (first, second)]
    for place, source in enumerate(sources):
        photo(source, 20 * place)
    out = tmp_path / "out"
    assert run(tmp_path / first, "-o", out)[0] == 0
    made = (out / "a.png").read_bytes()
    for options in ((), LARGER):
        code, _, err = run(tmp_path / second, "-o", out, *options)
        assert code == 1 and f"{out / 'a.png'} is the result of {sources[0]}: choose another -o, or --overwrite" in err
        assert (out / "a.png").read_bytes() == made
    code, said, _ = run(tmp_path / first, "-o", out, "--json")
    assert code == 0 and json.loads(said)["done_before"] == 1
    assert run(tmp_path / second, "-o", out, "--overwrite")[0] == 0
    np.testing.assert_array_equal(np.asarray(Image.open(out / "a.png")), np.asarray(Image.open(sources[1])))
    assert run(tmp_path / first, "-o", out)[0] == 1, "now it is the second's"


def test_the_result_of_another_video_is_kept(authface: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    named = [film(tmp_path / "a.avi", [scene(0), scene(1)]), film(tmp_path / "a.mkv", [scene(2), scene(3)])]
    assert authface(named[0], "--model", "identity", "-o", out)[0] == 0
    made = (out / "a.mkv").read_bytes()
    code, _, err = authface(named[1], "--model", "identity", "-o", out)
    assert code == 1 and f"is the result of {named[0]}" in err and (out / "a.mkv").read_bytes() == made
    mine = tmp_path / "mine.mkv"
    mine.write_bytes(b"mine")
    code, _, err = authface(named[1], "--model", "identity", "-o", mine)
    assert code == 1 and "target_exists" in err and mine.read_bytes() == b"mine"


def test_a_source_that_was_edited_or_moved_is_the_same(run: Command, tmp_path: Path) -> None:
    source, out = photo(tmp_path / "in" / "a.png"), tmp_path / "out"
    assert run(source, "-o", out)[0] == 0
    photo(source, 20)
    assert run(source, "-o", out)[0] == 0
    np.testing.assert_array_equal(np.asarray(Image.open(out / "a.png")), np.asarray(Image.open(source)))
    moved = Path(shutil.move(tmp_path / "in", tmp_path / "elsewhere")) / "a.png"
    assert run(moved, "-o", out, *LARGER)[0] == 0
    photo(moved, 30)
    assert run(moved, "-o", out, *LARGER)[0] == 0
    if sys.platform != "win32":
        (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
        photo(moved, 40)
        assert run(tmp_path / "link" / "a.png", "-o", out)[0] == 0
    np.testing.assert_array_equal(np.asarray(Image.open(out / "a.png")), np.asarray(Image.open(moved)))


def test_a_dry_run_says_what_is_done_and_what_is_refused(run: Command, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    for place, name in enumerate(("done.png", "mine.png", "new.png")):
        photo(folder / name, 20 * place)
    clip = film(folder / "clip.mp4", [scene(0), scene(1)])
    assert run(folder / "done.png", clip, "-o", out)[0] == 0
    mine = photo(out / "mine.png", 60)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    _, said, _ = run(folder, "-o", out, "--dry-run")
    refused = (
        f" (target_exists: {mine} is there and not from this command: choose another -o, or --overwrite replaces it)"
    )
    told = {"clip.mp4": " (done before)", "done.png": " (done before)", "mine.png": refused, "new.png": ""}
    assert said.splitlines() == [f"{folder / name} -> {out / name}{what}" for name, what in told.items()]
    _, said, _ = run(folder, "-o", out, "--dry-run", "--json", "--overwrite", *LARGER)
    assert [job["found"] for job in json.loads(said)["jobs"]] == [""] * 4
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


@pytest.fixture
def mapped(authface: Command, family: Path, tmp_path: Path) -> Command:
    """``authface restore a.png ...`` by a model that changes faces, into ``out``."""
    words = (photo(tmp_path / "a.png"), "-o", tmp_path / "out", "--model", family, "-O", "restore.steps=1")
    return partial(authface, *words, *OPTIONS[2:], "--device", "cpu")


def test_the_map_of_a_result_goes_with_it(mapped: Command, tmp_path: Path) -> None:
    shown = tmp_path / "out" / "a.change.png"
    assert mapped("--change-map")[0] == 0 and shown.exists()
    assert mapped("--seed", 1)[0] == 0 and not shown.exists()
    assert mapped("--change-map")[0] == 0
    shown.write_bytes(b"mine")
    assert mapped("--seed", 1)[0] == 0 and shown.read_bytes() == b"mine", "somebody changed it"


def test_a_log_with_paths_that_are_none_is_read(run: Command, tmp_path: Path) -> None:
    source, out = photo(tmp_path / "a.png"), tmp_path / "out"
    assert run(source, "-o", out)[0] == 0
    line = json.loads((out / LOG).read_text()) | {"source": "\0", "content": "ab", "map": "ab"}
    (out / LOG).write_text(json.dumps(line | {"change_map": "\0.change.png"}) + "\n")
    code, _, err = run(source, "-o", out, *LARGER)
    assert code == 1 and "target_exists" in err
    assert run(source, "-o", out, *LARGER, "--overwrite")[0] == 0


def test_a_log_that_somebody_wrote_has_no_other_file_deleted(mapped: Command, tmp_path: Path) -> None:
    assert mapped("--change-map")[0] == 0
    out, mine = tmp_path / "out", tmp_path / "mine.change.png"
    shutil.copy(out / "a.change.png", mine)
    text = (out / LOG).read_text()
    for name in ("../mine.change.png", str(mine), f"deep{os.sep}../../mine.change.png"):
        (out / LOG).write_text(text.replace(json.dumps("a.change.png"), json.dumps(name)))
        assert mapped("--seed", 1, "--overwrite")[0] == 0 and mine.exists(), name
