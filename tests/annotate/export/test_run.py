"""Tags and the exported dataset, from the photos that ship with the dependencies to `datasets.load_dataset`."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from authface.annotate.export.rows import region_boxes
from authface.annotate.export.run import export, read_state
from authface.annotate.measured.tagger import MeasuredTags
from authface.annotate.settings import ExportSettings, MeasuredSettings
from authface.annotate.tagging import choose
from authface.annotate.vocabulary.vocabulary import make_tag
from authface.console import Console
from authface.curate.forget.run import forget
from authface.engine.runner import parts_of, run
from authface.errors import AuthfaceError
from authface.faces.geometry import crop_points
from authface.inspect.status import read_status
from authface.records import Statement
from authface.store.journal import uses
from authface.store.photoset import PhotoSet
from authface.store.statements import rewrite
from tests.conftest import authface

MakeSet = Callable[..., PhotoSet]


def tag(photoset: PhotoSet, settings: MeasuredSettings | None = None):  # type: ignore[no-untyped-def]
    work = MeasuredTags(photoset.root, settings or MeasuredSettings())
    return run(work, parts_of(photoset.crops), photoset.tags("measured"), Console())


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of the samples' faces, aligned at 256 px, without tags."""
    root = tmp_path_factory.mktemp("samples") / "set"
    for step in (["fetch", root, "--from", "samples"], ["filter", root], ["align", root]):
        done = authface("curate", *step, "-O", "curate.align.size=256")
        assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def photoset(aligned: Path, tmp_path: Path) -> PhotoSet:
    return PhotoSet(Path(shutil.copytree(aligned, tmp_path / "set")))


def loaded(folder: Path, tmp_path: Path):  # type: ignore[no-untyped-def]
    import datasets

    return datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))


def test_the_dataset_opens_typed_and_holds_what_the_tables_hold(photoset: PhotoSet, tmp_path: Path) -> None:
    summary = tag(photoset)
    kept = {crop.id: crop for crop in photoset.crops if crop.status == "kept"}
    assert summary.counts == {"kept": len(kept)} and kept
    done = export(photoset, ExportSettings(), Console())
    rows = loaded(done.folder, tmp_path)
    assert done.written and done.rows == len(rows) == len(kept)
    photos = {photo.id: photo for photo in photoset.photos}
    said = {row.id: row for row in photoset.tags("measured")}
    for row in rows:
        crop = kept[row["id"]]
        stored = np.asarray(Image.open(io.BytesIO((photoset.root / crop.file).read_bytes())))
        assert np.array_equal(np.asarray(row["image"]), stored)
        assert [entry["name"] for entry in row["tags"]] == [entry.name for entry in said[crop.id].tags]
        assert row["prompt"] == ", ".join(entry["name"] for entry in row["tags"])
        assert row["licence"] == photos[crop.photo_id].licence != ""
        points = crop_points(crop.landmarks, crop.quad, crop.size)
        assert np.allclose(row["landmarks"], points, atol=1e-3)
        for name, box in region_boxes(points, crop.size).items():
            assert row["roi"][name] == pytest.approx(box, abs=1e-3)
    assert (rows.features["image"].dtype, rows.features["landmarks"].length) == ("PIL.Image.Image", 68)


def test_one_cache_tells_two_exports_apart(photoset: PhotoSet, tmp_path: Path) -> None:
    """`datasets` keys its cache by the card's file patterns, not by the folder or what is in it."""
    tag(photoset)
    whole = export(photoset, ExportSettings(), Console())
    assert len(loaded(whole.folder, tmp_path)) == whole.rows
    settings = ExportSettings(least_confidence=0.999)
    sure = export(photoset, settings, Console())
    assert sure.written
    confidences = [entry["confidence"] for row in loaded(sure.folder, tmp_path) for entry in row["tags"]]
    assert all(confidence >= 0.999 for confidence in confidences)


def test_regions_lie_where_the_points_are() -> None:
    points = np.zeros((68, 2))
    points[36:42] = [[90, 120], [98, 114], [106, 114], [114, 120], [106, 124], [98, 124]]
    points[42:48] = [200.0, 120.0]
    points[48:68] = np.stack([np.linspace(100, 220, 20), np.full(20, 200.0)], 1)
    boxes = region_boxes(points, 512)
    assert boxes["left_eye"] == pytest.approx([102, 119.333, 16 * 1.4], abs=1e-3)  # 12 px is under the least 16
    assert boxes["right_eye"] == pytest.approx([200, 120, 16 * 1.4])
    assert boxes["mouth"] == pytest.approx([160, 200, 60])
    assert np.allclose([boxes[n] for n in boxes], np.array([*region_boxes(points / 2, 256).values()]) * 2)


def test_the_same_export_does_nothing_and_a_change_is_exported(photoset: PhotoSet) -> None:
    tag(photoset)
    first = export(photoset, ExportSettings(), Console())
    stamps = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")}
    again = export(photoset, ExportSettings(), Console())
    assert (first.written, again.written, again.rows) == (True, False, first.rows)
    assert stamps == {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")}
    assert tag(photoset, MeasuredSettings(facing=1, low_key=99)).made == 1
    assert export(photoset, ExportSettings(), Console()).written
    assert not list(photoset.root.glob(".tmp-*"))


def test_a_broken_export_leaves_the_old_dataset(photoset: PhotoSet, tmp_path: Path) -> None:
    tag(photoset)
    folder = export(photoset, ExportSettings(), Console()).folder
    crops = sorted((photoset.root / "crops").rglob("*.png"))
    crops[-1].rename(tmp_path / "away.png")
    with pytest.raises(AuthfaceError, match="no such file") as caught:
        export(photoset, ExportSettings(shard_megabytes=7), Console())
    assert len(str(caught.value).splitlines()) == 1
    assert len(loaded(folder, tmp_path)) == len(crops)
    (tmp_path / "away.png").rename(crops[-1])
    assert export(photoset, ExportSettings(shard_megabytes=7), Console()).written


def test_crops_that_cannot_be_read_are_failed_rows_and_nothing_is_exported_of_them(photoset: PhotoSet) -> None:
    crops = sorted((photoset.root / "crops").rglob("*.png"))
    for crop in crops:
        crop.write_bytes(crop.read_bytes()[:500])
    assert tag(photoset).failed == len(crops) > 0
    with pytest.raises(AuthfaceError, match="nothing to export"):
        export(photoset, ExportSettings(), Console())
    assert not (photoset.root / "dataset").exists()


def test_the_first_annotator_speaks_for_a_group() -> None:
    first = [make_tag("low key", 0.9), make_tag("smiling", 0.3)]
    second = [make_tag("high key", 0.9), make_tag("mouth open", 0.8)]
    chosen = [(who, found.name) for who, found in choose([("a", first), ("b", second)], 0.5)]
    assert chosen == [("a", "low key"), ("b", "mouth open")]


def test_the_card_names_licences_and_says_no_private_path(photoset: PhotoSet) -> None:
    tag(photoset)
    text = (export(photoset, ExportSettings(), Console()).folder / "README.md").read_text()
    assert text.startswith("---\nlicense: other")
    assert "public domain" in text and "biometric" in text
    assert str(photoset.root.parent) not in text


def test_a_photo_is_under_the_conditions_of_all_that_is_stated_of_it(make_set: MakeSet, tmp_path: Path) -> None:
    """One licence holds, and the dataset is bound by what the others ask for beside it, as the credits say."""
    both = tuple(Statement(licence=name, by=name, at="2026") for name in ("CC BY-NC 4.0", "CC BY-SA 4.0"))
    withdrawn = (both[0], replace(both[1], until="2027"))
    given = [{"licence": "CC BY-NC 4.0", "more": {"statements": said}} for said in (both, withdrawn, ())]
    photoset = make_set(tmp_path / "set", given)
    done = export(photoset, ExportSettings(), Console())
    assert done.conditions == {"NC": 3, "SA": 1} == read_state(done.folder)["conditions"]
    text = (done.folder / "README.md").read_text()
    assert "3 under NC" in text and "1 under SA" in text
    photos = photoset.photos.rows(0)
    rewrite(photoset.photos, 0, photos, [photos[0], replace(photos[1], statements=both), photos[2]])
    again = export(photoset, ExportSettings(), Console())
    assert again.written and again.conditions == {"NC": 3, "SA": 2}, "also where the licence that holds is the same"


def test_no_step_on_the_card_names_a_file_of_its_maker_or_a_reviewer(make_set: MakeSet, tmp_path: Path) -> None:
    photoset, model = make_set(tmp_path / "set", [{}]), tmp_path / "llava"
    told = {
        "faces": {"reviewer": "../anna-mueller-wedding/review/anna.model.safetensors", "max_yaw": 40.5},
        "tags/measured": {"model": str(model), "prompt": "photographic"},
        "tags/llava": {"model": "llava-hf/llava-v1.6-mistral-7b-hf"},
    }
    for name, settings in told.items():
        table = photoset.tables()[name]
        meta = table.meta(0)
        assert meta is not None
        table.put(0, table.arrow(0), replace(meta, provenance=replace(meta.provenance, settings=settings)))
    text = (export(photoset, ExportSettings(), Console()).folder / "README.md").read_text()
    assert "anna" not in text and str(tmp_path) not in text
    assert "`max_yaw`: 40.5" in text
    assert "`model`: a file or folder of its maker" in text and "llava-v1.6-mistral-7b-hf" in text


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["export"], 2, "annotate tags"),
        (["tags", "--with", "mona"], 2, "mona"),
        (["compare"], 2, "two annotators are needed"),
        (["compare", "measured", "llava"], 2, "measured left no tags"),
        (["export", "--format", "zip"], 2, "imagefolder"),
        (["export", "--resolve", "vote"], 2, "agreed"),
    ],
)
def test_wrong_use_says_what_to_type(arguments: list[str], code: int, words: str, aligned: Path) -> None:
    done = authface("annotate", arguments[0], aligned, *arguments[1:])
    assert done.returncode == code, done.stderr
    assert words in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_the_commands_tag_and_export(photoset: PhotoSet) -> None:
    tagged = authface("annotate", "tags", photoset.root, "--with", "measured", "--json")
    assert tagged.returncode == 0 and '"made": 1' in tagged.stdout, tagged.stderr
    exported = authface("annotate", "export", photoset.root)
    assert exported.returncode == 0 and "written" in exported.stdout, exported.stderr
    assert "up to date" in authface("annotate", "export", photoset.root).stdout


def test_status_proposes_what_the_stages_would_ask_for(photoset: PhotoSet) -> None:
    """Training only where the export is of what the set holds now, people's decisions counted."""
    tag(photoset)
    assert "curate split" in read_status(photoset).next
    export(photoset, ExportSettings(), Console())
    assert "train prior" in read_status(photoset).next
    crop = next(crop for crop in photoset.crops if crop.status == "kept")
    photoset.save("review/anna.jsonl", f'{{"id": "{crop.id}", "verdict": "reject"}}\n'.encode())
    assert "annotate tags" in read_status(photoset).next


def test_a_dataset_that_moved_is_known_where_it_lies(photoset: PhotoSet, tmp_path: Path) -> None:
    """`forget` looks for copies in the folders that the set's uses name."""
    tag(photoset)
    export(photoset, ExportSettings(to=str(tmp_path / "first")), Console())
    shutil.move(tmp_path / "first", tmp_path / "second")
    moved = ExportSettings(to=str(tmp_path / "second"))
    for _ in range(2):
        assert not export(photoset, moved, Console()).written
    assert [Path(use.path).name for use in uses(photoset)] == ["first", "second"]
    shown = {crop.photo_id for crop in photoset.crops if crop.status == "kept"}
    gone = next(photo for photo in photoset.photos if photo.id in shown)
    told = forget(photoset, [gone], reason="", dry_run=True).as_text(photoset, "would go")
    assert str(tmp_path / "second") in told and str(tmp_path / "first") not in told


def test_an_export_for_kohya_that_moved_names_its_new_place(photoset: PhotoSet, tmp_path: Path) -> None:
    tag(photoset)
    settings = ExportSettings(format="kohya")
    export(photoset, settings, Console())
    moved = PhotoSet(Path(shutil.move(photoset.root, tmp_path / "elsewhere")))
    done = export(moved, settings, Console())
    assert not done.written and str(moved.root) in (done.folder / "dataset.toml").read_text()
