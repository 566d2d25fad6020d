"""Over HTTP: one large file, and numbers and times in headers, which may hold anything.

The file is resumed after a cut, begun anew where it changed, checked, and there only when it is whole. What came of it
waits beside its place as ``.tmp-NAME``, with what the server called it in ``.tmp-NAME.json``.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import filelock

from authface import __version__
from authface.errors import AuthfaceError, first_line, one_line
from authface.files import TEMPORARY, sha256_of, take_place, write_errors

if TYPE_CHECKING:
    import httpx


def whole_number(text: str | None) -> float | None:
    """A header's number of at most 12 ASCII digits; None where it is missing or something else."""
    digits = (text or "").strip()
    return float(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 12 else None


def retry_after(text: str | None) -> float | None:
    """Seconds that a ``Retry-After`` asks for (RFC 9110, 10.2.3), 0 or more; None where it cannot be read."""
    if (seconds := whole_number(text)) is not None:
        return seconds
    try:
        when = parsedate_to_datetime(text or "")
        return max(0.0, (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


ATTEMPTS = 4
"""In a row that bring nothing, of one address."""
BACKOFF = 1.0
"""Seconds before the second attempt; twice as many before each further one, unless the server says."""
LONGEST_WAIT = 60.0
_AGAIN = {408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524}

Arrived = Callable[[int], None]
"""Called with how many bytes have come, all told."""


@dataclass(frozen=True)
class Offer:
    """A file and where it is to be had."""

    name: str
    bytes: int
    sha256: str
    """Hex; empty where nobody knows it."""
    addresses: Sequence[str]
    """Asked in turn."""
    advice: str
    """What to do where no address has it."""


class _RefusedError(Exception):
    """This address does not have the file: the next one may."""


class _CutError(Exception):
    """Worth another attempt; after so many seconds where the server says."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


def download(offer: Offer, folder: Path, arrived: Arrived, say: Callable[[str], None]) -> Path:
    """The file in `folder`, from the first address that has it; a second process waits for the first.

    Raises AuthfaceError where no address has it or the disk refuses; what came is kept for the next run, unless its
    sha256 is another than `offer.sha256`.
    """
    target = folder / offer.name
    part = _Part(folder / f"{TEMPORARY}{offer.name}")
    with write_errors(target):
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(f"{part.path}.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            say(f"{offer.name}: another process downloads it; waiting")
            lock.acquire()
        try:
            if not target.is_file():
                _fill(offer, part, arrived)
                take_place(part.path, target)
                part.forget()
        finally:
            lock.release()
    return target


def _fill(offer: Offer, part: _Part, arrived: Arrived) -> None:
    """Bring the whole file into `part`."""
    import httpx  # a twentieth of what is imported to restore a photo, which downloads nothing

    reasons = []
    headers = {"User-Agent": f"authface/{__version__}", "Accept-Encoding": "identity"}  # ranges that mean bytes
    with httpx.Client(headers=headers, timeout=30, follow_redirects=True) as client:
        for address in offer.addresses:
            try:
                _from(client, address, offer, part, arrived)
            except _RefusedError as error:
                reasons.append(f"{one_line(urlsplit(address).netloc, 60)}: {first_line(error, 120)}")
                continue
            if not offer.sha256 or sha256_of(part.path) == offer.sha256:
                return
            part.forget()
            reasons.append(f"{one_line(urlsplit(address).netloc, 60)}: what came has another sha256")
    raise AuthfaceError(f"cannot get {offer.name} ({'; '.join(reasons)}): {offer.advice}")


def _from(client: httpx.Client, address: str, offer: Offer, part: _Part, arrived: Arrived) -> None:
    """Bring the whole file from one address. Raises _RefusedError."""
    import httpx

    barren = 0
    while True:
        before = part.size
        try:
            return _attempt(client, address, offer, part, arrived)
        except (httpx.TransportError, httpx.DecodingError) as error:
            cut = _CutError(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
        except _CutError as error:
            cut = error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _RefusedError(f"{type(error).__name__}: {error}") from error
        barren = 0 if part.size > before else barren + 1
        if barren >= ATTEMPTS:
            raise _RefusedError(f"{part.size:,} of {offer.bytes:,} bytes came, then {cut}")
        pause = BACKOFF * 2 ** max(barren - 1, 0) if cut.seconds is None else cut.seconds
        time.sleep(min(pause, LONGEST_WAIT))


def _attempt(client: httpx.Client, address: str, offer: Offer, part: _Part, arrived: Arrived) -> None:
    with client.stream("GET", address, headers=part.range_headers(address)) as response:
        status = response.status_code
        if status == 416:  # the file on the server is another one now
            part.forget()
            raise _CutError("the server no longer has the rest of the file")
        if status in _AGAIN:
            raise _CutError(f"HTTP {status}", retry_after(response.headers.get("retry-after")))
        if status not in {200, 206}:
            raise _RefusedError(f"HTTP {status}")
        part.begin(response, address)
        announced = response.headers.get("content-length", "")
        if announced.isdigit() and len(announced) < 19 and part.size + int(announced) != offer.bytes:
            size = part.size + int(announced)
            part.forget()
            raise _RefusedError(f"its file has {size:,} bytes, {offer.name} has {offer.bytes:,}")
        with part.path.open("ab") as file:
            for piece in response.iter_bytes():  # a size would hold back what came before a break
                file.write(piece)
                arrived(file.tell())
                if file.tell() > offer.bytes:
                    break
    if part.size > offer.bytes:
        part.forget()
        raise _RefusedError(f"its file is longer than the {offer.bytes:,} bytes of {offer.name}")
    if part.size < offer.bytes:
        raise _CutError("the connection ended early")


class _Part:
    """What came of a file, and what ties the rest to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._facts = path.with_name(f"{path.name}.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
        self._facts.unlink(missing_ok=True)

    def range_headers(self, address: str) -> dict[str, str]:
        """Ask for the rest, where the address gave a validator that ties it to what came (RFC 9110, 13.1.5)."""
        try:
            facts = json.loads(self._facts.read_text("utf-8"))
            known, validator = str(facts["address"]), str(facts["validator"])
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        if not self.size or not validator or known != hashlib.sha256(address.encode()).hexdigest():
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": validator}

    def begin(self, response: httpx.Response, address: str) -> None:
        """Make ready for what comes: the rest, or all of it anew. Raises _CutError for a part nobody asked for."""
        headers = response.headers
        if response.status_code == 206:
            if not headers.get("content-range", "").startswith(f"bytes {self.size}-"):
                self.forget()
                raise _CutError("a part came that was not asked for")
            return
        etag = headers.get("etag", "")
        validator = etag if etag and not etag.startswith("W/") else headers.get("last-modified", "")
        self.path.write_bytes(b"")
        facts = {
            "address": hashlib.sha256(address.encode()).hexdigest(),
            "validator": validator,
        }  # it may hold a secret
        self._facts.write_text(json.dumps(facts), "utf-8")
