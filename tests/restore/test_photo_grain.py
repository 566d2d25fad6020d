"""Restored faces get the grain that is beside them: as strong, as coarse, of the face's seed; clean photos get none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from authface.faces.geometry import Side, align
from authface.restore.model.crops import ColourFix
from authface.restore.model.restorer import Identity
from authface.restore.photo import FaceFinder, FaceResult, PhotoResult, paste_faces, restore_faces, whole_photo
from authface.restore.settings import RestoreSettings

CLEAN = cv2.resize(cv2.GaussianBlur(data.astronaut(), (0, 0), 2), None, fx=1.5, fy=1.5) * 0.8 + 25
SETTINGS = RestoreSettings(colour="none", guard=False)


@dataclass(frozen=True)
class Smoother:
    """Takes all noise off a face, and brightens it so that it counts as changed."""

    side: Side = Side(256, own=True)
    colour: ColourFix = "none"

    def restore(
        self, crops: Sequence[NDArray[np.uint8]], seeds: Sequence[int], fidelity: float | None = None
    ) -> Sequence[NDArray[np.uint8]]:
        return [np.clip(cv2.GaussianBlur(crop, (0, 0), 5) + np.uint8(12), 0, 255).astype(np.uint8) for crop in crops]


def noisy(sigma: float, coarse: float) -> NDArray[np.uint8]:
    made = np.random.default_rng(0).standard_normal(CLEAN.shape)
    made = cv2.GaussianBlur(made, (0, 0), coarse) if coarse else made
    return np.clip(np.rint(CLEAN + made * sigma / made.std()), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    return FaceFinder(SETTINGS)


def restored(finder: FaceFinder, photo: NDArray[np.uint8]) -> list[FaceResult]:
    model = Smoother()
    return restore_faces(model, finder(photo, model.side, "ab", 0), SETTINGS)


def middle(result: PhotoResult) -> tuple[slice, slice]:
    """The half of the face's crop around its middle."""
    face = result.faces[0]
    assert face.quad is not None
    (x, y), side = face.quad.mean(axis=0), float(np.hypot(*(face.quad[3] - face.quad[0])))
    return slice(int(y - side / 4), int(y + side / 4)), slice(int(x - side / 4), int(x + side / 4))


def lag(values: NDArray[np.floating]) -> float:
    return float((values[:, 1:] * values[:, :-1]).mean() / (values**2).mean())


@pytest.mark.parametrize("coarse", [0, 0.7, 1.3])
@pytest.mark.parametrize("sigma", [4, 10])
def test_a_face_gets_the_noise_around_it(finder: FaceFinder, sigma: float, coarse: float) -> None:
    photo = noisy(sigma, coarse)
    faces = restored(finder, photo)
    without, with_grain = paste_faces(photo, faces), paste_faces(photo, faces, grain=1)
    added = with_grain.rgb.astype(float) - without.rgb
    rows, columns = middle(without)
    got = added[rows, columns]
    assert got.std(axis=(0, 1)) == pytest.approx(sigma, rel=0.15)
    truth = photo.astype(float) - CLEAN
    assert lag(got[..., 1]) == pytest.approx(lag(truth[..., 1]), abs=0.15 * max(lag(truth[..., 1]), 0.5))
    inside = np.zeros(photo.shape[:2], np.uint8)
    cv2.fillConvexPoly(inside, np.rint(without.faces[0].quad).astype(np.int32), 1)
    assert not added[inside == 0].any(), "what was not restored has its own grain"
    half = paste_faces(photo, faces, grain=0.5).rgb.astype(float) - without.rgb
    assert half[rows, columns].std() == pytest.approx(got.std() / 2, rel=0.05)
    np.testing.assert_array_equal(paste_faces(photo, faces, grain=1).rgb, with_grain.rgb)
    other = paste_faces(photo, [replace(face, seed=1) for face in faces], grain=1)
    assert (other.rgb != with_grain.rgb).any()


@dataclass(frozen=True)
class Denoiser:
    """Takes a part of the noise off a face and leaves its skin, as the built-in model does with a good photo."""

    clean: NDArray[np.float64]
    kept: float
    side: Side = Side(256, own=True)

    def after(self, face: FaceResult) -> FaceResult:
        assert face.aligned is not None
        truth = align(np.rint(self.clean).astype(np.uint8), face.aligned.quad, face.aligned.rgb.shape[0]).rgb
        mixed = truth + self.kept * (face.aligned.rgb.astype(float) - truth)
        return replace(face, after=np.clip(np.rint(mixed), 0, 255).astype(np.uint8))


@pytest.mark.parametrize("kept", [0.0, 0.4, 0.7])
@pytest.mark.parametrize("sigma", [4, 8])
def test_a_face_whose_skin_has_texture_gets_what_it_lost(finder: FaceFinder, sigma: float, kept: float) -> None:
    skin = cv2.GaussianBlur(np.random.default_rng(1).standard_normal(CLEAN.shape[:2]), (0, 0), 2)
    textured = CLEAN + (4 * skin / skin.std())[..., None]
    photo = np.clip(np.rint(textured + noisy(sigma, 0) - CLEAN), 0, 255).astype(np.uint8)
    model = Denoiser(textured, kept)
    faces = [model.after(face) for face in finder(photo, model.side, "ab", 0)[:1]]
    made = paste_faces(photo, faces, grain=1)
    noise, there = ((pixels - textured)[middle(made)] for pixels in (made.rgb, photo))
    assert noise.std() == pytest.approx(there.std(), rel=0.12)


def test_a_clean_photo_is_byte_for_byte_as_without(finder: FaceFinder) -> None:
    photo = np.rint(CLEAN).astype(np.uint8)
    faces = restored(finder, photo)
    assert paste_faces(photo, faces).restored == 1
    np.testing.assert_array_equal(paste_faces(photo, faces, grain=1).rgb, paste_faces(photo, faces).rgb)


def test_a_face_that_kept_its_noise_gets_no_more(finder: FaceFinder) -> None:
    photo = noisy(8, 1.3)
    same = restore_faces(Identity(Side(256)), finder(photo, Side(256), "ab", 0), SETTINGS)
    np.testing.assert_array_equal(paste_faces(photo, same, grain=1).rgb, photo)
    face = restored(finder, photo)[0]
    assert face.aligned is not None
    darker = replace(face, after=np.clip(face.aligned.rgb.astype(int) - 20, 0, 255).astype(np.uint8))
    without, with_grain = paste_faces(photo, [darker]), paste_faces(photo, [darker], grain=1)
    rows, columns = middle(without)
    assert (with_grain.rgb.astype(float) - without.rgb)[rows, columns].std() < 4


def test_grey_16_bits_and_enlarged_photos_keep_their_kind(finder: FaceFinder) -> None:
    photo = noisy(8, 0.7)
    grey = np.repeat(photo[..., :1], 3, axis=2)
    made = paste_faces(grey, restored(finder, grey), grain=1).rgb
    assert (made != paste_faces(grey, restored(finder, grey)).rgb).any() and (made == made[..., :1]).all()
    faces = restored(finder, photo)
    wide = photo.astype(np.uint16) * np.uint16(257)
    narrow = paste_faces(photo, faces, grain=1).rgb
    assert np.abs(paste_faces(wide, faces, grain=1).rgb / 257 - narrow).mean() < 0.5
    large = paste_faces(photo, faces, scale=2, grain=1)
    rows, columns = (slice(2 * part.start, 2 * part.stop) for part in middle(large))
    added = large.rgb.astype(float) - paste_faces(photo, faces, scale=2).rgb
    assert lag(added[rows, columns, 1]) > 0.7, "enlarged grain is coarser"


def test_a_photo_that_is_its_crop_gets_none() -> None:
    photo = noisy(8, 0)[:300, :300]
    model = Smoother()
    faces = restore_faces(model, whole_photo(photo, model.side, "ab", 0), SETTINGS)
    np.testing.assert_array_equal(paste_faces(photo, faces, grain=1).rgb, paste_faces(photo, faces).rgb)
