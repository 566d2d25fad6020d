"""What an export holds in each format: splits, shards, prompts that fit, whole or not at all."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from authface.annotate.export.formats import GROUP_BYTES, Shards, manifest_features
from authface.annotate.export.rows import MEASURES, Feature, features, schema_of
from authface.annotate.export.run import export
from authface.annotate.settings import ExportSettings
from authface.annotate.vocabulary.vocabulary import VOCABULARY
from authface.console import Console
from authface.curate.forget.run import forget
from authface.errors import AuthfaceError, UsageError
from authface.files import place
from authface.records import Choice, Crop, Person
from authface.review.reviews import choice_table
from authface.store.journal import dataset_ids, uses
from authface.store.photoset import PhotoSet, Provenance

MakeSet = Callable[..., PhotoSet]
SPLIT = [{}, {"split": "val"}, {}, {"split": "test", "licence": "unknown"}, {}, {}]


def loaded(folder: Path, tmp_path: Path) -> Any:
    import datasets

    return datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))


def kept(photoset: PhotoSet) -> dict[str, Crop]:
    return {crop.id: crop for crop in photoset.crops if crop.status == "kept"}


def test_splits_open_by_name_with_all_that_is_known_of_a_row(make_set: MakeSet, tmp_path: Path) -> None:
    photoset = make_set(tmp_path / "set", SPLIT, part_rows=2)
    done = export(photoset, ExportSettings(annotators=("llava", "measured")), Console())
    assert done.splits == {"train": 4, "validation": 1, "test": 1} and done.rows == 6
    sets = loaded(done.folder, tmp_path)
    people = {person.id: person.split for person in photoset.people}
    names = {"train": "train", "validation": "val", "test": "test"}
    assert {row["id"]: names[split] for split in sets for row in sets[split]} == people
    row = sets["train"][0]
    face = next(face for face in photoset.faces if face.id == row["id"])
    assert set(MEASURES) | {"face_size", "disagreement", "pad_fraction", "upscaled"} == set(row["quality"])
    assert row["quality"]["yaw"] == pytest.approx(face.yaw) and row["quality"]["noise"] is None
    assert (row["photo"]["width"], row["photo"]["format"], row["size"]) == (96, "JPEG", 64)
    assert row["quad"] == list(kept(photoset)[row["id"]].quad or ())
    assert row["face"]["box"] == pytest.approx(face.box) and len(row["face"]["points5"]) == 10
    assert row["prompt"] == "smiling, long hair, light from the right, window light, low key"
    assert (row["prompt_semantic"], row["retouched"]) == ("long hair", False)
    assert {(tag["name"], tag["annotator"]) for tag in row["tags"]} >= {("low key", "measured"), ("smiling", "llava")}
    card = (done.folder / "README.md").read_text()
    assert "| validation | 1 |" in card and "| unknown | 1 |" in card and "\\<b\\>One" in card


def test_who_is_in_no_split_or_leaks_is_left_out_and_counted(make_set: MakeSet, tmp_path: Path) -> None:
    photoset = make_set(tmp_path / "set", [{}] * 4)
    table, meta = photoset.people, photoset.people.meta(0)
    rows = table.rows(0)
    rows[0] = Person(id=rows[0].id, photo_id=rows[0].photo_id, status="failed", reason="truncated")
    rows[1] = Person(id=rows[1].id, photo_id=rows[1].photo_id, split="train", status="rejected", reason="leak")
    assert meta is not None
    table.write(0, rows, meta.provenance, meta.inputs)
    done = export(photoset, ExportSettings(), Console())
    assert (done.rows, done.left_out) == (2, {"truncated": 1, "leak": 1})
    assert "left out: leak | 1" in (done.folder / "README.md").read_text()
    table.write(0, rows, meta.provenance, "of other crops")
    with pytest.raises(AuthfaceError, match="curate split"):
        export(photoset, ExportSettings(least_confidence=0.1), Console())


def test_the_choice_of_balance_is_honoured(make_set: MakeSet, tmp_path: Path) -> None:
    photoset = make_set(tmp_path / "set", [{}] * 3, split=False)
    whole = export(photoset, ExportSettings(), Console())
    assert whole.splits == {"train": 3}
    rows = [Choice(id=crop.id, photo_id=crop.photo_id) for crop in photoset.crops]
    rows[0] = Choice(id=rows[0].id, photo_id=rows[0].photo_id, status="rejected", reason="over_represented")
    meta = photoset.crops.meta(0)
    assert meta is not None
    choice_table(photoset).write(0, rows, Provenance("balance", 1, {}, {}), meta.digest)
    less = export(photoset, ExportSettings(), Console())
    assert (less.rows, less.left_out, less.written) == (2, {"over_represented": 1}, True)
    assert rows[0].photo_id not in dataset_ids(less.folder)


def test_a_long_prompt_loses_its_last_tags(make_set: MakeSet, tmp_path: Path) -> None:
    many = tuple(name for names in VOCABULARY.values() for name in names[:5])
    photoset = make_set(tmp_path / "set", [{"llava": many}])
    row = loaded(export(photoset, ExportSettings(annotators=("llava",)), Console()).folder, tmp_path)["train"][0]
    assert row["tokens"] <= 75 and len(row["tags"]) == len(many)
    names = [tag["name"] for tag in row["tags"]]
    assert row["prompt"].split(", ") == names[: row["prompt"].count(", ") + 1] and "background" not in row["prompt"]
    whole = export(photoset, ExportSettings(annotators=("llava",), max_tokens=0), Console())
    assert loaded(whole.folder, tmp_path)["train"][0]["tokens"] > 75


def test_shards_are_small_and_hold_every_row_once(make_set: MakeSet, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    photoset = make_set(tmp_path / "set", [{}, {"split": "test"}] * 170, part_rows=50)
    done = export(photoset, ExportSettings(shard_megabytes=1), Console())
    files = sorted((done.folder / "data").glob("*.parquet"))
    ids = [row for file in files for row in pq.read_table(file, columns=["id"]).column("id").to_pylist()]
    assert sorted(ids) == sorted(kept(photoset))
    assert [file.name.partition("-")[0] for file in files] == ["test", "test", "train", "train"]
    assert all(file.stat().st_size < 1_100_000 for file in files)
    assert len(loaded(done.folder, tmp_path)["test"]) == 170


@pytest.mark.parametrize(
    ("group", "size", "groups"), [(100, 1, [100, 100, 50]), (240, GROUP_BYTES // 120, [120, 120, 10])]
)
def test_groups_end_by_rows_and_by_bytes(group: int, size: int, groups: list[int], tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    shards = Shards(tmp_path / "data", pa.schema([("split", pa.string()), ("id", pa.int64())]), "k" * 64, 10**9, group)
    for number in range(sum(groups)):
        shards.add({"split": "", "id": number}, size)
    shards.close()
    file = pq.ParquetFile(next((tmp_path / "data").iterdir()))
    assert [file.metadata.row_group(at).num_rows for at in range(file.metadata.num_row_groups)] == groups
    assert file.read().column("id").to_pylist() == list(range(sum(groups)))


@pytest.mark.parametrize("format", ["imagefolder", "webdataset", "kohya", "manifest"])
def test_other_formats_hold_the_same_rows(format: str, make_set: MakeSet, tmp_path: Path) -> None:
    photoset = make_set(tmp_path / "set", SPLIT)
    settings = ExportSettings(format=format, annotators=("measured",))
    done = export(photoset, settings, Console())
    assert done.folder == photoset.root / "exports" / format and done.written
    assert not export(photoset, settings, Console()).written
    crops = kept(photoset)
    found = READERS[format](done.folder, tmp_path)
    assert {id: split for id, (split, _, _) in found.items()} == {
        person.id: {"val": "validation"}.get(person.split, person.split) for person in photoset.people
    }
    for id, (_, prompt, png) in found.items():
        assert prompt == "smiling, light from the left, low key"
        assert png is None or png == photoset.read(crops[id].file)
    assert "biometric" in (done.folder / "README.md").read_text()
    assert set(dataset_ids(done.folder)) == {crop.photo_id for crop in crops.values()}
    assert uses(photoset)[-1].path == str(done.folder) and not list(photoset.root.glob("exports/.tmp-*"))


Rows = dict[str, tuple[str, str, bytes | None]]
"""By id: split, prompt, the file of the image."""


def imagefolder(folder: Path, tmp_path: Path) -> Rows:
    sets = loaded(folder, tmp_path)
    row = sets["test"][0]
    file = folder / "test" / f"{row['id']}.png"
    assert np.array_equal(np.asarray(row["image"]), np.asarray(Image.open(file)))
    return {
        row["id"]: (split, row["prompt"], (folder / split / f"{row['id']}.png").read_bytes())
        for split in sets
        for row in sets[split].remove_columns("image")
    }


def webdataset(folder: Path, tmp_path: Path) -> Rows:
    sets = loaded(folder, tmp_path)
    assert len(sets["train"]) == 4
    told, known = sets["train"].features, datasets.Features.from_dict(features())
    assert told["json"] == {name: kind for name, kind in known.items() if name != "image"}, "not as the first rows look"
    assert told["png"] == known["image"] and sets["test"][0]["json"]["quality"]["noise"] is None
    found: Rows = {}
    for shard in folder.glob("*.tar"):
        with tarfile.open(shard) as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        for name in files:
            if name.endswith(".json"):
                row, key = json.loads(files[name]), name.removesuffix(".json")
                assert row["id"] == key and files[f"{key}.txt"].decode() == row["prompt"]
                found[key] = (shard.name.rpartition("-")[0], row["prompt"], files[f"{key}.png"])
    return found


def kohya(folder: Path, tmp_path: Path) -> Rows:
    config = tomllib.loads((folder / "dataset.toml").read_text())
    (dataset,) = config["datasets"]
    assert (dataset["resolution"], dataset["subsets"][0]["image_dir"]) == (64, str(folder / "train"))
    return {
        text.stem: (text.parent.name, text.read_text().strip(), text.with_suffix(".png").read_bytes())
        for text in folder.glob("*/*.txt")
    }


def manifest(folder: Path, tmp_path: Path) -> Rows:
    sets = loaded(folder, tmp_path)
    assert "image" not in sets["train"].features and len(sets["train"][0]["pixels_sha256"]) == 64
    assert not any(b"\x89PNG" in file.read_bytes() for file in folder.rglob("*") if file.is_file())
    return {row["id"]: (split, row["prompt"], None) for split in sets for row in sets[split]}


READERS = {"imagefolder": imagefolder, "webdataset": webdataset, "kohya": kohya, "manifest": manifest}


def test_what_others_put_into_an_export_is_not_deleted(make_set: MakeSet, tmp_path: Path) -> None:
    photoset, settings = make_set(tmp_path / "set", SPLIT), ExportSettings(annotators=("measured",))
    folder = export(photoset, settings, Console()).folder
    (folder / "NOTES.md").write_text("mine")
    other = settings.model_copy(update={"least_confidence": 0.1})
    with pytest.raises(UsageError, match="holds 1 files that no export wrote"):
        export(photoset, other, Console())
    assert (folder / "NOTES.md").read_text() == "mine"
    next(folder.glob("data/*.parquet")).unlink()
    (folder / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="holds 2 files"):
        export(photoset, other, Console())
    (folder / "NOTES.md").unlink()
    (folder / "link").unlink()
    assert export(photoset, other, Console()).written
    there = settings.model_copy(update={"to": str(tmp_path / "there")})
    assert export(photoset, there, Console()).written
    with pytest.raises(UsageError, match="an export of another set"):
        export(make_set(tmp_path / "second", [{"licence": "CC0-1.0"}]), there, Console())
    assert export(photoset, there.model_copy(update={"least_confidence": 0.1}), Console()).written


def test_an_edited_configuration_stays_and_knows_its_folder(make_set: MakeSet, tmp_path: Path) -> None:
    photoset, settings = make_set(tmp_path / "set", SPLIT), ExportSettings(format="kohya", annotators=("measured",))
    folder = export(photoset, settings, Console()).folder
    mine = (folder / "dataset.toml").read_text().replace("num_repeats = 1", "num_repeats = 10 # mine")
    (folder / "dataset.toml").write_text(mine)
    assert not export(photoset, settings, Console()).written and (folder / "dataset.toml").read_text() == mine
    photoset.root.rename(tmp_path / "moved")
    moved = PhotoSet(tmp_path / "moved")
    assert not export(moved, settings, Console()).written
    (told,) = tomllib.loads((moved.root / "exports/kohya/dataset.toml").read_text())["datasets"][0]["subsets"]
    assert told["num_repeats"] == 10 and told["image_dir"] == str(moved.root / "exports/kohya/train")


@pytest.mark.parametrize("format", ["kohya", "files"])
def test_files_without_columns_have_their_credits_beside_them(format: str, make_set: MakeSet, tmp_path: Path) -> None:
    photoset = make_set(tmp_path / "set", SPLIT)
    folder = export(photoset, ExportSettings(format=format, annotators=("measured",)), Console()).folder
    told = {line["file"]: line for line in map(json.loads, (folder / "credits.jsonl").read_text().splitlines())}
    photos = {path.relative_to(folder).as_posix() for path in folder.glob("*/*") if path.suffix in {".png", ".jpg"}}
    assert told.keys() == photos and len(told) == 6
    assert {line["licence"] for line in told.values()} == {photo.licence for photo in photoset.photos}
    assert {line["photographer"] for line in told.values()} == {photo.photographer for photo in photoset.photos}
    assert "`credits.jsonl` names the source" in (folder / "README.md").read_text()


def test_an_annotator_named_twice_says_everything_once(make_set: MakeSet, tmp_path: Path) -> None:
    photoset = make_set(tmp_path / "set", SPLIT)
    settings = [ExportSettings(annotators=("measured",) * n, to=str(tmp_path / str(n))) for n in (1, 2)]
    once, twice = (loaded(export(photoset, one, Console()).folder, tmp_path) for one in settings)
    assert once["train"]["prompt"] == twice["train"]["prompt"] and once["train"]["tags"] == twice["train"]["tags"]


def test_another_folder_is_written_but_never_one_that_holds_something_else(make_set: MakeSet, tmp_path: Path) -> None:
    photoset = make_set(tmp_path / "set", SPLIT)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="holds something that is no export"):
        export(photoset, ExportSettings(to=str(mine)), Console())
    assert (mine / "thesis.txt").read_text() == "years of work"
    done = export(photoset, ExportSettings(to=str(tmp_path / "there"), format="kohya"), Console())
    assert done.folder == tmp_path / "there" and not (photoset.root / "exports").exists()
    assert export(photoset, ExportSettings(to=str(tmp_path / "there")), Console()).written


def test_a_set_on_a_store_is_exported_to_a_folder_of_this_machine(make_set: MakeSet, tmp_path: Path) -> None:
    local = make_set(tmp_path / "set", SPLIT)
    store = PhotoSet(place("memory://set"))
    for file in local.root.rglob("*"):
        if file.is_file():
            store.save(file.relative_to(local.root).as_posix(), file.read_bytes())
    with pytest.raises(UsageError, match="--to FOLDER"):
        export(store, ExportSettings(), Console())
    done = export(store, ExportSettings(to=str(tmp_path / "out")), Console())
    assert len(loaded(done.folder, tmp_path)["train"]) == 4


@pytest.mark.parametrize("moment", ["photo_ids.txt", "data/train-*.parquet"])
def test_a_killed_export_leaves_the_old_one_and_the_next_mends_it(
    moment: str, make_set: MakeSet, tmp_path: Path
) -> None:
    photoset = make_set(tmp_path / "set", [{}] * 500)
    before = export(photoset, ExportSettings(annotators=("llava",)), Console())
    bytes_before = {path: path.read_bytes() for path in before.folder.rglob("*") if path.is_file()}
    command = [sys.executable, "-m", "authface.cli", "annotate", "export", str(photoset.root)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while running.poll() is None and not any((photoset.root / ".tmp-dataset").glob(moment)):
        time.sleep(0.001)
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL, "the export was done before it could be killed"
    assert {path: path.read_bytes() for path in before.folder.rglob("*") if path.is_file()} == bytes_before
    done = export(photoset, ExportSettings(), Console())
    assert done.written and len(loaded(done.folder, tmp_path)["train"]) == 500
    assert not list(photoset.root.glob(".tmp-*"))
    png = loaded(done.folder, tmp_path)["train"].with_format("arrow")[0]["image"][0].as_py()["bytes"]
    assert Image.open(io.BytesIO(png)).size == (64, 64)


def test_a_forgotten_photo_takes_the_exports_that_hold_it_along(make_set: MakeSet, tmp_path: Path) -> None:
    photoset = make_set(tmp_path / "set", SPLIT)
    (gone, *_), settings = list(photoset.photos), ExportSettings(annotators=("measured",))
    for format in ("webdataset", "kohya"):
        export(photoset, settings.model_copy(update={"format": format}), Console())
    forget(photoset, [gone], reason="asked", dry_run=False)
    assert not [path for path in photoset.root.glob("exports/**/*") if path.is_file()]
    done = export(photoset, settings.model_copy(update={"format": "webdataset"}), Console())
    assert done.rows == 5 and gone.id not in dataset_ids(done.folder)
    other = next(photo for photo in photoset.photos if photo.id == next(iter(kept(photoset).values())).photo_id)
    assert other.id in dataset_ids(done.folder)


@pytest.mark.parametrize("told", [features(), manifest_features()], ids=["dataset", "manifest"])
def test_the_schema_is_that_of_datasets(told: Feature) -> None:
    theirs = datasets.Features.from_dict(told)
    assert schema_of(told).equals(theirs.arrow_schema, check_metadata=True)
    assert datasets.Features.from_arrow_schema(schema_of(told)) == theirs


def test_a_type_that_nobody_knows_is_refused() -> None:
    with pytest.raises((ValueError, pa.ArrowException)):
        schema_of({"a": {"dtype": "float33", "_type": "Value"}})
