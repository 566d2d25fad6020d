"""Results say that a model drew in them: what other programs read, what never survives, what stays unmarked."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

from authface import Restorer, __version__
from authface.imaging.xmp import Property, properties_of, with_properties
from authface.restore.mark import COMPOSITE, INSIDE, IPTC, Mark
from authface.restore.picture import _packet

Command = Callable[..., tuple[int, str, str]]
CAPTURE = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
FORMATS = {"JPEG": "jpg", "PNG": "png", "TIFF": "tif", "WEBP": "webp"}
BEFORE = with_properties(
    b"",
    [
        Property(IPTC, "Iptc4xmpExt", "DigitalSourceType", CAPTURE),
        Property("http://purl.org/dc/terms/", "dcterms", "provenance", "https://example.org/manifest"),
        Property("urn:mine:", "mine", "kept", "as it was"),
    ],
)


@pytest.fixture(scope="module")
def portrait() -> Image.Image:
    return Image.fromarray(data.astronaut()[:300, 60:400].copy())


def written(portrait: Image.Image, path: Path, xmp: bytes = b"") -> Path:
    from authface.imaging import png

    if path.suffix == ".png":
        path.write_bytes(png.encode(np.asarray(portrait), png.metadata_chunks(xmp=xmp)))
    elif path.suffix == ".tif":
        from authface.imaging import tiff

        path.write_bytes(tiff.encode(np.asarray(portrait), b"", b"", xmp, None))
    else:
        portrait.save(path, **({"xmp": xmp} if xmp else {}))
    return path


def exiftool(path: Path) -> dict[str, Any]:
    """All that Debian's exiftool reads of a file, by group and name."""
    if shutil.which("exiftool") is None:
        pytest.skip("no exiftool: apt-get install libimage-exiftool-perl")
    done = subprocess.run(["exiftool", "-j", "-G1", "-a", path], capture_output=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)[0]
    return found


def packet_of(path: Path) -> dict[str, str]:
    with Image.open(path) as image:
        packet = image.info.get("xmp", b"")
    return properties_of(packet.encode() if isinstance(packet, str) else packet)


@pytest.fixture
def why(typed: Command) -> Command:
    """``authface why ...`` as typed."""
    return partial(typed, "why")


@pytest.mark.parametrize("format", FORMATS)
def test_a_changed_face_is_said_in_every_format(
    format: str, portrait: Image.Image, authface: Command, tmp_path: Path
) -> None:
    photo = written(portrait, tmp_path / f"a.{FORMATS[format]}", BEFORE)
    assert exiftool(photo)["XMP-iptcExt:DigitalSourceType"] in (CAPTURE, "Digital Capture Sampled From Real Life")
    out = tmp_path / f"out.{FORMATS[format]}"
    assert authface(photo, "-o", out)[0] == 0
    told = exiftool(out)
    assert packet_of(out)[f"{IPTC} DigitalSourceType"] == COMPOSITE
    assert told["XMP-iptcExt:DigitalSourceType"] != exiftool(photo)["XMP-iptcExt:DigitalSourceType"]
    system = {name: value for name, value in packet_of(out).items() if name.startswith(f"{IPTC} AISystem")}
    assert system[f"{IPTC} AISystemUsed"] == "authface with authface-tiny"
    assert system[f"{IPTC} AISystemVersionUsed"].startswith(f"{__version__}, weights.json ")
    assert packet_of(out)["urn:mine: kept"] == "as it was"
    assert not [name for name in told if "Warning" in name or "rovenance" in name]
    assert b"digitalCapture" not in out.read_bytes() and str(tmp_path).encode() not in out.read_bytes()


def test_what_was_not_changed_is_not_marked(portrait: Image.Image, authface: Command, tmp_path: Path) -> None:
    wall = written(Image.fromarray(np.full((200, 200, 3), 90, np.uint8)), tmp_path / "wall.jpg", BEFORE)
    authface(wall, "-o", tmp_path / "wall.png")  # another format: new bytes, no face
    assert packet_of(tmp_path / "wall.png")[f"{IPTC} DigitalSourceType"] == CAPTURE
    photo = written(portrait, tmp_path / "a.jpg", BEFORE)
    assert authface(photo, "--model", "identity", "-o", tmp_path / "same.jpg")[0] == 0
    assert (tmp_path / "same.jpg").read_bytes() == photo.read_bytes()
    authface(wall, "-o", tmp_path / "large.png", "--upscale", "2")
    assert packet_of(tmp_path / "large.png")[f"{IPTC} DigitalSourceType"] == CAPTURE


def test_without_the_mark_nothing_false_is_left(portrait: Image.Image, authface: Command, tmp_path: Path) -> None:
    photo = written(portrait, tmp_path / "a.jpg", BEFORE)
    assert authface(photo, "-o", tmp_path / "out.jpg", "-O", "restore.mark=false")[0] == 0
    assert packet_of(tmp_path / "out.jpg") == {"urn:mine: kept": "as it was"}


def test_a_packet_without_room_leaves_the_mark(portrait: Image.Image, authface: Command, tmp_path: Path) -> None:
    large = with_properties(BEFORE, [Property("urn:mine:", "mine", "large", "x" * 64_600)])
    assert 65_300 < len(large) < 65_504
    photo = written(portrait, tmp_path / "a.jpg", large)
    assert authface(photo, "-o", tmp_path / "out.jpg")[0] == 0
    assert packet_of(tmp_path / "out.jpg")[f"{IPTC} DigitalSourceType"] == COMPOSITE


def test_settings_go_inside_when_asked_and_why_reads_them(
    portrait: Image.Image, authface: Command, why: Command, tmp_path: Path
) -> None:
    photo, out = written(portrait, tmp_path / "a.jpg"), tmp_path / "out.jpg"
    assert authface(photo, "-o", out, "-O", "restore.embed_settings=true", "--fidelity", "0.75", "--seed", "3")[0] == 0
    shutil.move(out, tmp_path / "elsewhere.jpg")
    (tmp_path / "restore.jsonl").unlink()
    code, said, _ = why(tmp_path / "elsewhere.jpg", "--json")
    told = json.loads(said)
    assert code == 0 and told["digital_source_type"] == COMPOSITE and told["log"] is None
    inside = told["settings"]
    assert (inside["model"], inside["fidelity"], inside["seed"]) == ("authface-tiny", 0.75, 3)
    (face,) = inside["faces"]
    assert face["status"] == "restored" and len(face["box"]) == 4 and 0.9 < face["identity"] <= 1
    assert "fidelity 0.75" in why(tmp_path / "elsewhere.jpg")[1]


def test_why_reads_the_log_of_a_result_that_says_nothing(
    portrait: Image.Image, authface: Command, why: Command, tmp_path: Path
) -> None:
    photo = written(portrait, tmp_path / "in" / "a.png") if (tmp_path / "in").mkdir() is None else tmp_path
    assert authface(photo, "-o", tmp_path / "out", "-O", "restore.mark=false")[0] == 0
    (tmp_path / "out" / "a.png").rename(tmp_path / "out" / "renamed.png")
    code, said, _ = why(tmp_path / "out" / "renamed.png")
    assert code == 0 and "the same bytes" in said and str(photo) in said and "identity" in said
    code, _, err = why(photo)
    assert code == 2 and "does not say where it is from" in err and err.count("\n") == 1
    assert why(tmp_path / "nothing.png")[0] == 2


@pytest.mark.parametrize(
    "inside", ["no json", "[1]", '{"faces": 3, "model": {"a": "\\u001b[31m"}}', '{"faces": [1, {}]}']
)
def test_why_stands_any_settings(inside: str, portrait: Image.Image, why: Command, tmp_path: Path) -> None:
    photo = written(portrait, tmp_path / "a.png", Mark("x", "1", inside).packet())
    code, said, err = why(photo)
    assert code == 0 and "\x1b" not in said + err


def test_python_gives_marked_and_signed_files(portrait: Image.Image, tmp_path: Path) -> None:
    c2pa = pytest.importorskip("c2pa")
    photo = written(portrait, tmp_path / "a.jpg", BEFORE)
    with Restorer(sign="test", embed_settings=True) as restorer:
        restored = restorer.restore(photo)
        for ending in (".jpg", ".png", ".webp", ".tif"):
            restored.save(tmp_path / f"out{ending}")
            assert packet_of(tmp_path / f"out{ending}")[f"{IPTC} DigitalSourceType"] == COMPOSITE
            with c2pa.Reader(str(tmp_path / f"out{ending}")) as reader:
                told = json.loads(reader.json())
            assert told["validation_state"] == "Valid"
            assert told["manifests"][told["active_manifest"]]["ingredients"][0]["title"] == "a.jpg"
        of_pixels = restorer.restore(np.asarray(portrait)).encoded(".png")
    assert json.loads(properties_of(Image.open(io.BytesIO(of_pixels)).info["xmp"])[INSIDE])["model"] == "authface-tiny"


def test_a_certificate_that_cannot_sign_is_said_before_the_work(
    portrait: Image.Image, authface: Command, tmp_path: Path
) -> None:
    photo = written(portrait, tmp_path / "a.jpg")
    code, _, err = authface(photo, "-o", tmp_path / "out", "-O", f"restore.sign={tmp_path / 'none.pem'}")
    assert code == 2 and "none.pem" in err and not (tmp_path / "out").exists()


def with_xmp(portrait: Image.Image, packet: bytes) -> bytes:
    """A JPEG with a packet of any bytes."""
    buffer = io.BytesIO()
    portrait.save(buffer, "JPEG", quality=92)
    body = b"http://ns.adobe.com/xap/1.0/\0" + packet
    segment = b"\xff\xe1" + (2 + len(body)).to_bytes(2, "big") + body
    return buffer.getvalue()[:2] + segment + buffer.getvalue()[2:]


@pytest.mark.parametrize(
    ("size", "padded", "kept", "said"),
    [(65_300, True, True, ""), (65_300, False, False, "no room for its XMP"), (0, False, False, "which is no XML")],
)
def test_xmp_that_is_not_kept_is_said_and_padding_goes_first(
    size: int, padded: bool, kept: bool, said: str, portrait: Image.Image, authface: Command, tmp_path: Path
) -> None:
    filled = [Property("urn:mine:", "mine", "large", "x" * (size - len(BEFORE) - 200))] if not padded else []
    packet = with_properties(BEFORE, filled) if size else b"<rdf:RDF broken"
    if padded:
        packet = packet.replace(b"<?xpacket end", b" " * (size - len(packet)) + b"<?xpacket end")
    photo, out = tmp_path / "a.jpg", tmp_path / "out.jpg"
    photo.write_bytes(with_xmp(portrait, packet))
    code, _, err = authface(photo, "-o", out)
    assert code == 0 and packet_of(out)[f"{IPTC} DigitalSourceType"] == COMPOSITE
    assert ("urn:mine: kept" in packet_of(out)) == kept
    assert said in err and ("XMP" in err) == bool(said)


def test_settings_without_room_leave_the_mark() -> None:
    packet, said = _packet(Mark("x", "1", "f" * 70_000), BEFORE, "JPEG")
    told = properties_of(packet)
    assert told[f"{IPTC} DigitalSourceType"] == COMPOSITE and told["urn:mine: kept"] == "as it was"
    assert INSIDE not in told and len(said) == 1 and "no room for the settings" in said[0]
    assert len(_packet(Mark("x", "1", "f" * 70_000), BEFORE, "PNG")[0]) > 70_000


@pytest.mark.parametrize("said", [True, False])
def test_what_was_generated_before_stays_said(said: bool) -> None:
    generated = COMPOSITE.replace("compositeWithT", "t")
    known = [("DigitalSourceType", generated), ("AISystemUsed", "another"), ("AISystemVersionUsed", "3")]
    before = with_properties(b"", [Property(IPTC, "Iptc4xmpExt", name, value) for name, value in known])
    told = properties_of(Mark("ours", "1", generated=said).packet(before))
    assert told[f"{IPTC} DigitalSourceType"] == generated
    assert told[f"{IPTC} AISystemUsed"] == ("another; ours" if said else "another")
    again = Mark("ours", "1").packet(Mark("ours", "1").packet())
    assert properties_of(again)[f"{IPTC} AISystemUsed"] == "ours"
    assert properties_of(Mark("ours", "1", generated=False).packet(again))[f"{IPTC} DigitalSourceType"] == COMPOSITE


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_credentials_of_a_photo_go_with_a_line_or_into_the_new_ones(
    ending: str, portrait: Image.Image, authface: Command, tmp_path: Path
) -> None:
    c2pa = pytest.importorskip("c2pa")
    photo, signed = written(portrait, tmp_path / f"a.{ending}"), tmp_path / f"signed.{ending}"
    assert authface(photo, "-o", signed, "-O", "restore.sign=test")[0] == 0
    code, _, err = authface(signed, "-o", tmp_path / f"plain.{ending}")
    assert code == 0 and "does not keep content credentials" in err
    with pytest.raises(c2pa.C2paError.ManifestNotFound):
        c2pa.Reader(str(tmp_path / f"plain.{ending}"))
    code, _, err = authface(signed, "-o", tmp_path / f"again.{ending}", "-O", "restore.sign=test")
    assert code == 0 and "credentials" not in err
    with c2pa.Reader(str(tmp_path / f"again.{ending}")) as reader:
        assert len(json.loads(reader.json())["manifests"]) == 2
