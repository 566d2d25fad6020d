"""Rows of a manifest that a set lacks or holds otherwise, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from authface.annotate.rebuild.manifest import Origin
from authface.errors import one_line
from authface.store.journal import Forgotten
from authface.store.numbers import NumberMap, NumberSet, text_number
from authface.store.photoset import PhotoSet

DRIFT = "rebuild/drift.jsonl"
"""Rows of the manifest that the set lacks or holds otherwise."""
_ANSWER = ["file_url", "status", "reason", "detail"]

DriftKind = Literal[
    "to_fetch", "no_address", "gone", "changed", "forgotten", "bad_row", "repeated", "failed", "pixels", "retouched"
]
WORDS: Final[dict[DriftKind, str]] = {
    "to_fetch": "photo not fetched yet",
    "no_address": "photo without an address: it has to come from a folder",
    "gone": "photo could not be fetched",
    "changed": "photo has other bytes at its address now",
    "forgotten": "photo that this set was told to forget",
    "bad_row": "row of the manifest that cannot be used",
    "repeated": "row of the manifest that was there before",
    "failed": "crop that could not be cut",
    "pixels": "crop whose pixels differ",
    "retouched": "crop that was retouched by hand: it is here as it was before",
}


@dataclass(frozen=True, slots=True)
class DriftedRow:
    """One line of ``rebuild/drift.jsonl``; there is none of a forgotten photo, which is counted only."""

    id: str
    photo_id: str
    kind: DriftKind
    detail: str = ""
    file_url: str = ""


def missing(photoset: PhotoSet, origins: Iterable[Origin], held: NumberMap) -> Iterator[tuple[Origin, DriftedRow]]:
    """Rows whose photo is not in the set, and why."""
    forgotten, asked = Forgotten.of(photoset), _Asked(photoset)
    for origin in origins:
        if text_number(origin.photo_id) not in held:
            kind, detail = _why_missing(origin, forgotten, asked)
            yield origin, DriftedRow(origin.id, origin.photo_id, kind, detail, origin.file_url)


class _Asked:
    """What came of the addresses that a set has rows of: 8 bytes for each that gave a photo, 0.2 kB for any other."""

    def __init__(self, photoset: PhotoSet) -> None:
        self._failed: dict[int, str] = {}
        self._gave = NumberSet(self._read(photoset))

    def _read(self, photoset: PhotoSet) -> Iterator[int]:
        """Note the failed ones, whose texts are few; the numbers of the others."""
        texts: dict[str, str] = {}
        for part in photoset.photos.parts():
            for url, status, reason, detail in photoset.photos.columns(
                part, ["file_url", "status", "reason", "detail"]
            ):
                if not url:
                    continue
                if status == "kept" or reason == "duplicate":
                    yield text_number(url)
                else:
                    told = one_line(f"{reason}: {detail}", 200)
                    self._failed[text_number(url)] = texts.setdefault(told, told)

    def told(self, url: str) -> tuple[DriftKind, str] | None:
        """Why a photo that was at that address is not in the set; None where nobody asked."""
        number = text_number(url)
        if number in self._gave:
            return "changed", "the bytes at its address are of another photo"
        return ("gone", self._failed[number]) if number in self._failed else None


def _why_missing(origin: Origin, forgotten: Forgotten, asked: _Asked) -> tuple[DriftKind, str]:
    by = (origin.photographer, origin.photographer_url)
    if forgotten.holds(photo_id=origin.photo_id, source=origin.source, source_id=origin.source_id, photographers=by):
        return "forgotten", ""
    if told := asked.told(origin.file_url):
        return told
    return ("to_fetch", "") if origin.file_url.startswith(("https://", "http://")) else ("no_address", "")
