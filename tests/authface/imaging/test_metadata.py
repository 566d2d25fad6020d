"""What a file holds besides its picture: kept where the result's format can, else said; XMP that would lie goes."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pillow_heif
import pytest
import skimage.data
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

from authface.errors import ImageError
from authface.imaging import decode as images
from authface.imaging.encode import describe, encode
from authface.imaging.metadata import resources
from authface.imaging.xmp import truthful

PHOTO: NDArray[np.uint8] = np.ascontiguousarray(skimage.data.astronaut()[60:124, 160:256])
IPTC = b"\x1c\x02\x78\x00\x05A day"
GAIN = "http://ns.adobe.com/hdr-gain-map/1.0/"
CONTAINER = "http://ns.google.com/photos/1.0/container/"
CAMERA = "http://ns.google.com/photos/1.0/camera/"


def saved(pixels: NDArray[np.uint8], format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def resource(kind: int, body: bytes) -> bytes:
    return b"8BIM" + struct.pack(">HHL", kind, 0, len(body)) + body + b"\0" * (len(body) % 2)


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 255, marker, 2 + len(body)) + body


def written_about() -> bytes:
    """A JPEG with IPTC, Photoshop's thumbnail of the old face, and two comments."""
    block = resource(0x0404, IPTC) + resource(0x040C, b"old face") + resource(0x07D0, b"a path")
    jpeg = saved(PHOTO, "JPEG", quality=95)
    extra = segment(0xED, b"Photoshop 3.0\0" + block) + segment(0xFE, b"first") + segment(0xFE, b"second")
    return jpeg[:2] + extra + jpeg[2:]


def xmp(properties: str = "", children: str = "") -> bytes:
    return (
        f'<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        f'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        f'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:hdrgm="{GAIN}" xmlns:Container="{CONTAINER}" '
        f'xmlns:GCamera="{CAMERA}" dc:format="image/jpeg" {properties}>{children}</rdf:Description></rdf:RDF>'
        f'</x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def test_iptc_and_comments_are_kept_where_a_format_can() -> None:
    source = images.decode(written_about(), to_srgb=False)
    assert source.extras.iptc == IPTC and source.extras.comments == (b"first", b"second")
    assert [kind for kind, _, _ in resources(source.extras.photoshop)] == [0x0404, 0x07D0], "no old thumbnail"
    for format in ("JPEG", "TIFF"):
        again = images.decode(encode(source, 255 - source.rgb, format), to_srgb=False)
        assert again.extras.iptc == IPTC and len(list(resources(again.extras.photoshop))) == 2, format
    again = images.decode(encode(source, source.rgb, "JPEG"), to_srgb=False)
    assert again.extras.comments == (b"first", b"second") and source.extras.losses("JPEG") == []
    with Image.open(io.BytesIO(encode(source, source.rgb, "PNG"))) as png:
        png.load()
        assert png.info["Comment"] == "second" and IPTC.hex() in png.info["Raw profile type iptc"].replace("\n", "")
    assert any("IPTC" in line for line in source.extras.losses("WEBP"))
    assert any("comment" in line for line in source.extras.losses("TIFF"))


def ultra_hdr() -> bytes:
    """As Android writes it: XMP names a gain map, which is a second JPEG behind the first."""
    of_first = xmp('hdrgm:Version="1.0"', f'<Container:Directory><rdf:Seq xmlns:rdf="{GAIN}x"/></Container:Directory>')
    gain = saved(PHOTO[::2, ::2, 0].copy(), "JPEG", xmp=xmp('hdrgm:Version="1.0" hdrgm:GainMapMax="2"'))
    return saved(PHOTO, "JPEG", quality=95, xmp=of_first) + gain


def test_a_gain_map_is_said_and_xmp_does_not_speak_of_it() -> None:
    source = images.decode(ultra_hdr(), to_srgb=False)
    assert source.format == "JPEG", "there is no MPF in it"
    assert any("gain map" in line for line in source.extras.losses("JPEG"))
    for format in ("JPEG", "PNG", "TIFF", "WEBP"):
        again = encode(source, source.rgb, format)
        assert b"hdrgm:" not in again and b"Container:" not in again and b"image/jpeg" in again, format
    assert images.decode(encode(source, source.rgb, "JPEG"), to_srgb=False).extras.lost == ()


@pytest.mark.parametrize("video", [b"\0\0\0\x18ftypmp42" + bytes(40), b"MotionPhoto_Data\0\0\0\x18ftypisom" + bytes(9)])
def test_a_motion_photos_video_is_said(video: bytes) -> None:
    packet = xmp('GCamera:MicroVideo="1" GCamera:MicroVideoOffset="52" GCamera:MotionPhoto="1" GCamera:Kept="yes"')
    source = images.decode(saved(PHOTO, "JPEG", quality=95, xmp=packet) + video, to_srgb=False)
    assert source.extras.losses("JPEG") == ["the result does not keep the video of a motion photo"]
    assert b"Video" not in source.xmp and b"Motion" not in source.xmp and b'GCamera:Kept="yes"' in source.xmp


def test_xmp_stays_byte_for_byte_unless_it_would_lie() -> None:
    plain = xmp('dc:source="a"').replace(f' xmlns:GCamera="{CAMERA}"'.encode(), b"")
    assert truthful(plain) == plain and truthful(b"") == b"" and truthful(b"<no xml") == b"<no xml"
    lying = xmp('hdrgm:Version="1"')
    assert truthful(lying.replace(b"</rdf:RDF>", b"")) == b"", "what cannot be read and would lie goes"
    assert truthful(b'<!DOCTYPE a [<!ENTITY b "c">]>' + lying) == b""
    wide = truthful(lying.decode().encode("utf-16"))
    assert b"hdrgm:Version" not in wide and b"xpacket" in wide and b"dc:format" in wide
    turned = truthful(xmp('xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6" tiff:Make="Maker"'))
    assert b"Orientation" not in turned and b'tiff:Make="Maker"' in turned


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("big", [False, True])
def test_further_pages_of_a_tiff_stay_as_they_were(order: str, big: bool) -> None:
    second, third = np.rot90(PHOTO).copy(), PHOTO[..., 1].astype(np.uint16) * 257
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, byteorder=order, bigtiff=big) as file:  # type: ignore[arg-type]
        file.write(PHOTO, photometric="rgb")
        file.write(PHOTO[::4, ::4], photometric="rgb", subfiletype=1)  # a smaller copy of the old face
        file.write(second, photometric="rgb", compression="lzw", tile=(16, 16))
        file.write(third, photometric="miniswhite", compression="zlib", predictor=True, rowsperstrip=7)
    source = images.decode(buffer.getvalue(), to_srgb=False)
    written = encode(source, 255 - source.rgb, "TIFF")
    with tifffile.TiffFile(io.BytesIO(written)) as read:
        pages = [page.asarray() for page in read.pages]
    for page, expected in zip(pages, (255 - PHOTO, second, third), strict=True):
        np.testing.assert_array_equal(page, expected)
    assert source.extras.losses("TIFF") == []
    assert source.extras.losses("PNG") == ["has 3 pages, the result holds the first: tiff keeps them"]


def test_channels_and_layers_beside_a_tiffs_picture_are_said() -> None:
    buffer = io.BytesIO()
    selection = PHOTO[..., :1]
    layers = [(37724, 7, 8, b"8BIMlays", True)]
    tifffile.imwrite(
        buffer, np.dstack([PHOTO, selection]), photometric="rgb", extrasamples=[0], extratags=layers, metadata=None
    )
    source = images.decode(buffer.getvalue(), to_srgb=False)
    said = source.extras.losses("TIFF")
    assert any("1 further channel" in line for line in said) and any("layers" in line for line in said)
    assert b"8BIMlays" not in encode(source, source.rgb, "TIFF"), "layers would show the old face"


def test_a_second_picture_in_a_heic_is_said_and_ten_bits_are() -> None:
    images.decode(saved(PHOTO, "PNG"))
    both = pillow_heif.HeifFile()
    both.add_from_pillow(Image.fromarray(PHOTO))
    both.add_from_pillow(Image.fromarray(255 - PHOTO))
    for primary, expected in ((0, PHOTO), (1, 255 - PHOTO)):
        buffer = io.BytesIO()
        both.save(buffer, quality=95, primary_index=primary)
        source = images.decode(buffer.getvalue(), to_srgb=False)
        assert np.abs(source.rgb.astype(int) - expected).mean() < 4
        assert source.extras.losses("PNG") == ["the result does not keep 1 further picture in the file"]
        assert source.depth == 8
    deep = pillow_heif.from_bytes("RGB;16", (96, 64), (PHOTO.astype(np.uint16) * 257).tobytes())
    buffer = io.BytesIO()
    deep.save(buffer, quality=95)
    assert images.decode(buffer.getvalue()).depth == 10


def test_hdr_colours_are_refused_and_not_taken_for_srgb() -> None:
    for curve, is_read in ((13, True), (16, False), (18, False)):
        buffer = io.BytesIO()
        heif = pillow_heif.from_pillow(Image.fromarray(PHOTO))
        heif.save(buffer, color_primaries=9, transfer_characteristics=curve, matrix_coefficients=9, full_range_flag=1)
        if is_read:
            assert images.decode(buffer.getvalue()).format == "HEIF"
        else:
            with pytest.raises(ImageError, match="HDR colours"):
                images.decode(buffer.getvalue())


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lacks_only_its_end_marker_is_read(progressive: bool) -> None:
    data = saved(PHOTO, "JPEG", quality=92, progressive=progressive)
    for length in (len(data) - 1, len(data) - 2):
        np.testing.assert_array_equal(images.decode(data[:length]).rgb, images.decode(data).rgb)
    for missing in range(3, 400):
        with pytest.raises(ImageError) as caught:
            images.decode(data[:-missing])
        assert caught.value.reason == "truncated", missing


@pytest.mark.parametrize(("factor", "name"), [(0x411111, "4:1:1"), (0x121111, "4:4:0")])
def test_a_subsampling_that_is_not_written_becomes_the_finest_and_is_said(factor: int, name: str) -> None:
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
    source = images.decode(cv2.imencode(".jpg", PHOTO, options)[1].tobytes(), to_srgb=False)
    assert source.jpeg is not None and source.jpeg.subsampling == -1, name
    written = images.decode(encode(source, source.rgb, "JPEG"), to_srgb=False)
    assert written.jpeg is not None and written.jpeg.subsampling == 0 and written.jpeg.tables == source.jpeg.tables
    assert describe(source, "JPEG", False).startswith("JPEG, 4:4:4, tables of the input")
    assert np.abs(written.rgb.astype(int) - source.rgb).mean() < 1.5


def test_a_lossless_webp_keeps_hidden_colours_and_its_profile() -> None:
    alpha = np.zeros(PHOTO.shape[:2], np.uint8)
    alpha[:, 40:] = 255
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + bytes(5000)
    data = saved(np.dstack([PHOTO, alpha]), "WEBP", lossless=True, exact=True, icc_profile=profile)
    source = images.decode(data, to_srgb=False)
    assert source.lossless_webp, "its picture begins thousands of bytes behind the profile"
    np.testing.assert_array_equal(images.decode(encode(source, source.rgb, "WEBP"), to_srgb=False).rgb, PHOTO)


@pytest.mark.parametrize("begin", [0, 53, 1 << 20])
def test_a_bmp_whose_pixels_begin_in_its_headers_is_refused(begin: int) -> None:
    """Pillow reads header and palette as pixels, without a word."""
    for data in (saved(PHOTO, "BMP"), saved(PHOTO[..., 0].copy(), "BMP")):
        with pytest.raises(ImageError) as caught:
            images.decode(data[:10] + struct.pack("<L", begin) + data[14:])
        assert caught.value.reason in {"truncated", "not_an_image"}
