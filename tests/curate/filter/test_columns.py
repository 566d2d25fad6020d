"""A part judged by columns keeps the faces that are kept when judged one by one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authface.curate.filter.columns import MEASURES, within_limits
from authface.curate.filter.measure import LIMITS, judge_alone
from authface.curate.settings import FilterSettings
from authface.records import Face
from authface.store.rows import arrow_schema, plain

BOUNDS = {limit.measure: getattr(FilterSettings(), limit.setting) for limit in LIMITS}
GOOD = BOUNDS | {"exposure": 130.0}


def faces(seed: int, count: int) -> list[Face]:
    """Faces at, about and without their limits, one to three of a photo, some that could not be measured."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        values = {name: float(value) for name, value in GOOD.items()}
        for name in rng.choice(MEASURES, rng.integers(0, 3), replace=False).tolist():
            values[name] = rng.choice([None, -values[name], values[name] * 1.5, 0.0, 1000.0, -1000.0, float("nan")])
        face = Face(id=f"{number}", photo_id=f"p{number // 3}", photo_file="", index=number % 3, **values)
        status = rng.choice(["kept", "kept", "failed", "rejected"])
        made.append(replace(face, status=status))
    return [face for face in made if rng.random() < 0.7]


@pytest.mark.parametrize("policy", ["all", "largest", "one"])
@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(0, 30))
def test_a_part_is_judged_as_its_faces_are(policy: str, seed: int, count: int) -> None:
    limits = FilterSettings().model_copy(update={"faces": policy})
    rows = faces(seed, count)
    in_photo = Counter(face.photo_id for face in rows)
    kept = [judge_alone(face, in_photo[face.photo_id], limits).status == "kept" for face in rows]
    table = pa.Table.from_pylist([plain(face) for face in rows], schema=arrow_schema(Face))
    assert within_limits(table, limits).tolist() == kept


def test_some_of_the_faces_here_are_kept_and_some_refused() -> None:
    rows = [face for face in faces(1, 300) if face.status == "kept"]
    statuses = {judge_alone(face, 1, FilterSettings()).status for face in rows}
    assert statuses == {"kept", "rejected"}
