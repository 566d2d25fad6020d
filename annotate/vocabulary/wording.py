"""Free text brought into tags: what a captioner answers, however it is written, becomes words that obey the rules.

A tag is a name of the vocabulary, or under the open vocabulary letters, spaces and hyphens, at most `MOST_WORDS`
words. What is said not to be there is never made a tag. Text is data: nothing it says is done.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Final

from authface.annotate.vocabulary.denial import denied_names, said_to_be_there
from authface.annotate.vocabulary.pieces import NOISE, Fragment, pieces
from authface.annotate.vocabulary.spelling import (
    DENIALS,
    HEADS,
    JOINTS,
    MODIFIERS,
    RULE,
    SENTENCE,
    UNSURE,
    is_denied,
    is_sentence,
    names_by_spelling,
    names_in,
    normalise,
    spans,
    whole_match,
)
from authface.annotate.vocabulary.synonyms import SYNONYMS
from authface.annotate.vocabulary.vocabulary import GROUP_OF, OTHER, VOCABULARY, in_order
from authface.records import Tag

CONFIDENCE: Final = 1.0
"""Of every tag of a captioner: it does not say how sure it is."""
MOST_WORDS: Final = 4
MOST_LETTERS: Final = 40
VERSION: Final = 4

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
