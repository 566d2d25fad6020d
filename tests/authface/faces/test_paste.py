"""Paste-back: nothing changes where the model changed nothing, no seam where it did.

Face parsing: the network as facexlib builds it, from a file of its real layout; masks of what it says.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage import data

from authface.errors import AuthfaceError
from authface.faces import detector as face_weights
from authface.faces import paste as module
from authface.faces.geometry import Aligned, align, scale_quad
from authface.faces.paste import CLASSES, FaceParser, parser_sha256, paste_all
from authface.files import sha256_of

Pixels = NDArray[np.uint8]
ASTRONAUT: Pixels = np.asarray(skimage.data.astronaut())


def paste(photo: Any, aligned: Aligned, restored: Any, *, mask: Any = None, **options: Any) -> Any:
    return paste_all(photo, [(aligned, restored)], masks=[mask], **options)


def square(x: float, y: float, side: float, degrees: float = 0.0) -> NDArray[np.float64]:
    a = np.deg2rad(degrees)
    across = np.array([np.cos(a), np.sin(a)]) * side / 2
    down = np.array([-across[1], across[0]])
    centre = np.array([x, y])
    return np.stack([centre - across - down, centre - across + down, centre + across + down, centre + across - down])


@settings(deadline=None, max_examples=30)
@given(
    st.floats(0, 511),
    st.floats(0, 511),
    st.floats(10, 900),
    st.floats(-180, 180, allow_subnormal=False),
    st.sampled_from([64, 256]),
)
def test_a_model_that_changes_nothing_changes_no_pixel(x: float, y: float, side: float, turn: float, size: int) -> None:
    face = align(ASTRONAUT, square(x, y, side, turn), size)
    assert np.array_equal(paste(ASTRONAUT, face, face.rgb.copy()), ASTRONAUT)
    assert np.array_equal(paste(ASTRONAUT, face, face.rgb.copy(), mask=spot(size)), ASTRONAUT)


def spot(size: int) -> NDArray[np.float32]:
    """A soft round mask right of the crop's middle, gone from 0.2 sides around its own."""
    v, u = (np.mgrid[:size, :size] + 0.5) / size
    return np.clip(2 - np.hypot(u - 0.6, v - 0.5) * 10, 0, 1).astype(np.float32)


@settings(deadline=None, max_examples=30)
@given(st.floats(-180, 180, allow_subnormal=False), st.sampled_from([64, 256]), st.sampled_from([1, 2, 4]))
def test_beyond_a_face_s_own_mask_no_pixel_changes(turn: float, size: int, upscale: int) -> None:
    photo = np.full((200 * upscale, 200 * upscale, 3), 90, np.uint8)
    quad = square(100, 100, 120, turn)
    face = Aligned(np.full((size, size, 3), 90, np.uint8), quad, 0.0, False)
    out = paste(photo, face, np.full_like(face.rgb, 180), mask=spot(size), upscale=upscale)
    large = scale_quad(quad, upscale)
    middle = large[0] + 0.6 * (large[3] - large[0]) + 0.5 * (large[1] - large[0])
    y, x = np.mgrid[: len(photo), : len(photo)]
    distance = np.hypot(x - middle[0], y - middle[1]) / (120 * upscale)
    assert (out[distance > 0.2 + 1.5 / size] == 90).all()
    assert (out[distance < 0.1 - 1.5 / size] == 180).all()


def test_a_nearer_face_s_mask_leaves_the_rest_to_its_neighbour() -> None:
    photo = np.full((300, 500, 3), 100, np.uint8)
    left, right = (align(photo, square(x, 150, 200), 128) for x in (220, 280))
    faces = [(left, np.full_like(left.rgb, 140)), (right, np.full_like(right.rgb, 180))]
    nothing = np.zeros((128, 128), np.float32)
    out = paste_all(photo, faces, masks=[nothing, None])
    assert np.array_equal(out, paste_all(photo, faces[1:]))


@pytest.mark.parametrize(("side", "scale"), [(20, 1), (2000, 8)])
def test_also_for_tiny_and_for_huge_faces(side: int, scale: int) -> None:
    photo = np.asarray(cv2.resize(ASTRONAUT, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC))
    face = align(photo, square(224 * scale, 118 * scale, side, 15), 512)
    assert np.array_equal(paste(photo, face, face.rgb.copy()), photo)


def test_overlapping_faces_that_do_not_change_change_nothing() -> None:
    faces = [align(ASTRONAUT, square(200 + 30 * i, 120 + 20 * i, 180, 20 * i), 128) for i in range(4)]
    assert np.array_equal(paste_all(ASTRONAUT, [(f, f.rgb.copy()) for f in faces]), ASTRONAUT)


def test_the_photo_itself_is_left_alone() -> None:
    photo = ASTRONAUT.copy()
    face = align(photo, square(224, 118, 200), 128)
    out = paste(photo, face, 255 - face.rgb)
    assert np.array_equal(photo, ASTRONAUT) and not np.array_equal(out, photo)


def test_the_middle_becomes_the_restored_face_and_nothing_beyond_the_crop_changes() -> None:
    face = align(ASTRONAUT, square(224, 118, 200, 25), 512)
    clean = cv2.bilateralFilter(255 - face.rgb, 9, 40, 5)
    out = paste(ASTRONAUT, face, clean)
    again = align(out, face.quad, 512).rgb
    core = slice(128, 384)
    assert np.abs(again[core, core].astype(int) - clean[core, core]).mean() < 3
    inside = np.zeros(ASTRONAUT.shape[:2], np.uint8)
    cv2.fillConvexPoly(inside, np.rint(face.quad).astype(np.int32), 1)
    assert np.array_equal(out[inside == 0], ASTRONAUT[inside == 0])


@pytest.mark.parametrize(("side", "size"), [(300, 128), (200, 512)])
def test_a_brightness_shift_leaves_no_seam(side: int, size: int) -> None:
    photo = np.full((512, 512, 3), 110, dtype=np.uint8)
    face = align(photo, square(256, 256, side, 33), size)
    out = paste(photo, face, face.rgb + np.uint8(40)).astype(int)[..., 0]
    assert out[256, 256] == 150 and out[0, 0] == 110
    steps = max(np.abs(np.diff(out, axis=0)).max(), np.abs(np.diff(out, axis=1)).max())
    feather = 0.12 * side  # photo pixels; smoothstep is at most 1.5 times as steep as a ramp, here over up to two sides
    assert steps <= np.ceil(2 * 1.5 * 40 / feather)


def test_where_the_face_was_clearly_changed_the_photos_noise_goes_too() -> None:
    rng = np.random.default_rng(0)
    photo = np.clip(120 + rng.normal(0, 15, (600, 600, 3)), 0, 255).astype(np.uint8)
    face = align(photo, square(300, 300, 500), 128)  # four photo pixels in a crop pixel: the crop holds little noise
    restored = np.full_like(face.rgb, 140)
    core = (slice(250, 350), slice(250, 350))
    assert paste(photo, face, restored)[core].std() < 1


def test_a_slight_change_keeps_the_photos_own_detail() -> None:
    face = align(ASTRONAUT, square(224, 118, 200), 64)
    out = paste(ASTRONAUT, face, cv2.add(face.rgb, (1, 1, 1, 0)))
    inside = (slice(100, 140), slice(200, 250))
    assert np.abs(out[inside].astype(int) - ASTRONAUT[inside] - 1).max() <= 1


def test_a_padded_face_fades_out_at_the_photos_border() -> None:
    photo = np.ascontiguousarray(ASTRONAUT[:, 190:])
    face = align(photo, square(30, 120, 200), 256)
    assert face.pad_fraction > 0.2
    change = np.abs(paste(photo, face, cv2.add(face.rgb, (30, 30, 30, 0))).astype(int) - photo).max(axis=2)
    assert change[:, 0].max() <= 1 and change[120, 40] >= 25


def test_neighbours_share_the_pixels_between_them() -> None:
    photo = np.full((300, 500, 3), 100, dtype=np.uint8)
    left, right = (align(photo, square(x, 150, 200), 128) for x in (200, 300))
    faces = [(left, np.full_like(left.rgb, 140)), (right, np.full_like(right.rgb, 180))]
    out = paste_all(photo, faces)
    assert out[150, 200, 0] == pytest.approx(140, abs=2) and out[150, 300, 0] == pytest.approx(180, abs=2)
    assert out[150, 250, 0] == pytest.approx(160, abs=2)
    assert np.abs(paste_all(photo, faces[::-1]).astype(int) - out).max() <= 1
    assert out.max() <= 180  # nowhere both changes at once


@pytest.mark.parametrize("upscale", [2, 3])
def test_into_a_photo_that_was_enlarged(upscale: int) -> None:
    face = align(ASTRONAUT, square(224, 118, 180, 10), 256)
    wide = np.asarray(cv2.resize(ASTRONAUT, None, fx=upscale, fy=upscale, interpolation=cv2.INTER_CUBIC))
    assert np.array_equal(paste(wide, face, face.rgb.copy(), upscale=upscale), wide)
    flat = np.full_like(wide, 60)
    dark = Aligned(np.full_like(face.rgb, 60), face.quad, 0.0, True)
    marked = dark.rgb.copy()
    marked[118:138, 118:138] = 160  # its middle is the quad's
    y, x = np.nonzero(paste(flat, dark, marked, upscale=upscale)[..., 1] > 110)
    middle = scale_quad(face.quad, upscale).mean(axis=0)
    assert np.abs([x.mean() - middle[0], y.mean() - middle[1]]).max() < 0.3


@given(st.integers(32, 700))
def test_the_mask_is_whole_over_the_face_and_gone_before_the_border(size: int) -> None:
    along = ((np.arange(size) + 0.5) * 2 / size - 1).astype(np.float32)
    mask = module._feather(along[None, :], along[:, None])
    assert mask.shape == (size, size) and mask.dtype == np.float32
    edge = max(1, int(size * 0.02))
    assert mask[:edge].max() == mask[:, -edge:].max() == 0.0
    middle = slice(round(size * 0.2), round(size * 0.8))
    assert mask[middle, middle].min() == 1.0
    assert np.allclose(mask, mask.T) and np.allclose(mask, mask[::-1], atol=1e-5)


def test_wrong_input_is_refused_in_one_line() -> None:
    face: Aligned = align(ASTRONAUT, square(224, 118, 200), 64)
    with pytest.raises(AuthfaceError, match="64, 64"):
        paste(ASTRONAUT, face, np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(AuthfaceError, match="a mask"):
        paste(ASTRONAUT, face, face.rgb, mask=np.ones((32, 32), np.float32))


CROP = np.ascontiguousarray(data.astronaut()[20:220, 130:330])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, in a folder and under the name of the real ones."""
    import torch
    from facexlib.parsing.parsenet import ParseNet

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "parsing_parsenet.pth"
    torch.save(ParseNet(in_size=512, out_size=512, parsing_ch=19).state_dict(), file)
    return file


@pytest.fixture
def placed(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(face_weights, "facexlib_folder", lambda: weights.parent)
    return weights


def test_classes_are_those_facexlib_gives(placed: Path) -> None:
    import torch
    from facexlib.parsing.parsenet import ParseNet

    network = ParseNet(in_size=512, out_size=512, parsing_ch=19).eval()
    network.load_state_dict(torch.load(placed, weights_only=True))
    seen = torch.from_numpy(CROP[:64, :64].transpose(2, 0, 1).copy()).float() / 255
    with torch.inference_mode():
        theirs = network((seen[None] - 0.5) / 0.5)[0].argmax(dim=1)[0].numpy()
    ours = FaceParser(side=64).classes(CROP[:64, :64])
    assert (ours == theirs).mean() > 0.99 and len(np.unique(ours)) > 1
    assert parser_sha256() == sha256_of(placed)


class Told(FaceParser):
    """Says of each pixel what it was told."""

    def __init__(
        self, shown: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.bool_]], name: str
    ) -> None:
        self.shown, self.name = shown, name

    def classes(self, crop: NDArray[np.uint8]) -> NDArray[np.intp]:
        v, u = np.mgrid[:512, :512] / 512
        return np.where(self.shown(u, v), CLASSES.index(self.name), 0)


@pytest.mark.parametrize("size", [64, 512, 600])
def test_a_mask_is_whole_within_the_face_and_soft_at_its_edge(placed: Path, size: int) -> None:
    parser = Told(lambda u, v: u < 0.5, "skin")
    FaceParser.__init__(parser)
    crop = np.zeros((size, size, 3), np.uint8)
    mask = parser.mask(crop)
    assert mask.shape == (size, size) and mask.dtype == np.float32
    assert mask[:, : size // 3].min() > 0.999 and mask[:, size * 2 // 3 :].max() < 0.001
    across = mask[size // 2]
    assert (np.diff(across) <= 1e-6).all() and across[size // 2] == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(
    ("name", "with_hair", "without"),
    [("nose", 1, 1), ("earring", 1, 1), ("hair", 1, 0), ("hat", 0, 0), ("neck", 0, 0), ("clothes", 0, 0)],
)
def test_what_belongs_to_a_face(placed: Path, name: str, with_hair: int, without: int) -> None:
    for hair, expected in ((True, with_hair), (False, without)):
        parser = Told(lambda u, v: u >= 0, name)
        FaceParser.__init__(parser, hair=hair)
        assert parser.mask(CROP) == pytest.approx(expected, abs=1e-6)


def test_weights_that_are_missing_or_broken_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import facexlib.utils

    def offline(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(facexlib.utils, "load_file_from_url", offline)
    monkeypatch.setattr(face_weights, "facexlib_folder", lambda: tmp_path)
    with pytest.raises(
        AuthfaceError, match=r"restore.mask=parsing .*no route.*parsing_parsenet.pth into .*mask=square"
    ):
        FaceParser()
    (tmp_path / "parsing_parsenet.pth").write_bytes(b"half a file")
    with pytest.raises(AuthfaceError, match=r"parsing_parsenet.pth is broken .*get https://github.com/") as caught:
        FaceParser()
    assert "\n" not in str(caught.value)
