"""What authface made is known by what lies beside it and by content; what somebody puts there is theirs."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from authface.curate.fetch.sources.folder import LINKED, RESULTS, Outputs, photo_files
from authface.store.photoset import PhotoSet
from authface.store.restore_line import Line
from authface.store.restore_log import LOG, PAGE_FILES, Log

FACE = "ab" + 62 * "0"


def put(path: Path, data: bytes = b"picture") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def restored(home: Path, name: str, data: bytes, content: bytes = b"photo") -> None:
    """A result as `restore` leaves it: the file, and its line in the log."""
    put(home / name, data)
    digests = [hashlib.sha256(some).hexdigest() for some in (content, data)]
    line = Line(
        target=name, source="/elsewhere/a.jpg", content=digests[0], fingerprint="f", made="2026", status="restored",
        lines=1, result=digests[1], result_bytes=len(data), face=0,
    )  # fmt: skip
    Log(home / LOG).add([line])


def test_links_to_folders_are_counted_and_not_looked_into(tmp_path: Path) -> None:
    put(tmp_path / "photos" / "a.jpg")
    put(tmp_path / "far" / "b.jpg")
    for name, where in (
        ("far", tmp_path / "far"),
        ("back.jpg", tmp_path / "photos"),
        ("c.jpg", tmp_path / "far/b.jpg"),
        ("itself.jpg", "itself.jpg"),
        ("nowhere.jpg", tmp_path / "nowhere"),
    ):
        (tmp_path / "photos" / name).symlink_to(where)
    ignored = Counter[str]()
    found = [(path.name, problem) for path, problem in photo_files(tmp_path / "photos", ignored)]
    assert found == [(name, "") for name in ("a.jpg", "c.jpg", "itself.jpg", "nowhere.jpg")]
    assert ignored == {LINKED: 2}


def test_a_set_owns_what_it_names_by_content(furnished: Callable[[Path], PhotoSet], tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    mine = put(photoset.root / "photos" / "holiday.jpg")
    beside = put(photoset.root / "photos" / "ab" / f"cd{62 * '0'}.jpg")
    pictures = {path for ending in ("jpg", "png") for path in photoset.root.rglob(f"*.{ending}")}
    outputs = Outputs(tmp_path)
    assert {path for path in pictures if not outputs.what(path)} == {mine, beside}
    assert {outputs.what(path) for path in pictures} == {"", "of a photo set"}
    assert Outputs(photoset.root / "crops").what(next(photoset.root.glob("crops/*/*.png"))) == "of a photo set"


def test_a_set_whose_first_run_was_killed_owns_its_originals(tmp_path: Path) -> None:
    file = put(tmp_path / "photos" / "ab" / f"{FACE}.jpg")
    assert Outputs(tmp_path).what(file) == ""
    put(tmp_path / "recipe.toml")
    assert Outputs(tmp_path).what(file) == "of a photo set"


@pytest.mark.parametrize(
    ("marks", "own", "others", "what"),
    [
        ({"authface.json": '{"made_from": "1"}'}, "train/a.png", "", "of an export"),
        ({"model_index.json": "{}"}, "training-curve.png", "", "of a model"),
        ({"training/run.json": "{}"}, "training/validation/1.png", "a.png", "of a training"),
        ({"retouch.json": "[]"}, f"{FACE}-0.png", "a.png", "to be retouched"),
        ({"manifest.json": "{}", "clean/1.png": "", "degraded/1.png": ""}, "clean/2.png", "a.png", "of a test set"),
    ],
)
def test_a_folder_is_known_by_what_lies_in_it(
    marks: dict[str, str], own: str, others: str, what: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    file = put(home / own)
    assert Outputs(tmp_path).what(file) == ""
    for name, text in marks.items():
        put(home / name, text.encode())
    assert Outputs(tmp_path).what(file) == what
    assert Outputs(file.parent).what(file) == what
    assert not others or Outputs(tmp_path).what(put(home / others)) == ""
    assert Outputs(tmp_path).what(put(tmp_path / "beside.png")) == ""


@pytest.mark.parametrize("text", ["", "[1]", '{"version": 2}', "[" * 100_000])
def test_a_foreign_file_of_an_exports_name_is_no_mark(text: str, tmp_path: Path) -> None:
    put(tmp_path / "authface.json", text.encode())
    assert Outputs(tmp_path).what(put(tmp_path / "a.png")) == ""


def test_results_of_restoring_are_known_by_log_and_bytes(tmp_path: Path) -> None:
    album = tmp_path / "album"
    restored(album, "a.restored.jpg", b"result")
    restored(album, "same.jpg", b"photo")
    put(album / "a.jpg", b"photo")
    put(album / "b.restored.jpg", b"the user's own")
    put(tmp_path / "copied" / "holiday.jpg", b"result")
    moved = Path(shutil.move(album, tmp_path / "moved"))
    outputs = Outputs(tmp_path)
    files = [path for path in sorted(tmp_path.rglob("*.jpg")) if outputs.what(path) == RESULTS]
    assert files == [tmp_path / "copied" / "holiday.jpg", moved / "a.restored.jpg", moved / "same.jpg"]
    assert Outputs(moved).what(moved / "a.restored.jpg") == RESULTS


def test_pictures_of_a_page_of_restoring_are_known(tmp_path: Path) -> None:
    picture = put(tmp_path / "album" / PAGE_FILES / "ab" / "1-photo.jpg")
    assert Outputs(tmp_path).what(picture) == "of a page of authface restore"
    assert Outputs(picture.parent).what(picture) == "of a page of authface restore"
    assert Outputs(tmp_path).what(put(tmp_path / "album" / "1-photo.jpg")) == ""


def test_a_failed_line_and_a_foreign_log_make_nothing(tmp_path: Path) -> None:
    mine = put(tmp_path / "a.restored.jpg")
    line = Line(target=mine.name, source="a.jpg", content="", fingerprint="f", made="2026", status="failed")
    Log(tmp_path / LOG).add([line])
    put(tmp_path / "other" / LOG, json.dumps({"a": 1}).encode())
    assert Outputs(tmp_path).what(mine) == ""
    assert Outputs(tmp_path).what(put(tmp_path / "other" / "a.jpg")) == ""
