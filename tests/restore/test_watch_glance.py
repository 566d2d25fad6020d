"""A glance sees about the faces that a run then restores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from authface.faces.geometry import Side, quad_side
from authface.imaging.decode import header_size
from authface.restore.photo import FaceFinder
from authface.restore.pipeline import PhotoFaces, PhotoSample
from authface.restore.settings import RestoreSettings
from authface.restore.watch import Glancer


def glance(path: Path, settings: RestoreSettings | None = None) -> PhotoFaces | None:
    return Glancer(settings or RestoreSettings())(path, PhotoSample(0, *(header_size(path) or (1, 1))))


@pytest.mark.parametrize("longer", [512, 2400])
def test_it_sees_the_faces_and_how_large_their_crops_will_be(tmp_path: Path, longer: int) -> None:
    photo = Image.fromarray(data.astronaut()).resize((longer, longer))
    photo.save(tmp_path / "a.jpg", quality=95)
    finder = FaceFinder(RestoreSettings())
    (face,) = (face for face in finder(np.asarray(photo), Side(64, own=True), "00", 0) if not face.reason)
    seen = glance(tmp_path / "a.jpg")
    assert seen is not None and face.aligned is not None
    assert (seen.width, seen.height, seen.found) == (longer, longer, True)
    assert seen.crops == pytest.approx([quad_side(face.aligned.quad)], rel=0.15)


def test_faces_that_are_left_alone_are_found_but_not_counted(tmp_path: Path) -> None:
    Image.fromarray(data.astronaut()).save(tmp_path / "a.png")
    for settings in (RestoreSettings(min_face=300), RestoreSettings(faces="0,400,60,60")):
        assert glance(tmp_path / "a.png", settings) == PhotoFaces(512, 512, found=True)


def test_a_photo_without_a_face_and_one_that_cannot_be_read(tmp_path: Path) -> None:
    Image.fromarray(data.coffee()).save(tmp_path / "a.png")
    assert glance(tmp_path / "a.png") == PhotoFaces(600, 400)
    (tmp_path / "b.png").write_bytes(b"none")
    assert glance(tmp_path / "b.png") is None and glance(tmp_path / "gone.png") is None


def test_a_large_photo_is_glanced_at_where_it_is_decoded_small(tmp_path: Path) -> None:
    photo = Image.new("RGB", (4000, 3001))
    photo.save(tmp_path / "a.jpg")
    photo.save(tmp_path / "a.png")
    assert glance(tmp_path / "a.jpg") == PhotoFaces(4000, 3001) and glance(tmp_path / "a.png") is None
