"""`annotate import authface-hq`: the release's layout becomes a photo set that exports."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import data
from typer.testing import CliRunner

from authface.annotate.captioners.released import caption_of
from authface.annotate.rebuild.authface_hq import SOURCE
from authface.annotate.vocabulary.vocabulary import prompt
from authface.annotate.vocabulary.wording import parse_tags
from authface.cli import app
from authface.errors import AuthfaceError
from authface.faces.geometry import crop_to_photo
from authface.imaging import decode as images
from authface.records import now
from authface.review.reviews import Decision, decision_log
from authface.store.photoset import PhotoSet

CAPTION = "A studio shot. Close-up portrait, short brown hair, smiling, soft lighting, blurred background"


@pytest.fixture
def release(tmp_path: Path, aligned: dict[str, Any]) -> Path:
    """Two faces as they are released, and what may go wrong with others."""
    folder = tmp_path / "release"
    (folder / "woman").mkdir(parents=True)
    (folder / "man").mkdir()
    (folder / ".hidden").mkdir()

    def put(name: str, picture: bytes, caption: str | bytes | None) -> None:
        (folder / f"{name}.png").write_bytes(picture)
        if caption is not None:
            file = folder / f"{name}_qwen.json"
            file.write_bytes(caption if isinstance(caption, bytes) else caption.encode())

    woman, man = (images.encode_png(aligned[name][0]) for name in ("astronaut", "hopper"))
    put("woman/woman_1", woman, json.dumps({"caption": CAPTION}))
    put("woman/woman_2", woman, json.dumps("smiling"))
    put("man/man_1", man, json.dumps(["elderly", {"tags": ["glasses", "hat"]}]))
    put("man/man_2", images.encode_png(np.ascontiguousarray(aligned["hopper"][0][:, ::-1])), None)
    put("man/man_3", images.encode_png(np.ascontiguousarray(aligned["astronaut"][0][:, ::-1])), b"\xff{broken")
    put("man/man_4", man[: len(man) // 2], json.dumps("beard"))
    put("man/man_5", images.encode_png(data.coffee()[:300, :300]), json.dumps("no face"))
    put("man/man_6", images.encode_png(np.ascontiguousarray(aligned["hopper"][0][:500])), json.dumps("not square"))
    put(".hidden/man_7", man, None)
    (folder / "README.txt").write_text("non-commercial")
    return folder


def authface(*words: object) -> Any:
    done = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert done.exit_code in {0, 3}, done.exception
    return json.loads(done.stdout) | {"code": done.exit_code, "said": done.stderr}


def test_a_release_comes_in_with_reasons_for_what_does_not(
    release: Path, tmp_path: Path, aligned: dict[str, Any]
) -> None:
    root = tmp_path / "set"
    done = authface("annotate", "import", SOURCE, release, root)
    photoset = PhotoSet(root)
    assert (done["imported"], done["before"], done["code"]) == (8, 0, 3)
    photos = {photo.source_id: photo for photo in photoset.photos}
    assert {name.rpartition("/")[2]: photo.reason for name, photo in photos.items() if photo.reason} == {
        "man_4.png": "truncated", "woman_2.png": "duplicate",
    }  # fmt: skip
    assert all(photo.source == SOURCE and "non-commercial" in photo.licence for photo in photos.values())
    named = {photo.id: photo.source_id for photo in photos.values() if photo.status == "kept"}
    crops = {named[crop.photo_id]: crop for crop in photoset.crops}
    assert {name for name, crop in crops.items() if crop.status == "kept"} == {
        "woman/woman_1.png", "man/man_1.png", "man/man_2.png", "man/man_3.png",
    }  # fmt: skip
    assert crops["man/man_6.png"].reason == "not_square"
    assert {named[face.photo_id] for face in photoset.faces if face.reason == "no_face"} == {"man/man_5.png"}
    woman = crops["woman/woman_1.png"]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(photoset.read(woman.file)))), aligned["astronaut"][0])
    assert np.allclose(crop_to_photo(woman.quad or (), woman.size), np.reshape(woman.to_photo or (), (2, 3)))
    assert np.allclose(np.reshape(woman.landmarks or (), (68, 2)), aligned["astronaut"][1], atol=12)
    said = {named[row.id.partition("-")[0]]: row for row in photoset.tags("qwen")}
    assert prompt(said["woman/woman_1.png"].tags) == (
        "close-up portrait, smiling, short hair, brown hair, soft light, shallow depth of field"
    )
    assert prompt(said["man/man_1.png"].tags) == "elderly, glasses, hat"
    assert (said["man/man_2.png"].reason, said["man/man_3.png"].reason) == ("no_caption", "no_caption")
    for words in ("man_2.png: no man_2_qwen.json", "man_3_qwen.json: the file is no JSON", "man_4.png: "):
        assert words in done["said"]


def test_names_and_captions_that_are_no_utf8_and_links_to_folders(release: Path, tmp_path: Path) -> None:
    picture = (release / "man" / "man_1.png").read_bytes()
    (release / "man" / "man_1.png").unlink()
    (release / os.fsdecode(b"m\xff.png")).write_bytes(picture)
    (release / "woman" / "woman_1_qwen.json").write_text('{"caption": "smiling, \\ud83d"}')
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "more.png").write_bytes(picture)
    (release / "woman" / "far").symlink_to(tmp_path / "far")
    (release / "woman" / "back").symlink_to("..")
    done = authface("annotate", "import", SOURCE, release, tmp_path / "set")
    assert done["imported"] == 8 and done["said"].count("is a link to a folder") == 2
    extras = {photo.source_id: json.loads(photo.extra or "{}") for photo in PhotoSet(tmp_path / "set").photos}
    assert extras["m\\xff.png"] == {"caption_problem": "no m\\udcff_qwen.json beside the picture"}
    assert extras["woman/woman_1.png"] == {"caption": "smiling, \\ud83d"}
    assert "m\\xff.png: no m" in done["said"]


def test_an_import_goes_on_follows_reviews_and_exports(release: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    command = ("annotate", "import", SOURCE, release, root)
    assert authface(*command, "--limit", 3)["imported"] == 3
    again = authface(*command)
    assert (again["imported"], again["before"]) == (5, 3)
    assert authface(*command)["imported"] == 0
    photoset = PhotoSet(root)
    first = next(crop for crop in photoset.crops if crop.status == "kept")
    decision_log(photoset, "anna").append(Decision(id=first.id, verdict="reject", at=now("microseconds")))
    tagged = authface("annotate", "tags", root, "--with", "qwen")
    assert tagged["made"] == 1 and tagged["counts"]["rejected: rejected_in_review"] == 1
    exported = authface("annotate", "export", root)
    assert exported["rows"] == 1 and f"curate split {root}" in exported["warnings"][0]


def test_a_forgotten_picture_under_another_name_is_passed_over_once_and_for_all(release: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    command = ("annotate", "import", SOURCE, release, root)
    authface(*command)
    photoset = PhotoSet(root)
    gone = next(photo for photo in photoset.photos if photo.status == "kept")
    authface("curate", "forget", root, gone.id)
    (release / gone.source_id).rename(release / "man" / "jane.png")
    authface(*command)
    before = list(photoset.photos)
    assert authface(*command)["imported"] == 0 and list(photoset.photos) == before
    assert not any("jane" in photo.source_id or photo.id == gone.id for photo in before)


def test_a_caption_that_comes_later_is_read_at_the_next_import(release: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    command = ("annotate", "import", SOURCE, release, root)
    assert authface(*command)["recaptioned"] == 0
    crops = {crop.id: PhotoSet(root).read(crop.file) for crop in PhotoSet(root).crops if crop.status == "kept"}
    (release / "man" / "man_2_qwen.json").write_text(json.dumps("beard"))
    (release / "man" / "man_3_qwen.json").write_text(json.dumps("glasses"))
    (release / "man" / "man_1_qwen.json").unlink()
    os.utime(release / "man" / "man_3.png", (1e9, 1e9))
    again = authface(*command)
    assert (again["imported"], again["before"], again["recaptioned"]) == (1, 7, 2)  # the touched one is a duplicate
    photoset = PhotoSet(root)
    named = {photo.id: photo.source_id for photo in photoset.photos if photo.status == "kept"}
    said = {named[row.id.partition("-")[0]]: prompt(row.tags) for row in photoset.tags("qwen") if row.status == "kept"}
    assert {name: said[f"man/{name}.png"] for name in ("man_1", "man_2", "man_3")} == {
        "man_1": "elderly, glasses, hat", "man_2": "beard", "man_3": "glasses",
    }  # fmt: skip
    assert crops == {crop.id: photoset.read(crop.file) for crop in photoset.crops if crop.status == "kept"}
    assert authface(*command)["recaptioned"] == 0


def test_nothing_to_import_is_one_line(tmp_path: Path) -> None:
    for folder, words in ((tmp_path / "none", "no folder"), (tmp_path, "holds no pictures")):
        error = CliRunner().invoke(app, ["annotate", "import", SOURCE, str(folder), str(tmp_path / "set")]).exception
        assert isinstance(error, AuthfaceError) and words in str(error) and len(str(error).splitlines()) == 1


@pytest.mark.parametrize(
    ("value", "caption"),
    [
        ("a, b", "a, b"),
        (["a", "b"], "a, b"),
        ({"answer": "a"}, "a"),
        ({"Tags": ["a", {"text": "b"}], "image": "x.png"}, "a, b"),
        ({"woman_1.png": {"caption": "a"}}, "woman_1.png: a"),
        ({"image": "x.png", "hair": "long", "light": ["soft"]}, "hair: long, light: soft"),
        ([{"from": "gpt", "output": "a"}], "a"),
    ],
)
def test_a_caption_is_found_in_many_forms(value: Any, caption: str) -> None:
    assert caption_of(json.dumps(value).encode()) == caption


@pytest.mark.parametrize(
    "value",
    [
        [{"tag": "glasses", "present": False}, "beard"],
        [{"present": False, "tag": "glasses", "colour": "red"}, {"tag": "beard", "present": True}],
        {"glasses": False, "beard": True},
        {"tags": {"glasses": 0, "beard": 1}},
        {"tags": [{"name": "glasses", "value": False}, {"label": "beard", "score": 0.9}]},
        {"tags": [["glasses", False], ["beard", True]]},
        {"glasses": {"present": False, "colour": "black"}, "beard": {"present": True}},
        {"items": [{"tags": ["glasses", "hat"], "present": "no"}, {"tag": "beard"}]},
        [{"tag": "glasses", "absent": True}, {"tag": "beard", "absent": False}],
        [{"tag": "glasses", "present": None}, "beard"],
    ],
)
def test_what_a_json_says_is_not_there_is_no_tag(value: Any) -> None:
    found = parse_tags(caption_of(json.dumps(value).encode()), closed=True, most=30)
    assert [tag.name for tag in found.tags] == ["beard"]


@pytest.mark.parametrize("value", [b"", b"{", b"\xff", b"3", b"{}", b"[]", b'{"caption": null}', b"[" * 99_999])
def test_a_file_without_a_caption_says_so(value: bytes) -> None:
    with pytest.raises(ValueError, match="JSON"):
        caption_of(value)


json_values: Callable[[Any], Any] = lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)  # noqa: E731


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), json_values, max_leaves=20))
def test_any_json_is_a_caption_or_an_error(value: Any) -> None:
    try:
        assert caption_of(json.dumps(value).encode()).strip()
    except ValueError as error:
        assert "JSON" in str(error)
