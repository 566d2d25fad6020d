"""The words of a captioner made plain: cleaned of what no reader sees, and spelled one way where they mean the same.

`clean` leaves out what a language model wrote for itself, its reasoning too. The answer that is kept and the answer
that is read are both its result: nothing is escaped here, which is for logs and pages. By the spelling a name of the
vocabulary is found in a piece of text.
"""

from __future__ import annotations

import functools
import html
import re
import unicodedata
from itertools import pairwise
from typing import Final

from authface.annotate.vocabulary.vocabulary import GROUP_OF, SYNONYMS, VOCABULARY

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
_MODIFIERS = """
    black white grey silver brown dark light bright blond golden gold red ginger auburn copper blue green yellow orange
    pink purple violet beige tan navy maroon burgundy turquoise teal cream ivory bronze brass rose coral colourful
    coloured multi multicolour pale deep rich warm cool neutral natural pastel neon tinted mirrored clear transparent
    translucent glossy matte shiny metallic metal steel wire wired plastic acetate horn tortoise tortoiseshell shell
    wooden wood leather felt wool woollen woolen knit knitted crochet straw cotton silk satin velvet lace denim fur
    faux fabric cloth pearl pearls diamond crystal gemstone stone jade beaded bead sequined jewelled jeweled
    round rounded square oval rectangular cat eye aviator browline pilot thick thin rimmed framed rim frame rimless
    semi half full oversized large big huge small little tiny long short medium mid length wide narrow high low tall
    slim slender chunky heavy delicate dainty fine simple plain elegant stylish fashionable modern classic retro
    vintage old antique traditional ethnic ornate decorative decorated embellished statement designer statement
    reading prescription corrective sun sports sporty safety swimming ski sun winter summer hoop hoops stud studs
    dangling dangle drop dangly teardrop tassel clip huggie chain pendant choker layered link cross heart star shaped
    floral flowered patterned striped checked checkered plaid polka dot printed embroidered textured felted brimmed
    brim wide-brimmed fedora bowler trilby baseball cowboy bucket top newsboy panama beret military police sailor
    graduation party witch pointed peaked chef construction hard
    bushy scruffy neat neatly well trimmed groomed kept unkempt patchy sparse salt pepper and stubbly cropped close
    curly wavy straight frizzy kinky coily sleek smooth silky soft flowing voluminous thick thinning fluffy feathered
    tousled messy wind windblown swept side parted combed brushed back slicked layered choppy blunt wispy curtain
    center loose tied styled bob braided shoulder chin neck waist collar chest ear nape
    strong faint slight subtle gentle mild dramatic intense harsh hard diffused diffuse directional ambient artificial
    indirect direct overhead frontal lateral evening morning afternoon noon late early day sunny overcast
    natural-looking studio professional indoor outdoor single main key fill left right upper lower bottom front rear
    blurred blurry smooth-looking defocused unfocused solid uniform seamless dark-toned light-toned gradient
    even slightly very quite fairly rather softly gently brightly evenly mostly mainly moderately lightly heavily
    visible prominent noticeable distinct defined pronounced scattered many some several two few one pair of
    smile's facial facial-hair forehead cheek cheeks nose arm neck hand face head hair lip lips eye eyes
    red-framed gold-framed winged smudged smoky shimmery nude bold creamy
"""
MODIFIERS = frozenset(_MODIFIERS.split())
"""What may stand before a name that is not in the vocabulary with it: all else may deny it (``sans``, ``former``)."""
DENIALS = {
    "no", "not", "non", "none", "never", "neither", "nor", "without", "lacks", "lacking", "absent", "absence", "false",
    "null", "zero", "nothing", "nobody", "isn't", "aren't", "doesn't", "don't", "cannot", "can't", "hardly", "barely",
    "removed", "missing", "free", "lack", "minus", "hidden", "invisible", "unseen", "unknown", "undefined", "unlike",
    "sans", "devoid", "n/a", "na", "nil", "nope", "except", "excluding", "excluded", "undetected", "nowhere", "ain't",
    "scarcely", "void", "former", "formerly", "previously", "bereft", "omitted", "avoid",
    "wasn't", "weren't", "hasn't", "didn't",
    "won't",
}  # fmt: skip
UNSURE = {
    "unclear", "possibly", "maybe", "perhaps", "might", "either", "unsure", "undetermined", "or", "whether", "if",
    "probably", "uncertain", "potentially", "presumably", "doubtful", "questionable", "instead", "than",
}  # fmt: skip
"""A piece with one of these, or of `DENIALS`, speaks of what is not there or not sure."""
SENTENCE = {
    "is", "are", "was", "were", "has", "have", "had", "be", "been", "am", "wears", "appears", "appear", "seems",
    "looks", "shows", "this", "that", "these", "those", "there", "it", "its", "he", "she", "they", "i", "i'm", "you",
    "your", "my", "we", "who", "which", "here", "please", "sorry", "can", "could", "would", "should", "will", "may",
    "yes", "true", "ok", "okay", "sure", "present", "picture", "photo", "image",
}  # fmt: skip
HEADS = {
    "glasses", "sunglasses", "earrings", "necklace", "hat", "headscarf", "beanie", "turban", "choker", "piercing",
    "tattoo", "beard", "moustache", "stubble", "bangs", "ponytail", "freckles", "wrinkles", "lipstick", "eyeliner",
    "eyeshadow",
}  # fmt: skip
"""Names that stay true with `MODIFIERS` before them: ``black felt hat``."""
JOINTS = re.compile(r"\b(?:and|with|plus|in front of)\b|\s&\s")
RULE = re.compile(r"[a-z]+(?:[ -][a-z]+)*")
WORN = {*VOCABULARY["accessories"], "beard", "moustache", "stubble", "goatee", "bangs"}
THINGS = (
    WORN
    | set(VOCABULARY["makeup"]) - {"no makeup"}
    | {"freckles", "wrinkles", "fine lines", "skin pores", "moles", "acne", "blemishes", "scar", "dark circles"}
)
"""Names that a denial lists one after the other, ``no glasses, hat, earrings``: what is worn, or may be on a face."""

_HEADWEAR = {"hat", "headscarf", "cap", "beanie", "turban", "veil", "helmet", "hood", "hair band"}
_KINDS: dict[str, set[str]] = {
    **{group: set(names) for group, names in VOCABULARY.items()},
    **dict.fromkeys(("accessory", "adornments", "items"), set(VOCABULARY["accessories"])),
    **dict.fromkeys(("headwear", "headgear", "head coverings"), _HEADWEAR),
    **dict.fromkeys(("eyewear", "spectacles"), {"glasses", "sunglasses"}),
    **dict.fromkeys(("jewelry", "jewellery"), {"earrings", "necklace", "choker", "piercing"}),
    **dict.fromkeys(("facial hair", "beard"), {"beard", "moustache", "stubble", "goatee"}),
    **dict.fromkeys(("make-up", "cosmetics"), set(VOCABULARY["makeup"])),
}


_of_pieces = functools.lru_cache(4096)
"""Answers to one prompt say the same pieces again and again."""


@_of_pieces
def normalise(piece: str) -> str:
    """One spelling of a piece, by which it is looked up: British, without plural, hyphens and articles."""
    flat = " ".join(_SPELLING.get(word, word) for word in piece.replace("-", " ").replace("’", "'").split())
    flat = re.sub(r"\bmake up\b", "makeup", flat)
    return " ".join(_singular(_SPELLING.get(word, word)) for word in flat.split() if word not in {"a", "an", "the"})


@functools.cache
def _kinds() -> dict[str, set[str]]:
    return {normalise(word): names - {"no makeup"} for word, names in _KINDS.items()}


def kind(word: str) -> set[str]:
    """The names that a word stands for which is none itself: ``headwear``, ``accessories``; empty for another word."""
    return _kinds().get(normalise(_without_fillers(word)), set())


@functools.cache
def _known_words() -> set[str]:
    joining = {"and", "with", "plus", "in", "front", "of", "as", "well", "but", "also", "any", "some"}
    spelled = " ".join([*names_by_spelling(), *GROUP_OF, *SYNONYMS.values()])
    return (
        _FILLERS
        | MODIFIERS
        | DENIALS
        | UNSURE
        | SENTENCE
        | joining
        | set(_SPELLING)
        | set(re.findall("[a-z]+", spelled))
    )


def is_known_word(word: str) -> bool:
    """Whether a word in lower case is one by which names are found, or by which they are denied."""
    return word in _known_words() or normalise(word) in _known_words()


@functools.cache
def names_by_spelling() -> dict[str, str]:
    """Names by their evened spelling; the vocabulary's own win over synonyms."""
    other = {normalise(synonym.strip()): name for name, text in SYNONYMS.items() for synonym in text.split(",")}
    return other | {normalise(name): name for name in GROUP_OF}


@_of_pieces
def names_in(piece: str) -> tuple[str, ...]:
    """The names of the vocabulary that a piece stands for: one, or several as in ``long brown hair``."""
    if whole := whole_match(piece):
        return whole
    names = names_by_spelling()
    *before, last = normalise(_without_fillers(piece)).split() or [""]
    if not before or len(before) > 5 or is_denied(piece) or is_sentence(piece) or JOINTS.search(piece):
        return ()
    found = spans(before, last)
    return (names[last],) if not found and names.get(last) in HEADS and only_modifiers(before) else found


def whole_match(piece: str) -> tuple[str, ...]:
    """The name that a piece is another spelling of."""
    names = names_by_spelling()
    return next(((names[key],) for key in (normalise(piece), normalise(_without_fillers(piece))) if key in names), ())


def spans(before: list[str], last: str) -> tuple[str, ...]:
    """The names that one or two neighbouring words make with the last; none where another word may deny them."""
    names = names_by_spelling()
    alone = {word for word in before if f"{word} {last}" in names}
    pairs = [pair for pair in pairwise(before) if f"{' '.join(pair)} {last}" in names]
    if not only_modifiers(set(before) - alone - {word for pair in pairs for word in pair}):
        return ()
    found = [*(word for word in before if word in alone), *map(" ".join, pairs)]
    return tuple(dict.fromkeys(names[f"{span} {last}"] for span in found))


def only_modifiers(words: list[str] | set[str]) -> bool:
    """Whether all words leave the name behind them true; they are spelled as `normalise` does."""
    return set(words) <= _modifiers()


@functools.cache
def _modifiers() -> set[str]:
    return {part for word in MODIFIERS for part in normalise(word).split()} | _FILLERS


def is_thing(piece: str, kinds: set[str]) -> bool:
    """Whether a piece is no more than the name of a thing of `kinds`, as the items of a denied list are."""
    name = next(iter(whole_match(piece)), "")
    bare = normalise(_without_fillers(piece))
    return name in kinds and (" " not in bare or (bare == normalise(name) and name not in VOCABULARY["makeup"]))


@_of_pieces
def is_denied(piece: str) -> bool:
    """Whether a piece speaks of what is not there, or may not be; ``false eyelashes`` are there."""
    return bool((DENIALS | UNSURE) & words_of(_without_named_so(piece))) or "n't" in piece


def has_denial(piece: str) -> bool:
    """Whether a piece has a word of `DENIALS` that is no part of a name."""
    return bool(DENIALS & words_of(_without_named_so(piece)))


def _without_named_so(piece: str) -> str:
    return _named_so().sub("", piece)


@functools.cache
def _named_so() -> re.Pattern[str]:
    """The names with a word that elsewhere denies, in any of their spellings."""
    spelled = [*GROUP_OF, *(synonym.strip() for text in SYNONYMS.values() for synonym in text.split(","))]
    names = [
        name for name in spelled if DENIALS & words_of(name) and names_by_spelling()[normalise(name)] != "no makeup"
    ]
    return re.compile(rf"\b(?:{'|'.join(re.escape(name.removesuffix('es').removesuffix('s')) for name in names)})")


@_of_pieces
def is_sentence(piece: str) -> bool:
    """Whether a piece has a word that tags have not."""
    return bool(SENTENCE & set(re.split(r"[\s-]+", piece)))


def words_of(piece: str) -> set[str]:
    """Words, without what stands around them."""
    return {word.strip("()'!?.,*_\"<>~") for word in re.split(r"[\s-]+", piece)}


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def _without_fillers(piece: str) -> str:
    return " ".join(word for word in piece.split() if word not in _FILLERS)


_WORD = (
    r"(?:seed:)?(?:thinking|think|thoughts?|reasoning|reason|reflection|reflect|analysis|scratch_?pad|deliberation|"
    r"inner_monologue|monologue|chain_of_thought|cot)"
)
_ANSWER = r"(?:begin_of_|start_of_)?(?:final_?)?(?:answer|response|output|conclusion|solution|box|final)"
_END: Final = re.compile(
    rf"""
    [<\[◁]\s*\|?\s*(?:/\s*\|?|end_of_|end_){_WORD}\s*\|?\s*[>\]▷]     # </think>  [/THINK]  <|END_THINKING|>  ◁/think▷
    | <\|?channel\|?>\s*final\b(?:\s*<\|?message\|?>)? | <channel\|>    # gpt-oss, and others with channels
    | \bassistant\s{{0,2}}final(?=\W|$|(?-i:[A-Z])) | assistantfinal      # the same, its special tokens left out
    | <unused95>
    | [<\[]\|?{_ANSWER}\|?[>\]]                                        # where the answer is marked, it begins there
    | ^[\s*_\#>]*final\ (?:answer|tags|output|response|caption)[*_\s]*:
    | ^[\s*_\#>]*here(?:\ is|'s)\ my\ response[*_\s]*:
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
"""What ends reasoning: all before the last of these is no answer."""
_BEGIN: Final = re.compile(
    rf"""
    [<\[◁]\|?\s*(?:begin_of_|start_of_|start_)?{_WORD}(?:\s[^<>\[\]\n]{{0,80}})?\|?[>\]▷]
    | <\|?channel\|?>\s*\w+ | <unused94>
    | \A\s*(?:analysis|commentary)(?=(?-i:[A-Z]))
    | ^[\s*_\#>]*here(?:\ is|'s)\ my\ thought\ process[*_\s]*:
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
"""What begins reasoning: where no end follows, all behind it is no answer."""
_ESCAPED = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))")
_TERMINAL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_MARKERS = set(re.findall("[a-z]{3,}", _WORD + _ANSWER)) | {"thought", "scratchpad", "assistant", "channel", "message"}
"""Words that only marks of reasoning have."""
_UNSEEN = "\0"
"""Stands for characters that show nothing and take no room; a text has none of its own left."""
_GLUED = re.compile(rf"[^\W\d_]+(?:{_UNSEEN}+[^\W\d_]+)+")
_LONGEST_WORD = 24
_BLANK = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters and symbols that show nothing."""
_LINE_ENDS = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


def clean(text: str) -> str:
    """The answer in a text: visible characters, spaces, tabs and newlines. Applied again it changes nothing more."""
    while (found := _visible(_without_reasoning(_visible(_unescaped(text))))) != text:
        text = found
    return text


def _without_reasoning(text: str) -> str:
    ends = [match.end() for match in _END.finditer(text)]
    text = text[ends[-1] :] if ends else text
    begin = _BEGIN.search(text)
    return text[: begin.start()] if begin else text


def _unescaped(text: str) -> str:
    """With what a program that sent or kept it had escaped: ``\\u00a0``, ``\\n``, ``&nbsp;``."""

    def letter(match: re.Match[str]) -> str:
        number = int(match[1] or match[2] or match[3], 16)
        return chr(number) if number <= 0x10FFFF else " "

    return html.unescape(re.sub(r"\\[nrt](?![a-z]{3}\\)", "\n", _ESCAPED.sub(letter, text)))


def _visible(text: str) -> str:
    text = _TERMINAL.sub("", text.replace("\r\n", "\n"))
    shown = unicodedata.normalize("NFC", "".join(map(_shown, text)))
    return _GLUED.sub(lambda glued: _words(glued[0]), shown).replace(_UNSEEN, "") if _UNSEEN in shown else shown


def _words(glued: str) -> str:
    """Letters with unseen characters between them, as words: joined where that makes a known word, else apart.

    Where no known word is among them they are one: ``no|glasses`` is two words, ``sun|glasses`` and ``xy|zzy`` one.
    """
    parts = [part for part in glued.split(_UNSEEN) if part]
    words, known, at = list[str](), False, 0
    while at < len(parts):
        found = 0
        for end in range(at + 1, len(parts) + 1):
            joined = "".join(parts[at:end])
            if len(joined) > _LONGEST_WORD:
                break
            found = end if _is_word(joined) else found
        words.append("".join(parts[at : found or at + 1]))
        known, at = known or bool(found), found or at + 1
    return " ".join(words) if known else "".join(words)


@functools.lru_cache(4096)
def _is_word(text: str) -> bool:
    bare = "".join(letter for letter in unicodedata.normalize("NFKD", text).lower() if letter.isalpha())
    return bare in _MARKERS or is_known_word(bare)


def _shown(letter: str) -> str:
    """A character as it is read: itself, a space, a line end, or `_UNSEEN`."""
    if letter in "\n\t" or " " <= letter <= "~":
        return letter
    if letter in _LINE_ENDS:
        return "\n"
    kind = unicodedata.category(letter)
    if kind == "Zs" or letter in _BLANK:
        return " "
    variation = "\ufe00" <= letter <= "\ufe0f" or "\U000e0100" <= letter <= "\U000e01ef"
    return letter if kind[0] in "LNPSM" and not variation else _UNSEEN
