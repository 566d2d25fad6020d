"""How many tokens a prompt takes in CLIP's text encoders, and the tags that fit them."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from authface.annotate.vocabulary.vocabulary import in_order, prompt
from authface.models.tiny import clip_tokenizer
from authface.records import Tag

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

MOST_TOKENS: Final = 75
"""CLIP reads 77, of which one begins and one ends the prompt; SDXL's two encoders have the same tokenizer."""


def count(text: str) -> int:
    """Tokens of a prompt without those that begin and end it."""
    return len(_tokenizer()(text, add_special_tokens=False, verbose=False)["input_ids"])


def fit(tags: Iterable[Tag], most: int = MOST_TOKENS) -> tuple[Tag, ...]:
    """The tags in the vocabulary's order, without the last ones, whole, that the prompt has no room for.

    The groups stand in the order of their priority, so the background goes first and what identifies a face last.
    """
    kept = list(in_order(tags))
    while kept and count(prompt(kept)) > most:
        kept.pop()
    return tuple(kept)


@functools.cache
def _tokenizer() -> CLIPTokenizer:
    return clip_tokenizer()
