"""What a save keeps of a file: 16 bits to the last, profile, EXIF, XMP, resolution, greyness, compression."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image, ImageCms

from authface.imaging import decode as images
from authface.imaging import png, tiff
from authface.imaging.encode import describe, encode, quality_of
from authface.imaging.metadata import JpegStyle
from authface.imaging.png import to_8_bits, turned

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><dc:creator>Anna</dc:creator></x:xmpmeta>'
WIDE = np.random.default_rng(5).integers(0, 65536, (40, 60, 4), dtype=np.uint16)
PHOTO: NDArray[np.uint8] = np.asarray(skimage.data.astronaut()[:96, 180:300])


def srgb() -> bytes:
    return bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())


def grey_profile() -> bytes:
    """The least that Pillow takes for a profile of grey: a header of that colour space."""
    return srgb()[:16] + b"GRAY" + srgb()[20:]


def exif_block() -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769).update({0x9003: "2020:01:02 03:04:05", 0xA002: 7, 0xA003: 5})
    return bytes(exif.tobytes())


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def wide_file(format: str, channels: int) -> bytes:
    pixels = WIDE[..., :channels] if channels > 1 else WIDE[..., 0]
    if format == "PNG":
        return png.encode(pixels, png.metadata_chunks(b"", exif_block(), XMP, (300, 300)))
    return tiff.encode(pixels, exif_block(), b"", XMP, (300, 300))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_come_back_to_the_last_bit(format: str, channels: int) -> None:
    data = wide_file(format, channels)
    decoded = images.decode(data, to_srgb=False, keep_16_bits=True)
    assert decoded.rgb16 is not None and decoded.grey == (channels < 3) and decoded.depth == 16
    np.testing.assert_array_equal(decoded.rgb16[..., 0], WIDE[..., 0])
    np.testing.assert_array_equal(decoded.rgb, to_8_bits(decoded.rgb16))
    for target in ("PNG", "TIFF"):
        again = images.decode(encode(decoded, decoded.rgb16, target), to_srgb=False, keep_16_bits=True)
        assert again.rgb16 is not None and again.grey == (channels == 1 or (channels == 2 and target == "PNG"))
        np.testing.assert_array_equal(again.rgb16, decoded.rgb16)
        assert (again.alpha16 is None) == (channels in {1, 3})
        if again.alpha16 is not None and decoded.alpha16 is not None:
            np.testing.assert_array_equal(again.alpha16, WIDE[..., channels - 1])
        assert again.xmp == XMP and again.dpi == pytest.approx((300, 300), abs=0.02)
    flat = images.decode(encode(decoded, decoded.rgb16, "WEBP"))
    assert flat.rgb16 is None and flat.rgb.shape == (40, 60, 3)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_other_readers_see_the_same_pixels(depth: type, channels: int) -> None:
    pixels = (WIDE[..., :channels] >> (8 if depth is np.uint8 else 0)).astype(depth)
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(tiff.encode(pixels))).reshape(pixels.shape), pixels)
    if channels != 2:  # OpenCV spreads grey with alpha
        read = cv2.imdecode(np.frombuffer(png.encode(pixels), np.uint8), cv2.IMREAD_UNCHANGED).reshape(pixels.shape)
        order = [2, 1, 0, 3][:channels] if channels > 2 else [0]
        np.testing.assert_array_equal(read[..., order], pixels)
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    if depth is np.uint8:
        for data in (png.encode(pixels), tiff.encode(pixels)):
            read = np.asarray(Image.open(io.BytesIO(data)))
            assert Image.open(io.BytesIO(data)).mode == mode
            np.testing.assert_array_equal(read.reshape(pixels.shape), pixels)


@settings(deadline=None, max_examples=40)
@given(
    arrays.arrays(
        st.sampled_from([np.uint8, np.uint16]), st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4))
    )
)
def test_any_pixels_survive_both_writers(pixels: NDArray[Any]) -> None:
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(tiff.encode(pixels))).reshape(pixels.shape), pixels)
    data = png.encode(pixels)
    length = struct.unpack(">I", data[33:37])[0]
    rows = np.frombuffer(zlib.decompress(data[41 : 41 + length]), np.uint8).reshape(len(pixels), -1)
    plain = np.cumsum(rows[:, 1:], axis=0, dtype=np.uint8).tobytes()
    assert (rows[:, 0] == 2).all() and plain == pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()


def test_files_of_many_strips_and_of_the_other_byte_order() -> None:
    tall = np.random.default_rng(1).integers(0, 65536, (3000, 200, 3), dtype=np.uint16)
    motorola = Image.Exif()
    motorola.endian = ">"
    motorola[0x010F] = "Maker"
    read = cv2.imdecode(np.frombuffer(png.encode(tall), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(read[..., ::-1], tall)
    for exif in (b"", motorola.tobytes()):
        data = tiff.encode(tall, exif)
        assert data[:2] == (b"MM" if exif else b"II")
        np.testing.assert_array_equal(tifffile.imread(io.BytesIO(data)), tall)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_deep_photo_is_turned_as_its_exif_says(orientation: int) -> None:
    upright = np.sort(WIDE[..., :3], axis=1)
    back = {6: 8, 8: 6}.get(orientation, orientation)
    stored = turned(upright, back)
    exif = Image.Exif()
    exif[0x0112] = orientation
    as_tiff = io.BytesIO()
    tifffile.imwrite(as_tiff, stored, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    for data in (png.encode(stored, png.metadata_chunks(exif=exif.tobytes())), as_tiff.getvalue()):
        decoded = images.decode(data, to_srgb=False, keep_16_bits=True)
        assert decoded.rgb16 is not None
        np.testing.assert_array_equal(decoded.rgb16, upright)
        again = images.decode(encode(decoded, decoded.rgb16, decoded.format), to_srgb=False, keep_16_bits=True)
        assert again.rgb16 is not None
        np.testing.assert_array_equal(again.rgb16, upright)


def test_inks_of_16_bits_are_read_as_8() -> None:
    inks = io.BytesIO()
    tifffile.imwrite(inks, WIDE, photometric="separated")
    decoded = images.decode(inks.getvalue(), to_srgb=False, keep_16_bits=True)
    assert decoded.rgb16 is None and decoded.mode == "CMYK"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("grey", [False, True])
def test_profile_exif_xmp_and_resolution_are_kept(format: str, grey: bool) -> None:
    picture = Image.fromarray(PHOTO[..., 0] if grey else PHOTO)
    profile = grey_profile() if grey else srgb()
    data = saved(picture, "JPEG", quality=95, exif=exif_block(), icc_profile=profile, xmp=XMP, dpi=(240, 240))
    source = images.decode(data, to_srgb=False)
    assert (source.icc, source.xmp, source.dpi) == (profile, XMP, (240, 240))
    larger = np.repeat(np.repeat(source.rgb, 2, axis=0), 2, axis=1)
    written = Image.open(io.BytesIO(encode(source, larger, format)))
    assert written.mode == ("RGB" if not grey or format == "WEBP" else "L")
    assert format == "WEBP" and grey or written.info["icc_profile"] == profile
    assert written.info["xmp"].rstrip(b"\0") == XMP
    if format != "WEBP":
        assert written.info["dpi"] == pytest.approx((240, 240), abs=0.02)
    inner = written.getexif().get_ifd(0x8769)
    assert written.getexif()[0x010F] == "Maker" and inner[0x9003] == "2020:01:02 03:04:05"
    assert (inner[0xA002], inner[0xA003]) == larger.shape[1::-1], "the size that the EXIF block names is the new one"


def test_a_png_keeps_what_its_colours_mean_and_its_texts() -> None:
    linear = (b"gAMA", struct.pack(">I", 100_000))
    text = (b"tEXt", b"Title\0A face")
    data = png.encode(PHOTO, [linear, text, *png.metadata_chunks(xmp=XMP)])
    source = images.decode(data, to_srgb=False)
    again = encode(source, source.rgb, "PNG")
    assert again.count(b"gAMA") == again.count(b"tEXt") == again.count(XMP) == 1
    with Image.open(io.BytesIO(again)) as written:
        assert written.info["gamma"] == 1.0 and written.info["Title"] == "A face" and written.info["xmp"] == XMP


@pytest.mark.parametrize(("quality", "subsampling"), [(90, 2), (93, 1), (97, 0)])
def test_a_good_jpeg_keeps_its_tables_and_subsampling(quality: int, subsampling: int) -> None:
    data = saved(Image.fromarray(PHOTO), "JPEG", quality=quality, subsampling=subsampling, progressive=True)
    source = images.decode(data, to_srgb=False)
    again = encode(source, source.rgb, "JPEG")
    written = images.decode(again, to_srgb=False)
    assert written.jpeg == source.jpeg and source.jpeg is not None and source.jpeg.progressive
    assert quality_of(source.jpeg) == pytest.approx(quality, abs=1)
    assert "tables and subsampling of the input" in describe(source, "JPEG", False)
    unlike = np.abs(written.rgb.astype(int) - source.rgb).mean()
    other = images.decode(encode(source, source.rgb, "JPEG", quality=85)).rgb
    assert unlike < np.abs(other.astype(int) - source.rgb).mean() / 2, "the second time it loses next to nothing"


def test_a_coarse_jpeg_does_not_spoil_what_was_restored() -> None:
    source = images.decode(saved(Image.fromarray(PHOTO), "JPEG", quality=40), to_srgb=False)
    written = images.decode(encode(source, PHOTO, "JPEG"), to_srgb=False)
    assert written.jpeg is not None and quality_of(written.jpeg) == 95 and written.jpeg.subsampling == 0
    assert describe(source, "JPEG", False) == "JPEG, quality 95, 4:4:4"
    assert describe(source, "JPEG", False, 80) == "JPEG, quality 80, 4:4:4"


def test_the_quality_of_the_standard_tables_is_theirs() -> None:
    for quality in (50, 60, 75, 90, 95, 100):
        style = images.decode(saved(Image.fromarray(PHOTO), "JPEG", quality=quality)).jpeg
        assert isinstance(style, JpegStyle) and quality_of(style) == pytest.approx(quality, abs=1)


def test_webp_without_loss_stays_so() -> None:
    for lossless in (True, False):
        source = images.decode(saved(Image.fromarray(PHOTO), "WEBP", lossless=lossless, exif=exif_block()))
        again = images.decode(encode(source, source.rgb, "WEBP"))
        assert np.array_equal(again.rgb, source.rgb) == lossless
        assert ("lossless" in describe(source, "WEBP", False)) == lossless


def test_xmp_that_no_segment_holds_is_left_out() -> None:
    source = images.decode(png.encode(PHOTO, png.metadata_chunks(xmp=b"x" * 70_000)), to_srgb=False)
    assert "xmp" not in Image.open(io.BytesIO(encode(source, PHOTO, "JPEG"))).info
    assert Image.open(io.BytesIO(encode(source, PHOTO, "PNG"))).info["xmp"] == b"x" * 70_000


def test_the_thumbnail_of_the_old_face_goes() -> None:
    """EXIF's second directory holds it (EXIF 2.32, 4.5.5): 100 bytes after both."""
    first = struct.pack("<HHHI4sI", 1, 0x010F, 2, 4, b"Abc\0", 26)
    second = struct.pack("<HHHII", 2, 0x0201, 4, 1, 56) + struct.pack("<HHIII", 0x0202, 4, 1, 100, 0)
    exif = b"Exif\0\0" + struct.pack("<2sHI", b"II", 42, 8) + first + second + b"T" * 100
    with Image.open(io.BytesIO(saved(Image.fromarray(PHOTO), "JPEG", exif=exif))) as before:
        assert before.getexif().get_ifd(-1)[0x0202] == 100 and b"TTTT" in before.info["exif"]
    source = images.decode(saved(Image.fromarray(PHOTO), "JPEG", exif=exif), to_srgb=False)
    with Image.open(io.BytesIO(encode(source, PHOTO, "JPEG"))) as after:
        assert after.getexif()[0x010F] == "Abc" and b"TTTT" not in after.info["exif"]
        assert not after.getexif().get_ifd(-1)
