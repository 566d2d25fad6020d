"""Records as plain values."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.records import Camera, Crop, Face, Person, Photo, Score, Tags
from authface.store.parquet import arrow_schema, plain, with_defaults
from authface.store.photoset import Provenance, Table

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
