"""What a photo's own file says of training: PLUS's `DataMining` in its XMP, and C2PA's assertion in its manifests."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

from authface.curate.fetch.optouts.statements import OptOut
from authface.errors import one_line
from authface.extras import installed, lack
from authface.imaging.decode import Decoded
from authface.imaging.metadata import MANIFEST_MEDIA
from authface.imaging.xmp import is_readable, properties_of
from authface.records import Signal, Verdict, now

_DATA_MINING = "http://ns.useplus.org/ldf/xmp/1.0/ DataMining"
_VOCABULARY: dict[str, Verdict] = {
    "DMI-UNSPECIFIED": "allowed",
    "DMI-ALLOWED": "allowed",
    "DMI-PROHIBITED": "refused",
    "DMI-PROHIBITED-AIMLTRAINING": "refused",
    "DMI-PROHIBITED-GENAIMLTRAINING": "refused",
    "DMI-PROHIBITED-EXCEPTSEARCHENGINEINDEXING": "refused",
    "DMI-PROHIBITED-SEECONSTRAINT": "refused",
    "DMI-PROHIBITED-SEEEMBEDDEDRIGHTSEXPR": "refused",
    "DMI-PROHIBITED-SEELINKEDRIGHTSEXPR": "refused",
}
"""Terms of PLUS (ns.useplus.org/ldf/vocab/, IPTC Photo Metadata Standard 2023.1 and later); any other is unclear."""
_ASSERTION = b"training-mining"
"""What the label of the assertion ends with, in the clear in every manifest (C2PA 1.x; CAWG 1.0 and 1.1)."""
_ENTRIES = ("data_mining", "ai_training", "ai_generative_training")
"""Its entries that a set for training falls under, behind ``c2pa.`` or ``cawg.``; `ai_inference` is none of them."""
_USES: dict[str, Verdict] = {"allowed": "allowed", "notAllowed": "refused", "constrained": "refused"}
"""CAWG 1.1: in the absence of additional information, `constrained` is to be treated as `notAllowed`."""
_OFFLINE = {"verify": {"verify_trust": False, "remote_manifest_fetch": False, "ocsp_fetch": False}}
"""Of the reader: nothing is asked of the network on a file's word."""


def embedded_signals(data: bytes, decoded: Decoded) -> tuple[Signal, ...]:
    """What a file says, read now."""
    time = now()
    found = [*_data_mining(decoded.xmp), *_manifests(data, decoded.format)]
    return tuple(dict.fromkeys(one.at("the file", time) for one in found))


def _data_mining(packet: bytes) -> Iterator[OptOut]:
    if not packet:
        return
    if (value := properties_of(packet).get(_DATA_MINING)) is not None:
        term = value.strip().rstrip("/").rpartition("/")[2].upper()
        yield OptOut("plus:DataMining", value, _VOCABULARY.get(term, "unclear"))
    elif b"DataMining" in packet.replace(b"\0", b"") and not is_readable(packet):
        yield OptOut("plus:DataMining", "it stands in XMP that cannot be read", "unclear")


def _manifests(data: bytes, format: str) -> Iterator[OptOut]:
    """What the training-mining assertions of all manifests say, the newest and those it was made from.

    Who signed is not asked: a prohibition needs no trust to be heeded, and a permission outweighs nothing.
    """
    if _ASSERTION not in data:
        return
    if not installed("c2pa"):
        line = lack("its C2PA assertion on training", "c2pa", "c2pa")
        yield OptOut("c2pa", f"{line}, then --retry failed", "unread")
        return
    import c2pa

    try:
        with (
            c2pa.Context(c2pa.Settings.from_dict(_OFFLINE)) as context,
            c2pa.Reader(MANIFEST_MEDIA.get(format, ""), io.BytesIO(data), context=context) as reader,
        ):
            store = json.loads(reader.json())
    except c2pa.C2paError.ManifestNotFound:
        return
    except (c2pa.C2paError, ValueError) as error:
        yield OptOut("c2pa", f"a manifest that cannot be read: {one_line(error, 120)}", "unclear")
        return
    yield from statements_of(store)


def statements_of(store: Any) -> Iterator[OptOut]:
    """What the assertions in a manifest store say, as C2PA's reader gives it in JSON."""
    manifests = store.get("manifests") if isinstance(store, Mapping) else None
    for manifest in manifests.values() if isinstance(manifests, Mapping) else ():
        assertions = manifest.get("assertions") if isinstance(manifest, Mapping) else None
        for one in assertions if isinstance(assertions, list) else ():
            label = str(one.get("label", "")) if isinstance(one, Mapping) else ""
            if label.startswith(("c2pa.training-mining", "cawg.training-mining")):
                yield from _entries(label, one.get("data"))


def _entries(label: str, data: Any) -> Iterator[OptOut]:
    entries = data.get("entries", data) if isinstance(data, Mapping) else None
    if not isinstance(entries, Mapping):
        yield OptOut("c2pa", f"{label} without entries", "unclear")
        return
    for name, entry in entries.items():
        if str(name).rpartition(".")[2] in _ENTRIES:
            use = entry.get("use") if isinstance(entry, Mapping) else entry
            yield OptOut("c2pa", f"{name}: {use}", _USES.get(str(use), "unclear"))
