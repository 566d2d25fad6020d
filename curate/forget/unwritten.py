"""Photos that a killed `curate fetch` completed: their rows are lines of ``sources/fetched.jsonl`` and in no part."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import TypeAdapter, ValidationError

from authface.curate.fetch.ledger import FinishedPhoto
from authface.curate.forget.removal import ForgottenNames, Removal, mentioned
from authface.records import Photo
from authface.store.journal import Journal
from authface.store.photoset import PhotoSet

FETCHED = "sources/fetched.jsonl"
_LINE = TypeAdapter(FinishedPhoto)


def unwritten_photos(photoset: PhotoSet) -> list[Photo]:
    """The rows of ``sources/fetched.jsonl``, oldest first."""
    lines, _ = Journal(photoset.root / FETCHED, FinishedPhoto).read()
    return [line.photo for line in lines]


def clean_fetched(photoset: PhotoSet, names: ForgottenNames, gone: Removal, *, write: bool) -> int:
    """Remove the lines of photos that go, and what else mentions them. Returns how many lines went.

    The line of a photo that stays is the only record of its file: a word that both photos have does not remove it.
    """
    lines = (photoset.root / FETCHED).read_bytes().splitlines(keepends=True)
    left = [line for line in lines if not _goes(line, names, gone)]
    if write and len(left) < len(lines):
        photoset.save(FETCHED, b"".join(left))
    return len(lines) - len(left)


def _goes(line: bytes, names: ForgottenNames, gone: Removal) -> bool:
    try:
        photo = _LINE.validate_json(line).photo
    except ValidationError:  # torn by a kill, or of another version
        return mentioned(line, names)
    return gone.holds(asdict(photo))
