"""The Python API: the command's pixels, every kind of input, chosen faces, shared weights, one line an error."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms
from skimage import data

from authface import Restored, Restorer
from authface.errors import AuthfaceError, ImageError, UsageError
from authface.imaging import decode as images

Command = Callable[..., tuple[int, str, str]]
ASTRONAUT = np.ascontiguousarray(data.astronaut()[:300, 60:400])


def two_faces() -> NDArray[np.uint8]:
    """The same face twice, the left one larger."""
    small = np.asarray(Image.fromarray(ASTRONAUT).resize((240, 212)))
    photo = np.zeros((300, 580, 3), np.uint8)
    photo[:, :340], photo[40:252, 340:] = ASTRONAUT, small
    return photo


@pytest.fixture(scope="module")
def restorer(family: Path) -> Iterator[Restorer]:
    with Restorer(str(family), device="cpu", steps=2) as made:
        yield made


@pytest.fixture(scope="module")
def restored(restorer: Restorer) -> Restored:
    return restorer.restore(ASTRONAUT)


def test_importing_authface_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, authface; print(authface.__version__, {'torch', 'numpy', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith(" set()\n")
    with pytest.raises(ImportError):
        from authface import Restore  # noqa: F401


def test_a_file_s_result_is_the_command_s(restorer: Restorer, authface: Command, family: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Camera"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    turned = Image.fromarray(ASTRONAUT).rotate(90, expand=True)
    turned.save(tmp_path / "a.jpg", quality=95, exif=exif, icc_profile=profile)
    model = ["--model", family, "-O", "restore.steps=2", "--device", "cpu", "-O", "restore.report=false"]
    assert authface(tmp_path / "a.jpg", *model, "-o", tmp_path / "out")[0] == 0
    made = restorer.restore(tmp_path / "a.jpg")
    assert made.restored == 1 and made.image.shape == ASTRONAUT.shape
    assert made.encoded() == (tmp_path / "out/a.jpg").read_bytes()
    assert restorer.restore((tmp_path / "a.jpg").read_bytes()).encoded() == made.encoded()
    saved = made.save(tmp_path / "b.png")
    read = images.read(saved, to_srgb=False)
    np.testing.assert_array_equal(read.rgb, made.image)
    assert read.icc == profile and b"Camera" in read.exif


def test_a_face_says_what_became_of_it(restored: Restored) -> None:
    (face,) = restored.faces
    assert (face.status, face.reason, face.tries) == ("restored", "", 1)
    assert face.before is not None and face.after is not None
    assert face.before.shape == face.after.shape == (64, 64, 3) and (face.before != face.after).any()
    assert face.identity is not None and -1 <= face.identity < 1
    assert face.landmark_shift is not None and face.colour_shift is not None and face.colour_shift > 0
    x0, y0, x1, y1 = (round(value) for value in face.box)
    changed = (restored.image != ASTRONAUT).any(axis=2)
    assert changed[y0:y1, x0:x1].mean() > 0.9 and not changed[:, :40].any()
    shown = restored.change_map()
    assert shown.shape[1:] == (ASTRONAUT.shape[1], 3) and shown[y0:y1, x0:x1].max() > 100


def test_arrays_and_pil_images_of_the_same_pixels_are_the_same(restorer: Restorer, restored: Restored) -> None:
    picture = Image.fromarray(ASTRONAUT)
    np.testing.assert_array_equal(restorer.restore(picture).image, restored.image)
    wide = restorer.restore(ASTRONAUT.astype(np.uint16) * 257)
    assert wide.pixels.dtype == np.uint16 and wide.image.dtype == np.uint8 and wide.restored == 1
    exif = Image.Exif()
    exif[0x0112] = 8
    turned = picture.rotate(-90, expand=True)
    turned.info["exif"] = exif.tobytes()
    turned.putalpha(200)
    found = restorer.restore(turned)
    np.testing.assert_array_equal(found.image, restored.image)
    assert found.source.photo.alpha is not None and (found.source.photo.alpha == 200).all()
    assert restored.ending == ".png" and found.encoded(".webp")[8:12] == b"WEBP"


def test_faces_are_found_and_chosen_by_their_number(restorer: Restorer) -> None:
    photo = two_faces()
    first, second = restorer.find(photo)
    assert (first.index, second.index, first.reason) == (0, 1, "") and first.box[0] < 300 < second.box[0]
    assert first.crop is not None and first.crop.shape == (64, 64, 3)
    both, one = restorer.restore(photo), restorer.restore(photo, only=[1])
    assert [face.status for face in both.faces] == ["restored", "restored"]
    assert [(face.status, face.reason) for face in one.faces] == [("skipped", "not_chosen"), ("restored", "")]
    np.testing.assert_array_equal(one.image[:, :300], photo[:, :300])
    alone, beside = one.faces[1].after, both.faces[1].after
    assert alone is not None and beside is not None
    assert np.abs(alone.astype(int) - beside).max() <= 1  # a batch of another size is rounded another way
    np.testing.assert_array_equal(restorer.restore(photo, only=[]).image, photo)
    largest = restorer.with_settings(faces=1)
    assert largest.restore(photo).restored == 1 and len(largest.find(photo)) == 2
    with pytest.raises(UsageError, match="no face 7: 2 were found"):
        restorer.restore(photo, only=[0, 7])
    strict = restorer.with_settings(min_face=1000)
    assert all(face.reason == "too_small" and face.crop is None for face in strict.find(photo))
    with pytest.raises(UsageError, match="face 0 cannot be restored: too_small .*limit is 1000"):
        strict.restore(photo, only=[0])


def test_a_face_that_is_missed_is_marked(restorer: Restorer) -> None:
    photo = ASTRONAUT.copy()
    box = (250.0, 180.0, 320.0, 260.0)
    assert len(restorer.find(photo)) == 1
    first, marked = restorer.find(photo, marked=[box])
    assert (first.index, marked.index, marked.reason) == (0, 1, "") and marked.crop is not None
    made = restorer.restore(photo, only=[1], marked=[box])
    assert [face.status for face in made.faces] == ["skipped", "restored"]
    assert made.faces[1].placed_by == "marked" and (made.image != photo)[200:240, 270:300].any()
    assert restorer.restore(photo, marked=[box]).restored == 2
    assert restorer.restore(photo, marked=[np.array(box, np.float32)]).restored == 2  # type: ignore[list-item]
    for wrong in ((box[2], box[1], box[0], box[3]), (0.0, 0.0, float("nan"), 9.0), (1.0, 2.0), None):
        with pytest.raises(UsageError, match="a box is x0, y0, x1, y1"):
            restorer.restore(photo, marked=[wrong])  # type: ignore[list-item]


def test_a_mark_joins_the_faces_that_are_chosen(restorer: Restorer) -> None:
    photo, largest = two_faces(), restorer.with_settings(faces="largest")
    found = largest.find(photo, marked=[(260.0, 180.0, 330.0, 260.0)])
    assert len(found) == 3
    made = largest.restore(photo, marked=[(260.0, 180.0, 330.0, 260.0)])
    assert made.restored == 2 and made.faces[2].placed_by == "marked" and made.faces[2].status == "restored"


def test_aligned_faces_of_any_size_and_company(restorer: Restorer) -> None:
    crops = [np.ascontiguousarray(ASTRONAUT[40:240, 100:300]), np.ascontiguousarray(ASTRONAUT[60:160, 120:220])]
    results = restorer.restore_aligned(crops)
    assert [made.image.shape for made in results] == [(200, 200, 3), (100, 100, 3)]
    (alone,) = restorer.restore_aligned(crops[1:])
    # With AVX2 oneDNN takes another kernel for two faces than for one, which rounds a level elsewhere here and there.
    np.testing.assert_allclose(alone.image.astype(int), results[1].image, atol=1)
    (stacked,) = restorer.restore_aligned(np.stack(crops[1:]))
    np.testing.assert_array_equal(stacked.image, alone.image)
    assert results[0].faces[0].placed_by == "whole" and restorer.restore_aligned([]) == []


def test_other_settings_share_the_weights(restorer: Restorer, restored: Restored) -> None:
    closer = restorer.with_settings(fidelity=0.9, upscale=2)
    made = closer.restore(ASTRONAUT)
    assert closer._session.restorer.unet is restorer._session.restorer.unet  # type: ignore[attr-defined]  # a diffusion model
    assert made.image.shape == (600, 680, 3) and made.restored == 1
    assert (closer.settings.steps, restorer.settings.fidelity) == (2, 0.5)
    closer.close()
    np.testing.assert_array_equal(restorer.restore(ASTRONAUT).image, restored.image)


def test_progress_counts_denoising_steps_and_may_end_them(restorer: Restorer) -> None:
    told: list[tuple[int, int]] = []
    restorer.with_settings(batch=1).restore(two_faces(), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]

    def enough(done: int, total: int) -> None:
        raise InterruptedError("enough")

    with pytest.raises(InterruptedError):
        restorer.restore(ASTRONAUT, progress=enough)
    told.clear()
    assert restorer.restore(ASTRONAUT).restored == 1 and told == []


def test_where_nothing_changes_the_file_stays_byte_for_byte(tmp_path: Path) -> None:
    Image.fromarray(data.coffee()).save(tmp_path / "a.jpg", quality=60)
    made = Restorer("identity").restore(tmp_path / "a.jpg")
    assert made.faces == () and made.restored == 0
    assert made.save(tmp_path / "out" / "b.jpeg").read_bytes() == (tmp_path / "a.jpg").read_bytes()
    with pytest.raises(UsageError, match="originals are not overwritten"):
        made.save(tmp_path / "." / "a.jpg")
    with pytest.raises(UsageError, match=".jpg, .jpeg"):
        made.save(tmp_path / "a.heic")
    (tmp_path / "file").write_text("")
    with pytest.raises(AuthfaceError, match="a part of the path is a file|cannot write"):
        made.save(tmp_path / "file" / "a.png")


def test_what_a_format_loses_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    picture = Image.fromarray(ASTRONAUT)
    picture.putalpha(128)
    with caplog.at_level(logging.WARNING, "authface"):
        Restorer("identity").restore(picture).encoded(".jpg")
    assert "JPEG has no alpha" in caplog.text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"preset": "best"}, 'preset = "best": '),
        ({"fidelity": 2}, "fidelity = 2: "),
        ({"stepz": 3}, "no setting stepz; did you mean steps?"),
        ({"faces": 0}, "a number from 1"),
        ({"model": "nothing here"}, "no model 'nothing here'"),
        ({"device": "abacus"}, "there are auto, cpu, cuda"),
        ({"min_identity": 0.9, "guard": False}, "needs the measure"),
    ],
)
def test_a_wrong_wish_is_one_line(family: Path, given: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        Restorer(**{"model": str(family), **given}).restore(ASTRONAUT)  # type: ignore[arg-type]  # that is the point
    assert said in str(raised.value) and "\n" not in str(raised.value) and "recipe" not in str(raised.value)


@pytest.mark.parametrize(
    ("image", "kind", "said"),
    [
        (b"no image", ImageError, "not a photo"),
        ("absent.jpg", ImageError, "no such file"),
        (np.zeros((4, 4, 3), np.float32), UsageError, "astype\\('uint8'\\)"),
        (np.zeros((4, 4), np.uint8), UsageError, r"shape \(4, 4\)"),
        (Image.new("CMYK", (4, 4)), UsageError, "mode CMYK"),
        (3, UsageError, "type int"),
    ],
)
def test_what_is_no_image_is_one_line(image: object, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        Restorer("identity").restore(image)  # type: ignore[arg-type]  # that is the point
