"""The noise of a batch, whoever computes it."""

import shutil
from pathlib import Path
from typing import Any

import cv2
import datasets
import numpy as np
import pytest
import skimage.data
import torch

from authface.errors import UsageError
from authface.train.data import FaceDataset, validation_faces
from authface.train.objective import Noise, fidelity
from tests.train.conftest import SIZE


def test_a_face_keeps_its_noise_in_any_batch() -> None:
    """Four faces at once, and two and two: the same numbers, and others for another face or seed."""
    whole, first, second = Noise(3, range(8, 12)), Noise(3, range(8, 10)), Noise(3, range(10, 12))
    for draw in (lambda n: n.normal(4, 2, 2), lambda n: n.integers(1000), lambda n: n.uniform()):
        drawn = draw(whole)
        assert torch.equal(drawn, torch.cat([draw(first), draw(second)])) and len(drawn.unique()) == drawn.numel()
    assert not torch.equal(Noise(3, [0]).normal(4), Noise(4, [0]).normal(4))
    many = Noise(0, range(4000))
    assert float(many.normal(4).std()) == pytest.approx(1, abs=0.03) and float(many.uniform().mean()) == pytest.approx(
        0.5, abs=0.03
    )
    late = Noise(0, range(4000)).integers(1000, 1).double()  # density 2 t: mean 2/3, a quarter below the middle
    assert float(late.mean()) == pytest.approx(667, abs=15) and late.min() >= 0 and late.max() < 1000
    assert float((late < 500).double().mean()) == pytest.approx(0.25, abs=0.03)
    assert Noise(0, range(8)).integers(1000, float("inf")).tolist() == [999] * 8


def test_pictures_show_faces_that_were_not_trained_on(dataset: Path, tmp_path: Path) -> None:
    """The split `validation` if there is one, else the first of `train`."""
    both = tmp_path / "dataset"
    shutil.copytree(dataset, both)
    rows = datasets.load_dataset(str(dataset), split="train")
    rows.select([3]).to_parquet(both / "data" / "validation-00000-of-00001.parquet")
    assert [validation_faces(one, SIZE, 2).id(0) for one in (dataset, both)] == ["face-0", "face-3"]
    assert len(validation_faces(both, SIZE, 2)) == 1 and len(FaceDataset(both, SIZE)) == 4
    rows.select([]).to_parquet(both / "data" / "validation-00000-of-00001.parquet")  # nobody was left over
    assert validation_faces(both, SIZE, 2).id(0) == "face-0"
    with pytest.raises(UsageError, match="split validation holds no faces"):
        FaceDataset(both, SIZE, split="validation")


def test_figures_of_pictures(tmp_path: Path) -> None:
    """A face is itself, a blurred one less so, noise nobody; without landmarks only the error is told."""
    from authface.faces.detector import RetinaFace
    from authface.faces.landmarks import Dlib68

    face = np.ascontiguousarray(skimage.data.astronaut()[0:256, 100:356])
    points = Dlib68().landmarks(face, RetinaFace().detect(face)[0])
    row: dict[str, Any] = {"image": {"bytes": cv2.imencode(".png", face[..., ::-1])[1].tobytes(), "path": None}}
    faces = {}
    for name, more in (("plain", {}), ("known", {"size": 256, "landmarks": np.asarray(points).tolist()})):
        folder = tmp_path / name / "data"
        folder.mkdir(parents=True)
        rows = datasets.Dataset.from_list([row | more])
        rows.cast_column("image", datasets.Image()).to_parquet(folder / "train-00000-of-00001.parquet")
        faces[name] = FaceDataset(tmp_path / name, 128)
    clean = faces["known"].rgb(0)[None]
    soft = cv2.GaussianBlur(clean[0], (0, 0), 2)[None]
    # As a network gives them: channels before rows in memory.
    noise = np.random.default_rng(0).integers(0, 255, (1, 3, 128, 128), np.uint8).transpose(0, 2, 3, 1)
    same, blurred, other = (fidelity(faces["known"], clean, made) for made in (clean, soft, noise))
    assert same["identity"] == pytest.approx(1, abs=1e-5)
    assert 0.999 > blurred["identity"] > 0.9 > other["identity"]
    assert same["psnr"] > 100 > blurred["psnr"] > 15 > other["psnr"] > 4
    assert fidelity(faces["plain"], clean, soft) == {"psnr": blurred["psnr"]}
