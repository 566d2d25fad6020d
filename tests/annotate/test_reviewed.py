"""Tags and the exported dataset honour what people decided about crops."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from authface import images
from authface.annotate.export import export
from authface.annotate.settings import ExportSettings, MeasuredSettings
from authface.annotate.tags import MeasuredTags
from authface.console import Console
from authface.decisions import Decision, Retouch
from authface.errors import AuthfaceError
from authface.photoset import PhotoSet
from authface.records import Crop
from authface.reviews import (
    Honouring,
    ReviewSettings,
    decision_log,
    now,
    retouch_log,
    retouched_file,
    reviewed_crops,
)
from authface.runner import run


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two faces of the samples, aligned at 128 px, tagged."""
    root = tmp_path_factory.mktemp("samples") / "set"
    steps = (["curate", "fetch", "--from", "samples"], ["curate", "filter"], ["curate", "align"])
    for stage, step, *rest in steps:
        settings = ["-O", "curate.filter.min_size=40", "-O", "curate.align.size=128"]
        command = [sys.executable, "-m", "authface.cli", stage, step, str(root), *rest, *settings]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    tag(PhotoSet(root))
    return root


@pytest.fixture
def photoset(tagged: Path, tmp_path: Path) -> PhotoSet:
    return PhotoSet(Path(shutil.copytree(tagged, tmp_path / "set")))


def tag(photoset: PhotoSet) -> int:
    work = Honouring(MeasuredTags(photoset.root, MeasuredSettings()))
    return run(work, reviewed_crops(photoset, ReviewSettings()), photoset.tags("measured"), Console()).made


def kept(photoset: PhotoSet) -> list[Crop]:
    return [crop for crop in photoset.crops if crop.status == "kept"]


def decide(photoset: PhotoSet, crop: Crop, verdict: str) -> None:
    decision_log(photoset, "anna").append(Decision(id=crop.id, verdict=verdict, at=now()))  # type: ignore[arg-type]


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
    with pytest.raises(AuthfaceError, match="annotate tags --with measured"):
        export(photoset, ExportSettings(), Console())
    assert tag(photoset) == 1
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
        asked_at=now(), at=now(), changed=0.1, mean_change=1.0,
    )  # fmt: skip
    retouch_log(photoset).append(done)
    assert tag(photoset) == 1
    exported = export(photoset, ExportSettings(), Console())
    assert exported.written and rows(exported.folder)[crop.id] == data
    assert "retouched by hand | 1" in (exported.folder / "README.md").read_text()
