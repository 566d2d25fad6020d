"""One spelling for what means the same, and the words by which a name of the vocabulary is found in a piece of text."""

from __future__ import annotations

import functools
import re
from itertools import pairwise

from authface.annotate.vocabulary.synonyms import SYNONYMS
from authface.annotate.vocabulary.vocabulary import GROUP_OF, VOCABULARY

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


def is_denied(piece: str) -> bool:
    """Whether a piece speaks of what is not there, or may not be."""
    return bool((DENIALS | UNSURE) & words_of(piece)) or "n't" in piece


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
