"""Whether the pixels of a row may be passed on, by where its photo comes from and what its licence says.

Reading notes, not legal advice: what is refused here is refused by the source's own words; what is let through is
still the publisher's to answer for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

UNSPLASH: Final = "Unsplash's terms: its photos are not passed on in a dataset"
"""Terms of the Unsplash Dataset, 2 A to C (no redistribution in whole or part); Unsplash API guidelines (hotlinks)."""
RELEASED: Final = "AuthFace-HQ: its photos are its makers' and their sources' to pass on"
NO_DERIVATIVES: Final = "the licence allows no derivatives, and a crop is one"
RESERVED: Final = "the licence reserves all rights"
UNKNOWN: Final = "no licence is known"
UNWANTED: Final = "asked for without pixels"

YOURS: Final = frozenset({UNKNOWN, RESERVED})
"""Reasons that do not hold for the owner of the rights."""

_SOURCES = {"unsplash": UNSPLASH, "unsplash-lite": UNSPLASH, "authface-hq": RELEASED}
_NO_DERIVATIVES = re.compile(r"\bnd\b|no[- ]?deriv", re.IGNORECASE)
_RESERVED = re.compile(r"all rights reserved|proprietary|copyright(ed)?$", re.IGNORECASE)
_NOTHING = {"", "unknown", "none", "n/a", "?", "-"}


@dataclass(frozen=True)
class Publisher:
    """What the one who publishes says."""

    rights: bool = False
    """The pixels are theirs where no licence is known or one reserves them; a source's terms stand all the same."""
    pixels: bool = True
    """False: no pixels of any row."""

    def withholds(self, origin: Mapping[str, str | None]) -> str:
        """Why the pixels of a row are not passed on; empty where they are.

        `origin` has the columns `source`, `licence`, `page_url` and `file_url`.
        """
        if not self.pixels:
            return UNWANTED
        reason = _reason(origin)
        return "" if self.rights and reason in YOURS else reason


def _reason(origin: Mapping[str, str | None]) -> str:
    licence = (origin["licence"] or "").strip()
    if found := _SOURCES.get((origin["source"] or "").casefold()):
        return found
    if "unsplash" in licence.casefold() or any(_of_unsplash(origin[name] or "") for name in ("page_url", "file_url")):
        return UNSPLASH
    if licence.casefold() in _NOTHING:
        return UNKNOWN
    if _NO_DERIVATIVES.search(licence):
        return NO_DERIVATIVES
    return RESERVED if _RESERVED.search(licence) else ""


def _of_unsplash(address: str) -> bool:
    try:
        host = urlsplit(address).hostname or ""
    except ValueError:
        return False
    return host == "unsplash.com" or host.endswith(".unsplash.com")
