"""Which tags of several annotators hold: who can say what, what excludes what, and the policies of `resolve`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal

from authface.annotate.vocabulary.vocabulary import in_order
from authface.records import Tag

AnnotatedTags = Sequence[tuple[str, Sequence[Tag]]]
"""Annotators of one crop, the first one first, each with its tags."""
ChosenTags = list[tuple[str, Tag]]
"""Tags, each with the annotator it is of."""
Policy = Literal["first", "measured", "union", "agreed"]

MEASURED: Final = "measured"
MEASURABLE: Final = frozenset(
    {
        "close-up portrait", "facing the camera", "head turned to the left", "head turned to the right",
        "head tilted to the left", "head tilted to the right", "smiling", "mouth open", "mouth closed",
        "looking at the camera", "looking to the left", "looking to the right", "detailed skin texture", "smooth skin",
        "light from the left", "light from the right", "low key", "high key", "high contrast", "low contrast",
        "black and white", "toned monochrome", "warm tones", "cool tones", "vivid colours", "muted colours",
        "plain background", "white background", "black background", "grey background", "red background",
        "green background", "blue background", "shallow depth of field", "background in focus",
    }
)  # fmt: skip
"""Tags that `authface.annotate.measured.tagger` can give."""

Alternatives = tuple[frozenset[str], ...]


def _either(*alternatives: str) -> Alternatives:
    """Sets of tags, each written with bars between: what is in different ones cannot both be true of a crop."""
    return tuple(frozenset(name.strip() for name in text.split("|")) for text in alternatives)


EXCLUSIVE: Final[tuple[Alternatives, ...]] = (
    _either("close-up portrait | extreme close-up", "head and shoulders", "half-length portrait"),
    _either("child", "teenager", "young adult", "middle-aged", "elderly"),
    _either(
        "facing the camera",
        "head turned to the left",
        "head turned to the right",
    ),
    _either("facing the camera", "three-quarter view", "profile view"),
    _either("head tilted to the left", "head tilted to the right"),
    _either("chin raised", "chin lowered"),
    _either(
        "smiling | laughing",
        "neutral expression | serious expression | sad expression | angry expression | frowning",
    ),
    _either("mouth open | laughing", "mouth closed"),
    _either("teeth showing", "mouth closed"),
    _either("looking at the camera", "looking to the left", "looking to the right", "looking up", "looking down"),
    _either("looking at the camera", "looking away", "eyes closed"),
    _either("long hair", "short hair", "medium-length hair", "bald | shaved head"),
    _either("curly hair", "straight hair"),
    _either("clean-shaven", "beard | moustache | stubble | goatee"),
    _either("no makeup", "heavy makeup | red lipstick | smoky eyes | false eyelashes | face paint"),
    _either("smooth skin", "wrinkles | acne | blemishes | detailed skin texture"),
    _either("oily skin | dewy skin", "dry skin | matte skin"),
    _either("light from the left", "light from the right", "even light"),
    _either("hard light | direct flash", "soft light | softbox light"),
    _either("low key", "high key"),
    _either("dark tones", "bright tones"),
    _either("high contrast", "low contrast"),
    _either(
        "black and white",
        "toned monochrome | sepia",
        "warm tones | cool tones | vivid colours | pastel colours | earth tones | natural colours | cinematic colours",
    ),
    _either("toned monochrome", "vivid colours | natural colours"),
    _either("warm tones", "cool tones"),
    _either("vivid colours", "muted colours | faded colours"),
    _either("shallow depth of field | bokeh", "background in focus"),
    _either("sharp focus", "soft focus | motion blur"),
    _either("telephoto compression", "wide-angle distortion"),
    _either(
        "plain background",
        "textured background | colourful background | urban background | foliage background",
    ),
    _either("outdoor background", "indoor background | studio background"),
    _either(
        "white background", "black background", "grey background", "red background", "green background",
        "blue background", "brown background", "yellow background", "orange background", "pink background",
        "purple background",
    ),
    _either("dark background | black background", "light background | white background"),
)  # fmt: skip
"""What cannot be true together. Names within one alternative go well with each other."""


def _excluded() -> dict[str, frozenset[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for alternatives in EXCLUSIVE:
        for own in alternatives:
            for other in alternatives:
                if other is not own:
                    for name in own:
                        found[name] |= other - own
    return {name: frozenset(others) for name, others in found.items()}


EXCLUDED: Final = _excluded()
"""By name: the tags it excludes."""


def contradictions(ours: Iterable[str], theirs: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of names, one of each side, that cannot both be true."""
    there = set(theirs)
    return [(name, other) for name in sorted(set(ours)) for other in sorted(EXCLUDED.get(name, frozenset()) & there)]


def can_say(annotator: str, name: str) -> bool:
    """Whether the tag is among those the annotator knows: pixels measure few of them, a captioner may say all."""
    return annotator != MEASURED or name in MEASURABLE


def choose(found: AnnotatedTags, least: float, policy: Policy = "first") -> ChosenTags:
    """Annotator and tag of what holds under `policy`, of the tags at least as sure as `least`; each name once.

    `first`: of a group that several speak of, the first annotator's. `measured`: what can be measured is the measures'
    to say, the rest the others'. `union`: what anybody says. `agreed`: what nobody who speaks of its group and knows
    the tag leaves out. Under the last three, a tag that contradicts one of an earlier annotator is left out; under
    `measured` the measures are the earliest.
    """
    sure = [(who, in_order(tag for tag in tags if tag.confidence >= least)) for who, tags in found]
    return _POLICIES[policy](sure)


def _first(found: AnnotatedTags) -> ChosenTags:
    owner: dict[str, str] = {}
    return [(who, tag) for who, tags in found for tag in tags if owner.setdefault(tag.group, who) == who]


def _measured(found: AnnotatedTags) -> ChosenTags:
    if MEASURED not in (who for who, _ in found):
        return _first(found)
    first = sorted(found, key=lambda entry: entry[0] != MEASURED)
    others = [(who, [tag for tag in tags if who == MEASURED or tag.name not in MEASURABLE]) for who, tags in first]
    return _union(others)


def _union(found: AnnotatedTags) -> ChosenTags:
    chosen: dict[str, tuple[str, Tag]] = {}
    for who, tags in found:
        before = frozenset(chosen)
        for tag in tags:
            if tag.name not in chosen and not EXCLUDED.get(tag.name, frozenset()) & before:
                chosen[tag.name] = (who, tag)
    return list(chosen.values())


def _agreed(found: AnnotatedTags) -> ChosenTags:
    names = {who: {tag.name for tag in tags} for who, tags in found}
    groups = {who: {tag.group for tag in tags} for who, tags in found}

    def holds(tag: Tag) -> bool:
        knowing = [who for who in names if tag.group in groups[who] and can_say(who, tag.name)]
        return all(tag.name in names[who] for who in knowing)

    return _union([(who, [tag for tag in tags if holds(tag)]) for who, tags in found])


_POLICIES: Final[dict[Policy, Callable[[AnnotatedTags], ChosenTags]]] = {
    "first": _first,
    "measured": _measured,
    "union": _union,
    "agreed": _agreed,
}
