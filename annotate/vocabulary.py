"""The closed vocabulary of tags, and the prompt they make.

An annotator may say only what stands here. Left and right are those of the picture as it is seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from authface.records import Tag

VOCABULARY: Final[dict[str, tuple[str, ...]]] = {
    "framing": ("close-up portrait",),
    "age": ("young adult", "middle-aged", "elderly"),
    "pose": (
        "facing the camera",
        "head turned to the left",
        "head turned to the right",
        "head tilted to the left",
        "head tilted to the right",
    ),
    "expression": (
        "smiling",
        "neutral expression",
        "mouth open",
        "mouth closed",
        "eyes closed",
        "looking at the camera",
        "looking to the left",
        "looking to the right",
    ),
    "hair": (
        "long hair",
        "short hair",
        "bald",
        "curly hair",
        "straight hair",
        "bangs",
        "black hair",
        "brown hair",
        "blond hair",
        "red hair",
        "grey hair",
        "beard",
        "moustache",
    ),
    "accessories": ("glasses", "sunglasses", "earrings", "necklace", "hat", "headscarf"),
    "makeup": ("no makeup", "natural makeup", "red lipstick", "eyeliner"),
    "skin": ("detailed skin texture", "smooth skin", "freckles", "wrinkles"),
    "lighting": ("light from the left", "light from the right", "even light", "hard light", "soft light", "backlit"),
    "tone": (
        "black and white",
        "toned monochrome",
        "low key",
        "high key",
        "high contrast",
        "low contrast",
        "warm tones",
        "cool tones",
        "vivid colours",
        "muted colours",
    ),
    "lens": ("shallow depth of field", "background in focus"),
    "background": (
        "plain background",
        "white background",
        "black background",
        "grey background",
        "red background",
        "blue background",
        "green background",
    ),
}
"""Tags by group. The order of the groups is their priority in a prompt, that of the tags their order within it:
a text encoder cuts a prompt after 75 tokens, so what identifies a picture comes first."""

SEMANTIC: Final = ("framing", "age", "pose", "hair", "accessories")
"""Groups that say what is seen; the others say how it was photographed."""

GROUP_OF: Final[dict[str, str]] = {name: group for group, names in VOCABULARY.items() for name in names}
"""The group of every tag."""

_ORDER = {name: index for index, name in enumerate(GROUP_OF)}


def make_tag(name: str, confidence: float) -> Tag:
    """A tag of the vocabulary; raises KeyError where there is none of this name."""
    return Tag(name=name, group=GROUP_OF[name], confidence=confidence)


def in_order(tags: Iterable[Tag]) -> tuple[Tag, ...]:
    """Tags in the vocabulary's order, each name once (the surest); names it does not hold come last, by name."""
    surest: dict[str, Tag] = {}
    for tag in tags:
        if tag.name not in surest or surest[tag.name].confidence < tag.confidence:
            surest[tag.name] = tag
    return tuple(sorted(surest.values(), key=lambda tag: (_ORDER.get(tag.name, len(_ORDER)), tag.name)))


def prompt(tags: Iterable[Tag]) -> str:
    """The prompt of some tags: their names in the vocabulary's order, each once, separated by commas."""
    return ", ".join(tag.name for tag in in_order(tags))
