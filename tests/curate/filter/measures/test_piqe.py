"""PIQE against pyiqa's on real face regions."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from authface.curate.fetch.sources import make_source
from authface.curate.filter.measures.piqe import piqe
from authface.curate.filter.measures.quality import face_region
from authface.curate.settings import FetchSettings
from authface.faces.detector import RetinaFace
from authface.imaging.decode import read
from authface.store.photoset import PhotoSet


def reference(rgb: np.ndarray, double: bool) -> float:
    import torch
    from pyiqa.archs.piqe_arch import piqe as theirs

    picture = torch.from_numpy(rgb.transpose(2, 0, 1).copy())[None]
    return float(theirs((picture.double() if double else picture.float()) / 255)[0])


@pytest.fixture(scope="module")
def regions() -> list[np.ndarray]:
    """Face regions in colour: as they are, blurred, noisy, as JPEG, cut to odd sizes."""
    source = make_source(FetchSettings(source="samples"), PhotoSet(Path("unused")))
    portraits = [read(Path(item.path)).rgb for item in source.items()][:2]
    clean = [face_region(rgb, RetinaFace().detect(rgb)[0].points5).rgb for rgb in portraits]
    rng = np.random.default_rng(5)
    found = []
    for rgb in clean:
        noise = rgb + rng.normal(0, 12, rgb.shape[:2])[..., None]
        jpeg = cv2.imdecode(cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, 20])[1], 1)
        blurred = [cv2.GaussianBlur(rgb, (0, 0), sigma) for sigma in (0.7, 1.5, 3)]
        found += [rgb, *blurred, np.clip(noise, 0, 255).astype(np.uint8), jpeg, rgb[:131, :200], rgb[5:, 3:]]
    for rgb in found:
        rgb[0, 0] = 255  # white: luma is then scaled by 1, and no level lies halfway between two
    return found


def test_it_equals_the_reference_on_luma(regions: list[np.ndarray]) -> None:
    for rgb in regions:
        luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        ours, theirs = piqe(luma), reference(np.repeat(luma[..., None], 3, axis=2), double=True)
        assert ours == pytest.approx(theirs, abs=0.1)  # 1e-3 of the range of 100


def test_in_single_precision_the_reference_is_off_by_a_block_at_most(regions: list[np.ndarray]) -> None:
    """Its variances lose digits: 7 % of 410 real faces differ from its own answer in double precision."""
    away = [abs(piqe(rgb) - reference(rgb, double=False)) for rgb in regions]
    assert np.median(away) < 0.01 and max(away) < 2.5


def test_a_picture_without_structure_is_the_worst() -> None:
    for level in (0, 128, 255):
        assert piqe(np.full((64, 64, 3), level, np.uint8)) == 100.0
    rng = np.random.default_rng(2)
    assert 0 <= piqe(rng.integers(0, 256, (96, 80), np.uint8)) <= 100
