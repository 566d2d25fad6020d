"""Denials and ratings in one form, however they are spelled: ``noglasses``, ``no_hat``, ``w/o hat``, ``hat (0)``."""

from __future__ import annotations

import functools
import re
from typing import Final

from authface.annotate.vocabulary.spelling import THINGS, names_in, whole_match

_PREFIXES: Final = ("without", "non", "not", "no")
_JOINED = re.compile(r"(?<![\w-])(no|not|non|without|sans|zero)-(?=[a-z])")
_SHORT = re.compile(r"(?<!\w)w\s?/\s?(?:o|out)\b\.?")
_NONE_OF_IT = re.compile(r"(?<![\w.,%-])0\s*[x×]?\s+(?=[a-z])")
_SIGN = re.compile(r"(?m)(?:(?<=[\s,;(\[\"'])|^)[!¬](?=[a-z])")
_BRACED = re.compile(r"[{<\[]\s*(no|none|n/a|absent|null|false)\s*[}>\]]")
_WORD = re.compile(r"[a-z]{5,40}(?:-less)?(?![a-z-])")
_RATED = re.compile(r"([a-z].*?)\s*(?:\(([^()]{1,16})\)?|[\sx×]\s*(\d[\d.,]{0,6}\s?%?))")


def plain(text: str) -> str:
    """A text in lower case with its denials as words of their own, underscores as spaces.

    ``noglasses``, ``no-glasses``, ``w/o glasses``, ``0 glasses`` and ``!glasses`` are ``no glasses``, ``hatless`` is
    ``hat-free``.
    """
    text = re.sub(r"(?<=[a-z0-9])_+(?=[a-z0-9])", " ", text)
    text = _BRACED.sub(r"(\1)", _SHORT.sub("without ", text))
    text = _SIGN.sub("no ", _NONE_OF_IT.sub("no ", _JOINED.sub(r"\1 ", text)))
    return _WORD.sub(lambda word: _parted(word[0]), text)


@functools.lru_cache(4096)
def _parted(word: str) -> str:
    """A word, or the denial and the name that it is made of."""
    if whole_match(word):
        return word
    for prefix in _PREFIXES:
        if word.startswith(prefix) and _is_thing(word.removeprefix(prefix)):
            return f"{prefix} {word.removeprefix(prefix)}"
    for ending in ("-less", "less", "free"):
        stem = word.removesuffix(ending)
        if stem != word and (name := next((stem + end for end in ("", "s", "es") if _is_thing(stem + end)), "")):
            return f"{name}-free"
    return word


def _is_thing(word: str) -> bool:
    return len(word) > 2 and bool(THINGS.intersection(whole_match(word)))


def without_rating(item: str) -> tuple[str, str]:
    """A name and what stands behind it as its rating: ``0.02``, ``98%``, ``not visible``; empty where nothing does."""
    match = _RATED.fullmatch(item)
    name = match[1].strip() if match else ""
    return (name, match[2] or match[3] or "") if match and names_in(name) else (item, "")
