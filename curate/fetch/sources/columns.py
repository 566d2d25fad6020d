"""Which column of a list says what, in the spellings that lists use."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

ADDRESS = ("url", "image_url", "photo_url")
"""The names of the address that messages offer."""
_ADDRESS = (
    "url", "imageurl", "photoimageurl", "photourl", "fileurl", "originalurl", "downloadurl", "mediaurl", "contenturl",
    "pictureurl", "imglink", "imgurl", "imagelink", "photolink", "imageaddress", "photoaddress", "imageuri", "uri",
    "imagesrc", "src",
)  # fmt: skip
_FIELDS = {
    "photographer": (
        "photographer", "photographername", "photographedby", "photoby", "author", "authorname", "creator",
        "creatorname", "artist", "artistname", "ownername", "fotograf", "urheber", "credit", "credits", "creditline",
        "photocredit", "imagecredit", "attribution", "byline", "owner",
    ),
    "photographer_url": (
        "photographerurl", "photographerlink", "photographerpage", "photographerprofile", "photographerprofileurl",
        "photographerwebsite", "authorurl", "authorlink", "authorpage", "authorprofileurl", "creatorurl",
        "creatorlink", "artisturl",
    ),
    "licence": (
        "licence", "license", "licencename", "licensename", "licencetype", "licensetype", "licenceshortname",
        "licenseshortname", "licencecode", "licensecode", "spdx", "spdxid", "licenceid", "licenseid", "lizenz",
        "rights", "usagerights", "licenceurl", "licenseurl",
    ),
    "page_url": (
        "pageurl", "sourceurl", "sourcepage", "page", "photopage", "photopageurl", "landingpage", "landingpageurl",
        "landingurl", "foreignlandingurl", "originallandingurl", "permalink", "webpage",
    ),
    "terms": ("terms", "termsofuse", "usageterms"),
}  # fmt: skip
"""Names of columns that have a field of their own in a row, as `plain_name` writes them, the best first."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of one list by what they say; all others go to `extra`."""

    address: str
    """Empty where none holds addresses."""
    fields: dict[str, tuple[str, ...]]
    """The columns that may fill a field of `Photo`, the best first."""


def plain_name(name: str) -> str:
    """A column's name as it is compared: ``Photographer Name``, ``photographer_name`` and ``dc:photographerName``."""
    folded = unicodedata.normalize("NFKC", str(name)).casefold()
    for prefix in ("dcterms:", "dc:", "schema:", "xmp:", "exif:", "iptc:"):
        folded = folded.removeprefix(prefix)
    return "".join(letter for letter in folded if letter.isalnum())


@lru_cache(64)
def columns_of(names: tuple[str, ...], wanted: str = "") -> Columns:
    """What the columns of these names say; `wanted` is the name of the one with the address, as the user wrote it."""
    plain = {name: plain_name(name) for name in names}
    if wanted:
        same = (name for name in names if plain[name] == plain_name(wanted))
        address = wanted if wanted in plain else next(same, "")
    else:
        address = next(iter(_found(plain, _ADDRESS)), "")
    left = {name: short for name, short in plain.items() if name != address}
    return Columns(address, {field: _found(left, known) for field, known in _FIELDS.items()})


def _found(plain: dict[str, str], known: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for wanted in known for name, short in plain.items() if short == wanted)
