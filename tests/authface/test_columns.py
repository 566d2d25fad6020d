"""Records as plain values."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.columns import plain
from authface.records import Camera, Crop, Face, Person, Photo, Score, Tags

ROWS = st.one_of([st.from_type(kind) for kind in (Photo, Face, Crop, Tags, Person)])


@given(ROWS)
def test_plain_values_are_those_of_asdict(row: Photo | Face | Crop | Tags | Person) -> None:
    assert list(plain(row).items()) == list(asdict(row).items())


@pytest.mark.parametrize("value", [Score(metric="piqe", value=1.5), Camera(make="M", iso=100.0)])
def test_a_record_inside_a_record_too(value: Score | Camera) -> None:
    assert plain(value) == asdict(value)
