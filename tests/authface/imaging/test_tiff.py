"""TIFFs of known truth, as tifffile writes them: photometric, planes, byte order, depth, compression, predictor."""

from __future__ import annotations

import io
import itertools
import struct
from typing import Any

import numpy as np
import pytest
import skimage.data
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from authface.errors import ImageError
from authface.imaging import decode as images

PHOTO: NDArray[np.uint8] = np.ascontiguousarray(skimage.data.astronaut()[60:93, 160:207])
DEEP: NDArray[np.uint16] = PHOTO.astype(np.uint16) * 257 ^ np.random.default_rng(1).integers(
    0, 128, PHOTO.shape, dtype=np.uint16
)
RAMP = np.tile(np.linspace(0, 1, PHOTO.shape[1]), (PHOTO.shape[0], 1))

COMPRESSIONS = [(None, 0), ("packbits", 0), *itertools.product(["lzw", "zlib", "zstd"], [0, 2])]


def written(pixels: NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, metadata=None, **options)
    return buffer.getvalue()


def stored(pixels: NDArray[Any], photometric: str, extra: str | None) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """What a file holds of (h, w) or (h, w, 3) pixels, and their alpha."""
    most = np.iinfo(pixels.dtype).max
    samples = pixels if photometric in {"minisblack", "rgb"} else np.asarray(most - pixels)
    samples = samples if samples.ndim == 3 else samples[..., None]
    if photometric == "separated":
        samples = np.concatenate([samples, np.zeros_like(samples[..., :1])], axis=2)
    if extra is None:
        return samples, None
    alpha = np.rint(RAMP * most).astype(pixels.dtype)
    if extra == "assocalpha":
        samples = np.rint(samples * (alpha / most)[..., None]).astype(pixels.dtype)
    return np.concatenate([samples, alpha[..., None]], axis=2), alpha


@pytest.mark.parametrize(("compression", "predictor"), COMPRESSIONS)
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite", "rgb", "separated"])
@pytest.mark.parametrize("deep", [False, True])
def test_each_kind_of_file_is_the_picture_that_was_stored(
    deep: bool, photometric: str, compression: str | None, predictor: int
) -> None:
    photo: Any = DEEP if deep else PHOTO
    grey = photometric.startswith("mini")
    truth = np.repeat(photo[..., 1:2], 3, axis=2) if grey else photo
    kinds = itertools.product("<>", ["contig", "separate"], [None, (16, 32)], [False, True],
                              [None, "unassalpha", "assocalpha", "unspecified"])  # fmt: skip
    for order, planar, tile, big, extra in kinds:
        if photometric == "miniswhite" and extra == "assocalpha":
            continue
        samples, alpha = stored(photo[..., 1] if grey else photo, photometric, extra)
        if samples.shape[2] == 1:
            samples = samples[..., 0]
        elif planar == "separate":
            samples = np.ascontiguousarray(samples.transpose(2, 0, 1))
        options = {"planarconfig": planar} if samples.ndim == 3 else {}
        data = written(
            samples, photometric=photometric, byteorder=order, tile=tile, bigtiff=big, compression=compression,
            predictor=predictor or None, rowsperstrip=None if tile else 9, extrasamples=[extra] if extra else None,
            **options,
        )  # fmt: skip
        decoded = images.decode(data, to_srgb=False, keep_16_bits=True)
        about = f"{order} {planar} {tile} {big} {extra}"
        got: Any = decoded.rgb if decoded.rgb16 is None else decoded.rgb16
        if photometric == "separated":
            assert decoded.mode == "CMYK" and decoded.depth == (16 if deep else 8), about
            expected: Any = images.to_8_bits(truth)
        else:
            assert got.dtype == photo.dtype and decoded.grey == grey, about
            expected = truth
        seen = RAMP > 0.5 if extra == "assocalpha" else np.ones_like(RAMP, bool)
        rounding = 2 if extra == "assocalpha" or photometric == "separated" else 0
        assert np.abs(got.astype(int) - expected)[seen].max() <= rounding, about
        if extra in {"unassalpha", "assocalpha"}:
            found: Any = decoded.alpha if decoded.alpha16 is None else decoded.alpha16
            wanted: Any = alpha if found.dtype == photo.dtype else images.to_8_bits(np.asarray(alpha))
            np.testing.assert_array_equal(found, wanted, err_msg=about)
        else:
            assert decoded.alpha is None, about
        shallow = images.decode(data).rgb
        assert np.abs(shallow.astype(int) - images.to_8_bits(expected))[seen].max() <= max(rounding, 1), about


@pytest.mark.parametrize("bits", [1, 2, 4, 12])
@pytest.mark.parametrize("white", [False, True])
def test_other_depths_cover_the_whole_range(bits: int, white: bool) -> None:
    levels = np.arange(33 * 47).reshape(33, 47) * 7919 % (1 << bits)
    flat = (levels[..., None] >> np.arange(bits)[::-1] & 1).reshape(33, -1).astype(np.uint8)
    rows = np.packbits(flat, axis=1).tobytes()
    tags = [
        (256, 47),
        (257, 33),
        (258, bits),
        (259, 1),
        (262, 0 if white else 1),
        (277, 1),
        (278, 33),
        (279, len(rows)),
    ]
    data = by_hand(tags, rows)
    most = (1 << bits) - 1
    expected = np.rint((most - levels if white else levels) * (65535 if bits == 12 else 255) / most)
    decoded = images.decode(data, to_srgb=False, keep_16_bits=True)
    got: Any = decoded.rgb if decoded.rgb16 is None else decoded.rgb16
    assert np.abs(got[..., 0] - expected).max() <= (1 if bits == 12 else 0) and decoded.depth == bits
    assert (decoded.rgb16 is not None) == (bits == 12)
    reversed_bits = by_hand([*tags, (266, 2)], bytes(int(f"{byte:08b}"[::-1], 2) for byte in rows))
    np.testing.assert_array_equal(images.decode(reversed_bits).rgb, decoded.rgb)


def by_hand(tags: list[tuple[int, int]], strip: bytes) -> bytes:
    """A TIFF of one strip and tags of one number each."""
    tags = sorted([*tags, (273, 8)])
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + struct.pack("<H", len(tags)) + table + bytes(4)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_palettes_and_pictures_within(order: str, tile: tuple[int, int] | None) -> None:
    colours = np.random.default_rng(2).integers(0, 256, (256, 3), dtype=np.uint16)
    index = PHOTO[..., 1]
    for scale in (257, 256, 1):
        data = written(index, photometric="palette", colormap=(colours * scale).T, byteorder=order, tile=tile)
        np.testing.assert_array_equal(images.decode(data).rgb, colours[index])
    data = written(PHOTO, photometric="rgb", byteorder=order, tile=tile, compression="jpeg")  # stores YCbCr
    assert np.abs(images.decode(data).rgb.astype(int) - PHOTO).mean() < 6
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).save(buffer, "TIFF", compression="jpeg")  # stores RGB
    assert np.abs(images.decode(buffer.getvalue()).rgb.astype(int) - PHOTO).mean() < 6
    data = written(PHOTO[..., 1], photometric="minisblack", byteorder=order, tile=tile, compression="jpeg")
    assert images.decode(data).grey and np.abs(images.decode(data).rgb[..., 0].astype(int) - PHOTO[..., 1]).mean() < 6
    planes = np.ascontiguousarray(PHOTO.transpose(2, 0, 1))
    data = written(planes, photometric="rgb", planarconfig="separate", byteorder=order, tile=tile, compression="jpeg")
    assert np.abs(images.decode(data).rgb.astype(int) - PHOTO).mean() < 6


def test_a_fax_is_refused_since_of_a_damaged_one_pixels_are_left_to_chance() -> None:
    buffer = io.BytesIO()
    Image.fromarray(PHOTO[..., 1]).convert("1").save(buffer, "TIFF", compression="group4")
    with pytest.raises(ImageError, match="compression CCITT"):
        images.decode(buffer.getvalue())


def test_a_jpeg_within_that_is_cut_short_is_refused() -> None:
    data = written(PHOTO, photometric="rgb", compression="jpeg")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        end = page.dataoffsets[0] + page.databytecounts[0]
    with pytest.raises(ImageError, match="JPEG without its end"):
        images.decode(data[: end - 40] + bytes(40) + data[end:])


@pytest.mark.parametrize(
    ("pixels", "options", "said"),
    [
        (PHOTO.astype(np.float32), {"photometric": "rgb"}, "32-bit floating-point pixels"),
        (PHOTO.astype(np.uint32), {"photometric": "rgb"}, "32-bit pixels"),
        (PHOTO.astype(np.int16), {"photometric": "rgb"}, "16-bit signed pixels"),
        (PHOTO, {"photometric": "cielab"}, r"CIE L\*a\*b\* pixels"),
        (PHOTO[..., 1], {"photometric": "cfa"}, "raw sensor pixels"),
        (PHOTO, {"photometric": "ycbcr"}, "YCbCr pixels"),
        (PHOTO, {"photometric": "rgb", "compression": "jpeg2000"}, "compression 33005|compression JPEG 2000"),
        (np.dstack([PHOTO[..., 0]] * 2), {"photometric": "miniswhite", "extrasamples": [1]}, "multiplied with alpha"),
    ],
)
@pytest.mark.parametrize("big", [False, True])
def test_what_is_not_read_is_refused_in_words(pixels: Any, options: dict[str, Any], said: str, big: bool) -> None:
    with pytest.raises(ImageError, match=said) as caught:
        images.decode(written(pixels, bigtiff=big, **options))
    assert caught.value.reason == "unsupported_mode" and "save as" in str(caught.value)


def test_a_bigtiff_keeps_what_is_written_about_it() -> None:
    about = [(271, 2, 6, b"Maker\0", True), (700, 7, 9, b"<x:xmp/> ", True), (274, 3, 1, 6, True)]
    for order, big in itertools.product("<>", [False, True]):
        data = written(
            DEEP, photometric="rgb", byteorder=order, bigtiff=big, resolution=(120, 120), resolutionunit=3,
            extratags=about, iccprofile=b"profile",
        )  # fmt: skip
        decoded = images.decode(data, to_srgb=False, keep_16_bits=True)
        exif = Image.Exif()
        exif.load(decoded.exif)
        assert exif[271] == "Maker" and exif.get(274, 1) == 1 and 256 not in exif
        assert decoded.xmp == b"<x:xmp/> " and decoded.dpi == pytest.approx((304.8, 304.8))
        assert decoded.rgb16 is not None
        np.testing.assert_array_equal(decoded.rgb16, np.rot90(DEEP, -1))


def test_a_preview_before_the_picture_is_not_taken_for_it() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        file.write(PHOTO[::4, ::4], photometric="rgb", subfiletype=1)
        file.write(PHOTO, photometric="rgb")
    with pytest.raises(ImageError, match="begins with a preview"):
        images.decode(buffer.getvalue())


SMALL = [
    written(photo[:12, :20], photometric="rgb", byteorder=order, bigtiff=big, compression=compression, predictor=None)
    for photo in (PHOTO, DEEP)
    for order, big, compression in itertools.product("<>", [False, True], [None, "lzw", "packbits"])
]


@pytest.mark.parametrize("data", SMALL)
def test_a_tiff_cut_anywhere_is_refused(data: bytes) -> None:
    for length in range(len(data)):
        if length < len(data) - 600 or length % 16 == 0:
            try:
                whole = images.decode(data[:length], to_srgb=False, keep_16_bits=True)
            except ImageError:
                continue
            again = images.decode(data, to_srgb=False, keep_16_bits=True)
            assert np.array_equal(whole.rgb, again.rgb), length  # what was cut off is padding


@pytest.mark.parametrize("compression", [None, "tiff_deflate"])
@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_of_several_pages_cut_anywhere_is_refused(compression: str | None, big: bool) -> None:
    """Its first pages alone would be taken for the whole photo, and the others be lost."""
    first, *further = [Image.fromarray(np.roll(PHOTO[:12, :20], shift, axis=1)) for shift in range(4)]
    buffer = io.BytesIO()
    first.save(buffer, "TIFF", save_all=True, append_images=further, compression=compression, big_tiff=big)
    data = buffer.getvalue()
    whole = images.decode(data, to_srgb=False).extras
    assert len(whole.pages) == 3 and not whole.lost
    for length in range(8, len(data)):
        try:
            left = images.decode(data[:length], to_srgb=False).extras
        except ImageError as error:
            assert error.reason == "truncated", (length, error)
        else:  # what was cut off is padding, or the resolution
            assert [page.chunks for page in left.pages] == [page.chunks for page in whole.pages], length


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(SMALL), st.lists(st.tuples(st.integers(0, 1000), st.binary(min_size=1, max_size=8)), max_size=5))
def test_damaged_directories_raise_image_errors_only(data: bytes, damage: list[tuple[int, bytes]]) -> None:
    broken = bytearray(data)
    for place, value in damage:
        place = place % len(data) if place > 40 else max(0, len(data) - place)
        broken[place : place + len(value)] = value[: len(data) - place]
    try:
        decoded = images.decode(bytes(broken), max_pixels=1_000_000, keep_16_bits=True, to_srgb=False)
    except ImageError as error:
        assert "\n" not in str(error)
    else:
        assert decoded.rgb.ndim == 3 and decoded.rgb.dtype == np.uint8
