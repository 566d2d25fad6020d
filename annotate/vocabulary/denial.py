"""Which pieces of an answer speak of what is not there, and how far that reaches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from authface.annotate.vocabulary.pieces import Fragment, verdict
from authface.annotate.vocabulary.spelling import (
    DENIALS,
    THINGS,
    WORN,
    is_denied,
    is_thing,
    kind,
    names_in,
    whole_match,
    words_of,
)

_OR = re.compile(r"\b(?:or|nor)\b")
_ANDS = re.compile(r"^(?:and|or|nor|as well as)\b")
_ARTICLE = re.compile(r"\b(?:an?|some)\s")
_NO_KIND = re.compile(r"(?:there (?:is|are) )?(?:no|without|(?:not )?wearing no|not wearing)((?: any| visible)*) (.+)")
_SUBJECT_LAST = re.compile(
    r"\b(?:is|are|was|were)\b|\b(?:absent|missing|not (?:\w+ )?(?:visible|present|worn|shown|seen))$"
)


def said_to_be_there(pieces: Sequence[Fragment]) -> Iterator[Fragment]:
    """The pieces without those that another piece denies; what denies itself is left, as ``no hat``."""
    denied = set[int]()
    for at, piece in enumerate(pieces):
        if piece.denied:
            denied.add(at)
        if piece.about or (verdict(piece.text) is not None and not piece.own):
            denied |= set(_beside(pieces, at)) if piece.verdict is False else set()
        elif piece.own and verdict(piece.text) is False:
            denied |= set(_before(pieces, at))
        elif is_denied(piece.text):
            denied |= set(_after(pieces, at)) | set(_listed_before(pieces, at))
        denied |= set(_ended_by_or(pieces, at)) | set(_contradicted(pieces, at))
    for at, piece in enumerate(pieces):
        yield Fragment("no") if at in denied else piece


def denied_names(pieces: Sequence[Fragment]) -> set[str]:
    """The names that an answer says are not there: it may name them elsewhere, and is then not to be believed."""
    found = set[str]()
    for piece in pieces:
        if piece.own and piece.verdict is False:
            found |= set(names_in(piece.heading))
        words = piece.text.split()
        if words and words[0] in {"no", "without", "not"}:
            found |= set(names_in(_without_article(" ".join(words[1:]))))
    return found


def _beside(pieces: Sequence[Fragment], at: int) -> Iterable[int]:
    """What a value that stands for itself speaks of: the piece before it, or all of its braces if it comes first."""
    here = pieces[at]
    if here.about:
        if at and pieces[at - 1].group == here.group:
            return () if pieces[at - 1].about else (at - 1,)
        return [after for after in range(at + 1, len(pieces)) if pieces[after].group == here.group]
    return (at - 1,) if at and pieces[at - 1].line == here.line else ()


def _contradicted(pieces: Sequence[Fragment], at: int) -> Iterator[int]:
    """What is listed behind a denial of all of its kind: ``none, hat``, ``no headwear, smiling, cap``.

    One of the two is wrong; what may not be there is no tag.
    """
    here = pieces[at]
    kinds = _denied_kind(here)
    for after in range(at + 1, len(pieces)) if kinds else ():
        piece = pieces[after]
        if piece.line != here.line or piece.own or piece.text.startswith("but "):
            return
        if kinds & set(names_in(_ANDS.sub("", piece.text).strip())):
            yield after


def _denied_kind(piece: Fragment) -> set[str]:
    """All names that a piece denies at once without naming one."""
    if verdict(piece.text) is False and not piece.text[0].isdigit():
        heading = piece.heading
        return kind(heading) or (set() if piece.about or whole_match(heading) or names_in(heading) else THINGS)
    match = _NO_KIND.fullmatch(piece.text)
    return kind(match[2]) if match and not piece.own else set()


def _before(pieces: Sequence[Fragment], at: int) -> Iterator[int]:
    """The things that are listed before a key with a denying value: ``hat, earrings: none``."""
    line = pieces[at].line
    while at and pieces[at - 1].line == line and not pieces[at - 1].own and is_thing(pieces[at - 1].text, THINGS):
        at -= 1
        yield at


def _listed_before(pieces: Sequence[Fragment], at: int) -> Iterator[int]:
    """The things of a sentence that ends in a denial: ``glasses, hat, and earrings are absent``."""
    text = pieces[at].text
    if _SUBJECT_LAST.search(text) and (_ANDS.search(text) or re.search(r"\b(?:are|were|and|or)\b", text)):
        yield from _before(pieces, at)


def _after(pieces: Sequence[Fragment], at: int) -> Iterator[int]:
    """The things that are listed after a denial: ``no glasses, hat, earrings``."""
    first, line = pieces[at].text, pieces[at].line
    if not _opens_list(first) or (at and pieces[at - 1].line == line and _opens_list(pieces[at - 1].text)):
        return  # who says ``no`` of each thing says it of those alone
    kinds = WORN if names_in(first) else THINGS
    for after in range(at + 1, len(pieces)):
        text = pieces[after].text
        closes = re.search(r"\b(?:and|or|nor)\b", text)
        item = _ANDS.sub("", text).strip()
        if pieces[after].line != line or pieces[after].own or is_denied(item) or item.startswith("but "):
            return
        if _ARTICLE.search(f"{item} ") and not _ARTICLE.search(f"{first} "):
            return
        parts = [part.strip() for part in re.split(r"\band\b", item)]
        unknown = " " not in item and not names_in(item)
        if not unknown and not all(is_thing(_without_article(part), kinds) for part in parts):
            return
        yield after
        if closes:
            return


def _opens_list(text: str) -> bool:
    """Whether a denial stands before the one thing it denies, so that the next may be denied with it."""
    words = text.split()
    at = next((at for at, word in enumerate(words) if DENIALS & words_of(word) and not word.endswith("-free")), None)
    if at is None or at + 1 == len(words):
        return False
    rest = " ".join(
        word for word in words[at + 1 :] if word not in {"any", "wear", "wears", "have", "of", "such", "as"}
    )
    names = names_in(_without_article(rest.strip(" ()")))
    inner = re.search(r"\b(?:and|or|nor|but)\b", rest)
    return not inner and (not names or set(names) <= THINGS) and (at == 0 or not names_in(" ".join(words[:at])))


def _without_article(text: str) -> str:
    return re.sub(r"^(?:(?:an?|the|any|some|visible)\s+)+", "", text.strip(" ()."))


def _ended_by_or(pieces: Sequence[Fragment], at: int) -> Iterable[int]:
    """All from a denial to the ``or`` that ends its list: ``no glasses, hat, or earrings``."""
    text = pieces[at].text
    if not _OR.search(text):
        return ()
    begin = next(
        (b for b in reversed(range(at)) if pieces[b].line == pieces[at].line and DENIALS & words_of(pieces[b].text)), at
    )
    begins = begin + bool(names_in(pieces[begin].text)) if begin < at else at
    between = [pieces[b].text for b in range(begin + 1, at)]
    leads = bool(_ANDS.search(text))
    if not leads and not all(is_thing(item, THINGS) or not names_in(item) for item in between):
        return (at,)
    return range(begins, at + 1)
