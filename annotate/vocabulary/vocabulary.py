"""The vocabulary of tags, and the prompt they make, which has to fit CLIP's text encoders.

Under the closed vocabulary an annotator gives these tags only; `authface.annotate.vocabulary.wording` finds them in
free text. Left and right are those of the picture as it is seen.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterable
from importlib import resources
from typing import TYPE_CHECKING, Final

from authface.extras import need
from authface.models.tiny import clip_tokenizer
from authface.records import Tag

if TYPE_CHECKING:
    from transformers import CLIPTokenizer


_HELD = tomllib.loads((resources.files("authface.annotate.vocabulary") / "vocabulary.toml").read_text("utf-8"))
VOCABULARY: Final[dict[str, list[str]]] = _HELD["tags"]
"""Tags by group. The order of the groups is their priority in a prompt, that of the tags their order within it:
a text encoder cuts a prompt after 75 tokens, so what identifies a picture comes first."""

SYNONYMS: Final[dict[str, str]] = _HELD["synonyms"]
"""What else a tag is called, separated by commas."""

SEMANTIC: Final = ("framing", "age", "pose", "hair", "accessories")
"""Groups that say what is seen; the others say how it was photographed."""

OTHER: Final = "other"
"""Group of the words that the open vocabulary lets pass; it comes last."""

GROUP_OF: Final[dict[str, str]] = {name: group for group, names in VOCABULARY.items() for name in names}
"""The group of every tag."""

MOST_TOKENS: Final = 75
"""CLIP reads 77, of which one begins and one ends the prompt; SDXL's two encoders have the same tokenizer."""

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


_PIECE: Final = re.compile(r"[a-z]+|[^\sa-z]+")
"""CLIP's own cut of lower-case ASCII without digits and apostrophes, before it looks for tokens: words, and marks."""
_SEVERAL: Final = dict.fromkeys(
    (
        "backlit", "bokeh", "catchlights", "dappled", "dewy", "dreadlocks", "goatee", "hairline", "headscarf", "moles",
        "pores", "receding", "sepia", "shaven", "softbox", "specular", "squinting", "strands", "stubble", "tanned",
        "telephoto", "tilted", "vignette",
    ),
    2,
) | {"blemishes": 3, "frowning": 3}  # fmt: skip
"""The tokens of those words of the vocabulary that are not one; a test asks CLIP's tokenizer for every word."""
_KNOWN: Final = frozenset(piece for name in GROUP_OF for piece in _PIECE.findall(name)) | {","}


@functools.lru_cache(256)
def count_tokens(text: str) -> int:
    """CLIP's tokens of a prompt, without those that begin and end it.

    Raises UsageError where words are not of the vocabulary and CLIP's tokenizer, of the extra `annotate`, lacks.
    """
    pieces = _PIECE.findall(text)
    if all(piece in _KNOWN for piece in pieces):
        return sum(_SEVERAL.get(piece, 1) for piece in pieces)
    return len(tokenizer()(text, add_special_tokens=False, verbose=False)["input_ids"])


def fitting_tags(tags: Iterable[Tag], most: int = MOST_TOKENS) -> tuple[Tag, ...]:
    """The tags in the vocabulary's order, without the last ones, whole, that the prompt has no room for.

    The groups stand in the order of their priority, so the background goes first and what identifies a face last.
    """
    kept = list(in_order(tags))
    while kept and count_tokens(prompt(kept)) > most:
        kept.pop()
    return tuple(kept)


@functools.cache
def tokenizer() -> CLIPTokenizer:
    """CLIP's own. Raises UsageError without the extra `annotate`."""
    need("a prompt with words beyond the vocabulary", "annotate", "transformers", "clip")
    return clip_tokenizer()
