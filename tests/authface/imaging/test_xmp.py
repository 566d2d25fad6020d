"""Single texts in XMP packets: set anew in whatever form they stood, all else byte for byte as it was."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.imaging.xmp import Property, properties_of, with_keywords, with_properties
from tests.packets import keywords_of

EXT = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
TYPE = f"{EXT} DigitalSourceType"
SET = Property(EXT, "Iptc4xmpExt", "DigitalSourceType", "http://example.org/composite")
CAPTURE = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"


def packet(attributes: str = "", inside: str = "", about: str = "") -> bytes:
    """A packet as other programs write them, with prefixes of its own."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        f'<r:RDF xmlns:r="{RDF}" xmlns:e="{EXT}"><r:Description r:about="{about}" '
        f"xmlns:me='urn:me:' me:mine='a > b &amp; \"c\"' {attributes}>{inside}</r:Description></r:RDF></x:xmpmeta>"
        "   \n<?xpacket end='w'?>"
    ).encode()


AS_ATTRIBUTE = packet(f'e:DigitalSourceType="{CAPTURE}"')
AS_ELEMENT = packet(inside=f"<e:DigitalSourceType>{CAPTURE}</e:DigitalSourceType><me:more>kept</me:more>")
AS_RESOURCE = packet(inside=f'<e:DigitalSourceType r:resource="{CAPTURE}"/><me:more>kept</me:more>')
AS_OWN_PREFIX = packet(inside=f'<z:DigitalSourceType xmlns:z="{EXT}">{CAPTURE}</z:DigitalSourceType>')
AS_DEFAULT = packet(inside=f'<DigitalSourceType xmlns="{EXT}">{CAPTURE}</DigitalSourceType>')
TWICE = packet(f'e:DigitalSourceType = "{CAPTURE}"', f"<e:DigitalSourceType>{CAPTURE}</e:DigitalSourceType>")
UTF16 = AS_ELEMENT.decode().encode("utf-16-le")
EVERY = [AS_ATTRIBUTE, AS_ELEMENT, AS_RESOURCE, AS_OWN_PREFIX, AS_DEFAULT, TWICE, UTF16]


@pytest.mark.parametrize("before", EVERY)
def test_a_property_is_set_whatever_its_form_was(before: bytes) -> None:
    made = with_properties(before, [SET])
    assert properties_of(made)[TYPE] == SET.value
    assert b"digitalCapture" not in made and made.count(b"DigitalSourceType") == 2  # one element, two tags
    assert b"me:mine='a > b &amp; \"c\"'" in made
    ElementTree.fromstring(made[made.index(b"<x:xmpmeta") : made.index(b"</x:xmpmeta>") + 12])
    assert with_properties(made, [SET]) == made


@pytest.mark.parametrize("before", EVERY)
def test_what_must_go_goes_and_the_rest_stays(before: bytes) -> None:
    text = before.decode("utf-16-le") if before is UTF16 else before.decode()
    made = with_properties(before, [], {TYPE}).decode()
    assert TYPE not in properties_of(made.encode())
    left = iter(text)
    assert all(letter in left for letter in made), "some of the packet, in its order"
    assert properties_of(made.encode())["urn:me: mine"] == 'a > b & "c"'


def test_what_lies_deeper_under_the_same_name_is_another_property() -> None:
    nested = packet(inside=f'<me:list><r:Seq><r:li e:DigitalSourceType="{CAPTURE}"/></r:Seq></me:list>')
    assert nested.split(b"</r:RDF>")[0] in with_properties(nested, [SET])


def test_the_new_description_is_about_what_the_others_are() -> None:
    made = with_properties(packet(about="uuid:&amp;1"), [SET])
    root = ElementTree.fromstring(made[made.index(b"<x:xmpmeta") : made.index(b"</x:xmpmeta>") + 12])
    assert {one.get(f"{{{RDF}}}about") for one in root.iter(f"{{{RDF}}}Description")} == {"uuid:&1"}


@pytest.mark.parametrize("broken", [b"", b"no xml", AS_ATTRIBUTE[:-60], b"<?xml version='1.0'?><a/>", b"\xff\xfe<\0"])
def test_what_cannot_be_read_becomes_a_new_packet(broken: bytes) -> None:
    assert properties_of(with_properties(broken, [SET])) == {TYPE: SET.value}


def test_entities_are_refused() -> None:
    bomb = b'<!DOCTYPE a [<!ENTITY b "' + b"x" * 100 + b'">]>' + AS_ATTRIBUTE
    assert properties_of(bomb) == {} and b"ENTITY" not in with_properties(bomb, [SET])


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"))


@given(value=TEXT.map(str.strip), word=TEXT.map(str.strip).filter(bool))
def test_any_text_comes_back(value: str, word: str) -> None:
    made = with_keywords(AS_ATTRIBUTE, [word], "")
    made = with_properties(made, [Property(EXT, "Iptc4xmpExt", "AISystemUsed", value), SET])
    assert properties_of(made)[f"{EXT} AISystemUsed"] == value and keywords_of(made) == [word]


@given(
    st.binary(max_size=200)
    | st.builds(lambda a, b: AS_ELEMENT[:a] + AS_ELEMENT[b:], st.integers(0, 500), st.integers(0, 500))
)
def test_any_bytes_take_a_property(before: bytes) -> None:
    assert properties_of(with_properties(before, [SET]))[TYPE] == SET.value
