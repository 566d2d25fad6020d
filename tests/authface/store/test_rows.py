"""Rows on disk: Parquet's columns and back, values that do not fit, and rows sorted in a temporary file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.annotate.export.publication import Publisher, plan
from authface.annotate.rebuild.manifest import NEEDED, DatasetManifest
from authface.errors import AuthfaceError
from authface.inspect.why import find_photo
from authface.records import Camera, Crop, Face, Person, Photo, Score, Tags
from authface.store.journal import dataset_ids
from authface.store.photoset import PhotoSet, Provenance, Table
from authface.store.rows import (
    SortedRows,
    arrow_schema,
    column_names,
    plain,
    read_batches,
    read_rows,
    read_text,
    row_count,
    with_defaults,
)

NOT_TEXT = pa.array([b"\xff\xfe"] * 3).cast(pa.binary()).view(pa.string())


def whole(path: Path, **columns: object) -> bytes:
    pq.write_table(pa.table({"id": ["a", "b", None], "photo_id": ["p"] * 3, **columns}), path)
    return path.read_bytes()


DAMAGE: list[Callable[[bytes], bytes]] = [
    lambda data: b"",
    lambda data: b"no parquet\n",
    lambda data: data[: len(data) // 2],
    lambda data: data[:-5],
    lambda data: data[:4] + bytes(255 - one for one in data[4:-8]) + data[-8:],
    lambda data: data[:4] + b"\xff" * (len(data) // 3) + data[4 + len(data) // 3 :],
]


@pytest.mark.parametrize("damage", range(len(DAMAGE)))
def test_a_damaged_file_is_one_line(damage: int, tmp_path: Path) -> None:
    path = tmp_path / "a\n.parquet"
    path.write_bytes(DAMAGE[damage](whole(path)))
    for read in (lambda: list(read_rows(path)), lambda: list(read_text(path, ["id"]))):
        with pytest.raises(AuthfaceError, match="cannot be read as Parquet") as error:
            read()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("column", "names"),
    [
        (NOT_TEXT, ["other"]),
        (pa.array([[1], [2], []]), ["other"]),
        (pa.array([b"\xff"] * 3), ["other"]),
        (pa.array([1, 2, 3]), ["missing"]),
    ],
)
def test_a_foreign_column_is_one_line(column: pa.Array, names: list[str], tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    whole(path, other=column)
    with pytest.raises(AuthfaceError, match="cannot be read as Parquet"):
        list(read_text(path, names))


def test_what_is_whole_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    whole(path, number=[1, 2, 3])
    assert column_names(path) == ["id", "photo_id", "number"] and row_count(path) == 3
    assert list(read_text(path, ["id", "number"]))[2] == {"id": "", "number": "3"}
    assert [row["number"] for row in read_rows(path, ["number", "none"], rows=2)] == [1, 2, 3]
    assert [batch.num_rows for batch in read_batches(path, rows=2)] == [2, 1]
    nothing = tmp_path / "nothing.parquet"
    with pytest.raises(AuthfaceError, match="cannot be read as Parquet"):
        row_count(nothing)


@pytest.mark.parametrize("type", [pa.int64(), pa.string(), pa.binary(), pa.list_(pa.int64())])
def test_a_manifest_of_other_types_has_bad_rows_or_is_one_line(type: pa.DataType, tmp_path: Path) -> None:
    value = {pa.int64(): 7, pa.string(): "x", pa.binary(): b"x"}.get(type, [1])
    path = tmp_path / "manifest.parquet"
    pq.write_table(pa.table({name: pa.array([value] * 2, type) for name in NEEDED}), path)
    manifest = DatasetManifest([path])
    assert manifest.annotators() == [] and len(list(manifest.origins())) == 2
    if not pa.types.is_list(type):
        assert len(list(manifest.entries({"7", "x"}, [(0, 0)]))) == 2
    else:
        with pytest.raises(AuthfaceError, match="cannot be read as Parquet"):
            list(manifest.entries({"7"}, [(0, 0)]))
    pq.write_table(pa.table(dict.fromkeys(NEEDED, NOT_TEXT)), path)
    for read in (manifest.origins, lambda: manifest.entries({"x"}, [(0, 0)]), lambda: iter(manifest.annotators())):
        with pytest.raises(AuthfaceError, match="cannot be read as Parquet"):
            list(read())


@pytest.mark.parametrize("damage", range(len(DAMAGE)))
def test_a_damaged_part_of_a_set_is_one_line_with_what_to_do(damage: int, tmp_path: Path) -> None:
    photoset = PhotoSet(tmp_path / "set")
    photo = Photo(id="ab" * 32, source="folder", source_id="a.jpg", file="photos/a.jpg")
    photoset.photos.write(0, [photo], Provenance("fetch", {}, 1, {}), "")
    part = photoset.photos.folder / "00000.parquet"
    part.write_bytes(DAMAGE[damage](part.read_bytes()))
    reads: list[Callable[[], object]] = [
        lambda: photoset.photos.rows(0),
        lambda: photoset.photos.columns(0, ["id"]),
        lambda: find_photo(photoset, "a.jpg"),
    ]
    for read in reads:
        with pytest.raises(
            AuthfaceError, match=r"00000\.parquet cannot be read as Parquet: .*; move it away, run again"
        ):
            read()


def test_columns_of_a_part_have_the_types_of_its_rows(tmp_path: Path) -> None:
    photoset = PhotoSet(tmp_path / "set")
    part = photoset.photos.folder / "00000.parquet"
    part.parent.mkdir(parents=True)
    pq.write_table(pa.table({"id": pa.array([b"x"]), "width": pa.array([3.0])}), part)
    table = photoset.photos.arrow(0, ["id", "width", "licence"])
    expected = arrow_schema(Photo)
    assert all(table.schema.field(name).type == expected.field(name).type for name in table.column_names)
    assert table.to_pylist() == [{"id": "x", "width": 3, "licence": ""}]
    with pytest.raises(AuthfaceError, match="has no column source_id: move it away"):
        photoset.photos.arrow(0, ["source_id"])
    pq.write_table(pa.table({"id": pa.array([[1]])}), part)
    with pytest.raises(AuthfaceError, match="cannot be read as Parquet"):
        photoset.photos.arrow(0, ["id"])


def test_ids_of_a_damaged_export_are_not_none(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-0.parquet").write_bytes(b"no parquet")
    with pytest.raises(AuthfaceError, match="cannot be read"):
        list(dataset_ids(tmp_path))


def test_a_damaged_shard_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.setattr("authface.annotate.export.publication.check_newest", lambda *_: {})
    for data in (b"no parquet", whole(tmp_path / "data" / "train-0.parquet")):
        (tmp_path / "data" / "train-0.parquet").write_bytes(data)
        with pytest.raises(AuthfaceError, match="cannot be read as Parquet"):
            plan(PhotoSet(tmp_path / "set"), tmp_path, Publisher())


ROWS = st.one_of([st.from_type(kind) for kind in (Photo, Face, Crop, Tags, Person)])


@given(ROWS)
def test_plain_values_are_those_of_asdict(row: Photo | Face | Crop | Tags | Person) -> None:
    assert list(plain(row).items()) == list(asdict(row).items())


@pytest.mark.parametrize("value", [Score(metric="piqe", value=1.5), Camera(make="M", iso=100.0)])
def test_a_record_inside_a_record_too(value: Score | Camera) -> None:
    assert plain(value) == asdict(value)


def test_a_column_of_before_its_field_reads_as_the_default() -> None:
    rows = [Face(id=f"{at}-0", photo_id=f"{at}", photo_file="a.jpg", index=0, noise=1.5) for at in range(3)]
    whole = pa.Table.from_pylist([plain(row) for row in rows], schema=arrow_schema(Face))
    early = whole.drop_columns(["noise", "hash", "scores", "status", "photo_id"])
    assert with_defaults(early, Face, ["id", "size"]) is early, "what was not asked for stays away"
    later = with_defaults(early, Face, [*whole.column_names, "of_no_face"])
    assert set(whole.column_names) - set(later.column_names) == {"photo_id"}, "it has no default"
    assert all(later.schema.field(name) == whole.schema.field(name) for name in later.column_names)
    told = later.select(["noise", "hash", "scores", "status"]).to_pylist()
    assert told == [{"noise": None, "hash": "", "scores": [], "status": "kept"}] * 3


def test_a_part_without_any_of_the_columns_asked_for_has_its_rows(tmp_path: Path) -> None:
    table = Table(tmp_path, Face)
    table.write(0, [Face(id="a-0", photo_id="a", photo_file="a.jpg", index=0)] * 2, Provenance("test", 1, {}, {}), "")
    meta = table.meta(0)
    assert meta is not None
    table.put(0, table.arrow(0).drop_columns(["hatching"]), meta)
    assert table.columns(0, ["hatching"]) == [(None,), (None,)]
    assert "hatching" not in table.arrow(0).column_names, "all columns are those on the disk"


@given(st.lists(st.tuples(st.text(), st.floats(allow_nan=False), st.binary())))
def test_text_sorts_by_its_bytes_and_equal_rows_stay_in_order(rows: list[tuple[str, float, bytes]]) -> None:
    numbered = [(at, *row) for at, row in enumerate(rows)]
    with SortedRows(["at", "text", "number", "code"], numbered, "number desc, text") as made:
        found = list(made.select("* from sorted order by rowid"))
        assert found == sorted(numbered, key=lambda row: (-row[2], row[1].encode()))
        assert [row[0] for row in made.select("rowid from sorted order by rowid")] == list(range(1, len(rows) + 1))


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def small(path: str, timeout: float) -> sqlite3.Connection:
        base = connect(path)
        base.execute("pragma max_page_count = 2")
        return base

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", small)
    with pytest.raises(AuthfaceError, match=r"database or disk is full; free space .* SQLITE_TMPDIR"):
        SortedRows(["text"], (["x" * 1000] for _ in range(100)), "text")
