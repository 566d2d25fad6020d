"""XMP of a photo whose pixels change: what it says of other data in the old file goes, the rest stays."""

from __future__ import annotations

import re
from xml.etree import ElementTree

_ALL = "*"
_UNTRUE: dict[str, tuple[str, ...]] = {
    "http://ns.adobe.com/hdr-gain-map/1.0/": (_ALL,),
    "http://ns.apple.com/HDRGainMap/1.0/": (_ALL,),
    "http://ns.google.com/photos/1.0/container/": (_ALL,),
    "http://ns.google.com/photos/1.0/container/item/": (_ALL,),
    "http://ns.google.com/photos/1.0/depthmap/": (_ALL,),
    "http://ns.google.com/photos/1.0/image/": (_ALL,),
    "http://ns.google.com/photos/1.0/audio/": (_ALL,),
    "http://ns.google.com/photos/dd/1.0/device/": (_ALL,),
    "http://ns.google.com/photos/1.0/camera/": ("MicroVideo", "MotionPhoto"),
    "http://ns.adobe.com/xmp/note/": ("HasExtendedXMP",),
    "http://ns.adobe.com/xap/1.0/": ("Thumbnails",),
    "http://ns.adobe.com/tiff/1.0/": ("Orientation",),
}
"""By namespace, how the names of its properties begin that tell where other data lie in the file, or of a turn."""
_NAMESPACES = {
    "x": "adobe:ns:meta/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
}
_DECLARED = re.compile(r"""xmlns:([A-Za-z][\w.-]*)\s*=\s*["']([^"']+)["']""")
_ENTITIES = re.compile(r"<!(DOCTYPE|ENTITY)", re.IGNORECASE)


def truthful(xmp: bytes) -> bytes:
    """The packet without what would be untrue of a result; the same bytes where there is nothing such in it.

    Empty where there is, and it cannot be read.
    """
    text = _text(xmp)
    if not any(uri in text for uri in _UNTRUE):
        return xmp
    start, end = text.find("<x:xmpmeta"), text.rfind("</x:xmpmeta>")
    if start < 0 or end < 0:
        start, end = text.find("<rdf:RDF"), text.rfind("</rdf:RDF>")
    close = text.find(">", end) + 1
    if start < 0 or end < 0 or _ENTITIES.search(text):
        return b""
    try:
        root = ElementTree.fromstring(text[start:close])  # without entities, which were refused above
    except ElementTree.ParseError:
        return b""
    if not _prune(root):
        return xmp
    for prefix, uri in (_NAMESPACES | dict(_DECLARED.findall(text))).items():
        if not re.fullmatch(r"ns\d+|xml", prefix):
            ElementTree.register_namespace(prefix, uri)
    body = ElementTree.tostring(root, encoding="unicode")
    return (text[:start] + body + text[close:]).lstrip("\ufeff").encode()


def _text(xmp: bytes) -> str:
    for mark, encoding in (
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
        (b"<\0", "utf-16-le"),
        (b"\0<", "utf-16-be"),
    ):
        if xmp.startswith(mark):
            return xmp.decode(encoding, "replace").rstrip("\0")
    return xmp.decode("utf-8", "replace").rstrip("\0")


def _prune(element: ElementTree.Element) -> bool:
    """Take the untrue properties out of an element and those within it; whether there were any."""
    names = [name for name in element.attrib if _is_untrue(name)]
    for name in names:
        del element.attrib[name]
    children = [child for child in element if _is_untrue(child.tag)]
    for child in children:
        element.remove(child)
    within = [_prune(child) for child in element]
    return bool(names or children) or any(within)


def _is_untrue(name: str) -> bool:
    uri, _, local = name.removeprefix("{").partition("}")
    return any(start == _ALL or local.startswith(start) for start in _UNTRUE.get(uri, ()))
