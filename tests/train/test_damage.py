"""Damage by torch is that by OpenCV, and trainings that damage on their device see the same faces."""

import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray

from authface.faces.degrade import PRESETS, Degradation, Drawn, apply, draw, mixture
from authface.faces.scan import Scan
from authface.models.cleaner import Cleaner, make_cleaner
from authface.train import cleaner
from authface.train.cleaner import CleanerObjective, train_cleaner
from authface.train.damage import AT_ONCE, DegradedBatch, damaged, damages_on, together
from authface.train.data import Draw, FaceDataset, Stream
from authface.train.settings import CleanerSettings
from tests.train.conftest import CPU, SIZE, Quiet, metrics, quick, same, weights

ALL = {
    **PRESETS,
    "all colours": Degradation(shift=1, grey=0.5, jitter=1),
    "all prints": Scan(halftone=1, sepia=0.5, specks=(20, 40)),
    "strong": Scan(blur=(0, 8), shrink=(0.5, 20), jpeg=(1, 100)),
}


def face(side: int, number: int) -> NDArray[np.uint8]:
    """A square of a portrait, a cat or a cup of coffee, at another place for each number."""
    photo = (skimage.data.astronaut()[:260, 90:360], skimage.data.chelsea(), skimage.data.coffee())[number % 3]
    square = photo[number % 20 : number % 20 + 230, number % 30 : number % 30 + 230]
    return np.asarray(cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def levels(made: torch.Tensor) -> NDArray[np.int16]:
    """(n, h, w, 3) levels of tensors (n, 3, h, w) in 0..1."""
    return np.asarray((made.float().cpu() * 255).round().permute(0, 2, 3, 1), np.int16)


def near(made: torch.Tensor, faces: list[NDArray[np.uint8]], drawn: list[Drawn]) -> list[float]:
    """Of each face the share of pixels within one level of what OpenCV makes."""
    shares = []
    for out, rgb, one in zip(levels(made), faces, drawn, strict=True):
        apart = np.abs(out[: one.side, : one.side] - apply(rgb, one).astype(np.int16))
        shares.append(float((apart <= 1).mean()))
    return shares


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_face_comes_out_as_by_opencv(name: str) -> None:
    """19 in 20 pixels of every face within one level, 99 in 100 of all; nothing but whole levels of 0..1."""
    faces = [face(96, number) for number in range(5)]
    drawn = [draw((3, number), 96, ALL[name]) for number in range(len(faces))]
    made = damaged(together(faces), drawn)
    shares = near(made, faces, drawn)
    assert min(shares) > 0.95 and np.mean(shares) > 0.99
    assert (
        made.min() >= 0
        and made.max() <= 1
        and torch.equal(made, torch.from_numpy(levels(made) / np.float32(255)).permute(0, 3, 1, 2))
    )


def test_faces_of_several_sizes_and_damages_share_a_batch() -> None:
    """Each as alone, but for float32's last bits."""
    sides = [64, 40, 96, 33, 71, 52, 96, 60, 48, 80]
    faces = [face(side, number) for number, side in enumerate(sides)]
    names = [*sorted(ALL)][: len(sides)]
    drawn = [draw(number, side, ALL[name]) for number, (side, name) in enumerate(zip(sides, names, strict=True))]
    made = damaged(together(faces), drawn)
    assert min(near(made, faces, drawn)) > 0.95
    for place, (rgb, one) in enumerate(zip(faces, drawn, strict=True)):
        alone = levels(damaged(together([rgb]), [one]))[0]
        apart = np.abs(alone - levels(made)[place, : one.side, : one.side])
        assert (apart <= 1).mean() > 0.97


def test_neither_autocast_nor_tensor_float_32_is_felt() -> None:
    """What a training has set holds again afterwards."""
    faces, drawn = [face(64, 0)], [draw(0, 64, PRESETS["scan"])]
    plain = damaged(together(faces), drawn)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(damaged(together(faces), drawn), plain)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_batch_is_damaged_once_as_it_moves() -> None:
    """After a trip to another process, and not again where it moves on; one that came damaged stays as it is."""
    faces, drawn = [face(64, 1), face(64, 2)], [draw(number, 64, PRESETS["medium"]) for number in range(2)]
    batch = DegradedBatch(("a", "b"), degraded=together(faces), drawn=tuple(drawn))
    moved = pickle.loads(pickle.dumps(batch)).to(CPU)
    assert moved.drawn == () and torch.equal(moved.degraded, damaged(together(faces), drawn))
    assert moved.to(CPU).degraded is moved.degraded


def objective(tiny: Path, dataset: Path, later: bool) -> CleanerObjective:
    """A cleaner's, over enlarged and shrunk faces of all damages."""
    chosen = CleanerSettings(**quick(tiny, dataset, dataset, patch=48, channels=(16, 16)))
    net = Cleaner(make_cleaner(0, chosen.channels))
    damage = mixture(chosen.degradation)
    return CleanerObjective(FaceDataset(dataset, SIZE), tiny, net, damage, chosen, CPU, 0, damages_later=later)


def test_the_cleaner_is_shown_the_same_patches(tiny: Path, dataset: Path) -> None:
    """Clean ones and weights bit for bit; damaged ones but for a level, and no pixel of another place."""
    draws = [Draw(index, epoch, bool(epoch % 2)) for index in range(4) for epoch in range(4)]
    now, later = (objective(tiny, dataset, late).batch(draws) for late in (False, True))
    assert len(later.drawn) == 16 and later.degraded.dtype == torch.uint8 and now.drawn == ()
    moved = later.to(CPU)
    assert torch.equal(now.clean, moved.clean) and torch.equal(now.weights, moved.weights) and now.ids == moved.ids
    assert moved.degraded.shape == now.degraded.shape
    apart = (moved.degraded - now.degraded).abs() * 127.5
    assert float((apart < 1.01).float().mean()) > 0.99


def test_a_training_that_damages_on_its_device(
    tiny: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is nearly that of before; stopped it goes on exactly, and loaders in other processes change nothing."""

    def run(name: str, at: int = 0, **more: Any) -> CleanerSettings:
        chosen = CleanerSettings(
            **quick(tiny, dataset, tmp_path / name, patch=48, channels=(16, 16), save_every=2, **more)
        )
        train_cleaner(chosen, Quiet(at=at), "cpu", seed=3)
        return chosen

    before = run("before")
    monkeypatch.setattr(cleaner, "damages_on", lambda device: True)
    whole, _, loaded = run("whole"), run("broken", at=2), run("loaded", loader_workers=1)
    broken = run("broken")
    assert metrics(whole.out) == metrics(broken.out) == metrics(loaded.out)
    assert same(weights(whole.out, "cleaner"), weights(broken.out, "cleaner"))
    for a, b in zip(metrics(before.out), metrics(whole.out), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-2)
    assert metrics(before.out) != metrics(whole.out)  # by a level here and there


def test_the_device_decides() -> None:
    assert damages_on(torch.device("cuda", 1)) and not damages_on(CPU) and not damages_on(torch.device("mps"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", sorted(ALL))
def test_a_gpu_damages_as_opencv_does(name: str) -> None:
    """Batches that move there, with TensorFloat32 on for all else."""
    faces = [face(256, number) for number in range(AT_ONCE + 2)]
    drawn = [draw((3, number), 256, ALL[name]) for number in range(len(faces))]
    batch = DegradedBatch(tuple("0123456789"), degraded=together(faces), drawn=tuple(drawn))
    torch.set_float32_matmul_precision("high")
    try:
        made = batch.to(torch.device("cuda")).degraded
    finally:
        torch.set_float32_matmul_precision("highest")
    shares = near(made, faces, drawn)
    assert made.device.type == "cuda" and min(shares) > 0.95 and np.mean(shares) > 0.99


def test_draws_of_a_batch_depend_on_no_process(tiny: Path, dataset: Path) -> None:
    """Two processes with a batch of 2 draw what one draws with 4."""
    made = objective(tiny, dataset, True).batch
    one = Stream(made, 4, 4, 7, True)[1]
    two = [Stream(made, 4, 2, 7, True, process, 2)[1] for process in (0, 1)]
    assert [pickle.dumps(d) for d in one.drawn] == [pickle.dumps(d) for batch in two for d in batch.drawn]
