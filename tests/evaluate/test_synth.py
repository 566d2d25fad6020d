"""Test sets with truth: the same inputs give the same files, whatever the order, the limit or the interruptions."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from authface.console import Console
from authface.errors import UsageError
from authface.evaluate.images import file_names, open_sources
from authface.evaluate.settings import SynthSettings
from authface.evaluate.synth import clean_face, synthesize
from authface.faces.degrade import PRESETS, degrade
from authface.imaging import decode as images

Command = Callable[..., tuple[int, str, str]]


def files(out: Path) -> dict[str, str]:
    """Path below `out` and sha256 of every file."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def manifest(out: Path) -> dict[str, Any]:
    held: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    return held


def test_the_set_is_what_its_manifest_says(authface: Command, faces: Path, tmp_path: Path) -> None:
    code, said, _ = authface("synth", faces, "-o", tmp_path / "set", "--degradation", "heavy", "--seed", 3)
    held = manifest(tmp_path / "set")
    assert code == 0 and "6 faces degraded" in said
    assert held["recipe"]["degradation"] == "heavy" and held["recipe"]["ranges"]["jpeg"] == [40, 65]
    assert (held["recipe"]["seed"], held["count"], held["failed"]) == (3, 6, [])
    told = {
        f"{folder}/{row['name']}.png": row[f"{folder}_sha256"]
        for row in held["images"]
        for folder in ("clean", "degraded")
    }
    assert told | {"manifest.json": files(tmp_path / "set")["manifest.json"]} == files(tmp_path / "set")
    data = (faces / "face2.png").read_bytes()
    rgb, seed = clean_face(data, None, 3)
    assert np.array_equal(images.read(tmp_path / "set/clean/face2.png").rgb, rgb)
    assert np.array_equal(images.read(tmp_path / "set/degraded/face2.png").rgb, degrade(rgb, seed, PRESETS["heavy"]))


def test_a_set_of_scans(authface: Command, faces: Path, tmp_path: Path) -> None:
    code, _, _ = authface("synth", faces, "-o", tmp_path / "set", "--degradation", "scan")
    assert code == 0 and manifest(tmp_path / "set")["recipe"]["ranges"]["grain"] == list(PRESETS["scan"].grain)
    rgb, seed = clean_face((faces / "face2.png").read_bytes(), None, 0)
    assert np.array_equal(images.read(tmp_path / "set/degraded/face2.png").rgb, degrade(rgb, seed, PRESETS["scan"]))
    assert "0 faces degraded, 6 were there before" in authface("synth", faces, "-o", tmp_path / "set",
                                                               "--degradation", "scan")[1]  # fmt: skip


def test_a_second_run_does_nothing_and_a_broken_file_is_made_again(
    authface: Command, faces: Path, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    authface("synth", faces, "-o", out)
    first, times = files(out), {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    code, said, _ = authface("synth", faces, "-o", out)
    assert code == 0 and "0 faces degraded, 6 were there before" in said
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times
    (out / "degraded/face1.png").write_bytes(b"torn")
    (out / "clean/face4.png").unlink()
    assert "2 faces degraded, 4 were there before" in authface("synth", faces, "-o", out)[1]
    assert files(out) == first


def test_neither_limit_nor_order_nor_workers_nor_names_change_a_face(
    authface: Command, faces: Path, tmp_path: Path
) -> None:
    authface("synth", faces, "-o", tmp_path / "all")
    authface("synth", faces, "-o", tmp_path / "few", "--limit", 2)
    few, every = files(tmp_path / "few"), files(tmp_path / "all")
    assert len(few) == 5 and all(every[name] == few[name] for name in few if name != "manifest.json")
    authface("synth", faces, "-o", tmp_path / "few")
    assert files(tmp_path / "few") == every
    (faces / "face5.png").rename(faces / "a.png")
    authface("synth", faces, "-o", tmp_path / "renamed")
    assert files(tmp_path / "renamed")["degraded/a.png"] == every["degraded/face5.png"]


def test_worker_processes_give_the_same(faces: Path, tmp_path: Path, portrait: NDArray[np.uint8]) -> None:
    for number in range(40):
        (faces / f"more{number}.png").write_bytes(images.encode_png(np.roll(portrait, number, axis=0)))
    for workers in (1, 2):
        synthesize(tmp_path / str(workers), open_sources(faces, ""), SynthSettings(), 0, Console(), workers=workers)
    assert files(tmp_path / "1") == files(tmp_path / "2") and len(files(tmp_path / "1")) == 93


def test_another_seed_gives_other_files_and_needs_another_folder(
    authface: Command, faces: Path, tmp_path: Path
) -> None:
    authface("synth", faces, "-o", tmp_path / "set")
    code, _, said = authface("synth", faces, "-o", tmp_path / "set", "--seed", 1)
    assert code == 2 and said.count("\n") == 1 and "seed 0 is now 1" in said and "another -o" in said
    authface("synth", faces, "-o", tmp_path / "other", "--seed", 1)
    one, two = files(tmp_path / "set"), files(tmp_path / "other")
    assert one["clean/face0.png"] == two["clean/face0.png"]
    assert one["degraded/face0.png"] != two["degraded/face0.png"]


def test_the_seed_is_made_of_the_pixels(faces: Path) -> None:
    png = (faces / "face0.png").read_bytes()
    rgb, seed = clean_face(png, None, 0)
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "TIFF")
    assert clean_face(buffer.getvalue(), None, 0)[1] == seed == clean_face(png, 64, 0)[1]
    others = {clean_face(png, None, 1)[1], clean_face((faces / "face1.png").read_bytes(), None, 0)[1]}
    assert len(others | {seed}) == 3


def test_what_is_no_square_face_is_a_row(
    authface: Command, faces: Path, tmp_path: Path, portrait: NDArray[np.uint8]
) -> None:
    (faces / "wide.png").write_bytes(images.encode_png(portrait[:100]))
    (faces / "torn.png").write_bytes((faces / "face0.png").read_bytes()[:2000])
    code, said, log = authface("synth", faces, "-o", tmp_path / "set")
    failed = {row["id"]: row["reason"] for row in manifest(tmp_path / "set")["failed"]}
    assert code == 3 and failed == {"wide.png": "not_square", "torn.png": "truncated"}
    assert "128 x 100 px" in log and "authface curate align" in log and "6 faces degraded" in said
    (faces / "wide.png").write_bytes(images.encode_png(portrait))
    assert "1 faces degraded, 6 were there before" in authface("synth", faces, "-o", tmp_path / "set")[1]


def test_a_face_whose_source_is_gone_goes_too(authface: Command, faces: Path, tmp_path: Path) -> None:
    authface("synth", faces, "-o", tmp_path / "set")
    (faces / "face3.png").unlink()
    assert "1 removed" in authface("synth", faces, "-o", tmp_path / "set")[1]
    assert "clean/face3.png" not in files(tmp_path / "set") and manifest(tmp_path / "set")["count"] == 5


def test_a_face_whose_source_became_unusable_goes_too(authface: Command, faces: Path, tmp_path: Path) -> None:
    """Else `evaluate restoration` would take what was made of the source before for truth."""
    out = tmp_path / "set"
    authface("synth", faces, "-o", out)
    before = files(out)
    left = {name for name in before if "face3" in name}
    whole = (faces / "face3.png").read_bytes()
    (faces / "face3.png").write_bytes(whole[:2000])
    code, said, log = authface("synth", faces, "-o", out)
    assert code == 3 and "face3.png: failed (truncated)" in log and "5 in " in said
    assert set(files(out)) == set(before) - left and manifest(out)["failed"][0]["id"] == "face3.png"
    (faces / "face3.png").write_bytes(whole)
    assert authface("synth", faces, "-o", out)[0] == 0 and files(out) == before


def test_files_that_a_failure_left_go_with_its_source(authface: Command, faces: Path, tmp_path: Path) -> None:
    """Sets of before kept them."""
    out = tmp_path / "set"
    (faces / "face3.png").write_bytes(b"torn")
    assert authface("synth", faces, "-o", out)[0] == 3
    for folder in ("clean", "degraded"):
        (out / folder / "face3.png").write_bytes(b"of before")
    (faces / "face3.png").unlink()
    code, said, _ = authface("synth", faces, "-o", out)
    assert code == 0 and "removed" not in said and "clean/face3.png" not in files(out)
    assert "degraded/face3.png" not in files(out) and manifest(out)["failed"] == []


@pytest.mark.parametrize("inside", ["", "test/medium", "../faces"])
def test_no_set_lies_among_its_faces(inside: str, authface: Command, faces: Path) -> None:
    (faces / "deep").mkdir()
    (faces / "face0.png").rename(faces / "deep" / "face0.png")
    before = files(faces)
    code, _, said = authface("synth", faces, "-o", faces / inside)
    assert code == 2 and said.count("\n") == 1 and "which holds the faces: choose another" in said
    assert files(faces) == before
    assert authface("synth", faces / "deep", "-o", faces / "set")[0] == 0


def test_the_next_step_takes_the_faces_as_they_are(authface: Command, faces: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    assert f"next: authface restore {out}/degraded --aligned -o" in authface("synth", faces, "-o", out)[1]


def test_no_other_folder_is_written_into(authface: Command, faces: Path, tmp_path: Path) -> None:
    (tmp_path / "set/clean").mkdir(parents=True)
    (tmp_path / "set/clean/mine.png").write_bytes(b"mine")
    code, _, said = authface("synth", faces, "-o", tmp_path / "set")
    assert code == 2 and "manifest.json is missing" in said
    (tmp_path / "set/manifest.json").write_text('{"name": "mine"}')
    code, _, said = authface("synth", faces, "-o", tmp_path / "set")
    assert code == 2 and "no manifest of authface evaluate synth" in said
    assert (tmp_path / "set/clean/mine.png").read_bytes() == b"mine"


def dataset(folder: Path, faces: Path, ids: list[str], split: str = "test") -> Path:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    rows = [{"image": {"bytes": path.read_bytes(), "path": path.name}} for path in sorted(faces.glob("*.png"))]
    table = pa.Table.from_pylist([row | {"id": id} for row, id in zip(rows, ids, strict=False)])
    pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def test_a_dataset_gives_its_split_under_safe_names(authface: Command, faces: Path, tmp_path: Path) -> None:
    folder = dataset(tmp_path / "dataset", faces, ["plain-0", "a/b", "../up", "A", "a", "con"])
    dataset(folder, faces, ["other"], "train")
    code, _, _ = authface("synth", folder, "-o", tmp_path / "set")
    rows = {row["id"]: row["name"] for row in manifest(tmp_path / "set")["images"]}
    assert code == 0 and rows["plain-0"] == "plain-0" and len(rows) == 6
    assert rows["a/b"].startswith("a_b-") and rows["../up"].startswith("_up-")
    assert rows["A"].casefold() != rows["a"].casefold() and rows["con"] == "face_con-" + rows["con"][-8:]
    code, said, _ = authface("synth", folder, "-o", tmp_path / "t", "-O", "evaluate.synth.split=train", "--json")
    assert code == 0 and json.loads(said)["count"] == 1
    code, _, said = authface("synth", folder, "-o", tmp_path / "v", "-O", "evaluate.synth.split=validation")
    assert code == 2 and "there are test, train" in said
    before = sorted(folder.rglob("*"))
    code, _, said = authface("synth", folder, "-o", folder / "test")
    assert code == 2 and "which holds the faces: choose another" in said and sorted(folder.rglob("*")) == before
    file = folder / "data" / "test-00000-of-00001.parquet"
    pq.write_table(pq.read_table(file).slice(0, 0), file)
    code, _, said = authface("synth", folder, "-o", tmp_path / "none")
    assert code == 2 and said.count("\n") == 1 and "the split test of" in said and "holds no faces" in said


def test_faces_are_resized_where_it_is_asked(authface: Command, faces: Path, tmp_path: Path) -> None:
    authface("synth", faces, "-o", tmp_path / "set", "-O", "evaluate.synth.size=64")
    for folder in ("clean", "degraded"):
        assert images.read(tmp_path / "set" / folder / "face0.png").rgb.shape == (64, 64, 3)


def test_wrong_words_are_one_line(authface: Command, faces: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for words, said in (
        ((faces, "-o", tmp_path / "o", "--degradation", "awful"), "there are gfpgan"),
        ((tmp_path / "nowhere", "-o", tmp_path / "o"), "no folder"),
        ((tmp_path / "empty", "-o", tmp_path / "o"), "holds no images"),
        ((faces, "-o", tmp_path / "o", "--seed", "-1"), "0 and more"),
        ((faces, "-o", tmp_path / "o", "--engine", "ray"), "cores of this machine"),
    ):
        code, _, error = authface("synth", *words)
        assert code == 2 and error.count("\n") == 1 and said in error
    assert not (tmp_path / "o").exists()
    assert authface("synth", faces, "-o", tmp_path / "o", "--dry-run")[0] == 0
    assert not (tmp_path / "o").exists()


@given(st.lists(st.text(max_size=200), unique=True, max_size=30), st.randoms())
def test_names_are_safe_apart_and_independent_of_order(ids: list[str], random: Any) -> None:
    names = file_names(ids, ids)
    assert len({name.casefold() for name in names}) == len(ids)
    for name in names:
        assert name and len(name) < 150 and not name.startswith((".", "-")) and set(name) <= set(SAFE)
    order = list(range(len(ids)))
    random.shuffle(order)
    shuffled = [ids[n] for n in order]
    assert file_names(shuffled, shuffled) == [names[n] for n in order]


SAFE = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"


def test_an_id_twice_is_said() -> None:
    with pytest.raises(UsageError, match="more than once"):
        file_names(["a", "b", "a"], ["a", "b", "a"])
