"""Shards are read in place: no copy, an index made once, each process its share; what else opens is copied."""

import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from authface.errors import AuthfaceError
from authface.imaging.decode import encode_png
from authface.train import data
from authface.train.data import FaceDataset
from authface.train.rows import CopiedRows, Shard, ShardRows, open_rows

ROWS = 23
CPU = torch.device("cpu")


def image(number: int) -> bytes:
    """PNGs that begin alike; every fourth is the one before it."""
    return encode_png(np.random.default_rng(number - (number % 4 == 3)).integers(0, 255, (40, 40, 3), np.uint8))


def write(folder: Path, **how: Any) -> Path:
    """Three shards with several row groups and pages each, as `annotate export` writes them; `how` packs otherwise."""
    (folder / "data").mkdir(parents=True)
    schema = pa.schema({"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "id": pa.string()})
    packed: dict[str, Any] = {"compression": {"image.bytes": "none", "id": "zstd"}, "use_dictionary": ["id"]}
    for shard, start in enumerate(range(0, ROWS, 10)):
        rows = [
            {"image": {"bytes": image(n), "path": None}, "id": f"face-{n}"} for n in range(start, min(start + 10, ROWS))
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema), folder / "data" / f"train-{shard:05d}.parquet",
                       row_group_size=4, data_page_size=6000, write_page_index=True, **packed | how)  # fmt: skip
    return folder


@pytest.fixture(autouse=True)
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that `datasets` copies to, of this test alone."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "copies")
    return tmp_path / "copies"


def test_images_are_read_where_they_lie(tmp_path: Path, copies: Path) -> None:
    """All of them, in any order; nothing is copied, and a second opening reads through nothing."""
    faces = FaceDataset(write(tmp_path / "set"), 64)
    assert len(faces) == ROWS and [faces.data(n) for n in reversed(range(ROWS))] == [*map(image, reversed(range(ROWS)))]
    assert [faces.id(n) for n in (0, 9, 10, ROWS - 1)] == ["face-0", "face-9", "face-10", f"face-{ROWS - 1}"]
    assert len(list(copies.rglob("*.npy"))) == 3 and not list(copies.rglob("*.arrow"))
    assert open_rows(tmp_path / "set", "train").unindexed() == []
    moved = Path(shutil.copytree(tmp_path / "set", tmp_path / "moved"))
    assert open_rows(moved, "train").unindexed() == []


def test_what_packs_its_images_is_copied_and_has_the_same_keys(tmp_path: Path) -> None:
    """Rows, the digest of a run's faces and the keys of latents do not hang on how images are stored."""
    plain, packed = write(tmp_path / "plain"), write(tmp_path / "packed", compression="snappy", use_dictionary=True)
    assert isinstance(open_rows(plain, "train"), ShardRows) and isinstance(open_rows(packed, "train"), CopiedRows)
    one, two = FaceDataset(plain, 64), FaceDataset(packed, 64)
    assert one.content == two.content
    assert [one.key(n) for n in range(ROWS)] == [two.key(n) for n in range(ROWS)]
    assert one.key(2) == one.key(3) != one.key(4)


def test_each_process_reads_its_share_through(tmp_path: Path, copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before they meet each has indexed some of the shards, together all; then nobody reads any."""
    faces, indexed = FaceDataset(write(tmp_path / "set"), 64), list[str]()
    plain = Shard.index
    monkeypatch.setattr(Shard, "index", lambda self: (indexed.append(self.path.name), plain(self)))
    monkeypatch.setattr(data, "barrier", lambda device: shares.append(list(indexed)))
    monkeypatch.setenv("WORLD_SIZE", "2")
    shares: list[list[str]] = []
    for rank in ("0", "1"):
        shutil.rmtree(copies, ignore_errors=True)
        indexed.clear()
        monkeypatch.setenv("RANK", rank)
        faces.prepare(CPU)
        assert len(indexed) == 3  # the other process was never there: its share is made up for
    assert sorted(shares[0] + shares[1]) == [f"train-0000{n}.parquet" for n in range(3)]
    indexed.clear()
    faces.prepare(CPU)
    assert indexed == []


def test_a_changed_or_cut_shard_is_not_taken_for_the_one_before(tmp_path: Path, copies: Path) -> None:
    """A shard of other rows has another index; one that is cut while it is in use, or a broken index, is told of."""
    faces = FaceDataset(write(tmp_path / "set"), 64)
    faces.prepare(CPU)
    first, last = tmp_path / "set/data/train-00000.parquet", tmp_path / "set/data/train-00002.parquet"
    shutil.copyfile(tmp_path / "set/data/train-00001.parquet", first)
    pq.write_table(pq.read_table(first).slice(0, 7), first, compression="none", use_dictionary=["id"])
    (changed,) = open_rows(tmp_path / "set", "train").unindexed()
    assert changed.path == first and changed.rows == 7
    last.write_bytes(last.read_bytes()[:100])
    with pytest.raises(AuthfaceError, match=r"cannot read .*train-00002.parquet"):
        faces.rgb(ROWS - 1)
    with pytest.raises(OSError, match="has become shorter"):
        faces.data(ROWS - 1)
    changed.index()
    changed.index_path.write_bytes(changed.index_path.read_bytes()[:-1])
    with pytest.raises(AuthfaceError, match="is broken: delete it and run again"):
        ShardRows([changed]).image(0)
