"""XMP packets (ISO 16684-1): keywords and a caption put into one, all else of it byte for byte as it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import escape

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_DC = "http://purl.org/dc/elements/1.1/"
_SUBJECT, _DESCRIPTION = f"{_DC} subject", f"{_DC} description"
_ROOT, _ITEM = f"{_RDF} RDF", f"{_RDF} li"
_LISTS = {f"{_RDF} Bag", f"{_RDF} Seq", f"{_RDF} Alt"}
_EMPTY = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
    f'<rdf:RDF xmlns:rdf="{_RDF}">\n</rdf:RDF>\n</x:xmpmeta>\n<?xpacket end="w"?>'
).encode()


@dataclass
class _Places:
    """Where a packet takes more, in bytes from its begin; -1 where it does not."""

    root: int = -1
    """The end tag of rdf:RDF."""
    bag: slice | None = None
    """In dc:subject, what new items take the place of: nothing before the list's end tag, or an empty list."""
    captioned: bool = False
    """It has a dc:description."""
    subject: bool = False
    words: list[str] = field(default_factory=list)
    """Of its dc:subject."""


def with_keywords(packet: bytes, words: Sequence[str], caption: str) -> bytes:
    """The packet with `words` added to its keywords (dc:subject), and `caption` as its dc:description if it has none.

    A new packet for an empty one, and for one that is no XML, which nobody can read; one in UTF-16 comes out in UTF-8.
    """
    packet = _as_utf8(packet) or _EMPTY
    places = _places(packet)
    if places is None or places.root < 0:
        packet, places = _EMPTY, _Places(root=_EMPTY.index(b"</rdf:RDF>"))
    new = [word for word in dict.fromkeys(words) if word not in places.words]
    items = "".join(f"<rdf:li>{escape(word)}</rdf:li>" for word in new)
    inside = f'<rdf:Bag xmlns:rdf="{_RDF}">{items}</rdf:Bag>'
    added = ""
    if new and not places.subject:
        added += f"<dc:subject>{inside}</dc:subject>"
    if caption and not places.captioned:
        text = f'<rdf:li xml:lang="x-default">{escape(caption)}</rdf:li>'
        added += f'<dc:description><rdf:Alt xmlns:rdf="{_RDF}">{text}</rdf:Alt></dc:description>'
    if added:
        about = f'<rdf:Description xmlns:rdf="{_RDF}" xmlns:dc="{_DC}" rdf:about="">{added}</rdf:Description>\n'
        packet = packet[: places.root] + about.encode() + packet[places.root :]
    if items and places.bag is not None:  # it lies before the end of rdf:RDF, whose place has been used already
        bag = places.bag
        marked = items.replace("<rdf:li>", f'<rdf:li xmlns:rdf="{_RDF}">') if bag.start == bag.stop else inside
        packet = packet[: bag.start] + marked.encode() + packet[bag.stop :]
    return packet


def keywords_of(packet: bytes) -> list[str]:
    """The keywords of a packet; none where it cannot be read."""
    places = _places(_as_utf8(packet))
    return places.words if places else []


def _as_utf8(packet: bytes) -> bytes:
    for mark, name in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        at = packet.find(mark)
        if 0 <= at < 64:
            return packet.decode(name, "replace").encode()
    return packet.strip(b"\0")


def _places(packet: bytes) -> _Places | None:
    """Where to put more; None for what is no XML. Entities are refused: no packet needs them."""
    found, path, text = _Places(), [], [""]
    starts: list[int] = []
    parser = expat.ParserCreate(namespace_separator=" ")

    def begin(name: str, attributes: dict[str, str]) -> None:
        path.append(name)
        starts.append(parser.CurrentByteIndex)
        text[0] = ""
        found.captioned = found.captioned or name == _DESCRIPTION or _DESCRIPTION in attributes
        found.subject = found.subject or name == _SUBJECT

    def end(name: str) -> None:
        begin_at, at = starts.pop(), parser.CurrentByteIndex
        tag = packet[begin_at + 1 : begin_at + 200].split(b">")[0].split()[0]
        closes = packet.startswith(b"</" + tag, at)  # else it is an empty element, which ends where it began
        if path[-3:-2] == [_SUBJECT] and path[-2] in _LISTS and name == _ITEM:
            found.words.append(text[0].strip())
        if path[-2:-1] == [_SUBJECT] and name in _LISTS:
            found.bag = slice(at if closes else begin_at, at)
        if name == _ROOT and closes:
            found.root = at
        path.pop()

    def read(data: str) -> None:
        text[0] += data

    def refuse(*_: Any) -> None:
        raise ValueError("an entity")

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = begin, end, read
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(packet, True)
    except (expat.ExpatError, ValueError):
        return None
    return found
