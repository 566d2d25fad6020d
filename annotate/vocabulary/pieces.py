"""An answer taken apart: lines, tables, headings, and the pieces between commas.

Denials and ratings get one form, however they are spelled: ``noglasses``, ``no_hat``, ``w/o hat``, ``hat (0)``.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from authface.annotate.vocabulary.spelling import DENIALS, THINGS, clean, names_in, whole_match, words_of

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


CUT: Final = "…"
"""At the end of an answer that was cut off: its last piece may be half a tag, so it is dropped."""
_MARKS = {
    **dict.fromkeys("✗✘✕✖❌❎🚫⛔☐⬜", " no "),
    **dict.fromkeys("✓✔✅☑☒🗹", " yes "),
    **dict.fromkeys("‘’ʼ`´′", "'"),
    **dict.fromkeys("‐‑‒−﹣", "-"),
    "|": "|", "│": "|", "┃": "|", "║": "|",
    "→": ":", "⇒": ":", "➜": ":", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "、": ",", "。": ". ",
}  # fmt: skip
"""Signs that stand for a word or for another sign."""
_BOXES = re.compile(r"(?m)^(\s*(?:[-*+•]|\d+[.)])?\s*)\[( ?|[xX✓])\](?=\s)")
_FENCE = re.compile(r"```[a-z]*|\"")
_CELLS = re.compile(r"</t[dh]>\s*<t[dh][^<>]*>")
_BLOCKS = re.compile(r"</?(?:tr|li|ul|ol|p|div|br|table|tbody|thead|h\d|dt|dd|dl)\b[^<>]*>")
_TAGS = re.compile(r"<[/|!]?[a-z_][^<>]{0,80}>|</s>")
_LINES = re.compile(r"[\n;•·…{}\[\]]|\.(?=\s|$)|(?<=[a-z])[?!]+(?=\s+[a-z]+\s*[?!])")
_ITEMS = re.compile(r"[,]|\s/\s")
_HEADING = re.compile(r"[:=?]+|\s[-–—]+>?\s|->")
_HEADING_LEAD = re.compile(r"^(?:has|is|wears|wearing|with)\s+")
_TITLE = re.compile(r"^\s*(?:#{1,6}\s+[^,]+|\*\*[^*,]+\*\*\s*:?|__[^_,]+__\s*:?)\s*$")
_NUMBERING = re.compile(r"(?m)^\(?(?:\d{1,3}|[a-z])[.)]\s+|(?<=\s)\(?(?:\d{1,3}|[a-z])[.)][^\S\n]+(?=\S)")
_RULE_LINE = re.compile(r"[\s|:+=-]*")
NOISE = " *_#>`'’()!?~+=.:<-–—\t\""
_NUMBER = re.compile(r"(\d{1,3}(?:[.,]\d{1,6})?)\s*(%?)")
_YES = {"yes", "true", "present", "visible", "y", "x", "shown", "seen", "detected", "worn", "wearing", "on", "found"}
_NO = {"no", "none", "false", "n", "absent", "null", "off", "nil", "na", "n/a", "nope", "nothing", "zero", "missing"}
_PADDING = {
    "is", "are", "currently", "clearly", "any", "it", "them", "in", "the", "this", "image", "picture", "photo", "at",
    "all", "portrait", "here", "evident", "applicable", "of", "to", "be", "items", "features", "attributes", "tags",
    "things", "elements", "accessories", "what", "which", "list", "following", "these", "those", "above", "listed",
}  # fmt: skip
_HEAD_WORDS = {"attribute", "feature", "tag", "item", "accessory", "name", "property", "element", "category", "label",
               "present", "absent", "visible", "object", "characteristic", "detail", "aspect", "trait", "yes",
               "no"}  # fmt: skip
"""What the head of a table's first column says."""
ABOUT = {"present", "visible", "detected", "shown", "exists", "seen", "value", "worn", "found", "absent", "missing",
         "confidence", "score", "probability", "likelihood", "status", "answer", "presence", "has",
         "wearing"}  # fmt: skip
"""Keys that speak of what stands beside them: ``{"tag": "hat", "present": false}``."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """What stands between two separators, in lower case, without markup around it."""

    text: str
    heading: str = ""
    """What stood before the last colon, such as ``hair``; it holds for the lines below it too."""
    own: bool = False
    """Whether its heading stands in the piece itself: ``hair: long``."""
    line: int = 0
    """Lines and sentences are numbered; a list does not reach over them."""
    group: int = 0
    """Of the braces that it stands in."""
    denied: bool = False
    """Whether its heading says that what follows is not there."""

    @property
    def about(self) -> bool:
        """Whether it says of what stands beside it whether that is there."""
        return self.own and self.heading in ABOUT and verdict(self.text) is not None

    @property
    def verdict(self) -> bool | None:
        """`verdict` of the text, turned round under a heading such as ``absent``."""
        said = verdict(self.text)
        return not said if said is not None and self.own and self.heading in {"absent", "missing"} else said


def pieces(text: str) -> list[Fragment]:
    """The pieces of an answer, in its order."""
    text = clean(text)
    cut = text.rstrip().endswith(CUT)
    found = list(_pieces_of(_lines(text)))
    return found[: len(found) - cut]


@functools.lru_cache(4096)
def verdict(text: str) -> bool | None:
    """Whether a text, as a cell or value, says that a thing is there, or not; None where it says neither.

    A number says so from 0 to 1, or in per cent.
    """
    bare = text.strip(NOISE)
    if number := _NUMBER.fullmatch(bare):
        value = float(number[1].replace(",", ".")) / (100 if number[2] else 1)
        return value >= 0.5 if value <= 1 else None
    said = words_of(bare) - {""}
    left = said - _PADDING
    if not left or not left <= _YES | _NO | DENIALS:
        return None
    return not (left & (_NO | DENIALS))


def _cell_verdict(cell: str) -> bool | None:
    """`verdict` of a table's cell, which may add why: ``No (clear view of the eyes)``."""
    first, _, rest = cell.strip(NOISE).partition(" ")
    said = verdict(cell)
    if said is not None or not rest or first[0].isdigit() or names_in(cell.strip(NOISE)) or names_in(rest.strip(NOISE)):
        return said
    return verdict(first)


def _pieces_of(lines: list[str]) -> Iterator[Fragment]:
    heading, denied, reach, group = "", False, -1, 0
    for number, line in enumerate(lines):
        if line in {"{", "}"}:
            group, denied = group + 1, denied and line == "{"
            continue
        if reach >= 0 and number != reach:
            denied, reach = False, -1  # a denying heading with items on its line denies that line
        title = bool(_TITLE.match(line)) or _is_denying_title(line)
        items = [item for item in _ITEMS.split(line) if item.strip(NOISE)]
        for at, item in enumerate(items):
            *headings, last = _HEADING.split(item)
            headings = [stripped for part in headings if (stripped := part.strip(NOISE))]
            body = _without_rating(" ".join(last.strip(NOISE).split()))
            if title and not headings and not names_in(body):
                headings, body = [body], ""
            if headings:
                heading = _HEADING_LEAD.sub("", headings[-1])
                if len(headings) > 1 and heading in ABOUT and verdict(body) is not None:
                    heading = headings[-2]
                denied = verdict(heading) is False and heading not in ABOUT - {"absent", "missing"}
                denied = denied and verdict(body) is None
                reach = number if body or at + 1 < len(items) else -1
            if body:
                yield Fragment(body, heading, bool(headings), number, group, denied)


def _without_rating(item: str) -> str:
    """A rated name as the name alone, ``hat (0.98)``, or as what denies it: ``hat (none)`` is ``hat-free``."""
    name, rating = without_rating(item)
    said = verdict(rating) if rating else None
    return item if said is None else name if said else f"{name}-free"


def _is_denying_title(line: str) -> bool:
    """Whether a line says no more than that what follows is not there: ``Not visible``."""
    said = words_of(line.lower())
    return len(said) > 1 and verdict(line) is False and not _HEADING.search(line.strip(NOISE))


def _lines(text: str) -> list[str]:
    """Lines and sentences in lower case, tables turned into ``key: value``, braces as lines of their own."""
    text = _BOXES.sub(lambda box: f"{box[1]}{' no ' if not box[2].strip() else ' yes '}", text)
    text = "".join(_MARKS.get(letter, letter) for letter in text)
    text = unicodedata.normalize("NFKD", text).lower()
    text = "".join(_MARKS.get(letter, letter) for letter in text if unicodedata.category(letter) not in {"Mn", "Me"})
    text = plain(re.sub(r"(?<=\w)[–—](?=\w)", "-", text))
    text = _TAGS.sub(" ", _BLOCKS.sub("\n", _CELLS.sub(" | ", text)))
    text = re.sub(r"[{}]", lambda brace: f"\n{brace[0]}\n", _FENCE.sub(" ", text))
    rows = [row for row in _NUMBERING.sub("\n", text).split("\n") if row.strip()]
    lines = [line for block in _blocks(rows) for line in _table_lines(block)]
    parts = [part for line in lines for part in ([line] if line in {"{", "}"} else _LINES.split(line)) if part.strip()]
    return list(_with_answers([part for part in parts if part in {"{", "}"} or part.strip(NOISE + ",")]))


def _with_answers(lines: list[str]) -> Iterator[str]:
    """The lines; a key whose value stands alone on the next is joined with it: ``Glasses``, ``No``."""
    at = 0
    while at < len(lines):
        line, value = lines[at], lines[at + 1] if at + 1 < len(lines) else ""
        alone = value.strip(NOISE)
        if (
            alone and line not in {"{", "}"} and not alone[0].isdigit() and verdict(alone) is not None
            and (" " not in alone or _TITLE.match(line) or line.strip().endswith(("?", ":")))
            and not value.rstrip().endswith(":") and (not _TITLE.match(value) or _TITLE.match(line))
            and verdict(line) is None and not _ITEMS.search(line) and not _HEADING.search(line.strip(NOISE))
        ):  # fmt: skip
            line, at = f"{line.strip(NOISE)}: {alone}", at + 1
        yield line
        at += 1


def _blocks(rows: list[str]) -> Iterator[list[str]]:
    """Rows that make a table together, others alone."""
    block: list[str] = []
    for row in rows:
        width = len(_split(row))
        if block and not (width > 1 and width == len(_split(block[-1])) or _is_rule(row)):
            yield block
            block = []
        block.append(row)
    if block:
        yield block


def _is_rule(row: str) -> bool:
    return _RULE_LINE.fullmatch(row) is not None


def _split(row: str) -> list[str]:
    """The cells of a table's row; one where it is none."""
    sign = "|" if "|" in row else "\t" if "\t" in row.strip() else ","
    inner = row.strip()
    inner = inner.removeprefix("|").removesuffix("|") if sign == "|" else inner
    return [cell.strip() for cell in inner.split(sign)]


def _table_lines(rows: list[str]) -> Iterator[str]:
    """A table's cells as lines: ``key: value`` where a cell says yes or no, else each for itself."""
    if not any("|" in row or "\t" in row.strip() for row in rows) and not _is_turned(rows):
        yield from rows
        return
    table = [_split(row) for row in rows if not _is_rule(row)]
    if _is_turned(rows):
        for row in table[1:]:
            yield from (f"{key}: {value}" for key, value in zip(table[0], row, strict=False))
        return
    named = len(table) > 1 and (
        len(rows) > 1 and _is_rule(rows[1]) or not words_of(table[0][0]).isdisjoint(_HEAD_WORDS)
    )
    signs = [verdict(cell) for cell in table[0]] if named else []
    for row in table[1:] if any(sign is not None for sign in signs) else table:
        yield from _row_lines(row, signs)


def _is_turned(rows: list[str]) -> bool:
    """Whether the first row holds the keys and the others their values."""
    table = [_split(row) for row in rows if not _is_rule(row)]
    if len(table) < 2 or len(table[0]) < 2 or any(verdict(cell) is not None for cell in table[0]):
        return False
    return all(verdict(row[0]) is not None or len(row) > 2 for row in table[1:]) and all(
        verdict(cell) is not None for row in table[1:] for cell in row[1:]
    )


def _row_lines(row: list[str], signs: list[bool | None]) -> Iterator[str]:
    """A row's cells; `signs`: what the head of each column says, where it is yes or no."""
    key = ""
    values = [_cell_verdict(cell) for cell in row]
    keyed = len(row) == 2 and values == [None, None] and not names_in(row[0].strip(NOISE)) and ":" not in row[0]
    if keyed and all(sign is None for sign in signs):
        yield f"{row[0]}: {row[1]}"
        return
    if len(row) == 2 and values[0] is not None and values[1] is None:  # the value stands first
        row, values = row[::-1], values[::-1]
    for at, (cell, value) in enumerate(zip(row, values, strict=True)):
        sign = signs[at] if at < len(signs) else None
        if not cell:
            continue
        if value is None:
            key = cell
            following = values[at + 1] if at + 1 < len(row) else None
            if sign is False:
                yield f"absent: {cell}"
            elif following is None and not any(values):
                yield cell
        elif key and (sign is not False or value):
            yield f"{key}: {'no' if sign is False or not value else 'yes'}"
