"""Captions that came with photos, as AuthFace-HQ's: kept in the photo's row, read into tags like any answer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from authface.annotate.captioners.captioner import Caption, Captioner, CaptionerRequest
from authface.annotate.vocabulary.pieces import ABOUT, verdict
from authface.errors import ImageError
from authface.records import Crop
from authface.store.photoset import PhotoSet

ANNOTATOR = "qwen"
"""Who captioned AuthFace-HQ, and the name of the table."""
CAPTION, PROBLEM = "caption", "caption_problem"
"""Keys of `Photo.extra`: what the file beside the photo says, or why it says nothing."""
_KEYS = ("caption", "tags", "answer", "text", "prompt", "description", "captions", "keywords", "response", "output")
"""Where a caption may stand in a JSON object, the first that holds text."""
_NO_TEXT = {
    "id",
    "image",
    "image_path",
    "file",
    "filename",
    "file_name",
    "name",
    "path",
    "url",
    "model",
    "created",
    "object",
}


@dataclass
class ReleasedCaptions(Captioner):
    """Answers with the captions that came with photos."""

    extras: Mapping[str, Mapping[str, str]]
    """Caption, or why there is none, by a photo's id; see `released_captions`."""

    name = ANNOTATOR
    batch_size = 32

    @classmethod
    def make(cls, request: CaptionerRequest) -> Self:
        """Of the captions in the set's rows."""
        return cls(released_captions(request.photoset))

    def __post_init__(self) -> None:
        text = json.dumps(sorted((photo, dict(extra)) for photo, extra in self.extras.items()))
        self.parameters = {"captions_sha256": hashlib.sha256(text.encode()).hexdigest()}

    def prepare(self, photoset: PhotoSet, crop: Crop) -> str:
        """The caption. Raises ImageError (`no_caption`)."""
        extra = self.extras.get(crop.photo_id, {})
        if not extra.get(CAPTION):
            raise ImageError("no_caption", extra.get(PROBLEM) or "the photo came without a caption")
        return extra[CAPTION]

    def answer(self, photos: Sequence[str], *, penalty: bool = False) -> list[Caption]:
        """The captions."""
        return [Caption(caption) for caption in photos]


def released_captions(photoset: PhotoSet) -> dict[str, dict[str, str]]:
    """Caption, or why there is none, of every photo that came with a file for it, by the photo's id."""
    found = {}
    for part in photoset.photos.parts():
        for photo_id, status, extra in photoset.photos.columns(part, ["id", "status", "extra"]):
            if status != "kept" or not extra:
                continue
            value = json.loads(extra)
            if isinstance(value, dict) and (CAPTION in value or PROBLEM in value):
                found[photo_id] = {key: str(value[key]) for key in (CAPTION, PROBLEM) if key in value}
    return found


def caption_of(data: bytes) -> str:
    """The caption in a JSON file: a string, a list of tags, or an object that holds one. Raises ValueError: why not.

    Halves of a character, which JSON can hold and UTF-8 cannot, are written as ``\\ud83d``.
    """
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError("the file is no JSON in UTF-8") from error
    if not (text := _text(value, depth=0)):
        raise ValueError(f"the JSON holds no text under {', '.join(_KEYS[:3])}")
    return text.encode("utf-8", "backslashreplace").decode()


def _text(value: Any, depth: int, *, under: bool = False) -> str:
    """The text of a JSON value, in words that `parse_tags` reads; `under`: whether it is a key's value."""
    if isinstance(value, bool | int | float):
        return _said(value) if under else ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list) and depth < 4:
        if len(value) == 2 and isinstance(value[0], str) and (said := _said(value[1])):  # ["hat", false]
            return f"{value[0].strip()}: {said}"
        return ", ".join(text for item in value if (text := _text(item, depth + 1)))
    if isinstance(value, dict) and depth < 4:
        return _text_of_object({str(key).lower(): inner for key, inner in value.items()}, depth, under)
    return ""


def _said(value: Any) -> str:
    """``yes`` or ``no`` where a value that is no text says that a thing is there or not, else nothing."""
    there = verdict(json.dumps(value)) if isinstance(value, bool | int | float) else None
    return "" if there is None else "yes" if there else "no"


def _text_of_object(named: dict[str, Any], depth: int, under: bool) -> str:
    there = _is_there(named)
    if there is False and under:
        return "no"
    if there is not None:  # {"tag": "hat", "present": false}
        rest = {key: inner for key, inner in named.items() if key not in ABOUT or isinstance(inner, dict | list)}
        found = {key: text for key, inner in rest.items() if (text := _text(inner, depth + 1, under=True))}
        if not there:
            names = (name.strip() for text in found.values() for name in re.split(r"[,;\n]", text))
            return ", ".join(f"{name}: no" for name in names if name and ":" not in name)
        return ", ".join([*["yes"][:under], *(f"{key}: {text}" for key, text in found.items())])
    for key in _KEYS:
        if text := _text(named.get(key), depth + 1):
            return text
    # One entry named after the photo, or groups of tags: {"hair": "long", "light": ["soft light"], "hat": false}
    texts = ((key, _text(inner, depth + 1, under=True)) for key, inner in named.items() if key not in _NO_TEXT)
    return ", ".join(f"{key}: {text}" for key, text in texts if text)


def _is_there(named: Mapping[str, Any]) -> bool | None:
    """Whether an object says that what it names is there, by a key such as `present`; None where it says neither."""
    said = list[bool]()
    for key, inner in named.items():
        if key in ABOUT and not isinstance(inner, dict | list):
            there = verdict(inner if isinstance(inner, str) else json.dumps(inner))
            said += [] if there is None else [there != (key in {"absent", "missing"})]
    return all(said) if said else None
