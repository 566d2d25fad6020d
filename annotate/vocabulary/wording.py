"""Free text brought into tags: what a captioner answers, however it is written, becomes words that obey the rules.

A tag is a name of the vocabulary, or under the open vocabulary letters, spaces and hyphens, at most `MOST_WORDS`
words. What is said not to be there, and how far that reaches, is never made a tag. Text is data: nothing it says is
done.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from authface.annotate.vocabulary.pieces import NOISE, Fragment, pieces, verdict
from authface.annotate.vocabulary.spelling import (
    DENIALS,
    HEADS,
    JOINTS,
    MODIFIERS,
    RULE,
    SENTENCE,
    THINGS,
    UNSURE,
    WORN,
    has_denial,
    is_denied,
    is_sentence,
    is_thing,
    kind,
    names_by_spelling,
    names_in,
    normalise,
    spans,
    whole_match,
    words_of,
)
from authface.annotate.vocabulary.vocabulary import GROUP_OF, OTHER, SYNONYMS, VOCABULARY, in_order
from authface.records import Tag

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
        (b for b in reversed(range(at)) if pieces[b].line == pieces[at].line and has_denial(pieces[b].text)), at
    )
    begins = begin + bool(names_in(pieces[begin].text)) if begin < at else at
    between = [pieces[b].text for b in range(begin + 1, at)]
    leads = bool(_ANDS.search(text))
    if not leads and not all(is_thing(item, THINGS) or not names_in(item) for item in between):
        return (at,)
    return range(begins, at + 1)


CONFIDENCE: Final = 1.0
"""Of every tag of a captioner: it does not say how sure it is."""
MOST_WORDS: Final = 4
MOST_LETTERS: Final = 40
VERSION: Final = 5

_LEAD = re.compile(r"^(?:(?:but|also|just|plus|yes|and|with|wears|has)\s+)+|\s+yes$")
"""What may stand around a name that is there."""
_ARTICLES = re.compile(r"^(?:(?:an?|the)\s+)+")


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """What an answer says."""

    tags: tuple[Tag, ...] = ()
    """In the vocabulary's order."""
    unknown: tuple[str, ...] = ()
    """What obeys the rules and is not in the vocabulary, in the answer's order, each once."""
    dropped: int = 0
    """Pieces that are no tags: sentences, what is not there, too many words, digits, markup."""


def parse_tags(text: str, *, closed: bool, most: int, prose: bool = False) -> ParsedAnswer:
    """The tags that `text` says, at most `most`, the first in the vocabulary's order; `closed`: of the vocabulary only.

    `prose` looks for them within sentences too. Applied to the prompt of its own tags it gives the same tags again.
    """
    found: dict[str, None] = {}
    unknown: dict[str, None] = {}
    dropped = 0
    said = pieces(text)
    for piece in said_to_be_there(said):
        names = _names(piece, prose)
        refused = not names and (is_denied(piece.text) or is_sentence(piece.text))
        for part in [] if names or refused else [_bare(part) for part in JOINTS.split(piece.text)]:
            if more := names_in(part):
                names += more
            elif may_be_tag(part):
                unknown[part] = None
            else:
                dropped += 1
        found |= dict.fromkeys(names)
        dropped += refused
    denied = denied_names(said)
    found = {name: None for name in found if name not in denied}
    tags = [Tag(name=name, group=GROUP_OF[name], confidence=CONFIDENCE) for name in found]
    others = [] if closed else [Tag(name=name, group=OTHER, confidence=CONFIDENCE) for name in unknown]
    return ParsedAnswer(in_order([*tags, *others])[:most], tuple(unknown), dropped)


def _names(piece: Fragment, prose: bool) -> tuple[str, ...]:
    """The names that a piece stands for as a whole; in `prose` those within it too."""
    if piece.own and piece.verdict is not None:
        return names_in(piece.heading) if piece.verdict else ()
    text = _LEAD.sub("", piece.text)
    if names := names_in(text) or _names_under_heading(piece):
        return names
    return _names_in_sentence(piece.text) if prose and not is_denied(piece.text) else ()


def _names_in_sentence(text: str) -> tuple[str, ...]:
    """The names that stand in a sentence, of two words or more, and single ones that mean one thing only."""
    said, found, at = normalise(text).split(), list[str](), 0
    while at < len(said):
        for end in range(min(len(said), at + 5), at, -1):
            *before, last = said[at:end]
            whole = names_by_spelling().get(" ".join(said[at:end]), "")
            parts: tuple[str, ...] = (whole,) if whole and (before or whole in HEADS | {"smiling"}) else ()
            if not parts and all(f"{word} {last}" in names_by_spelling() for word in before):
                parts = spans(before, last)
            if parts:
                found += parts
                at = end - 1
                break
        at += 1
    return tuple(found)


def _bare(part: str) -> str:
    return _ARTICLES.sub("", part.strip(NOISE))


def _names_under_heading(piece: Fragment) -> tuple[str, ...]:
    """The names that a piece stands for under its heading: ``long, black`` under ``hair``."""
    if not piece.heading:
        return ()
    whole = f"{piece.text} {piece.heading}"
    if names := whole_match(whole):
        return names
    if " " in piece.heading or is_denied(whole) or is_sentence(whole) or JOINTS.search(whole):
        return ()
    *before, last = normalise(whole).split() or [""]
    return spans(before, last)


def may_be_tag(name: str) -> bool:
    """Whether a name may be a tag under the open vocabulary."""
    split = name.split(" ")
    return (
        RULE.fullmatch(name) is not None
        and len(split) <= MOST_WORDS
        and 3 <= len(name) <= MOST_LETTERS
        and not (SENTENCE | DENIALS | UNSURE) & {*split, *name.split("-")}
    )


def fingerprint() -> str:
    """sha256 in hex of all that decides which tags a text makes."""
    text = json.dumps([VERSION, VOCABULARY, SYNONYMS, sorted(MODIFIERS | DENIALS | UNSURE)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
