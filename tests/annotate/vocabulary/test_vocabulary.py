"""The closed vocabulary and the prompt, which fits CLIP's 75 tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface import extras
from authface.annotate.vocabulary.vocabulary import (
    GROUP_OF,
    MOST_TOKENS,
    SEMANTIC,
    VOCABULARY,
    count_tokens,
    fitting_tags,
    in_order,
    make_tag,
    prompt,
    tokenizer,
)
from authface.errors import UsageError
from authface.records import Tag

known = st.builds(make_tag, st.sampled_from(sorted(GROUP_OF)), st.floats(0, 1))
unknown = st.builds(lambda name: Tag(name=name, group="other", confidence=0.5), st.sampled_from(["zebra", "aurora"]))


def test_a_name_belongs_to_one_group_and_needs_no_escaping() -> None:
    names = [name for names in VOCABULARY.values() for name in names]
    assert len(names) == len(set(names))
    assert all(name == name.lower().strip() and "," not in name for name in names)
    assert set(SEMANTIC) < set(VOCABULARY)


def test_a_prompt_reads_from_what_is_seen_to_how_it_was_taken() -> None:
    found = [make_tag(name, 0.9) for name in ("low key", "smiling", "close-up portrait", "glasses")]
    assert prompt(found) == "close-up portrait, smiling, glasses, low key"
    assert prompt([]) == ""


def test_a_tag_outside_of_the_vocabulary_cannot_be_made() -> None:
    with pytest.raises(KeyError):
        make_tag("handsome", 1)


@given(st.lists(known | unknown), st.randoms())
def test_the_prompt_does_not_depend_on_the_order_and_repeats_nothing(tags: list[Tag], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = random.sample(tags, len(tags))
    assert prompt(tags) == prompt(shuffled) == prompt([*tags, *tags])
    names = prompt(tags).split(", ") if tags else []
    assert sorted(names) == sorted({tag.name for tag in tags})
    for tag in in_order(tags):
        assert tag.confidence == max(other.confidence for other in tags if other.name == tag.name)


def by_clip(text: str) -> int:
    return len(tokenizer()(text, add_special_tokens=False, verbose=False)["input_ids"])


def test_every_tag_has_as_many_tokens_as_clip_says() -> None:
    assert {name: count_tokens(name) for name in GROUP_OF} == {name: by_clip(name) for name in GROUP_OF}


@given(st.lists(st.sampled_from([*sorted(GROUP_OF), "it's", "Smiling", "24 mm", "moles moles", "x,,y"]), max_size=40))
def test_any_prompt_has_as_many_tokens_as_clip_says(names: list[str]) -> None:
    assert count_tokens(", ".join(names)) == by_clip(", ".join(names))


def test_words_of_the_vocabulary_need_no_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer.cache_clear()
    monkeypatch.setattr(extras, "installed", lambda module: module != "transformers")
    assert count_tokens("close-up portrait, blemishes") == 8
    with pytest.raises(UsageError, match=r"needs transformers: pip install 'authface\[annotate\]'"):
        count_tokens("zeppelin")


def test_tokens_are_counted_without_begin_and_end() -> None:
    assert count_tokens("") == 0
    assert count_tokens("smiling") == 1 and count_tokens("smiling, hat") == 3
    assert count_tokens("smiling, " * 100) == 200


@given(st.lists(st.sampled_from(sorted(GROUP_OF)), max_size=60), st.integers(0, MOST_TOKENS))
def test_the_last_tags_go_whole_until_the_rest_fits(names: list[str], most: int) -> None:
    tags: list[Tag] = [make_tag(name, 1.0) for name in names]
    kept = fitting_tags(tags, most)
    whole = in_order(tags)
    assert kept == whole[: len(kept)]
    assert count_tokens(prompt(kept)) <= most
    assert len(kept) == len(whole) or count_tokens(prompt(whole[: len(kept) + 1])) > most
