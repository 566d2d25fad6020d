"""Content Credentials, read back by C2PA's own reader: who signs, what was opened and edited, what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

c2pa = pytest.importorskip("c2pa", reason="the extra authface[c2pa]")
from cryptography.hazmat.primitives import serialization as pem  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: E402

from authface.errors import ImageError, UsageError  # noqa: E402
from authface.imaging.metadata import MANIFEST_MEDIA  # noqa: E402
from authface.restore.mark import COMPOSITE, Asset, Credentials, Mark, credentials  # noqa: E402

MARK = Mark("authface with authface-tiny", "0.1.0, weights 0123456789ab")


def picture(format: str, value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((48, 48, 3), value, np.uint8)).save(buffer, format)
    return buffer.getvalue()


def signed(by: Credentials, format: str, original: bytes, original_format: str) -> bytes:
    out = io.BytesIO()
    result = Asset(io.BytesIO(picture(format, 90)), format)
    by.sign(result, Asset(io.BytesIO(original), original_format), out, "old.jpg", MARK)
    return out.getvalue()


def told(data: bytes, format: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What C2PA's reader says of a file, and its newest manifest."""
    with c2pa.Reader(MANIFEST_MEDIA[format], io.BytesIO(data)) as reader:
        found = json.loads(reader.json())
    return found, found["manifests"][found["active_manifest"]]


@pytest.fixture(scope="module")
def test_signer() -> Credentials:
    found = credentials("test")
    assert found is not None
    return found


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_result_says_what_was_opened_and_edited(format: str, test_signer: Credentials) -> None:
    found, manifest = told(signed(test_signer, format, picture("PNG", 10), "PNG"), format)
    assert found["validation_state"] == "Valid"
    assert [one["code"] for one in found["validation_status"]] == ["signingCredential.untrusted"]
    (actions,) = [one["data"]["actions"] for one in manifest["assertions"] if one["label"].startswith("c2pa.actions")]
    assert [one["action"] for one in actions] == ["c2pa.opened", "c2pa.edited"]
    assert actions[1]["digitalSourceType"] == COMPOSITE and actions[1]["softwareAgent"]["name"] == MARK.system
    assert [one["relationship"] for one in manifest["ingredients"]] == ["parentOf"]
    assert "vouches for nobody" in manifest["signature_info"]["common_name"]


def test_the_originals_manifest_stays_readable(test_signer: Credentials) -> None:
    before = signed(test_signer, "JPEG", picture("PNG", 10), "PNG")
    found, manifest = told(signed(test_signer, "PNG", before, "JPEG"), "PNG")
    assert len(found["manifests"]) == 2 and manifest["ingredients"][0]["active_manifest"] in found["manifests"]


def test_changed_bytes_are_seen(test_signer: Credentials) -> None:
    data = bytearray(signed(test_signer, "PNG", picture("PNG", 10), "PNG"))
    data[data.rindex(b"IDAT") + 6] ^= 1
    found, _ = told(bytes(data), "PNG")
    assert "assertion.dataHash.mismatch" in [one["code"] for one in found["validation_status"]]


def test_what_holds_no_manifest_is_one_line(test_signer: Credentials) -> None:
    with pytest.raises(ImageError, match="BMP.*holds no Content Credentials"):
        signed(test_signer, "PNG", picture("BMP", 10), "BMP")
    with pytest.raises(ImageError, match="no Content Credentials for it"):
        signed(test_signer, "PNG", b"no picture", "PNG")


def private(key: Any) -> str:
    return str(key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption()).decode())


def test_a_pem_file_signs_as_its_owner(tmp_path: Path, test_signer: Credentials) -> None:
    file = tmp_path / "signer.pem"
    file.write_text("my certificate\n" + test_signer.certificates + test_signer.key)
    found = credentials(str(file))
    assert found == test_signer
    told(signed(found, "PNG", picture("PNG", 10), "PNG"), "PNG")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("nothing", "0 certificates and 0 private keys"),
        ("{certificates}", "2 certificates and 0 private keys"),
        ("{certificates}{key}{key}", "2 private keys"),
        ("{certificates}{other}", "not that of the first certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n{key}", "signer.pem"),
        ("\u00e9", "not a readable PEM file"),
    ],
)
def test_a_pem_file_that_cannot_sign_is_one_line(
    text: str, line: str, tmp_path: Path, test_signer: Credentials
) -> None:
    other = private(ec.generate_private_key(ec.SECP256R1()))
    file = tmp_path / "signer.pem"
    file.write_text(text.format(certificates=test_signer.certificates, key=test_signer.key, other=other), "utf-8")
    with pytest.raises(UsageError, match=line) as caught:
        credentials(str(file))
    assert "\n" not in str(caught.value) and "PRIVATE KEY-----" not in str(caught.value)


def test_no_file_is_one_line_and_nothing_signs_unasked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a readable PEM file"):
        credentials(str(tmp_path / "none.pem"))
    assert credentials("") is None


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (ec.generate_private_key(ec.SECP384R1()), "es384"),
        (ed25519.Ed25519PrivateKey.generate(), "ed25519"),
        (rsa.generate_private_key(65537, 2048), "ps256"),
    ],
    ids=["P-384", "Ed25519", "RSA"],
)
def test_keys_of_other_kinds_sign(key: Any, name: str, tmp_path: Path) -> None:
    from authface.restore import mark as module

    root = ec.generate_private_key(ec.SECP256R1())
    chain = [module._certificate("me", key, "root", root), module._certificate("root", root, "root", root)]
    file = tmp_path / "signer.pem"
    file.write_text("".join(one.public_bytes(pem.Encoding.PEM).decode() for one in chain) + private(key))
    found = credentials(str(file))
    assert found is not None and found.algorithm == name
    state, _ = told(signed(found, "PNG", picture("PNG", 10), "PNG"), "PNG")
    assert state["validation_state"] == "Valid"


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP256K1()), rsa.generate_private_key(65537, 1024)])
def test_keys_that_c2pa_refuses_are_refused_first(key: Any, tmp_path: Path) -> None:
    from authface.restore import mark as module

    root = ec.generate_private_key(ec.SECP256R1())
    file = tmp_path / "signer.pem"
    one = module._certificate("me", key, "root", root)
    file.write_text(one.public_bytes(pem.Encoding.PEM).decode() + private(key))
    with pytest.raises(UsageError, match="C2PA signs with"):
        credentials(str(file))
