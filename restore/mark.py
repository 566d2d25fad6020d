"""The mark of a photo or video in which a model drew faces: XMP says so, and what drew them.

IPTC's Photo Metadata Standard 2025.1: `DigitalSourceType`, `AISystemUsed`, `AISystemVersionUsed`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from authface.imaging.xmp import Property, properties_of, with_properties

COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC's term for a photo of which parts are a trained model's."""
IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
AUTHFACE = "urn:authface:xmp:1.0:"
_DCTERMS = "http://purl.org/dc/terms/"
_UNTRUE = frozenset(
    {f"{IPTC} DigitalSourceType", f"{IPTC} DigitalSourcefileType", f"{_DCTERMS} provenance", f"{AUTHFACE} Restored"}
)
"""What is not true of other pixels: what they come from, also by its older name, the address of their C2PA manifest,
and how they were made before."""
_XMP_BOX = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
"""The uuid of the box that holds XMP in an MP4 or QuickTime file (XMP specification part 3, 1.2.7)."""
_MOST_XMP = 1 << 24


@dataclass(frozen=True)
class Mark:
    """What is said of a result."""

    system: str
    """What drew the faces, such as `authface with authface-tiny`."""
    version: str
    """Of the program, and the digest of the weights."""
    settings: str = ""
    """JSON of how it was made, for whoever gets the file; empty: none."""
    said: bool = True
    """Whether a packet says that a model drew; else it holds the settings alone."""

    def packet(self, before: bytes = b"") -> bytes:
        """The XMP packet `before` with the mark, and without what it said of the source until now."""
        properties = [Property(AUTHFACE, "authface", "Restored", self.settings)] if self.settings else []
        if self.said:
            properties += [
                Property(IPTC, "Iptc4xmpExt", "DigitalSourceType", COMPOSITE),
                Property(IPTC, "Iptc4xmpExt", "AISystemUsed", self.system),
                Property(IPTC, "Iptc4xmpExt", "AISystemVersionUsed", self.version),
            ]
        return with_properties(before, properties, _UNTRUE) if before or properties else b""

    def tags(self) -> dict[str, str]:
        """The same for a container that holds tags and no XMP, Matroska and WebM."""
        said = {"DIGITAL_SOURCE_TYPE": COMPOSITE, "AI_SYSTEM_USED": self.system, "AI_SYSTEM_VERSION": self.version}
        return (said if self.said else {}) | ({"AUTHFACE_RESTORED": self.settings} if self.settings else {})


def settings_inside(packet: bytes) -> str:
    """The JSON that `Mark.settings` put into an XMP packet; empty where there is none."""
    return properties_of(packet).get(f"{AUTHFACE} Restored", "")


def append_xmp(path: Path, packet: bytes) -> None:
    """Add an XMP packet to an MP4 or QuickTime file, as its last box: none of its addresses move. Raises OSError."""
    with path.open("ab") as file:
        file.write(struct.pack(">I4s16s", 24 + len(packet), b"uuid", _XMP_BOX) + packet)


def read_xmp_box(path: Path) -> bytes:
    """The last XMP packet of an MP4 or QuickTime file; empty where there is none. Raises OSError."""
    found, at = b"", 0
    with path.open("rb") as file:
        while len(head := file.read(24)) >= 8:
            size, kind = struct.unpack(">I4s", head[:8])
            if size == 1 and len(head) >= 16:
                (size,) = struct.unpack(">Q", head[8:16])
            if size < 8:
                break  # 0 means to the end of the file: no box follows
            if kind == b"uuid" and head[8:] == _XMP_BOX and size <= _MOST_XMP:
                found = file.read(size - len(head))
            at += size
            file.seek(at)
    return found
