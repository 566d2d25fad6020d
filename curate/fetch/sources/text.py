"""The lines of a list as text, whichever of the usual encodings it was saved in."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

UNREADABLE = "\udcff"
"""Stands where bytes are no text of the encoding: no encoding yields this code point, so it marks a damaged line."""
MARKING = "authface-marking"
"""Name of the error handler of codecs that puts `UNREADABLE` in."""
codecs.register_error(MARKING, lambda error: (UNREADABLE, getattr(error, "end", 0)))

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NOT_WESTERN = re.compile(rb"[\x80-\xff]{4,}|[\x81-\x84\x86-\x89\x8b\x8d\x8f\x90\x95\x98\x9b\x9d\xd7\xf7]")
"""What hardly stands in Western European names: four accented letters in a row, signs between letters."""
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a list's bytes become text."""

    name: str
    """As Python's codecs know it."""
    guessed: bool = False
    """Whether nothing in the file says so: it is no UTF-8, and reads as Western European."""


def encoding_of(raw: IO[bytes]) -> Encoding:
    """The encoding of a file that is open at its start; reads it to the end where it is neither marked nor UTF-16.

    A file that holds both UTF-8 and other bytes is a damaged one in UTF-8. What is no UTF-8 at all is Windows-1252,
    which includes the letters of Latin-1, if its bytes look like Western European names; else it is taken for UTF-8
    too, and its lines are refused one by one.
    """
    piece = raw.read(_PIECE)
    if found := next((name for bom, name in _BOMS if piece.startswith(bom)), ""):
        return Encoding(found)
    if found := _wide(piece[:4096]):
        return Encoding(found)
    decoder = codecs.getincrementaldecoder("utf-8")(MARKING)
    damaged, proper, western = 0, 0, True
    while piece:
        text = decoder.decode(piece)
        if not text.isascii():
            marks = text.count(UNREADABLE)
            damaged += marks
            proper += len(text) - len(text.encode("ascii", "ignore")) - marks
            western = western and not _NOT_WESTERN.search(piece)
        piece = raw.read(_PIECE)
    damaged += decoder.decode(b"", True).count(UNREADABLE)
    return Encoding("cp1252", guessed=True) if damaged and not proper and western else Encoding("utf-8")


def _wide(head: bytes) -> str:
    """UTF-16 without a mark, by where the zeros of its ASCII letters are."""
    first, second, pairs = head[::2].count(0), head[1::2].count(0), len(head) // 2
    if second > 0.3 * pairs and first * 10 < second:
        return "utf-16-le"
    return "utf-16-be" if first > 0.3 * pairs and second * 10 < first else ""


@contextmanager
def lines_of(opened: Callable[[], IO[bytes]], encoding: str) -> Iterator[Iterator[str]]:
    """The lines of a file with their ends, as a stream; where they cannot be read, they hold `UNREADABLE`."""
    with opened() as raw, io.TextIOWrapper(raw, encoding, MARKING, newline="") as text:
        yield iter(text)


def clean(value: object, limit: int) -> str:
    """A value as it is stored: one line, any blank a space, without letters that nobody sees; no escapes.

    Joiners stay, which Persian and Indic names are written with.
    """
    text = str(value)
    if not text.isprintable():
        text = "".join(map(_shown, text))
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _shown(letter: str) -> str:
    if letter.isprintable() or letter in "\u200c\u200d":
        return letter
    if letter.isspace():
        return " "
    return "\ufffd" if "\ud800" <= letter <= "\udfff" else ""
