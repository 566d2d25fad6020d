"""The pose that is measured is the pose of the head.

Metrics of pyiqa by name: their direction, their order, and that only survivors meet them, once.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.console import Console
from authface.curate.fetch.run import fetch
from authface.curate.fetch.sources import make_source
from authface.curate.filter import measure
from authface.curate.filter.measure import LIMITS, SHAPE, RegionMetric, find_pose, in_order
from authface.curate.filter.run import filter_photos
from authface.curate.settings import FetchSettings, FilterSettings, lower_better
from authface.errors import AuthfaceError, UsageError
from authface.imaging import decode as images
from authface.store.photoset import PhotoSet
from tests.conftest import Install


@given(st.floats(-60, 60), st.floats(-40, 40), st.floats(-45, 45), st.floats(10, 500))
def test_the_pose_of_the_mean_face_is_found(yaw: float, pitch: float, roll: float, eyes: float) -> None:
    a, b, c = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    turned = np.array(SHAPE) @ (about_y @ about_x @ about_z).T
    found = find_pose(tuple((turned[:, :2] * eyes + [300, 200]).ravel().tolist()))
    nose = (about_y @ about_x @ about_z)[:, 2]
    assert found[0] == pytest.approx(np.degrees(np.arctan2(nose[0], nose[2])), abs=0.1)
    assert found[1] == pytest.approx(np.degrees(np.arctan2(-nose[1], np.hypot(nose[0], nose[2]))), abs=0.1)
    if abs(yaw) < 1 and abs(pitch) < 1:
        assert found[2] == pytest.approx(roll, abs=0.5)


OPEN = {x.setting: (0.0 if x.least else 1000.0) for x in LIMITS} | {"min_score": 0.9, "duplicate_radius": -1}


@pytest.fixture
def calls() -> Iterator[list[int]]:
    """A metric `mean-red` in pyiqa's own registry: the mean of red, higher is better. How often it was asked."""
    import torch
    from pyiqa.default_model_configs import DEFAULT_CONFIGS
    from pyiqa.utils.registry import ARCH_REGISTRY

    asked: list[int] = []
    if "MeanRed" not in ARCH_REGISTRY:

        class MeanRed(torch.nn.Module):
            asked: list[int] = []

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                MeanRed.asked.append(len(x))
                return x[:, 0].mean(dim=(1, 2))[:, None]

        ARCH_REGISTRY.register(MeanRed)
    ARCH_REGISTRY.get("MeanRed").asked = asked
    DEFAULT_CONFIGS["mean-red"] = {"metric_opts": {"type": "MeanRed"}, "metric_mode": "NR"}
    yield asked
    del DEFAULT_CONFIGS["mean-red"]


@pytest.fixture
def photoset(tmp_path: Path) -> PhotoSet:
    """Two portraits and photos without faces."""
    found, settings = PhotoSet(tmp_path), FetchSettings(source="samples")
    with make_source(settings, found) as source:
        fetch(found, source, settings, Console(), workers=1, limit=0)
    return found


def settings(**changed: object) -> FilterSettings:
    return FilterSettings().model_copy(update=OPEN | changed)


def test_the_cheap_ones_come_first_and_maniqa_last() -> None:
    named = ["maniqa", "niqe", "clipiqa+", "qalign", "musiq", "topiq_nr-face"]
    assert in_order(named) == ["musiq", "topiq_nr-face", "clipiqa+", "niqe", "maniqa", "qalign"]


def test_direction_and_unknown_names() -> None:
    assert lower_better("piqe") and lower_better("niqe") and not lower_better("musiq")
    with pytest.raises(UsageError, match="musik is neither in pyiqa nor .*; there are musiq"):
        lower_better("musik")
    with pytest.raises(UsageError, match="psnr compares with a reference"):
        lower_better("psnr")


def test_scores_do_not_depend_on_the_batch() -> None:
    rng = np.random.default_rng(1)
    regions = [rng.integers(0, 256, (256, 256, 3), np.uint8) // (k + 1) for k in range(4)]
    for name in ("entropy", "piqe"):
        metric = RegionMetric(name, "cpu")
        assert metric(regions) == [metric([region])[0] for region in regions]


def test_a_metric_without_weights_stops_the_run_before_a_photo_is_looked_at(
    photoset: PhotoSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyiqa

    def offline(*_: object, **__: object) -> None:
        raise OSError("no route\nto host")

    monkeypatch.setattr(pyiqa, "create_metric", offline)
    with pytest.raises(AuthfaceError, match="the metric musiq cannot be loaded .*no route.*pyiqa") as caught:
        filter_photos(photoset, settings(metrics={"musiq": 60}), Console())
    assert "\n" not in str(caught.value)
    assert photoset.measured.parts() == photoset.faces.parts() == []


def test_survivors_meet_the_metrics_in_order_and_a_score_is_taken_once(photoset: PhotoSet, calls: list[int]) -> None:
    both = settings(metrics={"mean-red": 0.0, "entropy": 0.0})
    summary = filter_photos(photoset, both, Console())
    assert summary.counts["kept"] == 2 and sum(calls) == 2
    for face in photoset.faces:
        assert [score.metric for score in face.scores] == (["entropy", "mean-red"] if face.status == "kept" else [])
    scores = {face.id: face.scores for face in photoset.faces}

    assert filter_photos(photoset, settings(metrics={"mean-red": 1.0, "entropy": 0.0}), Console()).made
    assert {face.reason for face in photoset.faces if scores[face.id]} == {"low_mean-red"}
    assert {face.id: face.scores for face in photoset.faces} == scores and sum(calls) == 2

    filter_photos(photoset, settings(metrics={"mean-red": 0.0, "piqe": 0.0}), Console())
    assert {face.reason for face in photoset.faces if scores[face.id]} == {"high_piqe"}
    assert all(len(face.scores) <= 2 for face in photoset.faces)


def test_the_order_spares_the_dear_metric_what_the_cheap_one_refuses(photoset: PhotoSet, calls: list[int]) -> None:
    filter_photos(photoset, settings(metrics={"entropy": 9.0, "mean-red": 0.0}), Console())
    assert calls == [] and {f.reason for f in photoset.faces if f.scores} == {"low_entropy"}


def test_without_a_metric_neither_torch_nor_pyiqa_is_loaded(photoset: PhotoSet) -> None:
    code = (
        "import sys; from pathlib import Path; from authface.console import Console\n"
        "from authface.curate.filter.run import filter_photos; from authface.curate.settings import FilterSettings\n"
        "from authface.store.photoset import PhotoSet\n"
        f"filter_photos(PhotoSet(Path({str(photoset.root)!r})), FilterSettings(min_size=64), Console())\n"
        "assert not {'torch', 'pyiqa'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sum(face.status == "kept" for face in photoset.faces) == 2


def test_a_release_of_pyiqa_is_part_of_the_provenance(
    photoset: PhotoSet, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = settings(metrics={"mean-red": 0.0})
    filter_photos(photoset, asked, Console())
    assert filter_photos(photoset, asked, Console()).made == 0
    monkeypatch.setattr("authface.curate.filter.measure.pyiqa_version", lambda: "other")
    filter_photos(photoset, asked, Console())
    assert sum(calls) == 4, "scores of another release were taken for this one's"


def test_a_spoilt_photo_is_a_failed_row(photoset: PhotoSet, calls: list[int]) -> None:
    filter_photos(photoset, settings(), Console())
    spoilt = next(face for face in photoset.faces if face.status == "kept")
    photoset.save(spoilt.photo_file, images.encode_png(np.zeros((8, 8, 3), np.uint8))[:40])
    summary = filter_photos(photoset, settings(metrics={"mean-red": 0.0}), Console())
    assert summary.counts["kept"] == 1 and summary.failed == 1
    assert measure.in_order(["mean-red"]) == ["mean-red"]


def test_the_verdicts_of_before_stay_where_a_metric_fails(
    photoset: PhotoSet, calls: list[int], install: Install
) -> None:
    """One that cannot be loaded, one that is unknown: the table is as it was."""
    filter_photos(photoset, settings(metrics={"mean-red": 0.0}), Console())
    before = list(photoset.faces)
    install("shoebox", "[authface.metrics]\nshine = shoebox:Shine\n", "import no_such_package\n")
    for name, said in (("shine", "shine of shoebox .* cannot be loaded"), ("musik", "metric musik is neither")):
        with pytest.raises(AuthfaceError, match=said):
            filter_photos(photoset, settings(metrics={name: 0.0}), Console())
        assert list(photoset.faces) == before
    assert filter_photos(photoset, settings(metrics={"mean-red": 0.0}), Console()).made == 0 and sum(calls) == 2
