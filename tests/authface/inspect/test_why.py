"""`why` tells all of one photo and nothing of another; `status` finds what is outdated and what comes next."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from authface.errors import UsageError
from authface.inspect.status import next_step, read_status
from authface.inspect.why import find_photo, photo_history, photos_of, to_text
from authface.records import Person
from authface.store.journal import Use, record_training, record_use, training_sources, uses
from authface.store.photoset import PhotoSet, Provenance, Table
from tests.conftest import authface

Furnished = Callable[[Path], PhotoSet]


def test_all_that_happened_is_told(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    first, second = list(photoset.photos)[:2]
    found = photo_history(photoset, "photo-1")
    text = to_text(found)
    for said in (second.id, "Maker 1", "CC0", "sharpness 0.3", "musiq 51", "light from the", "split train",
                 "keep by anna", "nearly repeated by", "2026"):  # fmt: skip
        assert said in text
    assert first.id not in text.replace(f"identity {first.id}", ""), "of the other only the group's name"
    assert list(found.rows) == ["faces", "crops", "people", "tags/measured"]
    assert json.dumps(found.as_json())


def test_a_rejection_has_its_value_and_limit(furnished: Furnished, tmp_path: Path) -> None:
    text = to_text(photo_history(furnished(tmp_path / "set"), "photo-2"))
    assert "rejected: duplicate, 2 where the limit is 4" in text
    assert "failed: truncated, cut" in to_text(photo_history(PhotoSet(tmp_path / "set"), "photo-6"))


def test_people_are_found_in_a_part_of_another_number(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    photo = list(photoset.photos)[0]
    for part in photoset.people.parts():
        photoset.people.remove(part)
    person = Person(id=f"{photo.id}-0", photo_id=photo.id, split="test")
    photoset.people.write(7, [person], Provenance("split", 1, {}, {}), "")
    meta = photoset.people.meta(7)
    assert meta is not None
    vectors = photoset.people.arrow(7, ["id", "status", "reason"]).append_column("embedding", [[[0.5, 0.5]]])
    Table(photoset.root / "tables" / "embeddings", Person).put(7, vectors, meta)
    found = photo_history(photoset, photo.id)
    assert found.rows["people"][0]["split"] == "test" and "embeddings" in found.rows
    assert '"embedding"' not in json.dumps(found.as_json()) and "0.5" not in to_text(found)


def test_torn_and_foreign_lines_of_a_log_do_no_harm(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    photo = list(photoset.photos)[0]
    line = json.dumps({"id": f"{photo.id}-0", "verdict": "reject", "note": "eyes\nclosed"})
    photoset.save("review/bo.jsonl", f'[1]\nnull\n{{"id": 5}}\n{line}\n{line[:30]}'.encode())
    found = photo_history(photoset, photo.id)
    assert [said["reviewer"] for said in found.decisions] == ["anna", "bo"]
    assert "reject by bo,  eyes\\nclosed" in to_text(found)


def test_a_hostile_name_is_one_line(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    meta = photoset.photos.meta(0)
    assert meta is not None
    rows = [replace(row, photographer="a\nb\x1b[31m") for row in photoset.photos.rows(0)]
    photoset.photos.write(0, rows, meta.provenance, "")
    assert "a\\nb\\x1b[31m" in to_text(photo_history(photoset, "photo-0"))


def test_a_name_that_is_no_utf8_is_found_as_the_shell_gives_it(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    (first, *rest), meta = photoset.photos.rows(0), photoset.photos.meta(0)
    assert meta is not None
    photoset.photos.write(0, [replace(first, source_id="b\\xff.jpg"), *rest], meta.provenance, meta.inputs)
    for name in (os.fsdecode(b"b\xff.jpg"), "b\\xff.jpg"):
        assert [match.photo.id for match in find_photo(photoset, name)] == [first.id]
    with pytest.raises(UsageError, match="no photo"):
        find_photo(photoset, os.fsdecode(b"\xfe"))


def test_a_name_is_found_in_any_case(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    meta = photoset.photos.meta(0)
    assert meta is not None
    rows = [replace(row, photographer="Anna Weiß", photographer_url="") for row in photoset.photos.rows(0)]
    photoset.photos.write(0, rows, meta.provenance, "")
    for name in ("Anna Weiß", "ANNA WEISS", "anna weiss"):
        assert [match.photo for match in photos_of(photoset, name)] == rows
    assert photos_of(photoset, "Anna Weis") == photos_of(photoset, "") == []
    assert [m.photo.source_id for m in photos_of(photoset, "HTTPS://example.org/@Maker4/?a=1")] == ["photo-4"]


def test_the_same_bytes_are_told_under_every_name(furnished: Furnished, tmp_path: Path) -> None:
    found = photo_history(furnished(tmp_path / "set"), "photo-5")
    assert [row["source_id"] for row in found.photos] == ["photo-4", "photo-5"]


def test_commands_answer_and_refuse(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    done = authface("why", photoset.root, "photo-0", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["photos"][0]["source_id"] == "photo-0"
    done = authface("why", photoset.root, "nothing")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    done = authface("status", photoset.root)
    assert done.returncode == 0 and "next: authface annotate export" in done.stdout and "photos: 7 rows" in done.stdout


def test_a_set_is_split_before_it_is_exported(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    for part in photoset.people.parts():
        photoset.people.remove(part)
    assert read_status(photoset).next == next_step(photoset) == f"authface curate split {photoset.root}"


def test_where_no_photo_is_kept_others_come_next_and_a_refused_step_names_the_set(tmp_path: Path) -> None:
    photos, here = tmp_path / "photos", tmp_path / "my set"
    photos.mkdir()
    (photos / "a.jpg").write_text("none")
    assert authface("curate", "fetch", here, "--from", "folder", photos).returncode == 3
    onward = f"authface curate fetch '{here}' --from folder PATH"
    assert read_status(PhotoSet(here)).next.endswith(onward)
    refused = authface("curate", "filter", here)
    assert f"authface curate report '{here}' says why" in refused.stderr
    assert next_step(PhotoSet(here)).endswith(onward)
    assert f"authface curate report '{here}' says why" in authface("curate", "align", here).stderr


def test_a_forgotten_photo_of_two_names_is_one(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    done = authface("curate", "forget", photoset.root, "photo-4")
    assert "deleted: 1 photos" in done.stdout
    assert read_status(photoset).forgotten == 1


def test_the_next_step_can_be_copied_into_a_shell(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "my photos; ls")
    assert shlex.split(next_step(photoset)) == ["authface", "annotate", "export", str(photoset.root)]


def test_status_sees_what_is_missing_and_what_is_older(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    tables = {table.name: table for table in read_status(photoset).tables}
    assert all(table.missing == table.outdated == 0 for table in tables.values())
    photoset.crops.remove(1)
    said = read_status(photoset)
    assert {t.name: t.missing for t in said.tables}["crops"] == 1 and "curate align" in said.next
    meta = photoset.photos.meta(0)
    assert meta is not None
    photoset.photos.write(0, photoset.photos.rows(0)[:2], meta.provenance, "")
    said = read_status(photoset)
    assert {t.name: t.outdated for t in said.tables}["faces"] == 1 and "curate filter" in said.next
    assert said.disk["tables"] > 0 and said.as_json()["tables"]["photos"]["counts"]["kept"] == 4


def test_a_training_says_what_it_read_and_the_set_knows(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    dataset = photoset.root / "dataset"
    dataset.mkdir()
    (dataset / "authface.json").write_text('{"made_from": "one", "rows": 2}')
    training = tmp_path / "out" / "training"
    for _ in range(2):
        record_training(training, dataset, ["b" * 64, "a" * 64])
    assert [(s.key, s.rows, s.set) for s in training_sources(training)] == [("one", 2, str(photoset.root))]
    (dataset / "authface.json").write_text('{"made_from": "two", "rows": 3}')
    record_training(training, dataset, ["c" * 64])
    assert [s.key for s in training_sources(training)] == ["one", "two"]
    assert (training / "photo_ids.txt").read_text().split() == ["a" * 64, "b" * 64, "c" * 64]
    assert [(use.kind, use.key) for use in uses(photoset)] == [("training", "one"), ("training", "two")]
    assert "a" * 64 not in (training / "sources.json").read_text()
    assert read_status(photoset).trainings == [str(tmp_path / "out")]
    record_training(tmp_path / "other" / "training", tmp_path, [])
    assert training_sources(tmp_path / "other" / "training")[0].set == "", "a folder in no set"


def test_uses_are_told_once(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    for key in ("a", "a", "b", "a"):
        record_use(photoset, Use(kind="dataset", path="/x", key=key, rows=1))
    assert [use.key for use in uses(photoset)] == ["a", "b", "a"]


def test_an_unknown_name_is_refused(furnished: Furnished, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="6 digits"):
        photo_history(furnished(tmp_path / "set"), "abc")
