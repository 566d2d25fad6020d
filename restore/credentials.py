"""Content Credentials: a signed C2PA manifest in a result that names its source and its edits."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from authface.errors import ImageError, UsageError, one_line
from authface.extras import need
from authface.imaging.metadata import MANIFEST_MEDIA
from authface.restore.mark import COMPOSITE, Mark

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes, PrivateKeyTypes
    from cryptography.x509 import Certificate

TEST = "test"
"""The setting that signs with a temporary certificate, which identifies nobody."""
_MAX_BYTES = 1 << 20
"""Largest PEM file, bytes."""
_BLOCK = re.compile(r"-----BEGIN ([A-Z ]+)-----.+?-----END \1-----\n?", re.DOTALL)
_CLAIM_SIGNING = "1.3.6.1.4.1.62558.2.1"
_EMAIL_PROTECTION = "1.3.6.1.5.5.7.3.4"


@dataclass(frozen=True)
class Asset:
    """A file whose bytes are read from `stream`."""

    stream: BinaryIO
    format: str
    """A name of `MANIFEST_MEDIA`; other formats are not signed."""


@dataclass(frozen=True)
class Credentials:
    """A signer: certificates and key."""

    certificates: str
    """PEM, the signer's first, then its issuers'."""
    key: str
    """PEM, PKCS #8, without a password."""
    algorithm: str
    """As COSE names it: es256, es384, es512, ps256, ed25519."""

    def sign(self, result: Asset, original: Asset, out: BinaryIO, title: str, mark: Mark) -> None:
        """Write `result` to `out` with a manifest: opened from `original`, then edited as `mark` says.

        The original's own manifest stays readable in it. Raises ImageError (`signing`) if the file cannot be signed.
        """
        import c2pa

        program = {"name": "authface", "version": mark.version}
        edited = {
            "action": "c2pa.edited",
            "digitalSourceType": COMPOSITE,
            "softwareAgent": {"name": mark.system, "version": mark.version},
            "description": "Faces were restored by a trained model.",
        }
        opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": ["original"]}}
        try:
            media, before = MANIFEST_MEDIA[result.format], MANIFEST_MEDIA[original.format]
            manifest = {
                "claim_generator_info": [program],
                "title": title,
                "format": media,
                "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [opened, edited]}}],
            }
            ingredient = json.dumps({"title": title, "relationship": "parentOf", "label": "original"})
            info = c2pa.C2paSignerInfo(self.algorithm.encode(), self.certificates.encode(), self.key.encode(), None)
            with c2pa.Signer.from_info(info) as signer, c2pa.Builder(json.dumps(manifest)) as builder:
                builder.add_ingredient(ingredient, before, original.stream)
                builder.sign(signer, media, result.stream, out)
        except KeyError as error:
            raise ImageError("signing", f"{one_line(error)} holds no Content Credentials: not signed") from error
        except (c2pa.C2paError, TypeError) as error:
            raise ImageError("signing", f"no Content Credentials for it: {one_line(error, 160)}") from error


def credentials(text: str) -> Credentials | None:
    """The signer of the setting `restore.sign`: none, `test`, or that of a PEM file with certificates and key.

    Raises UsageError for a file that lacks either or whose key does not match, and without the extra `c2pa`.
    """
    if not text:
        return None
    need("restore.sign", "c2pa", "c2pa", "cryptography")
    return _of_the_moment() if text == TEST else _of_file(Path(text))


def _of_file(path: Path) -> Credentials:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    name = f"restore.sign={one_line(path)}"
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UsageError(f"{name}: {path.stat().st_size} bytes, more than a PEM file has ({_MAX_BYTES})")
        text = path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{name}: not a readable PEM file: {one_line(error)}; or use {TEST}") from error
    blocks = [(found[1], found[0]) for found in _BLOCK.finditer(text)]
    chain = [block for kind, block in blocks if kind == "CERTIFICATE"]
    keys = [block for kind, block in blocks if kind.endswith("PRIVATE KEY")]
    if not chain or len(keys) != 1:
        held = f"{len(chain)} certificates and {len(keys)} private keys"
        raise UsageError(f"{name} holds {held}: it needs the signer's certificate, those above it, and one key")
    try:
        first = x509.load_pem_x509_certificate(chain[0].encode())
        key = serialization.load_pem_private_key(keys[0].encode(), None)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{name}: {one_line(error, 120)}; a key with a password is not read") from error
    if first.public_key() != key.public_key():
        raise UsageError(f"{name}: the key is not that of the first certificate")
    if first.not_valid_after_utc < datetime.now(UTC):
        raise UsageError(f"{name}: the certificate ended {first.not_valid_after_utc:%Y-%m-%d}")
    return Credentials("".join(chain), _pem(key), _algorithm(key, name))


def _algorithm(key: PrivateKeyTypes, name: str) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return "ps256"
    if isinstance(key, ec.EllipticCurvePrivateKey) and (found := _CURVES.get(key.curve.name)):
        return found
    raise UsageError(f"{name}: C2PA signs with keys of P-256, P-384, P-521, Ed25519, or RSA of 2048 bits and more")


_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


def _of_the_moment() -> Credentials:
    """A signer with a temporary root certificate: nobody trusts either."""
    from cryptography.hazmat.primitives.asymmetric import ec

    root, leaf = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    above = _certificate("authface test root", root, "authface test root", root)
    signer = _certificate("authface test certificate: vouches for nobody", leaf, "authface test root", root)
    return Credentials(_pem(signer) + _pem(above), _pem(leaf), "es256")


def _certificate(
    subject: str, key: CertificateIssuerPrivateKeyTypes, issuer: str, by: CertificateIssuerPrivateKeyTypes
) -> Certificate:
    """A certificate of a root, or of a signer by C2PA's profile (C2PA 2.1, 14.5.1)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    def named(name: str) -> x509.Name:
        words = ((x509.NameOID.COMMON_NAME, name), (x509.NameOID.ORGANIZATION_NAME, "for tests alone"))
        return x509.Name([x509.NameAttribute(kind, word) for kind, word in words])

    is_root, now, public = subject == issuer, datetime.now(UTC), key.public_key()
    uses = x509.KeyUsage(True, False, False, False, False, is_root, is_root, False, False)
    made = (
        x509.CertificateBuilder(named(issuer), named(subject), public, x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.BasicConstraints(is_root, None), critical=True)
        .add_extension(uses, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
    )
    if not is_root:
        purposes = [x509.ObjectIdentifier(one) for one in (_EMAIL_PROTECTION, _CLAIM_SIGNING)]
        made = made.add_extension(x509.ExtendedKeyUsage(purposes), critical=True)
    return made.sign(by, hashes.SHA256())


def _pem(held: Certificate | PrivateKeyTypes) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    if isinstance(held, x509.Certificate):
        return held.public_bytes(Encoding.PEM).decode()
    return held.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
