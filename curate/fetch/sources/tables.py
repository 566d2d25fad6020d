"""A list as text in any usual encoding, its rows, and which column says what; no open quote reaches further rows."""

from __future__ import annotations

import codecs
import hashlib
import io
import re
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import IO

from authface.errors import one_line

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


ODD_QUOTE = "a quote that is not closed, or text behind a closing one"
NO_TEXT = "neither UTF-8 nor another encoding that is recognised: save the list as UTF-8"
_LONGEST = 1 << 20
"""Characters of one row."""
_MOST_LINES = 1000
"""Lines of one row."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read."""

    detail: str
    """Why."""
    text: str
    """What stands there."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table, or the line that should have been one."""

    line: int
    """The first of its lines, from 1."""
    text: str
    fields: tuple[str, ...] = ()
    problem: str = ""
    quoted: bool = False
    """Whether a field was taken out of quotes."""


def name_of_line(file: str, line: int, text: str) -> str:
    """What a row without a name of its own is known by: its place in a file, and its text."""
    digest = hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=4).hexdigest()
    return f"{one_line(file, 200)}:{line}#{digest}"


StartsRow = Callable[[str], bool]
"""Whether a line is a row of its own, even where it stands within quotes that an earlier line opened."""


def read_rows(lines: Iterable[str], delimiter: str, starts_row: StartsRow, *, quoting: bool = True) -> Iterator[Row]:
    """The rows of a table, the line of names among them, without blank ones.

    With `quoting`, a field within quotes may hold delimiters, doubled quotes and ends of lines. Where a quote is not
    closed in its line, the row goes on only if the next lines close it properly and none of them is a row by itself;
    else the line alone is bad. Without `quoting`, a quote is a letter, but at the start of a field it must be paired.
    """
    numbered = enumerate(lines, 1)
    waiting: deque[tuple[int, str]] = deque()
    while (found := waiting.popleft() if waiting else next(numbered, None)) is not None:
        number, line = found
        text = line.rstrip("\r\n")
        if not text.strip():
            continue
        if len(text) > _LONGEST:
            yield Row(number, text[:1000], problem=f"{len(text):,} characters, over {_LONGEST:,}")
            continue
        row = _row(number, text, delimiter, quoting=quoting)
        if row.problem == _OPEN:
            row, more = _continued(row, line, numbered, waiting, delimiter, starts_row)
            waiting.extendleft(reversed(more))
        if UNREADABLE in row.text:
            row = Row(number, row.text, problem=NO_TEXT)
        if row.problem or any(field.strip() for field in row.fields):
            yield row


_OPEN = "open"
"""Problem of a line whose last quote the next lines may close."""


def _continued(
    row: Row,
    line: str,
    numbered: Iterator[tuple[int, str]],
    waiting: deque[tuple[int, str]],
    delimiter: str,
    starts_row: StartsRow,
) -> tuple[Row, list[tuple[int, str]]]:
    """The row that starts with an open quote, and the lines that were read ahead for nothing."""
    ahead: list[tuple[int, str]] = []
    pieces, size = [line], len(line)
    while (found := waiting.popleft() if waiting else next(numbered, None)) is not None:
        ahead.append(found)
        pieces.append(found[1])
        size += len(found[1])
        if size > _LONGEST or len(ahead) >= _MOST_LINES or starts_row(found[1].rstrip("\r\n")):
            break
        if _closing(found[1]) < 0:
            continue
        whole = _row(row.line, "".join(pieces).rstrip("\r\n"), delimiter)
        if whole.problem != _OPEN:
            if whole.problem:
                break
            return whole, []
    return Row(row.line, row.text, problem=ODD_QUOTE), ahead


def _closing(text: str, start: int = 0) -> int:
    """Where the quote is that ends a quoted field, doubled ones apart; -1 if there is none."""
    at = text.find('"', start)
    while at >= 0 and text.startswith('"', at + 1):
        at = text.find('"', at + 2)
    return at


def _row(number: int, text: str, delimiter: str, *, quoting: bool = True) -> Row:
    """One row of its text; its problem is `_OPEN` where the text ends within quotes."""
    if '"' not in text:
        return Row(number, text, tuple(text.split(delimiter)))
    if not quoting:
        fields = tuple(text.split(delimiter))
        odd = any(field.lstrip(" ").startswith('"') and field.count('"') % 2 for field in fields)
        return Row(number, text, fields, ODD_QUOTE if odd else "")
    taken, at, quoted = [], 0, False
    while True:
        start = at + len(text[at:]) - len(text[at:].lstrip(" ")) if text.startswith(" ", at) else at
        if text.startswith('"', start):
            quoted = True
            if (end := _closing(text, start + 1)) < 0:
                return Row(number, text, problem=_OPEN)
            value = text[start + 1 : end].replace('""', '"')
            at = text.find(delimiter, end)
            at = len(text) if at < 0 else at
            if text[end + 1 : at].strip(" "):
                return Row(number, text, problem=ODD_QUOTE)
        else:
            start, at = at, text.find(delimiter, at)
            at = len(text) if at < 0 else at
            value = text[start:at]
        taken.append(value)
        if at >= len(text):
            return Row(number, text, tuple(taken), quoted=quoted)
        at += 1


def row_start(delimiter: str, width: int, address: int | None = None) -> StartsRow:
    """Tells whether a line is a row of its own: it has as many fields as there are names, an address in its place."""

    def starts_row(line: str) -> bool:
        readings = (_row(0, line, delimiter, quoting=quoting).fields for quoting in (True, False))
        return any(len(fields) == width and (address is None or is_address(fields[address])) for fields in readings)

    return starts_row


def is_address(text: str) -> bool:
    """Whether a field holds one address of the web and nothing else."""
    text = text.strip(' "')
    return text.lower().startswith(("http://", "https://")) and len(text.split()) == 1


def uses_quotes(lines: Iterable[str], delimiter: str, starts_row: StartsRow) -> bool:
    """Whether a table as a whole shows that quotes are put around fields, and are no letters of them.

    They are where the names stand in quotes; else where more rows need no other reading than have an odd quote, and
    none says the opposite: text behind a closing quote, or as many fields as there are names only if quotes are
    letters.
    """
    width, shown, odd = 0, 0, 0
    for row in read_rows(lines, delimiter, starts_row):
        if not width:
            if row.quoted:
                return True
            width = len(row.fields) or 1
        elif row.problem == ODD_QUOTE:
            if _row(row.line, row.text, delimiter).problem == ODD_QUOTE:
                return False
            odd += 1
        elif row.quoted:
            if len(row.fields) != width == len(row.text.split(delimiter)):
                return False
            shown += 1
    return shown > odd


def as_record(row: Row, names: Sequence[str]) -> dict[str, str] | BadRow:
    """The fields by name, or why the row is none of this table."""
    fields, width = row.fields, len(names)
    if row.problem:
        return BadRow(row.problem, row.text)
    if len(fields) < width or any(field.strip() for field in fields[width:]):
        return BadRow(f"{len(fields)} of the {width} fields that the first line names", row.text)
    return dict(zip(names, fields, strict=False))


def unique_names(fields: Sequence[str]) -> list[str]:
    """The names of columns without empty ones at the end; the second of two equal ones gets a number."""
    names: list[str] = []
    for number, field in enumerate(fields, 1):
        name = field.strip().strip("\ufeff") or f"column {number}"
        names.append(name if name not in names else f"{name} ({number})")
    width = max((number for number, field in enumerate(fields, 1) if field.strip()), default=0)
    return names[:width]


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
