"""Prompts fit CLIP's 75 tokens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from authface.annotate.vocabulary.tokens import MOST_TOKENS, count, fit
from authface.annotate.vocabulary.vocabulary import GROUP_OF, in_order, make_tag, prompt
from authface.records import Tag


def test_tokens_are_counted_without_begin_and_end() -> None:
    assert count("") == 0
    assert count("smiling") == 1 and count("smiling, hat") == 3
    assert count("smiling, " * 100) == 200


@given(st.lists(st.sampled_from(sorted(GROUP_OF)), max_size=60), st.integers(0, MOST_TOKENS))
def test_the_last_tags_go_whole_until_the_rest_fits(names: list[str], most: int) -> None:
    tags: list[Tag] = [make_tag(name, 1.0) for name in names]
    kept = fit(tags, most)
    whole = in_order(tags)
    assert kept == whole[: len(kept)]
    assert count(prompt(kept)) <= most
    assert len(kept) == len(whole) or count(prompt(whole[: len(kept) + 1])) > most
