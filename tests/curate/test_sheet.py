"""The contact sheet counts, samples and draws what the rows say, without making records of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authface.curate.sheet import contact_sheet, histograms, rank, sample
from authface.records import Face
from authface.store.photoset import PhotoSet, Provenance, Table, outcome

Furnished = Callable[[Path], PhotoSet]


def faces(count: int) -> list[Face]:
    rng = np.random.default_rng(3)
    digits = rng.integers(0, 16, (count, 64))
    names = ["".join("0123456789abcdef"[d] for d in row) for row in digits]
    return [
        Face(id=f"{name}-0", photo_id=name, photo_file="", index=0, sharpness=float(index % 50) / 100,
             status="kept" if index % 50 >= 15 else "rejected", reason="" if index % 50 >= 15 else "blurred")
        for index, name in enumerate(names)
    ]  # fmt: skip


def write(table: Table[Face], rows: list[Face], part_rows: int) -> None:
    for part, at in enumerate(range(0, len(rows), part_rows)):
        settings = {"min_sharpness": 0.15, "max_noise": 6.0}
        table.write(part, rows[at : at + part_rows], Provenance("filter", 1, settings, {}), "")


def test_counts_and_samples_are_those_of_the_rows(tmp_path: Path) -> None:
    rows = faces(500)
    table = PhotoSet(tmp_path).faces
    write(table, rows, 60)
    found = sample(table, 20)
    assert found.counts == Counter(outcome(row) for row in rows) and found.total == 500
    for name, chosen in found.rows.items():
        assert chosen == sorted((r for r in rows if outcome(r) == name), key=lambda r: rank(r.id))[:20]
    write(table, rows, 500)
    for part in range(1, 9):
        table.remove(part)
    assert sample(table, 20) == found, "however the rows are parted"


def test_ids_that_are_no_digest_are_spread_too() -> None:
    ranks = [rank(f"photo-{number}") for number in range(2000)]
    assert 0.45 < np.mean(ranks) / 16**15 < 0.55 and len(set(ranks)) == 2000


def test_only_sampled_rows_become_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = PhotoSet(tmp_path).faces
    write(table, faces(300), 50)
    made = 0

    def counted(row_type: type[Face]) -> Callable[[dict[str, object]], Face]:
        def read(values: dict[str, object]) -> Face:
            nonlocal made
            made += 1
            return Face(**{**values, "scores": ()})  # type: ignore[arg-type]

        return read

    monkeypatch.setattr("authface.curate.sheet.row_reader", counted)
    assert sum(map(len, sample(table, 5).rows.values())) == made == 10


def test_histograms_hold_every_value_and_the_limits(tmp_path: Path) -> None:
    photoset = PhotoSet(tmp_path)
    rows = faces(400)
    write(photoset.faces, rows, 100)
    charts = {chart.name: chart for chart in histograms(photoset)}
    assert set(charts) == {"sharpness"}, "what nobody measured has no chart"
    chart = charts["sharpness"]
    assert sum(chart.kept) == sum(r.status == "kept" for r in rows) and chart.total == 400
    assert chart.limits == [("min_sharpness", 0.15)]
    limit = int(chart.place(0.15) * len(chart.kept))
    assert sum(chart.kept[: limit - 1]) == 0 == sum(chart.rejected[limit + 1 :])


def test_scores_angles_and_photos_have_charts(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    charts = {chart.name: chart for chart in histograms(photoset)}
    assert {"long side", "musiq", "yaw", "pad fraction"} <= set(charts)
    assert charts["musiq"].total == charts["yaw"].total == sum(photoset.faces.counts().values())
    assert charts["yaw"].limits == [("max_yaw", -40.0), ("max_yaw", 40.0)]
    assert charts["long side"].total == 6, "a photo that could not be read has no size"


def test_the_sheet_shows_steps_charts_and_samples(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    text = contact_sheet(photoset).read_text("utf-8")
    for said in (
        "tags measured: kept",
        "people: kept",
        "faces: rejected, same file again",
        "photos: failed, truncated",
    ):
        assert said in text
    assert text.count('role="img"') == text.count('<figure class="chart">') == len(histograms(photoset))
    assert 'aria-label="sharpness: ' in text and "min sharpness 0.3" in text and "<line " in text


def test_an_empty_set_has_a_sheet(tmp_path: Path) -> None:
    assert "no row has been made yet" in contact_sheet(PhotoSet(tmp_path)).read_text("utf-8")


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
@example([49.0, -5e-324])
@example([0.0, 5e-324])
def test_any_values_find_a_bar(values: list[float]) -> None:
    from authface.report.pages import HistogramCounter, round_span

    low, high = round_span(min(values), max(values))
    assert low <= min(values) and max(values) <= high and low < high
    tally = HistogramCounter(low, high)
    tally.add(np.array([*values, np.nan]), np.array([value > 0 for value in values] + [True]))
    chart = tally.histogram("x", "")
    assert chart.total == len(values) and chart.beyond == (0, 0)
    assert sum(chart.kept) == sum(value > 0 for value in values)
    assert all(0 <= x <= 1 and kept + rejected <= 1.017 for x, _, kept, rejected in chart.bars())
