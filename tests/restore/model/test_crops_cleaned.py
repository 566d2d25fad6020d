"""A family with a cleaner: faces keep their own pixels, and fidelity is one line from most detail to none."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from authface.faces.geometry import Side
from authface.models.cleaner import Cleaner, clean, make_cleaner
from authface.models.layout import OWN_PRESETS
from authface.restore.model.crops import CleanedRestorer, wavelet_fix
from authface.restore.model.diffusion import DiffusionRestorer
from authface.restore.model.restorer import CropRestorer, find_weights, load_restorer
from authface.restore.photo import FaceFinder, restore_faces, whole_photo
from authface.restore.settings import RestoreSettings

CPU = torch.device("cpu")
SEEDS = [11, 7]


def changing() -> Any:
    """A small network that changes every pixel a little."""
    net = make_cleaner(3, (16, 16))
    torch.nn.init.normal_(net.conv_out.weight, std=0.02, generator=torch.Generator().manual_seed(3))
    return net


@pytest.fixture(scope="module")
def with_cleaner(family: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The family and a cleaner that is not the identity."""
    folder = Path(shutil.copytree(family, tmp_path_factory.mktemp("cleaned") / "family"))
    changing().save_pretrained(folder / "cleaner")
    return folder


def load(folder: Path, **settings: Any) -> CropRestorer:
    chosen = RestoreSettings(**({"model": str(folder), "steps": 2} | settings))
    return load_restorer(find_weights(chosen.model), chosen, "cpu")


@pytest.fixture(scope="module")
def model(with_cleaner: Path) -> CleanedRestorer:
    made = load(with_cleaner)
    assert isinstance(made, CleanedRestorer)
    return made


@pytest.fixture(scope="module")
def crops() -> list[np.ndarray]:
    """Two faces of 64 and 150 px."""
    face = data.astronaut()[20:220, 130:330]
    return [np.asarray(cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)) for side in (64, 150)]


def test_at_a_fidelity_of_1_faces_are_cleaned_and_nothing_is_denoised(
    model: CleanedRestorer, crops: list[np.ndarray]
) -> None:
    steps: list[int] = []
    model.diffusion.on_step = lambda: steps.append(1)
    made = model.restore(crops, SEEDS, fidelity=1.0)
    cleaner = Cleaner(changing()).eval()
    for crop, face in zip(crops, made, strict=True):
        expected = np.clip(np.rint(clean(cleaner, crop, CPU)), 0, 255)
        assert face.dtype == np.uint8 and np.abs(face - expected).max() <= 1 and (face != crop).any()
        assert (face == expected).mean() > 0.999  # at .5 another order of sums may round the other way
    assert len(steps) == len(crops), "of the cleaner alone"
    model.restore(crops, SEEDS, fidelity=0.5)
    assert len(steps) > 2 * len(crops)
    model.diffusion.on_step = None


def test_the_less_fidelity_the_more_perception(with_cleaner: Path, crops: list[np.ndarray], tmp_path: Path) -> None:
    """(1 - fidelity) x the preset's perception is what the cleaner is told, at most 1, at each of its sizes."""
    folder = Path(shutil.copytree(with_cleaner, tmp_path / "perceiving"))
    (folder / "presets.toml").write_text("[quality]\nsteps = 1\ndetail = 0\nperception = 1.25\n", "utf-8")
    model, cleaner = load(folder), Cleaner(changing()).eval()
    for fidelity, perception in ((1.0, 0.0), (0.36, 0.8), (0.0, 1.0)):
        for crop, face in zip(crops, model.restore(crops, SEEDS, fidelity=fidelity), strict=True):
            expected = np.clip(np.rint(clean(cleaner, crop, CPU, perception)), 0, 255)
            assert np.abs(face - expected).max() <= 1
    least, most = (clean(cleaner, crops[0], CPU, perception) for perception in (0.0, 0.8))
    assert np.abs(least - most).max() > 2  # the network hears it


def test_a_mirrored_face_is_restored_as_the_mirror_image(
    with_cleaner: Path, crops: list[np.ndarray], tmp_path: Path
) -> None:
    """With `mirrored` the mean of both sides is taken: neither side of a face is favoured."""
    folder = Path(shutil.copytree(with_cleaner, tmp_path / "mirrored"))
    (folder / "presets.toml").write_text("[quality]\nsteps = 1\ndetail = 0\nperception = 1\nmirrored = true\n", "utf-8")
    model, cleaner = load(folder), Cleaner(changing()).eval()
    made = model.restore(crops, SEEDS)
    for crop, face, mirror in zip(crops, made, model.restore([crop[:, ::-1] for crop in crops], SEEDS), strict=True):
        once, other = clean(cleaner, crop, CPU, 0.5), clean(cleaner, crop[:, ::-1], CPU, 0.5)[:, ::-1]
        assert np.abs(once - other).max() > 1, "they differ, or nothing is shown"
        assert np.abs(face - np.clip(np.rint((once + other) / 2), 0, 255)).max() <= 1
        np.testing.assert_array_equal(face, mirror[:, ::-1])


def test_detail_is_linear_in_what_fidelity_lacks(model: CleanedRestorer, crops: list[np.ndarray]) -> None:
    """result = cleaned + (1 - fidelity) x detail, to the rounding of each; 0.5 is what the settings have."""
    results = {f: model.restore(crops, SEEDS, fidelity=f) for f in (0.0, 0.5, 0.75, 1.0)}
    for place in range(len(crops)):
        none, some, half, most = (results[f][place].astype(float) for f in (1.0, 0.75, 0.5, 0.0))
        inner = (most > 0) & (most < 255) & (none > 0) & (none < 255)
        assert inner.mean() > 0.2 and np.abs(most - none)[inner].mean() > 2
        for made, share in ((some, 0.25), (half, 0.5)):
            assert np.abs(made - (none + share * (most - none)))[inner].max() <= 1.01
        np.testing.assert_array_equal(half, model.restore(crops, SEEDS)[place])


def test_detail_is_fine_and_does_not_move_the_tones(model: CleanedRestorer, crops: list[np.ndarray]) -> None:
    """The high pass takes what is coarser: blurred by far more than it keeps, hardly anything is left."""
    detail = model.diffusion.detail([crops[0]], SEEDS[:1])[0]
    assert np.abs(cv2.GaussianBlur(detail, None, 12)).mean() < 0.25 * np.abs(detail).mean()


def test_each_face_depends_on_its_own_crop_and_seed(model: CleanedRestorer, crops: list[np.ndarray]) -> None:
    together = model.restore(crops, SEEDS, fidelity=0.0)
    alone = [model.restore([crop], [seed], fidelity=0.0)[0] for crop, seed in zip(crops, SEEDS, strict=True)]
    for a, b in zip(together, alone, strict=True):
        assert np.abs(a.astype(int) - b).max() <= 2  # not bit by bit: sums of another order
    assert [face.shape for face in together] == [crop.shape for crop in crops]
    other = model.restore(crops, [1, 2], fidelity=0.0)
    assert all(np.abs(a.astype(int) - b).mean() > 1 for a, b in zip(together, other, strict=True))


def test_a_face_keeps_its_own_pixels(model: CleanedRestorer) -> None:
    """A face is cut out as large as it is in the photo, where that is more than the model's size."""
    assert model.side == Side(64, own=True)
    assert [model.side.of(photo) for photo in (12.0, 64.0, 300.4)] == [64, 64, 300]
    photo = np.ascontiguousarray(data.astronaut()[:300, 60:400])
    (found,) = FaceFinder(RestoreSettings())(photo, model.side, "ab", 0)
    corners = found.aligned.quad
    assert len(found.aligned.rgb) == pytest.approx(np.hypot(*(corners[1] - corners[0])), abs=1.5)
    assert len(found.aligned.rgb) > 150 and not found.aligned.upscaled
    (small,) = FaceFinder(RestoreSettings())(photo, Side(64), "ab", 0)
    assert len(small.aligned.rgb) == 64


@pytest.mark.parametrize("side", [300, 1025, 40])
def test_aligned_images_keep_their_size(side: int) -> None:
    photo = np.asarray(cv2.resize(data.astronaut()[:256, 96:352], (side, side)))
    (found,) = whole_photo(photo, Side(64, own=True), "ab", 0)
    assert len(found.aligned.rgb) == max(side, 64)
    if side > 64:
        np.testing.assert_array_equal(found.aligned.rgb, photo)


def test_the_command_restores_aligned_and_found_faces(
    with_cleaner: Path, tmp_path: Path, authface: Callable[..., tuple[int, str, str]]
) -> None:
    face = np.asarray(cv2.resize(data.astronaut()[20:220, 130:330], (301, 301), interpolation=cv2.INTER_CUBIC))
    Image.fromarray(face).save(tmp_path / "face.png")
    given = [tmp_path / "face.png", "--model", with_cleaner, "--device", "cpu", "--fidelity", 1, "--min-identity", 0]
    code, _, err = authface(*given, "--aligned", "-o", tmp_path / "out")
    assert code == 0, err
    made = np.asarray(Image.open(tmp_path / "out" / "face.png"))
    expected = np.clip(np.rint(clean(Cleaner(changing()).eval(), face, CPU)), 0, 255)
    assert made.shape == face.shape and np.abs(made - expected).max() <= 1


def test_a_size_that_is_asked_for_holds_for_all(with_cleaner: Path) -> None:
    made = load(with_cleaner, size=96)
    assert isinstance(made, CleanedRestorer) and made.side == Side(96) and made.side.of(300) == 96


def test_the_official_preset_and_families_without_a_cleaner_denoise_alone(with_cleaner: Path, family: Path) -> None:
    for folder, preset in ((with_cleaner, "official"), (family, "quality")):
        made = load(folder, preset=preset)
        assert isinstance(made, DiffusionRestorer) and made.side == Side(64) and made.colour == "wavelet"
    assert find_weights(str(with_cleaner)).digest != find_weights(str(family)).digest


def test_colours_are_the_cleaners_own_and_fixed_where_there_is_none(
    model: CleanedRestorer, family: Path, crops: list[np.ndarray]
) -> None:
    """What `restore.colour` asks for by name is done for either."""
    photo = np.asarray(cv2.resize(data.astronaut()[20:220, 130:330], (64, 64), interpolation=cv2.INTER_AREA))
    plain = load(family)
    for restorer, fixed in ((model, False), (plain, True)):
        found = whole_photo(photo, restorer.side, "ab", 0)
        raw = restorer.restore([photo], [found[0].seed])[0]
        by_wavelet = wavelet_fix(raw, photo)
        assert np.abs(raw.astype(int) - by_wavelet).max() > 2
        for colour, expected in (("auto", by_wavelet if fixed else raw), ("wavelet", by_wavelet), ("none", raw)):
            chosen = RestoreSettings(colour=colour)  # type: ignore[arg-type]  # one of the three
            (face,) = restore_faces(restorer, found, chosen)
            np.testing.assert_array_equal(face.after, expected)


def test_progress_counts_the_cleaned_face_and_the_steps_of_its_detail(with_cleaner: Path) -> None:
    from authface.restore.api import Restorer as Api

    photo = np.ascontiguousarray(data.astronaut()[:300, 60:400])
    with Api(str(with_cleaner), device="cpu", steps=3, guard=False) as restorer:
        told: list[tuple[int, int]] = []
        made = restorer.restore(photo, progress=lambda done, total: told.append((done, total)))
        assert restorer.size == 64 and made.restored == 1
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_settings_that_change_nothing_are_said(with_cleaner: Path, tmp_path: Path) -> None:
    """Those of the prior, where the preset adds none of its detail; nothing is said where it adds some."""
    folder = Path(shutil.copytree(with_cleaner, tmp_path / "plain"))
    (folder / "presets.toml").write_text("[quality]\nsteps = 1\ndetail = 0\n", "utf-8")
    given = {"steps": 3, "prompt": "hello"}
    for family, idle in ((folder, ["steps", "prompt"]), (with_cleaner, [])):
        made = load(family, **given)
        assert isinstance(made, CleanedRestorer)
        assert made.idle(RestoreSettings(model=str(family), **given)) == idle


def test_a_preset_without_detail_loads_no_prior(with_cleaner: Path, tmp_path: Path) -> None:
    """Its U-Net, ControlNet and text encoders may be broken: nothing of them is read."""
    family = shutil.copytree(with_cleaner, tmp_path / "family")
    (family / OWN_PRESETS).write_text("[quality]\ndetail = 0\n")
    settings = RestoreSettings(model=str(family), engine="torch")
    crop = np.ascontiguousarray(data.astronaut()[:64, 180:244])
    (whole,) = load_restorer(find_weights(str(family)), settings, "cpu").restore([crop], [1])
    for part in ("unet", "controlnet", "text_encoder", "text_encoder_2"):
        for weights in (family / part).glob("*.safetensors"):
            weights.write_bytes(b"")
    restorer = load_restorer(find_weights(str(family)), settings, "cpu")
    np.testing.assert_array_equal(restorer.restore([crop], [1])[0], whole)
    assert getattr(restorer, "engine", "") == "torch"
