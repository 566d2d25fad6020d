"""XMP packets as another reader sees them."""

from xml.etree import ElementTree

_RDF, _DC = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}", "{http://purl.org/dc/elements/1.1/}"


def keywords_of(packet: bytes) -> list[str]:
    """The words of a packet's `dc:subject`."""
    items = ElementTree.fromstring(packet).iterfind(f".//{_DC}subject/*/{_RDF}li")
    return [item.text or "" for item in items]
