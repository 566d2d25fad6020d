"""Keywords in files: what exiftool and Pillow read of them, what stays, and what is left to a sidecar."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, IptcImagePlugin

from authface.imaging import png, xmp
from authface.imaging.keywords import embedded, sidecar
from tests.packets import keywords_of

WORDS = ["soft side light", "smiling", "café & <b>"]
CAPTION = "smiling, soft side light; größer"
PICTURE = Image.fromarray(np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3))
OLD = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><r:Description r:about="" '
    b'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:me="http://example.org/me/" me:mine="kept &amp; whole">'
    b"<dc:subject><r:Bag><r:li>holiday</r:li><r:li>smiling</r:li></r:Bag></dc:subject>"
    b"</r:Description></r:RDF></x:xmpmeta>" + b" " * 200 + b'<?xpacket end="w"?>'
)


def file_of(format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    PICTURE.save(buffer, format, **options)
    return buffer.getvalue()


def exiftool(data: bytes, tmp_path: Path) -> dict[str, Any]:
    """All that Debian's exiftool reads of a file, with groups; what it warns of, too."""
    if shutil.which("exiftool") is None:
        pytest.skip("no exiftool: apt-get install libimage-exiftool-perl")
    (tmp_path / "image").write_bytes(data)
    command = ["exiftool", "-j", "-G1", "-a", tmp_path / "image"]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)[0]
    return found


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_another_program_reads_them_and_the_pixels_stay(format: str, tmp_path: Path) -> None:
    data = file_of(format)
    made = embedded(data, WORDS, CAPTION)
    assert made is not None
    told = exiftool(made, tmp_path)
    assert told["XMP-dc:Subject"] == WORDS and told["XMP-dc:Description"] == CAPTION
    assert not [name for name in told if "Warning" in name or "Error" in name]
    if format == "JPEG":
        assert told["IPTC:Keywords"] == WORDS and told["IPTC:Caption-Abstract"] == CAPTION
        assert told["IPTC:CodedCharacterSet"] == "UTF8"
        assert told["Photoshop:IPTCDigest"] == told["File:CurrentIPTCDigest"]
    before, after = (np.asarray(Image.open(io.BytesIO(one))) for one in (data, made))
    assert np.array_equal(before, after)
    assert embedded(made, WORDS, CAPTION) == made, "a second time changes nothing"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_what_was_written_before_stays(format: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x013B] = "Anna"
    made = embedded(file_of(format, exif=exif.tobytes(), xmp=OLD, icc_profile=b"profile"), WORDS, CAPTION)
    if format == "PNG":  # Pillow does not write a packet into PNG by that name
        pictured = png.metadata_chunks(xmp=OLD)
        made = embedded(png.encode(np.asarray(PICTURE), pictured), WORDS, CAPTION)
    assert made is not None
    told = exiftool(made, tmp_path)
    assert told["XMP-dc:Subject"] == ["holiday", "smiling", "soft side light", "café & <b>"]
    assert b'me:mine="kept &amp; whole"' in made
    if format != "PNG":
        assert told["IFD0:Artist"] == "Anna" and b"profile" in made


def test_iptc_of_before_is_joined_and_its_digest_made_anew(tmp_path: Path) -> None:
    def dataset(number: int, body: bytes) -> bytes:
        return struct.pack(">BBBH", 0x1C, 2, number, len(body)) + body

    iim = dataset(25, b"holiday") + dataset(80, b"Anna") + dataset(120, b"mine")
    body = b"Photoshop 3.0\0" + b"".join(
        b"8BIM" + struct.pack(">H", number) + b"\0\0" + struct.pack(">I", len(part)) + part + b"\0" * (len(part) % 2)
        for number, part in ((0x0404, iim), (0x0425, b"0" * 16), (0x03ED, b"\0\x48\0\0\0\1\0\1\0\x48\0\0\0\1\0\1"))
    )
    data = file_of("JPEG")
    data = data[:2] + struct.pack(">BBH", 0xFF, 0xED, len(body) + 2) + body + data[2:]
    made = embedded(data, WORDS, CAPTION)
    assert made is not None
    told = exiftool(made, tmp_path)
    assert told["IPTC:Keywords"] == ["holiday", *WORDS]
    assert (told["IPTC:By-line"], told["IPTC:Caption-Abstract"]) == ("Anna", "mine")
    assert told["Photoshop:IPTCDigest"] == told["File:CurrentIPTCDigest"] and told["Photoshop:XResolution"] == 72
    assert (2, 25) in (IptcImagePlugin.getiptcinfo(Image.open(io.BytesIO(made))) or {})


def test_latin_letters_of_before_are_not_called_utf8() -> None:
    iim = struct.pack(">BBBH", 0x1C, 2, 25, 4) + "süß".encode("latin-1") + b"!"
    body = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(iim)) + iim + b"\0" * (len(iim) % 2)
    data = file_of("JPEG")
    made = embedded(data[:2] + struct.pack(">BBH", 0xFF, 0xED, len(body) + 2) + body + data[2:], WORDS, CAPTION)
    assert made is not None
    told = IptcImagePlugin.getiptcinfo(Image.open(io.BytesIO(made))) or {}
    assert (1, 90) not in told and told[2, 25] == ["süß!".encode("latin-1"), b"soft side light", b"smiling"]


def test_files_whose_bytes_must_not_move_and_others_are_left_to_a_sidecar() -> None:
    signed = file_of("JPEG")
    signed = signed[:2] + b"\xff\xeb\0\x0cJP\0\1\0\0c2pa" + signed[2:]
    buffer = io.BytesIO()
    PICTURE.save(buffer, "MPO", save_all=True, append_images=[PICTURE])
    for data in (signed, buffer.getvalue(), file_of("TIFF"), file_of("JPEG")[:15], b"\xff\xd8\xff", b""):
        assert embedded(data, WORDS, CAPTION) is None
    assert embedded(file_of("JPEG"), ["x" * 60 + str(number) for number in range(1200)], "") is None, "no room"
    assert keywords_of(sidecar(WORDS, CAPTION)) == WORDS


@pytest.mark.parametrize(
    ("old", "words"),
    [
        (OLD, ["holiday", "smiling"]),
        (OLD.replace(b"Bag>", b"Seq>"), ["holiday", "smiling"]),
        (OLD.replace(b"<r:li>holiday</r:li><r:li>smiling</r:li>", b"").replace(b"<r:Bag></r:Bag>", b"<r:Bag/>"), []),
        (OLD.decode().replace('begin=""', 'begin="\ufeff"').encode("utf-16-le"), ["holiday", "smiling"]),
        (b"<not XML", []),
        (b'<!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>', []),
        (b"", []),
    ],
    ids=["bag", "seq", "empty bag", "utf-16", "broken", "entity", "none"],
)
def test_a_packet_of_any_kind_takes_words(old: bytes, words: list[str]) -> None:
    made = xmp.with_keywords(old, WORDS, CAPTION)
    assert keywords_of(made) == [*words, *(word for word in WORDS if word not in words)]
    assert xmp.with_keywords(made, WORDS, CAPTION) == made
    if old in (OLD,):
        for piece in (old[: old.index(b"</r:Bag>")], b"</r:Bag></dc:subject></r:Description>", b" " * 200):
            assert piece in made


@given(st.binary(max_size=200))
def test_broken_files_are_no_error(junk: bytes) -> None:
    for head in (
        b"\xff\xd8\xff\xe1",
        b"\xff\xd8\xff\xed\0\x40Photoshop 3.0\0",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\0\0\0\0WEBP",
    ):
        embedded(head + junk, WORDS, CAPTION)
