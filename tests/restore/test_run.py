"""The command on real files: what is kept of a file, what is said of a bad one, what a second run does."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms
from skimage import data

from authface.files import sha256_of
from authface.imaging import decode as images
from authface.imaging import png, tiff
from authface.restore.session import RestoreSummary
from tests.restore.conftest import deep_astronaut

Command = Callable[..., tuple[int, str, str]]
Lines = Callable[[Path], list[dict[str, object]]]


@pytest.fixture(scope="module")
def portrait() -> Image.Image:
    return Image.fromarray(data.astronaut()[:300, 60:400].copy())


@pytest.fixture
def photo(tmp_path: Path, portrait: Image.Image) -> Path:
    portrait.save(tmp_path / "a face.png")
    return tmp_path / "a face.png"


def test_without_built_in_weights_it_says_so_and_works(
    lines: Lines, authface: Command, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authface.restore.model.restorer.BUILTIN", tmp_path / "absent")
    code, out, err = authface(photo)
    assert code == 0, err
    said = [line for line in err.splitlines() if "authface-tiny is not in this installation" in line]
    assert len(said) == 1 and "--model FOLDER" in said[0]
    assert "1 face found and left as they are in 1 of 1 photos" in out
    result = tmp_path / "a face.restored.png"
    np.testing.assert_array_equal(np.asarray(Image.open(result)), np.asarray(Image.open(photo)))
    assert [line["model"] for line in lines(tmp_path)] == ["identity"]
    assert "a face.png" in (tmp_path / "restore.html").read_text()


def test_a_line_a_face_holds_what_was_done(lines: Lines, authface: Command, photo: Path, tmp_path: Path) -> None:
    assert authface(photo, "--model", "identity", "-o", tmp_path / "out", "--seed", 3)[0] == 0
    (line,) = lines(tmp_path / "out")
    assert (line["status"], line["face"], line["target"]) == ("restored", 0, "a face.png")
    assert line["source"] == str(photo)
    assert (line["width"], line["height"]) == (340, 300)
    x0, y0, x1, y1 = line["box"]  # type: ignore[misc]
    assert 100 < x0 < x1 < 240 and 40 < y0 < y1 < 250  # the astronaut's face, by eye
    assert len(line["quad"]) == 8  # type: ignore[arg-type]


def test_the_model_of_a_folder_restores(authface: Command, photo: Path, tmp_path: Path, family: Path) -> None:
    out = tmp_path / "x.png"
    arguments = [photo, "--model", family, "-O", "restore.steps=2", "--device", "cpu", "-o", out]
    code, said, err = authface(*arguments, "--json")
    assert code == 0, err
    told = json.loads(said)
    assert (told["restored"], told["faces"], told["failed"]) == (1, 1, [])
    assert told["targets"] == [str(out)] and Path(told["report"]).is_file()
    first = np.asarray(Image.open(out))
    assert (first != np.asarray(Image.open(photo))).any()
    assert authface(*arguments, "-O", "restore.batch=1")[0] == 0  # done: batch is nothing a result depends on
    assert np.asarray(Image.open(out)).tobytes() == first.tobytes()


def test_an_exif_turn_is_made_once(
    brighten: Callable[..., tuple[Path, RestoreSummary]], portrait: Image.Image, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "A camera"
    portrait.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    target, summary = brighten(tmp_path / "turned.jpg")
    assert summary.faces == 1
    with Image.open(target) as result:
        assert result.size == portrait.size
        assert (result.getexif().get(0x0112, 1), result.getexif()[0x010F]) == (1, "A camera")
        difference = np.asarray(result).astype(int) - np.asarray(portrait)
    assert np.abs(difference[:, :30]).mean() < 4  # beside the face it is the upright photo
    assert difference[110:170, 150:190].mean() > 30


def test_alpha_profile_and_greyness_stay(
    brighten: Callable[..., tuple[Path, RestoreSummary]], portrait: Image.Image, tmp_path: Path
) -> None:
    alpha = Image.linear_gradient("L").resize(portrait.size)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    with_alpha = portrait.copy()
    with_alpha.putalpha(alpha)
    with_alpha.save(tmp_path / "alpha.png", icc_profile=profile)
    portrait.convert("L").save(tmp_path / "grey.png")
    portrait.convert("L").save(tmp_path / "grey.jpg", quality=95)
    with Image.open(brighten(tmp_path / "alpha.png")[0]) as result:
        assert result.mode == "RGBA"
        np.testing.assert_array_equal(np.asarray(result.getchannel("A")), np.asarray(alpha))
        assert result.info["icc_profile"] == profile
        assert (np.asarray(result.convert("RGB")) != np.asarray(portrait)).any()
    for name in ("grey.png", "grey.jpg"):
        target, summary = brighten(tmp_path / name)
        assert summary.restored == 1
        assert Image.open(target).mode == "L"


@pytest.mark.parametrize(
    ("name", "mode", "target", "expected"),
    [
        ("cmyk.jpg", "CMYK", "cmyk.jpg", ("JPEG", "RGB")),
        ("palette.png", "P", "palette.png", ("PNG", "RGB")),
        ("bitmap.bmp", "RGB", "bitmap.png", ("PNG", "RGB")),
        ("page.tif", "RGB", "page.tif", ("TIFF", "RGB")),
        ("web.webp", "RGB", "web.webp", ("WEBP", "RGB")),
    ],
)
def test_each_format_stays_what_it_can(
    brighten: Callable[..., tuple[Path, RestoreSummary]],
    portrait: Image.Image,
    tmp_path: Path,
    name: str,
    mode: str,
    target: str,
    expected: tuple[str, str],
) -> None:
    portrait.convert(mode).save(tmp_path / name)
    written, summary = brighten(tmp_path / name)
    assert summary.restored == 1
    assert written.name == target
    with Image.open(written) as result:
        assert (result.format, result.mode) == expected
        before = images.read(tmp_path / name).rgb.astype(int)
        assert (np.asarray(result).astype(int) - before)[110:170, 150:190].mean() > 30


@pytest.mark.parametrize(
    ("name", "channels"),
    [("a.png", 1), ("a.png", 2), ("a.png", 3), ("a.png", 4), ("a.tif", 1), ("a.tif", 3), ("a.tif", 4)],
)
def test_sixteen_bits_stay_and_beside_the_face_to_the_last_bit(
    brighten: Callable[..., tuple[Path, RestoreSummary]], lines: Lines, tmp_path: Path, name: str, channels: int
) -> None:
    pixels = deep_astronaut(channels)
    (tmp_path / name).write_bytes((png if name.endswith("png") else tiff).encode(pixels))
    target, summary = brighten(tmp_path / name)
    assert summary.restored == 1
    before, after = (
        images.decode(path.read_bytes(), to_srgb=False, keep_16_bits=True) for path in (tmp_path / name, target)
    )
    assert before.rgb16 is not None and after.rgb16 is not None and after.grey == (channels < 3)
    (line,) = lines(tmp_path / "out")
    quad = np.reshape(line["quad"], (4, 2))  # type: ignore[call-overload]  # JSON
    inside = np.zeros(before.rgb.shape[:2], np.uint8)
    cv2.fillConvexPoly(inside, np.rint(quad).astype(np.int32), 1)
    outside = inside == 0
    assert outside.mean() > 0.3
    np.testing.assert_array_equal(after.rgb16[outside], before.rgb16[outside])
    moved = after.rgb16.astype(int) - before.rgb16
    assert moved[110:170, 150:190].mean() > 30 * 257
    assert len(np.unique(moved[inside == 1] % 257)) > 100, "the blend has more than 8 bits"
    if channels in {2, 4}:
        assert after.alpha16 is not None and before.alpha16 is not None
        np.testing.assert_array_equal(after.alpha16, before.alpha16)
    assert "16 bits" in str(line["encoding"])


def test_what_a_format_cannot_keep_is_said(
    brighten: Callable[..., tuple[Path, RestoreSummary]],
    portrait: Image.Image,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "deep.png").write_bytes(png.encode(deep_astronaut(4)))
    target, _ = brighten(tmp_path / "deep.png", format="jpeg")
    assert Image.open(target).mode == "RGB"
    said = capsys.readouterr().err
    assert "has 16 bits a channel, the result has 8: png and tiff keep them" in said
    assert "what is transparent becomes white" in said
    portrait.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    brighten(tmp_path / "cmyk.jpg")
    assert "CMYK pixels, the result is sRGB" in capsys.readouterr().err
    for first, name in ((portrait, "album.tif"), (Image.new("RGB", (80, 60)), "empty.tif")):
        first.save(tmp_path / name, save_all=True, append_images=[portrait, portrait])
        brighten(tmp_path / name)
        assert f"{name}: the first of its 3 pages alone is restored: save the others" in capsys.readouterr().err


def test_a_jpeg_is_written_as_it_came_and_the_log_says_how(
    brighten: Callable[..., tuple[Path, RestoreSummary]], lines: Lines, portrait: Image.Image, tmp_path: Path
) -> None:
    portrait.save(tmp_path / "fine.jpg", quality=96, subsampling=2)
    target, _ = brighten(tmp_path / "fine.jpg")
    with Image.open(tmp_path / "fine.jpg") as before, Image.open(target) as after:
        assert after.quantization == before.quantization  # type: ignore[attr-defined]  # of a JPEG
        difference = np.abs(np.asarray(after).astype(int) - np.asarray(before))
    assert difference[:, :60].mean() < 0.5
    assert "tables and subsampling of the input" in str(lines(tmp_path / "out")[0]["encoding"])


def test_a_heic_photo_becomes_png_with_what_it_carried(
    brighten: Callable[..., tuple[Path, RestoreSummary]], portrait: Image.Image, tmp_path: Path
) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    portrait.save(tmp_path / "phone.heic", quality=95, exif=exif.tobytes(), icc_profile=profile)
    target, summary = brighten(tmp_path / "phone.heic")
    assert summary.restored == 1 and target.name == "phone.png"
    with Image.open(target) as result:
        assert result.getexif()[0x010F] == "Maker" and result.info["icc_profile"] == profile


def test_a_photo_without_a_face_is_copied_byte_for_byte(authface: Command, photo: Path, tmp_path: Path) -> None:
    Image.fromarray(data.coffee()).save(tmp_path / "coffee.jpg", quality=60)
    code, out, err = authface(tmp_path / "coffee.jpg", photo, "--model", "identity", "-o", tmp_path / "out")
    assert code == 0
    assert "coffee.jpg: no face found of 16 px or more; copied as it is" in err
    assert "no face restored in 1: copied as they are" in out
    assert (tmp_path / "out/coffee.jpg").read_bytes() == (tmp_path / "coffee.jpg").read_bytes()
    code, out, err = authface(tmp_path / "coffee.jpg", "--model", "identity", "-o", tmp_path / "alone")
    assert code == 1
    assert "nothing was restored: no face was found to restore" in err


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--faces", "9000,9000,50,50"], r"1 face found and left alone: 1 not_chosen (--faces 9000,9000,50,50)"),
        (["-O", "restore.min_face=2000"], "1 face found and left alone: 1 too_small ("),
    ],
)
def test_faces_that_were_found_and_not_restored_are_no_missing_faces(
    options: list[str], why: str, authface: Command, photo: Path, tmp_path: Path
) -> None:
    """A region beside the photo, a limit that no face meets: the last line says which."""
    code, _, err = authface(photo, "--model", "identity", "-o", tmp_path / "out", *options)
    assert code == 1 and f"nothing was restored: {why}" in err


def test_the_result_that_is_named_is_there(authface: Command, photo: Path, tmp_path: Path) -> None:
    """Beside the photos the first one that was made, not the first that was asked for."""
    album = tmp_path / "album"
    album.mkdir()
    (album / "a.jpg").write_bytes(b"no photo")
    (album / "b.png").write_bytes(photo.read_bytes())
    code, out, _ = authface(album, "--model", "identity")
    assert code == 3 and f"results: {album / 'b.restored.png'}\n" in out and (album / "b.restored.png").is_file()


def test_bad_files_are_a_line_each_and_the_run_goes_on(authface: Command, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not a photo")
    (tmp_path / "cut.png").write_bytes(photo.read_bytes()[:5000])
    (tmp_path / "empty.png").touch()
    bad = [tmp_path / name for name in ("text.jpg", "cut.png", "empty.png", "gone\n.jpg")]
    code, out, err = authface(*bad, photo, "--model", "identity", "-o", tmp_path / "out", "--json")
    assert code == 3
    failed = [line for line in err.splitlines() if "failed (" in line]
    assert [line.partition("failed ")[2].partition(":")[0] for line in failed] == [
        "(not_an_image)",
        "(truncated)",
        "(empty)",
        "(unreadable)",
    ]
    told = json.loads(out)
    assert (told["photos"], told["restored"], len(told["failed"])) == (5, 1, 4)
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert made == [".restore", "a face.png", "restore.html", "restore.jsonl"]
    code, out, err = authface(*bad, "-o", tmp_path / "none", "--model", "identity")
    assert code == 1
    assert "nothing was restored: no input could be used" in err


def test_a_second_run_does_only_what_is_missing(lines: Lines, authface: Command, photo: Path, tmp_path: Path) -> None:
    def run(*more: object) -> int:
        code, out, err = authface(tmp_path / "in", "-o", tmp_path / "out", "--model", "identity", "--json", *more)
        assert code == 0, err
        return int(json.loads(out)["done_before"])

    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "in" / name).write_bytes(photo.read_bytes())
    assert run() == 0
    stamp = (tmp_path / "out/a.png").stat().st_mtime_ns
    assert run() == 2
    assert (tmp_path / "out/a.png").stat().st_mtime_ns == stamp
    (tmp_path / "out/b.png").unlink()
    assert run() == 1
    assert run("--seed", 1) == 0
    assert run("--seed", 1, "-O", "restore.batch=2") == 2
    Image.open(photo).convert("L").save(tmp_path / "in/a.png")
    assert run("--seed", 1) == 1
    last = {line["target"]: line for line in lines(tmp_path / "out")}  # the log only grows, the last lines count
    digests = {name: sha256_of(tmp_path / "out" / name) for name in ("a.png", "b.png")}
    assert {name: line["result"] for name, line in last.items()} == digests


def test_beside_the_input_results_are_not_taken_for_inputs(authface: Command, photo: Path, tmp_path: Path) -> None:
    for _ in range(2):
        code, out, err = authface(tmp_path, "--model", "identity", "--json")
        assert code == 0, err
        assert json.loads(out)["photos"] == 1
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["a face.png", "a face.restored.png"]


def test_a_file_in_the_way_is_kept_unless_asked(authface: Command, photo: Path, tmp_path: Path) -> None:
    mine = tmp_path / "out" / photo.name
    mine.parent.mkdir()
    mine.write_text("mine")
    for _ in range(2):
        code, _, err = authface(photo, "-o", mine.parent, "--model", "identity")
        assert code == 1 and "target_exists" in err
        assert mine.read_text() == "mine"
    assert authface(photo, "-o", mine.parent, "--model", "identity", "--overwrite")[0] == 0
    assert Image.open(mine).size == (340, 300)


def test_an_original_is_not_overwritten(authface: Command, photo: Path) -> None:
    before = photo.read_bytes()
    code, _, err = authface(photo, "-o", photo, "--model", "identity", "--overwrite")
    assert code == 2 and "originals are not overwritten" in err
    assert authface(photo, "-o", photo.parent, "--model", "identity", "--overwrite")[0] == 0
    assert photo.read_bytes() == before


def test_where_nothing_can_be_written_one_line_says_why(
    authface: Command, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    code, _, err = authface(photo, "-o", tmp_path / "file" / "out", "--model", "identity")
    assert code == 1
    assert [line for line in err.splitlines() if "cannot write" in line and "choose another folder" in line]

    def full(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    code, _, err = authface(photo, "-o", tmp_path / "full", "--model", "identity")
    assert code == 1
    assert err.splitlines()[-1].endswith("run the same command again; what was finished is kept")
    assert not list((tmp_path / "full").glob("*.png"))
    monkeypatch.undo()


def test_names_that_need_care(authface: Command, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-leading.png", "ä ö\nü.png", "[x].png", "\u202eevil.png"):
        photo.rename(tmp_path / name)
        photo = tmp_path / name
        code, out, err = authface("--model", "identity", "-o", "out", "--", name)
        assert code == 0, err
        assert (tmp_path / "out" / name).is_file()
        assert "\u202e" not in out + err
    code, out, _ = authface("out/*", "--model", "identity", "--dry-run", "--json")
    assert code == 0
    assert len(json.loads(out)["jobs"]) == 6  # four photos, the log and the page: a glob is taken at its word


@pytest.fixture
def three(tmp_path: Path, portrait: Image.Image) -> Iterator[list[Path]]:
    folder = tmp_path / "three"
    folder.mkdir()
    for i, side in enumerate((200, 260, 340)):
        portrait.resize((side, side)).save(folder / f"{i}.png")
    yield sorted(folder.iterdir())


def test_results_do_not_depend_on_batch_or_company(
    authface: Command, three: list[Path], family: Path, tmp_path: Path
) -> None:
    with_model = ["--model", family, "-O", "restore.steps=2", "--device", "cpu", "-O", "restore.report=false"]
    assert authface(*three, *with_model, "-o", tmp_path / "all", "-O", "restore.batch=3")[0] == 0
    for photo in reversed(three):
        assert authface(photo, *with_model, "-o", tmp_path / "one", "-O", "restore.batch=1")[0] == 0
        pair = [np.asarray(Image.open(tmp_path / place / photo.name)).astype(int) for place in ("all", "one")]
        assert np.abs(pair[0] - pair[1]).max() <= 1
        assert np.abs(pair[0] - np.asarray(Image.open(photo))).max() > 20
    assert not (tmp_path / "all" / "restore.html").exists()


def test_an_aligned_face_is_not_looked_for(lines: Lines, authface: Command, family: Path, tmp_path: Path) -> None:
    tall = Image.fromarray(data.coffee()).crop((0, 0, 89, 109))  # no face at all: the user says that it is one
    tall.save(tmp_path / "crop.png")
    arguments = [tmp_path / "crop.png", "--model", family, "-O", "restore.steps=1", "--device", "cpu", "--aligned"]
    assert authface(*arguments, "-o", tmp_path / "out")[0] == 0
    with Image.open(tmp_path / "out/crop.png") as result:
        assert result.size == (89, 109)
        assert (np.asarray(result) != np.asarray(tall)).any(axis=2).mean() > 0.9
    (line,) = lines(tmp_path / "out")
    assert (line["placed_by"], line["box"]) == ("whole", [0.0, 0.0, 88.0, 108.0])
