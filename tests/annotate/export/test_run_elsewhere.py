"""Exports that other programs read: Croissant by mlcroissant, FiftyOne's layout, keywords in copies of the photos."""

from __future__ import annotations

import errno
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from authface.annotate.export import fiftyone
from authface.annotate.export import rows as dataset
from authface.annotate.export.bare import FilesFormat
from authface.annotate.export.formats import ExportTarget
from authface.annotate.export.run import export
from authface.annotate.settings import ExportSettings
from authface.console import Console
from authface.curate.forget.run import forget
from authface.errors import AuthfaceError
from authface.files import take_place
from authface.store.journal import dataset_ids, holders
from authface.store.photoset import PhotoSet
from tests.annotate.conftest import photo_bytes
from tests.packets import keywords_of

MakeSet = Callable[..., PhotoSet]
SPLIT = [{}, {"split": "val"}, {}, {"split": "test", "licence": "unknown"}, {}, {}]
WORDS = ["smiling", "light from the left", "low key"]


def made(photoset: PhotoSet, format: str) -> Path:
    """Where that export lies; a second time there is nothing to do."""
    settings = ExportSettings(format=format, annotators=("measured",))  # type: ignore[arg-type]
    done = export(photoset, settings, Console())
    assert done.written and not export(photoset, settings, Console()).written
    assert set(dataset_ids(done.folder)) == {crop.photo_id for crop in photoset.crops}
    return done.folder


def test_an_export_goes_where_a_link_leads(make_set: MakeSet, tmp_path: Path) -> None:
    photoset = make_set(tmp_path / "set", SPLIT)
    far = tmp_path / "disk" / "faces"
    (photoset.root / "dataset").symlink_to(far)
    for least in (0.5, 0.1, 0.2):
        done = export(photoset, ExportSettings(annotators=("measured",), least_confidence=least), Console())
        assert done.written and (photoset.root / "dataset").is_symlink()
    assert len(set(dataset_ids(far))) == 6 and [path.name for path in far.parent.iterdir()] == ["faces"]
    photo = next(iter(photoset.photos))
    assert [Path(use.path) for use, _ in holders(photoset, {photo.id})] == [far]


def test_an_export_to_the_folder_one_is_in(make_set: MakeSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photoset = make_set(tmp_path / "set", SPLIT)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert export(photoset, ExportSettings(to="."), Console()).folder == tmp_path / "here"


@pytest.mark.parametrize("leads", ["loop", "file"])
def test_a_link_that_leads_to_no_folder_is_one_line(leads: str, make_set: MakeSet, tmp_path: Path) -> None:
    photoset = make_set(tmp_path / "set", SPLIT)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to(leads)
    with pytest.raises(AuthfaceError, match="cannot write"):
        export(photoset, ExportSettings(to=str(tmp_path / "link")), Console())
    assert (tmp_path / "file").read_text() == "mine" and (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("stopped", ["before", "between"])
def test_what_a_kill_left_of_an_export_elsewhere_is_named(
    stopped: str, make_set: MakeSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill deletes nothing: here it is an error while nothing is deleted."""
    photoset, there = make_set(tmp_path / "set", SPLIT), tmp_path / "there"
    export(photoset, ExportSettings(to=str(there), annotators=("llava",)), Console())
    first, *_, last = photoset.photos
    with monkeypatch.context() as patch, pytest.raises((AuthfaceError, RuntimeError)):
        patch.setattr("shutil.rmtree", lambda *_, **__: None)
        patch.setattr("authface.files._settle", lambda *_: None)
        if stopped == "before":
            (photoset.root / photoset.crop_file(f"{last.id}-0")).unlink()
        else:
            patch.setattr("authface.files.take_place", stopping_at(photoset.root.parent / ".tmp-there"))
        export(photoset, ExportSettings(to=str(there), annotators=("measured",)), Console())
    held = {Path(use.path).name for use, _ in forget(photoset, [first], reason="asked").used_by}
    assert held == ({"there", ".tmp-there"} if stopped == "before" else {".tmp-there", ".tmp-there-old"})


def stopping_at(begun: Path) -> Callable[[Path, Path], None]:
    def rename(new: Path, path: Path) -> None:
        if new == begun:
            raise RuntimeError("stopped")
        take_place(new, path)

    return rename


def test_an_export_that_ends_in_an_error_leaves_nothing_beside_the_old_one(
    make_set: MakeSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photoset, there = make_set(tmp_path / "set", SPLIT), tmp_path / "out" / "there"
    export(photoset, ExportSettings(to=str(there), annotators=("llava",)), Console())
    before = {path: path.read_bytes() for path in there.rglob("*") if path.is_file()}

    def full(new: Path, path: Path) -> None:
        if new.name == ".tmp-there":
            raise OSError(errno.ENOSPC, "full")
        take_place(new, path)

    monkeypatch.setattr("authface.files.take_place", full)
    with pytest.raises(AuthfaceError, match="the disk is full"):
        export(photoset, ExportSettings(to=str(there), annotators=("measured",)), Console())
    assert {path: path.read_bytes() for path in there.rglob("*") if path.is_file()} == before
    assert [path.name for path in there.parent.iterdir()] == ["there"]


def test_mlcroissant_finds_no_fault_and_reads_every_row(
    make_set: MakeSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import mlcroissant

    photoset = make_set(tmp_path / "set", SPLIT)
    folder = made(photoset, "croissant")
    with caplog.at_level(logging.WARNING):
        opened = mlcroissant.Dataset(str(folder / "croissant.json"))
    told = opened.metadata.to_json()
    assert not opened.metadata.ctx.issues.errors
    assert {issue for issue in opened.metadata.ctx.issues.warnings if "citeAs" not in issue} == set()
    assert told["license"] == ["CC0-1.0", "unknown"] and told["conformsTo"].endswith("croissant/1.1")
    rows = list(opened.records("faces"))
    crops = {crop.id: crop for crop in photoset.crops}
    assert {row["faces/id"].decode(): row["faces/split"].decode() for row in rows} == {
        person.id: {"val": "validation"}.get(person.split, person.split) for person in photoset.people
    }
    row = next(row for row in rows if row["faces/split"] == b"train")
    crop = crops[row["faces/id"].decode()]
    stored = np.asarray(Image.open(io.BytesIO(photoset.read(crop.file))))
    assert np.array_equal(np.asarray(row["faces/image"]), stored)
    assert [tag["faces/tags/name"].decode() for tag in row["faces/tags"]] == WORDS
    assert np.shape(row["faces/landmarks"]) == (68, 2) and row["faces/quad"] == list(crop.quad or ())
    assert row["faces/quality"]["faces/quality/yaw"] == 1.5 and len(row["faces/roi"]["faces/roi/mouth"]) == 3
    described = {field["name"] for field in told["recordSet"][0]["field"]}
    assert described == set(dataset.features())


def test_fiftyone_finds_its_own_layout(make_set: MakeSet, tmp_path: Path) -> None:
    """FiftyOne needs a database to be asked: the documents are as its 1.22 writes them of such samples."""
    photoset = make_set(tmp_path / "set", SPLIT)
    folder = made(photoset, "fiftyone")
    samples = json.loads((folder / "samples.json").read_text("utf-8"))["samples"]
    told = json.loads((folder / "metadata.json").read_text("utf-8"))
    people = {person.id: person.split for person in photoset.people}
    assert {one["face_id"]: one["tags"] for one in samples} == {
        id: [{"val": "validation"}.get(split, split)] for id, split in people.items()
    }
    one, crop = samples[0], next(iter(photoset.crops))
    assert one["filepath"] == f"data/{crop.id}.png" and (folder / one["filepath"]).read_bytes() == photoset.read(
        crop.file
    )
    assert one["metadata"] == {
        "_cls": "ImageMetadata", "size_bytes": len(photoset.read(crop.file)), "mime_type": "image/png", "width": 64,
        "height": 64, "num_channels": 3,
    }  # fmt: skip
    word = one["words"]["classifications"][0]
    assert one["words"]["_cls"] == "Classifications" and word["_cls"] == "Classification"
    assert (word["label"], word["group"], word["annotator"]) == ("smiling", "expression", "measured")
    (points,) = one["landmarks"]["keypoints"]
    assert np.shape(points["points"]) == (68, 2) and 0 < np.min(points["points"]) < np.max(points["points"]) < 1
    eye = one["regions"]["detections"][0]
    assert eye["label"] == "left_eye" and len(eye["bounding_box"]) == 4
    fields = {field["name"]: field for field in told["sample_fields"]}
    assert set(one) <= {field["db_field"] for field in fields.values()}, "FiftyOne refuses what is not declared"
    assert fields["id"]["db_field"] == "_id" and fields["prompt"]["ftype"] == "fiftyone.core.fields.StringField"
    inner = fields["words"]["fields"][0]
    assert inner["embedded_doc_type"] == "fiftyone.core.labels.Classification"
    assert set(word) - {"_cls"} <= {field["db_field"] for field in inner["fields"]}
    assert {name for name in one["quality"] if name != "_cls"} == {f["name"] for f in fields["quality"]["fields"]}
    ids = [sample["_id"]["$oid"] for sample in samples]
    assert len(set(ids)) == 6 and all(len(id) == 24 for id in ids)
    assert told["version"] == "1.1.0" and told["media_type"] == "image"


def test_metrics_are_fields_that_fiftyone_can_name() -> None:
    told = fiftyone.metadata("set", "ab" * 32, (fiftyone._key("topiq_nr-face"), fiftyone._key("clip.iqa+")))
    (scores,) = [field for field in told["sample_fields"] if field["name"] == "scores"]
    assert [field["name"] for field in scores["fields"]] == ["topiq_nr_face", "clip_iqa_"]


def keywords(path: Path) -> list[str]:
    with Image.open(path) as image:
        packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    return keywords_of(packet if isinstance(packet, bytes) else packet.encode())


def test_copies_hold_the_words_and_originals_stay(make_set: MakeSet, tmp_path: Path) -> None:
    photoset = make_set(tmp_path / "set", SPLIT)
    before = {path: path.read_bytes() for path in (photoset.root / "photos").rglob("*.jpg")}
    folder = made(photoset, "files")
    copies = sorted(folder.glob("*/*.jpg"))
    assert [path.parent.name for path in copies].count("train") == 4 and len(copies) == 6
    assert {path: path.read_bytes() for path in before} == before
    for number, path in enumerate(sorted(copies, key=lambda path: path.name)):
        assert path.name.startswith(f"photo-{number}-") and keywords(path) == WORDS
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(io.BytesIO(photo_bytes(number)))))
    card = (folder / "README.md").read_text()
    assert "whole photos, not faces" in card and "## Columns" not in card
    gone = next(iter(photoset.photos))
    forget(photoset, [gone], reason="asked", dry_run=False)
    assert not list(folder.glob("*/*.jpg"))


def test_a_missing_original_is_one_line_and_leaves_no_export(make_set: MakeSet, tmp_path: Path) -> None:
    photoset = make_set(tmp_path / "set", SPLIT)
    next((photoset.root / "photos").rglob("*.jpg")).unlink()
    with pytest.raises(AuthfaceError, match="run authface curate fetch"):
        export(photoset, ExportSettings(format="files"), Console())
    assert not (photoset.root / "exports" / "files").exists()


def row_of(photo_id: str, name: str, words: list[str], format: str = "JPEG") -> dict[str, Any]:
    return {
        "photo_id": photo_id, "source_id": name, "photo": {"format": format}, "split": "", "prompt": ", ".join(words),
        "tags": [{"name": word} for word in words],
    }  # fmt: skip


def test_faces_of_a_photo_share_its_words_and_no_name_leaves_the_folder(tmp_path: Path) -> None:
    photoset, ids = PhotoSet(tmp_path / "set"), [letter * 64 for letter in "abc"]
    photoset.save(photoset.photo_file(ids[0], "jpg"), photo_bytes(0))
    photoset.save(photoset.photo_file(ids[1], "jpg"), photo_bytes(1))
    buffer = io.BytesIO()
    Image.open(io.BytesIO(photo_bytes(2))).save(buffer, "TIFF")
    photoset.save(photoset.photo_file(ids[2], "tif"), buffer.getvalue())
    out = tmp_path / "out"
    with FilesFormat(ExportTarget(photoset, out, out, "k" * 64, 1, 64)) as format:
        format.add(row_of(ids[0], "../../etc/pass wd.jpg", ["smiling", "low key"]))
        format.add(row_of(ids[0], "../../etc/pass wd.jpg", ["smiling", "long hair"]))
        format.add(row_of(ids[1], "C:\\photos\\Großmutter 祖母.jpg", ["low key"]))
        format.add(row_of(ids[2], "..", ["low key"], "TIFF"))
    assert len((out / "credits.jsonl").read_text("utf-8").splitlines()) == 3
    names = sorted(path.relative_to(out).as_posix() for path in out.glob("*/*"))
    assert names == [
        "train/Großmutter_祖母-bbbbbbbbbbbb.jpg", "train/cccccccccccc.tif", "train/cccccccccccc.tif.xmp",
        "train/pass_wd-aaaaaaaaaaaa.jpg",
    ]  # fmt: skip
    assert keywords(out / names[3]) == ["smiling", "low key", "long hair"]
    assert b"smiling, low key; smiling, long hair" in (out / names[3]).read_bytes()
    assert (out / names[1]).read_bytes() == buffer.getvalue()
    assert keywords_of((out / names[2]).read_bytes()) == ["low key"]
