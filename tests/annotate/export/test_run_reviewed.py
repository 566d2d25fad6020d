"""Tags and the exported dataset honour what people decided about crops."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from authface.annotate.export.run import export
from authface.annotate.measured.tagger import MeasuredTags
from authface.annotate.settings import ExportSettings, MeasuredSettings
from authface.console import Console
from authface.engine.runner import run
from authface.errors import AuthfaceError
from authface.imaging import decode as images
from authface.records import Crop, Face, Photo, now
from authface.review.reviews import (
    Decision,
    Retouch,
    ReviewedStep,
    ReviewSettings,
    decision_log,
    retouch_log,
    retouched_file,
    reviewed_crops,
)
from authface.store.photoset import PhotoSet, Provenance, Table, digest
from tests.conftest import authface

SIZE = 128


def landmarks() -> tuple[float, ...]:
    """68 points roughly where a face has them, in a crop of 128 px."""
    around = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    jaw = [(64 - 44 * np.cos(turn), 60 + 52 * np.sin(turn)) for turn in np.linspace(0, np.pi, 17)]
    brows = [(x, 46.0) for x in (*np.linspace(30, 56, 5), *np.linspace(72, 98, 5))]
    nose = [(64.0, y) for y in np.linspace(56, 78, 4)] + [(x, 82.0) for x in np.linspace(56, 72, 5)]
    eyes = [
        (x + 8 * np.cos(turn), 56 + 4 * np.sin(turn)) for x in (44, 84) for turn in np.linspace(-np.pi, np.pi, 7)[:6]
    ]
    mouth = [(64 + 16 * np.cos(turn), 96 + 6 * np.sin(turn)) for turn in around]
    return tuple(float(value) for point in (*jaw, *brows, *nose, *eyes, *mouth) for value in point)


@pytest.fixture
def photoset(tmp_path: Path) -> PhotoSet:
    """Two crops of noise, each the whole of its photo, tagged."""
    found, rng = PhotoSet(tmp_path / "set"), np.random.default_rng(5)
    photos, faces, crops = [], [], []
    for digit in "ab":
        photo_id, face_id = digit * 64, f"{digit * 64}-0"
        photo, crop = found.photo_file(photo_id, "png"), found.crop_file(face_id)
        for file in (photo, crop):
            found.save(file, images.encode_png(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)))
        photos.append(Photo(id=photo_id, source="folder", source_id=digit, file=photo, width=SIZE, height=SIZE))
        faces.append(Face(id=face_id, photo_id=photo_id, photo_file=photo, index=0, box=(0, 0, SIZE, SIZE), score=1.0))
        quad = (-0.5, -0.5, -0.5, SIZE - 0.5, SIZE - 0.5, SIZE - 0.5, SIZE - 0.5, -0.5)
        crops.append(Crop(id=face_id, photo_id=photo_id, file=crop, size=SIZE, quad=quad, landmarks=landmarks()))
    made_from = ""
    tables: list[tuple[Table[Any], list[Any]]] = [
        (found.photos, photos), (found.measured, faces), (found.faces, faces), (found.crops, crops)
    ]  # fmt: skip
    for table, rows in tables:
        table.write(0, rows, Provenance("test", 1, {}, {}), made_from)
        made_from = digest(rows)
    assert tag(found) == 1
    return found


def tag(photoset: PhotoSet) -> int:
    work = ReviewedStep(MeasuredTags(photoset.root, MeasuredSettings()))
    return run(work, reviewed_crops(photoset, ReviewSettings()), photoset.tags("measured"), Console()).made


def kept(photoset: PhotoSet) -> list[Crop]:
    return [crop for crop in photoset.crops if crop.status == "kept"]


def decide(photoset: PhotoSet, crop: Crop, verdict: str) -> None:
    decision_log(photoset, "anna").append(Decision(id=crop.id, verdict=verdict, at=now("microseconds")))  # type: ignore[arg-type]


def rows(folder: Path) -> dict[str, bytes]:
    """The picture of every row, by id."""
    import pyarrow.parquet as pq

    shards = [pq.read_table(shard).to_pylist() for shard in sorted((folder / "data").glob("*.parquet"))]
    return {row["id"]: row["image"]["bytes"] for shard in shards for row in shard}


def test_a_rejected_crop_is_left_out_and_comes_back_with_the_undo(photoset: PhotoSet) -> None:
    first, second = kept(photoset)
    whole = export(photoset, ExportSettings(), Console())
    decide(photoset, first, "keep")
    assert tag(photoset) == 0 and not export(photoset, ExportSettings(), Console()).written
    decide(photoset, first, "reject")
    with pytest.raises(AuthfaceError, match=f"run authface annotate tags {photoset.root} --with measured first"):
        export(photoset, ExportSettings(), Console())
    done = authface("annotate", "tags", photoset.root, "--with", "measured")
    assert done.returncode == 0 and "1 parts made" in done.stdout, done.stderr
    row = next(row for row in photoset.tags("measured") if row.id == first.id)
    assert (row.status, row.reason) == ("rejected", "rejected_in_review")
    less = export(photoset, ExportSettings(), Console())
    assert less.written and set(rows(less.folder)) == {second.id}
    assert "rejected_in_review" in (less.folder / "README.md").read_text().replace("\\", "")
    decide(photoset, first, "undo")
    assert tag(photoset) == 1
    assert export(photoset, ExportSettings(), Console()).rows == whole.rows == 2


def test_a_retouched_crop_is_exported_in_the_place_of_the_original(photoset: PhotoSet) -> None:
    crop = kept(photoset)[0]
    assert export(photoset, ExportSettings(), Console()).written
    rgb = images.decode(photoset.read(crop.file)).rgb.copy()
    rgb[100:110, 60:70] = 128
    data = images.encode_png(np.ascontiguousarray(rgb))
    sha256 = hashlib.sha256(data).hexdigest()
    file = retouched_file(crop.id, sha256)
    photoset.save(file, data)
    done = Retouch(
        id=crop.id, file=file, size=crop.size, quad=crop.quad, before="", after=sha256, asked_by="anna",
        asked_at=now("microseconds"), at=now("microseconds"), changed=0.1, mean_change=1.0,
    )  # fmt: skip
    retouch_log(photoset).append(done)
    table = photoset.tags("measured")
    before = table.rows(0)
    assert tag(photoset) == 1
    meta = table.meta(0)
    assert meta is not None
    table.write(0, before, meta.provenance, meta.inputs)  # as if the new pixels had earned the same tags
    exported = export(photoset, ExportSettings(), Console())
    assert exported.written and rows(exported.folder)[crop.id] == data
    assert "retouched by hand | 1" in (exported.folder / "README.md").read_text()
