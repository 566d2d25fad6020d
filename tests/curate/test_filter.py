"""The filter's verdicts: every face judged, every reject with its reason, value and limit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from authface import images
from authface.console import Console
from authface.curate.fetch import fetch
from authface.curate.filter import LEAST_SCORE, FaceFilter, Filter, load_piqe
from authface.curate.settings import FetchSettings, FilterSettings
from authface.curate.sources import Samples
from authface.faces.detector import RetinaFace
from authface.photoset import PhotoSet
from authface.runner import parts_of, run

LOOSE = FilterSettings(min_size=20, min_sharpness=0, max_noise=255, max_piqe=100, min_score=0.9)


@pytest.fixture(scope="module")
def photos() -> dict[str, np.ndarray]:
    return {Path(item.path).stem: images.read(Path(item.path)).rgb for item in Samples().items()}


@pytest.fixture(scope="module")
def tools() -> tuple:
    return RetinaFace(LEAST_SCORE), load_piqe()


def judged(photo: np.ndarray, tools: tuple, **settings: object) -> list:
    return FaceFilter(LOOSE.model_copy(update=settings), *tools)(photo)


def test_faces_are_found_and_the_rest_says_no_face(photos: dict, tools: tuple) -> None:
    for name, rgb in photos.items():
        faces = judged(rgb, tools)
        if name in {"astronaut", "grace_hopper"}:
            assert [(face.status, face.index) for face in faces] == [("kept", 0)]
            assert faces[0].piqe is not None and 0 <= faces[0].piqe <= 100
        else:
            assert {face.reason for face in faces} <= {"no_face", "unsure"}
            assert all((face.index == -1) == (face.reason == "no_face") for face in faces)


@pytest.mark.parametrize(
    ("setting", "limit", "reason"),
    [
        ("min_score", 1.0, "unsure"),
        ("min_size", 10_000, "small_face"),
        ("min_sharpness", 9.0, "blurred"),
        ("max_noise", 0.0, "noisy"),
        ("max_piqe", 0.0, "low_quality"),
    ],
)
def test_each_limit_rejects_with_its_value(photos: dict, tools: tuple, setting: str, limit: float, reason: str) -> None:
    (face,) = judged(photos["astronaut"], tools, **{setting: limit})
    assert (face.status, face.reason, face.limit) == ("rejected", reason, limit)
    assert face.value is not None
    assert (face.value < limit) if setting.startswith("min") else (face.value > limit)


def test_the_count_policies(photos: dict, tools: tuple) -> None:
    small = photos["grace_hopper"][::2, ::2]
    pair = np.zeros((600, 512 + 256, 3), np.uint8)
    pair[:600, :512] = photos["grace_hopper"]
    pair[: small.shape[0], 512 : 512 + small.shape[1]] = small
    assert [face.status for face in judged(pair, tools, faces="all")] == ["kept", "kept"]
    assert [face.reason for face in judged(pair, tools, faces="one")] == ["several_faces"] * 2
    assert [face.reason for face in judged(pair, tools, faces="largest")] == ["", "not_largest"]
    first, second = judged(pair, tools)
    assert first.size > second.size


def test_the_step_over_a_set_and_a_photo_that_went_bad(tmp_path: Path) -> None:
    photoset = PhotoSet(tmp_path)
    fetch(photoset, Samples(), FetchSettings(source="samples"), Console(), workers=1, limit=0)
    spoilt = next(row for row in photoset.photos if "moon" in row.source_id)
    (tmp_path / spoilt.file).write_bytes(b"")
    summary = run(Filter(tmp_path, LOOSE), parts_of(photoset.photos), photoset.faces, Console())
    assert (summary.counts["kept"], summary.counts["failed: empty"], summary.counts.total()) == (2, 1, 6)
    for face in photoset.faces:
        assert face.id == f"{face.photo_id}-{face.index}"
        assert (tmp_path / face.photo_file).is_file()
