"""Tables come back as they went in, are whole or absent, and know how they were made."""

from __future__ import annotations

import errno
import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.errors import AuthfaceError, UsageError
from authface.records import Crop, Face, Photo, Tag, Tags
from authface.store.photoset import PhotoSet, Provenance, Table, digest
from authface.store.rows import arrow_schema

MADE = Provenance("test", 1, {"limit": 3, "nested": [1, 2]}, {"net": "abc"})
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
number = st.floats(allow_nan=False)
verdict = {
    "status": st.sampled_from(["kept", "rejected", "failed"]),
    "reason": text,
    "value": st.none() | number,
    "limit": st.none() | number,
    "detail": text,
}


def some(row_type: type, **known: st.SearchStrategy) -> st.SearchStrategy:
    by_type = {
        "str": text,
        "int": st.integers(-(2**62), 2**62),
        "bool": st.booleans(),
        "float | None": st.none() | number,
    }
    values = {f.name: by_type[str(f.type)] for f in fields(row_type) if str(f.type) in by_type}
    return st.builds(row_type, **{**values, **known, **verdict})


photos = some(Photo)
faces = some(
    Face,
    box=st.none() | st.tuples(number, number, number, number),
    points5=st.none() | st.lists(number, min_size=10, max_size=10).map(tuple),
)
crops = some(Crop, quad=st.none() | st.lists(number, max_size=8).map(tuple), landmarks=st.none())
tags = some(Tags, tags=st.lists(st.builds(Tag, name=text, group=text, confidence=number), max_size=4).map(tuple))


@given(st.one_of(*(st.tuples(st.just(kind), st.lists(rows, max_size=5)) for kind, rows in
                   [(Photo, photos), (Face, faces), (Crop, crops), (Tags, tags)])))  # fmt: skip
def test_rows_come_back_as_they_went_in(tmp_path_factory: pytest.TempPathFactory, case: tuple[type, list]) -> None:
    kind, rows = case
    table = Table(tmp_path_factory.mktemp("table"), kind)
    table.write(3, rows, MADE, "inputs")
    assert table.rows(3) == rows
    assert list(table) == rows
    meta = table.meta(3)
    assert meta is not None
    assert (meta.provenance, meta.inputs, meta.digest) == (MADE, "inputs", digest(rows))
    assert sum(table.counts().values()) == len(rows)


def test_every_field_of_every_record_has_a_column() -> None:
    for kind in (Photo, Face, Crop, Tags):
        assert arrow_schema(kind).names == [f.name for f in fields(kind)]


def test_a_write_the_disk_refuses_leaves_the_old_part_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table(tmp_path, Photo)
    row = Photo(id="a", source="s", source_id="1", file="")
    table.write(0, [row], MADE, "")

    def full(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(AuthfaceError, match="disk is full.*kept"):
        table.write(0, [replace(row, id="b")], MADE, "")
    assert [path.name for path in tmp_path.iterdir()] == ["00000.parquet"]
    assert table.rows(0) == [row]


def test_a_file_where_a_folder_belongs_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "photos").write_bytes(b"")
    with pytest.raises(AuthfaceError, match="cannot write .*photos/ab/x.jpg"):
        PhotoSet(tmp_path).save("photos/ab/x.jpg", b"data")


def test_a_foreign_file_among_the_parts_has_no_meta(tmp_path: Path) -> None:
    (tmp_path / "00000.parquet").write_bytes(b"not parquet")
    assert Table(tmp_path, Photo).meta(0) is None
    assert Table(tmp_path, Photo).meta(7) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"settings": {"limit": 4, "nested": [1, 2]}}, "limit 3 -> 4"),
        ({"version": 2}, "version 1 -> 2"),
        ({"weights": {"net": "def"}}, "changed weights of net"),
        ({"step": "other"}, "made by test"),
        ({}, ""),
    ],
)
def test_provenance_says_what_changed(change: dict, words: str) -> None:
    assert words in MADE.difference(replace(MADE, **change))
    assert bool(words) == bool(MADE.difference(replace(MADE, **change)))


def test_the_set_is_locked_once_and_cleared_of_leftovers(tmp_path: Path) -> None:
    left = tmp_path / "tables" / "photos" / ".tmp-0123"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half a part")
    with PhotoSet(tmp_path).lock():
        assert not left.exists()
        with pytest.raises(AuthfaceError, match="in use"), PhotoSet(tmp_path).lock():
            pass
    with PhotoSet(tmp_path).lock():
        pass


def test_settings_are_remembered_side_by_side(tmp_path: Path) -> None:
    photoset = PhotoSet(tmp_path)
    photoset.remember("curate.fetch", {"path": 'a "quoted"\nname', "limit": None})
    photoset.remember("curate.align", {"size": 512})
    from authface.recipe import load

    sections = {"curate.fetch": "authface.curate.settings:FetchSettings",
                "curate.align": "authface.curate.settings:AlignSettings"}  # fmt: skip
    recipe = load(str(tmp_path / "recipe.toml"), [], {**sections})
    assert recipe.tables["curate"] == {"fetch": {"path": 'a "quoted"\nname'}, "align": {"size": 512}}


def test_no_set_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="curate fetch"):
        PhotoSet.open(tmp_path)
    with pytest.raises(UsageError, match="lower-case"):
        PhotoSet(tmp_path).tags("../evil")


def test_digest_tells_rows_apart() -> None:
    row = Photo(id="a", source="s", source_id="1", file="")
    assert digest([row]) != digest([replace(row, value=math.pi)]) != digest([])


def test_tables_are_the_folders_below_that_hold_parts(tmp_path: Path) -> None:
    photoset = PhotoSet(tmp_path)
    assert photoset.tables() == {}
    for table in (photoset.photos, photoset.tags("measured")):
        table.write(0, [], MADE, "")
    for other in ("empty/x.txt", "odd/x.parquet", "odd/.parquet", "tags/1.json"):
        (tmp_path / "tables" / other).parent.mkdir(exist_ok=True)
        (tmp_path / "tables" / other).write_bytes(b"")
    assert list(photoset.tables()) == ["photos", "tags/measured"] and photoset.tables()["photos"] is photoset.photos
