"""Decoding real files of every kind, hostile ones too, and faithful saving."""

import io
import os
import re
import struct
import sys
import zlib
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms
from skimage import data

from authface.errors import ImageError
from authface.imaging import decode as images
from authface.imaging.encode import encode


def photo(width: int = 96, height: int = 64) -> NDArray[np.uint8]:
    """A piece of a real portrait with no symmetry."""
    return np.ascontiguousarray(data.astronaut()[60 : 60 + height, 160 : 160 + width])


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG by the specification, for the kinds that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def wide_rows(values: NDArray[np.uint16]) -> bytes:
    return b"".join(b"\0" + row.astype(">u2").tobytes() for row in values.reshape(len(values), -1))


def reason(data: bytes, **options: int) -> str:
    with pytest.raises(ImageError) as caught:
        images.decode(data, **options)
    assert "\n" not in str(caught.value)
    return caught.value.reason


def shifted_profile() -> bytes:
    """Display P3: the primaries of SMPTE RP 431-2 with a D65 white and a gamma of 2.2, adapted to D50, as ICC v2."""

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", 11) + b"Display P3\0" + bytes(4 + 4 + 2 + 1 + 67)
    tags = {
        b"desc": text + bytes(-len(text) % 4),
        b"cprt": b"text\0\0\0\0" + b"none\0\0\0\0",
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"rXYZ": xyz(0.51512, 0.24120, -0.00105),
        b"gXYZ": xyz(0.29198, 0.69225, 0.04189),
        b"bXYZ": xyz(0.15710, 0.06657, 0.78407),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    offset = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", offset + len(body), len(value))
        body += value
    header = struct.pack(
        ">I4sI4s4s4s", 132 + 12 * len(tags) + len(body), b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ "
    )
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + b"".join(map(fixed, (0.9642, 1, 0.8249)))
    return header.ljust(128, b"\0") + table + body


def test_eight_bit_rgb_is_exact() -> None:
    for format in ("PNG", "BMP", "TIFF"):
        decoded = images.decode(saved(Image.fromarray(photo()), format))
        assert np.array_equal(decoded.rgb, photo()) and decoded.alpha is None and not decoded.grey
        assert decoded.format == format and decoded.rgb.dtype == np.uint8


@pytest.mark.parametrize("dark", [1, 400])
def test_sixteen_bit_grey_keeps_its_brightness(dark: int) -> None:
    wide = (photo()[..., 1].astype(np.uint16) * 257) // dark
    for encoded in (
        png(96, 64, 16, 0, wide_rows(wide)),
        saved(Image.fromarray(wide), "TIFF"),
        png(96, 64, 16, 0, wide_rows(wide), (b"tRNS", struct.pack(">H", 7))),
    ):
        decoded = images.decode(encoded)
        assert decoded.grey and decoded.rgb.shape == (64, 96, 3)
        assert np.abs(decoded.rgb[..., 0] - wide / 257).max() <= 0.51, "nearest 8-bit value, dark frames stay dark"


def test_sixteen_bit_rgb_and_alpha() -> None:
    wide = photo().astype(np.uint16) * 257
    decoded = images.decode(png(96, 64, 16, 2, wide_rows(wide)))
    assert np.abs(decoded.rgb.astype(int) - photo()).max() <= 1
    alpha = np.tile(np.linspace(0, 65535, 96).astype(np.uint16), (64, 1))
    with_alpha = images.decode(png(96, 64, 16, 6, wide_rows(np.dstack([wide, alpha]))))
    assert with_alpha.alpha is not None
    assert np.abs(with_alpha.alpha.astype(int) - alpha / 257).max() <= 1
    assert np.abs(with_alpha.rgb.astype(int) - photo()).max() <= 1


def test_floating_point_is_refused_with_the_next_step() -> None:
    with pytest.raises(ImageError, match="save as") as caught:
        images.decode(saved(Image.fromarray(photo()[..., 0].astype(np.int32) * 70000), "TIFF"))
    assert caught.value.reason == "unsupported_mode"
    assert reason(saved(Image.fromarray(photo()[..., 0].astype(np.float32)), "TIFF")) == "unsupported_mode"


def test_cmyk_jpeg() -> None:
    decoded = images.decode(saved(Image.fromarray(photo()).convert("CMYK"), "JPEG", quality=98))
    assert np.abs(decoded.rgb.astype(int) - photo()).mean() < 3


def test_palette_with_alpha() -> None:
    rgba = np.dstack([photo(), np.full((64, 96), 255, np.uint8)])
    rgba[:20, :30, 3] = 0
    encoded = saved(Image.fromarray(rgba).quantize(64), "PNG")
    assert Image.open(io.BytesIO(encoded)).mode == "P"
    decoded = images.decode(encoded)
    assert decoded.alpha is not None
    assert (decoded.alpha[:20, :30] == 0).all() and (decoded.alpha[20:] == 255).all()
    assert np.abs(decoded.rgb[20:].astype(int) - photo()[20:]).mean() < 12
    assert images.decode(saved(Image.fromarray(photo()).quantize(64), "PNG")).alpha is None


def test_opaque_alpha_is_none_and_grey_alpha_is_grey() -> None:
    opaque = np.dstack([photo(), np.full((64, 96), 255, np.uint8)])
    assert images.decode(saved(Image.fromarray(opaque), "PNG")).alpha is None
    decoded = images.decode(saved(Image.fromarray(photo()[..., 0]).convert("LA"), "PNG"))
    assert decoded.grey and np.array_equal(decoded.rgb[..., 2], photo()[..., 0])


def test_animations_are_refused_and_stills_are_not() -> None:
    frames = [Image.fromarray(photo()).rotate(90 * turn) for turn in range(3)]
    for format in ("GIF", "PNG", "WEBP"):
        moving = saved(frames[0], format, save_all=True, append_images=frames[1:], duration=100)
        assert reason(moving) == "animated"
        assert images.decode(saved(frames[0], format)).format == format


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """`image` as a camera stores it under an EXIF orientation: the inverse of what a reader has to do."""
    stored = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    for step in stored[orientation]:
        image = image.transpose(step)
    return image


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_turns_decode_to_the_same_pixels(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Maker"
    options = {"quality": 100, "subsampling": 0} if format == "JPEG" else {"lossless": True} if format == "WEBP" else {}
    decoded = images.decode(saved(turned(Image.fromarray(photo()), orientation), format, exif=exif, **options))
    assert decoded.rgb.shape == photo().shape
    assert np.abs(decoded.rgb.astype(int) - photo()).max() <= (12 if format == "JPEG" else 0)
    kept = Image.Exif()
    kept.load(decoded.exif)
    assert kept.get(0x0112, 1) == 1 and kept[0x010F] == "Maker", "the turn is done, the rest is kept"


def test_broken_exif_costs_nothing_but_itself() -> None:
    decoded = images.decode(saved(Image.fromarray(photo()), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"))
    assert np.array_equal(decoded.rgb, photo())


def test_size_bombs_are_refused_unread() -> None:
    bomb = png(30_000, 30_000, 8, 2, b"")
    assert len(bomb) < 100 and reason(bomb) == "too_large"
    assert reason(png(13_000, 13_700, 8, 2, b"")) == "too_large", "between our limit and Pillow's"
    assert reason(png(13_000, 13_600, 8, 2, b"")) == "truncated", "within the limit it is read, and has no pixels"
    encoded = saved(Image.fromarray(photo()), "PNG")
    assert reason(encoded, max_pixels=96 * 64 - 1) == "too_large"
    for limit, told in ((images.MAX_PIXELS, 178), (100_000_000, 100)):
        with pytest.raises(ImageError, match=rf"^195 megapixels, the limit is {told}: make it smaller$"):
            images.decode(png(15_000, 13_000, 8, 2, b""), max_pixels=limit)
    assert images.decode(encoded, max_pixels=96 * 64).rgb.shape == (64, 96, 3)


ENCODED = {
    "JPEG": saved(Image.fromarray(photo()), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0", icc_profile=shifted_profile()),
    "progressive": saved(Image.fromarray(photo()), "JPEG", progressive=True),
    "PNG": saved(Image.fromarray(photo()), "PNG"),
    "WEBP": saved(Image.fromarray(photo()), "WEBP"),
    "TIFF": saved(Image.fromarray(photo()), "TIFF", compression="tiff_lzw"),
    "GIF": saved(Image.fromarray(photo()), "GIF"),
    "BMP": saved(Image.fromarray(photo()), "BMP"),
    "AVIF": saved(Image.fromarray(photo()), "AVIF"),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_a_photo_cut_anywhere_is_refused(kind: str) -> None:
    encoded = ENCODED[kind]
    for length in range(1, int(0.95 * len(encoded)), 37):
        assert reason(encoded[:length]) in {"truncated", "not_an_image"}, length


@pytest.mark.parametrize("length", [100, 300])
def test_a_jpeg_cut_within_its_header_is_truncated(length: int) -> None:
    with pytest.raises(ImageError, match=rf"^it ends within its header, after {length} bytes$") as caught:
        images.decode(ENCODED["JPEG"][:length])
    assert caught.value.reason == "truncated"


@pytest.mark.parametrize(
    ("format", "said"), [("PPM", " (PPM"), ("JPEG2000", " (JPEG 2000)"), ("TGA", ": "), ("PDF", " (PDF)")]
)
def test_a_format_that_is_not_read_is_named_with_those_that_are(format: str, said: str) -> None:
    with pytest.raises(ImageError, match=re.escape(f"not a photo in a supported format{said}")) as caught:
        images.decode(saved(Image.fromarray(photo()), format))
    assert str(caught.value).endswith(": save it as JPEG, PNG, WebP, TIFF, BMP, GIF, HEIC or AVIF")
    assert caught.value.reason == "not_an_image"


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(sorted(ENCODED)),
    st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=6),
    st.floats(0, 1),
)
def test_damage_raises_image_errors_only(kind: str, damage: list[tuple[float, bytes]], cut: float) -> None:
    encoded = bytearray(ENCODED[kind])
    for place, bytes_ in damage:
        start = int(place * (len(encoded) - 1))
        encoded[start : start + len(bytes_)] = bytes_
    try:
        decoded = images.decode(bytes(encoded[: int(cut * len(encoded))]), max_pixels=4_000_000)
    except ImageError as error:
        assert error.reason in {"empty", "not_an_image", "truncated", "too_large", "animated", "unsupported_mode"}
    else:
        assert decoded.rgb.ndim == 3 and decoded.rgb.shape[2] == 3 and decoded.rgb.dtype == np.uint8


@given(st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"BM", b"RIFF"]), st.binary())
def test_random_bytes_raise_image_errors_only(start: bytes, rest: bytes) -> None:
    assert reason(start + rest) in {"empty", "not_an_image", "truncated", "too_large", "unsupported_mode"}


def test_a_link_that_leads_nowhere_is_said(tmp_path: Path) -> None:
    for name, target, said in (
        ("a.jpg", "gone.jpg", "to gone.jpg, which is not there"),
        ("b.jpg", "b.jpg", "that leads back to itself"),
    ):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(ImageError, match=f"^a symbolic link {said}$"):
            images.read_bytes(tmp_path / name)


def test_what_is_no_photo(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not a photo at all")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    expected = {
        "empty.jpg": "empty",
        "text.jpg": "not_an_image",
        "pipe.jpg": "not_a_file",
        "folder.jpg": "not_a_file",
        "loop.jpg": "unreadable",
        "absent.jpg": "unreadable",
        "\udcff\n.jpg": "unreadable",
        "x" * 300: "unreadable",
        "nul\0.jpg": "unreadable",
    }
    for name, wanted in expected.items():
        with pytest.raises(ImageError) as caught:
            images.read(tmp_path / name)
        assert caught.value.reason == wanted, name
    sizes: list[object] = []
    asked = Thread(target=lambda: sizes.extend(images.header_size(tmp_path / name) for name in expected), daemon=True)
    asked.start()
    asked.join(20)  # a pipe that is opened is waited for
    assert sizes == [None] * len(expected)
    with pytest.raises(ImageError, match="18 bytes, the limit is 17"):
        images.read_bytes(tmp_path / "text.jpg", max_bytes=17)


def test_display_p3_is_converted_to_srgb() -> None:
    profile = shifted_profile()
    red = np.full((8, 8, 3), (200, 60, 60), np.uint8)
    decoded = images.decode(saved(Image.fromarray(red), "PNG", icc_profile=profile))
    # Linear P3 to linear sRGB (D65), by hand: the first row of the matrix is 1.2249, -0.2247, 0.
    linear = (red[0, 0] / 255.0) ** 2.2
    matrix = np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]])
    srgb = matrix @ linear
    expected = 255 * np.where(srgb <= 0.0031308, 12.92 * srgb, 1.055 * srgb ** (1 / 2.4) - 0.055)
    assert np.abs(decoded.rgb[4, 4] - expected).max() < 2.5
    assert decoded.icc == b""
    native = images.decode(saved(Image.fromarray(red), "PNG", icc_profile=profile), to_srgb=False)
    assert np.array_equal(native.rgb, red) and native.icc == profile


def test_profiles_of_another_kind_change_nothing() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (b"not a profile", srgb, shifted_profile()[:200]):
        decoded = images.decode(saved(Image.fromarray(photo()), "PNG", icc_profile=profile))
        assert np.array_equal(decoded.rgb, photo())
    of_grey = shifted_profile()[:16] + b"GRAY" + shifted_profile()[20:]
    decoded = images.decode(saved(Image.fromarray(photo()), "TIFF", icc_profile=of_grey), to_srgb=False)
    assert decoded.icc == b"" and np.array_equal(decoded.rgb, photo())
    grey = images.decode(saved(Image.fromarray(photo()[..., 0]), "PNG", icc_profile=shifted_profile()), to_srgb=False)
    assert grey.grey and grey.icc == b"", "an RGB profile on a grey photo is not written back"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_save_keeps_what_the_file_carried(format: str) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 6
    stored = Image.fromarray(photo()).transpose(Image.Transpose.ROTATE_90)
    source = images.decode(saved(stored, "TIFF", exif=exif, icc_profile=shifted_profile()), to_srgb=False)
    doubled = np.asarray(Image.fromarray(source.rgb).resize((192, 128), Image.Resampling.LANCZOS))
    encoded = encode(source, doubled, format)
    again = Image.open(io.BytesIO(encoded))
    assert again.size == (192, 128) and again.format == format
    assert again.info["icc_profile"] == shifted_profile()
    assert again.getexif()[0x010F] == "Maker" and again.getexif().get(0x0112, 1) == 1
    assert format == "TIFF" or not {256, 257, 273, 279} & set(again.getexif()), "no layout of the file that was read"
    assert np.abs(images.decode(encoded, to_srgb=False).rgb.astype(int) - doubled).mean() < 3


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_alpha_is_saved_or_laid_over_white(format: str) -> None:
    alpha = np.zeros((64, 96), np.uint8)
    alpha[:, 48:] = 255
    source = images.decode(saved(Image.fromarray(np.dstack([photo(), alpha])), "PNG"))
    decoded = images.decode(encode(source, source.rgb, format))
    if format == "JPEG":
        assert decoded.alpha is None and decoded.rgb[:, :40].min() > 245
    else:
        assert decoded.alpha is not None and np.array_equal(decoded.alpha, alpha)
    assert np.abs(decoded.rgb[:, 56:].astype(int) - photo()[:, 56:]).mean() < 3


def test_grey_stays_one_channel_unless_it_was_coloured() -> None:
    source = images.decode(saved(Image.fromarray(photo()[..., 0]), "PNG"))
    assert Image.open(io.BytesIO(encode(source, source.rgb, "PNG"))).mode == "L"
    assert Image.open(io.BytesIO(encode(source, photo(), "PNG"))).mode == "RGB"


def test_long_exif_and_wide_webp() -> None:
    exif = Image.Exif()
    exif[0x010E] = "x" * 70_000
    source = images.decode(saved(Image.fromarray(photo()), "PNG", exif=exif))
    assert len(source.exif) > 65_533
    assert len(Image.open(io.BytesIO(encode(source, source.rgb, "JPEG"))).getexif()) == 0
    assert Image.open(io.BytesIO(encode(source, source.rgb, "PNG"))).getexif()[0x010E] == "x" * 70_000
    with pytest.raises(ImageError, match="WEBP cannot hold 20000 x 2"):
        encode(source, np.zeros((2, 20_000, 3), np.uint8), "WEBP")


def test_png_and_jpeg_of_arrays() -> None:
    assert np.array_equal(images.decode(images.encode_png(photo())).rgb, photo())
    assert np.array_equal(images.decode(images.encode_png(photo()[..., 0])).rgb[..., 0], photo()[..., 0])
    best, worst = images.encode_jpeg(photo(), quality=98), images.encode_jpeg(photo(), quality=20)
    assert np.abs(images.decode(best).rgb.astype(int) - photo()).mean() < 2 and len(worst) < len(best) / 2
    assert images.decode(images.encode_jpeg(photo()[..., 0])).grey


def test_preview_of_a_box_in_the_upright_photo(tmp_path: Path) -> None:
    big = Image.fromarray(data.astronaut()).resize((2048, 2048), Image.Resampling.LANCZOS)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.jpg"
    path.write_bytes(saved(turned(big, 6), "JPEG", exif=exif, quality=95))
    whole = images.preview(path, 256)
    assert whole.shape == (256, 256, 3)
    expected = np.asarray(big.resize((256, 256), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(whole - expected).mean() < 4
    part = images.preview(path, 128, (640.0, 128.0, 1152.0, 640.0))
    expected = np.asarray(big.crop((640, 128, 1152, 640)).resize((128, 128), Image.Resampling.LANCZOS)).astype(int)
    assert part.shape == (128, 128, 3) and np.abs(part - expected).mean() < 6
    beyond = images.preview(path, 64, (2000.0, 2000.0, 3000.0, 3000.0))
    assert beyond.size > 0


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.floats(-500, 700)] * 4))
def test_preview_of_any_box_is_some_pixels(tmp_path_factory: pytest.TempPathFactory, box: tuple[float, ...]) -> None:
    path = tmp_path_factory.mktemp("preview") / "a.jpg"
    path.write_bytes(ENCODED["JPEG"])
    small = images.preview(path, 32, (box[0], box[1], box[2], box[3]))
    assert small.size > 0 and max(small.shape[:2]) <= 32


def test_a_heic_photo_without_its_extra_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its beginning alone: no reader of HEIC is there."""
    start = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"a HEIC photo needs pillow-heif: pip install 'authface\[heic\]'"):
        images.decode(start)
    with pytest.raises(ImageError, match="not a photo in a supported format"):
        images.decode(start.replace(b"heic", b"qt  "))
