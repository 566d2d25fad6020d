"""Free text brought into tags: what a captioner answers, however it is written, becomes words that obey the rules.

A tag is a name of the vocabulary, or under the open vocabulary letters, spaces and hyphens, at most `MOST_WORDS`
words. What is said not to be there is never made a tag. Text is data: nothing it says is done.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from authface.annotate.vocabulary.synonyms import SYNONYMS
from authface.annotate.vocabulary.vocabulary import GROUP_OF, OTHER, VOCABULARY, in_order
from authface.records import Tag

CONFIDENCE: Final = 1.0
"""Of every tag of a captioner: it does not say how sure it is."""
CUT: Final = "…"
"""At the end of an answer that was cut off: its last piece may be half a tag, so it is dropped."""
MOST_WORDS: Final = 4
MOST_LETTERS: Final = 40
VERSION: Final = 1

_SPELLING = {
    "gray": "grey", "graying": "greying", "color": "colour", "colors": "colour", "colored": "coloured",
    "coloring": "colour", "colorful": "colourful", "multicolored": "colourful", "blonde": "blond",
    "mustache": "moustache", "mustaches": "moustache", "lighting": "light", "illumination": "light",
    "lights": "light", "backdrop": "background", "bg": "background", "centre": "center", "closeup": "close up",
    "portraits": "portrait", "shot": "portrait", "hairstyle": "hair", "haircut": "hair", "bespectacled": "glasses",
    "toward": "to", "towards": "to", "lens": "camera", "viewer": "camera",
}  # fmt: skip
_FILLERS = {"a", "an", "the", "his", "her", "their", "very", "slightly", "subtle", "visible", "wearing"}
"""Words that a tag keeps its meaning without, unless the vocabulary has it with them."""
_DENIALS = {
    "no", "not", "non", "none", "never", "neither", "nor", "without", "lacks", "lacking", "absent", "absence", "false",
    "null", "zero", "nothing", "nobody", "isn't", "aren't", "doesn't", "don't", "cannot", "can't", "hardly", "barely",
    "removed", "missing", "free", "lack", "minus", "hidden", "invisible", "unseen", "unclear", "unknown", "possibly",
    "maybe", "perhaps", "might", "either", "unsure", "undetermined", "undefined", "unlike",
}  # fmt: skip
"""A piece with one of these speaks of what is not there or not sure; so does one that the vocabulary lacks."""
_SENTENCE = {
    "is", "are", "was", "were", "has", "have", "had", "be", "been", "am", "wears", "appears", "appear", "seems",
    "looks", "shows", "this", "that", "these", "those", "there", "it", "its", "he", "she", "they", "i", "i'm", "you",
    "your", "my", "we", "who", "which", "here", "please", "sorry", "can", "could", "would", "should", "will", "may",
    "yes", "true", "ok", "okay", "sure", "present", "picture", "photo", "image",
}  # fmt: skip
_HEADS = {
    "glasses", "sunglasses", "earrings", "necklace", "hat", "headscarf", "beanie", "turban", "choker", "piercing",
    "tattoo", "beard", "moustache", "stubble", "bangs", "ponytail", "freckles", "wrinkles", "lipstick", "eyeliner",
    "eyeshadow",
}  # fmt: skip
"""Names that stay true whatever stands before them: ``black felt hat``."""
_FENCE = re.compile(r"```[a-z]*|\"")
_REASONING = re.compile(r"<think>.*?(?:</think>|$)", re.DOTALL | re.IGNORECASE)
_SEPARATORS = re.compile(r"[,;|•·…\n\r\t\v\f\x1c-\x1f\x85\u2028\u2029\[\]{}“”„«»、，；。]|\.(?=\s|$)|\s/\s")
_HEADING = re.compile(r":|\s[-–—=]+\s")
_NUMBERING = re.compile(r"^[\s(]*(?:\d{1,3}|[a-z])[.)]\s+")
_NOISE = " *_#>`'’()!?~+=.:<-–—"
_JOINTS = re.compile(r"\b(?:and|with|plus|in front of)\b|\s&\s")
_ARTICLES = re.compile(r"^(?:(?:an?|the)\s+)+")
_RULE = re.compile(r"[a-z]+(?:[ -][a-z]+)*")


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
    for piece in _without_denied(_pieces(text)):
        names = names_in(piece.text) or _names_under_heading(piece)
        if prose and not names and not _is_denied(piece.text):
            names = _names_in_sentence(piece.text)
        refused = not names and (_is_denied(piece.text) or _is_sentence(piece.text))
        for part in [] if names or refused else [_bare(part) for part in _JOINTS.split(piece.text)]:
            if more := names_in(part):
                names += more
            elif may_be_tag(part):
                unknown[part] = None
            else:
                dropped += 1
        found |= dict.fromkeys(names)
        dropped += refused
    tags = [Tag(name=name, group=GROUP_OF[name], confidence=CONFIDENCE) for name in found]
    others = [] if closed else [Tag(name=name, group=OTHER, confidence=CONFIDENCE) for name in unknown]
    return ParsedAnswer(in_order([*tags, *others])[:most], tuple(unknown), dropped)


def names_in(piece: str) -> tuple[str, ...]:
    """The names of the vocabulary that a piece stands for: one, or several as in ``long brown hair``."""
    if whole := _whole_match(piece):
        return whole
    names = _names()
    *before, last = normalise(_without_fillers(piece)).split() or [""]
    if not before or len(before) > 5 or _is_denied(piece) or _is_sentence(piece) or _JOINTS.search(piece):
        return ()
    found = _spans(before, last)
    return (names[last],) if not found and names.get(last) in _HEADS and _RULE.fullmatch(piece) else found


def _whole_match(piece: str) -> tuple[str, ...]:
    names = _names()
    return next(((names[key],) for key in (normalise(piece), normalise(_without_fillers(piece))) if key in names), ())


def _names_in_sentence(text: str) -> tuple[str, ...]:
    """The names that stand in a sentence, of two words or more, and single ones that mean one thing only."""
    said, found, at = normalise(text).split(), list[str](), 0
    while at < len(said):
        for end in range(min(len(said), at + 5), at, -1):
            *before, last = said[at:end]
            whole = _names().get(" ".join(said[at:end]), "")
            parts: tuple[str, ...] = (whole,) if whole and (before or whole in _HEADS | {"smiling"}) else ()
            if not parts and all(f"{word} {last}" in _names() for word in before):
                parts = _spans(before, last)
            if parts:
                found += parts
                at = end - 1
                break
        at += 1
    return tuple(found)


def _bare(part: str) -> str:
    return _ARTICLES.sub("", part.strip(_NOISE))


def _names_under_heading(piece: _Piece) -> tuple[str, ...]:
    """The names that a piece stands for under its heading: ``long, black`` under ``hair``."""
    if not piece.heading:
        return ()
    whole = f"{piece.text} {piece.heading}"
    if names := _whole_match(whole):
        return names
    if " " in piece.heading or _is_denied(whole) or _is_sentence(whole) or _JOINTS.search(whole):
        return ()
    *before, last = normalise(whole).split() or [""]
    return _spans(before, last)


def _spans(before: list[str], last: str) -> tuple[str, ...]:
    """The names that one or two neighbouring words make with the last."""
    names = _names()
    spans = [*before, *(" ".join(pair) for pair in pairwise(before))]
    return tuple(dict.fromkeys(names[f"{span} {last}"] for span in spans if f"{span} {last}" in names))


def may_be_tag(name: str) -> bool:
    """Whether a name may be a tag under the open vocabulary."""
    split = name.split(" ")
    return (
        _RULE.fullmatch(name) is not None
        and len(split) <= MOST_WORDS
        and 3 <= len(name) <= MOST_LETTERS
        and not (_SENTENCE | _DENIALS | {"or"}) & {*split, *name.split("-")}
    )


def normalise(piece: str) -> str:
    """One spelling of a piece, by which it is looked up: British, without plural, hyphens and articles."""
    flat = " ".join(_SPELLING.get(word, word) for word in piece.replace("-", " ").replace("’", "'").split())
    flat = re.sub(r"\bmake up\b", "makeup", flat)
    return " ".join(_singular(_SPELLING.get(word, word)) for word in flat.split() if word not in {"a", "an", "the"})


def fingerprint() -> str:
    """sha256 in hex of all that decides which tags a text makes."""
    text = json.dumps([VERSION, VOCABULARY, SYNONYMS], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def _names() -> dict[str, str]:
    """Names by their evened spelling; the vocabulary's own win over synonyms."""
    other = {normalise(synonym.strip()): name for name, text in SYNONYMS.items() for synonym in text.split(",")}
    return other | {normalise(name): name for name in GROUP_OF}


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def _without_fillers(piece: str) -> str:
    return " ".join(word for word in piece.split() if word not in _FILLERS)


@dataclass(frozen=True, slots=True)
class _Piece:
    text: str
    heading: str
    """What stood before the last colon, such as ``hair``."""


def _pieces(text: str) -> Iterator[_Piece]:
    """Lower-case pieces of the text between commas, line ends and the like, without markup around them."""
    cut = text.rstrip().endswith(CUT)
    text = unicodedata.normalize("NFKD", _REASONING.sub("", text)).lower()
    text = "".join(letter for letter in text if not unicodedata.combining(letter)).replace("’", "'")
    pieces = [piece for piece in _SEPARATORS.split(_FENCE.sub(" ", text)) if piece.strip(_NOISE)]
    heading = ""
    for piece in pieces[: len(pieces) - cut]:
        *headings, last = _HEADING.split(piece)
        heading = headings[-1].strip(_NOISE) if headings else heading
        if body := " ".join(_NUMBERING.sub("", last).strip(_NOISE).split()):
            yield _Piece(body, heading)


def _is_denied(piece: str) -> bool:
    """Whether a piece speaks of what is not there, or may not be."""
    return bool(_DENIALS & {word.strip("()'") for word in re.split(r"[\s-]+", piece)}) or "n't" in piece


def _is_sentence(piece: str) -> bool:
    return bool(_SENTENCE & set(re.split(r"[\s-]+", piece)))


def _without_denied(pieces: Iterable[_Piece]) -> Iterator[_Piece]:
    """The pieces without those from a denial to the ``or`` that ends it: ``no glasses, hat, or earrings``."""
    found = list(pieces)
    for at, piece in enumerate(found):
        if piece.text.split(" ")[0] in {"or", "nor"}:
            begin = next(
                (b for b in reversed(range(at)) if _is_denied(found[b].text) and not names_in(found[b].text)), at
            )
            found[begin : at + 1] = [_Piece("no", "")] * (at + 1 - begin)
    yield from found
