"""The mark of a photo or video in which a model drew faces: XMP says so, and what drew them.

IPTC's Photo Metadata Standard 2025.1: `DigitalSourceType`, `AISystemUsed`, `AISystemVersionUsed`.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, replace
from pathlib import Path

from authface.imaging.xmp import Property, properties_of, with_properties

COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC's term for a photo of which parts are a trained model's."""
IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
AUTHFACE = "urn:authface:xmp:1.0:"
_DCTERMS = "http://purl.org/dc/terms/"
_TYPE, _SYSTEM, _VERSION = f"{IPTC} DigitalSourceType", f"{IPTC} AISystemUsed", f"{IPTC} AISystemVersionUsed"
INSIDE = f"{AUTHFACE} Restored"
"""The property that holds `Mark.settings`."""
_UNTRUE = frozenset({_TYPE, f"{IPTC} DigitalSourcefileType", f"{_DCTERMS} provenance", INSIDE})
"""What is not true of other pixels: what they come from, also by its older name, the address of their C2PA manifest,
and how they were made before."""
_STILL_TRUE = re.compile(r"(?:.*/)?(?:composite[Ww]ith)?[Tt]rainedAlgorithmicMedia")
"""What says already that a model drew, all or parts of it."""
TAGS = {
    "DIGITAL_SOURCE_TYPE": _TYPE,
    "AI_SYSTEM_USED": _SYSTEM,
    "AI_SYSTEM_VERSION": _VERSION,
    "AUTHFACE_RESTORED": INSIDE,
}
"""The properties of the mark by their names in a container that holds tags and no XMP, Matroska and WebM."""
_XMP_BOX = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
"""The uuid of the box that holds XMP in an MP4 or QuickTime file (XMP specification part 3, 1.2.7)."""
_C2PA_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
"""The uuid of the box that holds a C2PA manifest (C2PA 2.1, A.5.1)."""
_MAX_XMP = 1 << 24


@dataclass(frozen=True)
class Mark:
    """What is said of a result."""

    system: str
    """What drew the faces, such as `authface with authface-tiny`."""
    version: str
    """Of the program, and the digest of the weights."""
    settings: str = ""
    """JSON of how it was made, for whoever gets the file; empty: none."""
    generated: bool = True
    """Whether a packet says that a model drew; else it holds the settings alone."""

    def packet(self, before: bytes = b"") -> bytes:
        """The XMP packet `before` with the mark, and without what it said of the source until now.

        What said before that a model drew, stays: a generated picture remains one, and its system is named first.
        """
        known = properties_of(before)
        drawn = known.get(_TYPE, "") if _STILL_TRUE.fullmatch(known.get(_TYPE, "")) else ""
        system, version = (_joined(known, _SYSTEM, self.system), _joined(known, _VERSION, self.version))
        properties = [Property(AUTHFACE, "authface", "Restored", self.settings)] if self.settings else []
        if self.generated:
            properties += [
                Property(IPTC, "Iptc4xmpExt", "DigitalSourceType", drawn or COMPOSITE),
                Property(IPTC, "Iptc4xmpExt", "AISystemUsed", system),
                Property(IPTC, "Iptc4xmpExt", "AISystemVersionUsed", version),
            ]
        untrue = _UNTRUE - {_TYPE} if drawn else _UNTRUE
        return with_properties(before, properties, untrue) if before or properties else b""

    def tags(self) -> dict[str, str]:
        """The same under the names of `TAGS`."""
        said = properties_of(self.packet())
        return {tag: said[name] for tag, name in TAGS.items() if name in said}


def _joined(known: dict[str, str], name: str, ours: str) -> str:
    before = known.get(name, "")
    return ours if before in ("", ours) else before if before.endswith(f"; {ours}") else f"{before}; {ours}"


def append_xmp(path: Path, packet: bytes) -> None:
    """Add an XMP packet to an MP4 or QuickTime file, as its last box: none of its addresses move. Raises OSError."""
    with path.open("ab") as file:
        file.write(struct.pack(">I4s16s", 24 + len(packet), b"uuid", _XMP_BOX) + packet)


@dataclass(frozen=True)
class Boxes:
    """What the outermost boxes of an MP4 or QuickTime file say of it."""

    xmp: bytes = b""
    """The last XMP packet."""
    credentials: bool = False
    """There is a C2PA manifest."""


def read_boxes(path: Path) -> Boxes:
    """What an MP4 or QuickTime file says of itself; nothing of another file. Raises OSError."""
    found, at = Boxes(), 0
    with path.open("rb") as file:
        while len(head := file.read(24)) >= 8:
            size, kind = struct.unpack(">I4s", head[:8])
            if size == 1 and len(head) >= 16:
                (size,) = struct.unpack(">Q", head[8:16])
            if size < 8:
                break  # 0 means to the end of the file: no box follows
            if kind == b"uuid" and head[8:] == _XMP_BOX and len(head) <= size <= _MAX_XMP:
                found = replace(found, xmp=file.read(size - len(head)))
            elif kind == b"uuid" and head[8:] == _C2PA_BOX:
                found = replace(found, credentials=True)
            at += size
            file.seek(at)
    return found
