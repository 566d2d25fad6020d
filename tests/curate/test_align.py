"""Every kept face becomes a crop whose row says exactly where it came from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authface.console import Console
from authface.curate.align import Align, AlignmentResult, FaceAligner
from authface.curate.fetch.sources.folder import Samples
from authface.curate.settings import AlignSettings
from authface.engine.runner import parts_of, run
from authface.faces.detector import RetinaFace
from authface.faces.geometry import crop_points, crop_to_photo, grow_quad, quad_side
from authface.faces.landmarks import Dlib68
from authface.imaging import decode as images
from authface.records import Face
from authface.store.photoset import PhotoSet, Provenance


@pytest.fixture(scope="module")
def astronaut() -> tuple[np.ndarray, Face]:
    path = next(item.path for item in Samples().items() if "astronaut" in item.path)
    rgb = images.read(Path(path)).rgb
    found = RetinaFace().detect(rgb)[0]
    return rgb, Face(
        id="aa-0", photo_id="aa", photo_file="", index=0, box=found.box, score=found.score, points5=found.points5
    )


def placed(rgb: np.ndarray, face: Face, **chosen: float) -> AlignmentResult:
    return FaceAligner(AlignSettings(**chosen), Dlib68())(rgb, face)


@pytest.mark.parametrize("size", [64, 256, 1024])
def test_all_sizes_show_the_same_face(astronaut: tuple[np.ndarray, Face], size: int) -> None:
    rgb, face = astronaut
    here = placed(rgb, face, size=size)
    assert here.rgb is not None and here.rgb.shape == (size, size, 3)
    assert here.crop.status == "kept" and here.crop.quad is not None
    assert here.crop.upscaled == (quad_side(np.reshape(here.crop.quad, (4, 2))) < size)
    eyes = crop_points(here.crop.landmarks, here.crop.quad, size)[36:48].mean(axis=0)
    assert abs(eyes[0] / size - 0.5) < 0.02 and abs(eyes[1] / size - 0.46) < 0.04


def test_the_transform_and_its_inverse_are_kept(astronaut: tuple[np.ndarray, Face]) -> None:
    crop = placed(*astronaut, size=256).crop
    there, back = (np.vstack([np.reshape(turn, (2, 3)), [0, 0, 1]]) for turn in (crop.to_photo, crop.to_crop))
    np.testing.assert_allclose(there @ back, np.eye(3), atol=1e-9)
    corners = np.array([[-0.5, -0.5, 1], [-0.5, 255.5, 1], [255.5, 255.5, 1], [255.5, -0.5, 1]]) @ there.T
    np.testing.assert_allclose(corners[:, :2].ravel(), crop.quad, atol=1e-6)


def test_a_larger_scale_takes_in_more_of_the_photo(astronaut: tuple[np.ndarray, Face]) -> None:
    plain, wide = (placed(*astronaut, size=256, scale=scale).crop for scale in (1, 1.4))
    assert quad_side(np.reshape(wide.quad, (4, 2))) == pytest.approx(1.4 * quad_side(np.reshape(plain.quad, (4, 2))))
    assert wide.pad_fraction >= plain.pad_fraction
    assert wide.landmarks == plain.landmarks


def test_each_limit_refuses_with_its_value_and_without_a_crop(astronaut: tuple[np.ndarray, Face]) -> None:
    rgb, face = astronaut
    moved = replace(face, points5=tuple(v + 40 for v in face.points5))
    for here, reason in (
        (placed(rgb, moved), "landmarks_disagree"),
        (placed(rgb, face, scale=3, max_pad=0.05), "outside_photo"),
    ):
        assert (here.crop.status, here.crop.reason, here.rgb) == ("rejected", reason, None)
        assert here.crop.value > here.crop.limit


@settings(max_examples=50, deadline=None)
@given(st.floats(-500, 500), st.floats(-500, 500), st.floats(2, 900), st.floats(-3.2, 3.2), st.floats(0.5, 3))
def test_growing_a_quad_keeps_its_centre_and_turn(x: float, y: float, side: float, turn: float, factor: float) -> None:
    across = np.array([np.cos(turn), np.sin(turn)]) * side
    down = np.array([-across[1], across[0]])
    quad = np.array([[x, y], [x, y] + down, [x, y] + across + down, [x, y] + across])
    grown = grow_quad(quad, factor)
    np.testing.assert_allclose(grown.mean(axis=0), quad.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(crop_to_photo(grown, 64)[:, :2], crop_to_photo(quad, 64)[:, :2] * factor, atol=1e-9)


def test_the_step_over_a_set_writes_lossless_crops(tmp_path: Path, astronaut: tuple[np.ndarray, Face]) -> None:
    rgb, face = astronaut
    photoset = PhotoSet(tmp_path)
    photoset.save("photos/aa/aa.png", images.encode_png(rgb))
    face = replace(face, photo_file="photos/aa/aa.png")
    gone = replace(face, id="bb-0", photo_id="bb", photo_file="photos/bb/bb.png")
    photoset.faces.write(0, [face, gone], Provenance("filter", 1, {}, {}), "")
    step = Align(tmp_path, AlignSettings(size=128))
    summary = run(step, parts_of(photoset.faces), photoset.crops, Console())
    assert summary.counts == {"kept": 1, "failed: unreadable": 1}
    kept = next(crop for crop in photoset.crops if crop.status == "kept")
    np.testing.assert_array_equal(images.decode(photoset.read(kept.file)).rgb, placed(rgb, face, size=128).rgb)
