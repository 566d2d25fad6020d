"""Take forgotten photos out of a set's logs and cached listings: JSON documents, and files of one JSON value a line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from authface.records import Photo
from authface.store.photoset import PhotoSet

TABLES = {"photos", "crops", "tables", "dataset", "exports", "reports"}
"""Folders that hold no such text, but for the journals among the tables."""
OWN = {"forgotten.jsonl", "uses.jsonl", "recipe.toml", ".lock"}
_PHOTO_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ForgottenNames:
    """Ids and words that identify forgotten photos and people."""

    photos: frozenset[str]
    """Ids, which count wherever they stand in a text."""
    words: frozenset[str] = frozenset()
    """Names in the source, addresses, photographers: they count where a value is one of them, whole."""

    def appear_in(self, value: Any) -> bool:
        """Whether a value, or anything inside it, mentions what is forgotten."""
        if isinstance(value, str):
            return value in self.words or any(found in self.photos for found in _PHOTO_ID.findall(value))
        if isinstance(value, dict):
            return any(self.appear_in(key) or self.appear_in(inner) for key, inner in value.items())
        return isinstance(value, list) and any(self.appear_in(inner) for inner in value)

    def may_appear_in(self, data: bytes) -> bool:
        """Whether a file may mention what is forgotten: a quick test before it is parsed."""
        text = data.decode("utf-8", "replace")
        return any(word in text or json.dumps(word)[1:-1] in text for word in (*self.photos, *self.words))


def names_of(photos: list[Photo], photographers: frozenset[str]) -> ForgottenNames:
    """What identifies these photos; `photographers` are names and pages that no remaining photo has."""
    words = {
        word
        for photo in photos
        for word in (photo.source_id, photo.page_url, photo.file_url, photo.download_location)
        if word
    }
    return ForgottenNames(frozenset(photo.id for photo in photos if photo.id), frozenset(words) | photographers)


def text_files(photoset: PhotoSet) -> Iterator[str]:
    """Logs, journals and cached listings of a set, relative to it: every file but photos, crops, tables and pages."""
    for top in sorted(photoset.root.iterdir()):
        if top.name in OWN:
            continue
        if not top.is_dir():
            yield top.name
        elif top.name not in TABLES:
            yield from (_below(photoset, path) for path in sorted(top.rglob("*")) if path.is_file())
    journals = (path for path in sorted((photoset.root / "tables").rglob("*")) if path.is_file())
    yield from (_below(photoset, path) for path in journals if path.suffix != ".parquet")


def clean(photoset: PhotoSet, relative: str, names: ForgottenNames, *, write: bool) -> int | None:
    """Remove what `names` identify from one file. Returns how many entries went, None if it is not JSON."""
    path = photoset.root / relative
    data = path.read_bytes()
    if not names.may_appear_in(data):
        return 0
    lines = path.suffix == ".jsonl" or data.count(b"\n") > 0 and _is_json(data.split(b"\n", 1)[0])
    try:
        left, gone = _clean_lines(data, names) if lines else _clean_document(data, names)
    except ValueError:
        return None
    if write and gone:
        photoset.save(relative, left)
    return gone


def _clean_lines(data: bytes, names: ForgottenNames) -> tuple[bytes, int]:
    """The lines without what is forgotten; a line that a kill tore goes too if it may mention it."""
    kept, gone = [], 0
    for line in data.splitlines(keepends=True):
        spoken = names.appear_in(json.loads(line)) if _is_json(line) else names.may_appear_in(line)
        gone += spoken
        if not spoken:
            kept.append(line)
    return b"".join(kept), gone


def _clean_document(data: bytes, names: ForgottenNames) -> tuple[bytes, int]:
    value, gone = pruned(json.loads(data), names)
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace"), gone


def pruned(value: Any, names: ForgottenNames) -> tuple[Any, int]:
    """A JSON value without what `names` identify, and how many entries went: the innermost entry of a list, the entry
    of an object under such a key, or else the word itself, which becomes null."""
    if isinstance(value, str):
        return (None, 1) if names.appear_in(value) else (value, 0)
    gone = 0
    if isinstance(value, dict):
        kept: dict[str, Any] = {}
        for key, inner in value.items():
            if names.appear_in(key):
                gone += 1
                continue
            kept[key], count = pruned(inner, names)
            gone += count
        return kept, gone
    if isinstance(value, list):
        items = []
        for inner in value:
            if isinstance(inner, dict | str) and names.appear_in(_without_lists(inner)):
                gone += 1
                continue
            item, count = pruned(inner, names)
            items.append(item)
            gone += count
        return items, gone
    return value, 0


def _without_lists(value: Any) -> Any:
    """An object without the lists of objects in it, which are pruned on their own."""
    if not isinstance(value, dict):
        return value
    return {
        key: _without_lists(inner)
        for key, inner in value.items()
        if not (isinstance(inner, list) and any(isinstance(item, dict) for item in inner))
    }


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _below(photoset: PhotoSet, path: Path) -> str:
    return path.relative_to(photoset.root).as_posix()
