"""CLIP's tokens of a prompt: counted a small table has the vocabulary's words, CLIP's own tokenizer the others."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from authface.annotate.vocabulary.vocabulary import GROUP_OF, MOST_TOKENS, in_order, prompt
from authface.extras import need
from authface.models.tiny import clip_tokenizer
from authface.records import Tag

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

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
