"""Enlarged photos: the background by Lanczos or by a real network, the faces from the model's own pixels."""

from __future__ import annotations

import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from authface.errors import AuthfaceError, ImageError, UsageError
from authface.faces.geometry import Side
from authface.imaging import decode as images
from authface.imaging import png
from authface.imaging.png import is_grey
from authface.restore import background
from authface.restore.background import ModelUpscaler, enlarge, lanczos, tiles
from authface.restore.model.crops import ColourFix
from authface.restore.model.restorer import CropRestorer, Identity
from authface.restore.photo import FaceFinder, Finder, PhotoResult, paste_faces, restore_faces, whole_photo
from authface.restore.picture import check_size
from authface.restore.settings import RestoreSettings

spandrel = pytest.importorskip("spandrel")
PHOTO: NDArray[np.uint8] = np.ascontiguousarray(data.astronaut()[:300, 60:400])
Command = Callable[..., tuple[int, str, str]]


def restore_photo(
    rgb: NDArray[np.uint8], finder: Finder, restorer: CropRestorer, chosen: RestoreSettings, content: str
) -> PhotoResult:
    faces = restore_faces(restorer, finder(rgb, restorer.side, content, 0), chosen)
    return paste_faces(rgb, faces, chosen.upscale)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real architecture that enlarges 4 times, untrained but for what makes it repeat its input: nearest pixels."""
    from spandrel.architectures.Compact import Compact

    torch.manual_seed(0)
    model = Compact(num_feat=8, num_conv=1, upscale=4)
    with torch.no_grad():
        model.body[-1].weight.mul_(0.02)
        model.body[-1].bias.zero_()
    file = tmp_path_factory.mktemp("networks") / "compact.pth"
    torch.save({"params": model.state_dict()}, file)
    return file


def test_pixels_stay_where_they_were() -> None:
    for scale in (2, 4):
        large = lanczos(PHOTO, scale)
        back = cv2.resize(large, (PHOTO.shape[1], PHOTO.shape[0]), interpolation=cv2.INTER_AREA)
        assert np.abs(back.astype(int) - PHOTO).mean() < 1.5
    assert lanczos(PHOTO, 1) is PHOTO


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_network_enlarges_in_tiles_without_seams(
    network: Path, scale: int, depth: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo: Any = PHOTO.astype(depth) * depth(np.iinfo(depth).max // 255)
    upscaler = ModelUpscaler(network)
    monkeypatch.setattr(background, "TILE", 1000)
    once = upscaler(photo, scale)
    monkeypatch.setattr(background, "TILE", 64)
    tiled = upscaler(photo, scale)
    assert once.shape == (300 * scale, 340 * scale, 3) and once.dtype == depth
    assert np.abs(once.astype(int) - tiled).max() <= 1
    back = cv2.resize(once, (340, 300), interpolation=cv2.INTER_AREA).astype(float) / np.iinfo(depth).max
    assert np.abs(back - photo / np.iinfo(depth).max).mean() < 0.05


def test_grey_stays_grey(network: Path) -> None:
    grey = np.repeat(PHOTO[..., 1:2], 3, axis=2)
    assert is_grey(lanczos(grey, 2))
    assert is_grey(ModelUpscaler(network)(grey, 2))
    assert not is_grey(ModelUpscaler(network)(PHOTO, 2))


def test_where_memory_is_short_tiles_get_smaller(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upscaler = ModelUpscaler(network)
    expected = upscaler(PHOTO, 2)
    fill = upscaler._fill

    def short(out: Any, photo: Any, box: tuple[int, ...], scale: int) -> None:
        if box[2] - box[0] > limit:
            raise torch.OutOfMemoryError("out of memory")
        fill(out, photo, box, scale)  # type: ignore[arg-type]  # a box

    monkeypatch.setattr(upscaler, "_fill", short)
    limit = 70
    assert np.abs(upscaler(PHOTO, 2).astype(int) - expected).max() <= 1
    limit = 8
    with pytest.raises(AuthfaceError, match="a tile of 32 px does not fit"):
        upscaler(PHOTO, 2)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("scale", [2, 4])
def test_a_cut_out_gets_no_dark_rim(depth: type, scale: int, network: Path) -> None:
    """A bright disc, black where it is hidden; the strips of Lanczos end within it."""
    most = np.iinfo(depth).max
    rows, columns = np.mgrid[:300, :280]
    alpha = np.rint(np.clip(100.5 - np.hypot(rows - 250, columns - 140), 0, 1) * most).astype(depth)
    colour = np.array([230, 200, 180]) * (most // 255)
    photo = np.where((alpha > 0)[..., None], colour, 0).astype(depth)
    seen = cv2.resize(alpha, (280 * scale, 300 * scale), interpolation=cv2.INTER_LANCZOS4) > most // 16
    assert np.abs(lanczos(photo, scale).astype(int) - colour)[seen].max() > 150 * (most // 255), "which it would get"
    made = enlarge(photo, scale, lanczos, alpha)
    assert np.abs(made.astype(int) - colour)[seen].max() <= 1
    assert (made[0] == 0).all(), "what is hidden keeps its own colours"
    inside = lanczos(PHOTO, scale)
    opaque = np.full(PHOTO.shape[:2], 255, np.uint8)
    opaque[0, 0] = 254
    np.testing.assert_array_equal(enlarge(PHOTO, scale, lanczos, opaque)[100:], inside[100:])
    upscaler = ModelUpscaler(network)
    filled = upscaler(np.broadcast_to(colour.astype(depth), photo.shape).copy(), scale)
    np.testing.assert_array_equal(enlarge(photo, scale, upscaler, alpha)[seen], filled[seen])


@given(st.integers(1, 700), st.integers(1, 700), st.integers(16, 300))
def test_tiles_cover_each_pixel_once(width: int, height: int, side: int) -> None:
    seen = np.zeros((height, width), int)
    for x0, y0, x1, y1 in tiles(width, height, side):
        seen[y0:y1, x0:x1] += 1
    assert (seen == 1).all()


def test_a_file_that_is_no_such_network_is_one_line(network: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from spandrel.architectures.DnCNN import DnCNN

    (tmp_path / "text.pth").write_text("no weights")
    save_file({"a": torch.zeros(3)}, tmp_path / "a.safetensors")
    torch.save(DnCNN(in_nc=3, out_nc=3, nc=8, nb=4).state_dict(), tmp_path / "denoise.pth")
    torch.save({"code": Path}, tmp_path / "code.pth")
    for name, said in (
        ("absent.pth", "no such file"),
        ("model.onnx", "it is a file of .safetensors, .pth"),
        ("text.pth", "cannot be read: it "),
        ("a.safetensors", "no network that spandrel knows"),
        ("code.pth", "cannot be read: it "),
        ("denoise.pth", "is not a super-resolution network"),
    ):
        with pytest.raises(UsageError, match=said) as caught:
            ModelUpscaler(tmp_path / name)
        assert "\n" not in str(caught.value)
    weights = torch.load(network, weights_only=True)["params"]
    save_file(weights, tmp_path / "same.safetensors")
    np.testing.assert_array_equal(
        ModelUpscaler(tmp_path / "same.safetensors")(PHOTO, 2), ModelUpscaler(network)(PHOTO, 2)
    )


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_the_identity_changes_nothing_of_the_enlarged_photo(scale: int) -> None:
    chosen = RestoreSettings(upscale=scale)  # type: ignore[arg-type]  # one of the three
    for finder in (FaceFinder(chosen), whole_photo):
        result = restore_photo(PHOTO, finder, Identity(Side(128)), chosen, "ab")
        assert result.restored == 1
        np.testing.assert_array_equal(result.rgb, lanczos(PHOTO, scale))


@dataclass(frozen=True)
class Checkered:
    """Lays a pattern of single pixels over the face: detail that only the model's own crop holds."""

    side: Side = Side(512)
    colour: ColourFix = "none"

    def restore(self, crops: Any, seeds: Sequence[int], fidelity: float | None = None) -> Any:
        pattern = np.indices((self.side.least, self.side.least)).sum(axis=0) // 2 % 2
        painted = np.where(pattern[..., None], 230, 30).astype(np.uint8)
        return [np.broadcast_to(painted, crop.shape).copy() for crop in crops]


def test_faces_come_from_the_models_own_pixels() -> None:
    """A face of 190 px in the photo, 512 px for the model: at twice the size more of its detail is there."""
    contrast = {}
    for scale in (1, 2):
        chosen = RestoreSettings(upscale=scale, colour="none")  # type: ignore[arg-type]  # one of the three
        out = restore_photo(PHOTO, FaceFinder(chosen), Checkered(), chosen, "ab").rgb
        middle = out[118 * scale : 138 * scale, 154 * scale : 174 * scale].astype(float)
        contrast[scale] = middle.std()
    assert contrast[2] > 3 * contrast[1]


def test_an_enlarged_result_says_so(
    authface: Command,
    lines: Callable[[Path], list[dict[str, object]]],
    network: Path,
    family: Path,
    tmp_path: Path,
) -> None:
    alpha = np.linspace(0, 255, PHOTO[..., 0].size).reshape(PHOTO.shape[:2]).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(png.encode(np.dstack([PHOTO, alpha])))
    Image.fromarray(data.coffee()[:100, :150]).save(tmp_path / "b.jpg")
    arguments = ["--model", family, "-O", "restore.steps=1", "--device", "cpu", "-o", tmp_path / "out"]
    arguments += ["--upscale", 2, "-O", f"restore.upscaler={network}"]
    code, out, err = authface(tmp_path / "a.png", tmp_path / "b.jpg", *arguments)
    assert code == 0, err
    assert (
        "b.jpg: no face found of 16 px or more; enlarged as it is" in err
        and "no face restored in 1: enlarged as they are" in out
    )
    result = images.read(tmp_path / "out/a.png")
    assert result.rgb.shape == (600, 680, 3) and result.alpha is not None
    assert images.read(tmp_path / "out/b.jpg").rgb.shape == (200, 300, 3)
    (line, other) = lines(tmp_path / "out")
    assert (line["scale"], line["width"], other["status"]) == (2, 340, "no_face")
    expected = ModelUpscaler(network)(PHOTO, 2)
    np.testing.assert_array_equal(result.rgb[60:, :60], expected[60:, :60])  # above, some of the photo is hidden
    assert (tmp_path / "out/restore.html").stat().st_size > 20_000


def test_what_would_be_too_large_is_refused_before_work(authface: Command, tmp_path: Path) -> None:
    check_size(3300, 3300, 4)
    check_size(20_000, 8_000, 1)
    with pytest.raises(ImageError, match="4000 x 3000 at --upscale 4 is 192 megapixels, the limit is 178: --upscale 2"):
        check_size(4000, 3000, 4)
    with pytest.raises(ImageError, match="--upscale 1"):
        check_size(12_000, 9_000, 2)
    Image.fromarray(data.astronaut()).resize((5000, 200)).save(tmp_path / "wide.webp")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code, _, err = authface(tmp_path / "wide.webp", "--model", "identity", "--upscale", 4, "-o", tmp_path / "out")
    assert code == 1
    assert "wide.webp: failed (too_large): 20000 x 800, WEBP holds at most 16383 px a side: write png or tiff" in err
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    code, _, err = authface(tmp_path / "wide.webp", "--model", "identity", "-O", "restore.upscaler=x.pth")
    assert code == 2 and "does nothing without --upscale" in err


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([2, 4]))
def test_any_shape_is_enlarged_and_the_crop_put_back_whole(width: int, height: int, scale: int) -> None:
    photo = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    chosen = RestoreSettings(upscale=scale, colour="none")  # type: ignore[arg-type]  # one of the three
    result = restore_photo(photo, whole_photo, Checkered(Side(64)), chosen, "ab")
    assert result.rgb.shape == (height * scale, width * scale, 3)
