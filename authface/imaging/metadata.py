"""What a photo's file holds besides its picture: EXIF, resolution, profiles, further pages.
It is kept in the result if the format can, else reported in a line each.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageOps, JpegImagePlugin

from authface.imaging.tiff_directory import Directory

IPTC_RESOURCE = 0x0404
_NOT_KEPT = {0x0409: "thumbnail", 0x040C: "thumbnail", 0x03ED: "resolution", 0x03EE: "resolution"}
"""Photoshop resources that would be wrong in the result, or are handled elsewhere."""
_SIGNATURE = b"8BIM"
_PHOTOSHOP = b"Photoshop 3.0\0"
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""Marker that ends the entropy-coded data of a JPEG (ITU-T T.81, B.1.1.5)."""
_NCLX = re.compile(rb"colrnclx")
_SOS, _EOI, _COM, _APP11, _APP13 = 0xDA, 0xD9, 0xFE, 0xEB, 0xED
_GAIN_MAPS = (b"hdr-gain-map/1.0/", b"urn:iso:std:iso:ts:21496", b"HDRGainMap", b"hdrgainmap", b"tmap")
_DEPTH_MAPS = (b"auxiliary:depth", b"auxid:2", b"photos/1.0/depthmap", b"photos/dd/1.0", b"disparity")
MANIFEST_MEDIA = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "TIFF": "image/tiff",
    "GIF": "image/gif",
    "HEIF": "image/heif",
    "AVIF": "image/avif",
    "mp4": "video/mp4",
    "mov": "video/quicktime",
}
"""Media types that hold a C2PA manifest, by Pillow's name of an image's format and FFmpeg's of a video's."""
GAIN_MAP, CREDENTIALS = "its gain map (HDR)", "content credentials, which would no longer be true"


@dataclass(frozen=True)
class TiffPage:
    """A further page of a TIFF as stored in the file."""

    directory: Directory
    chunks: tuple[memoryview, ...]
    """Its strips or tiles."""


@dataclass(frozen=True)
class Extras:
    """Content besides the picture; `encode` writes what the format of the result can hold."""

    photoshop: bytes = b""
    """Photoshop resources, including IPTC, without those that would be wrong in the result."""
    comments: tuple[bytes, ...] = ()
    """Comments of a JPEG or GIF."""
    pages: tuple[TiffPage, ...] = ()
    """Pages of a TIFF after the first."""
    lost: tuple[str, ...] = ()
    """Content that no result keeps, in a few words each."""

    @property
    def iptc(self) -> bytes:
        """The records of IPTC-IIM, empty without any."""
        return next((body for kind, _, body in resources(self.photoshop) if kind == IPTC_RESOURCE), b"")

    def losses(self, format: str) -> list[str]:
        """The content that a result in `format` loses, a line each."""
        lines = [f"the result does not keep {what}" for what in self.lost]
        if self.photoshop and format == "WEBP":
            lines.append(f"{format} has no place for {'IPTC' if self.iptc else 'Photoshop resources'}")
        if self.comments and format not in {"JPEG", "PNG"}:
            lines.append(f"{format} has no place for the file's comment")
        if self.pages and format != "TIFF":
            lines.append(f"has {1 + len(self.pages)} pages, the result holds the first: tiff keeps them")
        return lines


def extras_of(data: bytes, format: str, image: Image.Image) -> Extras:
    """The extras of a JPEG, WebP, PNG, GIF, HEIF or AVIF, whose opened image may hold further ones."""
    if format in {"JPEG", "MPO"}:
        return _of_jpeg(data)
    if format in {"HEIF", "AVIF"}:
        return Extras(lost=_of_boxes(data, image))
    if format == "GIF":
        comment: Any = image.info.get("comment", b"")
        return Extras(comments=(comment,) if isinstance(comment, bytes) and comment else ())
    if (format == "PNG" and b"caBX" in data[: 1 << 16]) or (format == "WEBP" and b"C2PA" in riff_chunks(data)):
        return Extras(lost=(CREDENTIALS,))
    return Extras()


def bmp_is_whole(data: bytes) -> bool:
    """Whether a BMP's pixels begin behind its headers and palette: Pillow reads those as pixels, too."""
    if len(data) < 30:
        return False
    begin, header = struct.unpack_from("<LL", data, 10)
    if header < 40:
        return bool(begin >= 14 + header)
    (bits,) = struct.unpack_from("<H", data, 28)
    used = struct.unpack_from("<L", data, 46)[0] if len(data) >= 50 else 0
    palette = 4 * (used or 1 << bits) if bits <= 8 else 0
    return bool(14 + header + palette <= begin < len(data))


def riff_chunks(data: bytes) -> list[bytes]:
    """Names of a WebP's chunks, in their order (RFC 9649, 2.3)."""
    names, at = [], 12
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        names.append(name)
        at += 8 + size + size % 2
    return names


def resources(block: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Kind, bytes and content of each of Photoshop's image resources, up to the first damage."""
    at = 0
    while block[at : at + 4] == _SIGNATURE and at + 12 <= len(block):
        name = 1 + block[at + 6]
        start = at + 6 + name + name % 2 + 4
        size = int.from_bytes(block[start - 4 : start], "big")
        end = start + size
        if end > len(block):
            return
        body = block[start:end]
        yield int.from_bytes(block[at + 4 : at + 6], "big"), block[at:end] + b"\0" * (size % 2), body
        at = end + size % 2


def kept_resources(block: bytes, iptc: bytes = b"") -> bytes:
    """The Photoshop resources that remain valid in a result, with `iptc` stored elsewhere if they hold none."""
    every = list(resources(block))
    kept = b"".join(whole for kind, whole, _ in every if kind not in _NOT_KEPT)
    if iptc and not any(kind == IPTC_RESOURCE for kind, _, _ in every):
        kept += _SIGNATURE + struct.pack(">HHL", IPTC_RESOURCE, 0, len(iptc)) + iptc + b"\0" * (len(iptc) % 2)
    return kept


def with_segments(jpeg: bytes, extras: Extras) -> bytes:
    """A JPEG with the resources and comments before its tables."""
    bodies = [(_COM, comment) for comment in extras.comments]
    step = 65533 - len(_PHOTOSHOP)
    parts = [extras.photoshop[at : at + step] for at in range(0, len(extras.photoshop), step)]
    bodies += [(_APP13, _PHOTOSHOP + part) for part in parts]
    new = b"".join(struct.pack(">BBH", 0xFF, kind, 2 + len(body)) + body for kind, body in bodies if len(body) <= 65533)
    at = next((start for kind, start, _ in _segments(jpeg) if not 0xE0 <= kind <= 0xEF), 2)
    return jpeg[:at] + new + jpeg[at:]


def jpeg_end(data: bytes) -> int:
    """Byte offset at which the first picture of a JPEG ends; 0 without an end marker."""
    return next((start + 2 for kind, start, _ in _segments(data) if kind == _EOI), 0)


def _segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Marker, offset and content of each segment of a JPEG's first picture, its end marker last."""
    at = 2
    while at + 2 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind == 0xFF:
            at += 1
            continue
        if kind == _EOI:
            yield kind, at, b""
            return
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        if size < 2:
            return
        yield kind, at, data[at + 4 : at + 2 + size]
        at += 2 + size
        if kind == _SOS:
            found = _MARKER.search(data, at)
            if found is None:
                return
            at = found.start()


def _of_jpeg(data: bytes) -> Extras:
    photoshop, comments, lost = b"", [], []
    end = 0
    for kind, start, body in _segments(data):
        if kind == _COM and body:
            comments.append(body)
        elif kind == _APP13 and body.startswith(_PHOTOSHOP):
            photoshop += body[len(_PHOTOSHOP) :]
        elif kind == _APP11 and b"jumb" in body[:40]:
            lost.append(CREDENTIALS)
        elif body.startswith(_EXTENDED_XMP):
            lost.append("the second part of its XMP")
        elif kind == _EOI:
            end = start + 2
    behind = data[end:].strip(b"\0\r\n ") if end else b""
    head = data[: end or len(data)]
    if b"\xff\xd8\xff" in behind:
        gain = any(name in head[: 1 << 17] or name in behind for name in _GAIN_MAPS[:3])
        depth = any(name in head[: 1 << 17] or name in behind for name in _DEPTH_MAPS)
        lost += [GAIN_MAP] if gain else ["its depth map"] if depth else ["the further pictures in the file"]
    if b"ftyp" in behind:
        lost.append("the video of a motion photo")
    if behind and not {b"\xff\xd8\xff" in behind, b"ftyp" in behind} & {True}:
        lost.append(f"{len(behind)} bytes after the picture's end")
    return Extras(kept_resources(photoshop), tuple(comments), lost=tuple(dict.fromkeys(lost)))


def depth_of_boxes(data: bytes) -> int:
    """The most bits a channel of a picture in a HEIF or AVIF, by its `pixi` (ISO/IEC 23008-12, 6.5.6) and `av1C`; 8 at
    least."""
    about = next((body for name, body in _boxes(data) if name == b"meta"), b"")
    depths = [8]
    for found in re.finditer(rb"pixi\0\0\0\0([\x01-\x04])", about, re.DOTALL):
        depths += about[found.end() : found.end() + found[1][0]]
    for found in re.finditer(rb"av1C\x81.(.)", about, re.DOTALL):  # AV1 in ISO base media 2.3.3
        depths.append(12 if found[1][0] & 0x20 and found[1][0] & 0x40 else 10 if found[1][0] & 0x40 else 8)
    return max(depth for depth in depths if depth <= 16)


def is_hdr(data: bytes) -> bool:
    """Whether all pictures of a HEIF or AVIF that name their curve have PQ's or HLG's (ITU-T H.273: 16, 18)."""
    about = next((body for name, body in _boxes(data) if name == b"meta"), b"")
    curves = {int.from_bytes(about[found.end() + 2 : found.end() + 4], "big") for found in _NCLX.finditer(about)}
    return bool(curves) and curves <= {16, 18}


def _of_boxes(data: bytes, image: Image.Image) -> tuple[str, ...]:
    """What a HEIF or AVIF holds besides its first picture (ISO/IEC 23008-12)."""
    lost = []
    boxes = dict(_boxes(data))
    about = boxes.get(b"meta", b"")
    pictures = int(getattr(image, "n_frames", 1))
    if pictures > 1:
        lost.append(f"{pictures - 1} further picture{'s' * (pictures > 2)} in the file")
    if any(name in about for name in _GAIN_MAPS[2:]):
        lost.append(GAIN_MAP)
    if image.info.get("depth_images") or any(name in about for name in _DEPTH_MAPS):
        lost.append("its depth map")
    if b"mpvd" in boxes:
        lost.append("the video of a motion photo")
    elif b"moov" in boxes:
        lost.append("its sequence of pictures")
    if b"c2pa" in data[:200] or b"uuid" in boxes and b"c2pa" in boxes[b"uuid"][:64]:
        lost.append(CREDENTIALS)
    return tuple(lost)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of the outermost boxes."""
    at = 0
    while at + 8 <= len(data):
        size, name, head = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        size = size or len(data) - at
        if size < head:
            return
        yield name, data[at + head : at + size] if name != b"mdat" else b""
        at += size


@dataclass(frozen=True)
class JpegStyle:
    """How a JPEG was compressed."""

    tables: tuple[tuple[int, ...], ...]
    """Its quantisation tables of 64 numbers, luminance first."""
    subsampling: int
    """0: 4:4:4, 1: 4:2:2, 2: 4:2:0; -1: one channel, or a scheme that is not written."""
    progressive: bool


_LAYOUT_TAGS = frozenset(
    (*range(254, 260), 262, 266, 273, *range(277, 280), 284, 317, 320, *range(322, 326), 330, 338, 339, 347)
    + (*range(529, 533), 700, 34675, 52545)
)
"""TIFF tags of size, compression, palette, strips and tiles: true of the file that was read, not of the one written;
those of XMP and of the profile, which are carried apart; and that of the C2PA manifest, true of other bytes."""


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1..8, of an image that is not decoded yet."""
    try:
        found = image.getexif().get(0x0112, 1)
    except Exception:  # noqa: BLE001  broken EXIF comes as any error of the TIFF reader; it then turns nothing
        return 1
    return found if found in range(1, 9) else 1


def upright(image: Image.Image) -> bytes:
    """The image turned upright by its EXIF, and its EXIF without orientation and layout tags."""
    try:
        ImageOps.exif_transpose(image, in_place=True)  # a copy would lose the tags of a TIFF
        exif = image.getexif()
        for tag in _LAYOUT_TAGS & set(exif):
            del exif[tag]
        return exif.tobytes() if len(exif) else b""
    except Exception:  # noqa: BLE001  broken EXIF comes as any error of the TIFF reader; the pixels are still good
        return b""


def dpi_of(image: Image.Image) -> tuple[float, float] | None:
    """Dots per inch, if the file has a plausible value."""
    try:
        x, y = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if 1 < x < 1e5 and 1 < y < 1e5 else None


def jpeg_style(image: Image.Image) -> JpegStyle | None:
    """How a JPEG was compressed; None for other formats, and for inks, which are not written."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or image.mode == "CMYK":
        return None
    tables = tuple(tuple(image.quantization[i]) for i in sorted(image.quantization))
    progressive = bool(image.info.get("progressive"))
    return JpegStyle(tables, JpegImagePlugin.get_sampling(image), progressive) if tables else None
