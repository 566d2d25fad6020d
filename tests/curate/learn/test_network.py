"""A network by name: a tiny real one of timm's with random weights, from a folder, offline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from authface.curate.learn.features import PLACES, SIDE, PatchNetwork, weights_of
from authface.curate.learn.table import MEASURES, NAMES, TakeFeatures, column_names
from authface.errors import AuthfaceError, UsageError


@pytest.fixture(scope="module", params=["test_vit", "test_resnet"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    timm = pytest.importorskip("timm")
    found = tmp_path_factory.mktemp(request.param)
    timm.models.save_for_hf(timm.create_model(request.param, pretrained=False), found, safe_serialization=True)
    return found


def test_it_sees_the_photos_own_pixels_one_face_like_many(folder: Path) -> None:
    network = PatchNetwork(f"local-dir:{folder}", "cpu")
    rng = np.random.default_rng(0)
    faces = [[rng.integers(0, 256, (side, side, 3), np.uint8) for side in (160, 40, 12)] for _ in range(3)]
    together = network(faces)
    assert {row.shape for row in together} == {(len(together[0]),)}
    assert len(together[0]) % len(PLACES) == 0
    np.testing.assert_allclose(network(faces[1:2])[0], together[1], atol=1e-4)
    seen = network._seen(faces[0][0])
    inner = (SIDE - 160) // 2
    back = seen.transpose(1, 2, 0) * network._deviation + network._mean
    np.testing.assert_allclose(back[inner : inner + 160, inner : inner + 160], faces[0][0], atol=0.01)
    names = column_names(len(NAMES) + len(together[0]), "x")
    assert len(names) == 1 + len(MEASURES) + len(NAMES) + len(together[0])


def test_its_weights_are_the_provenance(folder: Path, tmp_path: Path) -> None:
    name = f"local-dir:{folder}"
    assert len(weights_of(name)[name]) == 64
    assert TakeFeatures(tmp_path, name).provenance.weights == weights_of(name)
    with pytest.raises(UsageError, match="there is no"):
        weights_of(f"local-dir:{tmp_path}")


def test_no_such_network_and_no_weights_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="timm has no such network"):
        PatchNetwork("no_such_network", "cpu")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(AuthfaceError, match=r"^curate.learn.network test_vit.r160_in1k cannot be loaded: [^\n]+$"):
        PatchNetwork("test_vit.r160_in1k", "cpu")
