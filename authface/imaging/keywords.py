"""Keywords and a caption written into an image file: XMP, and in a JPEG IPTC's as well. No pixel is touched.

JPEG, PNG and WebP take them inside; of other formats `embedded` gives None, and `sidecar` is what lies beside them.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator, Sequence

from authface.imaging import png
from authface.imaging.xmp import with_keywords

_APP1, _APP2, _APP11, _APP13, _SOS, _EOI = 0xE1, 0xE2, 0xEB, 0xED, 0xDA, 0xD9
_NAME = b"http://ns.adobe.com/xap/1.0/\0"
_PHOTOSHOP = b"Photoshop 3.0\0"
_SEGMENT = 65533
"""Longest content of a JPEG's segment, bytes: its length has 16 bits and counts itself."""
_IIM, _DIGEST = 0x0404, 0x0425
"""Photoshop's resources of IPTC-IIM, and of its MD5, by which readers see whether XMP and IIM were written together."""
_UTF8 = b"\x1b%G"
_CHARACTERS, _KEYWORD, _CAPTION = (1, 90), (2, 25), (2, 120)
_KEYWORD_BYTES, _CAPTION_BYTES = 64, 2000
"""As IPTC-IIM 4.2 limits them."""
_PNG_XMP = png.XMP + b"\0"
_MAX_XMP = 1 << 24
"""Bytes that a packed packet may have."""
_XMP_FLAG, _ALPHA_FLAG = 0x04, 0x10

Segment = tuple[int, bytes]
"""Marker and content."""


def embedded(data: bytes, words: Sequence[str], caption: str) -> bytes | None:
    """The file with the words added to its keywords and, where it has no caption, `caption`.

    What it holds besides stays, byte for byte. None for a file that is no whole JPEG, PNG or WebP, for one whose bytes
    must not move (C2PA signs them; several pictures in a JPEG point at each other), and for a JPEG without room.
    """
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data, words, caption)
        if data.startswith(png.SIGNATURE):
            return _png(data, words, caption)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data, words, caption)
    except (IndexError, ValueError, struct.error, zlib.error):
        return None
    return None


def sidecar(words: Sequence[str], caption: str) -> bytes:
    """An XMP file to lie beside an image of another format."""
    return with_keywords(b"", words, caption)


def _jpeg(data: bytes, words: Sequence[str], caption: str) -> bytes | None:
    segments, rest = _segments(data)
    if any(_must_not_move(*one) for one in segments):
        return None
    xmp = next((body for kind, body in segments if kind == _APP1 and body.startswith(_NAME)), _NAME)
    packet = _NAME + _without_padding(with_keywords(xmp.removeprefix(_NAME), words, caption))
    joined = b"".join(_resources_of(body) for kind, body in segments if kind == _APP13)
    resources = _PHOTOSHOP + _with_iim(joined, words, caption)
    if max(len(packet), len(resources)) > _SEGMENT:
        return None
    kept = [
        one for one in segments
        if not (one[0] == _APP1 and one[1].startswith(_NAME)) and not (one[0] == _APP13 and _resources_of(one[1]))
    ]  # fmt: skip
    first = [one for one in kept if one[0] == 0xE0 or (one[0] == _APP1 and one[1].startswith(b"Exif\0"))]
    others = [one for one in kept if one not in first]
    made = [*first, (_APP1, packet), (_APP13, resources), *others]
    head = b"".join(struct.pack(">BBH", 0xFF, kind, len(body) + 2) + body for kind, body in made)
    return b"\xff\xd8" + head + rest


def _must_not_move(kind: int, body: bytes) -> bool:
    """Whether a segment says where other pictures of the file lie, or signs its bytes."""
    return (kind == _APP2 and body.startswith(b"MPF\0")) or (kind == _APP11 and b"c2pa" in body)


def _segments(data: bytes) -> tuple[list[Segment], bytes]:
    """The segments before the first frame or table that is no application's or comment, and all bytes from there on."""
    found, at = [], 2
    while data[at] == 0xFF:
        kind = data[at + 1]
        if not (0xE0 <= kind <= 0xEF or kind == 0xFE):
            break
        (length,) = struct.unpack_from(">H", data, at + 2)
        body = data[at + 4 : at + 2 + length]
        if length < 2 or len(body) != length - 2:
            raise ValueError("a segment is cut")
        found.append((kind, body))
        at += 2 + length
    if data[at] != 0xFF or data[at + 1] in {_SOS, _EOI}:
        raise ValueError("no JPEG")
    return found, data[at:]


def _without_padding(packet: bytes) -> bytes:
    """Less the white space that a packet keeps for what is written into it later."""
    at = packet.rfind(b"<?xpacket end")
    return packet if at < 0 else packet[:at].rstrip() + b"\n" + packet[at:]


def _resources_of(body: bytes) -> bytes:
    return body.removeprefix(_PHOTOSHOP) if body.startswith(_PHOTOSHOP) else b""


def _with_iim(resources: bytes, words: Sequence[str], caption: str) -> bytes:
    """Photoshop's resources with the words in IPTC-IIM, and its digest made anew."""
    every = list(_resources(resources))
    sets = list(_datasets(b"".join(body for number, _, body in every if number == _IIM)))
    utf8 = (_CHARACTERS, _UTF8) in sets
    if not utf8 and all(body.isascii() for tag, body in sets if tag[0] == 2):
        sets, utf8 = [(_CHARACTERS, _UTF8), *(one for one in sets if one[0] != _CHARACTERS)], True
    for word in words:
        entry = (_KEYWORD, _cut(word, _KEYWORD_BYTES))
        if entry not in sets and (utf8 or entry[1].isascii()):
            sets.append(entry)
    text = _cut(caption, _CAPTION_BYTES)
    if text and (utf8 or text.isascii()) and not any(tag == _CAPTION for tag, _ in sets):
        sets.append((_CAPTION, text))
    iim = b"".join(struct.pack(">BBBH", 0x1C, *tag, len(body)) + body for tag, body in sorted(sets, key=_record))
    others = [one for one in every if one[0] not in {_IIM, _DIGEST}]
    made = [*others, (_IIM, b"\0\0", iim), (_DIGEST, b"\0\0", hashlib.md5(iim, usedforsecurity=False).digest())]
    return b"".join(
        b"8BIM" + struct.pack(">H", number) + name + struct.pack(">I", len(body)) + body + b"\0" * (len(body) % 2)
        for number, name, body in made
    )


def _record(one: tuple[tuple[int, int], bytes]) -> int:
    return one[0][0]


def _cut(text: str, limit: int) -> bytes:
    """UTF-8 of at most so many bytes, no character cut in two."""
    return text.encode()[:limit].decode("utf-8", "ignore").encode()


def _resources(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Number, name with its padding, and content."""
    at = 0
    while data[at : at + 4] == b"8BIM":
        (number,) = struct.unpack_from(">H", data, at + 4)
        begin = at + 6
        end = begin + 1 + data[begin]
        end += (end - begin) % 2
        (length,) = struct.unpack_from(">I", data, end)
        yield number, data[begin:end], data[end + 4 : end + 4 + length]
        at = end + 4 + length + length % 2
    if data[at:].strip(b"\0"):
        raise ValueError("resources of another kind")


def _datasets(data: bytes) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Record and number, and content, of each dataset of IPTC-IIM."""
    at = 0
    while at < len(data) and data[at] == 0x1C:
        record, number, length = struct.unpack_from(">BBH", data, at + 1)
        if length & 0x8000:
            raise ValueError("a dataset of extended length")
        yield (record, number), data[at + 5 : at + 5 + length]
        at += 5 + length


def _png(data: bytes, words: Sequence[str], caption: str) -> bytes:
    spans: list[tuple[bytes, int, int]] = []
    at = len(png.SIGNATURE)
    while not spans or spans[-1][0] != b"IEND":
        length, name = struct.unpack_from(">I4s", data, at)
        spans.append((name, at, at + 12 + length))
        at += 12 + length
    if at > len(data) or spans[0][0] != b"IHDR" or any(name == b"caBX" for name, _, _ in spans):
        raise ValueError("no whole PNG, or one whose bytes are signed")
    old = [(begin, end) for name, begin, end in spans if name == b"iTXt" and data.startswith(_PNG_XMP, begin + 8)]
    packet = _itxt(data[old[0][0] + 8 : old[0][1] - 4]) if old else b""
    (mine,) = png.metadata_chunks(xmp=with_keywords(packet, words, caption))
    out, at = [data[: spans[0][2]], png.chunk(*mine)], spans[0][2]
    for begin, end in old:
        out.append(data[at:begin])
        at = end
    return b"".join([*out, data[at:]])


def _itxt(body: bytes) -> bytes:
    """The text of an iTXt chunk: keyword, whether it is packed, how, language and translated keyword before it."""
    _, _, rest = body.partition(b"\0")
    text = rest[2:].split(b"\0", 2)[2]
    return zlib.decompressobj().decompress(text, _MAX_XMP) if rest[0] else text


def _webp(data: bytes, words: Sequence[str], caption: str) -> bytes:
    chunks, at = [], 12
    while at + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, at + 4)
        body = data[at + 8 : at + 8 + length]
        if len(body) != length:
            raise ValueError("a chunk is cut")
        chunks.append((data[at : at + 4], body))
        at += 8 + length + length % 2
    old = next((body for name, body in chunks if name == b"XMP "), b"")
    if any(name == b"C2PA" for name, _ in chunks):
        raise ValueError("its bytes are signed")
    if chunks[0][0] != b"VP8X":
        chunks.insert(0, (b"VP8X", _extended(*chunks[0])))
    head = chunks[0][1]
    chunks[0] = (b"VP8X", bytes([head[0] | _XMP_FLAG]) + head[1:])
    made = [*(one for one in chunks if one[0] != b"XMP "), (b"XMP ", with_keywords(old, words, caption))]
    body = b"".join(name + struct.pack("<I", len(part)) + part + b"\0" * (len(part) % 2) for name, part in made)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def _extended(name: bytes, body: bytes) -> bytes:
    """What VP8X says of a simple WebP: its flags, and its sides less 1, 24 bits each (RFC 9649)."""
    if name == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        wide, high, alpha = bits & 0x3FFF, bits >> 14 & 0x3FFF, bits >> 28 & 1
    elif name == b"VP8 ":
        wide, high = (side & 0x3FFF for side in struct.unpack_from("<HH", body, 6))
        wide, high, alpha = wide - 1, high - 1, 0
    else:
        raise ValueError("no picture")
    return struct.pack("<I", _ALPHA_FLAG * alpha) + wide.to_bytes(3, "little") + high.to_bytes(3, "little")
