"""The verdicts of the filter: each face judged, each reject with reason, value and limit; what is repeated and when."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.console import Console
from authface.curate.fetch.run import fetch
from authface.curate.fetch.sources import make_source
from authface.curate.filter import duplicates
from authface.curate.filter.measure import LEAST_SCORE, LIMITS, Neighbours, judge, measure_faces
from authface.curate.filter.run import filter_photos
from authface.curate.filter.sweep import sweep, to_text
from authface.curate.settings import FetchSettings, FilterSettings
from authface.curate.sheet import contact_sheet, histograms
from authface.faces.detector import RetinaFace
from authface.imaging import decode as images
from authface.records import Face
from authface.store.photoset import PhotoSet
from tests.conftest import authface

OPEN = {x.setting: (0.0 if x.least else 1000.0) for x in LIMITS} | {"min_score": 0.9, "duplicate_radius": -1}
LOOSE = FilterSettings().model_copy(update=OPEN)


@pytest.fixture(scope="module")
def photos() -> dict[str, np.ndarray]:
    source = make_source(FetchSettings(source="samples"), PhotoSet(Path("unused")))
    return {Path(item.path).stem: images.read(Path(item.path)).rgb for item in source.items()}


@pytest.fixture(scope="module")
def detector() -> RetinaFace:
    return RetinaFace(LEAST_SCORE)


def judged(photo: np.ndarray, detector: RetinaFace, **settings: object) -> list[Face]:
    faces = measure_faces(photo, detector)
    return [judge(face, Neighbours(len(faces)), LOOSE.model_copy(update=settings)) for face in faces]


def test_faces_are_found_and_measured_and_the_rest_says_no_face(photos: dict, detector: RetinaFace) -> None:
    for name, rgb in photos.items():
        faces = judged(rgb, detector)
        if name in {"astronaut", "grace_hopper"}:
            assert [(face.status, face.index) for face in faces] == [("kept", 0)]
            assert all(getattr(faces[0], limit.measure) is not None for limit in LIMITS) and faces[0].hash
        else:
            assert {face.reason for face in faces} <= {"no_face", "unsure"}
            assert all((face.index == -1) == (face.reason == "no_face") for face in faces)


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.setting)
def test_each_limit_rejects_with_its_value(photos: dict, detector: RetinaFace, limit: object) -> None:
    bound = 10_000.0 if limit.least else -1.0
    (face,) = judged(photos["astronaut"], detector, **{limit.setting: bound})
    assert (face.status, face.reason, face.limit) == ("rejected", limit.reason, bound)
    assert face.value == limit.value(face) and limit.refuses(face.value, bound)


def test_the_default_limits_keep_the_good_portraits(photos: dict, detector: RetinaFace) -> None:
    for name in ("astronaut", "grace_hopper"):
        (face,) = measure_faces(photos[name], detector)
        assert judge(face, Neighbours(), FilterSettings(min_size=64)).status == "kept"


measures = st.one_of(st.none(), st.floats(-1000, 1000))
faces = st.builds(
    Face,
    id=st.just("a-0"),
    photo_id=st.just("a"),
    photo_file=st.just(""),
    index=st.just(0),
    **{limit.measure: measures for limit in LIMITS},
)


@given(faces)
def test_the_first_broken_limit_is_the_reason_and_a_looser_one_never_rejects_more(face: Face) -> None:
    settings = FilterSettings()
    verdict = judge(face, Neighbours(), settings)
    for limit in LIMITS:
        bound, value = getattr(settings, limit.setting), limit.value(face)
        if value is not None and (value < bound if limit.setting.startswith("min") else value > bound):
            assert (verdict.reason, verdict.value, verdict.limit) == (limit.reason, value, bound)
            break
    else:
        assert verdict == face
    looser = settings.model_copy(update={"min_sharpness": 0.0, "max_piqe": 100.0})
    assert not (verdict.status == "kept" and judge(face, Neighbours(), looser).status != "kept")


def test_the_count_policies(photos: dict, detector: RetinaFace) -> None:
    small = photos["grace_hopper"][::2, ::2]
    pair = np.zeros((600, 512 + 256, 3), np.uint8)
    pair[:600, :512] = photos["grace_hopper"]
    pair[: small.shape[0], 512 : 512 + small.shape[1]] = small
    assert [face.status for face in judged(pair, detector, faces="all")] == ["kept", "kept"]
    assert [face.reason for face in judged(pair, detector, faces="one")] == ["several_faces"] * 2
    assert [face.reason for face in judged(pair, detector, faces="largest")] == ["", "not_largest"]
    first, second = judged(pair, detector)
    assert first.size > second.size


def folder_of(tmp_path: Path, photos: dict[str, np.ndarray]) -> Path:
    folder = tmp_path / "in"
    folder.mkdir(exist_ok=True)
    for name, rgb in photos.items():
        (folder / f"{name}.png").write_bytes(images.encode_png(rgb))
    return folder


def fetched(root: Path, folder: Path) -> PhotoSet:
    photoset, settings = PhotoSet(root), FetchSettings(source="folder", path=str(folder), part_rows=2)
    with make_source(settings, photoset) as source:
        fetch(photoset, source, settings, Console(), workers=1, limit=0)
    return photoset


def test_a_set_whole_then_a_changed_limit_then_a_new_photo(tmp_path: Path, photos: dict) -> None:
    chosen = {name: photos[name] for name in ("astronaut", "grace_hopper", "moon")}
    folder = folder_of(tmp_path, chosen)
    photoset = fetched(tmp_path / "set", folder)
    spoilt = next(row for row in photoset.photos if "moon" in row.source_id)
    (photoset.root / spoilt.file).write_bytes(b"")
    near = LOOSE.model_copy(update={"duplicate_radius": 22})
    summary = filter_photos(photoset, near, Console())
    assert (summary.counts["kept"], summary.counts["failed: empty"], summary.counts.total()) == (2, 1, 3)
    for face in photoset.faces:
        assert face.id == f"{face.photo_id}-{face.index}"
    assert filter_photos(photoset, near, Console()).made == 0

    before = [photoset.measured.meta(part) for part in photoset.measured.parts()]
    smaller = near.model_copy(update={"max_piqe": 1.0})
    assert filter_photos(photoset, smaller, Console()).counts["rejected: low_quality"] == 2
    assert [photoset.measured.meta(part) for part in photoset.measured.parts()] == before
    filter_photos(photoset, near, Console())

    small = cv2.resize(photos["astronaut"], None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    folder_of(tmp_path, {"astronaut-again": small})
    fetched(photoset.root, folder)
    summary = filter_photos(photoset, near, Console())
    assert (summary.made, summary.counts["kept"], summary.counts["rejected: near_duplicate"]) == (1, 2, 1)
    (repeat,) = [face for face in photoset.faces if face.reason == "near_duplicate"]
    first = next(face for face in photoset.faces if face.id == repeat.duplicate_of)
    assert first.size > repeat.size and first.status == "kept" and repeat.value <= repeat.limit == 22


def test_a_new_photo_that_is_better_takes_the_place_of_the_old_one(tmp_path: Path, photos: dict) -> None:
    small = cv2.resize(photos["astronaut"], None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    near = LOOSE.model_copy(update={"duplicate_radius": 22})
    folder = folder_of(tmp_path, {"a": small, "b": photos["grace_hopper"]})
    photoset = fetched(tmp_path / "set", folder)
    assert filter_photos(photoset, near, Console()).counts["kept"] == 2
    folder_of(tmp_path, {"c": photos["astronaut"]})
    fetched(photoset.root, folder)
    filter_photos(photoset, near, Console())
    (repeat,) = [face for face in photoset.faces if face.reason == "near_duplicate"]
    assert repeat in photoset.faces.rows(0), "the part that was done before says so now"
    assert next(face for face in photoset.faces if face.id == repeat.duplicate_of).size > repeat.size


def test_the_sweep_of_the_command_line(tmp_path: Path, photos: dict) -> None:
    photoset = fetched(tmp_path / "set", folder_of(tmp_path, {"a": photos["astronaut"]}))
    words = ["curate", "filter", photoset.root, "--sweep", "--json"]
    early = authface(*words)
    assert early.returncode == 2 and f"has no measures yet: run authface curate filter {photoset.root}" in early.stderr
    filter_photos(photoset, LOOSE, Console())
    before = [photoset.faces.meta(part) for part in photoset.faces.parts()]
    done = authface(*words, "-O", "curate.filter.min_size=9999")
    found = {one["setting"]: one for one in json.loads(done.stdout)["sweep"]}
    assert set(found) == {limit.setting for limit in LIMITS}
    assert [row["value"] for row in found["min_size"]["thresholds"] if row["current"]] == [9999]
    assert all(row["together"] == 0 for row in found["max_piqe"]["thresholds"])
    assert [photoset.faces.meta(part) for part in photoset.faces.parts()] == before


def test_a_set_of_before_a_measure_is_swept_reported_and_then_measured_again(tmp_path: Path, photos: dict) -> None:
    photoset = fetched(tmp_path / "set", folder_of(tmp_path, {"a": photos["astronaut"]}))
    filter_photos(photoset, LOOSE, Console())
    new = photoset.measured.rows(0)
    for table in (photoset.measured, photoset.faces):
        meta = table.meta(0)
        assert meta is not None
        past = replace(meta, provenance=replace(meta.provenance, version=meta.provenance.version - 1))
        table.put(0, table.arrow(0).drop_columns(["hatching", "pixelation", "sharpening"]), past)
    assert not {"hatching", "pixelation", "sharpening"} & set(photoset.measured.schema(0).names)
    assert [(face.hatching, face.pixelation, face.sharpening) for face in photoset.measured] == [(None,) * 3] * len(new)
    found = {one.setting: one for one in sweep(photoset, LOOSE)}
    lacking = "not counted: max_pixelation, max_sharpening, max_hatching; authface curate filter measures them"
    assert lacking in to_text(list(found.values())), "where they are left out, the faces that are kept are too many"
    assert [found.pop(f"max_{name}").faces for name in ("hatching", "pixelation", "sharpening")] == [0, 0, 0]
    assert all(one.faces == 1 and one.thresholds[-1].together <= 1 for one in found.values())
    assert not {"hatching", "pixelation", "sharpening"} & {chart.name for chart in histograms(photoset)}
    assert contact_sheet(photoset).is_file()
    assert filter_photos(photoset, LOOSE, Console()).made == 1 and photoset.measured.rows(0) == new


def test_duplicates_are_looked_for_among_good_faces_only(tmp_path: Path, photos: dict) -> None:
    blurred = cv2.GaussianBlur(cv2.resize(photos["astronaut"], None, fx=1.5, fy=1.5), (0, 0), 5)
    photoset = fetched(tmp_path / "set", folder_of(tmp_path, {"a": photos["astronaut"], "b": blurred}))
    strict = LOOSE.model_copy(update={"duplicate_radius": duplicates.BITS, "min_sharpness": 0.12})
    assert filter_photos(photoset, strict, Console()).counts == {"kept": 1, "rejected: blurred": 1}


def test_the_sweep_counts_what_judging_would_keep(tmp_path: Path, photos: dict) -> None:
    turned = {f"{at}": cv2.GaussianBlur(photos["astronaut"], (0, 0), 0.4 + at / 2) for at in range(4)}
    photoset = fetched(tmp_path / "set", folder_of(tmp_path, turned))
    settings = LOOSE.model_copy(update={"min_sharpness": 0.1, "max_piqe": 60.0})
    filter_photos(photoset, settings, Console())
    assert all(one.faces == 4 for one in sweep(photoset, settings.model_copy(update={"faces": "one"})))
    for one in sweep(photoset, settings):
        assert [row.value for row in one.thresholds] == sorted(row.value for row in one.thresholds)
        assert sum(row.current for row in one.thresholds) == 1 and one.faces == 4
        for row in one.thresholds:
            faces = [f for f in photoset.measured if f.status == "kept"]
            other = settings.model_copy(update={one.setting: row.value})
            alone = LOOSE.model_copy(update={one.setting: row.value, "min_score": 0.0})
            alone = alone if one.setting != "min_score" else alone.model_copy(update={"min_score": row.value})
            assert row.together == sum(judge(f, Neighbours(), other).status == "kept" for f in faces)
            assert row.alone == sum(judge(f, Neighbours(), alone).status == "kept" for f in faces)


def test_a_face_outside_of_its_photo_is_a_failed_row(photos: dict) -> None:
    class Wild:
        def detect(self, rgb: np.ndarray) -> list:
            found = RetinaFace(LEAST_SCORE).detect(rgb)[0]
            away = tuple(np.array(found.points5) + 50_000)
            return [dataclasses.replace(found, points5=away)]

    (face,) = measure_faces(photos["astronaut"], Wild())
    assert (face.status, face.reason) == ("failed", "quad") and face.detail
