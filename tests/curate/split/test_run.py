"""Splits share no person, no near duplicate and no photo; what was dealt stays where it is; leaks are found."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from authface.console import Console
from authface.curate.align import Align
from authface.curate.fetch.run import fetch
from authface.curate.fetch.sources.folder import LINKED, Folder, Samples
from authface.curate.filter.run import filter_photos
from authface.curate.settings import AlignSettings, FetchSettings, FilterSettings, SplitSettings
from authface.curate.split.dealing import NO_SPLIT, assign
from authface.curate.split.groups import SplitFaces, groups_of
from authface.curate.split.leaks import rival_files
from authface.curate.split.likeness import likeness_of
from authface.curate.split.people import people_of
from authface.curate.split.run import SplitResult, split
from authface.engine.runner import parts_of, run
from authface.errors import AuthfaceError, UsageError
from authface.imaging import decode as images
from authface.store.photoset import PhotoSet
from authface.store.rowfile import IdFile
from authface.store.statements import repeated_row, rewrite
from tests.conftest import Done, authface

HALVES = SplitSettings(val=0.3, test=0.3)


def made_faces(seed: int, count: int) -> SplitFaces:
    """Faces of a few people in a few photos by a few photographers, some near duplicates of others."""
    rng = np.random.default_rng(seed)
    person, photo = rng.integers(0, max(count // 3, 1), count), rng.permutation(count) // 2
    vectors = rng.standard_normal((count, 32))[person] + 0.1 * rng.standard_normal((count, 32))
    codes = rng.integers(0, 256, (count, 18), dtype=np.uint8)
    codes[: count // 4] = codes[count // 4 : count // 4 + count // 4] ^ np.eye(18, dtype=np.uint8)[0]
    return SplitFaces(
        IdFile([f"{row:03d}" for row in rng.permutation(count)]),
        photo.astype(np.int32),
        codes,
        np.ones(count, np.bool_),
        photo % 5 - 1,
        (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32),
    )


@examples(max_examples=25)
@given(st.integers(0, 1000), st.integers(1, 40), st.booleans())
def test_no_two_splits_share_a_person_a_duplicate_or_a_photo(seed: int, count: int, by_photographer: bool) -> None:
    settings = HALVES.model_copy(
        update={"keep_together": ("identity", "duplicate", "photo", *["photographer"] * by_photographer)}
    )
    faces = made_faces(seed, count)
    people = people_of(faces, likeness_of(faces.vectors, None, (0.0, 1.0)), 0.7)
    groups = groups_of(faces, people, settings)
    where = assign(groups, np.full(count, NO_SPLIT, np.int8), faces.ids, settings, seed)
    codes = faces.hashes
    near = np.bitwise_count(codes[:, None] ^ codes[None]).sum(axis=2) <= settings.duplicate_radius
    for one in range(count):
        for other in range(one):
            shares = people[one] == people[other] or faces.photos[one] == faces.photos[other] or near[one, other]
            if by_photographer and faces.photographers[one] >= 0:
                shares = shares or faces.photographers[one] == faces.photographers[other]
            assert not shares or where[one] == where[other]
    assert all(faces.ids[int(first)] <= id for first, id in zip(groups, faces.ids, strict=True))


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two portraits, and one of them again, mirrored and squeezed: the same person, not the same picture."""
    folder = tmp_path_factory.mktemp("originals")
    for item in Samples().items():
        if Path(item.path).stem in {"astronaut", "grace_hopper"}:
            (folder / Path(item.path).name).write_bytes(Path(item.path).read_bytes())
    rgb = images.read(folder / "astronaut.png").rgb
    mirrored = cv2.resize(rgb[:, ::-1], None, fx=1, fy=0.87, interpolation=cv2.INTER_AREA)
    (folder / "mirrored.jpg").write_bytes(images.encode_jpeg(mirrored))
    return folder


@pytest.fixture(scope="module")
def curated(originals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of those photos as far as crops."""
    photoset = PhotoSet(tmp_path_factory.mktemp("sets") / "set")
    fetch(photoset, Folder(originals, "", ""), FetchSettings(), Console(), workers=1, limit=0)
    loose = FilterSettings(
        min_size=20,
        min_sharpness=0,
        max_noise=255,
        max_piqe=100,
        max_smoothing=1,
        min_resolution=0,
        max_pixelation=1,
        max_sharpening=1,
    )
    filter_photos(photoset, loose, Console(), workers=1)
    run(Align(photoset.root, AlignSettings(size=256)), parts_of(photoset.faces), photoset.crops, Console())
    return photoset.root


def copied(curated: Path, target: Path) -> PhotoSet:
    import shutil

    return PhotoSet(Path(shutil.copytree(curated, target)))


def named(photoset: PhotoSet) -> dict[str, Any]:
    """Rows of the table people by the name of the photo."""
    names = {photo.id: Path(photo.source_id).stem for photo in photoset.photos}
    return {names[row.photo_id]: row for row in photoset.people}


def test_a_set_is_split_by_person_and_only_once(curated: Path, tmp_path: Path) -> None:
    photoset = copied(curated, tmp_path / "set")
    outcome = split(photoset, SplitSettings(), Console(), seed=0)
    rows = named(photoset)
    assert rows["astronaut"].identity == rows["mirrored"].identity != rows["grace_hopper"].identity
    assert (outcome.identities, outcome.groups, outcome.largest, outcome.counts.total()) == (2, 2, 2, 3)
    assert all(len(row.embedding) == 128 for row in photoset.embeddings)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    again = split(photoset, SplitSettings(), Console(), seed=0)
    assert again.counts == outcome.counts
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}


def test_a_limit_takes_no_split_away(curated: Path, tmp_path: Path) -> None:
    photoset = copied(curated, tmp_path / "set")
    assert split(photoset, SplitSettings(), Console(), seed=0, limit=1).counts.total() == 1
    assert split(photoset, SplitSettings(), Console(), seed=0, limit=2).counts.total() == 2
    before = list(photoset.people)
    with pytest.raises(UsageError, match="--limit 1 would take their split from 1 faces"):
        split(photoset, SplitSettings(), Console(), seed=0, limit=1)
    assert list(photoset.people) == before


def test_leaks_are_found_shown_and_dropped(curated: Path, originals: Path, tmp_path: Path) -> None:
    photoset = copied(curated, tmp_path / "set")
    folder = tmp_path / "benchmark"
    folder.mkdir()
    (folder / "same\nfile.jpg").write_bytes((originals / "grace_hopper.jpg").read_bytes())
    small = cv2.resize(images.read(originals / "astronaut.png").rgb, None, fx=0.7, fy=0.7)
    (folder / "small.jpg").write_bytes(images.encode_jpeg(small, quality=50))
    (folder / "broken.jpg").write_bytes(b"no photo")
    settings = SplitSettings(against=(str(folder),), drop_leaks="duplicates", val=0, test=0)
    outcome = split(photoset, settings, Console(), seed=0)
    rows = named(photoset)
    kinds = {name: outcome.leaks[row.id].kind for name, row in rows.items() if row.id in outcome.leaks}
    assert kinds == {"grace_hopper": "same_file", "astronaut": "near_duplicate", "mirrored": "same_person"}
    assert {name: row.status for name, row in rows.items()} == {
        "grace_hopper": "rejected",
        "astronaut": "rejected",
        "mirrored": "kept",
    }
    assert rows["astronaut"].reason == "leak" and rows["astronaut"].value <= rows["astronaut"].limit == 17
    assert outcome.page is not None
    page = outcome.page.read_text("utf-8")
    assert page.count("data:image/jpeg") == 2, "one pair a person"
    assert "same\nfile" not in page and "small.jpg" in page

    everybody = split(photoset, replace_settings(settings, drop_leaks="people"), Console(), seed=0)
    assert everybody.counts == {"rejected: leak": 3}
    (tables,) = (photoset.root / "tables" / "against").iterdir()
    made = {path: path.stat().st_mtime_ns for path in tables.iterdir()}
    assert len(made) == 3
    (folder / "broken.jpg").write_bytes(b"no photo either")
    split(photoset, settings, Console(), seed=0)
    kept = {path for path in tables.iterdir() if made.get(path) == path.stat().st_mtime_ns}
    assert len(kept) == 2, "only what is new in the folder is looked at"


def test_folders_that_are_not_compared_with_are_said(tmp_path: Path) -> None:
    for name in ("benchmark/a.jpg", "far/b.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"a photo")
    (tmp_path / "benchmark" / "far").symlink_to(tmp_path / "far")
    said: list[str] = []
    assert [file.name for file in rival_files(tmp_path / "benchmark", said.append)] == ["a.jpg"]
    assert said == [f"--against {tmp_path / 'benchmark'}: passed over 1 {LINKED}"]


def replace_settings(settings: SplitSettings, **changed: object) -> SplitSettings:
    return SplitSettings.model_validate(settings.model_dump() | changed)


def test_embeddings_are_deleted_where_nobody_keeps_them(curated: Path, tmp_path: Path) -> None:
    photoset = copied(curated, tmp_path / "set")
    settings = SplitSettings(keep_embeddings=False)
    outcome = split(photoset, settings, Console(), seed=0)
    assert photoset.embeddings.parts() == [] and outcome.identities == 2
    assert not any("embedding" in table.schema(0).names for table in photoset.tables().values())
    assert split(photoset, settings, Console(), seed=0).counts == outcome.counts
    assert photoset.embeddings.parts() == [], "nothing changed, so nothing was embedded again"


def test_without_identities_nothing_is_embedded(curated: Path, tmp_path: Path) -> None:
    photoset = copied(curated, tmp_path / "set")
    outcome = split(photoset, SplitSettings(keep_together=("photo", "duplicate")), Console(), seed=0)
    assert (outcome.identities, outcome.groups) == (0, 3) and photoset.embeddings.parts() == []


def test_a_crop_that_cannot_be_read_is_in_no_split(curated: Path, tmp_path: Path) -> None:
    photoset = copied(curated, tmp_path / "set")
    crop = next(iter(photoset.crops))
    photoset.save(crop.file, b"torn")
    outcome = split(photoset, SplitSettings(), Console(), seed=0)
    (row,) = [row for row in photoset.people if row.id == crop.id]
    assert (row.status, row.split) == ("failed", "") and outcome.counts.total() == 3


def test_other_shares_deal_anew_and_more_photos_do_not(curated: Path, tmp_path: Path) -> None:
    photoset = copied(curated, tmp_path / "set")
    part = photoset.crops.rows(0)
    meta = photoset.crops.meta(0)
    assert meta is not None
    photoset.crops.write(0, part[:1], meta.provenance, meta.inputs)
    split(photoset, SplitSettings(), Console(), seed=0)
    first = next(iter(photoset.people))
    photoset.people.write(0, [replace(first, split="test")], _made(photoset), "")
    photoset.crops.write(0, part, meta.provenance, meta.inputs)
    split(photoset, SplitSettings(), Console(), seed=0)
    assert {row.split for row in photoset.people if row.id == first.id} == {"test"}, "it stays"
    split(photoset, SplitSettings(val=0, test=0), Console(), seed=0)
    assert {row.split for row in photoset.people} == {"train"}


def _made(photoset: PhotoSet) -> Any:
    meta = photoset.people.meta(0)
    assert meta is not None
    return meta.provenance


def test_what_cannot_be_split_is_one_line(curated: Path, tmp_path: Path) -> None:
    photoset = copied(curated, tmp_path / "set")
    (tmp_path / "empty").mkdir()
    for folder, said in (("nowhere", "does not exist"), ("empty", "no photos in there")):
        with pytest.raises(UsageError, match=said):
            split(photoset, SplitSettings(against=(str(tmp_path / folder),)), Console(), seed=0)
    with pytest.raises(AuthfaceError, match="no kept crops: authface curate report .*none says why"):
        split(PhotoSet(tmp_path / "none"), SplitSettings(), Console(), seed=0)
    with pytest.raises(ValueError, match="leave some for training"):
        SplitSettings(val=0.5, test=0.5)


def test_the_command(curated: Path, originals: Path, tmp_path: Path) -> None:
    photoset = copied(curated, tmp_path / "set")

    def split_here(*words: str) -> Done:
        return authface("curate", "split", *words, cwd=tmp_path)

    shown = split_here("set", "--dry-run")
    assert shown.returncode == 0 and "same_person = 4.5" in shown.stdout and photoset.people.parts() == []
    done = split_here("set", "--workers", "1", "--json", "--against", str(originals))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["leaks"] == {"same_file": 3} and sum(said["counts"].values()) == 3 and said["identities"] == 2
    assert (photoset.root / "reports" / "leaks.html").exists()
    told = split_here("set")
    assert (
        told.returncode == 0 and "2 people" in told.stdout and "next: authface annotate tags set --with" in told.stdout
    )
    assert said["next"] == "authface annotate tags set --with measured"
    assert split_here("nothing").returncode == 2


def test_an_empty_or_one_sided_split_is_said_with_what_to_do() -> None:
    result = SplitResult(Counter(train=71), identities=53, groups=53, largest=18, moved=0)
    assert "no faces in val and test" in result.as_text() and "18 of 71 faces count as one group" in result.as_text()
    assert not SplitResult(Counter(train=60, val=5, test=5), 70, 70, 1, 0).warnings()


def test_a_corrected_photographer_brings_faces_together(furnished: Callable[[Path], PhotoSet], tmp_path: Path) -> None:
    """Only where photographers are kept together: else a correction of the photos deals nothing anew."""
    photoset = furnished(tmp_path / "set")
    for part in photoset.people.parts():
        photoset.people.remove(part)

    def dealt_now(*together: str) -> SplitResult:
        settings = HALVES.model_copy(update={"keep_together": together})
        return split(photoset, settings, Console(), seed=0)

    assert (before := dealt_now("photographer").groups) > 1
    for part in photoset.photos.parts():
        rows = photoset.photos.rows(part)
        rewrite(photoset.photos, part, rows, [replace(row, photographer="Anna", source="urls") for row in rows])
    assert dealt_now("photographer").groups == 1 < before
    assert len({person.split for person in photoset.people}) == 1


def test_a_photographer_whom_only_a_repeated_photo_names_counts(
    furnished: Callable[[Path], PhotoSet], tmp_path: Path
) -> None:
    photoset = furnished(tmp_path / "set")
    crops = [crop.photo_id for crop in photoset.crops]
    for part in photoset.photos.parts():
        rows = photoset.photos.rows(part)
        own = [replace(row, photographer="") for row in rows]
        again = [
            replace(repeated_row(row), photographer="Anna", source="urls")
            for row in photoset.photos
            if row.id in crops and row.status == "kept" and part == photoset.photos.parts()[-1]
        ]
        rewrite(photoset.photos, part, rows, own + again)
    settings = HALVES.model_copy(update={"keep_together": ("photographer",)})
    assert split(photoset, settings, Console(), seed=0).largest == len(crops) > 1
