"""The closed vocabulary and the prompt, which fits CLIP's 75 tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.annotate.vocabulary.vocabulary import (
    GROUP_OF,
    SEMANTIC,
    VOCABULARY,
    in_order,
    make_tag,
    prompt,
)
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
