"""XMP packets (ISO 16684-1): keywords, a caption and text properties are added, everything else stays byte for byte."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_DC = "http://purl.org/dc/elements/1.1/"
_SUBJECT, _DESCRIPTION = f"{_DC} subject", f"{_DC} description"
_ROOT, _ITEM, _ABOUT, _RESOURCE = (f"{_RDF} {name}" for name in ("RDF", "li", "about", "resource"))
_LISTS = {f"{_RDF} Bag", f"{_RDF} Seq", f"{_RDF} Alt"}
_EMPTY = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
    f'<rdf:RDF xmlns:rdf="{_RDF}">\n</rdf:RDF>\n</x:xmpmeta>\n<?xpacket end="w"?>'
).encode()
_ANY = ("",)
_OF_OTHER_DATA: dict[str, tuple[str, ...]] = {
    "http://ns.adobe.com/hdr-gain-map/1.0/": _ANY,
    "http://ns.apple.com/HDRGainMap/1.0/": _ANY,
    "http://ns.google.com/photos/1.0/container/": _ANY,
    "http://ns.google.com/photos/1.0/container/item/": _ANY,
    "http://ns.google.com/photos/1.0/depthmap/": _ANY,
    "http://ns.google.com/photos/1.0/image/": _ANY,
    "http://ns.google.com/photos/1.0/audio/": _ANY,
    "http://ns.google.com/photos/dd/1.0/device/": _ANY,
    "http://ns.google.com/photos/1.0/camera/": ("MicroVideo", "MotionPhoto"),
    "http://ns.adobe.com/xmp/note/": ("HasExtendedXMP",),
    "http://ns.adobe.com/xap/1.0/": ("Thumbnails",),
    "http://ns.adobe.com/tiff/1.0/": ("Orientation",),
}
"""By namespace, prefixes of properties that refer to other data in the file or to its orientation."""
_PADDING = re.compile(rb"\s+(?=<\?xpacket\s+end)")
_START_TAG = re.compile(rb"""<(?:[^"'>]+|"[^"]*"|'[^']*')*>""")
_ATTRIBUTE = re.compile(rb"""\s+([^\s=/>]+)\s*=\s*("[^"]*"|'[^']*')""")


@dataclass(frozen=True)
class Property:
    """A property that is one text, without control characters."""

    namespace: str
    prefix: str
    name: str
    value: str

    @property
    def qualified(self) -> str:
        """Namespace and name, as `with_properties` takes those to remove."""
        return f"{self.namespace} {self.name}"


@dataclass
class _Element:
    """An element and its position in bytes from the packet's start: `begin` <a> `inside` text `close` </a> `end`."""

    name: str
    path: tuple[str, ...]
    """Names of the elements around it, the outermost first."""
    attributes: dict[str, str]
    prefixes: dict[str, str]
    """Namespaces by prefix."""
    begin: int
    inside: int
    close: int = -1
    """-1 for an empty element, which has no end tag."""
    end: int = -1
    text: list[str] = field(default_factory=list)

    @property
    def words(self) -> str:
        """Its own text."""
        return "".join(self.text).strip()


def with_keywords(packet: bytes, words: Sequence[str], caption: str) -> bytes:
    """The packet with `words` added to its keywords (dc:subject), and `caption` as its dc:description if it has none.

    An empty packet, or one that is not XML, is replaced by a new one; UTF-16 becomes UTF-8.
    """
    packet, elements = _readable(packet)
    known = _keywords(elements)
    new = [word for word in dict.fromkeys(words) if word not in known]
    items = "".join(f"<rdf:li>{escape(word)}</rdf:li>" for word in new)
    inside = f'<rdf:Bag xmlns:rdf="{_RDF}">{items}</rdf:Bag>'
    subject = next((one for one in elements if one.name == _SUBJECT), None)
    captioned = any(one.name == _DESCRIPTION or _DESCRIPTION in one.attributes for one in elements)
    added, edits = "", []
    if new and subject is None:
        added += f"<dc:subject>{inside}</dc:subject>"
    if caption and not captioned:
        text = f'<rdf:li xml:lang="x-default">{escape(caption)}</rdf:li>'
        added += f'<dc:description><rdf:Alt xmlns:rdf="{_RDF}">{text}</rdf:Alt></dc:description>'
    if added:
        edits.append(_described(elements, f'xmlns:dc="{_DC}"', added))
    bag = next((one for one in elements if one.name in _LISTS and one.path[-1:] == (_SUBJECT,)), None)
    if new and bag is not None:
        marked = items.replace("<rdf:li>", f'<rdf:li xmlns:rdf="{_RDF}">')
        edits.append((bag.close, bag.close, marked) if bag.close >= 0 else (bag.begin, bag.end, inside))
    return _edited(packet, edits)


def with_properties(packet: bytes, properties: Sequence[Property], without: Collection[str] = ()) -> bytes:
    """The packet with these properties added or replaced, and without those named in `without`.

    A new packet where `with_keywords` makes one. `without` are namespaces and names, separated by a space.
    """
    packet, elements = _readable(packet)
    gone = {*without, *(one.qualified for one in properties)}
    edits = [(begin, end, "") for begin, end in _spans(packet, elements, gone.__contains__)]
    if properties:
        spaces = dict.fromkeys(f'xmlns:{one.prefix}="{one.namespace}"' for one in properties)
        added = "".join(f"<{one.prefix}:{one.name}>{escape(one.value)}</{one.prefix}:{one.name}>" for one in properties)
        edits.append(_described(elements, " ".join(spaces), added))
    return _edited(packet, edits)


def truthful(packet: bytes) -> bytes:
    """The packet of a file without properties that would be wrong with other pixels; unchanged if it has none.

    Empty if it may have some and cannot be read.
    """
    read = _as_utf8(packet)
    if not any(namespace.encode() in read for namespace in _OF_OTHER_DATA):
        return packet
    elements = _elements(read)
    spans = [] if elements is None else _spans(read, elements, _is_of_other_data)
    if elements is None or not spans:
        return b"" if elements is None else packet
    return _undeclared(_edited(read, [(begin, end, "") for begin, end in spans]))


def _undeclared(packet: bytes) -> bytes:
    """The packet without unused declarations of other data's namespaces, which some readers look for."""
    for namespace in (name for name, begins in _OF_OTHER_DATA.items() if begins == _ANY):
        declared = re.compile(rb"\s+xmlns:([\w.-]+)\s*=\s*([\"'])" + re.escape(namespace.encode()) + rb"\2")
        for prefix in {found[1] for found in declared.finditer(packet)}:
            if not re.search(rb"[\s</]" + re.escape(prefix) + rb":", packet):
                packet = declared.sub(lambda one, gone=prefix: b"" if one[1] == gone else one[0], packet)  # type: ignore[misc]
    return packet


def _is_of_other_data(name: str) -> bool:
    namespace, _, local = name.rpartition(" ")
    return local.startswith(_OF_OTHER_DATA.get(namespace, ())) if namespace in _OF_OTHER_DATA else False


def is_readable(packet: bytes) -> bool:
    """Whether a packet is XML that `with_properties` keeps, or empty."""
    packet = _as_utf8(packet)
    return not packet.strip() or _elements(packet) is not None


def without_padding(packet: bytes) -> bytes:
    """A UTF-8 packet without its padding (XMP specification part 1, 7.3.2)."""
    return _PADDING.sub(b"\n", packet)


def properties_of(packet: bytes) -> dict[str, str]:
    """The text properties of a packet, by namespace and name; none if it cannot be read."""
    found: dict[str, str] = {}
    for one in _elements(_as_utf8(packet)) or []:
        if one.path[-1:] == (_ROOT,):
            found |= {name: value for name, value in one.attributes.items() if not name.startswith((_RDF, "xml"))}
        elif one.path[-2:-1] == (_ROOT,):
            found[one.name] = one.attributes.get(_RESOURCE, one.words)
    return found


def _keywords(elements: Sequence[_Element]) -> list[str]:
    return [one.words for one in elements if one.name == _ITEM and one.path[-2:-1] == (_SUBJECT,)]


def _spans(packet: bytes, elements: Sequence[_Element], goes: Callable[[str], bool]) -> list[tuple[int, int]]:
    """Byte ranges of the properties to remove: elements, attributes, or a whole description of nothing else."""
    spans = []
    for node in (one for one in elements if one.path[-1:] == (_ROOT,)):
        own = [one for one in elements if one.path == (*node.path, node.name) and node.begin < one.begin < node.end]
        gone = [one for one in own if goes(one.name)]
        known = [goes(name) for name in node.attributes.keys() - {_ABOUT, "about"}]
        if (gone or known) and len(gone) == len(own) and all(known) and not node.words:
            spans.append((node.begin, node.end + packet.startswith(b"\n", node.end)))
            continue
        spans += [(one.begin, one.end) for one in gone]
        for found in _ATTRIBUTE.finditer(packet, node.begin, node.inside):
            prefix, _, name = found[1].decode().rpartition(":")
            if goes(f"{node.prefixes.get(prefix)} {name}"):
                spans.append(found.span())
    return spans


def _described(elements: Sequence[_Element], spaces: str, properties: str) -> tuple[int, int, str]:
    """The edit that adds properties at the end of rdf:RDF, about the packet's subject: readers accept only one."""
    root = next(one for one in elements if one.name == _ROOT)
    first = next((one for one in elements if one.path[-1:] == (_ROOT,)), root)
    about = quoteattr(first.attributes.get(_ABOUT, first.attributes.get("about", "")))
    text = f'<rdf:Description xmlns:rdf="{_RDF}" {spaces} rdf:about={about}>{properties}</rdf:Description>\n'
    return root.close, root.close, text


def _edited(packet: bytes, edits: Sequence[tuple[int, int, str]]) -> bytes:
    for begin, end, text in sorted(edits, reverse=True):
        packet = packet[:begin] + text.encode() + packet[end:]
    return packet


def _readable(packet: bytes) -> tuple[bytes, list[_Element]]:
    """The packet in UTF-8 and its elements; a new one if it cannot be read or extended."""
    packet = _as_utf8(packet)
    elements = _elements(packet) or []
    if not any(one.name == _ROOT and one.close >= 0 for one in elements):
        return _EMPTY, _elements(_EMPTY) or []
    return packet, elements


def _as_utf8(packet: bytes) -> bytes:
    for mark, name in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        at = packet.find(mark)
        if 0 <= at < 64:
            return packet.decode(name, "replace").encode()
    for start, name in ((b"<\0", "utf-16-le"), (b"\0<", "utf-16-be")):
        if packet.startswith(start):
            return packet.decode(name, "replace").rstrip("\0").encode()
    return packet.strip(b"\0")


def _elements(packet: bytes) -> list[_Element] | None:
    """All elements in document order; None if it is not XML. Entities are refused: no packet needs them."""
    found: list[_Element] = []
    path: list[_Element] = []
    scopes: list[dict[str, str]] = [{}]
    declared: dict[str, str] = {}
    parser = expat.ParserCreate("utf-8", namespace_separator=" ")

    def declare(prefix: str | None, namespace: str | None) -> None:
        declared[prefix or ""] = namespace or ""

    def begin(name: str, attributes: dict[str, str]) -> None:
        scopes.append({**scopes[-1], **declared} if declared else scopes[-1])
        declared.clear()
        tag = _START_TAG.match(packet, parser.CurrentByteIndex)
        if tag is None:
            raise ValueError("a start tag of another encoding")
        path.append(_Element(name, tuple(one.name for one in path), attributes, scopes[-1], *tag.span()))
        found.append(path[-1])

    def end(_: str) -> None:
        one, at = path.pop(), parser.CurrentByteIndex
        scopes.pop()
        empty = packet[one.inside - 2 : one.inside] == b"/>"
        one.close, one.end = (-1, one.inside) if empty else (at, packet.index(b">", at) + 1)

    def read(text: str) -> None:
        path[-1].text.append(text)

    def refuse(*_: Any) -> None:
        raise ValueError("an entity")

    parser.StartNamespaceDeclHandler, parser.EntityDeclHandler = declare, refuse
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = begin, end, read
    try:
        parser.Parse(packet, True)
    except (expat.ExpatError, ValueError):
        return None
    return found
